package front_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/rowhouse-platform/rowhouse/sdk/authority"
	"github.com/rowhouse-platform/rowhouse/sdk/limits"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/edge"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/front"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/mint"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/token"
)

// benchHost is the host of the only tenant.
const benchHost = "notes.acme.test"

// plenty lends every process what it wants.
type plenty struct{}

func (plenty) Grant(_ context.Context, asks []lease.Ask) ([]lease.Answer, int, error) {
	return []lease.Answer{{Outcome: lease.Granted, Cells: []lease.CellAnswer{{
		OK: true, Tokens: max(asks[0].Cells[0].Want, 1<<20), Lifetime: time.Second, Remaining: 1 << 20, Revision: 1,
	}}}}, 1, nil
}

func (plenty) Return(context.Context, []lease.Give) error { return nil }

// canned is an app that always gives the same answer. It is not safe for concurrent use.
type canned struct{ body string }

func (c *canned) RoundTrip(r *http.Request, _, _ string, _ bool) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK, ContentLength: int64(len(c.body)), Request: r, Body: io.NopCloser(strings.NewReader(c.body)),
		Header: http.Header{
			"Content-Type": {"application/json"}, "Content-Length": {"1024"}, "Cache-Control": {"no-store"},
			"Date": {"Mon, 02 Jan 2006 15:04:05 GMT"},
		},
	}, nil
}

// sink is a client that throws away what it gets.
type sink struct {
	header http.Header
	status int
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) Write(b []byte) (int, error) { return len(b), nil }
func (s *sink) WriteHeader(status int)      { s.status = status }

// benchHandler is a front door as in production, without a trace collector.
func benchHandler(b *testing.B) *front.Handler {
	b.Helper()
	clock := tenant.NewClock()
	issuer := tenanttest.NewIssuer(b, clock)
	state := issuer.Tenant(b, "acme")
	host, err := authority.ParseName(benchHost)
	must(b, err)
	table := edge.NewTable()
	table.SetCell(edge.Cell{ID: tenanttest.Cell, Number: tenanttest.CellNumber, Region: tenanttest.Region, SealKID: tenanttest.SealKID})
	table.SetApp(edge.App{
		ID: "notes", Audience: tenant.AudienceApp(16),
		Upstreams: map[string]edge.Upstream{tenanttest.Cell: {HTTPAddress: "127.0.0.1:1", SPIFFEID: issuer.Gateway().String()}},
	})
	table.SetTenant(edge.Tenant{
		UID: state.UID, ID: state.ID, State: edge.Active, Generation: state.Generation, Plan: tenanttest.Plan, Model: tenant.ModelShared,
		Cell: tenanttest.Cell, PlacementGeneration: state.PlacementGeneration,
	})
	table.SetDomain(edge.Domain{Host: host, Tenant: state.UID, App: "notes"})
	minter := mint.New(clock, strings.NewReader(""))
	minter.Use(&mint.Keys{
		Signer: issuer.Signer(), Certificate: issuer.Certificate(),
		Seals: map[string][]mint.SealKey{tenanttest.Cell: {{KID: tenanttest.SealKID, Key: issuer.SealKey(), NotAfter: clock().Add(time.Hour)}}},
	})
	limit, err := gcra.New(1<<20, time.Second, 1<<20)
	must(b, err)
	policies := new(limits.Store)
	policies.SetPlan(tenanttest.Plan, limits.Requests, &limits.Policy{Limit: limit, Revision: 1})
	tokens, err := token.New(nil, clock)
	must(b, err)
	provider := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample()))
	b.Cleanup(func() { must(b, provider.Shutdown(context.WithoutCancel(b.Context()))) })
	h, err := front.New(front.Config{
		Table: func() *edge.Table { return table }, Silence: func() time.Duration { return 0 }, Tokens: tokens, Minter: minter,
		Verifier: issuer.Verifier(b, func(c *tenant.VerifierConfig) { c.Audience = tenant.AudienceGateway }), Self: issuer.Gateway(),
		Services: tenant.AudienceGateway, Ready: func() error { return nil },
		Limits:   limits.New(limits.Config{Granter: plenty{}, Policies: policies, Clock: clock}),
		Upstream: &canned{body: strings.Repeat("x", 1024)}, Tracer: provider.Tracer("bench"), Log: slog.New(slog.DiscardHandler),
	})
	must(b, err)
	return h
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// BenchmarkServeHTTP is what we add to a request beside net/http on both sides.
func BenchmarkServeHTTP(b *testing.B) {
	h := benchHandler(b)
	ctx, cancel := context.WithCancel(b.Context()) // as net/http gives one
	defer cancel()
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "http://"+benchHost+"/notes?page=2", nil)
	for name, value := range map[string]string{
		"Accept": "application/json", "Accept-Encoding": "gzip, br", "Accept-Language": "en", "User-Agent": "bench",
		"Cookie": "session=0123456789abcdef",
	} {
		r.Header.Set(name, value)
	}
	w := &sink{}
	b.ReportAllocs()
	for b.Loop() {
		w.header, w.status = http.Header{}, 0
		if h.ServeHTTP(w, r); w.status != http.StatusOK {
			b.Fatalf("status %d", w.status)
		}
	}
}
