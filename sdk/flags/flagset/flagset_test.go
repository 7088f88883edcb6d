package flagset_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/sdk/flags/flagset"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/jsonlogic"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

func at(seconds int64) func() time.Time { return func() time.Time { return time.Unix(seconds, 0) } }

func parse(t testing.TB, document string) map[string]any {
	t.Helper()
	parsed, err := settings.Parse([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func compile(t testing.TB, document string) *flagset.Set {
	t.Helper()
	set, err := flagset.Compile(parse(t, document), at(1000))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func contextOf(t testing.TB, who flagset.Identity, attributes map[string]any) *flagset.Context {
	t.Helper()
	c, err := flagset.NewContext(who, attributes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// say is a result in one line: value, variant, reason and code.
func say(r flagset.Result) string {
	return strings.TrimSpace(fmt.Sprintf("%v %s %s %s", r.Value(), r.Variant(), r.Reason(), r.Code()))
}

func TestEvaluate(t *testing.T) {
	t.Parallel()
	const variants = `"variants":{"on":true,"off":false,"true":1,"2.5":"two and a half","none":null}`
	tests := map[string]struct{ flag, want string }{
		"static":                  {`{"state":"ENABLED","defaultVariant":"on"`, "true on STATIC"},
		"a false value":           {`{"state":"ENABLED","defaultVariant":"off"`, "false off STATIC"},
		"empty targeting":         {`{"state":"ENABLED","defaultVariant":"on","targeting":{}`, "true on STATIC"},
		"targeting null":          {`{"state":"ENABLED","defaultVariant":"on","targeting":null`, "true on DEFAULT"},
		"disabled":                {`{"state":"DISABLED","defaultVariant":"on","targeting":{"var":"x"}`, "<nil>  DISABLED"},
		"no state":                {`"defaultVariant":"on"`, "true on STATIC"},
		"no default":              {`{"state":"ENABLED"`, "<nil>  DEFAULT"},
		"default null":            {`{"state":"ENABLED","defaultVariant":null`, "<nil>  DEFAULT"},
		"default empty":           {`{"state":"ENABLED","defaultVariant":""`, "<nil>  DEFAULT"},
		"default unknown":         {`{"state":"ENABLED","defaultVariant":"x"`, "<nil>  ERROR GENERAL"},
		"default a number":        {`{"state":"ENABLED","defaultVariant":1`, "<nil>  ERROR PARSE_ERROR"},
		"match":                   {`{"state":"ENABLED","defaultVariant":"on","targeting":{"var":"pick"}`, "false off TARGETING_MATCH"},
		"match true":              {`{"state":"ENABLED","targeting":{"==":[1,1]}`, "1 true TARGETING_MATCH"},
		"match a number":          {`{"state":"ENABLED","targeting":{"+":[1,1.5]}`, "two and a half 2.5 TARGETING_MATCH"},
		"match null":              {`{"state":"ENABLED","targeting":{"cat":["none"]}`, "<nil> none TARGETING_MATCH"},
		"no match":                {`{"state":"ENABLED","defaultVariant":"on","targeting":{"var":"x"}`, "true on DEFAULT"},
		"no match, no default":    {`{"state":"ENABLED","targeting":{"var":"x"}`, "<nil>  DEFAULT"},
		"no match, bad default":   {`{"state":"ENABLED","defaultVariant":"x","targeting":{"var":"x"}`, "<nil>  ERROR GENERAL"},
		"unknown variant":         {`{"state":"ENABLED","defaultVariant":"on","targeting":{"cat":["x"]}`, "<nil>  ERROR GENERAL"},
		"a list is no variant":    {`{"state":"ENABLED","defaultVariant":"on","targeting":{"merge":["on"]}`, "<nil>  ERROR GENERAL"},
		"unknown operator":        {`{"state":"ENABLED","defaultVariant":"on","targeting":{"x":[1]}`, "<nil>  ERROR PARSE_ERROR"},
		"unresolved reference":    {`{"state":"ENABLED","defaultVariant":"on","targeting":{"$ref":"x"}`, "<nil>  ERROR PARSE_ERROR"},
		"too much":                {`{"state":"ENABLED","targeting":{"map":[` + zeros(4000) + `,{"+":[1,2,{"var":""}]}]}`, "<nil>  ERROR GENERAL"},
		"time":                    {`{"state":"ENABLED","targeting":{"if":[{">=":[{"var":"$flagd.timestamp"},1000]},"on"]}`, "true on TARGETING_MATCH"},
		"who asks":                {`{"state":"ENABLED","targeting":{"if":[{"==":[{"var":"plan"},"business"]},"on"]}`, "true on TARGETING_MATCH"},
		"metadata that is none":   {`{"state":"ENABLED","defaultVariant":"on","metadata":1`, "<nil>  ERROR PARSE_ERROR"},
		"by key and by its email": {`{"state":"ENABLED","targeting":{"fractional":[["on",1]]}`, "true on TARGETING_MATCH"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			flag := strings.TrimPrefix(test.flag, "{")
			set := compile(t, `{"flags":{"other":{"state":"ENABLED",`+variants+`,"defaultVariant":"on"},"f":{`+flag+`,`+variants+`}}}`)
			c := contextOf(t, flagset.Identity{Tenant: "acme", Plan: "business"}, map[string]any{
				"pick": "off", "targetingKey": "ann", "plan": "free",
			})
			if got := say(set.Evaluate("f", c)); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if got := say(set.Evaluate("other", c)); got != "true on STATIC" {
				t.Errorf("the other flag is %q", got)
			}
			if got := say(set.Evaluate("nowhere", c)); got != "<nil>  ERROR FLAG_NOT_FOUND" {
				t.Errorf("a flag that is not there is %q", got)
			}
		})
	}
}

func zeros(n int) string { return "[0" + strings.Repeat(",0", n-1) + "]" }

func TestBrokenFlagsFailAlone(t *testing.T) {
	t.Parallel()
	set := compile(t, `{"flags":{"a":7,"b":{"variants":[]},"c":{"state":"ENABLED","variants":{"x":[1]},"defaultVariant":"x"}}}`)
	var got []string
	for _, key := range set.Keys() {
		got = append(got, say(set.Evaluate(key, &flagset.Context{})))
	}
	want := []string{"<nil>  ERROR PARSE_ERROR", "<nil>  ERROR PARSE_ERROR", "[1] x STATIC"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestTypes(t *testing.T) {
	t.Parallel()
	set := compile(t, `{"flags":[
		{"key":"bool","variants":{"v":true},"defaultVariant":"v"},{"key":"text","variants":{"v":"é"},"defaultVariant":"v"},
		{"key":"ten","variants":{"v":10.0},"defaultVariant":"v"},{"key":"pi","variants":{"v":3.14},"defaultVariant":"v"},
		{"key":"large","variants":{"v":9000000000},"defaultVariant":"v"},{"key":"object","variants":{"v":{"x":1}},"defaultVariant":"v"},
		{"key":"off","state":"DISABLED","variants":{"v":true}},{"key":"broken"}
	]}`)
	tests := map[string]string{ // bool, text, int, float, object
		"bool":    "true OK | TYPE_MISMATCH | 0 TYPE_MISMATCH | 0 TYPE_MISMATCH | map[] TYPE_MISMATCH",
		"text":    "false TYPE_MISMATCH | é OK | 0 TYPE_MISMATCH | 0 TYPE_MISMATCH | map[] TYPE_MISMATCH",
		"ten":     "false TYPE_MISMATCH | TYPE_MISMATCH | 10 OK | 10 OK | map[] TYPE_MISMATCH",
		"pi":      "false TYPE_MISMATCH | TYPE_MISMATCH | 0 TYPE_MISMATCH | 3.14 OK | map[] TYPE_MISMATCH",
		"large":   "false TYPE_MISMATCH | TYPE_MISMATCH | 9000000000 OK | 9e+09 OK | map[] TYPE_MISMATCH",
		"object":  "false TYPE_MISMATCH | TYPE_MISMATCH | 0 TYPE_MISMATCH | 0 TYPE_MISMATCH | map[x:1] OK",
		"off":     "false OK | OK | 0 OK | 0 OK | map[] OK",
		"nowhere": "false FLAG_NOT_FOUND | FLAG_NOT_FOUND | 0 FLAG_NOT_FOUND | 0 FLAG_NOT_FOUND | map[] FLAG_NOT_FOUND",
	}
	code := func(c flagset.Code) string {
		if c == flagset.OK {
			return "OK"
		}
		return c.String()
	}
	for key, want := range tests {
		r := set.Evaluate(key, &flagset.Context{})
		b, bc := r.Bool()
		s, sc := r.Text()
		i, ic := r.Int()
		f, fc := r.Float()
		o, oc := r.Object()
		text := strings.TrimSpace(s + " " + code(sc))
		if got := fmt.Sprintf("%t %s | %s | %d %s | %v %s | %v %s", b, code(bc), text, i, code(ic), f, code(fc), o, code(oc)); got != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
}

func TestMetadata(t *testing.T) {
	t.Parallel()
	set := compile(t, `{"metadata":{"owner":"set","version":"1"},"flags":{
		"a":{"variants":{"v":1},"metadata":{"owner":"flag","version":null,"n":1}},"b":{"variants":{"v":1}}}}`)
	for key, want := range map[string]map[string]any{
		"a": {"owner": "flag", "version": "1", "n": 1.0}, "b": {"owner": "set", "version": "1"},
	} {
		if diff := cmp.Diff(want, set.Evaluate(key, &flagset.Context{}).Metadata()); diff != "" {
			t.Errorf("%s (-want +got)\n%s", key, diff)
		}
	}
	if diff := cmp.Diff(map[string]any{"owner": "set", "version": "1"}, set.Metadata()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestContextIsOurs(t *testing.T) {
	t.Parallel()
	who := flagset.Identity{Tenant: "acme", Plan: "business", Environment: "prod"}
	c := contextOf(t, who, map[string]any{
		"tenant": "acme", "plan": "free", "region": "eu", "environment": "dev", "$flagd": "x", "tags": []any{1, int64(2)},
	})
	want := map[string]any{"tenant": "acme", "plan": "business", "environment": "prod", "tags": []any{1.0, 2.0}}
	if diff := cmp.Diff(any(want), c.Data().Any()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for name, attributes := range map[string]map[string]any{
		"another tenant": {"tenant": "globex"}, "no tenant's name": {"tenant": 1}, "no JSON": {"x": struct{}{}},
	} {
		if _, err := flagset.NewContext(who, attributes); !errors.Is(err, flagset.ErrContext) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := flagset.ContextOf(who, jsonlogic.OfString("x")); !errors.Is(err, flagset.ErrContext) {
		t.Errorf("text for a context: %v", err)
	}
}

func TestCompileRefuses(t *testing.T) {
	t.Parallel()
	for document, where := range map[string]string{
		`{}`: "/flags", `{"flags":1}`: "/flags", `{"flags":{},"metadata":[]}`: "/metadata", `{"flags":{},"$evaluators":[]}`: "/$evaluators",
		`{"flags":[1]}`: "/flags/0/key", `{"flags":[{"key":"a"},{"key":"a"}]}`: "/flags/1/key",
	} {
		_, err := flagset.Compile(parse(t, document), at(0))
		if !errors.Is(err, flagset.ErrDocument) || !strings.Contains(err.Error(), ": "+where+" ") {
			t.Errorf("%s: %v, want %s", document, err, where)
		}
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	got, err := flagset.Validate(parse(t, `{"$evaluators":{"unused":{"nope":1},"who":{"if":[{"var":"x"},"on","gone"]}},"flags":{
		"fine":{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":null,
			"targeting":{"if":[{"==":["x","y"]},"on",{"fractional":[["off",1]]}]}},
		"a/b":{"state":"ON","variants":{"on":1},"defaultVariant":"x",
			"targeting":{"if":[{"$ref":"who"},{"fractional":[["on",1],["off",1.5]]},{"$ref":"who"},{"$ref":"lost"},"o"]}},
		"off":{"state":"DISABLED","variants":{},"targeting":{"==":[1,2]}},
		"odd":[]}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []flagset.Problem{
		{Pointer: "/$evaluators/unused", Text: `the operator "nope" does not exist`},
		{Pointer: "/flags/a~1b/defaultVariant", Text: "names no variant"},
		{Pointer: "/flags/a~1b/state", Text: "is neither ENABLED nor DISABLED"},
		{Pointer: "/flags/a~1b/targeting/if/1/fractional", Text: "a weight of fractional is no integer"},
		{Pointer: "/flags/a~1b/targeting/if/1/fractional/1/0", Text: `"off" names no variant of flag "a/b"`},
		{Pointer: "/flags/a~1b/targeting/if/3", Text: `there is no evaluator "lost"`},
		{Pointer: "/flags/a~1b/targeting/if/4", Text: `"o" names no variant of flag "a/b"`},
		{Pointer: "/flags/odd", Text: "is no object"},
		{Pointer: "/flags/off/targeting/==", Text: `"true" names no variant of flag "off"`},
		{Pointer: "/flags/off/targeting/==", Text: `"false" names no variant of flag "off"`},
		{Pointer: "/flags/off/variants", Text: "has none"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestTimes(t *testing.T) {
	t.Parallel()
	set := compile(t, `{"flags":{"t":{"variants":{"on":1},"targeting":{"<":[{"var":"$flagd.timestamp"},5]}},"s":{"variants":{"on":1}}}}`)
	want := jsonlogic.Times{Read: true, Instants: []int64{5, 6}}
	if diff := cmp.Diff(want, set.Times("t")); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if set.Times("s").Read || set.Times("nowhere").Read {
		t.Error("a flag without the time depends on it")
	}
}

// TestNoAllocations is the promise of the package for flags of plain values.
func TestNoAllocations(t *testing.T) {
	set := compile(t, `{"$evaluators":{"staff":{"ends_with":[{"var":"email"},"@example.com"]}},"flags":{
		"static":{"variants":{"v":"x"},"defaultVariant":"v"},
		"rule":{"variants":{"on":1,"off":2},"targeting":{"if":[{"and":[{"$ref":"staff"},{"in":[{"var":"plan"},["free","business"]]},
			{"<":[1,{"var":"seats"},1e9]},{">":[{"var":"seats"},"5"]},{"!":[{"==":[{"var":"user.country"},"DE"]}]},
			{"sem_ver":[{"var":"version"},"^","1.0.0"]},{"some":[{"var":"roles"},{"==":[{"var":""},"admin"]}]},
			{">":[{"var":"$flagd.timestamp"},1]}]},"on","off"]}},
		"split":{"variants":{"on":true,"off":false},"targeting":{"fractional":[
			{"cat":[{"var":"$flagd.flagKey"},{"var":"email"},{"var":"seats"}]},["on",1],["off",1]]}}}}`)
	c := contextOf(t, flagset.Identity{Tenant: "acme", Plan: "business"}, map[string]any{
		"email": "ann@example.com", "seats": 7, "user": map[string]any{"country": "AT"}, "version": "1.2", "roles": []any{"x", "admin"},
	})
	if got := say(set.Evaluate("rule", c)); got != "1 on TARGETING_MATCH" {
		t.Fatalf("the rule is %q", got)
	}
	for _, key := range set.Keys() {
		if n := testing.AllocsPerRun(1000, func() {
			r := set.Evaluate(key, c)
			_, _ = r.Bool()
			_, _ = r.Text()
			_, _ = r.Int()
			_, _ = r.Float()
		}); n > 0 {
			t.Errorf("%s: %v allocations", key, n)
		}
	}
}

// FuzzCompile publishes whatever JSON there is: nothing panics, and no flag takes long.
func FuzzCompile(f *testing.F) {
	for _, seed := range []string{
		`{"flags":{"f":{"state":"ENABLED","variants":{"on":true},"defaultVariant":"on","targeting":{"fractional":[["on",1]]}}}}`,
		`{"flags":[{"key":"f","variants":{"a":1},"metadata":{"x":null},"targeting":{"$ref":"r"}}],"$evaluators":{"r":{"$ref":"r"}}}`,
		`{"metadata":{"v":1},"flags":{"f":{"variants":null,"targeting":[{"var":""}]},"g":[]}}`,
	} {
		f.Add([]byte(seed), []byte(`{"targetingKey":"k","l":[1,{"a":null}]}`))
	}
	f.Fuzz(func(t *testing.T, text, attributes []byte) {
		document, err := settings.Parse(text)
		if err != nil {
			return
		}
		caller, err := settings.Parse(attributes)
		if err != nil {
			return
		}
		problems, invalid := flagset.Validate(document)
		set, err := flagset.Compile(document, at(1))
		if (err == nil) != (invalid == nil) {
			t.Fatalf("Compile says %v, Validate %v", err, invalid)
		}
		c, err := flagset.NewContext(flagset.Identity{Tenant: "acme"}, caller)
		if set == nil || err != nil {
			return
		}
		for _, key := range set.Keys() {
			r := set.Evaluate(key, c)
			if r.Code() == flagset.FlagNotFound || (r.Code() == flagset.OK) == (r.Reason() == flagset.Error) {
				t.Fatalf("%s: %s; %v", key, say(r), problems)
			}
			_, _ = r.Bool()
			_, _ = r.Object()
		}
	})
}

// TestWorstRules gives rules that are as slow as their authors could make them the largest context of the wire.
func TestWorstRules(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("1.", 32<<10)
	items := make([]any, 5000)
	for i := range items {
		items[i] = long
	}
	c := contextOf(t, flagset.Identity{}, map[string]any{"s": long, "l": items})
	for _, body := range []string{
		`{"==":[{"var":""},{"cat":[{"var":""},"x"]}]}`, `{"in":["x",{"var":""}]}`, `{"sem_ver":[{"var":""},"=",{"var":""}]}`,
		`{"var":{"var":""}}`, `{"missing":{"var":""}}`, `{"fractional":[{"var":""},["a"]]}`, `{"+":[{"var":""}]}`,
		`{"fractional":[{"cat":[{"var":""}]},["a"]]}`, `{"substr":[{"var":""},-1]}`, `{"some":[{"val":[[2],"l"]},{"==":[{"var":""},1]}]}`,
		`{"<":[{"var":""},{"var":""}]}`, `{"val":[{"var":""}]}`,
	} {
		for _, walk := range []string{"map", "filter", "all", "reduce"} {
			set := compile(t, `{"flags":{"f":{"variants":{"v":1},"defaultVariant":"v","targeting":{"!!":[{"`+walk+`":[{"var":"l"},`+body+`,0]}]}}}}`)
			start := time.Now()
			r := set.Evaluate("f", c)
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("%s of %s took %v: %s", walk, body, took, say(r))
			}
		}
	}
}
