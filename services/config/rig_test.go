package config_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/follower"
	"github.com/rowhouse-platform/rowhouse/internal/operator"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/internal/pg/pgdbtest"
	"github.com/rowhouse-platform/rowhouse/internal/serve"
	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/keyfile"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
	"github.com/rowhouse-platform/rowhouse/sdk/trust"
	"github.com/rowhouse-platform/rowhouse/services/config"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// tenancy stands in for the service tenancy: it knows some tenants and the key of an issuer, and never changes.
type tenancy struct {
	tenancyv1.UnimplementedRoutingServiceServer

	private ed25519.PrivateKey
	entries []*apiv1.FeedEntry
	root    [32]byte
	events  *events
}

// WatchEvents implements the feed of events.
func (s *tenancy) WatchEvents(
	_ *tenancyv1.WatchEventsRequest, stream grpc.ServerStreamingServer[tenancyv1.WatchEventsResponse],
) error {
	return s.events.watch(stream.Context(), s.private, func(f *apiv1.FeedFrame) error {
		return stream.Send(&tenancyv1.WatchEventsResponse{Frame: f})
	})
}

func (s *tenancy) ReportApplied(context.Context, *tenancyv1.ReportAppliedRequest) (*tenancyv1.ReportAppliedResponse, error) {
	return &tenancyv1.ReportAppliedResponse{}, nil
}

