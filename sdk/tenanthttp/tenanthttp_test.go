package tenanthttp_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/trace"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanthttp"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// app is an application behind mTLS that answers with its tenant.
type app struct {
	*tenanttest.Issuer
	t      *testing.T
	ca     *identity.Authority
	id     identity.ID
	server *httptest.Server
}

func newApp(t *testing.T) *app {
	t.Helper()
	return newAppOf(t, http.HandlerFunc(whoami))
}

func newAppOf(t *testing.T, next http.Handler, edits ...func(*tenanthttp.Config)) *app {
	t.Helper()
	return newAppBehind(t, func(h http.Handler) http.Handler { return h }, next, edits...)
}

// newAppBehind has a middleware outside of the package's handler.
func newAppBehind(
	t *testing.T, outer func(http.Handler) http.Handler, next http.Handler, edits ...func(*tenanthttp.Config),
) *app {
	t.Helper()
	ca, err := identity.NewAuthority(identity.AuthorityConfig{TrustDomain: tenanttest.TrustDomain})
	must(t, err)
	id, err := identity.App(tenanttest.TrustDomain, tenanttest.Cell, "notes")
	must(t, err)
	a := &app{Issuer: tenanttest.NewIssuer(t, nil), t: t, ca: ca, id: id}
	cfg := tenanthttp.Config{Verifier: a.Verifier(t)}
	for _, edit := range edits {
		edit(&cfg)
	}
	a.server = httptest.NewUnstartedServer(outer(tenanthttp.Handler(cfg, next)))
	a.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0) // of statuses that come too late
	a.server.EnableHTTP2 = true
	a.server.TLS = a.source(id).ServerTLS(identity.OptionalClient(), identity.WithHTTP1())
	a.server.StartTLS()
	t.Cleanup(a.server.Close)
	return a
}

func whoami(w http.ResponseWriter, r *http.Request) {
	c, err := tenant.FromContext(r.Context())
	if err != nil || r.Header.Get(tenanthttp.Header) != "" {
		tenanthttp.WriteProblem(w, r, errors.Join(err, errors.New("the header reached the application")))
		return
	}
	_, _ = io.WriteString(w, c.ID().String())
}

func (a *app) source(id identity.ID) *identity.Source {
	a.t.Helper()
	pair, err := a.ca.Issue(identity.Leaf{ID: id})
	must(a.t, err)
	source, err := identity.FromPair(pair, identity.Options{})
	must(a.t, err)
	return source
}

func (a *app) client(config *tls.Config) *http.Client {
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	a.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (a *app) ask(client *http.Client, values ...string) (int, string) {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), http.MethodGet, a.server.URL+"/notes", nil)
	must(a.t, err)
	for _, v := range values {
		req.Header.Add(tenanthttp.Header, v)
	}
	res, err := client.Do(req)
	must(a.t, err)
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	must(a.t, err)
	if res.StatusCode == http.StatusOK {
		return res.StatusCode, string(body)
	}
	var problem tenanthttp.Problem
	must(a.t, json.Unmarshal(body, &problem))
	if got := res.Header.Get("Content-Type"); got != "application/problem+json" || problem.Status != res.StatusCode {
		a.t.Errorf("a refusal of type %q, status %d and %d", got, res.StatusCode, problem.Status)
	}
	return res.StatusCode, problem.Reason
}

