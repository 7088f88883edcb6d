package notes

import (
	"context"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

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
