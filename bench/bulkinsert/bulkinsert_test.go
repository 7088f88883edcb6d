package bulkinsert_test

import (
	"encoding/binary"
	"fmt"
	"iter"
	"os"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhouse-platform/rowhouse/bench/measure"
	"github.com/rowhouse-platform/rowhouse/bench/servertest"
	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

func TestMain(m *testing.M) {
	os.Exit(servertest.Main(m, pgserver.Options{Settings: servertest.Durable()}))
}

const (
	rows   = 50_000
	rounds = 15
)

const protected = `CREATE TABLE app.item (
	tenant_id uuid NOT NULL DEFAULT rowhouse.tenant_id(), id uuid NOT NULL, title text NOT NULL, amount bigint NOT NULL,
	made timestamptz NOT NULL, PRIMARY KEY (tenant_id, id));`

const unprotected = `
	CREATE SCHEMA plain;
	CREATE TABLE plain.item (LIKE app.item INCLUDING INDEXES);
	ALTER TABLE plain.item ALTER tenant_id DROP DEFAULT;
	GRANT USAGE ON SCHEMA plain TO rowhouse_app;
	GRANT SELECT, INSERT ON plain.item TO rowhouse_app;`

var (
	into = tenantdb.Into("app.item", "id uuid", "title text", "amount bigint", "made timestamptz")
	one  = tenantdb.Stmt(`INSERT INTO app.item (id, title, amount, made) VALUES ($1, $2, $3, $4)`)
)

// BenchmarkInsert compares. Run it once: -benchtime=1x.
func BenchmarkInsert(b *testing.B) {
	b.ReportMetric(0, "ns/op") // the sum over all rounds says nothing
	d, plain := database(b)
	var ours, theirs []float64
	for round := range rounds + 1 {
		o, p := inserted(b, d, rows), copied(b, d, plain, rows)
		if round > 0 { // the first one fills caches
			ours, theirs = append(ours, o), append(theirs, p)
		}
	}
	b.ReportMetric(measure.Median(ours), "ms-rows")
	b.ReportMetric(measure.Median(theirs), "ms-copy")
	b.ReportMetric(measure.Median(measure.Ratios(ours, theirs)), "ratio")
	b.ReportMetric(batched(b, d, rows), "ms-batch")
}

// TestAllInsertTheSame keeps the comparison honest and compiled.
func TestAllInsertTheSame(t *testing.T) {
	t.Parallel()
	const few = 10
	d, plain := database(t)
	inserted(t, d, few)
	copied(t, d, plain, few)
	var same bool
	must(t, d.Admin.QueryRow(t.Context(), `SELECT count(*) = $1 FROM app.item NATURAL JOIN plain.item`, few).Scan(&same))
	if !same {
		t.Error("the tables differ")
	}
	batched(t, d, few)
	must(t, d.Admin.QueryRow(t.Context(), `SELECT count(*) = $1 FROM app.item NATURAL JOIN plain.item`, few).Scan(&same))
	if !same {
		t.Error("the tables differ")
	}
}

func database(tb testing.TB) (*dbtest.Database, *pgxpool.Pool) {
	tb.Helper()
	d := dbtest.New(tb, dbtest.Migrations(fstest.MapFS{"0001_item.sql": {Data: []byte(protected)}}))
	_, err := d.Admin.Exec(tb.Context(), unprotected, pgx.QueryExecModeSimpleProtocol)
	must(tb, err)
	plain, err := pgxpool.New(tb.Context(), d.Config.Cells[tenanttest.Cell].DSN)
	must(tb, err)
	tb.Cleanup(plain.Close)
	return d, plain
}

// made returns the values of n rows, the same for all.
func made(n int) iter.Seq[[]any] {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return func(yield func([]any) bool) {
		for i := range n {
			var id [16]byte
			binary.BigEndian.PutUint64(id[:], uint64(i)) // in order, as UUIDv7 are
			if !yield([]any{id, fmt.Sprintf("the title of item %d", i), int64(i) * 7, at}) {
				return
			}
		}
	}
}

// inserted returns the ms of InsertRows into the empty table.
func inserted(tb testing.TB, d *dbtest.Database, n int) float64 {
	tb.Helper()
	empty(tb, d, "app.item")
	acme := d.In(tb, "acme")
	start := time.Now()
	got, err := d.DB.InsertRows(acme, into, made(n))
	took := time.Since(start)
	must(tb, err)
	if got != int64(n) {
		tb.Fatalf("%d rows", got)
	}
	return took.Seconds() * 1000
}

// copied returns the ms of COPY into the empty table without row security.
func copied(tb testing.TB, d *dbtest.Database, plain *pgxpool.Pool, n int) float64 {
	tb.Helper()
	empty(tb, d, "plain.item")
	acme := [16]byte(d.Tenant(tb, "acme").UID)
	next, stop := iter.Pull(made(n))
	defer stop()
	start := time.Now()
	_, err := plain.CopyFrom(tb.Context(), pgx.Identifier{"plain", "item"}, []string{"tenant_id", "id", "title", "amount", "made"},
		pgx.CopyFromFunc(func() ([]any, error) {
			row, more := next()
			if !more {
				return nil, nil
			}
			return append([]any{acme}, row...), nil
		}))
	must(tb, err)
	return time.Since(start).Seconds() * 1000
}

// batched returns the ms of as many INSERTs in one transaction and one flush.
func batched(tb testing.TB, d *dbtest.Database, n int) float64 {
	tb.Helper()
	empty(tb, d, "app.item")
	var b tenantdb.Batch
	for row := range made(n) {
		b.Exec(one, row...)
	}
	acme := d.In(tb, "acme")
	start := time.Now()
	must(tb, d.DB.Batch(acme, &b))
	return time.Since(start).Seconds() * 1000
}

func empty(tb testing.TB, d *dbtest.Database, table string) {
	tb.Helper()
	for _, sql := range []string{"TRUNCATE " + table, "CHECKPOINT"} {
		_, err := d.Admin.Exec(tb.Context(), sql)
		must(tb, err)
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
