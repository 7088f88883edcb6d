package tenantdb_test

import (
	"context"
	"errors"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/exaring/otelpgx"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
)

var one = tenantdb.Stmt(`SELECT 1`)

// panicking is a tracer with a defect, in the hook of that name.
type panicking string

func (p panicking) in(hook panicking) {
	if p == hook {
		panic("a tracer's defect")
	}
}

func (p panicking) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	p.in("query start")
	return ctx
}
func (p panicking) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {
	p.in("query end")
}
func (p panicking) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	p.in("batch start")
	return ctx
}
func (p panicking) TraceBatchQuery(_ context.Context, _ *pgx.Conn, data pgx.TraceBatchQueryData) {
	if data.SQL == one.String() {
		p.in("batch query")
	} else {
		p.in("prologue")
	}
}
func (p panicking) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {
	p.in("batch end")
}
func (p panicking) TracePrepareStart(ctx context.Context, _ *pgx.Conn, _ pgx.TracePrepareStartData) context.Context {
	p.in("prepare start")
	return ctx
}
func (p panicking) TracePrepareEnd(context.Context, *pgx.Conn, pgx.TracePrepareEndData) {
	p.in("prepare end")
}
func (p panicking) TraceConnectStart(ctx context.Context, _ pgx.TraceConnectStartData) context.Context {
	p.in("connect start")
	return ctx
}
func (p panicking) TraceConnectEnd(context.Context, pgx.TraceConnectEndData) { p.in("connect end") }

// A panic on the way costs the connection, not its place: the second call finds one.
func TestPanicLeaksNoConnection(t *testing.T) {
	t.Parallel()
	d := dbtest.New(t)
	query := func(ctx context.Context, db *tenantdb.DB) error {
		rows, err := db.Query(ctx, one)
		if err == nil {
			rows.Next()
			rows.Next()
		}
		return err
	}
	inTx := func(ctx context.Context, db *tenantdb.DB) error {
		return db.Tx(ctx, func(tx *tenantdb.Tx) error {
			if _, err := tx.Exec(ctx, one); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, tenantdb.Stmt(`SELECT 2`))
			return err
		})
	}
	batch := func(read func(*tenantdb.Rows) error) func(context.Context, *tenantdb.DB) error {
		return func(ctx context.Context, db *tenantdb.DB) error {
			var b tenantdb.Batch
			b.Query(read, one)
			return db.Batch(ctx, &b)
		}
	}
	calls := map[string]func(context.Context, *tenantdb.DB) error{
		"query": query, "tx": inTx, "batch": batch(func(*tenantdb.Rows) error { return nil }),
		"dial": query, "callback": batch(func(*tenantdb.Rows) error { panic("a tracer's defect") }),
	}
	for row, hooks := range map[string][]panicking{
		"query":    {"batch start", "batch query", "prologue", "batch end", "connect start", "connect end"},
		"tx":       {"query start", "query end", "prepare start", "prepare end", "batch query", "batch end"},
		"batch":    {"batch query", "batch end"},
		"dial":     {""},
		"callback": {""},
	} {
		for _, hook := range hooks {
			t.Run(row+", "+string(hook), func(t *testing.T) {
				t.Parallel()
				db := reopen(t, d, func(c *tenantdb.Config, cell *tenantdb.Cell) {
					c.Tracer = hook
					cell.MaxConns = 1
					if row == "dial" {
						cell.Dial = func(context.Context, string, string) (net.Conn, error) { panic("a tracer's defect") }
					}
				})
				ctx := d.In(t, "acme")
				for range 2 {
					wantPanic(t, func() error { return calls[row](ctx, db) })
				}
				db.Close()
				st := db.Stats()[0]
				for end := time.Now().Add(time.Minute); st.Tenants != 0 && time.Now().Before(end); st = db.Stats()[0] {
					runtime.Gosched() // a slot is given back behind its connection
				}
				if st.Open != 0 || st.Tenants != 0 {
					t.Errorf("afterwards: %+v", st)
				}
			})
		}
	}
}

func wantPanic(t *testing.T, call func() error) {
	t.Helper()
	defer func() {
		if told := recover(); told != "a tracer's defect" {
			t.Errorf("the panic did not come through, but %v", told)
		}
	}()
	t.Errorf("the call returned %v", call())
}

// A callback that asks for a second connection could wait for its own.
func TestCallbackMayNotUseTheDatabase(t *testing.T) {
	t.Parallel()
	d := dbtest.New(t)
	ctx := d.In(t, "acme")
	var b tenantdb.Batch
	b.Query(func(*tenantdb.Rows) error { _, err := d.DB.Exec(ctx, one); return err }, one)
	if err := d.DB.Batch(ctx, &b); !errors.Is(err, tenantdb.ErrNested) {
		t.Errorf("Batch = %v, want ErrNested", err)
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
