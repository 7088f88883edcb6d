package dbtest

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// Comparison is what a point read costs through tenantdb and through plain pgx.
type Comparison struct {
	// Plain is the median of pgxpool's autocommit read with WHERE tenant_id.
	Plain time.Duration
	// Sealed is the median of [tenantdb.DB.QueryRow] without it.
	Sealed time.Duration
	// Ratio is the median of the ratios of neighbouring rounds.
	Ratio float64
	// RoundTrips is how often a sealed read waited for the server, counted on the wire.
	RoundTrips int
}

const comparedSchema = `CREATE TABLE app.note (
	tenant_id uuid NOT NULL DEFAULT rowhouse.tenant_id(), id int NOT NULL, title text NOT NULL, PRIMARY KEY (tenant_id, id))`

const (
	comparedRows    = 10_000
	comparedTenants = 1_000
	readsPerRound   = 100
)

const (
	readSealed = `SELECT title FROM app.note WHERE id = $1`
	readPlain  = `SELECT title FROM plain.note WHERE tenant_id = $1 AND id = $2`
)

// ComparePointRead measures both kinds of read in one run, round by round in turn, over one
// warm connection each, on the database's socket. The tenant is one of a thousand.
func ComparePointRead(tb testing.TB, rounds int) Comparison {
	tb.Helper()
	turns := &turns{}
	d := New(tb, Migrations(fstest.MapFS{"0001_note.sql": {Data: []byte(comparedSchema)}}), Configure(func(c *tenantdb.Config) {
		to := c.Cells[tenanttest.Cell]
		to.MaxConns, to.Dial = 1, turns.dial
		c.Cells[tenanttest.Cell] = to
	}))
	uid := d.Tenant(tb, "acme").UID
	plain := d.plainCopy(tb, [16]byte(uid))

	id, title := 0, ""
	sealed := tenantdb.Stmt(readSealed) //rowlint:ignore G2 the table is this comparison's own, made above
	sealedRead := func(acme context.Context) error { return d.DB.QueryRow(acme, sealed, id).Scan(&title) }
	plainRead := func(acme context.Context) error {
		return plain.QueryRow(acme, readPlain, [16]byte(uid), id).Scan(&title)
	}
	round := func(read func(context.Context) error) time.Duration {
		acme := d.In(tb, "acme") // contexts are short
		start := time.Now()
		for range readsPerRound {
			id = id%comparedRows + 1
			must(tb, read(acme))
		}
		return time.Since(start) / readsPerRound
	}
	round(plainRead) // warms caches and plans
	round(sealedRead)
	turns.take()
	must(tb, sealedRead(d.In(tb, "acme")))
	result := Comparison{RoundTrips: turns.take()}
	var plains, sealeds []time.Duration
	var ratios []float64
	for range rounds {
		p, s := round(plainRead), round(sealedRead)
		plains, sealeds, ratios = append(plains, p), append(sealeds, s), append(ratios, float64(s)/float64(p))
	}
	result.Plain, result.Sealed, result.Ratio = median(plains), median(sealeds), median(ratios)
	return result
}

// plainCopy fills the tenant's table and makes one without row security beside it.
func (d *Database) plainCopy(tb testing.TB, uid [16]byte) *pgxpool.Pool {
	tb.Helper()
	for sql, n := range map[string]int{
		`INSERT INTO app.note SELECT $1, n, 'title ' || n FROM generate_series(1, $2) n`: comparedRows,
		`INSERT INTO rowhouse.placement (tenant_id, state, generation)
			SELECT md5($1::uuid::text || n)::uuid, 'active', 1 FROM generate_series(1, $2) n`: comparedTenants,
	} {
		_, err := d.Admin.Exec(tb.Context(), sql, uid, n)
		must(tb, err)
	}
	for _, sql := range []string{
		`CREATE SCHEMA plain`, `CREATE TABLE plain.note AS SELECT * FROM app.note`,
		`ALTER TABLE plain.note ADD PRIMARY KEY (tenant_id, id)`,
		`GRANT USAGE ON SCHEMA plain TO rowhouse_app`, `GRANT SELECT ON plain.note TO rowhouse_app`, `VACUUM ANALYZE`,
	} {
		_, err := d.Admin.Exec(tb.Context(), sql)
		must(tb, err)
	}
	//rowlint:ignore G6 the peer of the comparison is plain pgx
	config, err := pgxpool.ParseConfig(d.Config.Cells[tenanttest.Cell].DSN)
	must(tb, err)
	config.MaxConns = 1
	pool, err := pgxpool.NewWithConfig(tb.Context(), config)
	must(tb, err)
	tb.Cleanup(pool.Close)
	return pool
}

func median[T time.Duration | float64](of []T) T {
	slices.Sort(of)
	return of[len(of)/2]
}

// turns counts round trips: a read that follows a write.
type turns struct {
	mu    sync.Mutex
	wrote bool // guarded by mu
	n     int  // guarded by mu
}

func (t *turns) note(write bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !write && t.wrote {
		t.n++
	}
	t.wrote = write
}

func (t *turns) take() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.n
	t.n = 0
	return n
}

func (t *turns) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return turnsConn{conn, t}, nil
}

type turnsConn struct {
	net.Conn
	turns *turns
}

func (c turnsConn) Write(b []byte) (int, error) { c.turns.note(true); return c.Conn.Write(b) }

func (c turnsConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.turns.note(false)
	}
	return n, err
}