func (s *tenancy) WatchTenants(
	_ *tenancyv1.WatchTenantsRequest, stream grpc.ServerStreamingServer[tenancyv1.WatchTenantsResponse],
) error {
	root := s.root
	chunks := slices.Collect(slices.Chunk(s.entries, 5000))
	for i, entries := range chunks {
		chunk := &apiv1.FeedChunk{Revision: 1, Index: int32(i), Last: i == len(chunks)-1, Entries: entries}
		frame := &apiv1.FeedFrame{Kind: &apiv1.FeedFrame_Chunk{Chunk: chunk}}
		if err := stream.Send(&tenancyv1.WatchTenantsResponse{Frame: frame}); err != nil {
			return err
		}
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		b := &apiv1.FeedBookmark{Revision: 1, Root: root[:], ServerTime: timestamppb.Now(), ResumeToken: "x"}
		feed.Sign(s.private, trust.FeedName, b)
		frame := &apiv1.FeedFrame{Kind: &apiv1.FeedFrame_Bookmark{Bookmark: b}}
		if err := stream.Send(&tenancyv1.WatchTenantsResponse{Frame: frame}); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// add publishes an entry.
func (s *tenancy) add(tb testing.TB, key string, entry *tenancyv1.RouteEntry) {
	tb.Helper()
	value, err := proto.Marshal(entry)
	must(tb, err)
	s.entries = append(s.entries, &apiv1.FeedEntry{Key: key, Value: value})
}

// plans are the plans of the tenants that every rig knows.
func plans() map[string]string {
	return map[string]string{"acme": "business", "globex": "free", "initech": "free", "umbrella": "business"}
}

// catalog is the plans that every rig knows: those of its tenants, and some that no tenant has.
func catalog() []string {
	out := []string{"business", "free", "unheard-of", "a", "b", "c", "d", "back", "never", "operator", "operator2", "operator3"}
	for i := range 21 {
		out = append(out, fmt.Sprintf("p%d", i))
	}
	return out
}

// gone is a tenant that was deleted.
const gone = "defunct"

// states are all tenants that a rig knows.
func states() map[string]tenancyv1.TenantState {
	out := map[string]tenancyv1.TenantState{gone: tenancyv1.TenantState_TENANT_STATE_DELETED}
	for id := range plans() {
		out[id] = tenancyv1.TenantState_TENANT_STATE_ACTIVE
	}
	return out
}

// parents are the parents of the tenants that have one.
func parents() map[string]string { return map[string]string{"initech": "umbrella"} }

// rig is a running service with its database and a stand-in for tenancy.
type rig struct {
	tb      testing.TB
	dir     string
	ca      *identity.Authority
	issuer  *tenanttest.Issuer
	db      *pgdbtest.DB
	log     *logBuffer
	tokens  map[string]string
	events  *events
	address string
	config  config.Config
	stop    func()
}

// logBuffer keeps the service's log for a test that fails.
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

func newRig(tb testing.TB) *rig {
	tb.Helper()
	return newRigWith(tb, func(*config.Config) {})
}

// newRigWith is newRig with another configuration, and more tenants, of the plan "business".
func newRigWith(tb testing.TB, configure func(*config.Config), more ...string) *rig {
	tb.Helper()
	r := &rig{tb: tb, dir: tb.TempDir(), issuer: tenanttest.NewIssuer(tb, nil), log: &logBuffer{}, events: newEvents()}
	r.db = pgdbtest.New(tb, pg.Database{Name: config.Database, Migrations: config.Migrations()})
	var err error
	r.ca, err = identity.NewAuthority(identity.AuthorityConfig{TrustDomain: tenanttest.TrustDomain})
	must(tb, err)
	for _, name := range []string{"trust", "feed", "tenancy"} {
		must(tb, keyfile.NewPair(r.path(name), rand.Reader))
	}
	pair, err := r.ca.Issue(identity.Leaf{ID: r.service("config")})
	must(tb, err)
	must(tb, pair.Write(r.path("id")))
	r.write("db.dsn", r.db.DSN(config.Database+"_service"))
	r.writePolicies()
	p := func(name string) yamlfile.Path { return yamlfile.Path(r.path(name)) }
	r.config.Config = follower.Config{
		Process: serve.Config{
			Listen: "127.0.0.1:0", Ops: "127.0.0.1:0", Development: true, Operators: p("operators.yaml"), Peers: p("peers.yaml"),
			Identity: serve.IdentityFiles{Cert: p("id/cert.pem"), Key: p("id/key.pem"), Roots: p("id/roots.pem")},
		},
		Replica: "config-1", Database: p("db.dsn"), FeedKey: p("feed.key"), TrustRoots: p("trust.pub"), State: p("state"),
		Tenancy: follower.Tenancy{Address: "passthrough:///" + r.serveTenancy(more), Identity: r.service("tenancy"), FeedKeys: p("tenancy.pub")},
	}
	must(tb, keyfile.NewSecret(r.path("config.kek"), rand.Reader))
	r.config.KEK = p("config.kek")
	configure(&r.config)
	r.start()
	return r
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

func (r *rig) write(name, content string) {
	r.tb.Helper()
	must(r.tb, os.WriteFile(r.path(name), []byte(content), 0o600))
}

func (r *rig) service(name string) identity.ID {
	r.tb.Helper()
	id, err := identity.Service(tenanttest.TrustDomain, tenanttest.Cell, name)
	must(r.tb, err)
	return id
}

func (r *rig) writePolicies() {
	r.tb.Helper()
	r.tokens = make(map[string]string)
	var people strings.Builder
	people.WriteString("operators:\n")
	for _, name := range []string{"viewer", "operator", "owner", "auditor", "operator2", "operator3"} {
		token, sum, err := operator.NewToken(rand.Reader)
		must(r.tb, err)
		r.tokens[name] = token
		fmt.Fprintf(&people, "  - {name: %s, token_sha256: %s, roles: [%s]}\n", name, sum, strings.TrimRight(name, "23"))
	}
	r.write("operators.yaml", people.String())
	r.write("peers.yaml", fmt.Sprintf("peers:\n  - {identity: %q, roles: [gateway], may_present: true, secrets: [portal]}\n"+
		"  - {identity: %q, may_present: true, environment: staging}\n  - {identity: %q, roles: [tenancy]}\n",
		r.issuer.Gateway(), r.service("stage"), r.service("tenancy")))
}

// source is an identity's own certificate.
func (r *rig) source(id identity.ID) *identity.Source {
	r.tb.Helper()
	pair, err := r.ca.Issue(identity.Leaf{ID: id})
	must(r.tb, err)
	dir := r.tb.TempDir()
	must(r.tb, pair.Write(dir))
	s, err := identity.Files(filepath.Join(dir, identity.CertFile), filepath.Join(dir, identity.KeyFile),
		filepath.Join(dir, identity.RootsFile), identity.Options{})
	must(r.tb, err)
	return s
}

// serveTenancy serves the stand-in, which knows more tenants than all rigs have, and returns its address.
func (r *rig) serveTenancy(more []string) string {
	r.tb.Helper()
	private, err := keyfile.Private(r.path("tenancy.key"))
	must(r.tb, err)
	root, err := keyfile.Private(r.path("trust.key"))
	must(r.tb, err)
	s := &tenancy{private: private, events: r.events}
	known := states()
	for _, id := range more {
		known[id] = tenancyv1.TenantState_TENANT_STATE_ACTIVE
	}
	for id, is := range known {
		state := r.issuer.Tenant(r.tb, id)
		s.add(r.tb, "tenant/"+state.UID.String(), &tenancyv1.RouteEntry{Kind: &tenancyv1.RouteEntry_Tenant{Tenant: &tenancyv1.TenantRoute{
			Uid: state.UID[:], TenantId: id, Plan: cmp.Or(plans()[id], "business"), State: is,
			Generation: state.Generation, PlacementGeneration: state.PlacementGeneration,
			LossPolicy: tenancyv1.LossPolicy_LOSS_POLICY_SERVE, Region: tenanttest.Region, ParentUid: parentUID(id),
		}}})
	}
	for _, plan := range catalog() {
		s.add(r.tb, "plan/"+plan, &tenancyv1.RouteEntry{Kind: &tenancyv1.RouteEntry_Plan{Plan: &tenancyv1.PlanRoute{Plan: plan}}})
	}
	for cell, region := range map[string]string{tenanttest.Cell: tenanttest.Region, "elsewhere": "elsewhere", "eu": "eu"} {
		s.add(r.tb, "cell/"+cell, &tenancyv1.RouteEntry{
			Kind: &tenancyv1.RouteEntry_Cell{Cell: &tenancyv1.CellRoute{Cell: cell, Region: region}},
		})
	}
	certificate := r.issuer.Certificate()
	b, err := tenant.SignKeyCertificate(root, certificate)
	must(r.tb, err)
	id := tenant.KeyIDOf(certificate.PublicKey)
	s.add(r.tb, "key/"+hex.EncodeToString(id[:]), &tenancyv1.RouteEntry{
		Kind: &tenancyv1.RouteEntry_ContextKey{ContextKey: &tenancyv1.ContextKeyRoute{Certificate: b}},
	})
	listen, err := new(net.ListenConfig).Listen(r.tb.Context(), "tcp", "127.0.0.1:0")
	must(r.tb, err)
	digest := feed.NewDigest()
	for _, e := range s.entries {
		digest.Set(e.GetKey(), e.GetValue())
	}
	s.root = digest.Root()
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(r.source(r.service("tenancy")).ServerTLS())))
	tenancyv1.RegisterRoutingServiceServer(server, s)
	tenancyv1.RegisterDomainServiceServer(server, domains{})
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listen) }()
	r.tb.Cleanup(func() { server.Stop(); <-served })
	return listen.Addr().String()
}

