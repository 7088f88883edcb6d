package tenantdb_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// The server refuses a second connection, so one that is opened before the last one's backend
// has ended fails a call.
func TestBusyConnectionsEndBeforeTheNext(t *testing.T) {
	t.Parallel()
	d := dbtest.New(t, dbtest.Model(tenant.ModelDatabase))
	ctx := d.In(t, "acme")
	db := reopen(t, d, func(_ *tenantdb.Config, cell *tenantdb.Cell) { cell.MaxConns = 1 })
	var name string
	if err := db.QueryRow(ctx, tenantdb.Stmt(`SELECT current_database()::text`)).Scan(&name); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Admin.Exec(t.Context(), "ALTER DATABASE "+pgx.Identifier{name}.Sanitize()+" CONNECTION LIMIT 1"); err != nil {
		t.Fatal(err)
	}
	many := tenantdb.Stmt(`SELECT repeat('x', 1000) FROM generate_series(1, 100000)`)
	for range 15 {
		err := db.Tx(ctx, func(tx *tenantdb.Tx) error {
			rows, err := tx.Query(ctx, many)
			if err == nil {
				rows.Next()
			}
			return err // and leaves the rows
		})
		if !errors.Is(err, tenantdb.ErrBusy) {
			t.Fatalf("Tx = %v, want ErrBusy", err)
		}
		left, leave := context.WithCancel(ctx)
		if rows, err := db.Query(left, many); err != nil {
			t.Fatal("behind a busy transaction:", err)
		} else {
			rows.Next()
			leave()
			rows.Close()
			if err := rows.Err(); !errors.Is(err, context.Canceled) || errors.Is(err, tenantdb.ErrOutcome) {
				t.Error("cancelled rows of a read:", err)
			}
		}
		var n int
		if err := db.QueryRow(ctx, one).Scan(&n); err != nil {
			t.Fatal("behind cancelled rows:", err)
		}
	}
}

// network is one whose ways the test changes.
type network struct {
	held  chan struct{} // dialling waits for it
	dials atomic.Int32
	dead  atomic.Bool // nothing gets through
}

type networkConn struct {
	net.Conn
	of *network
}

