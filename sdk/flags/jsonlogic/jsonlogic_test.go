package jsonlogic_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/sdk/flags/jsonlogic"
)

func decode(t testing.TB, text string) (v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

func valueOf(t testing.TB, x any) jsonlogic.Value {
	t.Helper()
	v, err := jsonlogic.Of(x)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// evaluate is the result as JSON, or the error's type.
func evaluate(t *testing.T, shared, rule, data string) string {
	t.Helper()
	evaluators, _ := decode(t, shared).(map[string]any)
	in := jsonlogic.Input{Data: valueOf(t, decode(t, data)), FlagKey: "flag", Timestamp: 1_800_000_000}
	v, err := jsonlogic.NewLibrary(evaluators).Compile(decode(t, rule)).Eval(in)
	var thrown *jsonlogic.Error
	switch {
	case errors.As(err, &thrown):
		return strings.TrimPrefix(thrown.Error(), "jsonlogic: ")
	case errors.Is(err, jsonlogic.ErrBudget):
		return "budget"
	}
	text, err := json.Marshal(v.Any())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestEval has what the published tables and flagd's own tests do not.
func TestEval(t *testing.T) {
	t.Parallel()
	const caller = `{"email":"ann@example.com","targetingKey":"ann","$flagd":{"flagKey":"theirs"},"tags":["a",null],"n":1.2,
		"user":{"$flagd":1,"names":["x","y"]}}`
	tests := map[string]struct{ shared, rule, want string }{
		"our flag key":                  {"{}", `{"var":"$flagd.flagKey"}`, `"flag"`},
		"our time":                      {"{}", `{"var":"$flagd.timestamp"}`, `1800000000`},
		"nothing else in $flagd":        {"{}", `{"var":"$flagd"}`, `{"flagKey":"flag","timestamp":1800000000}`},
		"$flagd by val":                 {"{}", `{"val":["$flagd","flagKey"]}`, `"flag"`},
		"$flagd by a computed path":     {"{}", `{"var":{"cat":["$flagd",".flagKey"]}}`, `"flag"`},
		"$flagd is not missing":         {"{}", `{"missing":["$flagd.flagKey","$flagd.x"]}`, `["$flagd.x"]`},
		"no $flagd in an element":       {"{}", `{"map":[[1],{"var":"$flagd.flagKey"}]}`, `[null]`},
		"an element's own $flagd":       {"{}", `{"map":[[{"var":"user"}],{"var":"$flagd"}]}`, `[1]`},
		"empty names on a path":         {"{}", `{"var":".user..names.1."}`, `"y"`},
		"an index beyond the list":      {"{}", `{"var":["tags.2","none"]}`, `"none"`},
		"a null takes the default":      {"{}", `{"var":["tags.1","none"]}`, `"none"`},
		"reference":                     {`{"x":{"var":"email"}}`, `{"cat":[{ "$ref" : "x" },"!"]}`, `"ann@example.com!"`},
		"reference to a reference":      {`{"x":{"$ref":"y"},"y":7}`, `{"+":[{"$ref":"x"},1]}`, `8`},
		"reference in a body":           {`{"x":{"+":[{"var":""},1]}}`, `{"map":[[1,2],{"$ref":"x"}]}`, `[2,3]`},
		"reference that does not exist": {"{}", `{"if":[true,"a",{"$ref":"x"}]}`, `"a"`},
		"and that is needed":            {"{}", `{"if":[false,"a",{"$ref":"x"}]}`, `Unknown Operator`},
		"reference in a circle":         {`{"x":{"!":[{"$ref":"y"}]},"y":{"$ref":"x"}}`, `{"$ref":"x"}`, `Unknown Operator`},
		"two names are a value":         {"{}", `{"var":"a","==":1}`, `{"==":1,"var":"a"}`},
		"characters, not bytes":         {"{}", `{"substr":["Zürich",1,1]}`, `"ü"`},
		"in of three":                   {"{}", `{"in":["a",["a"],1]}`, `true`},
		"in of one":                     {"{}", `{"in":["a"]}`, `false`},
		"in of a computed pair":         {"{}", `{"in":{"merge":["a","abc"]}}`, `true`},
		"many strings":                  {"{}", `{"in":[{"var":"targetingKey"},["1","2","3","4","5","6","7","8","ann"]]}`, `true`},
		"a number among many strings":   {"{}", `{"in":[{"var":"n"},["1","2","3","4","5","6","7","8",1.2]]}`, `true`},
		"starts_with of no text":        {"{}", `{"starts_with":[{"var":"n"},"1"]}`, `null`},
		"ends_with of three":            {"{}", `{"ends_with":["abc","c","c"]}`, `null`},
		"version as a number":           {"{}", `{"sem_ver":[{"var":"n"},"=","1.2.0"]}`, `true`},
		"long version numbers":          {"{}", `{"sem_ver":["1.0.99999999999999999999","<","1.0.100000000000000000000"]}`, `true`},
		"build is ignored":              {"{}", `{"sem_ver":["1.0.0+a-b","=","v1.0.0+c"]}`, `true`},
		"no version":                    {"{}", `{"sem_ver":["01.0.0","=","1.0.0"]}`, `null`},
		"split by targeting key":        {"{}", `{"fractional":[["a",1],["b",0]]}`, `"a"`},
		"split by text":                 {"{}", `{"fractional":["x",["a",0],["b",3]]}`, `"b"`},
		"computed weight":               {"{}", `{"fractional":[["a",{"-":[1,5]}],["b",{"+":[1,1]}]]}`, `"b"`},
		"computed variant":              {"{}", `{"fractional":[[{"var":"email"},1]]}`, `"ann@example.com"`},
		"all weights 0":                 {"{}", `{"fractional":[["a",0],["b",-1]]}`, `null`},
		"a weight that is no integer":   {"{}", `{"fractional":[["a",0.5],["b",1]]}`, `null`},
		"weights beyond 2^31-1":         {"{}", `{"fractional":[["a",2147483647],["b",1]]}`, `null`},
		"split without a subject":       {"{}", `{"map":[[{}],{"fractional":[["a"],["b"]]}]}`, `[null]`},
		"text that doubles":             {"{}", `{"reduce":[{"var":"wide"},{"cat":[{"var":"accumulator"},{"var":"accumulator"}]},"x"]}`, `"x"`},
		"a body of much":                {"{}", `{"map":[` + numbers(4000) + `,{"+":[{"var":""},1,1,1]}]}`, `budget`},
		"text without end": {
			"{}", `{"reduce":[` + numbers(60) + `,{"cat":[{"var":"accumulator"},{"var":"accumulator"}]},"x"]}`, `budget`,
		},
		"lists without end": {
			"{}", `{"reduce":[` + numbers(60) + `,{"merge":[{"var":"accumulator"},{"var":"accumulator"}]},[1]]}`, `budget`,
		},
		"references without end":  {billion(), `{"$ref":"r0"}`, `budget`},
		"a budget is not caught":  {billion(), `{"try":[{"$ref":"r0"},1]}`, `budget`},
		"too deep":                {"{}", strings.Repeat(`{"!":[`, 65) + `{"var":"n"}` + strings.Repeat(`]}`, 65), `budget`},
		"deep by references":      {chainOf(70), `{"$ref":"r0"}`, `budget`},
		"as deep as may be":       {"{}", strings.Repeat(`{"!":[`, 63) + `{"var":"n"}` + strings.Repeat(`]}`, 63), `false`},
		"a wide list is no depth": {"{}", `{"max":` + numbers(5000) + `}`, `4999`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := evaluate(t, test.shared, test.rule, caller); got != test.want {
				t.Errorf("got %.200s, want %s", got, test.want)
			}
		})
	}
}

func numbers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, ",%d", i)
	}
	return "[" + b.String()[1:] + "]"
}

