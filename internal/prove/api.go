package prove

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/apiattack"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/canary"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/mint"
)

// App is the product service that is attacked by its API.
type App struct {
	// Services are the full names of its gRPC services, and Migrations its tables.
	Services   []string
	Migrations fs.FS
	// Register registers its services, which reach tenants' rows through db.
	Register func(server *grpc.Server, db *tenantdb.DB)
}

// APICheck serves the app on scratch databases, as in production: contexts verified with
// their presenter over mTLS, rows behind the SDK. It attacks every method, in each model on
// each rung.
func APICheck(of Servers, app App, missing string) Check {
	return Check{About: aboutAPI, Missing: missing, Run: func(ctx context.Context) (o Outcome, err error) {
		server, err := of(ctx)
		if err != nil {
			return o, err
		}
		err = server.inRungs(ctx, "api", app.Migrations, func(c *scratch) error {
			for _, model := range models() {
				r, err := c.attackAPI(ctx, app, model)
				if err != nil {
					return err
				}
				name := string(c.rung) + " " + strings.ToLower(model.String())
				o.Lines = append(o.Lines, apiLine(name, server.Repeat(aboutAPI.ID), r))
				if len(o.Tables) == 0 {
					o.Tables = append(o.Tables, methodTable(name, r))
				}
			}
			if c.rung != server.Rungs[len(server.Rungs)-1] {
				return nil
			}
			l, err := c.withoutRowSecurity(ctx, app)
			o.Lines = append(o.Lines, l)
			return err
		})
		return o, err
	}}
}

// withoutRowSecurity attacks the same service once more where nothing but its own WHEREs keeps
// tenants apart: there are none, so the attacks must find that. The database is of no use after.
func (c *scratch) withoutRowSecurity(ctx context.Context, app App) (l Line, err error) {
	err = c.inside(ctx, c.database(), func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `SELECT format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY', oid::regclass)
FROM pg_catalog.pg_class WHERE relrowsecurity AND relnamespace = 'app'::regnamespace`)
		if err != nil {
			return err
		}
		statements, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		_, err = conn.Exec(ctx, strings.Join(statements, "; "), pgx.QueryExecModeSimpleProtocol)
		return err
	})
	if err != nil {
		return l, fmt.Errorf("switch row security off: %w", err)
	}
	r, err := c.attackAPI(ctx, app, tenant.ModelShared)
	if err != nil {
		return l, err
	}
	l = Line{Name: "control: row security switched off", Status: Pass, Repeat: c.server.Repeat(aboutAPI.ID)}
	l.Result = fmt.Sprintf("%d of %d attacks get through: they are real", len(r.Findings()), len(r.Results))
	if len(r.Findings()) == 0 {
		l.Status, l.Result = Fail, "no attack gets through where nothing is in the way: they show nothing"
	}
	return l, nil
}

// attackAPI lets one tenant attack another, both in a model.
func (c *scratch) attackAPI(ctx context.Context, app App, model tenant.Model) (r apiattack.Report, err error) {
	var parties [2]resident
	for i, id := range []string{"victim", "attacker"} {
		if parties[i], err = c.settle(ctx, fmt.Sprintf("%s-%d", id, c.settled), model); err != nil {
			return r, err
		}
	}
	login, err := c.login()
	if err != nil {
		return r, err
	}
	db, err := tenantdb.Open(ctx, tenantdb.Config{App: c.app, Cells: map[string]tenantdb.Cell{mint.Cell: {DSN: login}}})
	if err != nil {
		return r, fmt.Errorf("open the app's database: %w", err)
	}
	defer db.Close() //nolint:contextcheck // it waits, whatever became of ctx
	watch := canary.New()
	s, err := c.serve(ctx, app, db, watch.Writer("log"))
	if err != nil {
		return r, err
	}
	defer s.stop()
	stranger, err := mint.New(c.Key()) // signs as well, under a root that nobody trusts
	if err != nil {
		return r, err
	}
	r, err = apiattack.Attack(ctx, apiattack.Target{
		Victim:   apiattack.Party{Conn: s.gateway, In: c.caller(parties[0], 0)},
		Attacker: apiattack.Party{Conn: s.gateway, In: c.caller(parties[1], 0)},
		Services: app.Services, Canary: watch,
		Intruders: []apiattack.Intruder{
			{Name: "expired context", Party: apiattack.Party{Conn: s.gateway, In: c.caller(parties[0], tenant.MaxSessionLife+time.Minute)}},
			{Name: "captured context from another workload", Party: apiattack.Party{Conn: s.workload, In: c.caller(parties[0], 0)}},
			{Name: "context of another signer", Party: apiattack.Party{Conn: s.gateway, In: stranger.Caller(parties[0].TenantState, model, 0)}},
		},
	})
	if err != nil {
		return r, fmt.Errorf("attack the API: %w", err)
	}
	return r, nil
}

