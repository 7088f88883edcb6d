package quota_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/follower"
	"github.com/rowhouse-platform/rowhouse/internal/operator"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/internal/pg/pgdbtest"
	"github.com/rowhouse-platform/rowhouse/internal/serve"
	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/feed/feedtest"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/keyfile"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
	"github.com/rowhouse-platform/rowhouse/sdk/trust"
	"github.com/rowhouse-platform/rowhouse/services/quota"
)

func TestMain(m *testing.M) {
	if config := os.Getenv(envReplica); config != "" {
		os.Exit(runReplica(config))
	}
	os.Exit(pgtest.Main(m))
}

// tenancy publishes tenants and keys, as far as quota follows them.
type tenancy struct {
	tenancyv1.UnimplementedRoutingServiceServer
	tenants *feedtest.Publisher
}

func (s *tenancy) WatchTenants(_ *tenancyv1.WatchTenantsRequest, stream grpc.ServerStreamingServer[tenancyv1.WatchTenantsResponse]) error {
	return s.tenants.Watch(stream.Context(), func(f *apiv1.FeedFrame) error {
		return stream.Send(&tenancyv1.WatchTenantsResponse{Frame: f})
	})
}

func (s *tenancy) ReportApplied(context.Context, *tenancyv1.ReportAppliedRequest) (*tenancyv1.ReportAppliedResponse, error) {
	return &tenancyv1.ReportAppliedResponse{}, nil
}

// rig is quota with a database of its own and a tenancy that knows the tenants acme
// (plan business) and globex (plan free).
type rig struct {
	testing.TB
	dir      string
	ca       *identity.Authority
	db       *pgdbtest.DB
	super    *pgxpool.Pool
	tenancy  *tenancy
	config   quota.Config
	tokens   map[string]string
	replicas []string // addresses

	signer  *tenant.Signer
	sealKey tenant.SealKey
}

// logBuffer keeps the log for a test that fails.
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

func database() pg.Database { return pg.Database{Name: quota.Database, Migrations: quota.Migrations()} }

func newRig(t testing.TB, edits ...func(*quota.Config)) *rig {
	t.Helper()
	r := bareRig(t)
	for _, edit := range edits {
		edit(&r.config)
	}
	r.replica("quota-1")
	return r
}

// bareRig is a rig without a replica.
func bareRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{TB: t, dir: t.TempDir(), db: pgdbtest.New(t, database()), tokens: map[string]string{}}
	r.super = r.db.Owner(t)
	var err error
	r.ca, err = identity.NewAuthority(identity.AuthorityConfig{TrustDomain: tenanttest.TrustDomain})
	r.need(err)
	r.writeFiles()
	r.config.Tenancy.Address = r.serveTenancy()
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

// source returns the identity of a process.
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
	pair, err := r.ca.Issue(identity.Leaf{ID: r.id("service", "quota")})
	r.need(err)
	r.need(pair.Write(string(r.path("id"))))
	for _, name := range []string{"trust", "feed", "tenancy"} {
		r.need(keyfile.NewPair(string(r.path(name)), rand.Reader))
	}
	r.write("db.dsn", r.db.DSN(database().Service()))
	var people strings.Builder
	people.WriteString("operators:\n")
	for _, role := range []string{"viewer", "operator", "owner"} {
		token, sum, err := operator.NewToken(rand.Reader)
		r.need(err)
		r.tokens[role] = token
		fmt.Fprintf(&people, "  - {name: %s, token_sha256: %s, roles: [%s]}\n", role, sum, role)
	}
	r.write("operators.yaml", people.String())
	r.write("peers.yaml", fmt.Sprintf("peers:\n"+
		"  - {identity: %q, roles: [gateway], may_present: true}\n  - {identity: %q, roles: [gateway]}\n"+
		"  - {identity: %q, roles: [app], may_present: true}\n",
		r.id("service", "gateway"), r.id("service", "relay"), r.id("app", "notes")))
	r.config = quota.Config{Config: follower.Config{
		Process: serve.Config{
			Listen: "127.0.0.1:0", Ops: "127.0.0.1:0", Development: true, Operators: r.path("operators.yaml"), Peers: r.path("peers.yaml"),
			Identity: serve.IdentityFiles{Cert: r.path("id/cert.pem"), Key: r.path("id/key.pem"), Roots: r.path("id/roots.pem")},
		},
		Database: r.path("db.dsn"), FeedKey: r.path("feed.key"), TrustRoots: r.path("trust.pub"),
		Tenancy: follower.Tenancy{Identity: r.id("service", "tenancy"), FeedKeys: r.path("tenancy.pub")},
	}}
}

