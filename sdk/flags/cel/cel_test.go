package cel_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/sdk/flags/cel"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/flagset"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/jsonlogic"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

func conditions(tb testing.TB) flagset.Option {
	tb.Helper()
	c, err := cel.New()
	if err != nil {
		tb.Fatal(err)
	}
	return flagset.WithConditions(c)
}

// document is a flag "a" with this targeting, beside a flag "b" without.
func document(tb testing.TB, targeting string) map[string]any {
	tb.Helper()
	o, err := settings.Parse(fmt.Appendf(nil, `{"flags":{
		"a":{"state":"ENABLED","variants":{"true":1,"false":2,"on":3},"targeting":%s},
		"b":{"state":"ENABLED","variants":{"on":true},"defaultVariant":"on"}}}`, targeting))
	if err != nil {
		tb.Fatal(err)
	}
	return o
}

func who(tb testing.TB, attributes string) *flagset.Context {
	tb.Helper()
	o, err := settings.Parse([]byte(attributes))
	if err != nil {
		tb.Fatal(err)
	}
	c, err := flagset.NewContext(flagset.Identity{Tenant: "acme", Plan: "free", Region: "eu-central"}, o)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func answer(r flagset.Result) string {
	return r.Variant() + " " + r.Reason().String() + " " + r.Code().String()
}

func TestConditions(t *testing.T) {
	t.Parallel()
	list := strings.TrimSuffix(strings.Repeat(`"x",`, 5000), ",")
	for _, c := range []struct{ targeting, attributes, want string }{
		{`{"cel":"plan == 'free' && tenant == 'acme'"}`, `{}`, "true TARGETING_MATCH "},
		{`{"cel":"region.startsWith('us-') || environment == 'staging'"}`, `{}`, "false TARGETING_MATCH "},
		{`{"cel":"context.email.endsWith('@x.dev')"}`, `{"email":"ann@x.dev"}`, "true TARGETING_MATCH "},
		{`{"cel":"context.tenant == tenant && context.plan == plan"}`, `{"plan":"enterprise"}`, "true TARGETING_MATCH "},
		{`{"cel":"has(context.age) && context.age >= 18"}`, `{"age":18}`, "true TARGETING_MATCH "},
		{`{"cel":"has(context.age) && context.age >= 18"}`, `{}`, "false TARGETING_MATCH "},
		{`{"cel":"context.groups.exists(g, g in ['beta', 'staff'])"}`, `{"groups":["x","beta"]}`, "true TARGETING_MATCH "},
		{`{"if":[{"cel":"context.n > 3.5"},"on",null]}`, `{"n":4}`, "on TARGETING_MATCH "},
		{`{"and":[{"==":[{"var":"plan"},"free"]},{"cel":"size(context.groups) == 0"}]}`, `{"groups":[]}`, "true TARGETING_MATCH "},
		{`{"some":[{"var":"groups"},{"and":[{"==":[{"var":""},"beta"]},{"cel":"plan == 'free'"}]}]}`, `{"groups":["beta"]}`, "true TARGETING_MATCH "},
		{`{"cel":"context.missing == 1"}`, `{}`, " ERROR PARSE_ERROR"},
		{`{"cel":"context.email < 3"}`, `{"email":"x"}`, " ERROR PARSE_ERROR"},
		{`{"try":[{"cel":"context.missing == 1"},"on"]}`, `{}`, "on TARGETING_MATCH "},
		{`{"try":[{"cel":"context.missing == 1"},{"if":[{"==":[{"var":"type"},"CEL"]},"on","other"]}]}`, `{}`, "on TARGETING_MATCH "},
		{`{"try":[{"cel":"context.l.exists(x, x == 'y')"},"on"]}`, `{"l":[` + list + `]}`, " ERROR GENERAL"},
		{`{"some":[{"var":"l"},{"cel":"plan == 'enterprise'"}]}`, `{"l":[` + list + `]}`, " ERROR GENERAL"},
	} {
		set, err := flagset.Compile(document(t, c.targeting), time.Now, conditions(t))
		if err != nil {
			t.Fatal(err)
		}
		if got := answer(set.Evaluate("a", who(t, c.attributes))); got != c.want {
			t.Errorf("%s over %.60s: %q, want %q", c.targeting, c.attributes, got, c.want)
		}
		if problems, err := flagset.Validate(document(t, c.targeting), conditions(t)); err != nil || len(problems) > 0 && !strings.Contains(c.targeting, "other") {
			t.Errorf("%s: %v, %v", c.targeting, problems, err)
		}
	}
}

// Without an evaluator of conditions, the flag that has one fails, whatever branch is taken, and no other.
func TestWithoutConditions(t *testing.T) {
	t.Parallel()
	for _, targeting := range []string{
		`{"cel":"true"}`, `{"if":[true,"on",{"cel":"true"}]}`, `{"try":[{"cel":"true"},"on"]}`, `{"if":[{"some":[[1],{"cel":"true"}]},"on"]}`,
	} {
		set, err := flagset.Compile(document(t, targeting), time.Now)
		if err != nil {
			t.Fatal(err)
		}
		if a, b := answer(set.Evaluate("a", who(t, `{}`))), answer(set.Evaluate("b", who(t, `{}`))); a != " ERROR PARSE_ERROR" || b != "on STATIC " {
			t.Errorf("%s: %q and %q", targeting, a, b)
		}
		if problems, err := flagset.Validate(document(t, targeting)); err != nil || len(problems) != 1 || !strings.HasPrefix(problems[0].Pointer, "/flags/a/targeting") {
			t.Errorf("%s: %v, %v", targeting, problems, err)
		}
	}
	off := document(t, `{"cel":"true"}`)
	off["flags"].(map[string]any)["a"].(map[string]any)["state"] = "DISABLED"
	set, err := flagset.Compile(off, time.Now)
	if err != nil || answer(set.Evaluate("a", who(t, `{}`))) != " DISABLED " {
		t.Errorf("a disabled flag: %v", err)
	}
}

func TestConditionsThatAreRefused(t *testing.T) {
	t.Parallel()
	nested := "true"
	for range 3 {
		nested = "context.l.all(x, " + nested + ")"
	}
	for name, text := range map[string]string{
		"not CEL": `"plan =="`, "unknown variable": `"config.x == 1"`, "no truth value": `"plan"`, "too long": `"` + strings.Repeat("true && ", 600) + `true"`,
		"loops in loops": `"` + nested + `"`, "no text": `["true"]`, "a number": `1`, "computed": `{"var":"x"}`, "unknown function": `"now() > 1"`,
	} {
		problems, err := flagset.Validate(document(t, `{"if":[{"cel":`+text+`},"on"]}`), conditions(t))
		if err != nil || len(problems) == 0 || problems[0].Pointer != "/flags/a/targeting/if/0" {
			t.Errorf("%s: %v, %v", name, problems, err)
		}
	}
	if problems, _ := flagset.Validate(document(t, `{"cel":"true"}`), conditions(t)); len(problems) > 0 {
		t.Error(problems)
	}
	o := document(t, `{"cel":"true"}`)
	delete(o["flags"].(map[string]any)["a"].(map[string]any)["variants"].(map[string]any), "false")
	if problems, _ := flagset.Validate(o, conditions(t)); len(problems) != 1 || !strings.Contains(problems[0].Text, `"false" names no variant`) {
		t.Error(problems)
	}
}

// Evaluators that do not know the operator get no flag that has it, and no shared rule.
func TestConditionsAreNotServedToOthers(t *testing.T) {
	t.Parallel()
	o, err := settings.Parse([]byte(`{
		"$evaluators":{"staff":{"cel":"context.staff"},"both":{"or":[{"$ref":"staff"},true]},"plain":{"==":[{"var":"plan"},"free"]}},
		"flags":{
			"direct":{"state":"ENABLED","variants":{"true":1,"false":2},"targeting":{"cel":"true"}},
			"shared":{"state":"DISABLED","variants":{"on":1},"targeting":{"if":[{"$ref":"both"},"on"]}},
			"kept":{"state":"ENABLED","variants":{"on":1},"targeting":{"if":[{"$ref":"plain"},"on"]}},
			"text":{"state":"ENABLED","variants":{"on":{"cel":"true"}},"defaultVariant":"on"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, with := range [][]flagset.Option{nil, {conditions(t)}} {
		set, err := flagset.Compile(o, time.Now, with...)
		if err != nil {
			t.Fatal(err)
		}
		over, err := flagset.CompileOver(set, o, time.Now, with...)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []*flagset.Set{set, over} {
			document := s.Document()
			got := fmt.Sprint(keys(document["flags"]), keys(document["$evaluators"]))
			if diff := cmp.Diff("[kept text] [plain]", got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		}
	}
}

func keys(v any) []string {
	o, _ := v.(map[string]any)
	out := []string{}
	for _, name := range []string{"both", "direct", "kept", "plain", "shared", "staff", "text"} {
		if _, ok := o[name]; ok {
			out = append(out, name)
		}
	}
	return out
}

// What anybody writes as a condition, and whatever it is evaluated over, there is an answer.
func FuzzConditions(f *testing.F) {
	f.Add("plan == 'free'", `{"a":1}`)
	f.Add("context.a.exists(x, x > 1.0)", `{"a":[1,"b",{}]}`)
	f.Add("context.a.b[0] in context", `{"a":{"b":[null]}}`)
	c, err := cel.New()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(_ *testing.T, text, attributes string) {
		condition, err := c.Compile(text)
		if err != nil {
			return
		}
		o, err := settings.Parse([]byte(attributes))
		if err != nil {
			return
		}
		if data, err := jsonlogic.Of(o); err == nil {
			_, _ = condition.Holds(data)
		}
	})
}

// What a condition takes must not grow with what a caller sends that it does not ask for.
func TestMentionsDoNotCopyTheContext(t *testing.T) { //nolint:paralleltest // it counts allocations
	c, err := cel.New()
	if err != nil {
		t.Fatal(err)
	}
	condition, err := c.Compile(mentions)
	if err != nil {
		t.Fatal(err)
	}
	allocated := func(attributes string) float64 {
		data := who(t, attributes).Data()
		return testing.AllocsPerRun(10, func() {
			if holds, err := condition.Holds(data); !holds || err != nil {
				t.Fatal(holds, err)
			}
		})
	}
	if few, many := allocated(`{"a":1}`), allocated(large()); many > few {
		t.Errorf("%v allocations with a large context, %v with a small one", many, few)
	}
}

// mentions asks for an attribute a hundred times.
var mentions = strings.TrimSuffix(strings.Repeat("context.a == 1 && ", 100), " && ")

// large is a context of a thousand attributes.
func large() string {
	var b strings.Builder
	for i := range 999 {
		fmt.Fprintf(&b, `"attribute%d":["x",{"y":%d}],`, i, i)
	}
	return `{` + b.String() + `"a":1}`
}

func BenchmarkCondition(b *testing.B) {
	small := `{"email":"ann@x.dev","age":40,"groups":["a","b"],"targetingKey":"ann","a":1}`
	for name, targeting := range map[string]string{
		"plan": `{"cel":"plan == 'free' && region in ['eu-central', 'us-east']"}`, "context": `{"cel":"context.email.endsWith('@x.dev')"}`,
		"jsonlogic": `{"ends_with":[{"var":"email"},"@x.dev"]}`, "mentions": `{"cel":"` + mentions + `"}`, "large": `{"cel":"` + mentions + `"}`,
	} {
		set, err := flagset.Compile(document(b, targeting), time.Now, conditions(b))
		if err != nil {
			b.Fatal(err)
		}
		c := who(b, small)
		if name == "large" {
			c = who(b, large())
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if r := set.Evaluate("a", c); r.Variant() != "true" {
					b.Fatal(answer(r))
				}
			}
		})
	}
}

// Why tells what Evaluate's code does not.
func TestWhy(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ targeting, attributes, want string }{
		{`{"cel":"context.missing == 1"}`, `{}`, "its condition: no such key: missing"},
		{`{"if":[{"cel":"context.age > 3"},"on"]}`, `{"age":"old"}`, "its condition: no such overload"},
		{`{"try":[{"cel":"context.missing == 1"},{"throw":"mine"}]}`, `{}`, "its targeting fails: mine"},
		{`{"try":[{"cel":"context.missing == 1"},"on"]}`, `{}`, ""},
		{`{"cel":"true"}`, `{}`, ""},
		{`{"if":[{"cel":"true"},"of"]}`, `{}`, `its targeting gives "of", which is no variant`},
		{`{"+":["x",1]}`, `{}`, "its targeting fails: NaN"},
	} {
		set, err := flagset.Compile(document(t, c.targeting), time.Now, conditions(t))
		if err != nil {
			t.Fatal(err)
		}
		if got := set.Why("a", who(t, c.attributes)); got != c.want {
			t.Errorf("%s over %s: %q, want %q", c.targeting, c.attributes, got, c.want)
		}
		if got := set.Why("b", who(t, c.attributes)); got != "" {
			t.Errorf("nothing is wrong with b: %s", got)
		}
	}
}