func (n *network) dial(ctx context.Context, network, address string) (net.Conn, error) {
	n.dials.Add(1)
	if n.held != nil {
		select {
		case <-n.held:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	return networkConn{conn, n}, err
}

func (c networkConn) Write(b []byte) (int, error) {
	if c.of.dead.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// A caller with less time than a connection takes leaves it to the next one.
func TestConnectionOutlivesItsCaller(t *testing.T) {
	t.Parallel()
	d := dbtest.New(t)
	ctx := d.In(t, "acme")
	n := &network{held: make(chan struct{})}
	db := reopen(t, d, func(_ *tenantdb.Config, cell *tenantdb.Cell) { cell.MaxConns, cell.Dial = 1, n.dial })
	short, cancel := context.WithTimeout(ctx, time.Second) // in which it dials, on a busy machine too
	defer cancel()
	var got int
	if err := db.QueryRow(short, one).Scan(&got); !errors.Is(err, tenantdb.ErrTimeout) {
		t.Errorf("with too little time: %v", err)
	}
	if st := db.Stats()[0]; st.Tenants != 1 || st.Open != 1 {
		t.Errorf("while the connection is on its way: %+v", st)
	}
	close(n.held)
	if err := db.QueryRow(ctx, one).Scan(&got); err != nil || n.dials.Load() != 1 {
		t.Errorf("the next call: %v, after %d dials, want 1", err, n.dials.Load())
	}
}

// Connections to a peer that vanished hold nobody longer than they have to.
func TestVanishedPeer(t *testing.T) {
	t.Parallel()
	d := dbtest.New(t)
	n := &network{}
	db := reopen(t, d, func(_ *tenantdb.Config, cell *tenantdb.Cell) { cell.MaxConns, cell.Dial = 6, n.dial })
	var open []*tenantdb.Rows
	for _, id := range []string{"acme", "globex"} {
		for range 3 {
			rows, err := db.Query(d.In(t, id), one)
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, rows)
		}
	}
	for _, rows := range open {
		rows.Close()
	}
	n.dead.Store(true)
	began := time.Now()
	db.Close()
	if took := time.Since(began); took > 20*time.Second { // one after the other would take 30
		t.Errorf("Close took %s for six connections", took)
	}
}

// A call whose connection is made at the cost of another one does not wait longer than it may.
func TestEvictionIsBounded(t *testing.T) {
	t.Parallel()
	d := dbtest.New(t, dbtest.Model(tenant.ModelDatabase))
	n := &network{}
	db := reopen(t, d, func(_ *tenantdb.Config, cell *tenantdb.Cell) { cell.MaxConns, cell.Dial = 1, n.dial })
	var got int
	if err := db.QueryRow(d.In(t, "acme"), one).Scan(&got); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(d.In(t, "globex"), 50*time.Millisecond)
	defer cancel()
	n.dead.Store(true)
	began := time.Now()
	err := db.QueryRow(short, one).Scan(&got)
	if took := time.Since(began); !errors.Is(err, tenantdb.ErrTimeout) || took > 4*time.Second { // the other one takes 5 to end
		t.Errorf("with 50 ms: %v, after %s", err, took)
	}
}

// The statement and its commit were sent together, so who leaves before the answer does not
// know what became of them.
func TestLeavingAWriteIsUnknown(t *testing.T) {
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
	for name, call := range map[string]func(context.Context) error{
		"Exec":  func(ctx context.Context) error { _, err := d.DB.Exec(ctx, renameAll); return err },
		"Batch": func(ctx context.Context) error { return d.DB.Batch(ctx, batchOf(renameAll)) },
	} {
		left, leave := context.WithCancel(ctx)
		answer := make(chan error, 1)
		go func() { answer <- call(left) }()
		waitsForLock(t, d, true)
		leave()
		err := <-answer
		wantRefusal(t, err, tenantdb.ErrOutcome, fault.Unavailable, fault.ReasonOutcomeUnknown)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s = %v, which does not say why", name, err)
		}
		waitsForLock(t, d, false)
	}
}

// waitsForLock waits until a session of the app waits for a lock, or none does.
func waitsForLock(t *testing.T, d *dbtest.Database, want bool) {
	t.Helper()
	for waits := !want; waits != want; {
		err := d.Admin.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity
WHERE datname = current_database() AND usename LIKE 'rowhouse_app%' AND wait_event_type = 'Lock')`).Scan(&waits)
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestPingOfABusyCell(t *testing.T) {
	t.Parallel()
	d := dbtest.New(t)
	db := reopen(t, d, func(_ *tenantdb.Config, cell *tenantdb.Cell) { cell.MaxConns = 1 })
	rows, err := db.Query(d.In(t, "acme"), one)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Ping(t.Context())
	wantRefusal(t, err, tenantdb.ErrAdmission, fault.ResourceExhausted, fault.ReasonOverloaded)
	if errors.Is(err, tenantdb.ErrUnreachable) {
		t.Errorf("Ping = %v", err)
	}
	rows.Close()
	db.Close()
	if err := db.Ping(t.Context()); !errors.Is(err, tenantdb.ErrClosed) || errors.Is(err, tenantdb.ErrUnreachable) {
		t.Errorf("Ping after Close = %v", err)
	}
}

// A statement whose client went without a cancel that reached it ends, and its locks with it.
func TestVanishedClientHoldsNoLocks(t *testing.T) {
	t.Parallel()
	d := dbtest.New(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // it would sleep for longer
	defer cancel()
	config, err := pgx.ParseConfig(d.Config.Cells[tenanttest.Cell].DSN)
	if err != nil {
		t.Fatal(err)
	}
	var dials atomic.Int32
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		if dials.Add(1) > 1 {
			return nil, errors.New("the cancel is lost")
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	pid, sleeping := conn.PgConn().PID(), make(chan error, 1)
	go func() { _, err := conn.Exec(context.WithoutCancel(ctx), `SELECT pg_sleep(28)`); sleeping <- err }()
	await := func(sql string) {
		t.Helper()
		for holds := false; !holds; {
			if err := d.Admin.QueryRow(ctx, sql, pid).Scan(&holds); err != nil {
				t.Fatal(err)
			}
		}
	}
	await(`SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep')`)
	if err := conn.PgConn().Conn().Close(); err != nil {
		t.Fatal(err)
	}
	await(`SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1) FROM pg_sleep(0.01)`)
	<-sleeping
}
