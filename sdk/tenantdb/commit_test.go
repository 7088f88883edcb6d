package tenantdb_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
)

// withoutStandby opens the database so that its commits wait for a standby that never comes.
// It is a setting of the whole server, which may hold up others: not for parallel tests.
func withoutStandby(t *testing.T, d *dbtest.Database) *tenantdb.DB {
	t.Helper()
	var name string
	if err := d.Admin.QueryRow(t.Context(), "SELECT current_database()").Scan(&name); err != nil {
		t.Fatal(err)
	}
	set := func(ctx context.Context, commands ...string) {
		for _, sql := range append(commands, "SELECT pg_reload_conf()") {
			if _, err := d.Admin.Exec(ctx, sql); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(func() { set(context.WithoutCancel(t.Context()), "ALTER SYSTEM RESET synchronous_standby_names") })
	set(t.Context(), "ALTER ROLE rowhouse_app_test IN DATABASE "+pgx.Identifier{name}.Sanitize()+" SET synchronous_commit = 'on'",
		"ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
	return d.Open(t, d.Config)
}

// The server says COMMIT when the wait for the standby was cancelled: that is no promise.
// Not parallel, because it changes the server.
func TestCommitThatIsNotSafeYet(t *testing.T) {
	d := notes(t)
	db := withoutStandby(t, d)
	ctx, stop := context.WithCancel(d.In(t, "acme"))
	var cancelled atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			// Not with ctx: a query that is given up runs on, and cancels what comes later.
			tag, _ := d.Admin.Exec(t.Context(), `SELECT pg_cancel_backend(pid) FROM pg_stat_activity, pg_sleep(0.01)
WHERE wait_event = 'SyncRep' AND datname = current_database()`)
			cancelled.Add(tag.RowsAffected())
		}
	}()
	for name, call := range map[string]func() error{
		"Tx": func() error {
			return db.Tx(ctx, func(tx *tenantdb.Tx) error { _, err := tx.Exec(ctx, renameAll); return err })
		},
		"Exec":  func() error { _, err := db.Exec(ctx, renameAll); return err },
		"Batch": func() error { return db.Batch(ctx, batchOf(renameAll)) },
	} {
		before := cancelled.Load()
		err := call()
		// The server has not read its settings yet, or a cancellation came after the wait that it was for.
		for err == nil && cancelled.Load() == before || state(err) == "57014" {
			err = call()
		}
		t.Log(name)
		wantRefusal(t, err, tenantdb.ErrOutcome, fault.Unavailable, fault.ReasonOutcomeUnknown)
	}
	if _, err := titles(ctx, db); err != nil {
		t.Errorf("a read after them: %v", err)
	}
	stop()
	<-done

	// Nobody cancels: the wait has an end all the same.
	ctx, stop = context.WithTimeout(d.In(t, "acme"), 20*time.Second)
	defer stop()
	start := time.Now()
	err := db.Tx(ctx, func(tx *tenantdb.Tx) error { _, err := tx.Exec(ctx, renameAll); return err })
	wantRefusal(t, err, tenantdb.ErrOutcome, fault.Unavailable, fault.ReasonOutcomeUnknown)
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("the commit was waited for %v", took)
	}
}

// What was not sent did not happen.
func TestCommitThatWasNotSent(t *testing.T) {
	t.Parallel()
	d := notes(t)
	ctx, cancel := context.WithCancel(d.In(t, "acme"))
	err := d.DB.Tx(ctx, func(tx *tenantdb.Tx) error {
		_, err := tx.Exec(ctx, renameAll)
		cancel()
		return err
	})
	if !errors.Is(err, context.Canceled) || errors.Is(err, tenantdb.ErrOutcome) {
		t.Errorf("Tx of a caller that left before the commit: %v", err)
	}
	wantTitles(d.In(t, "acme"), t, d.DB, "acme one", "acme two")
}

// A function that goes on after its first statement failed must not get half of its work.
func TestHiddenErrorOfTheFirstStatement(t *testing.T) {
	t.Parallel()
	d := notes(t)
	ctx := d.In(t, "acme")
	nothing := tenantdb.Stmt(`INSERT INTO app.nothing (id) VALUES ($1)`)
	err := d.DB.Tx(ctx, func(tx *tenantdb.Tx) error {
		_, _ = tx.Exec(ctx, nothing, 1)
		if _, err := tx.Exec(ctx, addNote, 7, "the second"); state(err) != "42P01" {
			t.Errorf("the second statement: %v, want the first one's error", err)
		}
		if err := tx.Batch(ctx, batchOf(renameAll)); state(err) != "42P01" {
			t.Errorf("a batch: %v, want the first one's error", err)
		}
		return nil
	})
	if !errors.Is(err, pgx.ErrTxCommitRollback) {
		t.Errorf("Tx: %v, want %v", err, pgx.ErrTxCommitRollback)
	}
	wantTitles(ctx, t, d.DB, "acme one", "acme two")
}

func TestRetryPauses(t *testing.T) {
	t.Parallel()
	d := notes(t)
	ctx, cancel := context.WithCancel(d.In(t, "acme"))
	db := d.Open(t, d.Config)
	pauses, tries := 0, 0
	db.SetJitter(func() float64 { pauses++; return 1 })
	lose := func(*tenantdb.Tx) error { tries++; return &pgconn.PgError{Code: "40001"} }
	start := time.Now()
	if err := db.Tx(ctx, lose, tenantdb.Retry(3)); state(err) != "40001" || tries != 4 || pauses != 3 {
		t.Errorf("%v after %d tries and %d pauses", err, tries, pauses)
	}
	if took, want := time.Since(start), (5+10+20)*time.Millisecond; took < want {
		t.Errorf("the pauses took %v, want %v", took, want)
	}
	cancel()
	if err := db.Tx(ctx, lose, tenantdb.Retry(3)); !errors.Is(err, context.Canceled) || tries != 5 {
		t.Errorf("a caller that left: %v after %d tries", err, tries)
	}
}
