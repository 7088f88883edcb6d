package worker_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/wire"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/worker"
)

// Events stay in their feed for a week, all of it.
func TestOldEventsAreForgotten(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const n = 1200 // more than two batches
	for range n / 100 {
		_, err := b.config.Kernel.Change(change.NewJob(t.Context(), "tenancy", "test"), func(_ context.Context, tx *change.Tx) (proto.Message, error) {
			for range 100 {
				wire.PublishEvent(tx, wire.Event{Type: wire.PlanChanged, Tenant: registry.Tenant{UID: uid(t)}, Plan: "free"})
			}
			return new(tenancyv1.Tenant), nil
		})
		b.must(err)
	}
	kept := func() (count int) {
		t.Helper()
		b.must(b.pool.QueryRow(t.Context(), `SELECT count(*) FROM kernel.feed_state WHERE feed = 'events'`).Scan(&count))
		return count
	}
	w := worker.New(b.config)
	b.must(w.TurnKeys(t.Context()))
	if got := kept(); got != n {
		t.Fatalf("%d events are there, want %d", got, n)
	}
	b.now = b.now.Add(6 * 24 * time.Hour)
	b.must(w.TurnKeys(t.Context()))
	if got := kept(); got != n {
		t.Errorf("after six days %d are left", got)
	}
	b.now = b.now.Add(2 * 24 * time.Hour)
	b.must(w.TurnKeys(t.Context()))
	if got := kept(); got != 0 {
		t.Errorf("after eight days %d are left", got)
	}
}
