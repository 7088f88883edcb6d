package catalogaudit_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/bench/measure"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/catalog"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const schema = `
CREATE TABLE app.note (tenant_id uuid NOT NULL DEFAULT rowhouse.tenant_id(), id uuid NOT NULL, title text, PRIMARY KEY (tenant_id, id));
CREATE INDEX note_by_title ON app.note (tenant_id, title);
CREATE TABLE app.tag (tenant_id uuid, note uuid, word text, PRIMARY KEY (tenant_id, note, word),
	FOREIGN KEY (tenant_id, note) REFERENCES app.note (tenant_id, id));`

// Tables of the fleet, by schemas of tables.
const (
	schemas = 1000
	tables  = 20
	// together is how many schemas one transaction makes: each object is a lock.
	together = 50
)

// BenchmarkAudit audits both databases. Run it once: -benchtime=1x.
func BenchmarkAudit(b *testing.B) {
	b.Run("small", func(b *testing.B) { compare(b, database(b), rounds{ours: 15, peer: 15}) })
	b.Run("fleet", func(b *testing.B) {
		d := database(b)
		fill(b, d, schemas)
		compare(b, d, rounds{ours: 3}) // the peer takes most of a minute there
	})
}

// TestBothFindTheSame keeps the comparison honest and compiled.
func TestBothFindTheSame(t *testing.T) {
	t.Parallel()
	d := database(t)
	fill(t, d, 2)
	if _, err := d.Admin.Exec(t.Context(), "ALTER TABLE t_1.r_7 NO FORCE ROW LEVEL SECURITY"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"R02", "R40", "R40"}, findings(t, d, ours())); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(findings(t, d, ours()), findings(t, d, perRule())); diff != "" {
		t.Error(diff)
	}
}

func database(tb testing.TB) *dbtest.Database {
	tb.Helper()
	return dbtest.New(tb, dbtest.Migrations(fstest.MapFS{"0001_tables.sql": {Data: []byte(schema)}}))
}

// fill makes tables as the SCHEMA model has them, each with its key and its two policies.
func fill(tb testing.TB, d *dbtest.Database, schemas int) {
	tb.Helper()
	for from := 1; from <= schemas; from += together {
		text := fmt.Sprintf(`DO $$ BEGIN
	SET LOCAL ROLE rowhouse_owner_test;
	FOR s IN %d..%d LOOP
		EXECUTE format('CREATE SCHEMA t_%%s', s);
		FOR r IN 1..%d LOOP
			EXECUTE format('CREATE TABLE t_%%s.r_%%s (tenant_id uuid, id uuid, PRIMARY KEY (tenant_id, id))', s, r);
			PERFORM rowhouse.secure(format('t_%%s.r_%%s', s, r)::regclass);
		END LOOP;
	END LOOP;
END $$`, from, min(from+together-1, schemas), tables)
		_, err := d.Admin.Exec(tb.Context(), text, pgx.QueryExecModeSimpleProtocol)
		must(tb, err)
	}
	_, err := d.Admin.Exec(tb.Context(), "VACUUM ANALYZE")
	must(tb, err)
}

// way is one way to audit.
type way func(context.Context, catalog.Conn) ([]catalog.Finding, error)

func ours() way {
	return func(ctx context.Context, conn catalog.Conn) ([]catalog.Finding, error) {
		report, err := cell.Audit(ctx, conn, catalog.Config{})
		return report.Findings, err
	}
}

func perRule() way {
	return func(ctx context.Context, conn catalog.Conn) (all []catalog.Finding, err error) {
		for _, r := range catalog.Rules() {
			report, failed := cell.Audit(ctx, conn, catalog.Config{Rules: []string{r.ID}})
			all, err = append(all, report.Findings...), errors.Join(err, failed)
		}
		return all, err
	}
}

func findings(tb testing.TB, d *dbtest.Database, audit way) (ids []string) {
	tb.Helper()
	found, err := audit(tb.Context(), d.Admin)
	must(tb, err)
	for _, f := range found {
		ids = append(ids, f.Rule)
	}
	return ids
}

// rounds are how often each way is measured.
type rounds struct{ ours, peer int }

// compare measures both ways in turns, and a migration that adds a column.
func compare(b *testing.B, d *dbtest.Database, n rounds) {
	b.Helper()
	b.ReportMetric(0, "ns/op") // the sum over all rounds says nothing
	conn, err := d.Admin.Acquire(b.Context())
	must(b, err)
	defer conn.Release()
	timed := func(audit way) float64 {
		start := time.Now()
		_, err := audit(b.Context(), conn)
		must(b, err)
		return float64(time.Since(start)) / float64(time.Millisecond)
	}
	touched := func() float64 {
		t, err := conn.Begin(b.Context())
		must(b, err)
		defer func() { must(b, t.Rollback(b.Context())) }()
		_, err = t.Exec(b.Context(), "ALTER TABLE app.note ADD body text")
		must(b, err)
		start := time.Now()
		_, err = cell.Audit(b.Context(), t, catalog.Config{Touched: true})
		must(b, err)
		return float64(time.Since(start)) / float64(time.Millisecond)
	}
	timed(ours()) // warms the catalogs' caches
	var one, many, part []float64
	for i := range n.ours {
		one, part = append(one, timed(ours())), append(part, touched())
		if i < n.peer {
			many = append(many, timed(perRule()))
		}
	}
	b.ReportMetric(measure.Median(one), "ms-audit")
	b.ReportMetric(measure.Median(part), "ms-touched")
	if n.peer > 0 {
		b.ReportMetric(measure.Median(many), "ms-rules")
		b.ReportMetric(measure.Median(measure.Ratios(one, many)), "ratio")
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
