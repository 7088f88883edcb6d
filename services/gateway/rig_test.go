package gateway_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/operator"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/internal/pg/pgdbtest"
	"github.com/rowhouse-platform/rowhouse/internal/serve"
	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
	"github.com/rowhouse-platform/rowhouse/sdk/feed/feedtest"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/clientkey"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/keyfile"
	"github.com/rowhouse-platform/rowhouse/sdk/limits"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanthttp"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
	"github.com/rowhouse-platform/rowhouse/sdk/trust"
	"github.com/rowhouse-platform/rowhouse/services/gateway"
)

const platformHost = "rowhouse.localhost"

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// control is tenancy, quota and config, as far as the gateway asks them.
type control struct {
	tenancyv1.UnimplementedRoutingServiceServer
	tenancyv1.UnimplementedContextServiceServer
	quotav1.UnimplementedLimitServiceServer
	quotav1.UnimplementedLeaseServiceServer
	configv1.UnimplementedSettingsServiceServer
	configv1.UnimplementedClientKeyServiceServer
	shelf
	easel

	r                                *rig
	routes, tenants, limits, configs *feedtest.Publisher
	clientKeys                       *feedtest.Publisher
	refuse                           atomic.Bool // no leases any more
	asks                             atomic.Int64
	certified                        atomic.Int64
	publishing                       sync.WaitGroup
	mu                               sync.Mutex
	lag                              chan struct{} // what is certified is published when it is closed
}

// hold keeps keys that are certified from now on from the feeds until release.
func (c *control) hold() (release func()) {
	lag := make(chan struct{})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lag = lag
	return sync.OnceFunc(func() { close(lag) })
}

func (c *control) held() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lag
}

func (c *control) WatchRoutes(_ *tenancyv1.WatchRoutesRequest, s grpc.ServerStreamingServer[tenancyv1.WatchRoutesResponse]) error {
	return c.routes.Watch(s.Context(), func(f *apiv1.FeedFrame) error { return s.Send(&tenancyv1.WatchRoutesResponse{Frame: f}) })
}

func (c *control) WatchTenants(_ *tenancyv1.WatchTenantsRequest, s grpc.ServerStreamingServer[tenancyv1.WatchTenantsResponse]) error {
	return c.tenants.Watch(s.Context(), func(f *apiv1.FeedFrame) error { return s.Send(&tenancyv1.WatchTenantsResponse{Frame: f}) })
}

func (c *control) WatchLimits(_ *quotav1.WatchLimitsRequest, s grpc.ServerStreamingServer[quotav1.WatchLimitsResponse]) error {
	return c.limits.Watch(s.Context(), func(f *apiv1.FeedFrame) error { return s.Send(&quotav1.WatchLimitsResponse{Frame: f}) })
}

func (c *control) WatchSettings(_ *configv1.WatchSettingsRequest, s grpc.ServerStreamingServer[configv1.WatchSettingsResponse]) error {
	return c.configs.Watch(s.Context(), func(f *apiv1.FeedFrame) error { return s.Send(&configv1.WatchSettingsResponse{Frame: f}) })
}

func (c *control) WatchClientKeys(_ *configv1.WatchClientKeysRequest, s grpc.ServerStreamingServer[configv1.WatchClientKeysResponse]) error {
	return c.clientKeys.Watch(s.Context(), func(f *apiv1.FeedFrame) error { return s.Send(&configv1.WatchClientKeysResponse{Frame: f}) })
}

func (c *control) ReportApplied(context.Context, *tenancyv1.ReportAppliedRequest) (*tenancyv1.ReportAppliedResponse, error) {
	return &tenancyv1.ReportAppliedResponse{}, nil
}

