// Package usage tells Rowhouse what tenants use: a client that makes an event's id once, keeps the event until it is counted,
// and sends it again after any failure. The server counts an id once, so that nothing is lost and nothing counts twice.
//
// With a folder ([Config].Dir) an event survives the end of the process as soon as [Recorder.Record] has returned. To count
// exactly what a transaction of the product commits, write the event in it: see package outbox. This is not the place to ask
// how much may be used; that is sdk/limits and sdk/quotas. Start at [Open].
package usage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// Event is something that a tenant used.
type Event struct {
	// ID is a UUID of version 7, or with Source any id of that source. Default: a new one. Give one where the same event may
	// come to be recorded twice.
	ID string
	// Source is the system that made a foreign ID. Such an event needs a Time, the same each time.
	Source string
	// Meter is the meter's id, "api-calls".
	Meter string
	// Quantity is how much; meters of COUNT and UNIQUE have none.
	Quantity int64
	// Time is when it happened. Default: now.
	Time time.Time
	// Dimensions are values of dimensions that the meter declares.
	Dimensions map[string]string
	// Value is what a meter of UNIQUE tells apart.
	Value string
}

// Outcome says why an event was not counted, "EVENT_TOO_OLD". See rowhouse.quota.v1.EventOutcome.
type Outcome string

// Errors of [Recorder.Record].
var (
	// ErrFull says that as much waits to be sent as may: the caller decides whether to try again or to go on.
	ErrFull = errors.New("usage: too much waits to be sent")
	// ErrClosed says that the recorder was closed.
	ErrClosed = errors.New("usage: the recorder is closed")
	// ErrEvent says that an event could never be counted.
	ErrEvent = errors.New("usage: not an event")
)

// Config makes a [Recorder]. Only Quota is required.
type Config struct {
	// Quota is a connection to the quota service, with the options of tenantgrpc.Client.
	Quota grpc.ClientConnInterface
	// Dir keeps events until they are counted, through crashes of the process and the machine. It belongs to one process at a
	// time. Default: events wait in memory, and end with the process.
	Dir string
	// MaxEvents bounds what waits in memory. Default 100,000.
	MaxEvents int
	// MaxBytes bounds what waits in Dir. Default 256 MiB.
	MaxBytes int64
	// Linger is how long events are collected before they are sent. Default 200 ms.
	Linger time.Duration
	// Contexts returns a context that acts for a tenant, for events whose own context has ended before they were counted,
	// as those that a crash left behind. Default: they wait for the tenant's next event.
	Contexts func(ctx context.Context, tenantUID tenant.UID) (context.Context, error)
	// Refused hears of events that the server will never count. It is called by one goroutine. Default: they are logged.
	Refused func(tenantUID tenant.UID, e Event, why Outcome)
	// Clock is the time. Default time.Now.
	Clock func() time.Time
	// Log gets what nobody is told. Default slog.Default().
	Log *slog.Logger
}

const (
	defaultEvents = 100_000
	defaultBytes  = 256 << 20
	defaultLinger = 200 * time.Millisecond

	maxEvents = 1000
	// maxRequest leaves room below the 1 MiB that a request may have.
	maxRequest = 1<<20 - 4096
	maxEvent   = 8 << 10
	maxText    = 200
	maxName    = 63
	maxDims    = 4
)

// Recorder records events. It is safe for concurrent use.
type Recorder struct {
	config  Config
	service quotav1.MeterServiceClient
	spool   spool
	wake    chan struct{}
	done    chan struct{}
	stop    context.CancelFunc
	paused  map[tenant.UID]paused // of the goroutine that sends

	mu       sync.Mutex
	contexts map[tenant.UID]tenant.Context // the newest of each tenant with events
	waiting  int                           // events that are neither counted nor refused
	settled  chan struct{}                 // closed when something was settled
	closed   bool
}

// record is an event on its way.
type record struct {
	tenant tenant.UID
	event  *quotav1.UsageEvent
}

func (r record) size() int { return proto.Size(r.event) + 8 } //nolint:mnd // a tag and a length

// Open makes a recorder, and goes on with what waits in the folder. ctx carries values for its calls; it does not end them.
// The caller closes the recorder.
func Open(ctx context.Context, c Config) (*Recorder, error) {
	if c.Quota == nil {
		return nil, errors.New("usage: Quota is required")
	}
	if c.MaxEvents == 0 {
		c.MaxEvents = defaultEvents
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = defaultBytes
	}
	if c.Linger == 0 {
		c.Linger = defaultLinger
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	r := &Recorder{
		config: c, service: quotav1.NewMeterServiceClient(c.Quota), wake: make(chan struct{}, 1), done: make(chan struct{}),
		contexts: map[tenant.UID]tenant.Context{}, settled: make(chan struct{}), paused: map[tenant.UID]paused{},
	}
	r.spool = &memory{most: c.MaxEvents}
	if c.Dir != "" {
		d, left, err := openDisk(c.Dir, c.MaxBytes)
		if err != nil {
			return nil, fmt.Errorf("usage: %w", err)
		}
		r.spool, r.waiting = d, left
	}
	ctx, r.stop = context.WithCancel(context.WithoutCancel(ctx))
	go r.run(ctx)
	if r.waiting > 0 {
		r.poke()
	}
	return r, nil
}

// Record takes events of the tenant of ctx: all of them, or none with an error. With a folder they are on the disk when it
// returns. Errors: CONTEXT_MISSING without a tenant; [ErrEvent]; [ErrFull]; [ErrClosed]; and those of the disk, after which it is
// not known whether the events were taken: give them ids to record them again.
func (r *Recorder) Record(ctx context.Context, events ...Event) error {
	tc, err := tenant.FromContext(ctx)
	if err != nil {
		return err
	}
	records := make([]record, 0, len(events))
	for _, e := range events {
		m, err := Encode(e, r.config.Clock())
		if err != nil {
			return err
		}
		records = append(records, record{tc.UID(), m})
	}
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return ErrClosed
	}
	r.waiting += len(records)
	if last, ok := r.contexts[tc.UID()]; !ok || last.ExpireTime().Before(tc.ExpireTime()) {
		r.contexts[tc.UID()] = tc
	}
	r.mu.Unlock()
	if err := r.spool.add(records); err != nil {
		r.settle(len(records))
		return err
	}
	r.poke()
	return nil
}