func parentUID(id string) []byte {
	parent, ok := parents()[id]
	if !ok {
		return nil
	}
	uid := tenanttest.UID(parent)
	return uid[:]
}

// start runs the service until the test ends or stop is called.
func (r *rig) start() {
	r.tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	listening, done := make(chan [2]string, 1), make(chan error, 1)
	go func() {
		done <- config.Run(ctx, r.config, follower.WithLog(r.log), follower.WithListening(func(grpcAddr, ops net.Addr) {
			listening <- [2]string{grpcAddr.String(), ops.String()}
		}))
	}()
	var once sync.Once
	r.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				r.tb.Errorf("Run: %v", err)
			}
		})
	}
	var ops string
	select {
	case addresses := <-listening:
		r.address, ops = addresses[0], addresses[1]
	case err := <-done:
		r.tb.Fatalf("Run: %v\n%s", err, r.log)
	}
	r.tb.Cleanup(func() {
		r.stop()
		if r.tb.Failed() {
			r.tb.Logf("log:\n%s", r.log)
		}
	})
	eventually(r.tb, "ready", func() bool { return r.get("http://"+ops+"/readyz") == http.StatusOK })
}

func (r *rig) get(url string) int {
	req, err := http.NewRequestWithContext(r.tb.Context(), http.MethodGet, url, http.NoBody)
	must(r.tb, err)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// eventually asks until it is true. It is for what another goroutine does in its own time.
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

// as returns the API as an operator with the role.
func (r *rig) as(role string) api {
	r.tb.Helper()
	tls, err := identity.AnonymousClientTLS(r.ca.RootsPEM(), r.service("config"), nil)
	must(r.tb, err)
	token := r.tokens[role]
	return apiOf(r.dial(grpc.WithTransportCredentials(credentials.NewTLS(tls)), grpc.WithChainUnaryInterceptor(func(
		ctx context.Context, method string, req, resp any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
	) error {
		return invoke(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token), method, req, resp, cc, opts...)
	})))
}

