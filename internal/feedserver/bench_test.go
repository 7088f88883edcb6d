package feedserver_test

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"time"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	"github.com/rowhouse-platform/rowhouse/internal/feedserver"
)

// BenchmarkChangeToWatchers measures from the call of Change until the slowest of 20 watchers has the delta.
func BenchmarkChangeToWatchers(b *testing.B) {
	r := newRig(b, func(c *feedserver.Config) { c.Every = time.Second })
	const watchers = 20
	arrived := make(chan int64, watchers)
	for range watchers {
		w := make(chan struct{})
		go func() {
			opened := false
			_ = r.server.Watch(b.Context(), routes, "", func(f *apiv1.FeedFrame) error {
				if f.GetBookmark() != nil && !opened {
					opened = true
					close(w)
				}
				if d := f.GetDelta(); d != nil {
					arrived <- d.GetRevision()
				}
				return nil
			})
		}()
		<-w
	}
	var committed, took []time.Duration
	for i := 0; b.Loop(); i++ {
		start := time.Now()
		r.mustPublish(routes, "k", strconv.Itoa(i))
		committed = append(committed, time.Since(start))
		for range watchers {
			<-arrived
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	slices.Sort(committed)
	at := func(all []time.Duration, share float64) float64 {
		return float64(all[int(share*float64(len(all)-1))].Microseconds()) / 1000
	}
	b.ReportMetric(at(committed, 0.5), "commit-p50-ms")
	b.ReportMetric(at(took, 0.5), "p50-ms")
	b.ReportMetric(at(took, 0.99), "p99-ms")
}

// BenchmarkSnapshot measures a watch of 100,000 entries, from the call to its bookmark.
func BenchmarkSnapshot(b *testing.B) {
	r := newRig(b)
	admin := r.db.Connect(b, "")
	_, err := admin.Exec(b.Context(), `WITH k AS (SELECT array_agg('tenant/' || i) AS keys FROM generate_series(1, 100000) i)
		SELECT kernel.publish(NULL, array_fill('routes'::text, ARRAY[100000]), keys, array_fill(decode(repeat('00', 80), 'hex'), ARRAY[100000]))
		FROM k`)
	if err != nil {
		b.Fatal(err)
	}
	start := time.Now()
	server, _ := r.replica()
	load := time.Since(start)
	for b.Loop() {
		ctx, cancel := context.WithCancel(b.Context())
		_ = server.Watch(ctx, routes, "", func(f *apiv1.FeedFrame) error {
			if f.GetBookmark() != nil {
				cancel()
			}
			return ctx.Err()
		})
		cancel()
	}
	b.ReportMetric(float64(load.Milliseconds()), "load-ms")
}
