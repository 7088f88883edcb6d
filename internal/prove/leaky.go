package prove

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/apiattack"
)

// believed is the metadata in which callers tell a leaky server who they are.
const believed = "x-tenant"

// leaky makes an app cross tenants in each way that the attacks look for: it believes who
// callers say they are, and takes nobody for the victim; it answers a known request id with the
// answer of whoever came first; it logs what it is sent. Below it row security is switched off.
type leaky struct {
	c       *scratch
	parties [2]resident // the first is the victim
	log     io.Writer

	mu      sync.Mutex
	answers map[string]any // guarded by mu, by request id
}

func newLeaky(c *scratch, parties [2]resident, log io.Writer) *leaky {
	return &leaky{c: c, parties: parties, log: log, answers: map[string]any{}}
}

// options stand where a sound server has those of tenantgrpc.
func (l *leaky) options() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.UnaryInterceptor(l.unary), grpc.StreamInterceptor(l.stream)}
}

// enter returns ctx with the tenant that the caller claims to be.
func (l *leaky) enter(ctx context.Context) (context.Context, error) {
	who := l.parties[0]
	for _, claimed := range metadata.ValueFromIncomingContext(ctx, believed) {
		if claimed == l.parties[1].ID.String() {
			who = l.parties[1]
		}
	}
	return l.c.in(ctx, who)
}

func (l *leaky) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (answer any, err error) {
	if ctx, err = l.enter(ctx); err != nil {
		return nil, err
	}
	fmt.Fprintln(l.log, info.FullMethod, request)
	id := ""
	if r, has := request.(interface{ GetRequestId() string }); has {
		id = r.GetRequestId()
	}
	l.mu.Lock()
	known, repeated := l.answers[id]
	l.mu.Unlock()
	if id != "" && repeated {
		return known, nil
	}
	if answer, err = handler(ctx, request); err == nil {
		l.mu.Lock()
		l.answers[id] = answer
		l.mu.Unlock()
	}
	return answer, err
}

func (l *leaky) stream(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, err := l.enter(stream.Context())
	if err != nil {
		return err
	}
	return handler(server, entered{stream, ctx})
}

// entered is a stream whose context has a tenant.
type entered struct {
	grpc.ServerStream

	ctx context.Context //nolint:containedctx // a stream has its context
}

// Context implements grpc.ServerStream.
func (e entered) Context() context.Context { return e.ctx }

// caller prepares a call.
type caller = func(context.Context, string, proto.Message) (context.Context, error)

// claiming adds the claim to be a tenant to what a caller sends; a sound server ignores it.
func claiming(in caller, r resident) caller {
	return func(ctx context.Context, method string, request proto.Message) (context.Context, error) {
		return in(metadata.AppendToOutgoingContext(ctx, believed, r.ID.String()), method, request)
	}
}

// control attacks the same app once more, behind a leaky server and with row security switched
// off: each kind of attack that was made on the sound one must find what is there for it. The
// database is of no use after.
func (c *scratch) control(ctx context.Context, app App, sound []apiattack.Report) (l Line, err error) {
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
	r, err := c.attackAPI(ctx, app, tenant.ModelShared, true)
	if err != nil {
		return l, err
	}
	l = controlLine(sound, r)
	l.Repeat = c.server.Repeat(aboutAPI.ID)
	return l, nil
}

// aim is what an attack is after: its kind and, for intruders, which.
func aim(r apiattack.Result) string {
	if r.Attack == apiattack.Intrusion {
		return string(r.Attack) + " (" + r.Where + ")"
	}
	return string(r.Attack)
}

// controlLine judges the attack on the leaky server by what was tried on sound ones: what
// catches nothing here shows nothing there.
func controlLine(sound []apiattack.Report, open apiattack.Report) Line {
	tried, caught, possible := []string{}, map[string]int{}, map[apiattack.Kind]bool{}
	for _, report := range sound {
		for _, r := range report.Results {
			if r.Verdict != apiattack.Untested && !slices.Contains(tried, aim(r)) {
				tried, possible[r.Attack] = append(tried, aim(r)), true
			}
		}
	}
	for _, f := range open.Findings() {
		caught[aim(f)]++
	}
	var named, blind, none []string
	for _, what := range tried {
		if caught[what] == 0 {
			blind = append(blind, what)
		}
		named = append(named, fmt.Sprintf("%s ×%d", what, caught[what]))
	}
	for _, kind := range apiattack.Kinds() {
		if !possible[kind] {
			none = append(none, string(kind))
		}
	}
	l := Line{Name: "control: a leaky server", Status: Pass, Result: "each attack catches what is open for it: " + strings.Join(named, ", ")}
	switch {
	case len(tried) == 0:
		l.Status, l.Result = NotRun, "nothing was tried on the sound server"
	case len(blind) > 0:
		l.Status, l.Result = Fail, "not caught, though it is open: "+strings.Join(blind, ", ")+"; so a sound server shows nothing there"
	}
	if len(none) > 0 {
		l.Findings = append(l.Findings, Finding{
			Rule: "not-tried", Severity: "note", Object: "the example app",
			Message: "it gives no hold to these, or nobody asked for them: " + strings.Join(none, ", "),
		})
	}
	return l
}
