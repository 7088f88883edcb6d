package notes

import (
	"cmp"
	"context"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
)

// A browser sees a page, whatever it asks for; a program reads a problem.
func TestRefusalsForBrowsersAndPrograms(t *testing.T) {
	t.Parallel()
	db := dbtest.New(t, dbtest.Migrations(Migrations()))
	acme, notes := db.In(t, "acme"), New(db.DB, func(context.Context) Settings { return Settings{} })
	if _, err := notes.Create(acme, "", "an older note", ""); err != nil {
		t.Fatal(err)
	}
	site := Handler(notes, func(context.Context) Look { return Look{Name: "Acme", Count: true} })
	long := strings.Repeat("x", 201)
	for _, c := range []struct {
		method, path, title string
		status              int
		want                []string // in the page
	}{
		{"POST", "/", "", 400, []string{`role="alert"`, "title", "an older note"}},
		{"POST", "/", long, 400, []string{`role="alert"`, `value="` + long + `"`}},
		{"GET", "/nowhere", "", 404, []string{`role="alert"`, "there is nothing here"}},
		{"GET", "/", "", 200, []string{"<h1", "an older note", "Notes: 1"}},
	} {
		ask := func(accept string) *httptest.ResponseRecorder {
			r := httptest.NewRequestWithContext(acme, c.method, c.path, strings.NewReader(url.Values{"title": {c.title}}.Encode()))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Header.Set("Accept", accept)
			w := httptest.NewRecorder()
			site.ServeHTTP(w, r)
			return w
		}
		w := ask("text/html,*/*;q=0.8")
		if kind := w.Header().Get("Content-Type"); w.Code != c.status || !strings.HasPrefix(kind, "text/html") {
			t.Errorf("%s %s %.9q to a browser: %d %s %s", c.method, c.path, c.title, w.Code, kind, w.Body)
		}
		for _, want := range c.want {
			if !strings.Contains(w.Body.String(), want) {
				t.Errorf("%s %s %.9q does not show %s: %s", c.method, c.path, c.title, want, w.Body)
			}
		}
		if w := ask("*/*"); c.status >= 400 && (w.Code != c.status || w.Header().Get("Content-Type") != "application/problem+json") {
			t.Errorf("%s %s %.9q to a program: %d %s", c.method, c.path, c.title, w.Code, w.Header().Get("Content-Type"))
		}
	}
}

// The page shows what was uploaded on the tenant's own hosts, and below a shared one what needs no file of the brand's.
func TestPageShowsTheBrand(t *testing.T) {
	t.Parallel()
	db := dbtest.New(t, dbtest.Migrations(Migrations()))
	acme, notes := db.In(t, "acme"), New(db.DB, func(context.Context) Settings { return Settings{} })
	asset := settings.Asset(strings.Repeat("0a", 32) + ".svg")
	const inline, sheet = "data:image/png;base64,AAAA", `<link rel="stylesheet" href="/.well-known/rowhouse/brand.css">`
	uploaded, icon := `<img src="`+asset.Path()+`"`, `<link rel="icon" href="`+asset.Path()+`">`
	files := map[string]settings.Asset{"light": asset, "svg": asset}
	for _, c := range []struct {
		brand    settings.Brand
		prefix   string
		has, not []string
	}{
		{settings.Brand{Name: "Acme", Logo: inline, Logos: files, Icons: files}, "", []string{sheet, uploaded, icon}, []string{`src="data:`}},
		{settings.Brand{Logos: files}, "", []string{uploaded}, nil},
		{settings.Brand{Logo: inline}, "", []string{sheet, `<img src="` + inline}, []string{`rel="icon" href="/`}},
		{settings.Brand{}, "", []string{sheet, `<img src="data:,"`}, []string{`rel="icon" href="/`}},
		{settings.Brand{Logo: inline, Logos: files, Icons: files}, "/t/acme", []string{`<img src="` + inline}, []string{"/.well-known/"}},
	} {
		r := httptest.NewRequestWithContext(acme, "GET", "/", nil)
		if c.prefix != "" {
			r.Header.Set("X-Forwarded-Prefix", c.prefix)
		}
		w := httptest.NewRecorder()
		Handler(notes, func(context.Context) Look { return lookOf(c.brand) }).ServeHTTP(w, r)
		for _, want := range c.has {
			if !strings.Contains(w.Body.String(), want) {
				t.Errorf("%+v at %q does not show %s: %s", c.brand, cmp.Or(c.prefix, "/"), want, w.Body)
			}
		}
		for _, no := range c.not {
			if strings.Contains(w.Body.String(), no) {
				t.Errorf("%+v at %q shows %s: %s", c.brand, cmp.Or(c.prefix, "/"), no, w.Body)
			}
		}
		if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "style-src 'self'") || !strings.Contains(csp, "img-src 'self'") {
			t.Errorf("the policy %s keeps the brand out", csp)
		}
	}
}
