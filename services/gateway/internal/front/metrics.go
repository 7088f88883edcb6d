package front

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// metrics are the front door's. Their labels are apps, statuses and reasons, all of
// which are few: no tenant, no host, no path.
type metrics struct {
	duration metric.Float64Histogram
	labels   sync.Map // kind → metric.MeasurementOption
}

// kind is what requests are told apart by.
type kind struct {
	app, reason string
	status      int
	grpc        bool
}

func newMetrics(meter metric.Meter) (*metrics, error) {
	duration, err := meter.Float64Histogram("http.server.request.duration", metric.WithUnit("s"),
		metric.WithDescription("Time that a request at the front door took, until its answer had begun."),
		metric.WithExplicitBucketBoundaries(.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30))
	return &metrics{duration: duration}, err //nolint:wrapcheck // the caller says what for
}

// record counts a request.
func (m *metrics) record(ctx context.Context, took time.Duration, k kind) {
	known, ok := m.labels.Load(k)
	if !ok {
		set := []attribute.KeyValue{attribute.Int("http.response.status_code", k.status), attribute.Bool("rowhouse.grpc", k.grpc)}
		if k.app != "" {
			set = append(set, attribute.String("rowhouse.app", k.app))
		}
		if k.reason != "" {
			set = append(set, attribute.String("error.type", k.reason))
		}
		known, _ = m.labels.LoadOrStore(k, metric.WithAttributeSet(attribute.NewSet(set...)))
	}
	option, _ := known.(metric.MeasurementOption)
	m.duration.Record(ctx, took.Seconds(), option)
}

// sampler lets a bounded number of lines a second into the log: refusals come from
// outside, as many as anybody likes. Metrics count them all.
type sampler struct {
	second, lines atomic.Int64
}

const linesPerSecond = 20

// take reports whether a line may be written, and how many were left out in the second
// that has just ended.
func (s *sampler) take(now time.Time) (ok bool, left int64) {
	second := now.Unix()
	if last := s.second.Load(); last != second && s.second.CompareAndSwap(last, second) {
		left = max(s.lines.Swap(0)-linesPerSecond, 0)
	}
	return s.lines.Add(1) <= linesPerSecond, left
}

// log writes a line about a refusal, or counts it as left out.
func (s *sampler) log(ctx context.Context, log *slog.Logger, args ...any) {
	ok, left := s.take(time.Now())
	if left > 0 {
		log.WarnContext(ctx, "more requests were refused than the log says", "left_out", left)
	}
	if ok {
		log.InfoContext(ctx, "refused", args...)
	}
}
