package feed

import (
	"context"
	"math"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Never is the [Status] Age of a feed without a state.
const Never = time.Duration(math.MaxInt64)

// measure lets metrics say how old the state is, how much of it is in quarantine and whether changes are held back, until
// the function that it returns is called.
func (f *Feed) measure() (stop func() error, err error) {
	if f.cfg.Metrics == nil {
		return func() error { return nil }, nil
	}
	meter := f.cfg.Metrics.Meter("github.com/rowhouse-platform/rowhouse/sdk/feed")
	age, err := meter.Float64ObservableGauge("rowhouse.feed.age", metric.WithUnit("s"),
		metric.WithDescription("How long ago the publisher confirmed the state that is in force."))
	if err != nil {
		return nil, err
	}
	bad, err := meter.Int64ObservableGauge("rowhouse.feed.quarantined", metric.WithUnit("{entry}"),
		metric.WithDescription("Entries whose newest value was refused."))
	if err != nil {
		return nil, err
	}
	held, err := meter.Int64ObservableGauge("rowhouse.feed.held", metric.WithUnit("{revision}"),
		metric.WithDescription("The revision up to which changes are held back, because processes died of them; 0 for none."))
	if err != nil {
		return nil, err
	}
	name := metric.WithAttributes(attribute.String("feed", f.cfg.Name))
	r, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		s := f.Status()
		if s.Age != Never {
			o.ObserveFloat64(age, s.Age.Seconds(), name)
		}
		o.ObserveInt64(bad, int64(len(s.Quarantined)), name)
		o.ObserveInt64(held, s.Held, name)
		return nil
	}, age, bad, held)
	if err != nil {
		return nil, err
	}
	return r.Unregister, nil
}
