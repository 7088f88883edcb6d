package tenancy_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/operator"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/internal/serve"
	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/keyfile"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
	"github.com/rowhouse-platform/rowhouse/services/tenancy"
)

const (
	trustDomain = "rowhouse.localhost"
	region      = "local"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// registryTemplate is the service's own database, migrated.
func registryTemplate(tb testing.TB) pgtest.Template {
	tb.Helper()
	db := tenancy.Database(tenancy.DatabaseName)
	return pgtest.Template{Name: "tenancy", Hash: hashOf(tb, db.Migrations), Setup: func(ctx context.Context, dsn string) error {
		conn, err := pgx.Connect(ctx, dsn)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(ctx) }()
		if err := pg.CreateRoles(ctx, conn, db); err != nil {
			return err
		}
		if err := pg.Seclude(ctx, conn, db); err != nil {
			return err
		}
		return pg.Migrate(ctx, conn, db)
	}}
}

func hashOf(tb testing.TB, folders []fs.FS) string {
	tb.Helper()
	h := sha256.New()
	for _, folder := range folders {
		names, err := fs.Glob(folder, "*.sql")
		must(tb, err)
		for _, name := range names {
			b, err := fs.ReadFile(folder, name)
			must(tb, err)
			h.Write(b)
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

func cellTemplate() pgtest.Template {
	return pgtest.Template{Name: "cell", Hash: "1", Setup: func(ctx context.Context, dsn string) error {
		conn, err := pgx.Connect(ctx, dsn)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(ctx) }()
		return cell.Init(ctx, conn, cell.Config{App: "notes"})
	}}
}

// rig is a running service with its database and one cell with one app.
type rig struct {
	tb       testing.TB
	dir      string
	ca       *identity.Authority
	address  string
	own      identity.ID
	db       *pgtest.DB
	super    *pgxpool.Pool // the service's database, as superuser
	app      string        // id of the app that lives in the cell
	appDSN   string        // superuser's, of that app's database
	roleDSN  string        // the same, of the app itself
	cellPool *pgxpool.Pool // superuser in that database
	log      *logBuffer
	tokens   map[string]string
	stop     func()
	config   tenancy.Config
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

// newRig starts a service. bare leaves the registry empty; otherwise there are the plans free and business, a cell and
// an app in it.
func newRig(tb testing.TB, options ...tenancy.Option) *rig {
	tb.Helper()
	r := &rig{tb: tb, dir: tb.TempDir(), db: pgtest.New(tb, registryTemplate(tb)), log: &logBuffer{}}
	r.super = r.db.Pool(tb, "postgres")
	r.makeCell()
	var err error
	r.ca, err = identity.NewAuthority(identity.AuthorityConfig{TrustDomain: trustDomain})
	must(tb, err)
	r.own = r.id("service", "tenancy")
	r.writeFiles()
	r.start(options...)
	return r
}

// makeCell makes an app's database under a name that an app can have.
func (r *rig) makeCell() {
	r.tb.Helper()
	source, ctx := pgtest.New(r.tb, cellTemplate()), context.Background()
	random, err := uuid.NewRandom()
	must(r.tb, err)
	r.app = "app-" + hex.EncodeToString(random[:6])
	name := strings.ReplaceAll(r.app, "-", "_")
	_, err = r.super.Exec(ctx, "CREATE DATABASE "+name+" TEMPLATE "+source.Name())
	must(r.tb, err)
	_, err = r.super.Exec(ctx, "GRANT CONNECT ON DATABASE "+name+" TO "+cell.AppRole("notes")+
		"; GRANT CREATE ON DATABASE "+name+" TO "+cell.OwnerRole("notes"))
	must(r.tb, err)
	r.tb.Cleanup(func() { _, _ = r.super.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)") })
	r.appDSN = strings.ReplaceAll(source.DSN("postgres"), source.Name(), name)
	r.cellPool, err = pgxpool.New(ctx, r.appDSN)
	must(r.tb, err)
	r.tb.Cleanup(r.cellPool.Close)
	r.roleDSN = strings.ReplaceAll(source.DSN(cell.AppRole("notes")), source.Name(), name)
}

// inCell returns superuser's connections to the app's database.
func (r *rig) inCell() *pgxpool.Pool { return r.cellPool }

func (r *rig) id(kind, name string) identity.ID {
	r.tb.Helper()
	id, err := identity.Parse("spiffe://" + trustDomain + "/cell/cell-1/" + kind + "/" + name)
	must(r.tb, err)
	return id
}

func (r *rig) path(parts ...string) string {
	return filepath.Join(append([]string{r.dir}, parts...)...)
}

func (r *rig) writeFiles() {
	tb := r.tb
	pair, err := r.ca.Issue(identity.Leaf{ID: r.own})
	must(tb, err)
	must(tb, pair.Write(r.path("id")))
	must(tb, os.Mkdir(r.path("cells"), 0o700))
	must(tb, os.WriteFile(r.path("cells", "cell-1.dsn"), []byte(r.appDSN), 0o600))
	must(tb, os.WriteFile(r.path("db.dsn"), []byte(r.db.DSN(tenancy.Database(tenancy.DatabaseName).Service())), 0o600))
	must(tb, keyfile.NewPair(r.path("trust"), rand.Reader))
	must(tb, keyfile.NewPair(r.path("feed"), rand.Reader))
	must(tb, keyfile.NewSecret(r.path("kek"), rand.Reader))
	r.tokens = map[string]string{}
	var people strings.Builder
	people.WriteString("operators:\n")
	for _, role := range []string{"viewer", "support", "operator", "placer", "security", "auditor", "owner"} {
		token, sum, err := operator.NewToken(rand.Reader)
		must(tb, err)
		r.tokens[role] = token
		fmt.Fprintf(&people, "  - {name: %s, token_sha256: %s, roles: [%s]}\n", role, sum, role)
	}
	must(tb, os.WriteFile(r.path("operators.yaml"), []byte(people.String()), 0o600))
	peers := fmt.Sprintf("peers:\n  - {identity: %q, roles: [gateway], may_present: true}\n  - {identity: %q, roles: [app]}\n",
		r.id("service", "gateway"), r.id("app", "notes"))
	must(tb, os.WriteFile(r.path("peers.yaml"), []byte(peers), 0o600))
	p := func(name string) yamlfile.Path { return yamlfile.Path(r.path(name)) }
	r.config = tenancy.Config{
		Process: serve.Config{
			Listen: "127.0.0.1:0", Ops: "127.0.0.1:0", Development: true, Operators: p("operators.yaml"), Peers: p("peers.yaml"),
			Identity: serve.IdentityFiles{Cert: p("id/cert.pem"), Key: p("id/key.pem"), Roots: p("id/roots.pem")},
		},
		Database: p("db.dsn"), CellSecrets: p("cells"), TrustRoot: p("trust.key"), FeedKey: p("feed.key"), KEK: p("kek"),
		Zones: []string{"localhost"}, TrialTime: 25 * time.Second, // below a call's 30 s, for busy machines
	}
}

// start runs the service until the test ends or stop is called.
func (r *rig) start(options ...tenancy.Option) {
	r.tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	listening, done := make(chan string, 1), make(chan error, 1)
	options = append(options, tenancy.WithLog(r.log), tenancy.WithListening(func(grpcAddr, _ net.Addr) {
		listening <- grpcAddr.String()
	}))
	go func() { done <- tenancy.Run(ctx, r.config, options...) }()
	var once sync.Once
	r.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				r.tb.Errorf("Run: %v", err)
			}
		})
	}
	select {
	case r.address = <-listening:
	case err := <-done:
		r.tb.Fatalf("Run: %v\n%s", err, r.log)
	}
	r.tb.Cleanup(func() {
		r.stop()
		if r.tb.Failed() {
			r.tb.Logf("log:\n%s", r.log)
		}
	})
}

