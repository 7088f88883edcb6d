package tenantdb_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
)

// The app of these tests: notes. What holds in every model is in package conformancetest.
var migrations = fstest.MapFS{
	"0001_notes.sql": {Data: []byte(`
CREATE TABLE app.note (
	tenant_id uuid NOT NULL DEFAULT rowhouse.tenant_id(),
	id        int  NOT NULL,
	title     text NOT NULL,
	PRIMARY KEY (tenant_id, id),
	UNIQUE (tenant_id, title)
);
`)},
}

var (
	addNote    = tenantdb.Stmt(`INSERT INTO app.note (id, title) VALUES ($1, $2)`)
	getNote    = tenantdb.Stmt(`SELECT title FROM app.note WHERE id = $1`)
	allNotes   = tenantdb.Stmt(`SELECT title FROM app.note ORDER BY title`)
	countNotes = tenantdb.Stmt(`SELECT count(*) FROM app.note`)
	renameAll  = tenantdb.Stmt(`UPDATE app.note SET title = title || '!'`)
)

// onRungs runs a test on both rungs, each with a database of its own and two tenants that
// have a note 1 each, and acme a note 2.
func onRungs(t *testing.T, test func(rung, *dbtest.Database), opts ...dbtest.Option) {
	t.Helper()
	for _, r := range []cell.Rung{cell.L2a, cell.L2b} {
		t.Run(string(r), func(t *testing.T) {
			t.Parallel()
			test(rung{t}, notes(t, append(slices.Clone(opts), dbtest.Rung(r))...))
		})
	}
}

// rung is a test on one rung.
type rung struct{ *testing.T }

func notes(tb testing.TB, opts ...dbtest.Option) *dbtest.Database {
	tb.Helper()
	d := dbtest.New(tb, append([]dbtest.Option{dbtest.Migrations(migrations)}, opts...)...)
	for _, row := range []struct {
		tenant string
		id     int
		title  string
	}{{"acme", 1, "acme one"}, {"acme", 2, "acme two"}, {"globex", 1, "globex one"}} {
		if _, err := d.DB.Exec(d.In(tb, row.tenant), addNote, row.id, row.title); err != nil {
			tb.Fatal(err)
		}
	}
	return d
}

