package predicate_test

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/predicate"
)

func scope(tb testing.TB) *predicate.Scope {
	tb.Helper()
	s, err := predicate.NewScope(predicate.Tenant, predicate.Plan, predicate.Region, predicate.Environment, predicate.Config)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func values(tb testing.TB, config string) map[string]any {
	tb.Helper()
	var o map[string]any
	if err := json.Unmarshal([]byte(config), &o); err != nil {
		tb.Fatal(err)
	}
	return map[string]any{
		predicate.Tenant: "acme", predicate.Plan: "business", predicate.Region: "eu", predicate.Environment: "production", predicate.Config: o,
	}
}

func TestHolds(t *testing.T) {
	t.Parallel()
	v := values(t, `{"min":1,"max":5,"on":true,"who":["a@x.dev","b@x.dev"],"at":{"host":"h"},"none":null}`)
	for text, want := range map[string]bool{
		"config.min <= config.max": true, "config.max > 5": false, "config.max == 5": true, "config.max + 1.0 == 6.0": true,
		"config.who.all(w, w.endsWith('@x.dev'))": true, "has(config.at.port)": false, "!has(config.at) || config.at.host != ''": true,
		"plan == 'business' && region in ['eu', 'us']": true, "tenant.startsWith('a') && environment == 'production'": true,
		"config.none == null": true, "config.on": true, "config.who.matches": false, "size(config.who) == 2": true,
	} {
		p, err := scope(t).Compile(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got, err := p.Holds(v)
		if text == "config.who.matches" {
			if !errors.Is(err, predicate.ErrValue) {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		if err != nil || got != want {
			t.Errorf("%s is %t, %v; want %t", text, got, err, want)
		}
	}
}

func TestNoValue(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"config.secret == 'x'", "config.a / 0 == 1", "config.a.b.c", "config.a < 'text'", "config.a"} {
		p, err := scope(t).Compile(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if _, err := p.Holds(values(t, `{"a":1}`)); !errors.Is(err, predicate.ErrValue) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// hostile are expressions that want more than they may have.
func hostile() map[string]string {
	nested := "true"
	for range 3 {
		nested = "config.l.all(x, " + nested + ")"
	}
	return map[string]string{
		"long":             strings.Repeat("true && ", 600) + "true",
		"deep":             strings.Repeat("(", 200) + "true" + strings.Repeat(")", 200),
		"loops in loops":   nested,
		"pairs and text":   "config.l.all(x, config.l.all(y, string(x) + string(y) != ''))",
		"no truth value":   "config.max + 1.0 == 2.0 ? 'a' : 'b'",
		"unknown variable": "request.path == '/'",
		"unknown function": "lists.range(1000000).size() > 0",
		"not CEL":          "config.a ==",
		"another language": "'; DROP TABLE x; --",
		"empty":            "",
		"NUL":              "true\x00",
	}
}

// patience is for the machine. Work that is not counted takes minutes, or all memory.
const patience = 20 * time.Second

func TestHostileExpressionsAreRefused(t *testing.T) {
	t.Parallel()
	s := scope(t)
	for name, text := range hostile() {
		start := time.Now()
		if _, err := s.Compile(text); !errors.Is(err, predicate.ErrExpression) {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(start); took > patience {
			t.Errorf("%s: refused after %s", name, took)
		}
	}
}

// What is accepted because values are usually small is given up when they are not.
func TestCostIsCountedWhileItRuns(t *testing.T) {
	t.Parallel()
	big := `{"l":[` + strings.TrimSuffix(strings.Repeat(`"xxxxxxxxxx",`, 20_000), ",") + `],"t":"` + strings.Repeat("a", 200_000) + `"}`
	v := values(t, big)
	for _, text := range []string{"config.l.all(x, x != 'y')", "config.l.exists(x, x.contains('y'))", "config.t.matches('^(a+)+$') && config.t.matches('b')",
		"config.l.map(x, x + 'z').size() > 0"} {
		p, err := scope(t).Compile(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		start := time.Now()
		if _, err := p.Holds(v); !errors.Is(err, predicate.ErrCost) {
			t.Errorf("%s: %v", text, err)
		}
		if took := time.Since(start); took > patience {
			t.Errorf("%s: given up after %s", text, took)
		}
	}
}

// nest is an expression in which each value is made of two of the one before: growth of 2 to the power of depth.
func nest(begin, twice, end string, depth int) string {
	text := end
	for i := depth; i > 0; i-- {
		name := func(i int) string { return "v" + strconv.Itoa(i) }
		of := name(i - 1)
		if i == 1 {
			of = begin
		}
		text = "[" + strings.ReplaceAll(twice, "x", of) + "].all(" + name(i) + ", " + strings.ReplaceAll(text, "END", name(i)) + ")"
	}
	return text
}

// What has a type only when it runs is counted by its size, and so is what stands in lists in lists: neither memory nor time
// grows beyond what may be spent.
func TestWhatHasNoTypeIsCounted(t *testing.T) {
	t.Parallel()
	ones := func(n int) string { return "[" + strings.TrimSuffix(strings.Repeat("1,", n), ",") + "]" }
	v := values(t, `{"t":"`+strings.Repeat("a", 50_000)+`","half":`+ones(500)+`,"l":`+ones(1000)+`,"big":`+ones(5000)+
		`,"deep":[`+ones(5000)+`],"same":[`+ones(5000)+`],"ten":["abcdefghij"]}`)
	for what, text := range map[string]string{
		"texts that grow":             nest("config.t", "x + x", "END != ''", 10),
		"lists that grow":             nest("config.l", "x + x", "END != []", 10),
		"lists that grow, compared":   nest("config.l", "x + x", "END == END", 10),
		"lists in lists":              nest("config.l", "[x, x]", "END == END", 20),
		"lists in lists, searched":    nest("config.l", "[x, x]", "END in [END]", 20),
		"maps in maps":                nest("config.l", "{'a': x, 'b': x}", "END != END", 20),
		"lists in a list, compared":   "config.l.all(x, config.deep == config.same)",
		"lists in a list, searched":   strings.Repeat("config.big in config.deep && ", 60) + "true",
		"a list searched":             strings.Repeat("1 in config.big && ", 60) + "true",
		"sizes of texts":              "config.l.all(x, size(config.t) > 1)",
		"texts compared":              "config.l.all(x, config.t >= config.t)",
		"texts that are joined often": "config.l.all(x, config.t + 'x' != '')",
	} {
		p, err := scope(t).Compile(text)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		start := time.Now()
		if got, err := p.Holds(v); !errors.Is(err, predicate.ErrCost) {
			t.Errorf("%s: %t, %v", what, got, err)
		}
		if took := time.Since(start); took > patience {
			t.Errorf("%s: given up after %s", what, took)
		}
	}
	for _, text := range []string{ // and what people write is not dear
		"config.ten.map(x, x + 'z')[0] == 'abcdefghijz'", "config.half.map(x, x + 1.0).size() == 500", "config.l != [] && config.t != ''",
		"config.deep == config.same", "config.ten[0] in [config.t, config.ten[0]]", "1 in config.l && !(2 in config.l)", "'a' in {'a': config.t}",
		"config.ten + config.ten == ['abcdefghij', 'abcdefghij']", "config.deep != [config.t]", "size(config.t) == 50000",
	} {
		p, err := scope(t).Compile(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, err := p.Holds(v); !got || err != nil {
			t.Errorf("%s: %t, %v", text, got, err)
		}
	}
}

func FuzzCompile(f *testing.F) {
	f.Add("config.min <= config.max")
	for _, text := range hostile() {
		f.Add(text)
	}
	s := scope(f)
	v := values(f, `{"l":[1,2,3],"max":5}`)
	f.Fuzz(func(_ *testing.T, text string) {
		if p, err := s.Compile(text); err == nil {
			_, _ = p.Holds(v)
		}
	})
}

func BenchmarkHolds(b *testing.B) {
	v := values(b, `{"min":1,"max":5,"who":"a@x.dev"}`)
	for name, text := range map[string]string{
		"typical": "config.min <= config.max", "plan": "plan == 'business' && region in ['eu', 'us']",
		"three": "config.min <= config.max && config.who.endsWith('@x.dev') && plan != 'free'",
	} {
		p, err := scope(b).Compile(text)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if ok, err := p.Holds(v); !ok || err != nil {
					b.Fatal(ok, err)
				}
			}
		})
	}
}

// One match is bounded before it runs: by its pattern, which nobody sends, and by its text.
func TestMatchesAreBounded(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"config.t.matches(config.p)", "matches(config.t, plan)", "config.t.matches(config.on ? 'a' : 'b')",
		"config.t.matches('Mozilla.{0,900}Mobile')", "matches(config.t, '" + strings.Repeat("[xy].{0,99}", 9) + "')", "config.t.matches('(')",
	} {
		if _, err := scope(t).Compile(text); !errors.Is(err, predicate.ErrExpression) {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{`config.t.matches("^[a-z]{1,40}( [a-z]+)*$")`, `matches(config.t, "^[a-z]{1,40}( [a-z]+)*$")`} {
		p, err := scope(t).Compile(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		long := strings.Repeat("abc ", 1023) + "ab"
		for value, want := range map[string]error{long: nil, long + " a": nil, long + " ab": predicate.ErrValue} {
			if _, err := p.Holds(values(t, `{"t":"`+value+`"}`)); !errors.Is(err, want) {
				t.Errorf("%s of %d bytes: %v, want %v", text, len(value), err, want)
			}
		}
		if got, err := p.Holds(values(t, `{"t":"abc def"}`)); !got || err != nil {
			t.Errorf("%s: %t, %v", text, got, err)
		}
	}
}
