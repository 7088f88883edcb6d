package ofrep_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/sdk/flags/doortest"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/ofrep"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// document has a flag of each sort.
const document = `{"metadata":{"set":"main"},"flags":{
	"plain":{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"off","metadata":{"public":true}},
	"a/b":{"state":"ENABLED","variants":{"one":1},"defaultVariant":"one"},
	"a b%":{"state":"ENABLED","variants":{"odd":"x"},"defaultVariant":"odd"},
	"off":{"state":"DISABLED","variants":{"on":true},"defaultVariant":"on"},
	"code":{"state":"ENABLED","variants":{"on":true},"defaultVariant":null},
	"rule":{"state":"ENABLED","variants":{"hi":"hi","lo":"lo"},"defaultVariant":"lo","metadata":{"public":true},
		"targeting":{"if":[{"==":[{"var":"level"},"high"]},"hi"]}},
	"tenant":{"state":"ENABLED","variants":{"acme":"ours","else":"theirs"},"defaultVariant":"else",
		"targeting":{"if":[{"and":[{"==":[{"var":"tenant"},"acme"]},{"==":[{"var":"environment"},"production"]}]},"acme"]}},
	"broken":{"state":"ENABLED","variants":{"on":true},"defaultVariant":"on","targeting":{"nope":[1]}},
	"lost":{"state":"ENABLED","variants":{"on":true},"defaultVariant":"on","targeting":{"if":[true,"gone"]}}}}`

// site is a server of one tenant's flags.
type site struct {
	testing.TB
	*doortest.House

	handler http.Handler
	key     string
}

func newSite(tb testing.TB) *site {
	tb.Helper()
	h := doortest.New(tb)
	h.SetPlatform(document)
	s := &site{TB: tb, House: h, key: h.Key("acme")}
	s.handler = h.For("acme", newHandler(s))
	return s
}

func newHandler(s *site) *ofrep.Handler {
	return ofrep.New(ofrep.Config{Door: s.Door, Revision: s.Revision})
}

// ask is one request. Its fields differ from those of a sound one.
type ask struct {
	method, path, body, key string
	header                  map[string]string
}

