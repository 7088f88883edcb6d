package quota_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

const (
	ingestClients = 8
	ingestBatch   = 1000
	ingestRounds  = 5
	ingestLength  = 3 * time.Second
)

// BenchmarkIngest compares; see bench/meteringest. Run it once: -benchtime=1x.
func BenchmarkIngest(b *testing.B) {
	r := newRig(b)
	b.ReportMetric(0, "ns/op") // the sum over all rounds says nothing
	ours, single, bulk := r.ingestWays()
	for _, way := range []func(context.Context) (int, error){ours, single, bulk} { // plans, connections
		r.ingest(way, ingestLength/6)
	}
	var rates [3][]float64
	var ratios []float64
	for range ingestRounds {
		for i, way := range []func(context.Context) (int, error){ours, single, bulk} {
			rates[i] = append(rates[i], r.ingest(way, ingestLength))
		}
		last := len(rates[0]) - 1
		ratios = append(ratios, rates[0][last]/rates[1][last])
	}
	for i, name := range []string{"events/s", "single/s", "bulk/s"} {
		b.ReportMetric(middle(rates[i]), name)
	}
	b.ReportMetric(middle(ratios), "ratio")
	b.ReportMetric(slices.Min(ratios), "ratio-least")
	b.ReportMetric(slices.Max(ratios), "ratio-most")
}

func middle(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}

// ingest has all clients work for a while, and returns how many events a second they brought in.
func (r *rig) ingest(way func(context.Context) (int, error), length time.Duration) float64 {
	r.Helper()
	var events atomic.Int64
	var clients sync.WaitGroup
	begin := time.Now()
	for range ingestClients {
		clients.Go(func() {
			for time.Since(begin) < length {
				n, err := way(r.Context())
				if err != nil {
					r.Error(err)
					return
				}
				events.Add(int64(n))
			}
		})
	}
	clients.Wait()
	return float64(events.Load()) / time.Since(begin).Seconds()
}

// ingestWays are ways to keep events: through the service, one INSERT each, and an INSERT of many without anything else.
func (r *rig) ingestWays() (ours, single, bulk func(context.Context) (int, error)) {
	r.Helper()
	r.newMeter("traffic", quotav1.Aggregation_AGGREGATION_SUM)
	m, uid := r.metering("acme", 0), tenanttest.UID("acme")
	super := r.db.Superuser(r)
	_, err := super.Exec(r.Context(), `CREATE TABLE public.plain (tenant_id uuid NOT NULL, id uuid NOT NULL, meter text NOT NULL,
			quantity bigint NOT NULL, time timestamptz NOT NULL, dimensions jsonb NOT NULL, PRIMARY KEY (tenant_id, id));
		CREATE TABLE public.bulk (LIKE public.plain INCLUDING ALL)`)
	r.need(err)
	pool := r.db.Pool(r, "postgres", func(c *pgxpool.Config) { c.MaxConns = ingestClients })
	dimensions := func(i int) map[string]string { return map[string]string{"route": fmt.Sprint("/", i%10)} }
	ours = func(ctx context.Context) (int, error) {
		req := &quotav1.RecordUsageRequest{Events: make([]*quotav1.UsageEvent, 0, ingestBatch)}
		for i := range ingestBatch {
			e := usedNow("traffic", int64(i))
			e.Dimensions = dimensions(i)
			req.Events = append(req.Events, e)
		}
		resp, err := m.RecordUsage(ctx, req)
		for _, o := range resp.GetOutcomes() {
			if o != quotav1.EventOutcome_EVENT_OUTCOME_COUNTED {
				return 0, fmt.Errorf("an event is %s", o)
			}
		}
		return ingestBatch, err
	}
	single = func(ctx context.Context) (int, error) {
		_, err := pool.Exec(ctx, `INSERT INTO public.plain VALUES ($1, $2, $3, $4, $5, $6)`,
			[16]byte(uid), [16]byte(uuid.Must(uuid.NewV7())), "traffic", int64(7), time.Now(), dimensions(7))
		return 1, err
	}
	bulk = func(ctx context.Context) (int, error) {
		ids, quantities := make([][16]byte, 0, ingestBatch), make([]int64, 0, ingestBatch)
		for i := range ingestBatch {
			ids, quantities = append(ids, uuid.Must(uuid.NewV7())), append(quantities, int64(i))
		}
		_, err := pool.Exec(ctx, `INSERT INTO public.bulk SELECT $1, e.id, 'traffic', e.quantity, now(), '{"route": "/7"}'
			FROM unnest($2::uuid[], $3::bigint[]) AS e (id, quantity)`, [16]byte(uid), ids, quantities)
		return ingestBatch, err
	}
	return ours, single, bulk
}

// The ways of the benchmark work.
func TestIngestWays(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ours, single, bulk := r.ingestWays()
	for _, way := range []func(context.Context) (int, error){ours, single, bulk} {
		if n, err := way(t.Context()); err != nil || n == 0 {
			t.Errorf("%d events: %v", n, err)
		}
	}
}
