package sqlattack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/mint"
)

// patience is how long one attack may take.
const patience = 10 * time.Second

// arena is a scene on one level: where tables are, and how one gets at them.
type arena struct {
	*scene
	level Level
	guest bool // rights of PostgreSQL's own functions were not ours to take

	own, their string          // the schemas of attacker and victim
	app        string          // what a migration calls the victim's
	role       string          // who has the grants on tables
	owner      string          // who owns the tables
	unfilled   string          // keeps a materialized view empty where its owner may read nothing
	home, away *pgx.ConnConfig // how the app logs in to their databases
	sets       []string        // settings that might carry the tenant
	inert      string          // the one of them that anybody may set, because it carries nothing

	// enter returns the statement that enters a tenant, forge the expression by which the
	// attacker enters the victim with what it has; name is a kind of forged seal.
	enter func(tenant.TenantState) (string, error)
	forge func(name string) (string, error)
	carry func(name string) (string, error) // the same as a value of a setting
	// one sends one statement for a tenant, as the application would.
	one func(ctx context.Context, t tenant.TenantState, sql string) (string, error)
	// ship runs a developer's migration.
	ship func(ctx context.Context, sql string) error

	standing *pgx.Conn // a session of the victim's, in a transaction
	pid      string    // its process
	state    string    // of the victim, as it must stay
	idle     map[string]*session
	closers  []func(context.Context) error
}

// open makes the arena of a level and puts the rows into it.
func (s *scene) open(ctx context.Context, level Level) (*arena, error) {
	a := &arena{scene: s, level: level, idle: map[string]*session{}}
	a.atClose(func(ctx context.Context) error {
		for _, s := range a.idle {
			s.close(ctx)
		}
		return nil
	})
	var err error
	if level.Ours() {
		err = a.openOurs(ctx)
	} else {
		err = a.openBaseline(ctx)
	}
	if err != nil {
		return a, err
	}
	if err := a.seed(ctx); err != nil {
		return a, err
	}
	if err := a.stand(ctx); err != nil {
		return a, err
	}
	a.state, err = a.snapshot(ctx)
	return a, err
}

func (a *arena) close(ctx context.Context) error {
	var all []error
	for _, fn := range slices.Backward(a.closers) {
		all = append(all, fn(ctx))
	}
	return errors.Join(all...)
}

func (a *arena) atClose(fn func(context.Context) error) { a.closers = append(a.closers, fn) }

// openOurs leads to the app's own tables, through the SDK.
func (a *arena) openOurs(ctx context.Context) (err error) {
	a.own, a.their = a.schemas()
	if a.home, err = a.login(a.adminOwn); err != nil {
		return err
	}
	if a.away, err = a.login(a.adminTheir); err != nil {
		return err
	}
	a.sets = []string{"backtrace_functions", "rowhouse.seal"}
	if a.level == L2b {
		a.inert = "rowhouse.seal"
	}
	a.app, a.role, a.owner, a.unfilled = "app", "rowhouse_app", cell.OwnerRole(a.target.App), " WITH NO DATA"
	a.enter, a.forge, a.carry, a.ship = a.enterer, a.forged, a.carried, a.migrate
	// One connection: what a tenant leaves behind is there for the next one.
	db, err := tenantdb.Open(ctx, tenantdb.Config{
		App: a.target.App, Cells: map[string]tenantdb.Cell{mint.Cell: {DSN: a.target.Login, MaxConns: 1}},
	})
	if err != nil {
		return fmt.Errorf("open the SDK: %w", err)
	}
	a.atClose(func(context.Context) error { db.Close(); return nil }) //nolint:contextcheck // it waits for calls, and has none
	a.one = func(ctx context.Context, t tenant.TenantState, sql string) (string, error) {
		c, err := a.mint.Context(t, a.model)
		if err != nil {
			return "", err
		}
		rows, err := db.Query(tenant.NewContext(ctx, c), injected(sql))
		if err != nil {
			return told(err), err
		}
		var out strings.Builder
		for rows.Next() {
			for _, v := range rows.RawValues() {
				fmt.Fprintf(&out, "%s ", v)
			}
		}
		fmt.Fprintf(&out, "%s %s", rows.CommandTag(), told(rows.Err()))
		return out.String(), rows.Err()
	}
	return nil
}

