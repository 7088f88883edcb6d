package tenantdb_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
)

// kill ends the sessions of the app and waits until they are gone.
func kill(tb testing.TB, d *dbtest.Database) {
	tb.Helper()
	_, err := d.Admin.Exec(tb.Context(), `SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity
WHERE datname = current_database() AND usename LIKE 'rowhouse_app%'`)
	if err != nil {
		tb.Fatal(err)
	}
}

// line is a network that breaks when it is told to.
type line struct {
	mu     sync.Mutex
	dead   bool // guarded by mu; answers do not come, on connections that are there
	broken sync.Map
}

type brokenConn struct {
	net.Conn
	line *line
}

func (l *line) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &brokenConn{conn, l}, nil
}

// cut loses the next answer, and the connection with it.
func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = true
}

func (c *brokenConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.line.mu.Lock()
	defer c.line.mu.Unlock()
	if c.line.dead {
		c.line.dead = false
		c.line.broken.Store(c, nil)
	}
	return n, err
}

func (c *brokenConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if _, broken := c.line.broken.Load(c); broken {
		return 0, io.EOF
	}
	return n, err
}

// A session that ended while nobody used it is replaced, whichever call finds out.
func TestLostWhileIdle(t *testing.T) {
	t.Parallel()
	d := notes(t)
	ctx := d.In(t, "acme")
	none := tenantdb.Stmt(`UPDATE app.note SET title = title WHERE false`)
	for name, call := range map[string]func() error{
		"Query": func() error { _, err := titles(ctx, d.DB); return err },
		"Exec":  func() error { _, err := d.DB.Exec(ctx, none); return err },
		"Batch": func() error { return d.DB.Batch(ctx, batchOf(none, none)) },
		"Tx": func() error {
			return d.DB.Tx(ctx, func(tx *tenantdb.Tx) error { _, err := tx.Exec(ctx, none); return err })
		},
	} {
		// Several lie idle, and all are gone: the second try must not take another of them.
		var open []*tenantdb.Rows
		for range 3 {
			rows, err := d.DB.Query(ctx, allNotes)
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, rows)
		}
		for _, rows := range open {
			rows.Close()
		}
		kill(t, d)
		if err := call(); err != nil {
			t.Errorf("%s after the sessions ended: %v", name, err)
		}
	}
}

func TestLostInTx(t *testing.T) {
	t.Parallel()
	d := notes(t)
	ctx := d.In(t, "acme")
	second := func(tx *tenantdb.Tx) error {
		if _, err := tx.Exec(ctx, renameAll); err != nil {
			return err
		}
		kill(t, d)
		_, err := tx.Exec(ctx, renameAll)
		return err
	}
	wantRefusal(t, d.DB.Tx(ctx, second), tenantdb.ErrUnreachable, fault.Unavailable, "CELL_UNREACHABLE")
	batch := func(tx *tenantdb.Tx) error {
		if _, err := tx.Exec(ctx, renameAll); err != nil {
			return err
		}
		kill(t, d)
		return tx.Batch(ctx, batchOf(renameAll))
	}
	wantRefusal(t, d.DB.Tx(ctx, batch), tenantdb.ErrUnreachable, fault.Unavailable, "CELL_UNREACHABLE")
	commit := func(tx *tenantdb.Tx) error {
		_, err := tx.Exec(ctx, renameAll)
		kill(t, d)
		return err
	}
	// The connection is known to be gone before COMMIT is sent.
	wantRefusal(t, d.DB.Tx(ctx, commit), tenantdb.ErrUnreachable, fault.Unavailable, "CELL_UNREACHABLE")
	wantTitles(ctx, t, d.DB, "acme one", "acme two")
}

