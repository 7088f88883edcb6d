package look_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"

	"github.com/rowhouse-platform/rowhouse/internal/brand/look"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// tokensSchema says what a file of design tokens is.
func tokensSchema(tb testing.TB) *jsonschema.Schema { return compiled(tb, "tokens.schema.json") }

// compiled is one of our own schemas, which say what the specifications do; the public ones are for tools and allow more.
func compiled(tb testing.TB, name string) *jsonschema.Schema {
	tb.Helper()
	c := jsonschema.NewCompiler()
	for _, n := range []string{"tokens.schema.json", "resolver.schema.json"} {
		text, err := os.ReadFile(filepath.Join("testdata", n))
		if err != nil {
			tb.Fatal(err)
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			tb.Fatal(err)
		}
		if err := c.AddResource("https://schemas.example/"+n, doc); err != nil {
			tb.Fatal(err)
		}
	}
	schema, err := c.Compile("https://schemas.example/" + name)
	if err != nil {
		tb.Fatal(err)
	}
	return schema
}

func valid(tb rapid.TB, schema *jsonschema.Schema, text []byte) error {
	tb.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		tb.Fatalf("%s: %v", text, err)
	}
	return schema.Validate(doc)
}

// The schema itself tells good files from bad ones.
func TestTokensSchema(t *testing.T) {
	t.Parallel()
	schema := tokensSchema(t)
	const colour = `"colorSpace":"srgb","components":[1,0,0.5]`
	for text, good := range map[string]bool{
		`{}`: true, `{"a":{"b":{"$type":"color","$value":{` + colour + `,"alpha":1,"hex":"#ff0080"}}}}`: true,
		`{"a":{"$type":"dimension","$value":{"value":1.5,"unit":"rem"},"$description":"x"}}`: true, `{"a":{"$type":"color","$value":"{b.c}"}}`: true,
		`{"$description":"x","a":{"$type":"fontFamily","$value":["A","serif"]}}`: true,
		`[]`: false, `{"a":1}`: false, `{"a":{"$value":1}}`: false, `{"a.b":{}}`: false, `{"a{b":{}}`: false, `{"$a":{}}`: false, `{"$value":1}`: false,
		`{"a":{"$type":"colour","$value":{` + colour + `}}}`:                            false,
		`{"a":{"$type":"color","$value":"#ff0080"}}`:                                    false,
		`{"a":{"$type":"color","$value":{` + colour + `,"hex":"#f08"}}}`:                false,
		`{"a":{"$type":"color","$value":{` + colour + `,"alpha":2}}}`:                   false,
		`{"a":{"$type":"color","$value":{` + colour + `,"x":2}}}`:                       false,
		`{"a":{"$type":"color","$value":{"components":[0,0,0]}}}`:                       false,
		`{"a":{"$type":"color","$value":{"colorSpace":"srgb","components":[255,0,0]}}}`: false,
		`{"a":{"$type":"color","$value":{"colorSpace":"srgb","components":[0,0]}}}`:     false,
		`{"a":{"$type":"color","$value":{"colorSpace":"rgb","components":[0,0,0]}}}`:    false,
		`{"a":{"$type":"dimension","$value":"16px"}}`:                                   false,
		`{"a":{"$type":"dimension","$value":{"value":"16","unit":"px"}}}`:               false,
		`{"a":{"$type":"dimension","$value":{"value":16,"unit":"em"}}}`:                 false,
		`{"a":{"$type":"dimension","$value":{"value":16}}}`:                             false,
		`{"a":{"$type":"fontFamily","$value":[]}}`:                                      false,
		`{"a":{"$type":"color","$value":{` + colour + `},"b":{}}}`:                      false,
	} {
		if err := valid(t, schema, []byte(text)); (err == nil) != good {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// The schema of resolvers tells good ones from bad ones.
func TestResolverSchema(t *testing.T) {
	t.Parallel()
	schema := compiled(t, "resolver.schema.json")
	const token = `{"a":{"$type":"dimension","$value":{"value":1,"unit":"px"}}}`
	resolver := func(more string) string { return `{"version":"2025.10",` + more + `}` }
	const order = `"resolutionOrder":[{"$ref":"#/sets/a"}]`
	for text, good := range map[string]bool{
		resolver(order): true,
		resolver(`"sets":{"a":{"sources":[` + token + `,{"$ref":"other.json#/x"}]}},` + order):                        true,
		resolver(`"modifiers":{"theme":{"contexts":{"light":[],"dark":[` + token + `]},"default":"light"}},` + order): true,
		resolver(`"resolutionOrder":[{"type":"set","name":"x","sources":[` + token + `]}]`):                           true,
		resolver(`"resolutionOrder":[{"type":"modifier","name":"x","contexts":{"a":[],"b":[]}}]`):                     true,
		`{` + order + `}`: false, `{"version":"2025.11",` + order + `}`: false, resolver(`"sets":{}`): false, resolver(`"resolutionOrder":[]`): false,
		resolver(`"theme":{},` + order):                                                           false,
		resolver(`"sets":{"a":{}},` + order):                                                      false,
		resolver(`"sets":{"a":{"sources":[{"a":1}]}},` + order):                                   false,
		resolver(`"sets":{"a":{"sources":[{"$ref":"#/modifiers/theme"}]}},` + order):              false,
		resolver(`"modifiers":{"theme":{"contexts":{"light":[]}}},` + order):                      false,
		resolver(`"modifiers":{"theme":{"contexts":{"light":` + token + `,"dark":[]}}},` + order): false,
		resolver(`"modifiers":{"theme":{"context":{"light":[],"dark":[]}}},` + order):             false,
		resolver(`"resolutionOrder":[{"$ref":"#/resolutionOrder/0"}]`):                            false,
		resolver(`"resolutionOrder":[{"name":"x","sources":[]}]`):                                 false,
	} {
		if err := valid(t, schema, []byte(text)); (err == nil) != good {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// resolve does what a tool does with a resolver: it takes the sets and, of each modifier, one context, the later over the
// earlier, and returns tokens by their paths.
func resolve(tb rapid.TB, text []byte, theme string) map[string]any {
	tb.Helper()
	type sources = []map[string]map[string]any
	var doc struct {
		Sets      map[string]struct{ Sources sources }
		Modifiers map[string]struct {
			Contexts map[string]sources
			Default  string
		}
		Order []struct {
			Ref string `json:"$ref"`
		} `json:"resolutionOrder"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		tb.Fatal(err)
	}
	out := map[string]any{}
	for _, item := range doc.Order {
		from := doc.Sets[strings.TrimPrefix(item.Ref, "#/sets/")].Sources
		if name, ok := strings.CutPrefix(item.Ref, "#/modifiers/"); ok {
			m := doc.Modifiers[name]
			if _, known := m.Contexts[m.Default]; !known || len(m.Contexts) < 2 {
				tb.Fatalf("%s has the default %q", name, m.Default)
			}
			from = m.Contexts[theme]
		}
		if len(from) == 0 {
			tb.Fatalf("%s leads to nothing for %s", item.Ref, theme)
		}
		for _, source := range from {
			for group, tokens := range source {
				for name, token := range tokens {
					out[group+"."+name] = token
				}
			}
		}
	}
	return out
}

// Whatever a brand says, its design tokens are such a file, and its resolver leads to the same tokens.
func TestTokensOfAnyBrand(t *testing.T) {
	t.Parallel()
	schema, resolvers := tokensSchema(t), compiled(t, "resolver.schema.json")
	roles := new(settings.Palette).Roles()
	rapid.Check(t, func(t *rapid.T) {
		o := settings.Object{}
		if rapid.Bool().Draw(t, "named") {
			o["name"] = rapid.StringMatching(`[A-Za-z{}.$ äé"\\]{1,20}`).Draw(t, "name")
		}
		for _, side := range []string{"light", "dark", "light-contrast", "dark-contrast"} {
			palette := settings.Object{}
			for _, r := range roles {
				if rapid.Bool().Draw(t, r.Name) {
					palette[r.Name] = fmt.Sprintf("#%06x", rapid.Uint32Range(0, 0xffffff).Draw(t, "colour"))
				}
			}
			if len(palette) > 0 {
				o[side] = palette
			}
		}
		set := settings.Object{"faces": []any{settings.Object{"family": "Own Face-1", "file": strings.Repeat("a", 64) + ".woff2"}}}
		for name, values := range map[string][]any{
			"body": {"Georgia", "Own Face-1", "Times New Roman"}, "heading": {"system-ui", "Trebuchet MS"}, "mono": {"Courier New", "monospace"},
			"size": {12.0, 24.0}, "radius": {0.0, 32.0},
		} {
			if rapid.Bool().Draw(t, name) {
				set[name] = rapid.SampledFrom(values).Draw(t, "value")
			}
		}
		o["typography"] = set
		b, err := settings.BrandOf(settings.Effective{Object: o})
		if err != nil {
			t.Fatal(err)
		}
		files, err := look.Publish(b)
		if err != nil {
			t.Fatal(err)
		}
		if err := valid(t, schema, files.Tokens); err != nil {
			t.Fatalf("%s: %v", files.Tokens, err)
		}
		if err := valid(t, resolvers, files.Resolver); err != nil {
			t.Fatalf("%s: %v", files.Resolver, err)
		}
		var tokens map[string]map[string]any
		if err := json.Unmarshal(files.Tokens, &tokens); err != nil {
			t.Fatal(err)
		}
		for _, s := range look.Of(b) {
			want := map[string]any{}
			for name, token := range tokens[s.Name] {
				want["color."+name] = token
			}
			for name, token := range tokens["typography"] {
				want["typography."+name] = token
			}
			if diff := cmp.Diff(want, resolve(t, files.Resolver, s.Name)); diff != "" {
				t.Fatalf("%s (-tokens +resolved)\n%s", s.Name, diff)
			}
		}
		// What mails take over is the same light side.
		if got, want := b.LightPalette(), look.Of(b)[0].Palette; got != want {
			t.Fatalf("mails would have %v, pages have %v", got, want)
		}
	})
}
