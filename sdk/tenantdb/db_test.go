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
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
)

// The app of these tests: notes with tags, and the same table by the naive recipe.
var migrations = fstest.MapFS{
	"0001_notes.sql": {Data: []byte(`
CREATE TABLE app.note (
	tenant_id uuid NOT NULL DEFAULT rowhouse.tenant_id(),
	id        int  NOT NULL,
	title     text NOT NULL,
	PRIMARY KEY (tenant_id, id),
	UNIQUE (tenant_id, title)
);
CREATE TABLE app.tag (
	tenant_id uuid NOT NULL DEFAULT rowhouse.tenant_id(),
	note_id   int  NOT NULL,
	tag       text NOT NULL,
	PRIMARY KEY (tenant_id, note_id, tag),
	FOREIGN KEY (tenant_id, note_id) REFERENCES app.note (tenant_id, id) ON DELETE CASCADE
);
`)},
}

var (
	addNote    = tenantdb.Stmt(`INSERT INTO app.note (id, title) VALUES ($1, $2)`)
	addTag     = tenantdb.Stmt(`INSERT INTO app.tag (note_id, tag) VALUES ($1, $2)`)
	getNote    = tenantdb.Stmt(`SELECT title FROM app.note WHERE id = $1`)
	allNotes   = tenantdb.Stmt(`SELECT title FROM app.note ORDER BY title`)
	countNotes = tenantdb.Stmt(`SELECT count(*) FROM app.note`)
	dropNotes  = tenantdb.Stmt(`DELETE FROM app.note`)
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

func TestForgottenWhereTouchesOwnRowsOnly(t *testing.T) {
	t.Parallel()
	onRungs(t, func(t rung, d *dbtest.Database) {
		acme, globex := d.In(t, "acme"), d.In(t, "globex")
		wantTitles(acme, t, d.DB, "acme one", "acme two")
		wantTitles(globex, t, d.DB, "globex one")
		if n, err := d.DB.Exec(acme, renameAll); n != 2 || err != nil {
			t.Errorf("UPDATE without WHERE touched %d rows, %v", n, err)
		}
		if n, err := d.DB.Exec(acme, dropNotes); n != 2 || err != nil {
			t.Errorf("DELETE without WHERE touched %d rows, %v", n, err)
		}
		wantTitles(acme, t, d.DB)
		wantTitles(globex, t, d.DB, "globex one")
	})
}

func TestWithoutTenantIsAnError(t *testing.T) {
	t.Parallel()
	onRungs(t, func(t rung, d *dbtest.Database) {
		_, err := d.DB.Query(t.Context(), allNotes)
		wantRefusal(t, err, tenantdb.ErrNoContext, fault.Unauthenticated, fault.ReasonContextMissing)
		_, err = d.DB.Exec(t.Context(), dropNotes)
		wantRefusal(t, err, tenantdb.ErrNoContext, fault.Unauthenticated, fault.ReasonContextMissing)
		err = d.DB.Tx(t.Context(), func(*tenantdb.Tx) error { t.Error("the function ran"); return nil })
		wantRefusal(t, err, tenantdb.ErrNoContext, fault.Unauthenticated, fault.ReasonContextMissing)

		// The database says so too, for code that goes around the SDK.
		conn := d.Login(t)
		for _, sql := range []string{
			"SELECT * FROM app.note", "DELETE FROM app.note", "UPDATE app.note SET title = ''",
			"INSERT INTO app.note (id, title) VALUES (9, 'x')",
		} {
			if _, err := conn.Exec(t.Context(), sql); state(err) != "42501" {
				t.Errorf("%s: %v, want SQLSTATE 42501", sql, err)
			}
		}
		// After a transaction with a tenant the same session has none again.
		seal := d.Issuer.Context(t, "acme").Seal()
		if err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), "SELECT rowhouse.enter($1)", seal[:])
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), "SELECT * FROM app.note"); state(err) != "42501" {
			t.Errorf("second transaction: %v, want SQLSTATE 42501", err)
		}
	})
}

