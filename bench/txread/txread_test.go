package txread_test

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhouse-platform/rowhouse/bench/measure"
	"github.com/rowhouse-platform/rowhouse/bench/servertest"
	"github.com/rowhouse-platform/rowhouse/bench/txread"
	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// The server also listens on 127.0.0.1, which those of tests do not.
func TestMain(m *testing.M) {
	os.Exit(servertest.Main(m, pgserver.Options{TCP: pgserver.TCP{Enabled: true}}))
}

// The notes of one tenant, among a thousand tenants.
const (
	notes   = 10_000
	tenants = 1_000
)

const sealedTable = `CREATE TABLE app.note (
	tenant_id uuid NOT NULL DEFAULT rowhouse.tenant_id(), id int NOT NULL, title text NOT NULL, PRIMARY KEY (tenant_id, id))`

// peerTables hold the same rows: bare, and with the row security that one finds in most guides.
const peerTables = `
	CREATE SCHEMA plain;
	CREATE TABLE plain.note AS SELECT * FROM app.note;
	ALTER TABLE plain.note ADD PRIMARY KEY (tenant_id, id);
	CREATE SCHEMA idiom;
	CREATE TABLE idiom.note AS SELECT * FROM app.note;
	ALTER TABLE idiom.note ADD PRIMARY KEY (tenant_id, id), ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
	CREATE POLICY tenant ON idiom.note USING (tenant_id = (SELECT current_setting('app.tenant')::uuid));
	GRANT USAGE ON SCHEMA plain, idiom TO rowhouse_app, bench_idiom;
	GRANT SELECT ON plain.note, idiom.note TO rowhouse_app, bench_idiom;
	GRANT EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean) TO bench_idiom;
	DO $$ BEGIN EXECUTE format('GRANT CONNECT ON DATABASE %I TO bench_idiom', current_database()); END $$;`

// idiomRole reads with the idiom. It is a role of its own because a house takes
// set_config from its apps, and the idiom rests on it.
const idiomRole = "bench_idiom"

const password = "bench" // of a server that ends with the benchmark

const (
	readSealed = `SELECT title FROM app.note WHERE id = $1`
	readPlain  = `SELECT title FROM plain.note WHERE tenant_id = $1 AND id = $2`
	readIdiom  = `SELECT title FROM idiom.note WHERE id = $1`
	setTenant  = `SELECT set_config('app.tenant', $1, true)`
)

// BenchmarkPointRead compares over loopback, in three placements, over the socket and over a
// network of 2 ms. Run it once: -benchtime=1x.
func BenchmarkPointRead(b *testing.B) {
	const delay = time.Millisecond
	d := database(b)
	overTCP := loopback(b, d)
	near := link{dsn: overTCP, dial: (&net.Dialer{}).DialContext, rounds: 15, reads: 100}
	run := func(name string, over link) {
		b.Run(name, func(b *testing.B) {
			b.ReportMetric(0, "ns/op") // the sum over all rounds says nothing
			compare(b, d, over)
		})
	}
	far := near
	relay, err := txread.NewRelay(b.Context(), delay)
	must(b, err)
	b.Cleanup(func() { must(b, relay.Close()) })
	far.dial, far.rounds, far.reads = relay.Dial, 9, 30
	run("far", far)
	run("free", near)
	socket := near
	socket.dsn = d.Config.Cells[tenanttest.Cell].DSN
	run("socket", socket)
	cpus := measure.Processors()
	if len(cpus) < 2 {
		return
	}
	near.server, near.client = cpus[:1], cpus[1:2]
	run("apart", near)
	near.server = near.client
	run("together", near)
}

// loopback gives the roles a password and returns the app's URL over TCP.
func loopback(b *testing.B, d *dbtest.Database) string {
	b.Helper()
	var port, database string
	must(b, d.Admin.QueryRow(b.Context(), `SELECT current_setting('port'), current_database()`).Scan(&port, &database))
	for _, role := range []string{cell.AppRole(dbtest.App), idiomRole} {
		_, err := d.Admin.Exec(b.Context(), fmt.Sprintf(`ALTER ROLE %s PASSWORD '%s'`, role, password))
		must(b, err)
	}
	return fmt.Sprintf("postgres://%s:%s@127.0.0.1:%s/%s?sslmode=disable", cell.AppRole(dbtest.App), password, port, database)
}