func (c *control) GrantLeases(_ context.Context, in *quotav1.GrantLeasesRequest) (*quotav1.GrantLeasesResponse, error) {
	c.asks.Add(1)
	resp := &quotav1.GrantLeasesResponse{Holders: 1}
	for _, a := range in.GetAsks() {
		answer := &quotav1.LeaseAnswer{Outcome: quotav1.LeaseOutcome_LEASE_OUTCOME_GRANTED}
		for _, cell := range a.GetCells() {
			said := &quotav1.LeaseCellAnswer{Ok: true, Tokens: cell.GetNeed(), Remaining: 7, LimitRevision: 1}
			if c.refuse.Load() {
				answer.Outcome = quotav1.LeaseOutcome_LEASE_OUTCOME_DENIED
				said = &quotav1.LeaseCellAnswer{RetryAfter: durationpb.New(3 * time.Second), LimitRevision: 2}
			}
			answer.Cells = append(answer.Cells, said)
		}
		resp.Answers = append(resp.Answers, answer)
	}
	return resp, nil
}

func (c *control) CertifyKey(_ context.Context, in *tenancyv1.CertifyKeyRequest) (*tenancyv1.CertifyKeyResponse, error) {
	if !ed25519.Verify(in.GetPublicKey(), []byte("rowhouse-certify/v1\x00"+c.r.self.String()), in.GetProof()) {
		return nil, status.Error(codes.PermissionDenied, "wrong proof")
	}
	now := time.Now().Truncate(time.Second)
	cert, err := tenant.SignKeyCertificate(c.r.private("trust"), tenant.KeyCertificate{
		PublicKey: in.GetPublicKey(), Minter: "gateway", SPIFFE: c.r.self, Cells: []string{tenanttest.Cell}, Audience: ^tenant.Audience(0),
		Classes: tenant.ClassesOf(tenant.ClassSession, tenant.ClassTransaction), NotBefore: now.Add(-time.Minute), NotAfter: now.Add(47 * time.Hour),
	})
	if err != nil {
		return nil, err
	}
	parsed, err := tenant.ParseKeyCertificate([]ed25519.PublicKey{c.r.private("trust").Public().(ed25519.PublicKey)}, cert)
	if err != nil {
		return nil, err
	}
	held := c.held()
	c.publishing.Go(func() {
		<-held
		if err := c.r.trust.SetKey(parsed); err != nil {
			c.r.Error(err)
		}
		c.tenants.Set(c.r, "key/"+hex.EncodeToString(parsed.KeyID[:]), &tenancyv1.RouteEntry{
			Kind: &tenancyv1.RouteEntry_ContextKey{ContextKey: &tenancyv1.ContextKeyRoute{Certificate: cert}},
		})
	})
	c.certified.Add(1)
	return &tenancyv1.CertifyKeyResponse{Certificate: cert, RenewTime: timestamppb.New(now.Add(12 * time.Hour)), SealKeys: []*tenancyv1.SealKey{{
		Cell: tenanttest.Cell, Kid: 1, Key: bytes.Repeat([]byte{7}, 32), NotAfter: timestamppb.New(now.Add(72 * time.Hour)),
	}}}, nil
}

// rig is everything around a gateway: the control plane, an app, files. The tenants
// acme and globex are served, hooli is suspended.
type rig struct {
	testing.TB
	dir     string
	ca      *identity.Authority
	self    identity.ID
	peer    identity.ID
	app     identity.ID
	control *control
	config  gateway.Config
	trust   *tenant.Trust          // what the app trusts
	seen    atomic.Pointer[string] // the newest context that the app was shown
	owner   string                 // an operator's token
	db      *pgdbtest.DB

	revision atomic.Int64 // of what is set in tests
}

