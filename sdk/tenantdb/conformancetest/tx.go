package conformancetest

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
)

func allOrNothing(t *testing.T, s *subject) {
	t.Helper()
	ctx := s.In(t, "acme")
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
			var first, second tenantdb.Batch
			first.Exec(addNote, 14, "e")
			first.Exec(addNote, 15, "f")
			second.Exec(dropNote, 14)
			return errors.Join(tx.Batch(ctx, &first), tx.Batch(ctx, &second))
		}, nil, 5},
	} {
		if err := s.DB.Tx(ctx, test.fn); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
		if n := count(ctx, t, s.DB); n != test.rows {
			t.Errorf("%s: %d rows, want %d", test.name, n, test.rows)
		}
	}
}

func panicRollsBack(t *testing.T, s *subject) {
	t.Helper()
	ctx := s.In(t, "acme")
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_ = s.DB.Tx(ctx, func(tx *tenantdb.Tx) error {
			_, err := tx.Exec(ctx, addNote, 16, "g")
			panic(err)
		})
	}()
	wantTitles(ctx, t, s.DB, "acme one", "acme two")
}

// A caller that goes away in the middle of a statement leaves nothing, and no harm to the next.
func cancelRollsBack(t *testing.T, s *subject) {
	t.Helper()
	started := make(chan struct{}, 1)
	config := s.Config
	config.Tracer = queries{func() { started <- struct{}{} }}
	db := s.Open(t, config)
	ctx, cancel := context.WithCancel(s.In(t, "acme"))
	defer cancel()
	go func() {
		<-started
		cancel()
	}()
	err := db.Tx(ctx, func(tx *tenantdb.Tx) error {
		if _, err := tx.Exec(ctx, addNote, 17, "h"); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, sleep)
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled statement: %v", err)
	}
	wantTitles(s.In(t, "acme"), t, s.DB, "acme one", "acme two")
	if _, err := titles(ctx, s.DB); !errors.Is(err, context.Canceled) {
		t.Errorf("a statement after the end of its context: %v", err)
	}
}

// queries is a tracer that tells of statements inside a transaction.
type queries struct{ started func() }

func (q queries) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if data.SQL == sleep.String() {
		q.started()
	}
	return ctx
}
func (queries) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func readCannotWrite(t *testing.T, s *subject) {
	t.Helper()
	ctx := s.In(t, "acme")
	err := s.DB.ReadTx(ctx, func(tx *tenantdb.Tx) error { _, err := tx.Exec(ctx, dropNotes); return err })
	if state(err) != "25006" {
		t.Errorf("write in ReadTx: %v, want SQLSTATE 25006", err)
	}
	var title string
	err = s.DB.ReadTx(ctx, func(tx *tenantdb.Tx) error { return tx.QueryRow(ctx, getNote, 2).Scan(&title) })
	if title != "acme two" || err != nil {
		t.Errorf("read %q, %v", title, err)
	}
}

func batchIsOne(t *testing.T, s *subject) {
	t.Helper()
	ctx := s.In(t, "acme")
	var got []string
	var b tenantdb.Batch
	b.Exec(addNote, 3, "third")
	b.Query(func(rows *tenantdb.Rows) (err error) {
		got, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	}, allNotes)
	if err := s.DB.Batch(ctx, &b); err != nil {
		t.Fatal(err)
	}
	if want := []string{"acme one", "acme two", "third"}; !slices.Equal(got, want) {
		t.Errorf("batch read %q, want %q", got, want)
	}
	var failing tenantdb.Batch
	failing.Exec(addNote, 4, "fourth")
	failing.Exec(addNote, 4, "fourth")
	if err := s.DB.Batch(ctx, &failing); !tenantdb.IsUniqueViolation(err) {
		t.Errorf("failing batch: %v", err)
	}
	if n := count(ctx, t, s.DB); n != 3 {
		t.Errorf("%d rows after a failing batch, want 3", n)
	}
	if err := s.DB.Batch(ctx, &tenantdb.Batch{}); !errors.Is(err, tenantdb.ErrVerb) {
		t.Errorf("empty batch: %v", err)
	}
}

func misuse(t *testing.T, s *subject) {
	t.Helper()
	acme, globex := s.In(t, "acme"), s.In(t, "globex")
	var kept *tenantdb.Tx
	err := s.DB.Tx(acme, func(tx *tenantdb.Tx) error {
		kept = tx //rowlint:ignore G5 the mistake is the test's
		if _, err := tx.Exec(globex, dropNotes); !errors.Is(err, tenantdb.ErrTenantChanged) {
			t.Errorf("context of another tenant: %v", err)
		}
		if _, err := tx.Exec(t.Context(), dropNotes); !errors.Is(err, tenantdb.ErrNoContext) { //nolint:contextcheck // one without a tenant
			t.Errorf("no context: %v", err)
		}
		if err := s.DB.Tx(acme, func(*tenantdb.Tx) error { return nil }); !errors.Is(err, tenantdb.ErrNested) {
			t.Errorf("nested Tx: %v", err)
		}
		if _, err := s.DB.Query(acme, allNotes); !errors.Is(err, tenantdb.ErrNested) {
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
		//rowlint:ignore G5 the mistake is the test's
		go func() { _, err := tx.Query(acme, allNotes); fromOther <- err }()
		if err := <-fromOther; !errors.Is(err, tenantdb.ErrBusy) {
			t.Errorf("second goroutine: %v", err)
		}
		// Another goroutine may have a transaction of its own.
		go func() { _, err := titles(acme, s.DB); fromOther <- err }()
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
	err = s.DB.Tx(acme, func(tx *tenantdb.Tx) error { _, err := tx.Query(acme, allNotes); return err })
	if !errors.Is(err, tenantdb.ErrBusy) {
		t.Errorf("return with open rows: %v", err)
	}
	for _, arg := range []any{pgx.QueryExecModeSimpleProtocol, pgx.NamedArgs{}, pgx.QueryResultFormats{0}} {
		if _, err := s.DB.Query(acme, allNotes, arg); !errors.Is(err, tenantdb.ErrArgument) {
			t.Errorf("argument %T: %v", arg, err)
		}
	}
	wantTitles(acme, t, s.DB, "acme one", "acme two")
}

func retries(t *testing.T, s *subject) {
	t.Helper()
	ctx := s.In(t, "acme")
	run := func(options ...tenantdb.TxOption) (tries int, err error) {
		err = s.DB.Tx(ctx, func(tx *tenantdb.Tx) error {
			tries++
			if n := 0; tries == 1 {
				if err := tx.QueryRow(ctx, countNotes).Scan(&n); err != nil {
					return err
				}
				done := make(chan error)
				go func() { _, err := s.DB.Exec(ctx, renameAll); done <- err }()
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
	err := s.DB.Tx(ctx, func(tx *tenantdb.Tx) error {
		tries++
		_, err := tx.Exec(ctx, addNote, 1, "again")
		return err
	}, tenantdb.Retry(3))
	if tries != 1 || !tenantdb.IsUniqueViolation(err) {
		t.Errorf("unique violation: %d tries, %v", tries, err)
	}
}