// Behind the prologue nobody knows: the statement commits itself.
func TestLostInFlight(t *testing.T) {
	t.Parallel()
	l := &line{}
	d := notes(t, dbtest.Configure(oneConnection), dbtest.Configure(func(c *tenantdb.Config) {
		for name, to := range c.Cells {
			to.Dial = l.dial
			c.Cells[name] = to
		}
	}))
	ctx := d.In(t, "acme")
	want := []string{"acme one", "acme two"}
	for name, call := range map[string]func() error{
		"Exec":  func() error { _, err := d.DB.Exec(ctx, renameAll); return err },
		"Batch": func() error { return d.DB.Batch(ctx, batchOf(renameAll)) },
		"Query": func() error {
			rows, err := d.DB.Query(ctx, renameAll)
			if err == nil {
				rows.Close()
				err = rows.Err()
			}
			return err
		},
	} {
		if err := call(); err != nil { // prepares
			t.Fatal(err)
		}
		l.cut()
		wantRefusal(t, call(), tenantdb.ErrOutcome, fault.Unavailable, fault.ReasonOutcomeUnknown)
		for i := range want {
			want[i] += "!!" // it did happen, once
		}
		wantTitles(ctx, t, d.DB, want...)
		if t.Failed() {
			t.Fatalf("%s", name)
		}
	}
	// BEGIN was sent, no commit: a second try is safe.
	l.cut()
	err := d.DB.Tx(ctx, func(tx *tenantdb.Tx) error { _, err := tx.Exec(ctx, renameAll); return err })
	if err != nil {
		t.Errorf("Tx whose first answer was lost: %v", err)
	}
	wantTitles(ctx, t, d.DB, want[0]+"!", want[1]+"!")
	// COMMIT was sent.
	err = d.DB.Tx(ctx, func(tx *tenantdb.Tx) error {
		_, err := tx.Exec(ctx, renameAll)
		l.cut()
		return err
	})
	wantRefusal(t, err, tenantdb.ErrOutcome, fault.Unavailable, fault.ReasonOutcomeUnknown)
	// A read had all its answers before.
	err = d.DB.ReadTx(ctx, func(tx *tenantdb.Tx) error {
		rows, err := tx.Query(ctx, allNotes)
		if err == nil {
			rows.Close()
			err = rows.Err()
		}
		l.cut()
		return err
	})
	if err != nil {
		t.Errorf("ReadTx whose end was lost: %v", err)
	}
}

// The session ends while the statement runs.
func TestKilledInFlight(t *testing.T) {
	t.Parallel()
	d := notes(t)
	ctx := d.In(t, "acme")
	lock, err := d.Admin.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Rollback(t.Context()) }()
	if _, err := lock.Exec(t.Context(), "SELECT FROM app.note FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	answer := make(chan error)
	go func() { _, err := d.DB.Exec(ctx, renameAll); answer <- err }()
	for waiting := false; !waiting; {
		err := d.Admin.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity
WHERE datname = current_database() AND usename LIKE 'rowhouse_app%' AND wait_event_type = 'Lock')`).Scan(&waiting)
		if err != nil {
			t.Fatal(err)
		}
	}
	kill(t, d)
	wantRefusal(t, <-answer, tenantdb.ErrOutcome, fault.Unavailable, fault.ReasonOutcomeUnknown)
}

// Errors that a function brings from elsewhere are not the connection's.
func TestErrorsOfFunctionsAreTheirOwn(t *testing.T) {
	t.Parallel()
	d := notes(t)
	ctx := d.In(t, "acme")
	var b tenantdb.Batch
	b.Query(func(*tenantdb.Rows) error { return io.EOF }, allNotes)
	for name, err := range map[string]error{
		"Batch":    d.DB.Batch(ctx, &b),
		"Tx":       d.DB.Tx(ctx, func(*tenantdb.Tx) error { return &net.OpError{Op: "read", Err: io.EOF} }),
		"Tx.Batch": d.DB.Tx(ctx, func(tx *tenantdb.Tx) error { return tx.Batch(ctx, &b) }),
	} {
		if errors.Is(err, tenantdb.ErrUnreachable) || errors.Is(err, tenantdb.ErrOutcome) || err == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