// served is an app that listens on the loopback address.
type served struct {
	// gateway is a connection of who may present contexts, workload of who may not.
	gateway, workload *grpc.ClientConn
	server            *grpc.Server
	ended             chan struct{}
}

// serve serves the app with identities of an authority of its own.
func (c *scratch) serve(ctx context.Context, app App, db *tenantdb.DB, log io.Writer) (s *served, err error) {
	authority, err := identity.NewAuthority(identity.AuthorityConfig{TrustDomain: mint.TrustDomain})
	if err != nil {
		return nil, fmt.Errorf("a certificate authority: %w", err)
	}
	sources := map[string]*identity.Source{}
	for _, name := range []string{"app", "gateway", "workload"} {
		id, err := identity.Service(mint.TrustDomain, mint.Cell, name)
		if err != nil {
			return nil, fmt.Errorf("a workload's name: %w", err)
		}
		pair, err := authority.Issue(identity.Leaf{ID: id})
		if err != nil {
			return nil, fmt.Errorf("a workload's certificate: %w", err)
		}
		if sources[name], err = identity.FromPair(pair, identity.Options{}); err != nil {
			return nil, fmt.Errorf("a workload's certificate: %w", err)
		}
	}
	config := tenantgrpc.ServerConfig{Verifier: c.Verifier(), Log: slog.New(slog.NewJSONHandler(log, nil))}
	s = &served{ended: make(chan struct{})}
	s.server = grpc.NewServer(append(tenantgrpc.Server(config), grpc.Creds(credentials.NewTLS(sources["app"].ServerTLS())))...)
	app.Register(s.server, db)
	if err := tenantgrpc.Check(s.server, config); err != nil {
		return nil, fmt.Errorf("the app's API: %w", err)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	go func() {
		defer close(s.ended)
		_ = s.server.Serve(listener) // what does not serve, calls find out
	}()
	for name, conn := range map[string]**grpc.ClientConn{"gateway": &s.gateway, "workload": &s.workload} {
		tls := sources[name].ClientTLS(sources["app"].ID())
		as := grpc.WithTransportCredentials(credentials.NewTLS(tls))
		if *conn, err = grpc.NewClient("passthrough:///"+listener.Addr().String(), as); err != nil {
			s.stop()
			return nil, fmt.Errorf("dial the app: %w", err)
		}
	}
	return s, nil
}

func (s *served) stop() {
	for _, conn := range []*grpc.ClientConn{s.gateway, s.workload} {
		if conn != nil {
			_ = conn.Close() // the run is over
		}
	}
	s.server.Stop()
	<-s.ended
}

// apiLine judges one run.
func apiLine(name, repeat string, r apiattack.Report) Line {
	l := Line{Name: name, Status: Pass, Result: r.Coverage(), Repeat: repeat}
	for _, f := range r.Findings() {
		l.Status = Fail
		where := strings.TrimSpace(f.Method + " " + f.Where)
		l.Findings = append(l.Findings, Finding{Rule: string(f.Attack), Severity: "error", Object: where, Message: f.Evidence})
	}
	unexcused := r.Untested(true)
	for _, m := range unexcused {
		l.Findings = append(l.Findings, Finding{Rule: "untested", Severity: "note", Object: m.Name, Message: m.Why})
	}
	for _, result := range r.Results {
		if result.Verdict == apiattack.Untested {
			where := strings.TrimSpace(result.Method + " " + result.Where)
			l.Findings = append(l.Findings, Finding{Rule: string(result.Attack), Severity: "note", Object: where, Message: result.Evidence})
		}
	}
	dropped := 0
	for _, m := range r.Methods {
		if m.Dropped > 0 {
			dropped += m.Dropped
			l.Findings = append(l.Findings, Finding{
				Rule: "dropped", Severity: "note", Object: m.Name, Message: fmt.Sprintf("%d attacks were left out", m.Dropped),
			})
		}
	}
	if l.Status == Pass && (len(unexcused) > 0 || dropped > 0 || len(r.Results) == 0) {
		l.Status = NotRun
	}
	return l
}

// methodTable says how often each method was attacked, and how.
func methodTable(name string, r apiattack.Report) Table {
	t := Table{Title: "Attacks on " + name + ", by method", Head: []string{"method", "verdict"}}
	var kinds []apiattack.Kind
	for _, k := range apiattack.Kinds() {
		if slices.ContainsFunc(r.Methods, func(m apiattack.Method) bool { return m.Attacks[k] > 0 }) {
			kinds, t.Head = append(kinds, k), append(t.Head, string(k))
		}
	}
	for _, m := range r.Methods {
		verdict := Cell{Text: string(m.Verdict)} // what was not tested is neither good nor bad
		switch m.Verdict {
		case apiattack.Held:
			verdict.Mark = Held
		case apiattack.Leaked:
			verdict.Mark = Broken
		}
		row := []Cell{{Text: m.Name}, verdict}
		for _, k := range kinds {
			row = append(row, Cell{Text: strconv.Itoa(m.Attacks[k])})
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}
