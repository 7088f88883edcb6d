package webhook

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/rowhouse-platform/rowhouse/internal/egress"
)

const (
	// Timeout is how long a receiver may take.
	Timeout = 20 * time.Second
	// Lease is how long a message belongs to who took it: longer than the receiver may take and the result to be written.
	Lease = Timeout + 10*time.Second
	// PerFast is how many messages may be under way to an endpoint whose last answer was a good one and came soon.
	PerFast = 4
	// PerSlow is how many may be to any other, a new one too.
	PerSlow = 1
	// PerTenant is how many may be under way to all endpoints of a tenant when more are taken.
	PerTenant = 8

	soon           = 2 * time.Second
	defaultWorkers = 1024
	defaultPoll    = 250 * time.Millisecond
	sweepEvery     = 10 * time.Minute
	batch          = 100
	releaseLimit   = 2 * time.Second
	errorPause     = time.Second
)

// Task is a message that this process has taken and is to send.
type Task struct {
	DeliveryUID, EndpointUID, TenantUID string
	Fence                               int32
	Attempts, Failures                  int
	// Fast says which of the two lanes the endpoint is in.
	Fast      bool
	URL, Body string
	Keys      []Key
}

// MessageID is what the receiver tells messages apart by.
func MessageID(deliveryUID string) string { return "msg_" + deliveryUID }

// Queue keeps events and messages. All replicas work on one.
type Queue interface {
	// FanOut makes messages of up to n events and returns of how many.
	FanOut(ctx context.Context, n int) (int, error)
	// Claim takes due messages of up to n endpoints, of one for each tenant: the tenants with the fewest under way first.
	// fast chooses the endpoints that are so, or the others.
	Claim(ctx context.Context, n int, fast bool) ([]Task, error)
	// Finish writes how an attempt went, unless somebody else has taken the message since.
	Finish(ctx context.Context, t Task, r Result) error
	// Sweep forgets what is old.
	Sweep(ctx context.Context) error
	// Measure looks at what there is.
	Measure(ctx context.Context) (Measures, error)
}

// Poster calls receivers; [egress.Client] is one.
type Poster interface {
	Post(ctx context.Context, url string, header http.Header, body []byte) (*egress.Answer, error)
}

// Config is what a Dispatcher needs.
type Config struct {
	Queue  Queue
	Poster Poster
	Clock  func() time.Time
	Log    *slog.Logger
	// Meters makes the metrics. Default: nothing is counted.
	Meters metric.MeterProvider
	// Workers is how many messages may be under way in this process; they wait more than they work. Half of them are
	// for endpoints that are fast, half for all others. Default 1024.
	Workers int
	// Poll is how long nobody looks when nothing was there. Default 250 ms.
	Poll time.Duration
}

// Dispatcher sends messages. Any number of processes may have one.
type Dispatcher struct {
	cfg        Config
	metrics    *metrics
	fast, slow *lane
	sending    sync.WaitGroup
	// spare is the one connection to the database for what is not fast: hundreds of receivers that hang end their calls in
	// one moment, and may not take the connections of those that work.
	spare chan struct{}
}

// NewDispatcher returns a Dispatcher, whose Run does the work.
func NewDispatcher(cfg Config) *Dispatcher {
	if cfg.Workers <= 0 {
		cfg.Workers = defaultWorkers
	}
	if cfg.Poll <= 0 {
		cfg.Poll = defaultPoll
	}
	return &Dispatcher{
		cfg: cfg, metrics: newMetrics(cfg.Meters),
		fast:  &lane{fast: true, most: PerFast, wake: make(chan struct{}, 1)},
		slow:  &lane{most: PerSlow, wake: make(chan struct{}, 1)},
		spare: make(chan struct{}, 1),
	}
}

// lane is the endpoints that are fast, or the others. Each lane has a loop and half of the places of its own, so that
// what the others cost is not waited for.
type lane struct {
	fast bool
	// most is how many messages an endpoint may have under way, busy how many all have in this process.
	most int
	busy atomic.Int64
	wake chan struct{}
}

