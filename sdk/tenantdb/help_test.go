package tenantdb_test

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
)

func state(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code
	}
	return ""
}

func contains(err error, text string) bool { return err != nil && strings.Contains(err.Error(), text) }

// sealOf returns a fresh seal of the tenant.
func sealOf(tb testing.TB, d *dbtest.Database, id string) []byte {
	tb.Helper()
	d.In(tb, id) // places it
	seal := d.Issuer.Context(tb, id).Seal()
	return seal[:]
}

// oneConnection makes every call use the same session.
func oneConnection(c *tenantdb.Config) {
	for name, to := range c.Cells {
		to.MaxConns = 1
		c.Cells[name] = to
	}
}

// reopen opens the database once more, with a changed configuration.
func reopen(tb testing.TB, d *dbtest.Database, change func(*tenantdb.Config, *tenantdb.Cell)) *tenantdb.DB {
	tb.Helper()
	config := d.Config
	config.Cells = maps.Clone(config.Cells)
	for name, to := range config.Cells {
		change(&config, &to)
		config.Cells[name] = to
	}
	db, err := tenantdb.Open(tb.Context(), config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(db.Close)
	return db
}