func (s *site) send(a ask) *httptest.ResponseRecorder {
	s.Helper()
	if a.method == "" {
		a.method = http.MethodPost
	}
	if a.path == "" {
		a.path = "/ofrep/v1/evaluate/flags"
	}
	if a.key == "" {
		a.key = s.key
	}
	r := httptest.NewRequestWithContext(s.Context(), a.method, "https://acme.example"+a.path, strings.NewReader(a.body))
	r.Header.Set("Authorization", "Bearer "+a.key)
	for name, value := range a.header {
		r.Header.Set(name, value)
		if value == "" {
			r.Header.Del(name)
		}
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w
}

func single(key string) string { return "/ofrep/v1/evaluate/flags/" + key }

func TestSingle(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const meta = `,"metadata":{"set":"main"}}`
	for path, want := range map[string]struct {
		status int
		body   string
	}{
		"plain":    {200, `{"key":"plain","reason":"STATIC","variant":"off","value":false,"metadata":{"public":true,"set":"main"}}`},
		"a/b":      {200, `{"key":"a/b","reason":"STATIC","variant":"one","value":1` + meta},
		"a%2Fb":    {200, `{"key":"a/b","reason":"STATIC","variant":"one","value":1` + meta},
		"a%20b%25": {200, `{"key":"a b%","reason":"STATIC","variant":"odd","value":"x"` + meta},
		"off":      {200, `{"key":"off","reason":"DISABLED"` + meta},
		"code":     {200, `{"key":"code","reason":"DEFAULT"` + meta},
		"tenant":   {200, `{"key":"tenant","reason":"TARGETING_MATCH","variant":"acme","value":"ours"` + meta},
		"a%252Fb":  {404, `{"key":"a%2Fb","errorCode":"FLAG_NOT_FOUND","errorDetails":"there is no such flag"}`},
		"none":     {404, `{"key":"none","errorCode":"FLAG_NOT_FOUND","errorDetails":"there is no such flag"}`},
		"broken":   {400, `{"key":"broken","errorCode":"PARSE_ERROR","errorDetails":"the flag's definition or rule is broken"` + meta},
		"lost":     {400, `{"key":"lost","errorCode":"GENERAL","errorDetails":"the flag's rule gave no variant of it, or took too long"` + meta},
	} {
		for _, body := range []string{`{}`, `{"context":null}`, `{"context":{}}`, ` {"context" : {"targetingKey":"u","environment":"x"}} `} {
			got := s.send(ask{path: single(path), body: body})
			if got.Code != want.status || got.Body.String() != want.body {
				t.Errorf("%s of %s: %d %s, want %d %s", path, body, got.Code, got.Body, want.status, want.body)
			}
		}
	}
}

func TestBulk(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, path := range []string{"/ofrep/v1/evaluate/flags", "/ofrep/v1/evaluate/flags/"} {
		got := s.send(ask{path: path, body: `{"context":{"targetingKey":"u","level":"high"}}`})
		var body struct {
			Flags    []map[string]any
			Metadata map[string]any
			Streams  []struct {
				Type     string
				Endpoint struct{ RequestURI string }
				Delay    int `json:"inactivityDelaySec"`
			} `json:"eventStreams"`
		}
		if err := json.Unmarshal(got.Body.Bytes(), &body); err != nil || got.Code != http.StatusOK {
			t.Fatalf("%d %s", got.Code, got.Body)
		}
		flags := map[string]any{}
		for _, f := range body.Flags {
			flags[f["key"].(string)] = fmt.Sprint(f["reason"], f["errorCode"], f["value"])
		}
		want := map[string]any{
			"plain": "STATIC <nil> false", "a/b": "STATIC <nil> 1", "a b%": "STATIC <nil> x", "off": "DISABLED <nil> <nil>",
			"code": "DEFAULT <nil> <nil>", "rule": "TARGETING_MATCH <nil> hi", "tenant": "TARGETING_MATCH <nil> ours",
			"broken": "<nil> PARSE_ERROR <nil>", "lost": "<nil> GENERAL <nil>",
		}
		for key, value := range want {
			want[key] = strings.ReplaceAll(value.(string), " ", "")
			flags[key] = strings.ReplaceAll(fmt.Sprint(flags[key]), " ", "")
		}
		if diff := cmp.Diff(want, flags); diff != "" {
			t.Errorf("flags, want - got +:\n%s", diff)
		}
		if body.Metadata["set"] != "main" || len(body.Streams) != 1 || body.Streams[0].Type != "sse" || body.Streams[0].Delay != 120 ||
			!strings.HasPrefix(body.Streams[0].Endpoint.RequestURI, "/ofrep/v1/events?t=") {
			t.Errorf("metadata and streams: %v %v", body.Metadata, body.Streams)
		}
		h := got.Header()
		if h.Get("Cache-Control") != "private, no-cache" || h.Get("Vary") != "Authorization, X-API-Key, Origin" || h.Get("ETag") == "" {
			t.Errorf("header %v", h)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	theirs := s.Key("globex")
	ended := s.KeyUntil("acme", s.Now())
	deep := strings.Repeat(`{"x":`, 32) + "1" + strings.Repeat("}", 32)
	deeper := strings.Repeat(`{"x":`, 33) + "1" + strings.Repeat("}", 33)
	basic := map[string]string{"Authorization": "Basic " + "eDp5"}
	for what, c := range map[string]struct {
		ask    ask
		status int
		code   string
	}{
		"no JSON":              {ask{body: `{`}, 400, "PARSE_ERROR"},
		"nothing":              {ask{body: ``}, 400, "PARSE_ERROR"},
		"two documents":        {ask{body: `{}{}`}, 400, "PARSE_ERROR"},
		"a list":               {ask{body: `[]`}, 400, "PARSE_ERROR"},
		"null":                 {ask{body: `null`}, 400, "PARSE_ERROR"},
		"context a list":       {ask{body: `{"context":[]}`}, 400, "INVALID_CONTEXT"},
		"context a string":     {ask{body: `{"context":"x"}`}, 400, "INVALID_CONTEXT"},
		"deep":                 {ask{body: `{"context":` + deep + `}`}, 200, ""},
		"too deep":             {ask{body: `{"context":` + deeper + `}`}, 400, "INVALID_CONTEXT"},
		"deep in a string":     {ask{body: `{"context":{"x":"\"` + strings.Repeat("[", 40) + `"}}`}, 200, ""},
		"number out of range":  {ask{body: `{"context":{"x":1e400}}`}, 400, "INVALID_CONTEXT"},
		"large context":        {ask{body: `{"context":{"x":"` + strings.Repeat("x", 65<<10) + `"}}`}, 400, "INVALID_CONTEXT"},
		"targetingKey":         {ask{body: `{"context":{"targetingKey":7}}`}, 400, "INVALID_CONTEXT"},
		"a body at the limit":  {ask{body: `{"x":"` + strings.Repeat("x", 1_000_000-8) + `"}`}, 200, ""},
		"a body beyond it":     {ask{body: `{"x":"` + strings.Repeat("x", 1_000_000-7) + `"}`}, 413, ""},
		"another tenant named": {ask{body: `{"context":{"tenant":"globex"}}`}, 403, ""},
		"a tenant of null":     {ask{body: `{"context":{"tenant":null}}`}, 403, ""},
		"its own tenant named": {ask{body: `{"context":{"tenant":"acme"}}`}, 200, ""},
		"another tenant's key": {ask{body: `{}`, key: theirs}, 403, ""},
		"an ended key":         {ask{body: `{}`, key: ended}, 401, ""},
		"no such key":          {ask{body: `{}`, key: "rhc_" + strings.Repeat("A", 43)}, 401, ""},
		"no key":               {ask{body: `{}`, key: "x"}, 401, ""},
		"nothing sent":         {ask{body: `{}`, header: map[string]string{"Authorization": ""}}, 401, ""},
		"a password":           {ask{body: `{}`, header: basic}, 401, ""},
		"two keys":             {ask{body: `{}`, header: map[string]string{"X-API-Key": s.key}}, 401, ""},
		"the other header":     {ask{body: `{}`, header: map[string]string{"X-API-Key": s.key, "Authorization": ""}}, 200, ""},
		"GET":                  {ask{method: http.MethodGet}, 405, ""},
		"PUT of one":           {ask{method: http.MethodPut, path: single("plain"), body: `{}`}, 405, ""},
		"POST of events":       {ask{path: "/ofrep/v1/events", body: `{}`}, 405, ""},
		"another path":         {ask{path: "/ofrep/v1/evaluate", body: `{}`}, 404, ""},
		"an older path":        {ask{path: "/ofrep/v1/configuration", body: `{}`}, 404, ""},
		"events without token": {ask{method: http.MethodGet, path: "/ofrep/v1/events"}, 401, ""},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			got := s.send(c.ask)
			var body struct {
				Code    string `json:"errorCode"`
				Details string `json:"errorDetails"`
			}
			if err := json.Unmarshal(got.Body.Bytes(), &body); err != nil {
				t.Errorf("%v of %.200s", err, got.Body)
			}
			if got.Code != c.status || body.Code != c.code || (body.Details == "") != (c.status == 200) {
				t.Errorf("%d %.200s, want %d %s", got.Code, got.Body, c.status, c.code)
			}
			for _, key := range []string{theirs, ended, s.key} {
				if strings.Contains(got.Body.String(), key) {
					t.Error("a key is in the answer")
				}
			}
		})
	}
}

func TestVerifiedTenantDecides(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.SetPlatform(`{"flags":{"f":{"state":"ENABLED","variants":{"y":"yes","n":"no"},"defaultVariant":"n","targeting":
		{"if":[{"and":[{"==":[{"var":"plan"},"gold"]},{"==":[{"var":"region"},"mars"]},{"==":[{"var":"environment"},"moon"]}]},"y"]}}}}`)
	lies := `{"context":{"plan":"gold","region":"mars","environment":"moon","tenant":"acme"}}`
	if got := s.send(ask{path: single("f"), body: lies}).Body.String(); !strings.Contains(got, `"value":"no"`) {
		t.Errorf("the caller chose its plan: %s", got)
	}
	s.SetPlan("gold", `{"flags":{"f":{"defaultVariant":"y","targeting":{}}}}`)
	if got := s.send(ask{path: single("f"), body: lies}).Body.String(); !strings.Contains(got, `"value":"no"`) {
		t.Errorf("the caller chose its plan's layer: %s", got)
	}
	handler := ofrep.New(ofrep.Config{Door: s.Door})
	s.handler = s.For("acme", handler, func(c *tenant.Claims) { c.Plan = "gold" })
	if got := s.send(ask{path: single("f"), body: `{}`}).Body.String(); !strings.Contains(got, `"value":"yes"`) {
		t.Errorf("a tenant of the plan gets %s", got)
	}
	if w := httptest.NewRecorder(); true {
		handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/ofrep/v1/evaluate/flags", strings.NewReader(`{}`)))
		if w.Code != http.StatusUnauthorized {
			t.Errorf("without a verified tenant: %d %s", w.Code, w.Body)
		}
	}
}

func TestBrowsersSeeWhatIsPublic(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const page, other = "https://app.acme.example", "https://evil.example"
	key := s.Key("acme", page)
	from := func(origin string) map[string]string { return map[string]string{"Origin": origin} }
	got := s.send(ask{key: key, body: `{}`, header: from(page)})
	if got.Code != http.StatusOK || strings.Count(got.Body.String(), `"key":`) != 2 || strings.Contains(got.Body.String(), `"a/b"`) {
		t.Errorf("a browser sees %d %s", got.Code, got.Body)
	}
	if h := got.Header(); h.Get("Access-Control-Allow-Origin") != page || h.Get("Access-Control-Expose-Headers") != "ETag, Retry-After" {
		t.Errorf("header %v", h)
	}
	hidden, absent := s.send(ask{key: key, path: single("off"), body: `{}`, header: from(page)}), s.send(ask{key: key, path: single("oof"), body: `{}`, header: from(page)})
	if hidden.Code != http.StatusNotFound || strings.ReplaceAll(hidden.Body.String(), `"off"`, `"oof"`) != absent.Body.String() {
		t.Errorf("a hidden flag answers %s, an absent one %s", hidden.Body, absent.Body)
	}
	for what, c := range map[string]struct {
		ask    ask
		status int
		origin string
	}{
		"its own host":              {ask{key: key, header: from("https://acme.example")}, 200, ""},
		"another page":              {ask{key: key, header: from(other)}, 403, ""},
		"no page":                   {ask{key: key}, 403, ""},
		"a server's key in a page":  {ask{header: from(page)}, 200, ""},
		"preflight":                 {ask{method: http.MethodOptions, header: map[string]string{"Origin": page, "Authorization": ""}}, 204, page},
		"preflight of another page": {ask{method: http.MethodOptions, header: map[string]string{"Origin": other, "Authorization": ""}}, 403, ""},
		"no key in the page":        {ask{key: "x", header: from(page)}, 401, page},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			c.ask.body = `{}`
			got := s.send(c.ask)
			if got.Code != c.status || got.Header().Get("Access-Control-Allow-Origin") != c.origin {
				t.Errorf("%d %s for %q", got.Code, got.Body, got.Header().Get("Access-Control-Allow-Origin"))
			}
		})
	}
	if h := s.send(ask{method: http.MethodOptions, header: from(page)}).Header(); h.Get("Access-Control-Allow-Headers") != "Content-Type, Authorization, X-API-Key, If-None-Match" {
		t.Errorf("preflight: %v", h)
	}
}