func TestCrossTenantWritesAreRefused(t *testing.T) {
	t.Parallel()
	onRungs(t, func(t rung, d *dbtest.Database) {
		acme := d.In(t, "acme")
		globex := d.Tenant(t, "globex").UID.String()
		_, err := d.DB.Exec(acme, tenantdb.Stmt(`INSERT INTO app.note (tenant_id, id, title) VALUES ($1, 7, 'planted')`), globex)
		wantRefusal(t, err, tenantdb.ErrForeignRow, fault.PermissionDenied, fault.ReasonPermissionMissing)
		_, err = d.DB.Exec(acme, tenantdb.Stmt(`UPDATE app.note SET tenant_id = $1 WHERE id = 1`), globex)
		wantRefusal(t, err, tenantdb.ErrForeignRow, fault.PermissionDenied, fault.ReasonPermissionMissing)
		for _, stmt := range []tenantdb.Statement{
			tenantdb.Stmt(`DELETE FROM app.note WHERE tenant_id = $1`),
			tenantdb.Stmt(`UPDATE app.note SET title = 'x' WHERE tenant_id = $1`),
		} {
			if n, err := d.DB.Exec(acme, stmt, globex); n != 0 || err != nil {
				t.Errorf("%s touched %d rows, %v", stmt, n, err)
			}
		}
		// The same key in two tenants is two rows, and no tenant learns of another's.
		if _, err := d.DB.Exec(acme, addNote, 3, "globex one"); err != nil {
			t.Errorf("a title that another tenant has: %v", err)
		}
		if _, err := d.DB.Exec(acme, addNote, 3, "again"); !tenantdb.IsUniqueViolation(err) {
			t.Errorf("own key twice: %v", err)
		}
		// A child cannot hang on another tenant's parent: globex has no note 2.
		if _, err := d.DB.Exec(d.In(t, "globex"), addTag, 2, "mine"); !tenantdb.IsForeignKeyViolation(err) {
			t.Errorf("tag on a note of acme: %v", err)
		}
		if _, err := d.DB.Exec(acme, addTag, 2, "mine"); err != nil {
			t.Errorf("tag on an own note: %v", err)
		}
		wantTitles(d.In(t, "globex"), t, d.DB, "globex one")
	})
}

func TestTxCommitsAndRollsBack(t *testing.T) {
	t.Parallel()
	onRungs(t, func(t rung, d *dbtest.Database) {
		ctx := d.In(t, "acme")
		refuse := errors.New("no")
		for _, test := range []struct {
			name string
			fn   func(*tenantdb.Tx) error
			want error
			rows int
		}{
			{"commit", func(tx *tenantdb.Tx) error {
				_, err1 := tx.Exec(ctx, addNote, 10, "a")
				_, err2 := tx.Exec(ctx, addNote, 11, "b")
				return errors.Join(err1, err2)
			}, nil, 4},
			{"error", func(tx *tenantdb.Tx) error {
				_, err := tx.Exec(ctx, addNote, 12, "c")
				return errors.Join(refuse, err)
			}, refuse, 4},
			{"hidden error", func(tx *tenantdb.Tx) error {
				_, _ = tx.Exec(ctx, addNote, 13, "d")
				_, _ = tx.Exec(ctx, addNote, 13, "d")
				return nil
			}, pgx.ErrTxCommitRollback, 4},
			{"nothing", func(*tenantdb.Tx) error { return nil }, nil, 4},
			{"batch", func(tx *tenantdb.Tx) error {
				var b tenantdb.Batch
				b.Exec(addNote, 14, "e")
				b.Exec(addNote, 15, "f")
				return errors.Join(tx.Batch(ctx, &b), tx.Batch(ctx, batchOf(tenantdb.Stmt(`DELETE FROM app.note WHERE id = 14`))))
			}, nil, 5},
		} {
			if err := d.DB.Tx(ctx, test.fn); !errors.Is(err, test.want) {
				t.Errorf("%s: %v, want %v", test.name, err, test.want)
			}
			if n := count(ctx, t, d.DB); n != test.rows {
				t.Errorf("%s: %d rows, want %d", test.name, n, test.rows)
			}
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			_ = d.DB.Tx(ctx, func(tx *tenantdb.Tx) error {
				_, err := tx.Exec(ctx, addNote, 16, "g")
				panic(err)
			})
		}()
		if n := count(ctx, t, d.DB); n != 5 {
			t.Errorf("panic: %d rows, want 5", n)
		}
		err := d.DB.ReadTx(ctx, func(tx *tenantdb.Tx) error { _, err := tx.Exec(ctx, dropNotes); return err })
		if state(err) != "25006" {
			t.Errorf("write in ReadTx: %v, want SQLSTATE 25006", err)
		}
	})
}

