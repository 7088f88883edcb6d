package look_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/internal/brand/colour"
	"github.com/rowhouse-platform/rowhouse/internal/brand/look"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

func brand(t *testing.T, text string) settings.Brand {
	t.Helper()
	o, err := settings.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	b, err := settings.BrandOf(settings.Merge(settings.Layer{Object: o}))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What the platform gives where a brand says nothing is legible, and so is what is derived.
func TestWhatIsDerivedPasses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`{}`, `{"light":{"primary":"#b91c1c"}}`, `{"light":{"primary":"#1a1a2e","link":"#00008b"}}`, `{"light":{"primary":"#000000"}}`} {
		b := brand(t, text)
		for _, s := range look.Of(b) {
			for _, r := range s.Palette.Roles() {
				if *r.Colour == "" {
					t.Errorf("%s: %s has no %s", text, s.Name, r.Name)
				}
			}
			all := settings.Brand{Light: s.Palette, Dark: s.Palette} // as if the brand had said it
			for _, f := range look.Check(all) {
				if f.Side == s.Name {
					t.Errorf("%s: %s has %s", text, f.Key(), f.Ratio)
				}
			}
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{
		`{"light":{"text":"#767676"}}`: {"light/text/surface 4.16:1"}, // passes on white, just
		`{"light":{"text":"#777777"}}`: {"light/text/background 4.47:1", "light/text/surface 4.10:1"},
		`{"light":{"text":"#777777"},"exceptions":{"light/text/background":"the house style of 1987"}}`: {"light/text/surface 4.10:1"},
		`{"light":{"primary":"#ffff00"}}`:                        {"light/primary/background 1.07:1", "light/primary/surface 1.01:1"},
		`{"light":{"primary":"#b91c1c","on-primary":"#1c1917"}}`: {"light/on-primary/primary 2.70:1"},
		`{"light":{"border":"#fefefe"}}`:                         nil,
		`{"dark":{"background":"#ffffff","surface":"#ffffff","text":"#000000","text-muted":"#000000","link":"#0000aa",
			"success":"#005500","warning":"#660000","error":"#880000","primary":"#000000"}}`: nil,
		`{"light-contrast":{"text":"#595959"}}`: {"light-contrast/text/surface 6.42:1"}, // 7.00:1 on white
	} {
		var got []string
		for _, f := range look.Check(brand(t, text)) {
			got = append(got, f.Key()+" "+f.Ratio.String())
			near, err := colour.Parse(f.Nearest())
			if err != nil || f.Ground != "primary" && colour.Contrast(near, colour.White) < f.Need-1e-9 {
				t.Errorf("%s: %s is the way out of %s", text, f.Nearest(), f.Key())
			}
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", text, diff)
		}
	}
}

const full = `{"name":"A </style> \"b\"","light":{"primary":"#B91C1C"},"dark":{"text":"#eeeeee"},"light-contrast":{"text":"#000000"},
	"logos":{"light":"` + hash + `.svg"},"icons":{"ico":"` + hash + `.ico"},"styles":"` + hash + `.css",
	"links":{"imprint":"https://a.example/?a=1&b=2"},"locale":"de","texts":{"de":{"error.title":"Oh"}},
	"exceptions":{"light/text/background":"an inside matter"},
	"typography":{"body":"Acme Sans","mono":"Courier New","size":18,"radius":4,"faces":[{"family":"Acme Sans","file":"` + hash + `.woff2","weight":"100 900"}]}}`

const hash = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestPublish(t *testing.T) {
	t.Parallel()
	f, err := look.Publish(brand(t, full))
	if err != nil {
		t.Fatal(err)
	}
	again, err := look.Publish(brand(t, full))
	if err != nil || cmp.Diff(f, again) != "" {
		t.Errorf("published twice, it differs: %v", err)
	}
	css := string(f.CSS)
	for _, want := range []string{
		`@import url("/.well-known/rowhouse/b/` + hash + `.css");` + "\n",
		`@font-face{font-family:"Acme Sans";src:url("/.well-known/rowhouse/b/` + hash + `.woff2") format("woff2");font-weight:100 900;`,
		`:root{color-scheme:light dark;--rh-font-body:"Acme Sans", system-ui, sans-serif;--rh-font-mono:"Courier New", monospace;`,
		`--rh-size:18px;--rh-radius:4px;--rh-logo-light:url("/.well-known/rowhouse/b/` + hash + `.svg");--rh-primary:#b91c1c;--rh-on-primary:#ffffff;`,
		"@media (prefers-color-scheme:dark){:root:not([data-theme=light]){--rh-primary:", ":root[data-theme=dark]{color-scheme:dark;",
		"@media (prefers-contrast:more){:root[data-theme=light]{",
	} {
		if !strings.Contains(css, want) {
			t.Errorf("no %s in\n%s", want, css)
		}
	}
	if !strings.HasPrefix(css, "@import") || strings.Contains(css, "</") || strings.Count(css, "{") != strings.Count(css, "}") {
		t.Errorf("the sheet is\n%s", css)
	}
	var document map[string]any
	if err := json.Unmarshal(f.JSON, &document); err != nil || document["name"] != `A </style> "b"` || strings.Contains(string(f.JSON), "inside") ||
		strings.Contains(string(f.JSON), "<") {
		t.Errorf("%v: %s", err, f.JSON)
	}
	var tokens map[string]map[string]struct {
		Type  string `json:"$type"`
		Value any    `json:"$value"`
	}
	if err := json.Unmarshal(f.Tokens, &tokens); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"colorSpace": "srgb", "components": []any{0.7255, 0.1098, 0.1098}, "alpha": 1.0, "hex": "#b91c1c"}
	if diff := cmp.Diff(want, tokens["light"]["primary"].Value); diff != "" || tokens["light"]["primary"].Type != "color" {
		t.Errorf("primary (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(map[string]any{"value": 18.0, "unit": "px"}, tokens["typography"]["size"].Value); diff != "" {
		t.Errorf("size (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]any{"Acme Sans", "system-ui", "sans-serif"}, tokens["typography"]["font-body"].Value); diff != "" {
		t.Errorf("body (-want +got)\n%s", diff)
	}
}