func (r *rig) write(name, content string) {
	r.Helper()
	r.need(os.WriteFile(string(r.path(name)), []byte(content), 0o600))
}

func (r *rig) private(name string) ed25519.PrivateKey {
	r.Helper()
	key, err := keyfile.Private(string(r.path(name + ".key")))
	r.need(err)
	return key
}

// serveTenancy serves the tenancy and returns its address.
func (r *rig) serveTenancy() string {
	r.Helper()
	r.tenancy = &tenancy{tenants: feedtest.New(trust.FeedName, r.private("tenancy"))}
	r.setTenant("acme", "business", tenancyv1.TenantState_TENANT_STATE_ACTIVE, 1)
	r.setTenant("globex", "free", tenancyv1.TenantState_TENANT_STATE_ACTIVE, 1)
	r.certify()
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(r.source(r.id("service", "tenancy")).ServerTLS())))
	tenancyv1.RegisterRoutingServiceServer(server, r.tenancy)
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	r.need(err)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	r.Cleanup(func() { server.Stop(); serving.Wait() })
	return l.Addr().String()
}

func (r *rig) setTenant(id, plan string, state tenancyv1.TenantState, generation uint64) {
	r.Helper()
	uid := tenanttest.UID(id)
	r.tenancy.tenants.Set(r, "tenant/"+uid.String(), &tenancyv1.RouteEntry{Kind: &tenancyv1.RouteEntry_Tenant{Tenant: &tenancyv1.TenantRoute{
		Uid: uid[:], TenantId: id, State: state, Generation: generation, Plan: plan, Model: tenancyv1.IsolationModel_ISOLATION_MODEL_SHARED,
		Cell: tenanttest.Cell, PlacementGeneration: 1, LossPolicy: tenancyv1.LossPolicy_LOSS_POLICY_SERVE,
	}}})
}

// certify publishes the key that signs the test's contexts.
func (r *rig) certify() {
	r.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	r.need(err)
	r.signer, err = tenant.NewSigner(private)
	r.need(err)
	start := time.Now().Truncate(time.Second)
	cert, err := tenant.SignKeyCertificate(r.private("trust"), tenant.KeyCertificate{
		PublicKey: public, Minter: "gateway", SPIFFE: r.id("service", "gateway"), Cells: []string{tenanttest.Cell}, Audience: ^tenant.Audience(0),
		Classes: tenant.ClassesOf(tenant.ClassSession), NotBefore: start.Add(-time.Minute), NotAfter: start.Add(time.Hour),
	})
	r.need(err)
	id := tenant.KeyIDOf(public)
	r.tenancy.tenants.Set(r, "key/"+hex.EncodeToString(id[:]), &tenancyv1.RouteEntry{Kind: &tenancyv1.RouteEntry_ContextKey{
		ContextKey: &tenancyv1.ContextKeyRoute{Certificate: cert},
	}})
}

// token mints a context for quota as a gateway does.
func (r *rig) token(id, plan string, edits ...func(*tenant.Claims)) string {
	r.Helper()
	parsed, err := tenant.ParseID(id)
	r.need(err)
	now := time.Now().Truncate(time.Second)
	claims := tenant.Claims{
		TenantUID: tenanttest.UID(id), TenantID: parsed, Generation: 1, Model: tenant.ModelShared, Cell: tenanttest.Cell, CellNumber: 1,
		Region: "local", PlacementGeneration: 1, Plan: plan, PrincipalKind: tenant.PrincipalVisitor, Audience: tenant.AudienceQuota,
		Minter: "gateway", IssueTime: now, ExpireTime: now.Add(tenant.MaxSessionLife), Class: tenant.ClassSession,
	}
	for _, edit := range edits {
		edit(&claims)
	}
	token, err := r.signer.Sign(claims.WithSeal(&r.sealKey, 1))
	r.need(err)
	return string(token)
}

