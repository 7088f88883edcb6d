package predicate

import (
	"encoding/json"
	"strings"
	"testing"
)

// expressions are such as people write, and what of them is counted.
func expressions() map[string]string {
	return map[string]string{
		"numbers": "config.min <= config.max", "texts": "plan == 'business' && region in ['eu', 'us']",
		"three":   "config.min <= config.max && config.who.endsWith('@x.dev') && plan != 'free'",
		"present": "!has(config.at) || config.at.port > 0",
		"list":    "config.l.all(x, x.endsWith('@x.dev'))",
	}
}

func businessScope(tb testing.TB) *Scope {
	tb.Helper()
	s, err := NewScope(Plan, Region, Config)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func business(tb testing.TB) map[string]any {
	tb.Helper()
	var o map[string]any
	if err := json.Unmarshal([]byte(`{"min":1,"max":5,"who":"a@x.dev","l":["a@x.dev","b@x.dev","c@x.dev"]}`), &o); err != nil {
		tb.Fatal(err)
	}
	return map[string]any{Plan: "business", Region: "eu", Config: o}
}

// Short expressions are not counted, and what may be long is: an expression is not counted only if no value can make it
// cost more than ten times the limit.
func TestWhatIsCounted(t *testing.T) {
	t.Parallel()
	s := businessScope(t)
	big := map[string]any{Plan: "business", Region: "eu", Config: map[string]any{
		"t": strings.Repeat("a", 200_000), "l": strings.Split(strings.Repeat("x,", 9_999)+"x", ","),
	}}
	for text, counted := range map[string]bool{
		"config.t != ''": false, "config.t == config.t": false, "config.t.startsWith('a')": false, "plan in ['a', 'business']": false,
		"config.l.all(x, x != 'y')":                            true,
		"config.t.matches('^(a+)+$') && config.t.matches('b')": true,
	} {
		p, err := s.Compile(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if _, err := p.Holds(big); (err != nil) != counted {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// Counting is what is compared: the same expressions, in one run.
func BenchmarkCounting(b *testing.B) {
	s, values := businessScope(b), business(b)
	for name, text := range expressions() {
		for how, free := range map[string]uint64{"counted": 0, "as compiled": uncounted} {
			p, err := s.compile(text, free)
			if err != nil {
				b.Fatal(err)
			}
			b.Run(name+"/"+how, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if ok, err := p.Holds(values); !ok || err != nil {
						b.Fatal(ok, err)
					}
				}
			})
		}
	}
}
