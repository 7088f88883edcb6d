package worker

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/wire"
)

const (
	// keepEvents is how long config may be away without missing an event, keepNewest how many there may be: all are in the
	// memory of each replica of tenancy, at some 300 bytes.
	keepEvents = 7 * 24 * time.Hour
	keepNewest = 100_000
	eventBatch = 500
)

// forgetEvents takes events out of their feed that are too old, or that too many newer ones are there of, in batches.
func (w *Worker) forgetEvents(ctx context.Context) error {
	for ctx.Err() == nil {
		keys, err := w.oldEvents(ctx)
		if err != nil || len(keys) == 0 {
			return err
		}
		job := change.NewJob(ctx, service, "events.forget")
		_, err = w.cfg.Kernel.Change(job, func(_ context.Context, tx *change.Tx) (proto.Message, error) {
			tx.Audit("feeds/" + wire.FeedEvents)
			for _, key := range keys {
				if err := tx.Publish(wire.FeedEvents, key, nil); err != nil {
					return nil, err
				}
			}
			return new(tenancyv1.TenancyEvent), nil
		})
		if err != nil || len(keys) < eventBatch {
			return err
		}
	}
	return nil
}

// oldEvents returns the keys of one batch.
func (w *Worker) oldEvents(ctx context.Context) ([]string, error) {
	oldest, surplus, err := store.OldestEvents(ctx, w.cfg.Pool, wire.FeedEvents, eventBatch, keepNewest)
	if err != nil {
		return nil, err
	}
	end := w.cfg.Clock().Add(-keepEvents)
	var keys []string
	for i, e := range oldest {
		m := new(tenancyv1.TenancyEvent)
		if proto.Unmarshal(e.Value, m) == nil && !m.GetTime().AsTime().Before(end) && i >= surplus {
			break
		}
		keys = append(keys, e.Key)
	}
	return keys, nil
}
