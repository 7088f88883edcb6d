package pgalloc_test

import (
	"io/fs"
	"os"
	"testing"

	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/internal/pg/pgdbtest"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/alloc"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/alloc/alloctest"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/alloc/pgalloc"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/store"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func database(tb testing.TB) *pgdbtest.DB {
	tb.Helper()
	return pgdbtest.New(tb, pg.Database{Name: "rowhouse_quota", Migrations: []fs.FS{change.Migrations(), store.Migrations()}})
}

func TestDriver(t *testing.T) {
	t.Parallel()
	pool := database(t).Service(t)
	alloctest.Run(t, func(_ testing.TB, clock func() gcra.Ticks) alloc.Driver {
		return pgalloc.New(pgalloc.Config{Pool: pool, Clock: clock})
	})
}
