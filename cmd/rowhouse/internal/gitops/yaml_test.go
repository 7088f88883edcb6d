package gitops_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	"github.com/rowhouse-platform/rowhouse/cmd/rowhouse/internal/gitops"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// texts generates texts, most of them such that YAML could take them for something else.
func texts() *rapid.Generator[string] {
	traps := []string{
		"", " ", "~", "no", "No", "y", "on", "null", "true", "0755", "0o7", "0x1F", "1_000", "1:30", "1e3", "1e", "+1", ".5", "5.", ".inf", ".NaN", "-",
		"--- a", "...", "2024-01-01", "2024-01-01T00:00:00Z", "<<", "=", "&a", "*a", "!x", "%TAG", "@at", "`b", "a: b", "a:b", "a #b", "#c", "- a", "? a", "[a]",
		"{a}", "'q'", "\"q\"", "a\nb", "a\nb\n", "a\n\n", "\na", " a\nb", "a \nb", "a\n  b\nc", "\ta\nb", "a\tb", "tab\t\nb", "\u00a0", "\u2028", "\ufeff", "\u0085", "\x7f",
		"\x01", "é", "日本", "𝄞", "🏠", "https://a.example/x?y=1&z", "a,b", "a, b", "C:\\x", "|", ">", "a\r\nb", "\r", "---\nx", "x\n---\ny", "x\n...\n", "key:", ":", "::", "a:",
	}
	return rapid.OneOf(rapid.SampledFrom(traps), rapid.String().Filter(func(s string) bool { return !strings.Contains(s, "\x00") }),
		rapid.StringMatching(`[a-z0-9 :#'"\n.,\-]{0,12}`))
}

func values() *rapid.Generator[any] {
	leaf := rapid.OneOf(
		rapid.Map(texts(), func(s string) any { return s }),
		rapid.Map(rapid.Float64Range(-9007199254740991, 9007199254740991), func(f float64) any { return f }),
		rapid.Map(rapid.Int64Range(-9007199254740991, 9007199254740991), func(n int64) any { return float64(n) }),
		rapid.SampledFrom([]any{nil, true, false, 0.0, 1e-7, 5e-324, 1.5e9}),
	)
	v := leaf
	for range 3 {
		below := v
		v = rapid.OneOf(leaf,
			rapid.Map(rapid.SliceOfN(below, 0, 4), func(a []any) any { return a }),
			rapid.Map(rapid.MapOfN(texts(), below, 0, 4), func(o map[string]any) any { return o }))
	}
	return v
}

// What is written as YAML is read back as it was, by us and by YAML's library, which knows nothing of our rules.
func TestYAMLHoldsEveryDocument(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		o := rapid.MapOfN(texts(), values(), 0, 5).Draw(t, "document")
		want := string(settings.Canonical(o))
		text := gitops.Encode(o)
		got, err := gitops.Decode("x.yaml", text)
		if err != nil || got != want {
			t.Fatalf("%s\nis read as %s, %v; want %s", text, got, err, want)
		}
		var theirs any
		if err := yaml.Unmarshal(text, &theirs); err != nil {
			t.Fatalf("%s\n%v", text, err)
		}
		b, err := json.Marshal(theirs)
		if err != nil {
			t.Fatalf("%s\n%v", text, err)
		}
		if back, err := settings.Parse(b); err != nil || string(settings.Canonical(back)) != want {
			t.Fatalf("%s\nis for the library %s, %v", text, b, err)
		}
		if again := gitops.Encode(o); string(again) != string(text) {
			t.Fatal("two encodings differ")
		}
		if fromJSON, err := gitops.Decode("x.json", []byte(want)); err != nil || fromJSON != want {
			t.Fatalf("as JSON: %s, %v", fromJSON, err)
		}
	})
}

// Whatever JSON text somebody wrote by hand, as JSON in a file of YAML it says the same or is refused.
func TestJSONIsYAML(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		o := rapid.MapOfN(rapid.StringMatching(`[a-z]{1,5}`), values(), 0, 4).Draw(t, "document")
		b, err := json.MarshalIndent(o, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		got, err := gitops.Decode("x.yaml", b)
		if err != nil && (strings.Contains(err.Error(), "control characters") || strings.Contains(err.Error(), "end of a line")) {
			return // JSON may hold what YAML wants escaped
		}
		if err != nil {
			t.Fatalf("%s\n%v", b, err)
		}
		if want := string(settings.Canonical(o)); got != want {
			t.Fatalf("%s\nis read as %s", b, got)
		}
	})
}

func TestHandwriting(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"# a comment\ntitle: Our notes # another\n\nsize: 50\n": `{"size":50,"title":"Our notes"}`,
		"a: |\n  one\n  two\n":                                    `{"a":"one\ntwo\n"}`,
		"a: >-\n  one\n  two\n":                                   `{"a":"one two"}`,
		"a: {b: [1, 2.50, null, true], c: \"no\"}\n":              `{"a":{"b":[1,2.5,null,true],"c":"no"}}`,
		"\"no\": 'yes'\n":                                         `{"no":"yes"}`,
		"---\n{}\n":                                               `{}`,
		"if:\n- '>='\n- {var: $flagd.timestamp}\n- 1.7e9\n":       `{"if":[">=",{"var":"$flagd.timestamp"},1700000000]}`,
		"version: 1.2.3\nwhen: 24h\nat: 09h30\nhost: a.example\n": `{"at":"09h30","host":"a.example","version":"1.2.3","when":"24h"}`,
	} {
		if got, err := gitops.Decode("x.yaml", []byte(text)); err != nil || got != want {
			t.Errorf("%q is read as %s, %v; want %s", text, got, err, want)
		}
	}
}

