package notes

import (
	"context"
	"log/slog"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/test/bufconn"

	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/apiattack"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/canary"
)

// attacked serves the notes in db as Run does, and returns them as a target: acme is
// attacked by globex, by nobody, with an expired context, and by a service that took one.
func attacked(t *testing.T, db *dbtest.Database) apiattack.Target {
	t.Helper()
	for _, id := range []string{"acme", "globex"} {
		db.Place(t, id)
	}
	authority, err := identity.NewAuthority(identity.AuthorityConfig{TrustDomain: tenanttest.TrustDomain})
	must(t, err)
	self, err := identity.App(tenanttest.TrustDomain, tenanttest.Cell, name)
	must(t, err)
	thief, err := identity.App(tenanttest.TrustDomain, tenanttest.Cell, "thief")
	must(t, err)
	source := func(id identity.ID) *identity.Source {
		pair, err := authority.Issue(identity.Leaf{ID: id})
		must(t, err)
		source, err := identity.FromPair(pair, identity.Options{})
		must(t, err)
		return source
	}
	watch := canary.New()
	config := tenantgrpc.ServerConfig{Verifier: db.Verifier(t), Log: slog.New(slog.NewJSONHandler(watch.Writer("log"), nil))}
	api := grpc.NewServer(append(tenantgrpc.Server(config), grpc.Creds(credentials.NewTLS(source(self).ServerTLS())))...)
	Register(api, New(db.DB, func(context.Context) Settings { return Settings{} }))
	lis := bufconn.Listen(1 << 20)
	served := make(chan error, 1)
	go func() { served <- api.Serve(lis) }()
	t.Cleanup(func() {
		api.Stop()
		must(t, <-served)
	})
	dial := func(as identity.ID) *grpc.ClientConn {
		conn, err := grpc.NewClient("passthrough:notes",
			grpc.WithTransportCredentials(credentials.NewTLS(source(as).ClientTLS(self))),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
		must(t, err)
		t.Cleanup(func() { must(t, conn.Close()) })
		return conn
	}
	gateway := dial(db.Gateway())
	return apiattack.Target{
		Services: []string{"notes.v1.NotesService"},
		Victim:   apiattack.Party{Conn: gateway, In: db.Caller(t, "acme")},
		Attacker: apiattack.Party{Conn: gateway, In: db.Caller(t, "globex")},
		Intruders: []apiattack.Intruder{
			{Name: "expired context", Party: apiattack.Party{Conn: gateway, In: db.Caller(t, "acme", tenanttest.Expired)}},
			{Name: "stolen context", Party: apiattack.Party{Conn: dial(thief), In: db.Caller(t, "acme")}},
			{Name: "context for others", Party: apiattack.Party{Conn: gateway, In: db.Caller(t, "acme", func(c *tenant.Claims) {
				c.Audience = tenant.AudienceApp(17)
			})}},
		},
		Canary: watch,
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// No call leads from one tenant's notes to another's, wherever they live.
func TestTenantsCannotReachEachOther(t *testing.T) {
	t.Parallel()
	for _, model := range []tenant.Model{tenant.ModelShared, tenant.ModelSchema, tenant.ModelDatabase} {
		t.Run(model.String(), func(t *testing.T) {
			t.Parallel()
			apiattack.Run(t, attacked(t, dbtest.New(t, dbtest.Migrations(Migrations()), dbtest.Model(model))))
		})
	}
}

// The attacks find that the one thing is gone which keeps tenants apart.
func TestAttacksFindTheMissingPolicy(t *testing.T) {
	t.Parallel()
	db := dbtest.New(t, dbtest.Migrations(Migrations()))
	_, err := db.Admin.Exec(t.Context(), "ALTER TABLE app.note DISABLE ROW LEVEL SECURITY")
	must(t, err)
	report, err := apiattack.Attack(t.Context(), attacked(t, db))
	must(t, err)
	for _, m := range report.Methods {
		if m.Name != "/notes.v1.NotesService/CreateNote" && m.Verdict != apiattack.Leaked { // its keys have the tenant
			t.Errorf("%s: %s %s", m.Name, m.Verdict, m.Why)
		}
	}
}