// as returns a connection of an operator with the role; "" shows no credential.
func (r *rig) as(role string) *grpc.ClientConn {
	r.tb.Helper()
	tls, err := identity.AnonymousClientTLS(r.ca.RootsPEM(), r.own, nil)
	must(r.tb, err)
	options := []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(tls)), waiting()}
	if role != "" {
		token := r.tokens[role]
		options = append(options, grpc.WithChainUnaryInterceptor(func(
			ctx context.Context, method string, req, resp any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
		) error {
			return invoke(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token), method, req, resp, cc, opts...)
		}))
	}
	return r.dial(options...)
}

// waiting lets calls wait until the service is ready.
func waiting() grpc.DialOption { return grpc.WithDefaultCallOptions(grpc.WaitForReady(true)) }

// peer returns a connection of a workload.
func (r *rig) peer(id identity.ID) *grpc.ClientConn {
	r.tb.Helper()
	pair, err := r.ca.Issue(identity.Leaf{ID: id})
	must(r.tb, err)
	dir := r.tb.TempDir()
	must(r.tb, pair.Write(dir))
	source, err := identity.Files(filepath.Join(dir, identity.CertFile), filepath.Join(dir, identity.KeyFile),
		filepath.Join(dir, identity.RootsFile), identity.Options{})
	must(r.tb, err)
	return r.dial(grpc.WithTransportCredentials(credentials.NewTLS(source.ClientTLS(r.own))), waiting())
}