func TestMistakesAreToldWithTheirLine(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("[", 70) + strings.Repeat("]", 70)
	for text, want := range map[string]string{
		"a: no\n":                        "x.yaml:1: /a: no is a text for some readers",
		"a: 1\nb: 0755\n":                "x.yaml:2: /b: 0755 is a text",
		"a: 0x1F\n":                      "/a: 0x1F",
		"a: 1_000\n":                     "/a: 1_000",
		"a: 12:30\n":                     "/a: 12:30",
		"a: .inf\n":                      "/a: .inf",
		"a: 2024-01-31\n":                "/a: 2024-01-31",
		"a: 2024-01-31 10:00:00\n":       "/a: 2024-01-31",
		"a: True\n":                      "/a: True",
		"a:\n":                           "x.yaml:1: /a: has no value; write null",
		"a: ~\n":                         "/a: has no value",
		"no: 1\n":                        "x.yaml:1: /no: the name no is not a text",
		"1: 1\n":                         "/1: the name 1 is not a text",
		"true: 1\n":                      "/true: the name true",
		"? [a]\n: 1\n":                   "a name is not a text",
		"a: 1\nb: 2\na: 3\n":             "x.yaml:3: /a: stands twice; the first is in line 1",
		"a: &x 1\nb: *x\n":               "x.yaml:1: /a: anchors and aliases",
		"a: {<<: {b: 1}}\n":              "merge keys",
		"a: !!binary aGk=\n":             "x.yaml:1: /a: the tag !!binary",
		"a: !x y\n":                      "the tag !x",
		"a: !!str 1\n":                   "the tag !!str",
		"--- {}\n--- {}\n":               "more than one YAML document",
		"":                               "is empty",
		"# nothing\n":                    "is empty",
		"- a\n":                          "x.yaml:1: is not an object",
		"just text\n":                    "x.yaml:1: is not an object",
		"a: [1, 2\n":                     "x.yaml:",
		"\ta: 1\n":                       "x.yaml: found character",
		"a: 9007199254740993\n":          "x.yaml:1: /a: a number beyond 2^53-1",
		"b: 1\na:\n  - 1e400\n":          "x.yaml:3: /a/0: a number beyond",
		"a: \"x\\0y\"\n":                 "x.yaml:1",
		"a: 1\nb: \"x\u0085y\"\n":        "x.yaml:2: has a character",
		"a: " + deep + "\n":              "is deeper than 64",
		strings.Repeat(" ", 2<<20) + "{": "has more than",
	} {
		got, err := gitops.Decode("x.yaml", []byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q is read as %s, %v; want %q", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"{\n\"a\": 1,\n}":      "x.json:3: is no JSON",
		"{\"a\":1,\"a\":2}":    "x.json: /a: a member stands twice",
		"[]":                   "x.json: not an object",
		"{\"a\": 1e400}":       "/a: a number beyond",
		"{\"a\": 1} {}":        "x.json:1: is no JSON",
		"{\"a\": \"\\ud800\"}": "surrogate",
	} {
		got, err := gitops.Decode("x.json", []byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is read as %s, %v; want %q", text, got, err, want)
		}
	}
}

// Aliases that double again and again are not followed, and nesting ends where documents do.
func TestBombs(t *testing.T) {
	t.Parallel()
	var laughs strings.Builder
	laughs.WriteString("a0: &a0 [x]\n")
	for i := 1; i < 40; i++ {
		fmt.Fprintf(&laughs, "a%d: &a%d [*a%d, *a%d]\n", i, i, i-1, i-1)
	}
	for _, text := range []string{laughs.String(), "a: " + strings.Repeat("[", 9000), "a: " + strings.Repeat("{b: ", 9000), strings.Repeat("- ", 9000),
		strings.Repeat("? ", 9000), "a: [" + strings.Repeat("1,", 20_000) + "1]"} {
		if got, err := gitops.Decode("x.yaml", []byte(text)); err == nil {
			t.Errorf("%.40q is read as %.40q", text, got)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{"a: 1", "a: [no]", "? a\n: b", "a: &x\n  b: *x", "{\"a\": \"\\u0000\"}", "a: |2\n   x\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		content, err := gitops.Decode("x.yaml", []byte(text))
		if err != nil {
			return
		}
		o, err := settings.Parse([]byte(content))
		if err != nil {
			t.Fatalf("%q is read as %s: %v", text, content, err)
		}
		if again, err := gitops.Decode("x.yaml", gitops.Encode(o)); again != content {
			t.Fatal(cmp.Diff(content, again), err)
		}
	})
}
