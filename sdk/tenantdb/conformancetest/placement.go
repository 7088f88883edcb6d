package conformancetest

import (
	"context"
	"errors"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
)

// Without a tenant there is an error, never an empty answer; the database says so, too, to
// code that goes around the SDK.
func noTenant(t *testing.T, s *subject) {
	t.Helper()
	_, err := s.DB.Query(t.Context(), allNotes)
	wantRefusal(t, err, tenantdb.ErrNoContext, fault.Unauthenticated, fault.ReasonContextMissing)
	_, err = s.DB.Exec(t.Context(), dropNotes)
	wantRefusal(t, err, tenantdb.ErrNoContext, fault.Unauthenticated, fault.ReasonContextMissing)
	err = s.DB.Tx(t.Context(), func(*tenantdb.Tx) error { t.Error("the function ran"); return nil })
	wantRefusal(t, err, tenantdb.ErrNoContext, fault.Unauthenticated, fault.ReasonContextMissing)

	h := s.Home(t, "acme")
	conn := h.Login(t)
	for _, sql := range []string{
		"SELECT * FROM app.note", "DELETE FROM app.note", "UPDATE app.note SET title = ''", "INSERT INTO app.note (id, title) VALUES (9, 'x')",
	} {
		if _, err := conn.Exec(t.Context(), h.SQL(sql)); state(err) != "42501" {
			t.Errorf("%s: %v, want SQLSTATE 42501", sql, err)
		}
	}
	// After a transaction with a tenant the same session has none again.
	seal := s.Issuer.Context(t, "acme").Seal()
	var notes int
	if err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "SELECT rowhouse.enter($1)", seal[:]); err != nil {
			return err
		}
		return tx.QueryRow(t.Context(), h.SQL("SELECT count(*) FROM app.note")).Scan(&notes)
	}); err != nil || notes != 2 {
		t.Errorf("%d notes with the seal, %v", notes, err)
	}
	if _, err := conn.Exec(t.Context(), h.SQL("SELECT * FROM app.note")); state(err) != "42501" {
		t.Errorf("second transaction: %v, want SQLSTATE 42501", err)
	}
}

func sealsAndTimes(t *testing.T, s *subject) {
	t.Helper()
	alarms := make(chan error, 1)
	config := s.Config
	config.Alarm = func(_ context.Context, err error) { alarms <- err }
	_, err := titles(s.In(t, "acme", func(c *tenant.Claims) { c.CellNumber++ }), s.Open(t, config))
	wantRefusal(t, err, tenantdb.ErrSeal, fault.Unauthenticated, fault.ReasonContextInvalid)
	if alarm := <-alarms; !errors.Is(alarm, tenantdb.ErrSeal) {
		t.Errorf("alarm %v", alarm)
	}
	config = s.Config
	config.Clock = func() time.Time { return time.Now().Add(time.Minute) }
	_, err = titles(s.In(t, "acme"), s.Open(t, config))
	wantRefusal(t, err, tenantdb.ErrExpired, fault.Unauthenticated, fault.ReasonContextExpired)
	if state(err) != "" {
		t.Error("an expired context was sent")
	}
}

func placementObeyed(t *testing.T, s *subject) {
	t.Helper()
	ctx := s.In(t, "acme")
	check := func(name string, sentinel error, kind fault.Kind, reason string) {
		t.Helper()
		_, err := titles(ctx, s.DB)
		wantRefusal(t, err, sentinel, kind, reason)
		ran := false
		err = s.DB.Tx(ctx, func(tx *tenantdb.Tx) error {
			_, err := tx.Exec(ctx, dropNotes)
			ran = err == nil
			return err
		}, tenantdb.Isolate(tenantdb.Serializable))
		wantRefusal(t, err, sentinel, kind, reason)
		if ran {
			t.Errorf("%s: the statement ran", name)
		}
		wantTitles(s.In(t, "globex"), t, s.DB, "globex one") //nolint:contextcheck // another tenant's
	}
	s.Place(t, "acme", func(p *cell.Placement) { p.State = cell.Suspended })
	check("suspended", tenantdb.ErrSuspended, fault.PermissionDenied, fault.ReasonTenantSuspended)
	s.Place(t, "acme", func(p *cell.Placement) { p.State = cell.Moved })
	check("moved", tenantdb.ErrMoved, fault.Aborted, fault.ReasonPlacementStale)
	s.Place(t, "acme", func(p *cell.Placement) { p.Generation++ })
	check("new generation", tenantdb.ErrMoved, fault.Aborted, fault.ReasonPlacementStale)
	s.Unplace(t, "acme")
	check("absent", tenantdb.ErrMoved, fault.Aborted, fault.ReasonPlacementStale)
	s.Place(t, "acme")
	wantTitles(ctx, t, s.DB, "acme one", "acme two")
}

