package pools

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

const (
	app      = "fleet"
	template = "fleet_template"
)

var (
	migrations = fstest.MapFS{"0001_note.sql": {Data: []byte(`CREATE TABLE app.note (
		tenant_id uuid NOT NULL DEFAULT rowhouse.tenant_id(), id int NOT NULL, PRIMARY KEY (tenant_id, id));`)}}

	where = tenantdb.Stmt(`SELECT current_database()::text`)
	note  = tenantdb.Stmt(`INSERT INTO app.note (id) VALUES ($1) ON CONFLICT (tenant_id, id) DO NOTHING`)
	hold  = tenantdb.Stmt(`SELECT FROM pg_sleep(0.005)`)
	many  = tenantdb.Stmt(`SELECT current_database()::text FROM generate_series(1, 5000)`)
)

// load is how much a test does.
type load struct {
	tenants  int // each with a database of its own
	backends int // the budget
	clients  int
	calls    int
}

// TestFewBackendsServeManyDatabases has every client at a random tenant's database. The
// server refuses the role one connection more than the budget, so exceeding it for an instant
// fails a call; each answer tells the database that it came from. One call in twenty forgets its rows,
// and another one leaves in the middle. What is refused for want of time, as on a busy machine, is repeated.
func TestFewBackendsServeManyDatabases(t *testing.T) {
	t.Parallel()
	l := load{tenants: 40, backends: 6, clients: 24, calls: 600}
	if os.Getenv("ROWHOUSE_TEST_LONG") != "" {
		l = load{tenants: 2000, backends: 40, clients: 100, calls: 20_000}
	}
	f := build(t, l)
	db := f.open(t, l.backends)
	ctx, stop := context.WithCancel(t.Context())
	var sampler sync.WaitGroup
	var most, samples int
	sampler.Go(func() { most, samples = f.sample(ctx, t) })

	began := time.Now()
	var left, refused atomic.Int64
	left.Store(int64(l.calls))
	var clients sync.WaitGroup
	for client := range l.clients {
		random := rand.New(rand.NewPCG(7, uint64(client))) // the same at each run
		clients.Go(func() {
			for left.Add(-1) >= 0 {
				n, err := f.patiently(t, db, l.pick(random), random)
				refused.Add(n)
				switch {
				case tooMany(err):
					t.Error("the server saw more than the budget:", err)
				case err != nil:
					t.Error(err)
					return
				}
			}
		})
	}
	clients.Wait()
	took := time.Since(began)
	stop()
	sampler.Wait()
	st := db.Stats()[0]
	for tick := time.NewTicker(time.Millisecond); st.Open != st.Idle && time.Since(began) < took+10*time.Second; st = db.Stats()[0] {
		<-tick.C // a read ends without its caller
	}
	t.Logf("%d databases, %d backends, %d clients: %d calls in %s, %d refused; at most %d backends in %d samples; opened %d, evicted %d",
		l.tenants, l.backends, l.clients, l.calls, took.Round(time.Millisecond), refused.Load(), most, samples, st.Opened, st.Evicted)
	if most > l.backends || samples == 0 {
		t.Errorf("%d backends in %d samples, want at most %d", most, samples, l.backends)
	}
	if st.Open > l.backends || st.Waiting > 0 || st.Open != st.Idle {
		t.Errorf("afterwards: %+v", st)
	}
}

// tooMany reports whether the server refused a connection, by the role's limit.
func tooMany(err error) bool {
	told, ok := errors.AsType[*pgconn.PgError](err)
	return ok && told.Code == "53300"
}

// pick takes one of a few busy tenants in half of the cases.
func (l load) pick(random *rand.Rand) int {
	if random.IntN(2) == 0 {
		return random.IntN(l.backends)
	}
	return random.IntN(l.tenants)
}

// fleet is a server with a database for each tenant.
type fleet struct {
	server *pgserver.Server
	issuer *tenanttest.Issuer
}

// build makes the databases, copies of one that holds the key and all placements.
func build(t *testing.T, l load) *fleet {
	t.Helper()
	dir, err := os.MkdirTemp("", "rowhouse-pools-") //nolint:usetesting // a socket wants a short path, and its user a way in
	must(t, err)
	must(t, os.Chmod(dir, 0o711)) // PostgreSQL may run as another user
	f := &fleet{issuer: tenanttest.NewIssuer(t, nil)}
	f.issuer.SetModel(tenant.ModelDatabase)
	f.server, err = pgserver.Start(t.Context(), pgserver.Options{Dir: filepath.Join(dir, "pg"), MaxConnections: l.backends + 10})
	must(t, err)
	t.Cleanup(func() {
		must(t, f.server.Stop(context.WithoutCancel(t.Context())))
		must(t, os.RemoveAll(dir))
	})
	admin := f.admin(t, "")
	_, err = admin.Exec(t.Context(), "CREATE DATABASE "+template)
	must(t, err)
	f.fill(t, l)
	began := time.Now()
	for i := range l.tenants {
		name := pgx.Identifier{f.database(t, i)}.Sanitize()
		for _, sql := range []string{
			"CREATE DATABASE " + name + " TEMPLATE " + template + " STRATEGY file_copy",
			"REVOKE ALL ON DATABASE " + name + " FROM PUBLIC",
			"GRANT CONNECT ON DATABASE " + name + " TO " + cell.AppRole(app),
		} {
			_, err := admin.Exec(t.Context(), sql)
			must(t, err)
		}
	}
	t.Logf("made %d databases in %s", l.tenants, time.Since(began).Round(time.Millisecond))
	return f
}