func database() pg.Database {
	return pg.Database{Name: gateway.Database, Migrations: gateway.Migrations()}
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{TB: t, dir: t.TempDir(), trust: tenant.NewTrust(time.Now), db: pgdbtest.New(t, database())}
	var err error
	r.ca, err = identity.NewAuthority(identity.AuthorityConfig{TrustDomain: tenanttest.TrustDomain})
	r.need(err)
	r.self, r.peer, r.app = r.id("service", "gateway"), r.id("service", "control"), r.id("app", "notes")
	r.writeFiles()
	r.control = &control{
		r: r, routes: feedtest.New("routes", r.private("feed")), tenants: feedtest.New(trust.FeedName, r.private("feed")),
		limits: feedtest.New(limits.FeedName, r.private("feed")), configs: feedtest.New(settings.FeedName, r.private("feed")),
		clientKeys: feedtest.New(clientkey.FeedName, r.private("feed")),
	}
	r.control.hold()()
	r.furnish()
	t.Cleanup(r.control.publishing.Wait)
	return r
}

func (r *rig) need(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) id(kind, name string) identity.ID {
	r.Helper()
	id, err := identity.Parse("spiffe://" + tenanttest.TrustDomain + "/cell/cell-1/" + kind + "/" + name)
	r.need(err)
	return id
}

func (r *rig) path(name string) yamlfile.Path { return yamlfile.Path(filepath.Join(r.dir, name)) }

func (r *rig) private(name string) ed25519.PrivateKey {
	r.Helper()
	key, err := keyfile.Private(string(r.path(name + ".key")))
	r.need(err)
	return key
}

func (r *rig) source(id identity.ID) *identity.Source {
	r.Helper()
	pair, err := r.ca.Issue(identity.Leaf{ID: id})
	r.need(err)
	source, err := identity.FromPair(pair, identity.Options{})
	r.need(err)
	return source
}

func (r *rig) writeFiles() {
	r.Helper()
	pair, err := r.ca.Issue(identity.Leaf{ID: r.self, DNSNames: []string{"acme.localhost", "globex.localhost", "hooli.localhost", platformHost}})
	r.need(err)
	r.need(pair.Write(string(r.path("id"))))
	for _, name := range []string{"trust", "feed"} {
		r.need(keyfile.NewPair(string(r.path(name)), rand.Reader))
	}
	r.need(keyfile.NewSecret(string(r.path("kek")), rand.Reader))
	token, sum, err := operator.NewToken(rand.Reader)
	r.need(err)
	r.owner = token
	r.write("operators.yaml", fmt.Sprintf("operators:\n  - {name: owner, token_sha256: %s, roles: [owner]}\n", sum))
	r.write("peers.yaml", fmt.Sprintf("peers:\n  - {identity: %q, roles: [app]}\n  - {identity: %q, roles: [app]}\n", r.app, r.id("app", "thief")))
	r.write("db.dsn", r.db.DSN(database().Service()))
	control := gateway.Peer{Identity: r.peer, FeedKeys: r.path("feed.pub")}
	r.config = gateway.Config{
		Process: serve.Config{
			Listen: "127.0.0.1:0", Ops: "127.0.0.1:0", Development: true, Operators: r.path("operators.yaml"), Peers: r.path("peers.yaml"),
			Identity: serve.IdentityFiles{Cert: r.path("id/cert.pem"), Key: r.path("id/key.pem"), Roots: r.path("id/roots.pem")},
		},
		Replica: "gateway-1", HTTP: "127.0.0.1:0", HTTPS: "127.0.0.1:0",
		Certificates: []gateway.Certificate{{Cert: r.path("id/cert.pem"), Key: r.path("id/key.pem")}},
		Tenancy:      control, Settings: control, Quota: control,
		TrustRoots: r.path("trust.pub"), State: r.path("state"), KEK: r.path("kek"), Database: r.path("db.dsn"),
	}
	r.reach("127.0.0.1:1")
}

// reach says where the control plane is.
func (r *rig) reach(address string) {
	r.config.Tenancy.Address, r.config.Settings.Address, r.config.Quota.Address = address, address, address
}

func (r *rig) write(name, content string) {
	r.Helper()
	r.need(os.WriteFile(string(r.path(name)), []byte(content), 0o600))
}

