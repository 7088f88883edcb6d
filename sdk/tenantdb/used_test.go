package tenantdb_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
)

// uses adds up what was told, by tenant.
type uses struct {
	mu  sync.Mutex
	all map[string]tenantdb.Use
}

func (u *uses) add(tc tenant.Context, use tenantdb.Use) {
	u.mu.Lock()
	defer u.mu.Unlock()
	sum := u.all[tc.ID().String()]
	sum.Took, sum.Rows, sum.Delayed = sum.Took+use.Took, sum.Rows+use.Rows, sum.Delayed+use.Delayed
	u.all[tc.ID().String()] = sum
}

func (u *uses) of(id string) tenantdb.Use {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.all[id]
}

// What statements take is told with the tenant whose they are, and who made others wait for a connection.
func TestUseIsTold(t *testing.T) {
	t.Parallel()
	d, told := notes(t), &uses{all: map[string]tenantdb.Use{}}
	db := reopen(t, d, func(c *tenantdb.Config, to *tenantdb.Cell) { c.Used, c.Tracer, to.MaxConns = told.add, nil, 1 })
	acme, globex := d.In(t, "acme"), d.In(t, "globex")
	wantTitles(acme, t, db, "acme one", "acme two")
	if use := told.of("acme"); use.Rows != 2 || use.Took <= 0 || use.Delayed != 0 {
		t.Errorf("a query of two rows: %+v", use)
	}
	err := db.Tx(acme, func(tx *tenantdb.Tx) error {
		for range 2 { // the second is a round trip of its own
			if _, err := tx.Exec(acme, tenantdb.Stmt(`UPDATE app.note SET title = title`)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if use := told.of("acme"); use.Rows != 6 {
		t.Errorf("two updates of two rows more: %+v", use)
	}
	if use := told.of("globex"); use != (tenantdb.Use{}) {
		t.Errorf("a tenant that did nothing: %+v", use)
	}
	var waiting sync.WaitGroup
	err = db.Tx(acme, func(tx *tenantdb.Tx) error {
		if _, err := tx.Exec(acme, allNotes); err != nil {
			return err
		}
		waiting.Go(func() { wantTitles(globex, t, db, "globex one") })
		return waits(t.Context(), db)
	})
	if err != nil {
		t.Fatal(err)
	}
	waiting.Wait()
	if use := told.of("acme"); use.Delayed <= 0 {
		t.Errorf("it kept another from its connection: %+v", use)
	}
	if use := told.of("globex"); use.Rows != 1 || use.Delayed != 0 {
		t.Errorf("who waited: %+v", use)
	}
}

// waits until a call waits for a connection.
func waits(ctx context.Context, db *tenantdb.DB) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for db.Stats()[0].Waiting == 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