func titles(ctx context.Context, db *tenantdb.DB) ([]string, error) {
	rows, err := db.Query(ctx, allNotes)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

func wantTitles(ctx context.Context, tb testing.TB, db *tenantdb.DB, want ...string) {
	tb.Helper()
	got, err := titles(ctx, db)
	if err != nil {
		tb.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		tb.Errorf("titles (-want +got):\n%s", diff)
	}
}

func wantRefusal(tb testing.TB, err, sentinel error, kind fault.Kind, reason string) {
	tb.Helper()
	if !errors.Is(err, sentinel) || fault.KindOf(err) != kind || fault.ReasonOf(err) != reason {
		tb.Errorf("error %v (%s %s), want %v, %s %s", err, fault.KindOf(err), fault.ReasonOf(err), sentinel, kind, reason)
	}
}

func batchOf(stmts ...tenantdb.Statement) *tenantdb.Batch {
	var b tenantdb.Batch
	for _, s := range stmts {
		b.Exec(s)
	}
	return &b
}

func TestVerbs(t *testing.T) {
	t.Parallel()
	d := notes(t)
	ctx := d.In(t, "acme")
	for _, stmt := range []tenantdb.Statement{
		{}, tenantdb.Stmt(""), tenantdb.Stmt("-- nothing"), tenantdb.Stmt("SET ROLE postgres"), tenantdb.Stmt("RESET ALL"),
		tenantdb.Stmt("/* a /* b */ SELECT 1 */ DO 'x'"), tenantdb.Stmt("LISTEN c"), tenantdb.Stmt("NOTIFY c"),
		tenantdb.Stmt("DECLARE c CURSOR WITH HOLD FOR SELECT 1"), tenantdb.Stmt("PREPARE p AS SELECT 1"),
		tenantdb.Stmt("LOCK TABLE app.note"), tenantdb.Stmt("EXPLAIN SELECT 1"), tenantdb.Stmt("COPY app.note TO STDOUT"),
		tenantdb.Stmt("COMMIT"), tenantdb.Stmt("SELECTED"), tenantdb.Stmt("CALL f()"), tenantdb.Stmt("TRUNCATE app.note"),
		tenantdb.Stmt(`INSERT INTO U&"\0061pp".note (id) VALUES (1)`), tenantdb.Stmt("SELECT nextval('app.n')"),
	} {
		if _, err := d.DB.Query(ctx, stmt); !errors.Is(err, tenantdb.ErrVerb) {
			t.Errorf("%q: %v, want ErrVerb", stmt, err)
		}
	}
	for _, stmt := range []tenantdb.Statement{
		tenantdb.Stmt("select 1"), tenantdb.Stmt(" \n-- why\n/* a /* b */ */ ((SELECT 1) UNION SELECT 2)"), tenantdb.Stmt("VALUES (1)"),
		tenantdb.Concat(tenantdb.Stmt("WITH x AS (SELECT 1)"), tenantdb.Stmt(" SELECT * FROM x")),
	} {
		rows, err := d.DB.Query(ctx, stmt)
		if err != nil {
			t.Errorf("%q: %v", stmt, err)
			continue
		}
		rows.Close()
	}
}

// The exclusive lock of a move holds callers back for a while, then they are told.
func TestTenantLock(t *testing.T) {
	t.Parallel()
	onRungs(t, func(t rung, d *dbtest.Database) {
		ctx := d.In(t, "acme")
		uid := d.Tenant(t, "acme").UID
		lock := func(release func()) {
			t.Helper()
			err := pgx.BeginFunc(t.Context(), d.Admin, func(tx pgx.Tx) error {
				_, err := tx.Exec(t.Context(), "SELECT pg_advisory_xact_lock(('x' || right(replace($1, '-', ''), 16))::bit(64)::bigint)", uid.String())
				release()
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		lock(func() {
			start := time.Now()
			_, err := titles(ctx, d.DB)
			wantRefusal(t, err, tenantdb.ErrFenced, fault.Unavailable, fault.ReasonTenantNotReady)
			// 2 s, unless the machine is busy; each try takes 0.5 s.
			if took := time.Since(start); took > 8*time.Second {
				t.Errorf("a locked tenant was waited for %v", took)
			}
			wantTitles(d.In(t, "globex"), t, d.DB, "globex one")
		})
		wantTitles(ctx, t, d.DB, "acme one", "acme two")
	})
}

// A snapshot from before a fence must not write after it.
func TestOldSnapshotDoesNotWriteAfterFence(t *testing.T) {
	t.Parallel()
	onRungs(t, func(t rung, d *dbtest.Database) {
		seal := sealOf(t, d, "acme")
		conn := d.Login(t)
		tx, err := conn.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(t.Context()) }()
		if _, err := tx.Exec(t.Context(), "SELECT 1"); err != nil { // takes the snapshot
			t.Fatal(err)
		}
		d.Place(t, "acme", func(p *cell.Placement) { p.State = cell.Fenced })
		if _, err := tx.Exec(t.Context(), "SELECT rowhouse.enter($1)", seal); state(err) != "40001" {
			t.Errorf("enter with an old snapshot: %v, want SQLSTATE 40001", err)
		}
	})
}

// A context that expires between the service's clock and the database's.
func TestExpired(t *testing.T) {
	t.Parallel()
	late := func() time.Time { return time.Now().Add(-time.Minute) }
	for _, r := range []cell.Rung{cell.L2a, cell.L2b} {
		d := dbtest.New(t, dbtest.Rung(r), dbtest.Migrations(migrations), dbtest.Clock(late))
		_, err := titles(d.In(t, "acme"), d.DB)
		wantRefusal(t, err, tenantdb.ErrExpired, fault.Unauthenticated, fault.ReasonContextExpired)
		if state(err) != "RH005" {
			t.Errorf("%s: the database was not asked: %v", r, err)
		}
		config := d.Config
		config.Clock = time.Now
		_, err = titles(d.In(t, "acme"), d.Open(t, config))
		wantRefusal(t, err, tenantdb.ErrExpired, fault.Unauthenticated, fault.ReasonContextExpired)
		if state(err) != "" {
			t.Errorf("%s: an expired context was sent", r)
		}
	}
}

func TestTenantOfAnotherCell(t *testing.T) {
	t.Parallel()
	d := notes(t)
	config := d.Config
	config.Cells = map[string]tenantdb.Cell{"cell-2": d.Config.Cells["cell-1"]}
	_, err := titles(d.In(t, "acme"), d.Open(t, config))
	wantRefusal(t, err, tenantdb.ErrUnreachable, fault.Unavailable, "CELL_UNREACHABLE")
}

func TestAdmission(t *testing.T) {
	t.Parallel()
	d := notes(t, dbtest.Configure(oneConnection))
	ctx := d.In(t, "acme")
	rows, err := d.DB.Query(ctx, allNotes)
	if err != nil {
		t.Fatal(err)
	}
	_, err = titles(d.In(t, "globex"), d.DB)
	wantRefusal(t, err, tenantdb.ErrAdmission, fault.ResourceExhausted, fault.ReasonOverloaded)
	rows.Close()
	wantTitles(d.In(t, "globex"), t, d.DB, "globex one")
}

// One tenant's slow statements leave connections to others.
func TestSlowTenantLeavesConnections(t *testing.T) {
	t.Parallel()
	const conns, slow, share = 10, 12, 5
	d := notes(t, dbtest.Configure(func(c *tenantdb.Config) {
		for name, to := range c.Cells {
			to.MaxConns = conns
			c.Cells[name] = to
		}
	}))
	acme, globex := d.In(t, "acme"), d.In(t, "globex")
	end, begun := make(chan struct{}), make(chan error, 2*slow)
	var wg sync.WaitGroup
	for range slow {
		wg.Go(func() {
			err := d.DB.Tx(acme, func(tx *tenantdb.Tx) error {
				_, err := tx.Exec(acme, allNotes)
				begun <- err
				<-end
				return err
			})
			if err != nil && !errors.Is(err, tenantdb.ErrAdmission) {
				t.Error(err)
			}
		})
	}
	defer wg.Wait()
	defer close(end)
	held := 0
	for range slow {
		if <-begun == nil {
			held++
		}
	}
	if held != share {
		t.Errorf("a tenant holds %d of %d connections, want %d", held, conns, share)
	}
	for range 2 * conns {
		wantTitles(globex, t, d.DB, "globex one")
	}
}

func TestUnreachableCellShowsNoSecret(t *testing.T) {
	t.Parallel()
	d := notes(t)
	config := d.Config
	config.Cells = map[string]tenantdb.Cell{"cell-1": {DSN: "host=/nowhere user=u password=hunter2 dbname=d"}}
	_, err := titles(d.In(t, "acme"), d.Open(t, config))
	wantRefusal(t, err, tenantdb.ErrUnreachable, fault.Unavailable, "CELL_UNREACHABLE")
	for _, dsn := range []string{"host=x password='hunter2", "postgres://u:hunter2@[bad"} {
		config.Cells = map[string]tenantdb.Cell{"cell-1": {DSN: dsn}}
		if _, err := tenantdb.Open(t.Context(), config); err == nil || contains(err, "hunter2") {
			t.Errorf("Open(%q): %v", dsn, err)
		}
	}
	if contains(err, "hunter2") {
		t.Errorf("the password is in %v", err)
	}
}

func TestTransactionPooler(t *testing.T) {
	t.Parallel()
	d := notes(t)
	config := d.Config
	config.Cells = map[string]tenantdb.Cell{}
	for name, c := range d.Config.Cells {
		c.Pooler = tenantdb.TransactionPooler
		config.Cells[name] = c
	}
	db := d.Open(t, config)
	for range 3 {
		wantTitles(d.In(t, "acme"), t, db, "acme one", "acme two")
		err := db.Tx(d.In(t, "globex"), func(tx *tenantdb.Tx) error {
			var title string
			return tx.QueryRow(d.In(t, "globex"), getNote, 1).Scan(&title)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Admin.Exec(t.Context(), "GRANT EXECUTE ON FUNCTION pg_catalog.pg_prepared_statement() TO PUBLIC"); err != nil {
		t.Fatal(err) // apps have no right to look
	}
	var named int
	err := db.QueryRow(d.In(t, "acme"), tenantdb.Stmt(`SELECT count(*) FROM pg_prepared_statements`)).Scan(&named)
	if err != nil || named != 0 {
		t.Errorf("%d named statements, %v", named, err)
	}
}

func TestClosed(t *testing.T) {
	t.Parallel()
	d := notes(t)
	ctx := d.In(t, "acme")
	var n int
	if err := d.DB.QueryRow(ctx, getNote, 1).Scan(&n); err == nil {
		t.Error("a title was read as a number")
	}
	wantTitles(ctx, t, d.DB, "acme one", "acme two")
	closed := d.Open(t, d.Config)
	closed.Close()
	if _, err := titles(ctx, closed); !errors.Is(err, tenantdb.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