// gateway returns a connection of the gateway, which may present contexts and watch.
func (r *rig) gateway() *grpc.ClientConn { return r.workload(r.issuer.Gateway()) }

// workload returns a connection of a workload.
func (r *rig) workload(id identity.ID) *grpc.ClientConn {
	r.tb.Helper()
	tls := r.source(id).ClientTLS(r.service("config"))
	return r.dial(append(tenantgrpc.Client(tenantgrpc.ClientConfig{}), grpc.WithTransportCredentials(credentials.NewTLS(tls)))...)
}

func (r *rig) dial(options ...grpc.DialOption) *grpc.ClientConn {
	r.tb.Helper()
	options = append(options, grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	conn, err := grpc.NewClient("passthrough:///"+r.address, options...)
	must(r.tb, err)
	r.tb.Cleanup(func() { _ = conn.Close() })
	return conn
}

// api is every service over one connection.
type api struct {
	configv1.NamespaceServiceClient
	configv1.DocumentServiceClient
	configv1.SettingsServiceClient
	configv1.ClientKeyServiceClient
	configv1.BrandAssetServiceClient
	configv1.BrandDraftServiceClient
	configv1.BrandMailServiceClient
	configv1.FlagServiceClient
	configv1.WebhookServiceClient
	configv1.HookServiceClient
	configv1.SecretServiceClient
	configv1.ChangeServiceClient
	configv1.RolloutServiceClient
	auditv1.AuditServiceClient
}

func apiOf(conn *grpc.ClientConn) api {
	return api{
		configv1.NewNamespaceServiceClient(conn), configv1.NewDocumentServiceClient(conn), configv1.NewSettingsServiceClient(conn),
		configv1.NewClientKeyServiceClient(conn),
		configv1.NewBrandAssetServiceClient(conn), configv1.NewBrandDraftServiceClient(conn), configv1.NewBrandMailServiceClient(conn),
		configv1.NewFlagServiceClient(conn),
		configv1.NewWebhookServiceClient(conn), configv1.NewHookServiceClient(conn), configv1.NewSecretServiceClient(conn),
		configv1.NewChangeServiceClient(conn),
		configv1.NewRolloutServiceClient(conn), auditv1.NewAuditServiceClient(conn),
	}
}

// namespace makes a namespace.
func (r *rig) namespace(a api, id, schema string) *configv1.Namespace {
	r.tb.Helper()
	resp, err := a.CreateNamespace(r.tb.Context(), &configv1.CreateNamespaceRequest{
		NamespaceId: id, Namespace: &configv1.Namespace{Schema: schema},
	})
	must(r.tb, err)
	return resp.GetNamespace()
}

// set writes a document, new or not.
func (r *rig) set(a api, name, content string) *configv1.Document {
	r.tb.Helper()
	resp, err := a.UpdateDocument(r.tb.Context(), setting(name, content))
	must(r.tb, err)
	return resp.GetDocument()
}

// setting asks for a document.
func setting(name, content string) *configv1.UpdateDocumentRequest {
	return &configv1.UpdateDocumentRequest{Document: &configv1.Document{Name: name, Content: content}, AllowMissing: true}
}

func newID() string { return uuid.NewString() }

// refused checks an error's code and reason.
func refused(tb testing.TB, what string, err error, code codes.Code, reason string) {
	tb.Helper()
	if status.Code(err) != code || fault.ReasonOf(tenantgrpc.FromStatus(err)) != reason {
		tb.Errorf("%s: %v, want %s %s", what, err, code, reason)
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
