package front

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/fair"
)

// Usage is what one request of a tenant took.
type Usage struct {
	// InFlight is how long the app worked until its answer began, which is nearest to its processor's time of what can be seen
	// from here: what comes after may be a stream with nothing to say.
	InFlight time.Duration
	// Delayed is how long others waited for it; see [fair.Use].
	Delayed time.Duration
	// In and Out are the bytes of both bodies.
	In, Out int64
	// Refused says that it was refused for what its tenant asks for.
	Refused bool
}

// queues share the processes of each app in each cell among tenants.
type queues struct {
	config fair.Config
	all    sync.Map // upstreamKey → *fair.Queue
	wait   metric.Float64Histogram
}

type upstreamKey struct{ app, cell string }

// newQueues returns nil without a configuration.
func newQueues(c *fair.Config, meter metric.Meter) (*queues, error) {
	if c == nil {
		return nil, nil //nolint:nilnil // nothing is shared then
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	q := &queues{config: *c}
	if err := q.measure(meter); err != nil {
		return nil, fmt.Errorf("metrics of the queues: %w", err)
	}
	return q, nil
}

// measure tells how the queues are used, by app and cell, of which there are few.
func (q *queues) measure(meter metric.Meter) error {
	var failed error
	gauge := func(name, what string) metric.Int64ObservableGauge {
		g, err := meter.Int64ObservableGauge(name, metric.WithUnit("{request}"), metric.WithDescription(what))
		if err != nil {
			failed = err
		}
		return g
	}
	width := gauge("rowhouse.gateway.share.width", "How many requests an app may have under way.")
	held := gauge("rowhouse.gateway.share.held", "How many requests an app has under way, of those that count.")
	waiting := gauge("rowhouse.gateway.share.waiting", "How many requests wait for their turn.")
	tenants := gauge("rowhouse.gateway.share.tenants", "How many tenants hold places, wait, or are ahead of their share.")
	refused, err := meter.Int64ObservableCounter("rowhouse.gateway.share.refused", metric.WithUnit("{request}"),
		metric.WithDescription("Requests that were refused because their tenant wanted more than its share, or went on without a place."))
	if err != nil {
		failed = err
	}
	q.wait, err = meter.Float64Histogram("rowhouse.gateway.share.wait", metric.WithUnit("s"),
		metric.WithDescription("Time that a request waited for its turn."),
		metric.WithExplicitBucketBoundaries(0, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10))
	if err != nil {
		failed = err
	}
	if failed != nil {
		return failed //nolint:wrapcheck // the caller says what for
	}
	_, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		q.all.Range(func(key, value any) bool {
			k, _ := key.(upstreamKey)
			queue, _ := value.(*fair.Queue)
			st, at := queue.Stats(), k.attributes()
			o.ObserveInt64(width, int64(st.Width), metric.WithAttributes(at...))
			o.ObserveInt64(held, int64(st.Held), metric.WithAttributes(at...))
			o.ObserveInt64(waiting, int64(st.Waiting), metric.WithAttributes(at...))
			o.ObserveInt64(tenants, int64(st.Tenants), metric.WithAttributes(at...))
			for how, n := range map[string]uint64{"shed": st.Shed, "full": st.Full, "lapsed": st.Lapsed} {
				as := metric.WithAttributes(append(k.attributes(), attribute.String("rowhouse.how", how))...)
				o.ObserveInt64(refused, int64(n), as) //nolint:gosec // counts
			}
			return true
		})
		return nil
	}, width, held, waiting, tenants, refused)
	return err //nolint:wrapcheck // the caller says what for
}

func (k upstreamKey) attributes() []attribute.KeyValue {
	return []attribute.KeyValue{attribute.String("rowhouse.app", k.app), attribute.String("rowhouse.cell", k.cell)}
}

// queue returns the queue of an app's processes in a cell.
func (q *queues) queue(k upstreamKey) (*fair.Queue, error) {
	known, ok := q.all.Load(k)
	if !ok {
		made, err := fair.New(q.config)
		if err != nil {
			return nil, err //nolint:wrapcheck // was valid before
		}
		known, _ = q.all.LoadOrStore(k, made)
	}
	queue, _ := known.(*fair.Queue)
	return queue, nil
}

// turn waits until the app may have the request. The place is held until the app's answer begins: what streams after that, or has
// nothing to say for long, takes it from nobody; see [fair.Config] for how long an app may think about its answer.
func (v *visit) turn(ctx context.Context) (place, error) {
	q := v.h.queues
	if q == nil {
		return place{}, nil
	}
	k := upstreamKey{v.route.App.ID, v.route.Tenant.Cell}
	queue, err := q.queue(k)
	if err != nil {
		return place{}, err
	}
	weight := v.h.c.Table().Weight(v.route.Tenant.Plan)
	if weight == 0 {
		weight = fair.DefaultWeight
	}
	began := time.Now()
	p, err := queue.Enter(ctx, fair.Call{Tenant: v.tc.UID(), Weight: weight})
	q.wait.Record(ctx, time.Since(began).Seconds(), metric.WithAttributes(k.attributes()...))
	return place{p}, err //nolint:wrapcheck // a fault, or that the caller has gone
}

// leave gives the place to the next. What it took tells of the app only if the request had come by the time that the app was asked, or
// a client that sends slowly would make the app look busy.
func (v *visit) leave(p place, asked time.Time) time.Duration {
	if v.asked().Sub(asked) > promptly {
		return p.drop()
	}
	return p.done()
}

const promptly = 10 * time.Millisecond

// place is a place of a queue, or of none.
type place struct{ *fair.Place }

// done gives it to the next.
func (p place) done() time.Duration {
	if p.Place == nil {
		return 0
	}
	return p.Done().Delayed
}

// drop is done for a request whose time tells nothing of the app.
func (p place) drop() time.Duration {
	if p.Place == nil {
		return 0
	}
	return p.Drop().Delayed
}

// used tells what the request took, once it is over.
func (v *visit) used() {
	if v.h.c.Used == nil || v.token == "" {
		return
	}
	if v.body != nil {
		v.usage.In = v.body.taken()
	}
	v.h.c.Used(v.tc, v.usage)
}

// forWant reports whether a refusal is because of what the tenant asks for.
func forWant(reason string) bool {
	switch reason {
	case fault.ReasonCapacityReduced, fault.ReasonOverloaded, fault.ReasonRateLimitExceeded, fault.ReasonConcurrency:
		return true
	default:
		return false
	}
}