// replica runs one more quota on the same database until the test ends.
func (r *rig) replica(name string) {
	r.Helper()
	config, log := r.config, &logBuffer{}
	config.Replica, config.State = name, r.path("state-"+name)
	ctx, cancel := context.WithCancel(context.Background())
	listening, done := make(chan string, 1), make(chan error, 1)
	go func() {
		done <- quota.Run(ctx, config, follower.WithLog(log), follower.WithListening(func(api, _ net.Addr) { listening <- api.String() }))
	}()
	select {
	case address := <-listening:
		r.replicas = append(r.replicas, address)
	case err := <-done:
		cancel()
		r.Fatalf("Run: %v\n%s", err, log)
	}
	r.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			r.Errorf("Run: %v", err)
		}
		if r.Failed() {
			r.Logf("%s:\n%s", name, log)
		}
	})
	// Quota is ready when it knows tenants and keys.
	_, err := r.peer("service", "gateway", len(r.replicas)-1).GrantLeases(r.Context(), ask(r.token("acme", "business"), "none", 1, 1))
	r.need(err)
}

// api is every service over one connection.
type api struct {
	quotav1.LimitServiceClient
	quotav1.LeaseServiceClient
	quotav1.UsageServiceClient
	quotav1.RateLimitConfigServiceClient
	auditv1.AuditServiceClient
	conn *grpc.ClientConn
}

// as returns the API as an operator with the role; "" shows no credential.
func (r *rig) as(role string) api {
	r.Helper()
	tls, err := identity.AnonymousClientTLS(r.ca.RootsPEM(), r.id("service", "quota"), nil)
	r.need(err)
	options := []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(tls))}
	if token := r.tokens[role]; token != "" {
		options = append(options, with("authorization", "Bearer "+token))
	}
	return r.dial(0, options...)
}

// with sends a field along with each call.
func with(name, value string) grpc.DialOption {
	return grpc.WithChainUnaryInterceptor(func(
		ctx context.Context, method string, req, resp any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
	) error {
		return invoke(metadata.AppendToOutgoingContext(ctx, name, value), method, req, resp, cc, opts...)
	})
}

// peer returns the API of a replica as a workload.
func (r *rig) peer(kind, name string, replica int, options ...grpc.DialOption) api {
	r.Helper()
	tls := r.source(r.id(kind, name)).ClientTLS(r.id("service", "quota"))
	return r.dial(replica, append(options, grpc.WithTransportCredentials(credentials.NewTLS(tls)))...)
}

func (r *rig) dial(replica int, options ...grpc.DialOption) api {
	r.Helper()
	options = append(options, grpc.WithDefaultCallOptions(grpc.WaitForReady(true)), grpc.WithDefaultServiceConfig(
		`{"healthCheckConfig":{"serviceName":""},"loadBalancingConfig":[{"round_robin":{}}]}`))
	conn, err := grpc.NewClient("passthrough:///"+r.replicas[replica], options...)
	r.need(err)
	r.Cleanup(func() { _ = conn.Close() })
	return api{
		quotav1.NewLimitServiceClient(conn), quotav1.NewLeaseServiceClient(conn), quotav1.NewUsageServiceClient(conn),
		quotav1.NewRateLimitConfigServiceClient(conn),
		auditv1.NewAuditServiceClient(conn), conn,
	}
}

// ask is a request for tokens of one limit.
func ask(token, limit string, need, want int64) *quotav1.GrantLeasesRequest {
	return &quotav1.GrantLeasesRequest{Holder: "h", Asks: []*quotav1.LeaseAsk{
		{TenantContext: []byte(token), Limit: limit, Need: need, Want: want},
	}}
}

func refused(tb testing.TB, what string, err error, code codes.Code, reason string) {
	tb.Helper()
	if status.Code(err) != code || fault.ReasonOf(tenantgrpc.FromStatus(err)) != reason {
		tb.Errorf("%s: %v, want %s %s", what, err, code, reason)
	}
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

func newID() string { return uuid.NewString() }