// furnish publishes cell, app, tenants, domains and limits.
func (r *rig) furnish() {
	r.Helper()
	c := r.control
	r.setCell(1)
	c.routes.Set(r, "app/notes", &tenancyv1.RouteEntry{Kind: &tenancyv1.RouteEntry_App{App: &tenancyv1.AppRoute{
		App: "notes", AudienceBit: 16, SharedHosts: []string{platformHost}, Upstreams: []*tenancyv1.AppRouteUpstream{
			{Cell: tenanttest.Cell, HttpAddress: r.serveApp(), SpiffeId: r.app.String()},
		},
	}}})
	for _, id := range []string{"acme", "globex", "hooli"} {
		state := tenancyv1.TenantState_TENANT_STATE_ACTIVE
		if id == "hooli" {
			state = tenancyv1.TenantState_TENANT_STATE_SUSPENDED
		}
		r.setTenant(id, state, 1)
		uid := tenanttest.UID(id)
		c.routes.Set(r, "domain/"+id+".localhost", &tenancyv1.RouteEntry{Kind: &tenancyv1.RouteEntry_Domain{
			Domain: &tenancyv1.DomainRoute{Host: id + ".localhost", TenantUid: uid[:], App: "notes"},
		}})
	}
	r.setLimit("platform/requests", "platform/limits/requests", quotav1.StoreLossPolicy_STORE_LOSS_POLICY_FAIL_OPEN)
	r.setLimit("tenant/"+tenanttest.UID("globex").String()+"/requests", "tenants/globex/limits/requests", quotav1.StoreLossPolicy_STORE_LOSS_POLICY_FAIL_CLOSED)
}

func (r *rig) setCell(kid uint32) {
	r.Helper()
	r.control.routes.Set(r, "cell/"+tenanttest.Cell, &tenancyv1.RouteEntry{Kind: &tenancyv1.RouteEntry_Cell{
		Cell: &tenancyv1.CellRoute{Cell: tenanttest.Cell, Number: 1, Region: "local", SealKid: kid},
	}})
}

func (r *rig) setLimit(key, name string, loss quotav1.StoreLossPolicy) {
	r.Helper()
	r.control.limits.Set(r, key, &quotav1.LimitEntry{Limit: &quotav1.Limit{
		Name: name, Tokens: 100, Burst: 100, Period: durationpb.New(time.Second), OnStoreLoss: loss, Revision: 1,
	}})
}

// setTenant publishes a tenant to the gateway, in both feeds, and to the app.
func (r *rig) setTenant(id string, state tenancyv1.TenantState, generation uint64) {
	r.Helper()
	uid := tenanttest.UID(id)
	entry := &tenancyv1.RouteEntry{Kind: &tenancyv1.RouteEntry_Tenant{Tenant: &tenancyv1.TenantRoute{
		Uid: uid[:], TenantId: id, State: state, Generation: generation, Plan: "free", Model: tenancyv1.IsolationModel_ISOLATION_MODEL_SHARED,
		Cell: tenanttest.Cell, PlacementGeneration: 1, LossPolicy: tenancyv1.LossPolicy_LOSS_POLICY_SERVE,
	}}}
	r.control.tenants.Set(r, "tenant/"+uid.String(), entry)
	r.control.routes.Set(r, "tenant/"+uid.String(), entry)
	parsed, err := tenant.ParseID(id)
	r.need(err)
	r.need(r.trust.SetTenant(tenant.TenantState{UID: uid, ID: parsed, Generation: generation, PlacementGeneration: 1, State: tenant.StateActive}))
}

// serveControl serves the control plane until the returned function is called.
func (r *rig) serveControl() (stop func()) {
	r.Helper()
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(r.source(r.peer).ServerTLS())))
	tenancyv1.RegisterRoutingServiceServer(server, r.control)
	tenancyv1.RegisterContextServiceServer(server, r.control)
	quotav1.RegisterLimitServiceServer(server, r.control)
	quotav1.RegisterLeaseServiceServer(server, r.control)
	configv1.RegisterSettingsServiceServer(server, r.control)
	configv1.RegisterClientKeyServiceServer(server, r.control)
	configv1.RegisterBrandAssetServiceServer(server, &r.control.shelf)
	configv1.RegisterBrandDraftServiceServer(server, &r.control.easel)
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	r.need(err)
	r.reach(l.Addr().String())
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	stop = func() { server.Stop(); serving.Wait() }
	r.Cleanup(stop)
	return stop
}

