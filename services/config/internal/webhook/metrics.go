package webhook

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

// measureEvery is how often the database is asked what the gauges show.
const measureEvery = 15 * time.Second

// Measures is what the queue holds.
type Measures struct {
	// Events is how long the oldest event has waited for its messages to be made.
	Events time.Duration
	// Fast and Slow are how long the message that is due longest has waited in each lane, apart from those of tenants that
	// have as many under way as they may.
	Fast, Slow time.Duration
	// Dead is how many messages are dead, counted up to MaxDead.
	Dead int64
}

// MaxDead bounds the count of dead messages.
const MaxDead = 100_000

// metrics counts deliveries. Its labels have few values: no tenant, no endpoint, no address.
type metrics struct {
	attempts metric.Int64Counter
	took     metric.Float64Histogram
	queue    atomic.Pointer[Measures]
}

// newMetrics makes the metrics. An error of a meter means a name that is not valid; they work all the same.
func newMetrics(meters metric.MeterProvider) *metrics {
	if meters == nil {
		meters = noop.NewMeterProvider()
	}
	meter, m := meters.Meter("github.com/rowhouse-platform/rowhouse/services/config/webhooks"), new(metrics)
	m.attempts, _ = meter.Int64Counter("rowhouse.webhook.attempts", metric.WithUnit("{attempt}"),
		metric.WithDescription("Attempts to deliver a message, by lane and outcome."))
	m.took, _ = meter.Float64Histogram("rowhouse.webhook.duration", metric.WithUnit("s"),
		metric.WithDescription("How long receivers took to answer, or not to, by lane."),
		metric.WithExplicitBucketBoundaries(.01, .025, .05, .1, .25, .5, 1, 2, 5, 10, 20))
	age, _ := meter.Float64ObservableGauge("rowhouse.webhook.queue.age", metric.WithUnit("s"),
		metric.WithDescription("How long what has waited longest has: events for their messages, and due messages in each lane."))
	dead, _ := meter.Int64ObservableGauge("rowhouse.webhook.dead_letters", metric.WithUnit("{message}"),
		metric.WithDescription("Messages that are not sent any more and not forgotten yet."))
	_, _ = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		q := m.queue.Load()
		if q == nil {
			return nil
		}
		for part, d := range map[string]time.Duration{"events": q.Events, laneFast: q.Fast, laneSlow: q.Slow} {
			o.ObserveFloat64(age, d.Seconds(), metric.WithAttributes(attribute.String("part", part)))
		}
		o.ObserveInt64(dead, q.Dead)
		return nil
	}, age, dead)
	return m
}

// Lanes as metrics name them.
const (
	laneFast = "fast"
	laneSlow = "slow"
)

// attempt counts one attempt.
func (m *metrics) attempt(ctx context.Context, t Task, r Result, took time.Duration) {
	lane := laneSlow
	if t.Fast {
		lane = laneFast
	}
	which := attribute.String("lane", lane)
	m.attempts.Add(ctx, 1, metric.WithAttributes(which, attribute.String("outcome", r.outcome())))
	m.took.Record(ctx, took.Seconds(), metric.WithAttributes(which))
}

// outcome is how an attempt went, as a class.
func (r Result) outcome() string {
	switch {
	case r.Released:
		return "released"
	case r.Delivered:
		return "delivered"
	case r.Gone:
		return "gone"
	case r.Failure == "STATUS":
		return "status_" + string('0'+byte(min(max(r.Status/100, 0), 9))) + "xx"
	default:
		return strings.ToLower(r.Failure)
	}
}
