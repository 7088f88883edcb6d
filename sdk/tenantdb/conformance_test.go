package tenantdb_test

import (
	"testing"

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

// unnamed makes the SDK believe in a pooler.
func unnamed(c *tenantdb.Config) {
	for name, to := range c.Cells {
		to.Pooler = tenantdb.TransactionPooler
		c.Cells[name] = to
	}
}