// serveApp serves an app that says for which tenant it was asked.
func (r *rig) serveApp() string {
	r.Helper()
	r.trust.Bookmark(time.Now())
	verifier, err := tenant.NewVerifier(tenant.VerifierConfig{Trust: r.trust, Audience: tenant.AudienceApp(16), MayPresent: tenant.Presenters(r.self)})
	r.need(err)
	server := &http.Server{
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0), ReadHeaderTimeout: time.Minute,
		TLSConfig: r.source(r.app).ServerTLS(identity.WithHTTP1()),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			r.trust.Bookmark(time.Now())
			raw, _ := base64.StdEncoding.DecodeString(q.Header.Get(tenanthttp.Header))
			r.seen.Store(new(string(raw)))
			presenter, _ := identity.FromTLS(q.TLS)
			tc, err := verifier.Verify(string(raw), presenter)
			if err != nil {
				tenanthttp.WriteProblem(w, q, err)
				return
			}
			_, _ = io.WriteString(w, tc.ID().String())
		}),
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	r.need(err)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.ServeTLS(l, "", "") })
	r.Cleanup(func() { _ = server.Close(); serving.Wait() })
	return l.Addr().String()
}

// running is a gateway that runs.
type running struct {
	http, https, api, ops string
	stop                  func()
	log                   *logBuffer
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start runs a gateway until the test ends or stop is called.
func (r *rig) start() *running {
	r.Helper()
	g := &running{log: &logBuffer{}}
	ctx, cancel := context.WithCancel(context.Background())
	opened, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- gateway.Run(ctx, r.config, gateway.WithLog(g.log),
			gateway.WithListening(func(http, https string) { g.http, g.https = http, https }),
			gateway.WithAPI(func(api, ops net.Addr) {
				g.api, g.ops = api.String(), ops.String()
				close(opened)
			}))
	}()
	var once sync.Once
	g.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				r.Errorf("Run: %v", err)
			}
		})
	}
	select {
	case <-opened:
	case err := <-done:
		cancel()
		r.Fatalf("Run: %v\n%s", err, g.log)
	}
	r.Cleanup(func() {
		g.stop()
		if r.Failed() {
			r.Logf("log:\n%s", g.log)
		}
	})
	return g
}

// answer is a status with the reason of a refusal, or else the body.
type answer struct {
	status int
	text   string
}

// get asks a gateway over HTTPS.
func (r *rig) get(g *running, host, path string) answer {
	r.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(r.ca.RootsPEM())
	var dialer net.Dialer
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, g.https)
		},
	}
	res, err := (&http.Client{Transport: transport}).Get("https://" + host + path)
	r.need(err)
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	r.need(err)
	var problem tenanthttp.Problem
	if json.Unmarshal(b, &problem) == nil && problem.Reason != "" {
		return answer{res.StatusCode, problem.Reason}
	}
	return answer{res.StatusCode, string(b)}
}

// ready returns what the readiness probe says.
func (r *rig) ready(g *running) answer {
	r.Helper()
	res, err := http.Get("http://" + g.ops + "/readyz")
	r.need(err)
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	r.need(err)
	return answer{res.StatusCode, string(b)}
}

// eventually asks until it is true, for what another process does in its own time.
func eventually(tb testing.TB, what string, is func() bool) {
	tb.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-deadline.C:
			tb.Fatalf("never came: %s", what)
		}
	}
}

// run runs a gateway that should not start.
func run(t testing.TB, r *rig) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return gateway.Run(ctx, r.config, gateway.WithLog(io.Discard))
}
