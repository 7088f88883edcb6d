package look_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"

	"github.com/rowhouse-platform/rowhouse/internal/brand/look"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// tokensSchema says what a file of design tokens is.
func tokensSchema(tb testing.TB) *jsonschema.Schema {
	tb.Helper()
	file, err := os.Open(filepath.Join("testdata", "tokens.schema.json"))
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	doc, err := jsonschema.UnmarshalJSON(file)
	if err != nil {
		tb.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("tokens.schema.json", doc); err != nil {
		tb.Fatal(err)
	}
	schema, err := c.Compile("tokens.schema.json")
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

// Whatever a brand says, its design tokens are such a file.
func TestTokensOfAnyBrand(t *testing.T) {
	t.Parallel()
	schema := tokensSchema(t)
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
		// What mails take over is the same light side.
		if got, want := b.LightPalette(), look.Of(b)[0].Palette; got != want {
			t.Fatalf("mails would have %v, pages have %v", got, want)
		}
	})
}