func batchOf(stmts ...tenantdb.Statement) *tenantdb.Batch {
	var b tenantdb.Batch
	for _, s := range stmts {
		b.Exec(s)
	}
	return &b
}

func count(ctx context.Context, tb testing.TB, db *tenantdb.DB) (n int) {
	tb.Helper()
	if err := db.QueryRow(ctx, countNotes).Scan(&n); err != nil {
		tb.Fatal(err)
	}
	return n
}

func TestBatch(t *testing.T) {
	t.Parallel()
	onRungs(t, func(t rung, d *dbtest.Database) {
		ctx := d.In(t, "acme")
		var got []string
		var b tenantdb.Batch
		b.Exec(addNote, 3, "third")
		b.Query(func(rows *tenantdb.Rows) (err error) {
			got, err = pgx.CollectRows(rows, pgx.RowTo[string])
			return err
		}, allNotes)
		if err := d.DB.Batch(ctx, &b); err != nil {
			t.Fatal(err)
		}
		if want := []string{"acme one", "acme two", "third"}; !slices.Equal(got, want) {
			t.Errorf("batch read %q, want %q", got, want)
		}
		var failing tenantdb.Batch
		failing.Exec(addNote, 4, "fourth")
		failing.Exec(addNote, 4, "fourth")
		if err := d.DB.Batch(ctx, &failing); !tenantdb.IsUniqueViolation(err) {
			t.Errorf("failing batch: %v", err)
		}
		if n := count(ctx, t, d.DB); n != 3 {
			t.Errorf("%d rows after a failing batch, want 3", n)
		}
		if err := d.DB.Batch(ctx, &tenantdb.Batch{}); !errors.Is(err, tenantdb.ErrVerb) {
			t.Errorf("empty batch: %v", err)
		}
	})
}