// look has the lane's loop look for work now.
func (l *lane) look() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Run sends until ctx ends; it then gives back what is under way, to be sent by another process. A process that ends
// otherwise keeps others from its messages for as long as [Lease].
func (d *Dispatcher) Run(ctx context.Context) error {
	defer d.sending.Wait()
	var loops sync.WaitGroup
	defer loops.Wait()
	for _, l := range []*lane{d.fast, d.slow} {
		loops.Go(func() { d.serve(ctx, l) })
	}
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	look := time.NewTicker(measureEvery)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
			found, err := d.cfg.Queue.Measure(ctx)
			if d.report(ctx, "measure the queue", err); err == nil {
				d.metrics.queue.Store(&found)
			}
		case <-sweep.C:
			d.report(ctx, "forget old messages", d.cfg.Queue.Sweep(ctx))
		}
	}
}

func (d *Dispatcher) serve(ctx context.Context, l *lane) {
	poll := time.NewTicker(d.cfg.Poll)
	defer poll.Stop()
	for {
		for d.round(ctx, l) && ctx.Err() == nil {
		}
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		case <-poll.C:
		}
	}
}

// round starts to send what is due in a lane, and says whether there may be more. That of the fast lane makes messages
// of events first.
func (d *Dispatcher) round(ctx context.Context, l *lane) (more bool) {
	if l.fast {
		events, err := d.cfg.Queue.FanOut(ctx, batch)
		d.report(ctx, "make messages of events", err)
		if more = events == batch; events > 0 {
			d.slow.look()
		}
	}
	endpoints := (d.cfg.Workers/2 - int(l.busy.Load())) / l.most
	if endpoints <= 0 {
		return more
	}
	if !l.fast {
		d.spare <- struct{}{}
	}
	tasks, err := d.cfg.Queue.Claim(ctx, endpoints, l.fast)
	if !l.fast {
		<-d.spare
	}
	d.report(ctx, "take messages", err)
	for _, t := range tasks {
		l.busy.Add(1)
		d.sending.Go(func() {
			d.send(ctx, t)
			l.busy.Add(-1)
			l.look()
		})
	}
	return more || len(tasks) > 0
}

// report logs an error and lets a moment pass, for the next try will most likely end the same way.
func (d *Dispatcher) report(ctx context.Context, what string, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	d.cfg.Log.WarnContext(ctx, "webhooks: cannot "+what, "error", err)
	select {
	case <-ctx.Done():
	case <-time.After(errorPause):
	}
}

// send makes one attempt and writes down how it went, for as long as the message is this process's.
func (d *Dispatcher) send(ctx context.Context, t Task) {
	lease, cancel := context.WithTimeout(context.WithoutCancel(ctx), Lease)
	defer cancel()
	start := d.cfg.Clock()
	r := d.attempt(ctx, t)
	took := d.cfg.Clock().Sub(start)
	defer func() { d.metrics.attempt(lease, t, r, took) }()
	if ctx.Err() != nil && !r.Delivered {
		r = Result{Released: true}
		lease, cancel = context.WithTimeout(lease, releaseLimit)
		defer cancel()
	}
	if !r.Delivered {
		d.spare <- struct{}{}
		defer func() { <-d.spare }()
	}
	for {
		err := d.cfg.Queue.Finish(lease, t, r)
		if err == nil || lease.Err() != nil {
			return
		}
		d.report(lease, "write how an attempt went", err)
	}
}

func (d *Dispatcher) attempt(ctx context.Context, t Task) Result {
	if len(t.Keys) == 0 {
		d.cfg.Log.ErrorContext(ctx, "webhooks: no key of an endpoint opens", "endpoint", t.EndpointUID)
		return judge(t, nil, &egress.Error{Class: "NO_KEY"}, rand.Float64()) //nolint:gosec // jitter
	}
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	body, start := []byte(t.Body), d.cfg.Clock()
	answer, err := d.cfg.Poster.Post(ctx, t.URL, Header(MessageID(t.DeliveryUID), start, body, t.Keys), body)
	r := judge(t, answer, err, rand.Float64()) //nolint:gosec // jitter
	r.Fast = r.Delivered && d.cfg.Clock().Sub(start) < soon
	return r
}
