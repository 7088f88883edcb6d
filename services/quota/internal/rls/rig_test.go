package rls_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	common "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/rls"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/rls/ruleset"
)

// rig is a listener with peers of several rights.
type rig struct {
	testing.TB
	ca       *identity.Authority
	engine   *memory
	domains  *rls.Domains
	tenants  map[string]tenant.UID
	api, web string
	server   identity.ID
}

// Find implements rls.Tenants.
func (r *rig) Find(id tenant.ID) (tenant.TenantState, bool) {
	uid, ok := r.tenants[id.String()]
	return tenant.TenantState{UID: uid, ID: id}, ok
}

func (r *rig) need(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) id(name string) identity.ID {
	r.Helper()
	id, err := identity.App(tenanttest.TrustDomain, "cell-1", name)
	r.need(err)
	return id
}

func (r *rig) source(id identity.ID) *identity.Source {
	r.Helper()
	pair, err := r.ca.Issue(identity.Leaf{ID: id})
	r.need(err)
	source, err := identity.FromPair(pair, identity.Options{})
	r.need(err)
	return source
}

// peers are those of the rig: envoy may all but name tenants, tenants may that and is lenient, strict is not, plain may
// nothing beyond asking about two domains.
func (r *rig) peers() rls.Peers {
	return rls.Peers{
		{Identity: r.id("envoy"), Domains: []string{"*"}, Override: true, Refund: true},
		{Identity: r.id("tenants"), Domains: []string{"*"}, NamesTenant: "tenant"},
		{Identity: r.id("strict"), Domains: []string{"*"}, NamesTenant: "tenant", UnknownTenant: rls.RefuseUnknown},
		{Identity: r.id("plain"), Domains: []string{"edge", "default/*"}},
	}
}

func newRig(t testing.TB, style rls.Style) *rig {
	t.Helper()
	r := &rig{TB: t, engine: newMemory(), tenants: map[string]tenant.UID{}}
	for _, id := range []string{"acme", "globex"} {
		r.tenants[id] = tenanttest.UID(id)
	}
	var err error
	r.ca, err = identity.NewAuthority(identity.AuthorityConfig{TrustDomain: tenanttest.TrustDomain})
	r.need(err)
	r.server, err = identity.Service(tenanttest.TrustDomain, "cell-1", "quota")
	r.need(err)
	meter, err := rls.NewMeter(noop.NewMeterProvider())
	r.need(err)
	r.domains = rls.NewDomains(meter)
	server, err := rls.NewServer(rls.ServerConfig{
		Service: rls.New(rls.Config{Engine: r.engine, Domains: r.domains, Tenants: r, Meter: meter, Style: style}),
		Peers:   r.peers(), Identity: r.source(r.server), Ready: func() error { return nil }, Log: slog.New(slog.DiscardHandler),
	})
	r.need(err)
	r.serve(server)
	return r
}

func (r *rig) serve(server *rls.Server) {
	r.Helper()
	var at [2]net.Listener
	for i := range at {
		var err error
		at[i], err = net.Listen("tcp", "127.0.0.1:0")
		r.need(err)
	}
	r.api, r.web = at[0].Addr().String(), at[1].Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Run(ctx, at[0], at[1]); err != nil {
			r.Error(err)
		}
	})
	r.Cleanup(func() { cancel(); serving.Wait() })
}

// load imports files, which are all that there is then.
func (r *rig) load(files ...string) {
	r.Helper()
	var all []rls.Import
	for _, f := range files {
		set, err := ruleset.Parse("rules.yaml", []byte(f))
		r.need(err)
		all = append(all, rls.Import{Domain: set.Domain, Set: set, Salt: bytes.Repeat([]byte{7}, 16), Revision: 1})
	}
	r.need(r.domains.Apply(all, true))
}

// as returns the generated client of a peer.
func (r *rig) as(name string) rlsv3.RateLimitServiceClient {
	return rlsv3.NewRateLimitServiceClient(r.dial(name))
}

func (r *rig) dial(name string) *grpc.ClientConn {
	r.Helper()
	conn, err := grpc.NewClient("passthrough:///"+r.api, grpc.WithTransportCredentials(credentials.NewTLS(r.source(r.id(name)).ClientTLS(r.server))))
	r.need(err)
	r.Cleanup(func() { _ = conn.Close() })
	return conn
}

// ask asks as envoy.
func (r *rig) ask(domain string, descriptors ...*common.RateLimitDescriptor) *rlsv3.RateLimitResponse {
	r.Helper()
	return r.askAs("envoy", &rlsv3.RateLimitRequest{Domain: domain, Descriptors: descriptors})
}

func (r *rig) askAs(name string, req *rlsv3.RateLimitRequest) *rlsv3.RateLimitResponse {
	r.Helper()
	resp, err := r.as(name).ShouldRateLimit(r.Context(), req)
	r.need(err)
	return resp
}

// of makes a descriptor of keys and values.
func of(pairs ...string) *common.RateLimitDescriptor {
	d := &common.RateLimitDescriptor{}
	for i := 0; i < len(pairs); i += 2 {
		d.Entries = append(d.Entries, &common.RateLimitDescriptor_Entry{Key: pairs[i], Value: pairs[i+1]})
	}
	return d
}

// hits sets a descriptor's own hits.
func hits(n uint64, d *common.RateLimitDescriptor) *common.RateLimitDescriptor {
	d.HitsAddend = wrapperspb.UInt64(n)
	return d
}

// refund makes a descriptor give its hits back.
func refund(d *common.RateLimitDescriptor) *common.RateLimitDescriptor {
	d.IsNegativeHits = true
	return d
}

const (
	ok   = rlsv3.RateLimitResponse_OK
	over = rlsv3.RateLimitResponse_OVER_LIMIT
)

// codesOf are the codes of an answer, "O" for OK and "X" for over, the overall one first.
func codesOf(resp *rlsv3.RateLimitResponse) string {
	letter := map[rlsv3.RateLimitResponse_Code]string{ok: "O", over: "X"}
	var b strings.Builder
	b.WriteString(letter[resp.GetOverallCode()] + ":")
	for _, s := range resp.GetStatuses() {
		b.WriteString(letter[s.GetCode()])
	}
	return b.String()
}

// refusedWith wants an error of gRPC.
func refusedWith(t testing.TB, what string, err error, code codes.Code, message string) {
	t.Helper()
	if status.Code(err) != code || !strings.Contains(status.Convert(err).Message(), message) {
		t.Errorf("%s: %v, want %s %q", what, err, code, message)
	}
}

// post asks over HTTP.
func (r *rig) post(name, path, body string) (code int, text string) {
	r.Helper()
	method := http.MethodPost
	if body == "" {
		method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(r.Context(), method, "https://"+r.web+path, strings.NewReader(body))
	r.need(err)
	tls, err := identity.AnonymousClientTLS(r.ca.RootsPEM(), r.server, nil)
	r.need(err)
	if name != "" {
		tls = r.source(r.id(name)).ClientTLS(r.server)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: tls}}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	r.need(err)
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	r.need(err)
	return resp.StatusCode, string(b)
}
