package prove

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

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
		var sound []apiattack.Report
		err = server.inRungs(ctx, "api", app.Migrations, func(c *scratch) error {
			for _, model := range models() {
				r, err := c.attackAPI(ctx, app, model, false)
				if err != nil {
					return err
				}
				sound = append(sound, r)
				name := string(c.rung) + " " + strings.ToLower(model.String())
				o.Lines = append(o.Lines, apiLine(name, server.Repeat(aboutAPI.ID), r))
				if len(o.Tables) == 0 {
					o.Tables = append(o.Tables, kindTable(), methodTable(name, r))
				}
			}
			if c.rung != server.Rungs[len(server.Rungs)-1] {
				return nil
			}
			l, err := c.control(ctx, app, sound)
			if err == nil {
				o.Lines = append(o.Lines, l)
			}
			return err
		})
		return o, err
	}}
}

// attackAPI lets one tenant attack another, both in a model, at a sound server or at an open one.
func (c *scratch) attackAPI(ctx context.Context, app App, model tenant.Model, open bool) (r apiattack.Report, err error) {
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
	log := watch.Writer("log")
	config := tenantgrpc.ServerConfig{Verifier: c.Verifier(), Log: slog.New(slog.NewJSONHandler(log, nil))}
	door := tenantgrpc.Server(config)
	if open {
		door = newLeaky(c, parties, log).options()
	}
	s, err := c.serve(ctx, door, func(server *grpc.Server) error {
		app.Register(server, db)
		return tenantgrpc.Check(server, config)
	})
	if err != nil {
		return r, err
	}
	defer s.stop()
	stranger, err := mint.New(c.Key()) // signs as well, under a root that nobody trusts
	if err != nil {
		return r, err
	}
	as := func(conn *grpc.ClientConn, in caller, r resident) apiattack.Party {
		return apiattack.Party{Conn: conn, In: claiming(in, r)}
	}
	victim, expired := parties[0], tenant.MaxSessionLife+time.Minute
	r, err = apiattack.Attack(ctx, apiattack.Target{
		Victim: as(s.gateway, c.caller(victim, 0), victim), Attacker: as(s.gateway, c.caller(parties[1], 0), parties[1]),
		Services: app.Services, Canary: watch,
		Intruders: []apiattack.Intruder{
			{Name: "expired context", Party: as(s.gateway, c.caller(victim, expired), victim)},
			{Name: "captured context from another workload", Party: as(s.workload, c.caller(victim, 0), victim)},
			{Name: "context of another signer", Party: as(s.gateway, stranger.Caller(victim.TenantState, model, 0), victim)},
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

// serve serves behind a door, with identities of an authority of its own.
func (c *scratch) serve(ctx context.Context, door []grpc.ServerOption, register func(*grpc.Server) error) (s *served, err error) {
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
	s = &served{ended: make(chan struct{})}
	s.server = grpc.NewServer(append(door, grpc.Creds(credentials.NewTLS(sources["app"].ServerTLS())))...)
	if err := register(s.server); err != nil {
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

// kindTable explains the kinds of attack.
func kindTable() Table {
	t := Table{Title: "What the attacks try", Head: []string{"attack", "as the attacker"}}
	for _, k := range []struct {
		kind  apiattack.Kind
		tries string
	}{
		{apiattack.OwnRequest, "the usual call: does the answer hold another's, does it change another's?"},
		{apiattack.SameRequest, "the very bytes that the other sent a moment ago, which a cache may know"},
		{apiattack.ForeignID, "an id of the other's in each field that may hold one"},
		{apiattack.ForeignBatch, "an id of the other's beside one of its own"},
		{apiattack.ForeignMask, "the other's things in a field mask"},
		{apiattack.ForeignPageToken, "the page token that the other was given"},
		{apiattack.ForeignEtag, "the etag that the other was given"},
		{apiattack.Replay, "a request under the request id that the other used"},
		{apiattack.Stream, "listens while the other writes"},
		{apiattack.Intrusion, "calls without a right to: the cases are named"},
		{apiattack.Timing, "compares how long answers take"},
		{apiattack.Output, "looks for the other's secrets in what the service logs"},
	} {
		t.Rows = append(t.Rows, Cells(string(k.kind), k.tries))
	}
	return t
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