func TestHandlerVerifies(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	encode := func(token string) string { return base64.StdEncoding.EncodeToString([]byte(token)) }
	acme, globex := encode(a.Token(t, "acme")), encode(a.Token(t, "globex"))
	a.Suspend(t, "initech")
	a.Change(t, "hooli", func(s *tenant.TenantState) { s.State = tenant.StateDeleted })
	gateway := a.client(a.source(a.Gateway()).ClientTLS(a.id))
	for _, c := range []struct {
		name   string
		values []string
		status int
		want   string
	}{
		{"acme", []string{acme}, 200, "acme"},
		{"globex", []string{globex}, 200, "globex"},
		{"none", nil, 401, "CONTEXT_MISSING"},
		{"empty", []string{""}, 401, "CONTEXT_MISSING"},
		{"two", []string{acme, globex}, 401, "CONTEXT_INVALID"},
		{"two equal", []string{acme, acme}, 401, "CONTEXT_INVALID"},
		{"joined", []string{acme + "," + globex}, 401, "CONTEXT_INVALID"},
		{"no padding", []string{strings.TrimRight(encode(a.Token(t, "acme")+"x"), "=")}, 401, "CONTEXT_INVALID"},
		{"not base64", []string{"!" + acme}, 401, "CONTEXT_INVALID"},
		{"forged", []string{encode(tenanttest.NewIssuer(t, nil).Token(t, "acme"))}, 401, "CONTEXT_INVALID"},
		{"suspended", []string{encode(a.Token(t, "initech"))}, 403, "TENANT_SUSPENDED"},
		{"deleted", []string{encode(a.Token(t, "hooli"))}, 410, "TENANT_DELETED"},
	} {
		if status, got := a.ask(gateway, c.values...); status != c.status || got != c.want {
			t.Errorf("%s: %d %q, expected %d %q", c.name, status, got, c.status, c.want)
		}
	}
	anonymous, err := identity.AnonymousClientTLS(a.ca.RootsPEM(), a.id, nil)
	must(t, err)
	for name, client := range map[string]*http.Client{
		"another app": a.client(a.source(a.id).ClientTLS(a.id)), "nobody": a.client(anonymous),
	} {
		if status, got := a.ask(client, acme); status != 403 || got != "PRESENTER_REFUSED" {
			t.Errorf("presented by %s: %d %q", name, status, got)
		}
	}
}

func TestProblemSaysWhatCallersMayKnow(t *testing.T) {
	t.Parallel()
	sc := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}})
	ctx := trace.ContextWithSpanContext(t.Context(), sc)
	write := func(err error) (*http.Response, tenanthttp.Problem) {
		t.Helper()
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
		r.Header.Set(tenanthttp.RequestIDHeader, "r-1")
		w := httptest.NewRecorder()
		tenanthttp.WriteProblem(w, r, err)
		var p tenanthttp.Problem
		must(t, json.Unmarshal(w.Body.Bytes(), &p))
		return w.Result(), p
	}
	full := fault.New(fault.ResourceExhausted, "RATE_LIMIT_EXCEEDED", "too many").WithDomain("rowhouse.quota").
		WithMetadata("limit", "requests").WithRetry(1200 * time.Millisecond).
		WithField(fault.FieldViolation{Field: "f", Description: "d"}).WithCause(errors.New("secret"))
	res, got := write(full)
	want := tenanthttp.Problem{Type: "about:blank", Title: "Too Many Requests", Status: 429, Detail: "too many",
		Reason: "RATE_LIMIT_EXCEEDED", Domain: "rowhouse.quota", RequestID: "r-1",
		Metadata: map[string]string{"limit": "requests"}, Fields: []tenanthttp.ProblemField{{Field: "f", Description: "d"}}}
	if diff := cmp.Diff(want, got); diff != "" || res.Header.Get("Retry-After") != "2" {
		t.Errorf("retry %q (-want +got):\n%s", res.Header.Get("Retry-After"), diff)
	}
	for _, err := range []error{errors.New("secret"), fault.New(fault.Internal, "X", "secret"), fault.New(0, "X", "secret")} {
		_, got := write(err)
		want := tenanthttp.Problem{Type: "about:blank", Title: "Internal Server Error", Status: 500, Detail: "internal error",
			Reason: "INTERNAL", Domain: "rowhouse.api", RequestID: "r-1", Metadata: map[string]string{"traceId": sc.TraceID().String()}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	}
	if _, got := write(context.DeadlineExceeded); got.Status != 504 || got.Reason != "DEADLINE_TOO_SHORT" {
		t.Errorf("too late: %+v", got)
	}
}