// fill makes the template.
func (f *fleet) fill(t *testing.T, l load) {
	t.Helper()
	ctx, conn := t.Context(), f.admin(t, template)
	defer conn.Close(ctx) // a database in use is no template
	must(t, cell.Init(ctx, conn, cell.Config{App: app, Connections: l.backends}))
	must(t, cell.Migrate(ctx, conn, migrations))
	must(t, cell.InstallKey(ctx, conn, cell.Key{
		ID: tenanttest.SealKID, Cell: tenanttest.CellNumber, Secret: f.issuer.SealKey(), NotAfter: time.Now().Add(time.Hour),
	}))
	for i := range l.tenants {
		must(t, cell.SetPlacement(ctx, conn, cell.Placement{UID: f.issuer.Tenant(t, tenantOf(i)).UID, State: cell.Active, Generation: 1}))
	}
}

func tenantOf(i int) string { return fmt.Sprintf("tenant-%d", i) }

func (f *fleet) database(t *testing.T, i int) string {
	t.Helper()
	return cell.DatabaseName(app, f.issuer.Tenant(t, tenantOf(i)).UID)
}

// admin logs in as superuser.
func (f *fleet) admin(t *testing.T, database string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), f.server.DSN(pgserver.Login{Database: database}))
	must(t, err)
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

func (f *fleet) open(t *testing.T, backends int) *tenantdb.DB {
	t.Helper()
	dsn := f.server.DSN(pgserver.Login{User: cell.AppRole(app), Database: template})
	db, err := tenantdb.Open(t.Context(), tenantdb.Config{
		App: app, Cells: map[string]tenantdb.Cell{tenanttest.Cell: {DSN: dsn, MaxConns: int32(backends)}},
	})
	must(t, err)
	t.Cleanup(db.Close)
	return db
}

// patiently calls until it is not refused, and gives up after a minute. It tells how often it was.
func (f *fleet) patiently(t *testing.T, db *tenantdb.DB, i int, random *rand.Rand) (refused int64, err error) {
	t.Helper()
	for began := time.Now(); ; refused++ {
		err = f.call(t, db, i, random)
		if !errors.Is(err, tenantdb.ErrAdmission) || tooMany(err) || time.Since(began) > time.Minute {
			return refused, err
		}
	}
}

// call does something for a tenant, and sees that it was done in its database.
func (f *fleet) call(t *testing.T, db *tenantdb.DB, i int, random *rand.Rand) error {
	t.Helper()
	ctx, want := f.issuer.In(t.Context(), t, tenantOf(i)), f.database(t, i)
	switch random.IntN(20) {
	case 0:
		return forget(ctx, db)
	case 1:
		return leave(ctx, db, time.Duration(random.IntN(8000))*time.Microsecond)
	}
	check := func(row *tenantdb.Row) error {
		var got string
		if err := row.Scan(&got); err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("%s was served from %s, want %s", tenantOf(i), got, want)
		}
		return nil
	}
	if random.IntN(4) > 0 {
		return check(db.QueryRow(ctx, where))
	}
	return db.Tx(ctx, func(tx *tenantdb.Tx) error {
		_, err := tx.Exec(ctx, note, random.IntN(100))
		if err == nil {
			_, err = tx.Exec(ctx, hold)
		}
		if err != nil {
			return err
		}
		return check(tx.QueryRow(ctx, where))
	})
}

// forget leaves the rows of a transaction open, which costs the connection and not its place.
func forget(ctx context.Context, db *tenantdb.DB) error {
	err := db.Tx(ctx, func(tx *tenantdb.Tx) error {
		rows, err := tx.Query(ctx, many)
		if err == nil {
			rows.Next()
		}
		return err
	})
	if errors.Is(err, tenantdb.ErrBusy) {
		return nil
	}
	return fmt.Errorf("rows that were left open: %w", err)
}

// leave gives a call up after that time: it may wait for a slot or for room, connect, or be in the
// middle of a statement or of rows.
func leave(ctx context.Context, db *tenantdb.DB, after time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	timer := time.AfterFunc(after, cancel)
	defer timer.Stop()
	err := db.Tx(ctx, func(tx *tenantdb.Tx) error {
		if _, err := tx.Exec(ctx, hold); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, many)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
		}
		return rows.Err()
	})
	cancel()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// sample counts the app's backends again and again until the context ends.
func (f *fleet) sample(ctx context.Context, t *testing.T) (most, samples int) {
	t.Helper()
	conn := f.admin(t, "")
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	for ; ctx.Err() == nil; <-pace.C {
		var n int
		const sql = `SELECT count(*)::int FROM pg_stat_activity WHERE usename = $1`
		if err := conn.QueryRow(t.Context(), sql, cell.AppRole(app)).Scan(&n); err != nil {
			t.Error(err)
			return most, samples
		}
		most, samples = max(most, n), samples+1
	}
	return most, samples
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