// injected makes a statement of any text, as an application with an injection hole would. The
// way in is that a generic function may convert to a type that it cannot name.
//
//rowlint:ignore G2 the hole is what this function is for
func injected(sql string) tenantdb.Statement { return convert(tenantdb.Stmt, sql) }

func convert[T ~string](to func(T) tenantdb.Statement, sql string) tenantdb.Statement {
	return to(T(sql))
}

// rows of both tenants. Ids differ, because the usual recipe counts them over all tenants.
const (
	victimsID    = "11"
	nobodysID    = "99"
	victimsTitle = "payroll"
	nobodysTitle = "unicorn"
)

// seed puts the rows in, each tenant's own in its own name.
func (a *arena) seed(ctx context.Context) error {
	mine := fmt.Sprintf(`
INSERT INTO %[1]s.note (tenant_id, id, title) VALUES ('%[2]s', 1, 'mine one'), ('%[2]s', 2, 'mine two');
INSERT INTO %[1]s.tag (tenant_id, note_id, tag) VALUES ('%[2]s', 1, 'mine');
INSERT INTO %[1]s.event (tenant_id, id, body) VALUES ('%[2]s', 1, 'mine')`, a.own, a.attacker.UID)
	theirs := fmt.Sprintf(`
INSERT INTO %[1]s.note (tenant_id, id, title, flag) VALUES ('%[2]s', %[4]s, '%[3]s one', true), ('%[2]s', 12, '%[5]s', true);
INSERT INTO %[1]s.tag (tenant_id, note_id, tag) VALUES ('%[2]s', %[4]s, '%[3]s tag');
INSERT INTO %[1]s.event (tenant_id, id, body) VALUES ('%[2]s', 21, '%[3]s event')`, a.their, a.victim.UID, a.canary,
		victimsID, victimsTitle)
	return errors.Join(a.as(ctx, a.adminOwn, a.attacker, mine), a.as(ctx, a.adminTheir, a.victim, theirs), a.analyze(ctx))
}

// analyze fills the planner's statistics, in which values lie. As an owner that row security
// binds one may analyze, too.
func (a *arena) analyze(ctx context.Context) error {
	for _, table := range []string{"note", "tag", "event"} {
		if _, err := a.adminTheir.Exec(ctx, "ANALYZE "+a.their+"."+table); err != nil {
			return fmt.Errorf("analyze: %w", err)
		}
	}
	return nil
}

// clear takes the rows out again.
func (a *arena) clear(ctx context.Context) error {
	const sql = "DELETE FROM %[1]s.tag WHERE tenant_id = '%[2]s'; DELETE FROM %[1]s.event WHERE tenant_id = '%[2]s'; " +
		"DELETE FROM %[1]s.note WHERE tenant_id = '%[2]s'"
	return errors.Join(a.as(ctx, a.adminOwn, a.attacker, fmt.Sprintf(sql, a.own, a.attacker.UID)),
		a.as(ctx, a.adminTheir, a.victim, fmt.Sprintf(sql, a.their, a.victim.UID)))
}

// as runs statements of an admin in a transaction that entered the tenant: an owner is bound by
// row security, too.
func (a *arena) as(ctx context.Context, conn *pgx.Conn, t tenant.TenantState, sql string) error {
	enter, err := a.enter(t)
	if err != nil {
		return err
	}
	if _, err := conn.PgConn().Exec(ctx, "BEGIN; "+enter+"; "+sql+"; COMMIT").ReadAll(); err != nil {
		_, _ = conn.Exec(ctx, "ROLLBACK")
		return fmt.Errorf("set the rows of %s: %w", t.ID, err)
	}
	return nil
}