func TestStatusOfEachKind(t *testing.T) {
	t.Parallel()
	for kind, want := range map[fault.Kind]int{
		fault.InvalidArgument: 400, fault.Unauthenticated: 401, fault.PermissionDenied: 403, fault.NotFound: 404,
		fault.AlreadyExists: 409, fault.FailedPrecondition: 400, fault.Aborted: 409, fault.OutOfRange: 400,
		fault.ResourceExhausted: 429, fault.Unavailable: 503, fault.DeadlineExceeded: 504, fault.Unimplemented: 501,
		fault.Internal: 500,
	} {
		if got := tenanthttp.Status(fault.New(kind, "R", "m")); got != want {
			t.Errorf("%v is %d, expected %d", kind, got, want)
		}
	}
}

func TestStatusOfSomeReasons(t *testing.T) {
	t.Parallel()
	for reason, want := range map[string]int{
		"TENANT_DELETED": 410, "MISDIRECTED": 421, "TOO_LARGE": 413, "UPSTREAM_FAILED": 502, "UPSTREAM_UNAVAILABLE": 503,
	} {
		if got := tenanthttp.Status(fault.New(fault.Unavailable, reason, "m")); got != want {
			t.Errorf("%s is %d, expected %d", reason, got, want)
		}
	}
}

// A defect is one line in the log, under the id that the caller was given; a refusal by
// the application is none.
func TestDefectsAreLogged(t *testing.T) {
	t.Parallel()
	var err error
	var log bytes.Buffer
	a := newAppOf(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set(tenanthttp.RequestIDHeader, "r-1")
		tenanthttp.WriteProblem(w, r, err)
	}), func(c *tenanthttp.Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	gateway := a.client(a.source(a.Gateway()).ClientTLS(a.id))
	err = fault.New(fault.NotFound, "R", "m")
	if status, _ := a.ask(gateway, encode(a.Token(t, "acme"))); status != 404 || log.Len() != 0 {
		t.Errorf("%d is logged as %q", status, &log)
	}
	err = errors.New("the disk is full")
	if status, _ := a.ask(gateway, encode(a.Token(t, "acme"))); status != 500 {
		t.Errorf("the answer is %d", status)
	}
	line := log.String()
	for _, want := range []string{"level=ERROR", `"the disk is full"`, "request_id=r-1"} {
		if !strings.Contains(line, want) || strings.Count(line, "\n") != 1 {
			t.Errorf("%q has no %s", line, want)
		}
	}
}

// The gateway chooses the id of a request; what a client sends under that name is not it.
func TestProblemNamesTheRequest(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	r.Header.Set(tenanthttp.RequestIDHeader, "client")
	w := httptest.NewRecorder()
	w.Header().Set("Rowhouse-Request-Id", "ours")
	tenanthttp.WriteProblem(w, r, fault.New(fault.NotFound, "R", "m"))
	if body := w.Body.String(); !strings.Contains(body, `"requestId":"ours"`) || strings.Contains(body, "client") {
		t.Error(body)
	}
}

// Base64 decoders skip line breaks; one token has one spelling here, however the
// request came to be.
func TestOneSpellingPerToken(t *testing.T) {
	t.Parallel()
	issuer := tenanttest.NewIssuer(t, nil)
	handler := tenanthttp.Handler(tenanthttp.Config{Verifier: issuer.Verifier(t)}, http.HandlerFunc(whoami))
	good := base64.StdEncoding.EncodeToString([]byte(issuer.Token(t, "acme")))
	for value, reason := range map[string]string{
		good: "PRESENTER_REFUSED", good[:8] + "\r\n" + good[8:]: "CONTEXT_INVALID", good + "\n": "CONTEXT_INVALID",
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.Header.Set(tenanthttp.Header, value)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if !strings.Contains(w.Body.String(), reason) {
			t.Errorf("%q: %s, expected %s", value, w.Body, reason)
		}
	}
}