// TestOneRoundTrip keeps the benchmark honest and compiled.
func TestOneRoundTrip(t *testing.T) {
	t.Parallel()
	d := database(t)
	want := map[string]int{"sealed": 1, "plain": 1, "idiom": 4, "tx": 2}
	for _, v := range variants(t, d, link{dsn: d.Config.Cells[tenanttest.Cell].DSN, dial: (&net.Dialer{}).DialContext}) {
		warm(t, d, v)
		if got := v.count(t, d); got != want[v.name] {
			t.Errorf("a %s read takes %d round trips, want %d", v.name, got, want[v.name])
		}
	}
}

// TestRelayDelays holds that a round trip over a relay takes at least both delays.
func TestRelayDelays(t *testing.T) {
	t.Parallel()
	const delay = 20 * time.Millisecond
	relay, err := txread.NewRelay(t.Context(), delay)
	must(t, err)
	d := dbtest.New(t)
	pool := peerPool(t, "", link{dsn: d.Config.Cells[tenanttest.Cell].DSN, dial: relay.Dial})
	must(t, pool.Ping(t.Context()))
	start := time.Now()
	must(t, pool.Ping(t.Context()))
	if took := time.Since(start); took < 2*delay {
		t.Errorf("a round trip took %s, want at least %s", took, 2*delay)
	}
	pool.Close()
	must(t, relay.Close())
}

// database makes the rows, three times.
func database(tb testing.TB) *dbtest.Database {
	tb.Helper()
	d := dbtest.New(tb, dbtest.Migrations(fstest.MapFS{"0001_note.sql": {Data: []byte(sealedTable)}}))
	acme := [16]byte(d.Tenant(tb, "acme").UID)
	for sql, n := range map[string]int{
		`INSERT INTO app.note SELECT $1, n, 'title ' || n FROM generate_series(1, $2) n`: notes,
		`INSERT INTO rowhouse.placement (tenant_id, state, generation)
			SELECT md5($1::uuid::text || n)::uuid, 'active', 1 FROM generate_series(1, $2) n`: tenants,
	} {
		_, err := d.Admin.Exec(tb.Context(), sql, acme, n)
		must(tb, err)
	}
	must(tb, pgtest.EnsureRole(tb.Context(), d.Admin, pgtest.Role{Name: idiomRole}))
	for _, sql := range []string{peerTables, `VACUUM ANALYZE`} {
		_, err := d.Admin.Exec(tb.Context(), sql, pgx.QueryExecModeSimpleProtocol)
		must(tb, err)
	}
	return d
}

// link is a way to the server, and how long to measure on it.
type link struct {
	dsn    string
	dial   pgconn.DialFunc
	rounds int
	reads  int
	// server and client are the processors of each, when they are to have their own.
	server, client []int
}

// variant is one way to read a note, over one connection of its own.
type variant struct {
	name  string
	trips *trips
	read  func(ctx context.Context, id int) error
	// next is a read of one round trip over the same connection, when read ends without its caller:
	// it begins behind that end.
	next func(ctx context.Context, id int) error
}

// variants opens all ways to read acme's notes.
func variants(tb testing.TB, d *dbtest.Database, over link) []variant {
	tb.Helper()
	acme := [16]byte(tenanttest.UID("acme"))
	sealed, plain, idiom := &trips{dial: over.dial}, &trips{dial: over.dial}, &trips{dial: over.dial}
	config := d.Config
	to := config.Cells[tenanttest.Cell]
	to.DSN, to.MaxConns, to.Dial = over.dsn, 1, sealed.Dial
	config.Cells = map[string]tenantdb.Cell{tenanttest.Cell: to}
	db := d.Open(tb, config)
	counted := func(t *trips) link { return link{dsn: over.dsn, dial: t.Dial} }
	plainPool, idiomPool := peerPool(tb, "", counted(plain)), peerPool(tb, idiomRole, counted(idiom))
	statement, title := tenantdb.Stmt(readSealed), ""
	one := func(ctx context.Context, id int) error { return db.QueryRow(ctx, statement, id).Scan(&title) }
	return []variant{
		{name: "plain", trips: plain, read: func(ctx context.Context, id int) error {
			return plainPool.QueryRow(ctx, readPlain, acme, id).Scan(&title)
		}},
		{name: "sealed", trips: sealed, read: one},
		{name: "tx", trips: sealed, next: one, read: func(ctx context.Context, id int) error {
			return db.ReadTx(ctx, func(tx *tenantdb.Tx) error { return tx.QueryRow(ctx, statement, id).Scan(&title) })
		}},
		{name: "idiom", trips: idiom, read: func(ctx context.Context, id int) error {
			return pgx.BeginFunc(ctx, idiomPool, func(tx pgx.Tx) error {
				if _, err := tx.Exec(ctx, setTenant, tenanttest.UID("acme").String()); err != nil {
					return err
				}
				return tx.QueryRow(ctx, readIdiom, id).Scan(&title)
			})
		}},
	}
}