func TestMisuseIsRefused(t *testing.T) {
	t.Parallel()
	d := notes(t)
	acme, globex := d.In(t, "acme"), d.In(t, "globex")
	var kept *tenantdb.Tx
	err := d.DB.Tx(acme, func(tx *tenantdb.Tx) error {
		kept = tx
		if _, err := tx.Exec(globex, dropNotes); !errors.Is(err, tenantdb.ErrTenantChanged) {
			t.Errorf("context of another tenant: %v", err)
		}
		if _, err := tx.Exec(t.Context(), dropNotes); !errors.Is(err, tenantdb.ErrNoContext) {
			t.Errorf("no context: %v", err)
		}
		if err := d.DB.Tx(acme, func(*tenantdb.Tx) error { return nil }); !errors.Is(err, tenantdb.ErrNested) {
			t.Errorf("nested Tx: %v", err)
		}
		if _, err := d.DB.Query(acme, allNotes); !errors.Is(err, tenantdb.ErrNested) {
			t.Errorf("Query in a Tx: %v", err)
		}
		rows, err := tx.Query(acme, allNotes)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(acme, dropNotes); !errors.Is(err, tenantdb.ErrBusy) {
			t.Errorf("second statement while rows are open: %v", err)
		}
		fromOther := make(chan error)
		go func() { _, err := tx.Query(acme, allNotes); fromOther <- err }()
		if err := <-fromOther; !errors.Is(err, tenantdb.ErrBusy) {
			t.Errorf("second goroutine: %v", err)
		}
		// Another goroutine may have a transaction of its own.
		go func() { _, err := titles(acme, d.DB); fromOther <- err }()
		if err := <-fromOther; err != nil {
			t.Errorf("transaction of another goroutine: %v", err)
		}
		rows.Close()
		return rows.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kept.Exec(acme, dropNotes); !errors.Is(err, tenantdb.ErrTxDone) {
		t.Errorf("use after the function returned: %v", err)
	}
	err = d.DB.Tx(acme, func(tx *tenantdb.Tx) error { _, err := tx.Query(acme, allNotes); return err })
	if !errors.Is(err, tenantdb.ErrBusy) {
		t.Errorf("return with open rows: %v", err)
	}
	for _, arg := range []any{pgx.QueryExecModeSimpleProtocol, pgx.NamedArgs{}, pgx.QueryResultFormats{0}} {
		if _, err := d.DB.Query(acme, allNotes, arg); !errors.Is(err, tenantdb.ErrArgument) {
			t.Errorf("argument %T: %v", arg, err)
		}
	}
	wantTitles(acme, t, d.DB, "acme one", "acme two")
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

func TestPlacementStates(t *testing.T) {
	t.Parallel()
	onRungs(t, func(t rung, d *dbtest.Database) {
		ctx := d.In(t, "acme")
		set := func(edit func(*cell.Placement)) { t.Helper(); d.Place(t, "acme", edit) }
		check := func(name string, sentinel error, kind fault.Kind, reason string) {
			t.Helper()
			_, err := titles(ctx, d.DB)
			wantRefusal(t, err, sentinel, kind, reason)
			ran := false
			err = d.DB.Tx(ctx, func(tx *tenantdb.Tx) error {
				_, err := tx.Exec(ctx, dropNotes)
				ran = err == nil
				return err
			}, tenantdb.Isolate(tenantdb.Serializable))
			wantRefusal(t, err, sentinel, kind, reason)
			if ran {
				t.Errorf("%s: the statement ran", name)
			}
		}
		set(func(p *cell.Placement) { p.State = cell.Suspended })
		check("suspended", tenantdb.ErrSuspended, fault.PermissionDenied, fault.ReasonTenantSuspended)
		set(func(p *cell.Placement) { p.State = cell.Moved })
		check("moved", tenantdb.ErrMoved, fault.Aborted, fault.ReasonPlacementStale)
		set(func(p *cell.Placement) { p.Generation = 2 })
		check("new generation", tenantdb.ErrMoved, fault.Aborted, fault.ReasonPlacementStale)
		if err := cell.RemovePlacement(t.Context(), d.Admin, d.Tenant(t, "acme").UID); err != nil {
			t.Fatal(err)
		}
		check("absent", tenantdb.ErrMoved, fault.Aborted, fault.ReasonPlacementStale)
		set(func(*cell.Placement) {})
		wantTitles(ctx, t, d.DB, "acme one", "acme two")
	})
}

// A fence is waited for: a call that meets it goes on when the tenant is back.
func TestFence(t *testing.T) {
	t.Parallel()
	onRungs(t, func(t rung, d *dbtest.Database) {
		ctx := d.In(t, "acme")
		d.Place(t, "acme", func(p *cell.Placement) { p.State = cell.Fenced })
		_, err := titles(ctx, d.DB)
		wantRefusal(t, err, tenantdb.ErrFenced, fault.Unavailable, fault.ReasonTenantNotReady)
		if f, _ := fault.As(err); f.RetryAfter == 0 {
			t.Error("no RetryAfter")
		}
		config := d.Config
		tries := refusals{make(chan error, 1)}
		config.Tracer = tries
		db, answer := d.Open(t, config), make(chan error)
		go func() {
			answer <- db.Tx(ctx, func(tx *tenantdb.Tx) error { _, err := tx.Exec(ctx, renameAll); return err })
		}()
		if err := <-tries.failed; state(err) != "RH002" {
			t.Errorf("first try: %v", err)
		}
		d.Place(t, "acme")
		if err := <-answer; err != nil {
			t.Fatal(err)
		}
		wantTitles(ctx, t, d.DB, "acme one!", "acme two!")
	})
}

// refusals is a tracer that tells of batches that failed.
type refusals struct{ failed chan error }

func (r refusals) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}
func (r refusals) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
func (r refusals) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return ctx
}
func (r refusals) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (r refusals) TraceBatchEnd(_ context.Context, _ *pgx.Conn, data pgx.TraceBatchEndData) {
	select {
	case r.failed <- data.Err:
	default:
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

func TestRetry(t *testing.T) {
	t.Parallel()
	d := notes(t)
	ctx := d.In(t, "acme")
	run := func(options ...tenantdb.TxOption) (tries int, err error) {
		err = d.DB.Tx(ctx, func(tx *tenantdb.Tx) error {
			tries++
			if n := 0; tries == 1 {
				if err := tx.QueryRow(ctx, countNotes).Scan(&n); err != nil {
					return err
				}
				done := make(chan error)
				go func() { _, err := d.DB.Exec(ctx, renameAll); done <- err }()
				if err := <-done; err != nil {
					return err
				}
			}
			_, err := tx.Exec(ctx, renameAll)
			return err
		}, append(options, tenantdb.Isolate(tenantdb.RepeatableRead))...)
		return tries, err
	}
	if tries, err := run(); tries != 1 || state(err) != "40001" {
		t.Errorf("without Retry: %d tries, %v", tries, err)
	}
	if tries, err := run(tenantdb.Retry(1)); tries != 2 || err != nil {
		t.Errorf("with Retry: %d tries, %v", tries, err)
	}
	tries := 0
	err := d.DB.Tx(ctx, func(tx *tenantdb.Tx) error {
		tries++
		_, err := tx.Exec(ctx, addNote, 1, "again")
		return err
	}, tenantdb.Retry(3))
	if tries != 1 || !tenantdb.IsUniqueViolation(err) {
		t.Errorf("unique violation: %d tries, %v", tries, err)
	}
}

func TestPlanTimeouts(t *testing.T) {
	t.Parallel()
	onRungs(t, func(t rung, d *dbtest.Database) {
		ctx := d.In(t, "acme")
		sleep := tenantdb.Stmt(`SELECT pg_sleep(30)::text`)
		d.Place(t, "acme", func(p *cell.Placement) { p.StatementMS, p.LockMS, p.IdleMS = 41_000, 42_000, 43_000 })
		var s string
		err := d.DB.Tx(ctx, func(tx *tenantdb.Tx) error {
			var b tenantdb.Batch
			for name, want := range map[string]string{
				"statement_timeout": "41s", "lock_timeout": "42s", "idle_in_transaction_session_timeout": "43s",
			} {
				b.Query(func(rows *tenantdb.Rows) error {
					got, err := pgx.CollectOneRow(rows, pgx.RowTo[string])
					if got != want {
						t.Errorf("%s is %s, want %s", name, got, want)
					}
					return err
				}, tenantdb.Stmt(`SELECT current_setting($1)`), name)
			}
			return tx.Batch(ctx, &b)
		})
		if err != nil {
			t.Fatal(err)
		}
		d.Place(t, "acme", func(p *cell.Placement) { p.StatementMS = 40 })
		err = d.DB.Tx(ctx, func(tx *tenantdb.Tx) error { return tx.QueryRow(ctx, sleep).Scan(&s) })
		wantRefusal(t, err, tenantdb.ErrTimeout, fault.DeadlineExceeded, fault.ReasonDeadlineTooShort)

		short, cancel := context.WithTimeout(d.In(t, "globex"), 50*time.Millisecond)
		defer cancel()
		err = d.DB.QueryRow(short, sleep).Scan(&s)
		wantRefusal(t, err, tenantdb.ErrTimeout, fault.DeadlineExceeded, fault.ReasonDeadlineTooShort)
		wantTitles(d.In(t, "globex"), t, d.DB, "globex one")
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

func TestSealOfAnotherCell(t *testing.T) {
	t.Parallel()
	onRungs(t, func(t rung, d *dbtest.Database) {
		alarms := make(chan error, 1)
		config := d.Config
		config.Alarm = func(_ context.Context, err error) { alarms <- err }
		_, err := titles(d.In(t, "acme", func(c *tenant.Claims) { c.CellNumber++ }), d.Open(t, config))
		wantRefusal(t, err, tenantdb.ErrSeal, fault.Unauthenticated, fault.ReasonContextInvalid)
		if alarm := <-alarms; !errors.Is(alarm, tenantdb.ErrSeal) {
			t.Errorf("alarm %v", alarm)
		}
		config.Cells = map[string]tenantdb.Cell{"cell-2": d.Config.Cells["cell-1"]}
		_, err = titles(d.In(t, "acme"), d.Open(t, config))
		wantRefusal(t, err, tenantdb.ErrUnreachable, fault.Unavailable, "CELL_UNREACHABLE")
	})
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

// A migration changes a table under prepared statements: the next call finds out and goes on.
func TestTableChangesUnderPreparedStatement(t *testing.T) {
	t.Parallel()
	d := notes(t)
	ctx := d.In(t, "acme")
	star := tenantdb.Stmt(`SELECT * FROM app.note WHERE id = 1`)
	columns := func() int {
		rows, err := d.DB.Query(ctx, star)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		return len(rows.FieldDescriptions())
	}
	if n := columns(); n != 3 {
		t.Fatalf("%d columns", n)
	}
	files := fstest.MapFS{"0001_notes.sql": migrations["0001_notes.sql"],
		"0002_body.sql": {Data: []byte("ALTER TABLE app.note ADD body text")}}
	if err := cell.Migrate(t.Context(), d.Admin, files); err != nil {
		t.Fatal(err)
	}
	if n := columns(); n != 4 {
		t.Errorf("%d columns after the migration, want 4", n)
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

func TestRowAndErrors(t *testing.T) {
	t.Parallel()
	d := notes(t)
	ctx := d.In(t, "acme")
	var s string
	if err := d.DB.QueryRow(ctx, getNote, 99).Scan(&s); !errors.Is(err, tenantdb.ErrNoRows) {
		t.Errorf("absent row: %v", err)
	}
	if err := d.DB.QueryRow(ctx, allNotes).Scan(&s); err != nil || s != "acme one" {
		t.Errorf("first of several: %q, %v", s, err)
	}
	var n int
	if err := d.DB.QueryRow(ctx, getNote, 1).Scan(&n); err == nil {
		t.Error("a title was read as a number")
	}
	if _, err := d.DB.Query(ctx, tenantdb.Stmt(`SELECT * FROM app.nothing`)); state(err) != "42P01" {
		t.Errorf("unknown table: %v", err)
	}
	if _, err := d.DB.Exec(ctx, tenantdb.Stmt(`SELECT 1 / (count(*) - 2) FROM app.note`)); state(err) != "22012" {
		t.Errorf("division by zero: %v", err)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := titles(gone, d.DB); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	wantTitles(ctx, t, d.DB, "acme one", "acme two")
	d2 := d.Open(t, d.Config)
	d2.Close()
	if _, err := titles(ctx, d2); !errors.Is(err, tenantdb.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
