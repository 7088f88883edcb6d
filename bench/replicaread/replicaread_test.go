package replicaread_test

import (
	"context"
	"os"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/bench/measure"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const table = `CREATE TABLE app.note (
	tenant_id uuid NOT NULL DEFAULT rowhouse.tenant_id(), id int NOT NULL, n int NOT NULL, PRIMARY KEY (tenant_id, id))`

const (
	addNote = `INSERT INTO app.note (id, n) VALUES (1, 0)`
	setNote = `UPDATE app.note SET n = $1 WHERE id = 1`
	getNote = `SELECT n FROM app.note WHERE id = 1`
)

var add, set, get = tenantdb.Stmt(addNote), tenantdb.Stmt(setNote), tenantdb.Stmt(getNote)

// bench reads the one row in three ways.
type bench struct {
	*dbtest.Database
	naive *pgx.Conn
	n     int // what was written last
}

func open(tb testing.TB) *bench {
	tb.Helper()
	b := &bench{Database: dbtest.New(tb, dbtest.On(pgtest.Pair(tb)),
		dbtest.Migrations(fstest.MapFS{"0001_note.sql": {Data: []byte(table)}}),
		dbtest.Configure(func(c *tenantdb.Config) { c.SoleWriter = true }))}
	_, err := b.DB.Exec(b.In(tb, "acme"), add)
	must(tb, err)
	b.naive, err = pgx.Connect(tb.Context(), b.Config.Cells[tenanttest.Cell].Replicas[0].DSN)
	must(tb, err)
	tb.Cleanup(func() { _ = b.naive.Close(context.WithoutCancel(tb.Context())) })
	for b.DB.Stats()[0].FromReplica == 0 { // until the replica is known
		_, err := b.gated(b.In(tb, "acme"))
		must(tb, err)
	}
	_, err = b.bare(b.In(tb, "acme"))
	must(tb, err)
	return b
}

func (b *bench) gated(ctx context.Context) (n int, err error) {
	err = b.DB.ReadTx(ctx, func(tx *tenantdb.Tx) error { return tx.QueryRow(ctx, get).Scan(&n) })
	return n, err
}

func (b *bench) primary(ctx context.Context) (n int, err error) {
	err = b.DB.ReadTx(ctx, func(tx *tenantdb.Tx) error { return tx.QueryRow(ctx, get).Scan(&n) }, tenantdb.Primary())
	return n, err
}

func (b *bench) bare(ctx context.Context) (n int, err error) {
	tc, err := tenant.FromContext(ctx)
	if err != nil {
		return 0, err
	}
	seal := tc.Seal()
	batch := &pgx.Batch{}
	batch.Queue("SELECT rowhouse.enter($1)", seal[:])
	batch.Queue(getNote).QueryRow(func(row pgx.Row) error { return row.Scan(&n) })
	return n, b.naive.SendBatch(ctx, batch).Close()
}

// BenchmarkReplicaRead reads in all ways, in turns. Run it once: -benchtime=1x.
func BenchmarkReplicaRead(b *testing.B) {
	const rounds, reads = 21, 100
	h := open(b)
	b.ReportMetric(0, "ns/op") // the sum over all rounds says nothing
	var idle, primary, naiveIdle, after, naiveAfter []float64
	for range rounds {
		idle = append(idle, measure.Median(h.read(b, h.gated, reads)))
		primary = append(primary, measure.Median(h.read(b, h.primary, reads)))
		naiveIdle = append(naiveIdle, measure.Median(h.read(b, h.bare, reads)))
	}
	served := h.DB.Stats()[0].FromReplica
	stale, staleNaive := 0, 0
	for range rounds {
		took, old := h.readAfterWrite(b, h.gated, reads)
		after, stale = append(after, measure.Median(took)), stale+old
		took, old = h.readAfterWrite(b, h.bare, reads)
		naiveAfter, staleNaive = append(naiveAfter, measure.Median(took)), staleNaive+old
	}
	b.ReportMetric(measure.Median(measure.Ratios(idle, primary)), "ratio")
	b.ReportMetric(measure.Median(idle), "µs-idle")
	b.ReportMetric(measure.Median(primary), "µs-primary")
	b.ReportMetric(measure.Median(naiveIdle), "µs-naive-idle")
	b.ReportMetric(measure.Median(after), "µs-after")
	b.ReportMetric(measure.Median(naiveAfter), "µs-naive-after")
	b.ReportMetric(rounds*reads, "pairs")
	b.ReportMetric(float64(h.DB.Stats()[0].FromReplica-served), "served")
	b.ReportMetric(float64(stale), "stale")
	b.ReportMetric(float64(staleNaive), "stale-naive")
}

// TestAllRead keeps the benchmark compiled.
func TestAllRead(t *testing.T) {
	t.Parallel()
	h := open(t)
	for _, read := range []func(context.Context) (int, error){h.gated, h.primary, h.bare} {
		h.read(t, read, 1)
	}
	if _, stale := h.readAfterWrite(t, h.gated, 20); stale > 0 {
		t.Errorf("%d of 20 reads were stale", stale)
	}
}

// read returns how many microseconds each of n reads takes.
func (b *bench) read(tb testing.TB, read func(context.Context) (int, error), n int) (took []float64) {
	tb.Helper()
	acme := b.In(tb, "acme") // contexts are short
	for range n {
		start := time.Now()
		_, err := read(acme)
		took = append(took, float64(time.Since(start).Nanoseconds())/1000)
		must(tb, err)
	}
	return took
}

// readAfterWrite does so right after a commit each, and counts the answers from before it.
func (b *bench) readAfterWrite(tb testing.TB, read func(context.Context) (int, error), n int) (took []float64, stale int) {
	tb.Helper()
	acme := b.In(tb, "acme")
	for range n {
		b.n++
		_, err := b.DB.Exec(acme, set, b.n)
		must(tb, err)
		start := time.Now()
		got, err := read(acme)
		took = append(took, float64(time.Since(start).Nanoseconds())/1000)
		must(tb, err)
		if got != b.n {
			stale++
		}
	}
	return took, stale
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