// peerPool logs in as the role with plain pgx, and as the app without one.
func peerPool(tb testing.TB, role string, over link) *pgxpool.Pool {
	tb.Helper()
	config, err := pgxpool.ParseConfig(over.dsn)
	must(tb, err)
	config.MaxConns, config.ConnConfig.DialFunc = 1, over.dial
	config.ConnConfig.User = cmp.Or(role, config.ConnConfig.User)
	pool, err := pgxpool.NewWithConfig(tb.Context(), config)
	must(tb, err)
	tb.Cleanup(pool.Close)
	return pool
}

// compare measures all variants in turns and reports medians.
func compare(b *testing.B, d *dbtest.Database, over link) {
	b.Helper()
	all := variants(b, d, over)
	took := map[string][]float64{}
	for _, v := range all {
		warm(b, d, v)
		b.ReportMetric(float64(v.count(b, d)), "trips-"+v.name)
	}
	if over.client != nil {
		b.Cleanup(pin(b, d, over))
	}
	for range over.rounds {
		for _, v := range all {
			took[v.name] = append(took[v.name], v.round(b, d, over.reads))
		}
	}
	for name, rounds := range took {
		b.ReportMetric(measure.Median(rounds), "µs-"+name)
	}
	for _, peer := range []string{"plain", "idiom"} {
		b.ReportMetric(measure.Median(measure.Ratios(took["sealed"], took[peer])), "ratio-"+peer)
	}
	b.ReportMetric(trip(b, over), "µs-trip")
}

// pin gives the backends and this process their processors, until the returned function is called.
func pin(b *testing.B, d *dbtest.Database, over link) func() {
	b.Helper()
	rows, err := d.Admin.Query(b.Context(), `SELECT pid FROM pg_stat_activity WHERE datname = current_database()
		AND backend_type = 'client backend' AND usename <> current_user`)
	must(b, err)
	backends, err := pgx.CollectRows(rows, pgx.RowTo[int])
	must(b, err)
	before := measure.Processors()
	must(b, measure.Pin(over.server, backends...))
	must(b, measure.Pin(over.client, os.Getpid()))
	return func() { must(b, measure.Pin(before, os.Getpid())) }
}

// warm fills caches and plans.
func warm(tb testing.TB, d *dbtest.Database, v variant) {
	tb.Helper()
	const reads = 10 // the server settles on a plan after five
	v.round(tb, d, reads)
}

// round returns the µs of one read.
func (v variant) round(tb testing.TB, d *dbtest.Database, reads int) float64 {
	tb.Helper()
	acme := d.In(tb, "acme") // contexts are short
	start := time.Now()
	for i := range reads {
		must(tb, v.read(acme, 1+i*101%notes))
	}
	return float64(time.Since(start).Microseconds()) / float64(reads)
}

// count returns the round trips of one warm read.
func (v variant) count(tb testing.TB, d *dbtest.Database) int {
	tb.Helper()
	acme := d.In(tb, "acme")
	if v.next == nil {
		v.trips.take()
		must(tb, v.read(acme, 1))
		return v.trips.take()
	}
	must(tb, v.next(acme, 1))
	v.trips.take()
	must(tb, v.read(acme, 1))
	must(tb, v.next(acme, 1))
	return v.trips.take() - 1
}

// trip returns the µs of an empty round trip.
func trip(b *testing.B, over link) float64 {
	b.Helper()
	pool := peerPool(b, "", over)
	var rounds []float64
	for range over.reads {
		start := time.Now()
		must(b, pool.Ping(b.Context()))
		rounds = append(rounds, float64(time.Since(start).Nanoseconds())/1000)
	}
	return measure.Median(rounds)
}

// trips counts round trips: a read that follows a write.
type trips struct {
	dial pgconn.DialFunc

	mu    sync.Mutex
	wrote bool // guarded by mu
	n     int  // guarded by mu
}

// Dial makes a connection whose round trips are counted.
func (t *trips) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := t.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return countedConn{conn, t}, nil
}

func (t *trips) note(write bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !write && t.wrote {
		t.n++
	}
	t.wrote = write
}

func (t *trips) take() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.n
	t.n = 0
	return n
}

type countedConn struct {
	net.Conn
	trips *trips
}

func (c countedConn) Write(b []byte) (int, error) { c.trips.note(true); return c.Conn.Write(b) }

func (c countedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.trips.note(false)
	}
	return n, err
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