// billion is twenty rules, each of which refers to the next twice.
func billion() string {
	var b strings.Builder
	for i := range 20 {
		fmt.Fprintf(&b, `"r%d":{"+":[{"$ref":"r%d"},{"$ref":"r%d"}]},`, i, i+1, i+1)
	}
	return "{" + b.String() + `"r20":{"var":"n"}}`
}

// chainOf is rules of which each refers to the next.
func chainOf(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"r%d":{"!":[{"$ref":"r%d"}]},`, i, i+1)
	}
	return "{" + b.String() + fmt.Sprintf(`"r%d":{"var":"n"}}`, n)
}

func TestProblems(t *testing.T) {
	t.Parallel()
	tests := map[string][]jsonlogic.Problem{
		`{"if":[{"==":[{"var":"a/b"},1]},"on",{"$ref":"good"}]}`: nil,
		`{"if":[true,{"nope":[1]}]}`:                             {{Pointer: "/at/if/1", Text: `the operator "nope" does not exist`}},
		`{"!":[{"$ref":"x"}]}`:                                   {{Pointer: "/at/!/0", Text: `there is no evaluator "x"`}},
		`{"!":[{"$ref":["x"]}]}`:                                 {{Pointer: "/at/!/0", Text: `there is no evaluator "[x]"`}},
		`{"$ref":"self"}`:                                        {{Pointer: "/$evaluators/self/!/0", Text: `the evaluator "self" refers to itself`}},
		`{"$ref":"bad"}`:                                         {{Pointer: "/$evaluators/bad", Text: `the operator "a/b" does not exist`}},
		`{"<":[1]}`:                                              {{Pointer: "/at/<", Text: `"<" takes a list of arguments, at least 2`}},
		`{"if":"x"}`:                                             {{Pointer: "/at/if", Text: `"if" takes a list of arguments, at least 0`}},
		`{"fractional":[["a",1.5]]}`:                             {{Pointer: "/at/fractional", Text: "a weight of fractional is no integer"}},
		`{"fractional":[{"var":"k"},["a",2147483647],["b"]]}`: {
			{Pointer: "/at/fractional", Text: "the weights of fractional are together beyond 2147483647"},
		},
		`{"fractional":[null,"a"]}`: {
			{Pointer: "/at/fractional", Text: "a part of fractional is no list of a variant and a weight"},
		},
		`{"sem_ver":[{"var":"v"},"=>","1"]}`: {
			{Pointer: "/at/sem_ver", Text: "the operator of sem_ver is none of = != < <= > >= ~ ^"},
		},
		`{"sem_ver":[{"var":"v"},"=","x"]}`: {{Pointer: "/at/sem_ver", Text: "sem_ver compares what is no version"}},
		strings.Repeat(`{"!":[`, 65) + `1` + strings.Repeat(`]}`, 65): {
			{Pointer: "/at", Text: "is nested deeper than 64"},
		},
	}
	shared := decode(t, `{"good":{"var":"a"},"self":{"!":[{"$ref":"self"}]},"bad":{"a/b":1}}`).(map[string]any)
	for rule, want := range tests {
		t.Run(rule, func(t *testing.T) {
			t.Parallel()
			l := jsonlogic.NewLibrary(shared)
			l.Compile(decode(t, rule), "at")
			if diff := cmp.Diff(want, l.Problems()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestTimes(t *testing.T) {
	t.Parallel()
	open := jsonlogic.Times{Read: true, Open: true}
	tests := map[string]jsonlogic.Times{
		`{"var":"timestamp"}`:                          {},
		`{"<":[{"var":"a"},{"var":"$flagd.flagKey"}]}`: {},
		`{"map":[{"var":"l"},{"var":""}]}`:             {},
		`{"preserve":{"var":"$flagd.timestamp"}}`:      {},
		`{"<":[{"var":"$flagd.timestamp"},100]}`:       {Read: true, Instants: []int64{100, 101}},
		`{"<=":[10.5,{"var":"$flagd.timestamp"},"20"]}`: {
			Read: true, Instants: []int64{11, 20, 21},
		},
		`{"if":[{">":[{"var":"$flagd.timestamp"},1]},"a",{"$ref":"late"}]}`: {Read: true, Instants: []int64{1, 2, 500, 501}},
		`{"<":[{"var":"$flagd.timestamp"},{"var":"until"}]}`:                open,
		`{"%":[{"var":"$flagd.timestamp"},60]}`:                             open,
		`{"map":[[{"var":"$flagd.timestamp"}],{"var":""}]}`:                 open,
		`{"var":""}`:                                       open,
		`{"var":"$flagd"}`:                                 open,
		`{"var":{"var":"which"}}`:                          open,
		`{"val":["$flagd","timestamp"]}`:                   open,
		`{"val":["$flagd","flagKey"]}`:                     {},
		`{"map":[[1],{"val":[[2],"$flagd","timestamp"]}]}`: open,
		`{"map":[[1],{"val":[]}]}`:                         {},
	}
	shared := decode(t, `{"late":{">":[{"var":"$flagd.timestamp"},500]}}`).(map[string]any)
	for rule, want := range tests {
		t.Run(rule, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(want, jsonlogic.NewLibrary(shared).Times(decode(t, rule))); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestOfRefuses(t *testing.T) {
	t.Parallel()
	deep := any(1.0)
	for range 66 {
		deep = []any{deep}
	}
	zero := 0.0
	for _, x := range []any{deep, 1 / zero, struct{}{}, map[string]any{"x": zero / zero}} {
		if _, err := jsonlogic.Of(x); !errors.Is(err, jsonlogic.ErrValue) {
			t.Errorf("%v: %v", x, err)
		}
	}
}

// holdStill fails if a rule changes its answer at a time that Times does not say.
func holdStill(t *testing.T, rule *jsonlogic.Rule, times jsonlogic.Times, data jsonlogic.Value) {
	t.Helper()
	if times.Open {
		return
	}
	at := func(second int64) string {
		v, err := rule.Eval(jsonlogic.Input{Data: data, FlagKey: "f", Timestamp: second})
		return fmt.Sprint(v.Any(), err)
	}
	const never, ever = -1 << 50, 1 << 50
	since := int64(never)
	for _, until := range append(times.Instants, ever) {
		if first, last := at(since), at(until-1); first != last {
			t.Fatalf("%s at %d and %s at %d, in spite of %+v", first, since, last, until-1, times)
		}
		since = until
	}
}

// FuzzRule compiles and evaluates whatever JSON there is: it must not panic, and the steps bound it.
func FuzzRule(f *testing.F) {
	for _, seed := range []string{
		`{"if":[{"==":[{"var":"a"},1]},"x",{"$ref":"r"}]}`, `{"reduce":[{"var":"l"},{"cat":[{"var":"accumulator"},"x"]},""]}`,
		`{"fractional":[{"cat":["a",{"var":"k"}]},["a",1],[{"var":"x"},{"-":[1]}]]}`, `{"sem_ver":["v1.2-x","~",1.2]}`,
		`{"val":[[-9],"a",{"throw":1}]}`, `{"try":[{"/":[1,0]},{"val":"type"}]}`, `{"substr":["é",-1e300,1e300]}`,
		`{"in":[[1],[[1,2],"a",null]]}`, `{"if":[{"<":[{"var":"$flagd.timestamp"},10,"20.5"]},1,{"==":[3,{"var":"$flagd.timestamp"}]}]}`,
		`{"map":[[[2]],{"val":[{"var":""},"$flagd","timestamp"]}]}`, `{"some":[[1],{"val":[[2],"$flagd","timestamp"]}]}`,
		`{"!==":["x",{"var":"$flagd.timestamp"}]}`, `{"missing":["$flagd.timestamp"]}`, `{"var":["x",{"var":"$flagd"}]}`, `{"missing_some":["x",[1,null,"a.b"]]}`, `{"??":[null,{"exists":[[1],"index"]}]}`,
	} {
		f.Add(seed, `{"r":{"!":[{"$ref":"r"}]},"s":{"$ref":"r"}}`, `{"a":1,"l":[1,"x",[2]],"targetingKey":"k"}`)
	}
	f.Fuzz(func(t *testing.T, rule, shared, data string) {
		var r, d any
		var s map[string]any
		if json.Unmarshal([]byte(rule), &r) != nil || json.Unmarshal([]byte(data), &d) != nil {
			return
		}
		_ = json.Unmarshal([]byte(shared), &s) // nil is no rule
		v, err := jsonlogic.Of(d)
		if err != nil {
			return
		}
		l := jsonlogic.NewLibrary(s)
		compiled := l.Compile(r)
		l.CompileShared()
		l.Outcomes(r)
		holdStill(t, compiled, l.Times(r), v)
		in := jsonlogic.Input{Data: v, FlagKey: "f", Timestamp: 1}
		first, err := compiled.Eval(in)
		if err != nil {
			return
		}
		text, err := json.Marshal(first.Any())
		if err != nil {
			t.Fatalf("the result is no JSON: %v", err)
		}
		again, err := compiled.Eval(in)
		if err != nil || fmt.Sprint(again.Any()) != fmt.Sprint(first.Any()) {
			t.Fatalf("first %s, then %v, %v", text, again, err)
		}
	})
}
