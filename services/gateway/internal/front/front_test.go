package front_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/limits"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/edge"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/front"
)

func ways() []string { return []string{h1, h1TLS, h2TLS} }

func bearer(jwt string) http.Header { return http.Header{"Authorization": {"Bearer " + jwt}} }

func TestTenantIsFound(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	for _, way := range ways() {
		for name, tc := range map[string]struct {
			host, path string
			header     http.Header
			tenant     string
			uri        string
		}{
			"host":             {"acme.localhost", "/a%20b/c?d=%2f&e", nil, "acme", "/a%20b/c?d=%2f&e"},
			"host, upper case": {"ACME.localhost", "/", nil, "acme", "/"},
			"host and path":    {"acme.localhost", "/t/acme/n", nil, "acme", "/n"},
			"path":             {shared, "/t/globex/a/b?c", nil, "globex", "/a/b?c"},
			"path alone":       {shared, "/t/globex", nil, "globex", "/"},
			"token":            {shared, "/n", bearer(s.jwt("globex")), "globex", "/n"},
			"token, lower":     {shared, "/n", http.Header{"Authorization": {"bearer " + s.jwt("globex")}}, "globex", "/n"},
			"selector":         {shared, "/n", http.Header{"X-Customer": {"acme"}}, "acme", "/n"},
			"all":              {"acme.localhost", "/t/acme/", http.Header{"X-Customer": {"acme"}, "Authorization": {"Bearer " + s.jwt("acme")}}, "acme", "/"},
		} {
			a := s.get(way, tc.host, tc.path, tc.header)
			if a.status != http.StatusOK || a.said.Tenant != tc.tenant || a.said.URI != tc.uri || a.said.Host != strings.ToLower(tc.host) {
				t.Errorf("%s, %s: %d, %+v", way, name, a.status, a.said)
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	selector := func(v ...string) http.Header { return http.Header{"X-Customer": v} }
	for name, tc := range map[string]struct {
		host, path string
		header     http.Header
		status     int
		reason     string
	}{
		"host against path":        {"acme.localhost", "/t/globex/n", nil, 403, fault.ReasonTenantMismatch},
		"host against token":       {"acme.localhost", "/", bearer(s.jwt("globex")), 403, fault.ReasonTenantMismatch},
		"host against stranger":    {"acme.localhost", "/", bearer(s.jwt("stranger")), 403, fault.ReasonTenantMismatch},
		"host against selector":    {"acme.localhost", "/", selector("globex"), 403, fault.ReasonTenantMismatch},
		"two selectors":            {shared, "/", selector("acme", "globex"), 404, fault.ReasonResourceNotFound},
		"path against token":       {shared, "/t/acme/", bearer(s.jwt("globex")), 403, fault.ReasonTenantMismatch},
		"path against selector":    {shared, "/t/acme/", selector("globex"), 403, fault.ReasonTenantMismatch},
		"nobody named":             {shared, "/", nil, 404, fault.ReasonResourceNotFound},
		"unknown host":             {"nobody.localhost", "/", nil, 404, fault.ReasonResourceNotFound},
		"unknown host with token":  {"nobody.localhost", "/", bearer(s.jwt("acme")), 404, fault.ReasonResourceNotFound},
		"bad token":                {"acme.localhost", "/", bearer("x.y.z"), 401, fault.ReasonCredentialInvalid},
		"bad token on shared host": {shared, "/", bearer("x.y.z"), 401, fault.ReasonCredentialInvalid},
		"two tokens":               {"acme.localhost", "/", http.Header{"Authorization": {"Bearer " + s.jwt("acme"), "Bearer " + s.jwt("acme")}}, 401, fault.ReasonCredentialInvalid},
		"another scheme":           {"acme.localhost", "/", http.Header{"Authorization": {"Basic eDp5"}}, 401, fault.ReasonCredentialInvalid},
		"suspended":                {"hooli.localhost", "/", nil, 403, fault.ReasonTenantSuspended},
		"deleted":                  {"initech.localhost", "/", nil, 410, fault.ReasonTenantDeleted},
		"not ready":                {"umbrella.localhost", "/", nil, 503, fault.ReasonTenantNotReady},
		"an escaped slash":         {"acme.localhost", "/a%2fb", nil, 400, fault.ReasonInvalidField},
		"two slashes":              {"acme.localhost", "/a//b", nil, 400, fault.ReasonInvalidField},
	} {
		for _, way := range ways() {
			before := s.app.asked.Load()
			a := s.get(way, tc.host, tc.path, tc.header)
			if a.status != tc.status || a.problem.Reason != tc.reason || a.problem.Status != tc.status {
				t.Errorf("%s, %s: %d %+v, want %d %s", way, name, a.status, a.problem, tc.status, tc.reason)
			}
			if a.problem.RequestID == "" || a.problem.RequestID != a.header.Get("Rowhouse-Request-Id") || a.header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s, %s: request id %q, header %v", way, name, a.problem.RequestID, a.header)
			}
			if s.app.asked.Load() != before {
				t.Errorf("%s, %s: the app was asked", way, name)
			}
		}
	}
}

func TestMethodsThatAreNotServed(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	if a := s.ask(s.client(h2TLS, ""), http.MethodTrace, "https://acme.localhost/", nil); a.status != 501 || s.app.asked.Load() != 0 {
		t.Errorf("TRACE: %d", a.status)
	}
}

// A browser reuses a connection for every host that its certificate covers.
func TestMisdirected(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	for _, way := range []string{h1TLS, h2TLS} {
		client := s.client(way, "globex.localhost")
		for host, want := range map[string]int{"globex.localhost": 200, "acme.localhost": 421, "hooli.localhost": 421, shared: 421} {
			if a := s.ask(client, http.MethodGet, "https://"+host+"/t/"+strings.TrimSuffix(host, ".localhost"), nil); host != shared && a.status != want {
				t.Errorf("%s, %s: %d %+v, want %d", way, host, a.status, a.problem, want)
			}
		}
		if a := s.ask(client, http.MethodGet, "https://"+shared+"/t/acme/", nil); a.status != 421 || a.problem.Reason != fault.ReasonMisdirected {
			t.Errorf("%s, shared host: %d %+v", way, a.status, a.problem)
		}
	}
}

// Whoever looks for tenants must not learn which hosts or tenants there are.
func TestUnknownLooksTheSame(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	for _, accept := range []string{"text/html", "application/json", ""} {
		var first answer
		for i, at := range []struct{ host, path string }{
			{"nobody.localhost", "/"}, {"nobody.localhost", "/t/acme/"}, {shared, "/"}, {shared, "/t/nobody/"}, {shared, "/t/NOBODY/"}, {shared, "/t/a/"},
		} {
			a := s.get(h1TLS, at.host, at.path, http.Header{"Accept": {accept}})
			id := a.header.Get("Rowhouse-Request-Id")
			a.body = strings.ReplaceAll(a.body, id, "")
			for _, name := range []string{"Rowhouse-Request-Id", "Date"} {
				a.header.Del(name)
			}
			a.problem.RequestID = ""
			if i == 0 {
				first = a
			}
			if diff := cmp.Diff(first, a, cmp.AllowUnexported(answer{})); diff != "" || a.status != 404 {
				t.Errorf("%s, %v (-first +this):\n%s", accept, at, diff)
			}
			for _, word := range []string{"acme", "Acme", "nobody", "localhost", "tenant"} {
				if strings.Contains(a.body, word) {
					t.Errorf("%v: the answer says %q:\n%s", at, word, a.body)
				}
			}
		}
	}
}

func TestPagesForPeople(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	browser := http.Header{"Accept": {"text/html,application/xhtml+xml,*/*;q=0.8"}}
	for host, want := range map[string]struct {
		status       int
		text, reason string
	}{
		"nobody.localhost":   {404, "Nothing is served here", fault.ReasonResourceNotFound},
		"hooli.localhost":    {403, "suspended", fault.ReasonTenantSuspended},
		"initech.localhost":  {410, "closed", fault.ReasonTenantDeleted},
		"umbrella.localhost": {503, "made ready", fault.ReasonTenantNotReady},
	} {
		a := s.get(h2TLS, host, "/", browser)
		if a.status != want.status || !strings.Contains(a.body, want.text) || !strings.Contains(a.body, want.reason) ||
			!strings.Contains(a.body, a.header.Get("Rowhouse-Request-Id")) {
			t.Errorf("%s: %d\n%s", host, a.status, a.body)
		}
		policy := a.header.Get("Content-Security-Policy")
		if a.header.Get("Content-Type") != "text/html; charset=utf-8" || !strings.HasPrefix(policy, "default-src 'none'") ||
			a.header.Get("X-Robots-Tag") != "noindex" || a.header.Get("Cache-Control") != "no-store" || len(a.body) > 32<<10 {
			t.Errorf("%s: %v", host, a.header)
		}
		if branded := strings.Contains(a.body, "&lt;b&gt;Hooli"); branded != (host == "hooli.localhost") || strings.Contains(a.body, "<b>") {
			t.Errorf("%s: branded %v\n%s", host, branded, a.body)
		}
	}
	// Somebody else's brand on a page about a disagreement would tell who it is.
	if a := s.get(h1, "acme.localhost", "/t/globex/", browser); strings.Contains(a.body, "Acme") || a.status != 403 {
		t.Errorf("a page about a mismatch: %d\n%s", a.status, a.body)
	}
}

func TestLimit(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	s.limit(2, time.Minute, limits.SafeRate)
	client := s.client(h2TLS, "")
	get := func(accept string) answer {
		return s.ask(client, http.MethodGet, "https://acme.localhost/", http.Header{"Accept": {accept}})
	}
	for left := 1; left >= 0; left-- {
		a := get("")
		if a.status != 200 || a.header.Get("Ratelimit") != fmt.Sprintf(`"requests";r=%d`, left) || a.header.Get("Ratelimit-Policy") != `"requests";q=2;w=60` {
			t.Errorf("with %d left: %d %v", left, a.status, a.header)
		}
	}
	before := s.app.asked.Load()
	for _, accept := range []string{"", "text/html"} {
		a := get(accept)
		if a.status != 429 || a.header.Get("Retry-After") != "30" || a.header.Get("Ratelimit") != `"requests";r=0;t=30` {
			t.Errorf("refused: %d %v", a.status, a.header)
		}
		if accept == "" && (a.problem.Reason != fault.ReasonRateLimitExceeded || a.problem.Metadata["limit"] != "requests") {
			t.Errorf("refused: %+v", a.problem)
		}
	}
	if s.app.asked.Load() != before {
		t.Error("the app was asked")
	}
}

func TestLimitWithoutQuota(t *testing.T) {
	t.Parallel()
	for loss, want := range map[limits.Loss]int{limits.FailOpen: 200, limits.FailClosed: 503, limits.SafeRate: 200} {
		s := newStreet(t)
		s.limit(2, time.Minute, loss)
		s.quota.down = true
		if a := s.get(h1, "acme.localhost", "/", nil); a.status != want || a.header.Get("Ratelimit") != "" {
			t.Errorf("%v: %d %+v", loss, a.status, a.problem)
		}
	}
}

func TestControlPlaneLost(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	s.silence.Store(int64(59 * time.Second))
	if a := s.get(h1, "globex.localhost", "/", nil); a.status != 200 {
		t.Errorf("before a minute: %d", a.status)
	}
	s.silence.Store(int64(61 * time.Second))
	if a := s.get(h1, "globex.localhost", "/", nil); a.status != 503 || a.problem.Reason != fault.ReasonControlPlaneLost {
		t.Errorf("one that denies: %d %+v", a.status, a.problem)
	}
	if a := s.get(h1, "acme.localhost", "/", nil); a.status != 200 {
		t.Errorf("one that goes on: %d %+v", a.status, a.problem)
	}
}

// An empty table knows nobody, and that is not "not found".
func TestStarting(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	s.starts = fault.New(fault.Unavailable, fault.ReasonStarting, "no routes yet")
	if a := s.get(h1, "acme.localhost", "/", nil); a.status != 503 || a.problem.Reason != fault.ReasonStarting || s.app.asked.Load() != 0 {
		t.Errorf("%d %+v", a.status, a.problem)
	}
	s.starts = nil
	if a := s.get(h1, "acme.localhost", "/", nil); a.status != 200 {
		t.Errorf("%d %+v", a.status, a.problem)
	}
}

func TestAppFails(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	s.app.on("/dies", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	if a := s.get(h2TLS, "acme.localhost", "/dies", nil); a.status != 502 || a.problem.Reason != fault.ReasonUpstreamFailed {
		t.Errorf("an app that breaks off: %d %+v", a.status, a.problem)
	}
	s.app.on("/half", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery == "long" {
			w.Header().Set("Content-Length", "100")
		}
		_, _ = w.Write([]byte("half"))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	for _, way := range ways() {
		for _, query := range []string{"", "?long"} {
			res, err := s.client(way, "").Get(origin(way, "acme.localhost") + "/half" + query)
			if err == nil {
				_, err = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
			}
			if err == nil {
				t.Errorf("%s%s: half an answer looks whole", way, query)
			}
		}
	}
	app := edge.App{ID: "notes", Audience: tenant.AudienceApp(16), Upstreams: map[string]edge.Upstream{}}
	closed := listener(t)
	need(t, closed.Close())
	another := s.app.id.String() + "x"
	for name, tc := range map[string]struct {
		up     edge.Upstream
		status int
		reason string
	}{
		"nobody listens":     {edge.Upstream{HTTPAddress: closed.Addr().String(), SPIFFEID: s.app.id.String()}, 503, fault.ReasonUpstreamDown},
		"another identity":   {edge.Upstream{HTTPAddress: s.app.http, SPIFFEID: another}, 502, fault.ReasonUpstreamFailed},
		"not an identity":    {edge.Upstream{HTTPAddress: s.app.http, SPIFFEID: "x"}, 503, fault.ReasonUpstreamDown},
		"no address":         {edge.Upstream{SPIFFEID: s.app.id.String()}, 503, fault.ReasonUpstreamDown},
		"only a gRPC server": {edge.Upstream{GRPCAddress: s.app.grpc, SPIFFEID: s.app.id.String()}, 503, fault.ReasonUpstreamDown},
	} {
		app.Upstreams[tenanttest.Cell] = tc.up
		s.table.SetApp(app)
		if a := s.get(h1, "acme.localhost", "/", nil); a.status != tc.status || a.problem.Reason != tc.reason || strings.Contains(a.body, "spiffe") {
			t.Errorf("%s: %d %+v", name, a.status, a.problem)
		}
	}
}

// The routes may know a tenant, or a change of it, a moment before the trust.
func TestFeedsOutOfStep(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	known := s.issuer.Tenant(t, "acme")
	routed := edge.Tenant{
		UID: known.UID, ID: known.ID, State: edge.Active, Generation: known.Generation, Plan: "free", Model: tenant.ModelShared,
		Cell: tenanttest.Cell, PlacementGeneration: known.PlacementGeneration,
	}
	check := func(what, reason string) {
		t.Helper()
		a := s.get(h1, "acme.localhost", "/", nil)
		if a.status != 503 || a.problem.Reason != reason || a.header.Get("Retry-After") != "1" || s.app.asked.Load() != 0 {
			t.Errorf("%s: %d %+v", what, a.status, a.problem)
		}
	}
	s.issuer.Trust().RemoveTenant(known.UID)
	check("a new tenant", fault.ReasonStarting)
	s.issuer.Change(t, "acme", func(s *tenant.TenantState) { s.Generation += 2 })
	check("an old generation", fault.ReasonTenantNotReady)
	s.issuer.Suspend(t, "acme")
	routed.Generation += 3
	s.table.SetTenant(routed)
	if a := s.get(h1, "acme.localhost", "/", nil); a.status != 403 || a.problem.Reason != fault.ReasonTenantSuspended {
		t.Errorf("a suspension that the trust has first: %d %+v", a.status, a.problem)
	}
}

// With no issuers tokens are the app's matter.
func TestTokensPassUnread(t *testing.T) {
	t.Parallel()
	s := newStreet(t, func(c *front.Config) { c.Tokens = noTokens(t) })
	a := s.get(h1, "acme.localhost", "/", http.Header{"Authorization": {"Basic eDp5"}})
	if a.status != 200 || a.said.Header.Get("Authorization") != "Basic eDp5" {
		t.Errorf("%d %v", a.status, a.said.Header)
	}
}
