package tenanthttp_test

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/rowhouse-platform/rowhouse/sdk/readtoken"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanthttp"
)

func TestReadTokensInACookie(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(tenanthttp.ReadTokens(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, kept := readtoken.FromContext(r.Context())
		if !kept {
			t.Error("nobody keeps a token")
		}
		if commit := r.URL.Query().Get("commit"); commit != "" {
			readtoken.Note(r.Context(), token, commit)
		}
		switch r.URL.Path {
		case "/flush":
			_ = http.NewResponseController(w).Flush()
		case "/hint":
			w.WriteHeader(http.StatusEarlyHints)
			readtoken.Note(r.Context(), token, "later")
			w.WriteHeader(http.StatusTeapot)
		case "/write":
			_, _ = io.WriteString(w, token)
		}
	})))
	defer server.Close()
	jar, err := cookiejar.New(nil)
	must(t, err)
	client := server.Client()
	client.Jar = jar
	for _, step := range []struct{ path, saw, set string }{
		{path: "/write"},
		{path: "/write?commit=one", set: "one"},
		{path: "/write", saw: "one"},
		{path: "/flush?commit=two", set: "two"},
		{path: "/nothing?commit=three", set: "three"},
		{path: "/hint", set: "later"},
		{path: "/write", saw: "later"},
	} {
		resp, err := client.Get(server.URL + step.path)
		must(t, err)
		body, err := io.ReadAll(resp.Body)
		must(t, err)
		must(t, resp.Body.Close())
		set := ""
		for _, cookie := range resp.Cookies() {
			set = cookie.Value
			if cookie.Name != tenanthttp.ReadCookie || !cookie.Secure || !cookie.HttpOnly || cookie.Path != "/" || cookie.MaxAge != 60 {
				t.Errorf("%s: cookie %s", step.path, cookie)
			}
		}
		if string(body) != step.saw || set != step.set {
			t.Errorf("%s: saw %q and set %q, want %q and %q", step.path, body, set, step.saw, step.set)
		}
	}
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/write", nil)
	req.AddCookie(&http.Cookie{Name: tenanthttp.ReadCookie, Value: strings.Repeat("x", readtoken.MaxLen+1)})
	recorder := httptest.NewRecorder()
	server.Config.Handler.ServeHTTP(recorder, req)
	if got := recorder.Body.String(); got != readtoken.Unknown {
		t.Errorf("a cookie of nonsense is read as %q", got)
	}
}
