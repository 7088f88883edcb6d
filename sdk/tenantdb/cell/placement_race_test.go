package cell_test

import (
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// A worker and a caller may place a tenant for the first time at once; both succeed.
func TestSetPlacementTwiceAtOnce(t *testing.T) {
	t.Parallel()
	d := dbtest.New(t)
	pool, err := pgxpool.New(t.Context(), d.Admin.Config().ConnString())
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	for i := range 30 {
		uid := tenanttest.UID(string(rune('a' + i)))
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() {
				if err := cell.SetPlacement(t.Context(), pool, cell.Placement{UID: uid, State: cell.Active, Generation: 1}); err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()
	}
}