// stand opens a session of the victim's that stays in a transaction.
func (a *arena) stand(ctx context.Context) error {
	conn, err := pgx.ConnectConfig(ctx, a.away)
	if err != nil {
		return errors.New("the app cannot connect")
	}
	a.standing = conn
	a.atClose(func(ctx context.Context) error { _ = conn.Close(ctx); return nil }) // an attack may have ended it
	enter, err := a.enter(a.victim)
	if err != nil {
		return err
	}
	a.pid = strconv.FormatUint(uint64(conn.PgConn().PID()), 10)
	_, err = conn.PgConn().Exec(ctx, "SET idle_in_transaction_session_timeout = 0; BEGIN; "+enter+
		"; SELECT '"+a.canary+" statement'").ReadAll()
	if err != nil {
		return fmt.Errorf("enter the victim: %w", err)
	}
	return nil
}

// stands reports whether the victim's session is as it was.
func (a *arena) stands(ctx context.Context) bool {
	_, err := a.standing.Exec(ctx, "SELECT '"+a.canary+" statement'")
	return err == nil
}

// snapshot is all that must not change: the victim's rows, and what guards rows.
func (a *arena) snapshot(ctx context.Context) (string, error) {
	var all []string
	for _, part := range a.watched() {
		enter, err := a.enter(part.tenant)
		if err != nil {
			return "", err
		}
		results, err := part.conn.PgConn().Exec(ctx, "BEGIN; "+enter+"; "+part.sql+"; COMMIT").ReadAll()
		if err != nil {
			_, _ = part.conn.Exec(ctx, "ROLLBACK")
			return "", fmt.Errorf("look at the victim's state: %w", err)
		}
		all = append(all, string(bytes.Join(results[len(results)-2].Rows[0], nil)))
	}
	return strings.Join(all, "\n"), nil
}

type watched struct {
	conn   *pgx.Conn
	tenant tenant.TenantState
	sql    string
}

func (a *arena) watched() []watched {
	rows := fmt.Sprintf(`SELECT concat_ws(E'\n',
	(SELECT string_agg(x::text, ',' ORDER BY x::text) FROM %[1]s.note x WHERE tenant_id = '%[2]s'),
	(SELECT string_agg(x::text, ',' ORDER BY x::text) FROM %[1]s.tag x WHERE tenant_id = '%[2]s'),
	(SELECT string_agg(x::text, ',' ORDER BY x::text) FROM %[1]s.event x WHERE tenant_id = '%[2]s'),
	(SELECT string_agg(concat(c.relname, c.relrowsecurity, c.relforcerowsecurity, c.relacl::text), ',' ORDER BY c.oid)
		FROM pg_catalog.pg_class c WHERE c.relnamespace IN ('%[1]s'::regnamespace, 'rowhouse'::regnamespace)),
	(SELECT string_agg(concat(p.polname, p.polrelid, pg_get_expr(p.polqual, p.polrelid)), ',' ORDER BY p.oid) FROM pg_catalog.pg_policy p),
	(SELECT string_agg(md5(p.prosrc), ',' ORDER BY p.oid) FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'rowhouse'::regnamespace))`,
		a.their, a.victim.UID)
	all := []watched{{a.adminTheir, a.victim, rows}}
	if a.their != a.own { // rows that the attacker left in the victim's schema
		all = append(all, watched{a.adminOwn, a.attacker, fmt.Sprintf(`SELECT concat((SELECT count(*) FROM %[1]s.note WHERE tenant_id <> '%[2]s'),
	(SELECT count(*) FROM %[1]s.tag WHERE tenant_id <> '%[2]s'), (SELECT count(*) FROM %[1]s.event WHERE tenant_id <> '%[2]s'))`,
			a.their, a.victim.UID)})
	}
	return all
}