func (r *rig) dial(options ...grpc.DialOption) *grpc.ClientConn {
	conn, err := grpc.NewClient("passthrough:///"+r.address, options...)
	must(r.tb, err)
	r.tb.Cleanup(func() { _ = conn.Close() })
	return conn
}

// api is every service over one connection.
type api struct {
	tenancyv1.TenantServiceClient
	tenancyv1.PlanServiceClient
	tenancyv1.AppServiceClient
	tenancyv1.MigrationServiceClient
	tenancyv1.CellServiceClient
	tenancyv1.DomainServiceClient
	tenancyv1.PlacementServiceClient
	tenancyv1.RoutingServiceClient
	tenancyv1.ContextServiceClient
	tenancyv1.JobPolicyServiceClient
	tenancyv1.ContextRenewalServiceClient
	longrunningpb.OperationsClient
	auditv1.AuditServiceClient
}

func apiOf(conn *grpc.ClientConn) api {
	return api{
		tenancyv1.NewTenantServiceClient(conn), tenancyv1.NewPlanServiceClient(conn), tenancyv1.NewAppServiceClient(conn),
		tenancyv1.NewMigrationServiceClient(conn),
		tenancyv1.NewCellServiceClient(conn), tenancyv1.NewDomainServiceClient(conn), tenancyv1.NewPlacementServiceClient(conn),
		tenancyv1.NewRoutingServiceClient(conn), tenancyv1.NewContextServiceClient(conn), tenancyv1.NewJobPolicyServiceClient(conn),
		tenancyv1.NewContextRenewalServiceClient(conn),
		longrunningpb.NewOperationsClient(conn), auditv1.NewAuditServiceClient(conn),
	}
}

// owner returns the API as an owner.
func (r *rig) owner() api { return apiOf(r.as("owner")) }

// furnish makes the plans free and business, a cell and an app in it.
func (r *rig) furnish() api {
	r.tb.Helper()
	a, ctx := r.owner(), r.tb.Context()
	for _, id := range []string{"free", "business"} {
		_, err := a.CreatePlan(ctx, &tenancyv1.CreatePlanRequest{PlanId: id, Plan: &tenancyv1.Plan{DisplayName: id}})
		r.must(err)
	}
	_, err := a.CreateCell(ctx, &tenancyv1.CreateCellRequest{CellId: "cell-1", Cell: &tenancyv1.Cell{
		Region: region, CredentialsRef: "secret://file/cell-1.dsn",
	}})
	r.must(err)
	_, err = a.CreateApp(ctx, &tenancyv1.CreateAppRequest{AppId: r.app, App: &tenancyv1.App{
		Upstreams: []*tenancyv1.AppUpstream{{
			Cell: "cells/cell-1", GrpcAddress: "127.0.0.1:7110", SpiffeId: r.id("app", "notes").String(),
		}},
		GrpcServices: []string{"notes.v1.NotesService"}, SharedHosts: []string{"Rowhouse.localhost"},
	}})
	r.must(err)
	return a
}

// tenant makes a tenant and fails the test unless it is ready in the answer.
func (r *rig) tenant(a api, id string) *tenancyv1.Tenant {
	r.tb.Helper()
	resp, err := a.CreateTenant(r.tb.Context(), &tenancyv1.CreateTenantRequest{
		TenantId: id, Tenant: &tenancyv1.Tenant{DisplayName: id}, RequestId: newID(),
	})
	r.must(err)
	if !resp.GetOperation().GetDone() || resp.GetTenant().GetState() != tenancyv1.TenantState_TENANT_STATE_ACTIVE {
		r.tb.Fatalf("tenant %s is not ready: %v", id, resp)
	}
	return resp.GetTenant()
}

func (r *rig) must(err error) {
	r.tb.Helper()
	if err != nil {
		r.tb.Fatal(err)
	}
}

// cellRow is what the app's database knows of a tenant.
type cellRow struct {
	State       string
	Generation  int64
	StatementMS int
}

func (r *rig) cellRow(uid string) (row cellRow) {
	r.tb.Helper()
	err := r.cellPool.QueryRow(r.tb.Context(), `SELECT state, generation, coalesce(statement_ms, 0) FROM rowhouse.placement WHERE tenant_id = $1`, uid).
		Scan(&row.State, &row.Generation, &row.StatementMS)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		r.tb.Fatal(err)
	}
	return row
}

// eventually asks until it is true. It is for what another process does in its own time.
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

// public returns the public half of a key file.
func (r *rig) public(name string) []ed25519.PublicKey {
	r.tb.Helper()
	keys, err := keyfile.Public(r.path(name + ".pub"))
	must(r.tb, err)
	return keys
}

func codeOf(err error) codes.Code { return status.Code(err) }
