package tenantdb_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/exaring/otelpgx"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
)

var one = tenantdb.Stmt(`SELECT 1`)

// panicking is a tracer with a defect.
type panicking struct{}

func (panicking) TraceQueryStart(context.Context, *pgx.Conn, pgx.TraceQueryStartData) context.Context {
	panic("a tracer's defect")
}
func (panicking) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
func (panicking) TraceBatchStart(context.Context, *pgx.Conn, pgx.TraceBatchStartData) context.Context {
	panic("a tracer's defect")
}
func (panicking) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (panicking) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

// A panic on the way costs the connection, not its place: the tenth call finds one.
func TestPanicLeaksNoConnection(t *testing.T) {
	t.Parallel()
	d := dbtest.New(t, dbtest.Configure(func(c *tenantdb.Config) {
		c.Tracer = panicking{}
		for id, cell := range c.Cells {
			cell.MaxConns = 1
			c.Cells[id] = cell
		}
	}))
	ctx := d.In(t, "acme")
	for range 3 {
		func() {
			defer func() {
				if recover() != "a tracer's defect" {
					t.Error("the panic did not come through")
				}
			}()
			_, err := d.DB.Query(ctx, one)
			t.Errorf("Query returned %v", err)
		}()
	}
}

// Spans that do not record are passed by, also the kinds that cannot be compared.
func TestTracerThatDoesNotRecord(t *testing.T) {
	t.Parallel()
	d := dbtest.New(t, dbtest.Configure(func(c *tenantdb.Config) {
		c.Tracer = otelpgx.NewTracer(otelpgx.WithTracerProvider(noop.NewTracerProvider()))
	}))
	var n int
	if err := d.DB.QueryRow(d.In(t, "acme"), one).Scan(&n); err != nil || n != 1 {
		t.Errorf("QueryRow = %d, %v", n, err)
	}
}
