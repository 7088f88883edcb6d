package tenantdb_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/conformancetest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	dbtest.EachHome(t, func(t *testing.T, options ...dbtest.Option) {
		conformancetest.Run(t, func(t *testing.T, own ...dbtest.Option) *dbtest.Database {
			return dbtest.New(t, append(options, own...)...)
		})
	})
	// What the SDK does for a pooler holds without one, too.
	t.Run("SCHEMA/unnamed statements", func(t *testing.T) {
		t.Parallel()
		conformancetest.Run(t, func(t *testing.T, own ...dbtest.Option) *dbtest.Database {
			return dbtest.New(t, append(own, dbtest.Model(tenant.ModelSchema), dbtest.Rung(cell.L2b), dbtest.Configure(unnamed))...)
		})
	})
}

// TestConformanceWithAReplica runs the suite with reads on a replica, where one may be, and
// writes that ask for their position.
func TestConformanceWithAReplica(t *testing.T) {
	t.Parallel()
	for name, more := range map[string]func(*testing.T) dbtest.Option{
		"direct":           func(*testing.T) dbtest.Option { return dbtest.Configure(soleWriter) },
		"behind PgBouncer": func(t *testing.T) dbtest.Option { t.Helper(); return behindBouncer(t, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conformancetest.Run(t, func(t *testing.T, own ...dbtest.Option) *dbtest.Database {
				return dbtest.New(t, append(own, dbtest.On(pgtest.Pair(t)), dbtest.Configure(soleWriter), more(t))...)
			})
		})
	}
}

// TestConformanceBehindPgBouncer runs the suite through two backends that clients share.
func TestConformanceBehindPgBouncer(t *testing.T) {
	t.Parallel()
	rungs := []cell.Rung{cell.L2b}
	if os.Getenv("ROWHOUSE_TEST_LONG") != "" {
		rungs = append(rungs, cell.L2a)
	}
	for _, model := range []tenant.Model{tenant.ModelShared, tenant.ModelSchema, tenant.ModelDatabase} {
		for _, rung := range rungs {
			t.Run(fmt.Sprintf("%s/%s", model, rung), func(t *testing.T) {
				t.Parallel()
				conformancetest.Run(t, func(t *testing.T, own ...dbtest.Option) *dbtest.Database {
					return dbtest.New(t, append(own, dbtest.Model(model), dbtest.Rung(rung), behindBouncer(t, 0))...)
				})
			})
		}
	}
	t.Run("named statements", func(t *testing.T) {
		t.Parallel()
		conformancetest.Run(t, func(t *testing.T, own ...dbtest.Option) *dbtest.Database {
			return dbtest.New(t, append(own, behindBouncer(t, 100))...)
		}, "a migration changes tables under prepared statements") // PgBouncer wants RECONNECT for that
	})
}

// behindBouncer puts a PgBouncer in between that keeps so many named statements.
func behindBouncer(t *testing.T, statements int) dbtest.Option {
	t.Helper()
	const backends = 2
	return dbtest.Configure(func(c *tenantdb.Config) {
		for name, to := range c.Cells {
			to.DSN = pgtest.BouncerOf(t, pgserver.BouncerOptions{Server: to.DSN, Backends: backends, Statements: statements})
			if statements == 0 {
				to.Pooler = tenantdb.TransactionPooler
			}
			c.Cells[name] = to
		}
	})
}

// unnamed makes the SDK believe in a pooler.
func unnamed(c *tenantdb.Config) {
	for name, to := range c.Cells {
		to.Pooler = tenantdb.TransactionPooler
		c.Cells[name] = to
	}
}
