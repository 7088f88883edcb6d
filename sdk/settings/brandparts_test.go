package settings_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// hash is the first half of an asset's name.
func hash(c string) string { return strings.Repeat(c, 64) }

func brandOn(t *testing.T, text, host string) settings.Brand {
	t.Helper()
	o, err := settings.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	b, err := settings.BrandOn(settings.Merge(settings.Layer{Object: o}), host)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBrandOfADomain(t *testing.T) {
	t.Parallel()
	const text = `{"name":"Acme","light":{"primary":"#112233","text":"#000000"},"links":{"imprint":"https://acme.example/i"},
		"domains":{"shop.acme.example":{"name":"Acme Shop","light":{"primary":"#445566"}}}}`
	shop, other := brandOn(t, text, "shop.acme.example"), brandOn(t, text, "acme.example")
	if shop.Name != "Acme Shop" || shop.Light.Primary != "#445566" || shop.Light.Text != "#000000" || shop.Links["imprint"] == "" {
		t.Errorf("on the shop's domain: %+v", shop)
	}
	if other.Name != "Acme" || other.Light.Primary != "#112233" {
		t.Errorf("elsewhere: %+v", other)
	}
	o, err := settings.Parse([]byte(`{"name":"a\nb","domains":{"X.example":{},"x.example":{"light":{"text":"red"}},"y.example":{"name":"ok"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range settings.CheckBrand(o) {
		got = append(got, p.Pointer+" "+p.Rule)
	}
	want := []string{"/name name", "/domains/X.example host", "/domains/x.example/light/text colour"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestBrandParts(t *testing.T) {
	t.Parallel()
	b := brandOn(t, `{"logos":{"light":"`+hash("a")+`.svg","dark":"`+hash("b")+`.png"},"icons":{"ico":"`+hash("c")+`.ico"},
		"styles":"`+hash("d")+`.css","assets":["`+hash("a")+`.svg","`+hash("e")+`.jpg"],
		"typography":{"body":"Acme Sans","heading":"Georgia","size":18,"radius":0,
			"faces":[{"family":"Acme Sans","file":"`+hash("f")+`.woff2","weight":"100 900"}]}}`, "")
	var files []string
	for _, f := range b.Files() {
		files = append(files, string(f)[:1]+"."+f.Extension())
	}
	if diff := cmp.Diff([]string{"a.svg", "b.png", "c.ico", "d.css", "e.jpg", "f.woff2"}, files); diff != "" {
		t.Errorf("files (-want +got)\n%s", diff)
	}
	if p := b.Styles.Path(); p != "/.well-known/rowhouse/b/"+hash("d")+".css" || settings.Asset("").Path() != "" {
		t.Errorf("path %s", p)
	}
	if f := b.Typography; *f.Size != 18 || *f.Radius != 0 || f.Faces[0].Weight != "100 900" || f.Faces[0].Style != "normal" ||
		settings.FontStack(f.Body) != `"Acme Sans", system-ui, sans-serif` || settings.FontStack(f.Heading) != "Georgia, serif" {
		t.Errorf("typography %+v", f)
	}
	if b.Empty() || !brandOn(t, `{}`, "").Empty() || brandOn(t, `{"typography":{"radius":0}}`, "").Empty() {
		t.Error("Empty")
	}
}

func TestBrandPartsRefused(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"logos":{"light":"x.svg"}}`:                  "/logos/light asset",
		`{"logos":{"light":"` + hash("a") + `.css"}}`:  "/logos/light asset",
		`{"logos":{"light":"/` + hash("a") + `.png"}}`: "/logos/light asset",
		`{"logos":{"light":"` + hash("A") + `.png"}}`:  "/logos/light asset",
		`{"logos":[]}`:                         "/logos type",
		`{"styles":"` + hash("a") + `.svg"}`:   "/styles asset",
		`{"assets":["` + hash("a") + `.css"]}`: "/assets/0 asset",
		`{"assets":{}}`:                        "/assets type",
		`{"typography":{"body":"Comic Sans"}}`: "/typography/body family",
		`{"typography":{"size":9}}`:            "/typography/size size",
		`{"typography":{"size":16.5}}`:         "/typography/size size",
		`{"typography":{"faces":[{"family":"a\"}","file":"` + hash("a") + `.woff2"}]}}`: "/typography/faces/0/family family",
		`{"typography":{"faces":[7]}}`:                "/typography/faces/0 type",
		`{"links":{"home":"http://a.example"}}`:       "/links/home text",
		`{"links":{"home":"https://u:p@a.example"}}`:  "/links/home text",
		`{"links":{"home":"https://a.example/\">"}}`:  "/links/home text",
		`{"links":{"home":"javascript:1"}}`:           "/links/home text",
		`{"links":{"home":"https:a"}}`:                "/links/home text",
		`{"locale":"DE"}`:                             "/locale locale",
		`{"locale":"x y"}`:                            "/locale locale",
		`{"texts":{"de_AT":{}}}`:                      "/texts/de_AT locale",
		`{"texts":{"de":{"error.title":" "}}}`:        "/texts/de/error.title text",
		`{"texts":{"de":{"error.title":"a\u202eb"}}}`: "/texts/de/error.title text",
		`{"terms":{"de":{"workspace":"a\nb"}}}`:       "/terms/de/workspace text",
		`{"exceptions":{"light/text/background":7}}`:  "/exceptions/light~1text~1background type",
		`{"domains":[]}`:                              "/domains type",
	} {
		o, err := settings.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		problems := settings.CheckBrand(o)
		if len(problems) != 1 || problems[0].Pointer+" "+problems[0].Rule != want {
			t.Errorf("%s: %v, want %s", text, problems, want)
		}
	}
}

func TestTexts(t *testing.T) {
	t.Parallel()
	b := brandOn(t, `{"locale":"de","texts":{"de":{"error.title":"Fehler","error.text":"Später"},"de-AT":{"error.title":"Jessas"},
		"fr":{"error.title":"Erreur"},"zh-Hant":{"error.title":"錯誤"}},"terms":{"en":{"workspace":"Project"},"de":{"workspace":"Projekt"}}}`, "")
	for _, c := range []struct{ key, prefer, want, tag string }{
		{"error.title", "", "Fehler", "de"},
		{"error.title", "de-AT", "Jessas", "de-AT"},
		{"error.text", "de-AT,fr;q=0.5", "Später", "de"},
		{"error.title", "de-CH", "Fehler", "de"},
		{"error.title", "fr-CA, en;q=0.3", "Erreur", "fr"},
		{"error.text", "fr", "Später", "de"},            // the brand's own language
		{"busy.title", "fr", "Too many requests", "en"}, // the platform's
		{"error.title", "zh-TW", "錯誤", "zh-Hant"},
		{"error.title", "ja", "Fehler", "de"},
		{"error.title", "\x00;;q=,", "Fehler", "de"},
		{"error.title", strings.Repeat("fr,", 1000), "Erreur", "fr"},
		{"error.title", strings.Repeat("-", 1000), "Fehler", "de"},
	} {
		if text, tag := b.Text(c.key, c.prefer); text != c.want || tag != c.tag {
			t.Errorf("%s for %.20q: %q in %q, want %q in %q", c.key, c.prefer, text, tag, c.want, c.tag)
		}
	}
	if got := b.Term("workspace", "en-GB") + b.Term("workspace", "fr") + b.Term("note", "en"); got != "ProjectProjektnote" {
		t.Errorf("terms %s", got)
	}
	if diff := cmp.Diff([]string{"de", "de-AT", "en", "fr", "zh-Hant"}, b.Locales()); diff != "" {
		t.Error(diff)
	}
	none := brandOn(t, `{}`, "")
	for _, key := range settings.TextKeys() {
		if text, tag := none.Text(key, "de"); text == "" || tag != "en" {
			t.Errorf("%s is %q in %q", key, text, tag)
		}
	}
}
