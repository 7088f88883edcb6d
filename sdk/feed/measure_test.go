package feed_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/rowhouse-platform/rowhouse/sdk/feed"
)

// gauges reads what a feed says of itself, by the name of the gauge.
func gauges(t *testing.T, r sdkmetric.Reader) map[string]float64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := r.Collect(context.WithoutCancel(t.Context()), &all); err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Gauge[float64]:
				for _, p := range data.DataPoints {
					got[m.Name] = p.Value
				}
			case metricdata.Gauge[int64]:
				for _, p := range data.DataPoints {
					got[m.Name] = float64(p.Value)
				}
			}
		}
	}
	return got
}

// TestAge follows a feed that falls silent and one that starts from its disk: both say how old their state is.
func TestAge(t *testing.T) {
	bubble(t, func(r *rig) {
		reader := sdkmetric.NewManualReader()
		provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
		measured := func(cfg *feed.Config) { cfg.Metrics = provider }
		r.start(measured)
		if age, ok := gauges(t, reader)["rowhouse.feed.age"]; ok || r.feed.Status().Age != feed.Never {
			t.Errorf("without a state: %v, %v", age, r.feed.Status().Age)
		}
		r.pub.delta("a", "1", "b", "bad")
		c := <-r.line.calls
		c.send(r.pub.snapshot()...)
		synctest.Wait()
		<-time.After(3 * time.Second) // virtual time
		if got := gauges(t, reader); got["rowhouse.feed.age"] != 3 || got["rowhouse.feed.quarantined"] != 1 || r.feed.Status().Age != 3*time.Second {
			t.Errorf("after 3 s: %v, %v", got, r.feed.Status().Age)
		}
		r.feed.Close()
		if got := gauges(t, reader); len(got) != 0 {
			t.Errorf("a closed feed says %v", got)
		}
		now := time.Unix(1_000_001, 0).Add(time.Hour) // the publisher's clock at its last bookmark, and an hour
		r.start(measured, func(cfg *feed.Config) { cfg.Clock = func() time.Time { return now } })
		if got := gauges(t, reader); got["rowhouse.feed.age"] != 3600 || r.feed.Status().Source != feed.SourceDisk {
			t.Errorf("from disk: %v, %v", got, r.feed.Status())
		}
	})
}