func TestChangeThatIsNotHereYet(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for what, want := range map[string]int{"": 200, "x": 200, "1": 200, strconv.FormatInt(s.Revision(), 10): 200, "999": 429, "9223372036854775807": 400} {
		began := time.Now()
		got := s.send(ask{path: "/ofrep/v1/evaluate/flags?flagConfigEtag=" + what, body: `{}`})
		if got.Code != want || want == 429 && (time.Since(began) < time.Second || got.Header().Get("Retry-After") != "1") {
			t.Errorf("told of %q: %d %s after %v", what, got.Code, got.Body, time.Since(began))
		}
	}
	next := strconv.FormatInt(s.Revision()+1, 10)
	done := make(chan int)
	go func() { done <- s.send(ask{path: "/ofrep/v1/evaluate/flags?flagConfigEtag=" + next, body: `{}`}).Code }()
	s.SetTenant("acme", `{"flags":{}}`)
	if got := <-done; got != http.StatusOK {
		t.Errorf("the change came while it was waited for: %d", got)
	}
}

// What callers' defaults stand in for is counted here as in a process's own evaluations.
func TestFailuresAreCounted(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, key := range []string{"plain", "off", "code", "nothing", "broken"} {
		s.send(ask{path: single(key), body: `{}`})
	}
	if diff := cmp.Diff(map[string]int64{"FLAG_NOT_FOUND": 1, "PARSE_ERROR": 1}, s.Failures()); diff != "" {
		t.Errorf("one by one (-want +got)\n%s", diff)
	}
	s.send(ask{body: `{}`})
	if diff := cmp.Diff(map[string]int64{"FLAG_NOT_FOUND": 1, "PARSE_ERROR": 2, "GENERAL": 1}, s.Failures()); diff != "" {
		t.Errorf("and all (-want +got)\n%s", diff)
	}
}