// A fence is waited for: a call that meets it goes on when the tenant is back, and is told
// when it is not in time.
func fence(t *testing.T, s *subject) {
	t.Helper()
	ctx := s.In(t, "acme")
	tries, answer := batches{make(chan error, 1)}, make(chan error, 1)
	config := s.Config
	config.Tracer = tries
	db := s.Open(t, config)
	wantTitles(ctx, t, db, "acme one", "acme two") // by a connection that is there when the fence is met
	s.Place(t, "acme", func(p *cell.Placement) { p.State = cell.Fenced })
	_, err := titles(ctx, s.DB)
	wantRefusal(t, err, tenantdb.ErrFenced, fault.Unavailable, fault.ReasonTenantNotReady)
	if f, _ := fault.As(err); f.RetryAfter == 0 {
		t.Error("no RetryAfter")
	}
	go func() {
		answer <- db.Tx(ctx, func(tx *tenantdb.Tx) error { _, err := tx.Exec(ctx, renameAll); return err })
	}()
	if err := <-tries.failed; state(err) != "RH002" {
		t.Errorf("first try: %v", err)
	}
	s.Place(t, "acme")
	if err := <-answer; err != nil {
		t.Fatal(err)
	}
	wantTitles(ctx, t, s.DB, "acme one!", "acme two!")
}

// batches is a tracer that tells of batches that failed.
type batches struct{ failed chan error }

func (b batches) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}
func (b batches) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
func (b batches) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return ctx
}
func (b batches) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (b batches) TraceBatchEnd(_ context.Context, _ *pgx.Conn, data pgx.TraceBatchEndData) {
	if data.Err == nil {
		return
	}
	select {
	case b.failed <- data.Err:
	default:
	}
}

//nolint:gochecknoglobals // statements are constants
var setting = tenantdb.Stmt(`SELECT current_setting($1)`)

func planTimeouts(t *testing.T, s *subject) {
	t.Helper()
	ctx := s.In(t, "acme")
	s.Place(t, "acme", func(p *cell.Placement) { p.StatementMS, p.LockMS, p.IdleMS = 41_000, 42_000, 43_000 })
	err := s.DB.Tx(ctx, func(tx *tenantdb.Tx) error {
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
			}, setting, name)
		}
		return tx.Batch(ctx, &b)
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Place(t, "acme", func(p *cell.Placement) { p.StatementMS = 40 })
	var text string
	err = s.DB.Tx(ctx, func(tx *tenantdb.Tx) error { return tx.QueryRow(ctx, sleep).Scan(&text) })
	wantRefusal(t, err, tenantdb.ErrTimeout, fault.DeadlineExceeded, fault.ReasonDeadlineTooShort)

	short, cancel := context.WithTimeout(s.In(t, "globex"), 50*time.Millisecond)
	defer cancel()
	err = s.DB.QueryRow(short, sleep).Scan(&text)
	wantRefusal(t, err, tenantdb.ErrTimeout, fault.DeadlineExceeded, fault.ReasonDeadlineTooShort)
	wantTitles(s.In(t, "globex"), t, s.DB, "globex one")
}

//nolint:gochecknoglobals // statements are constants
var star = tenantdb.Stmt(`SELECT * FROM app.note WHERE id = 1`) //rowlint:ignore Q8 the columns are what changes

// A migration changes a table under prepared statements: the next call finds out and goes on.
func migrationUnderStatements(t *testing.T, s *subject) {
	t.Helper()
	ctx := s.In(t, "acme")
	columns := func() int {
		t.Helper()
		rows, err := s.DB.Query(ctx, star)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		return len(rows.FieldDescriptions())
	}
	before := columns()
	for range 5 { // a pooler may have several
		if n := columns(); n != before {
			t.Fatalf("%d columns, then %d", before, n)
		}
	}
	files := migrations()
	files["0003_body.sql"] = &fstest.MapFile{Data: []byte("ALTER TABLE app.note ADD body text")}
	s.Migrate(t, "acme", files)
	for range 5 {
		if n := columns(); n != before+1 {
			t.Errorf("%d columns after the migration, want %d", n, before+1)
		}
	}
	wantTitles(s.In(t, "globex"), t, s.DB, "globex one")
}