// Encode returns an event as it is sent, with its id and time filled in. It fails with [ErrEvent] for what no server would
// count; whether the meter exists and declares the dimensions only the server knows.
func Encode(e Event, now time.Time) (*quotav1.UsageEvent, error) {
	if e.Time.IsZero() {
		if e.Source != "" {
			return nil, fmt.Errorf("%w: an id of another system needs the event's own time", ErrEvent)
		}
		e.Time = now
	}
	switch {
	case e.Source != "" && (e.ID == "" || len(e.ID) > maxText || len(e.Source) > maxName):
		return nil, fmt.Errorf("%w: a foreign id has 1 to 200 bytes, and its source at most 63", ErrEvent)
	case e.Source == "" && e.ID == "":
		e.ID = newID(e.Time)
	case e.Source == "":
		if id, err := uuid.Parse(e.ID); err != nil || id.Version() != 7 {
			return nil, fmt.Errorf("%w: the id is not a UUID of version 7", ErrEvent)
		}
	}
	if e.Meter == "" || len(e.Meter) > maxName || len(e.Value) > maxText || len(e.Dimensions) > maxDims {
		return nil, fmt.Errorf("%w: meter, value or dimensions are out of bounds", ErrEvent)
	}
	m := &quotav1.UsageEvent{
		Id: e.ID, Source: e.Source, Meter: e.Meter, Quantity: e.Quantity, Time: timestamppb.New(e.Time.Truncate(time.Microsecond)),
		Dimensions: e.Dimensions, Value: e.Value,
	}
	for name, value := range e.Dimensions {
		if len(name) > maxName || value == "" || len(value) > maxText || !utf8.ValidString(name) || !utf8.ValidString(value) {
			return nil, fmt.Errorf("%w: a dimension has 1 to 200 bytes of UTF-8", ErrEvent)
		}
	}
	for _, text := range []string{e.ID, e.Source, e.Meter, e.Value} {
		if !utf8.ValidString(text) {
			return nil, fmt.Errorf("%w: not UTF-8", ErrEvent)
		}
	}
	if proto.Size(m) > maxEvent {
		return nil, fmt.Errorf("%w: too large", ErrEvent)
	}
	return proto.Clone(m).(*quotav1.UsageEvent), nil //nolint:forcetypeassert // a clone has its type; the caller's map may change
}

// newID makes a UUIDv7 of an event's time.
func newID(at time.Time) string {
	var u uuid.UUID
	_, _ = rand.Read(u[:]) // never fails
	ms := max(at.UnixMilli(), 0)
	for i := range 6 {
		u[i] = byte(ms >> (40 - 8*i)) //nolint:gosec // the bits of a byte
	}
	u[6] = u[6]&0x0f | 0x70
	u[8] = u[8]&0x3f | 0x80
	return u.String()
}

// Waiting is how many events are neither counted nor refused.
func (r *Recorder) Waiting() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.waiting
}

// Flush sends what waits, and returns when nothing does any more or ctx ends.
func (r *Recorder) Flush(ctx context.Context) error {
	for {
		r.mu.Lock()
		waiting, settled := r.waiting, r.settled
		r.mu.Unlock()
		if waiting == 0 {
			return nil
		}
		r.poke()
		select {
		case <-settled:
		case <-r.done:
			return ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Close takes no more events, sends what waits until ctx ends, and returns an error when something is left. What is left in a
// folder is sent by the recorder that opens it next.
func (r *Recorder) Close(ctx context.Context) error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return ErrClosed
	}
	r.closed = true
	r.mu.Unlock()
	err := r.Flush(ctx)
	r.stop()
	<-r.done
	if closeErr := r.spool.close(); err == nil {
		err = closeErr
	}
	if left := r.Waiting(); left > 0 {
		return fmt.Errorf("usage: %d events are not counted: %w", left, err)
	}
	return err
}

// settle notes that n events wait no more.
func (r *Recorder) settle(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = max(r.waiting-n, 0)
	close(r.settled)
	r.settled = make(chan struct{})
}

func (r *Recorder) poke() {
	select {
	case r.wake <- struct{}{}:
	default: // it is awake
	}
}
