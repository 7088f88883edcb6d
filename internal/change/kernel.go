package change

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/protobuf/proto"

	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/internal/rule"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

// Channel is the name that the relay notifies and watch servers listen on.
const Channel = "rowhouse_change"

// Config is what a Kernel needs.
type Config struct {
	// Pool connects to the service's own database, as its service role.
	Pool *pgxpool.Pool
	// Ordinary bounds the calls that change something and run at once, urgent ones apart: each holds a connection also while it
	// waits for another's lock. Default: no bound.
	Ordinary int
	// Service is the name that audit events carry, for example "tenancy".
	Service string
	// Clock is the time for bounds that need no agreement between replicas. Default time.Now.
	Clock func() time.Time
	// Meters makes the kernel's counters. Default: nothing is counted.
	Meters metric.MeterProvider
	// Log gets what callers are not told. Default slog.Default().
	Log *slog.Logger
}

// Kernel runs units of work. It is safe for concurrent use.
type Kernel struct {
	pool    *pgxpool.Pool
	service string
	clock   func() time.Time
	log     *slog.Logger
	wake    chan struct{}
	refused *refusals
	// ordinary holds a value for each ordinary change that runs; nil for no bound.
	ordinary chan struct{}
	// suppressed counts refused calls that left no event.
	suppressed metric.Int64Counter
	pages      atomic.Pointer[[]byte] // the key that seals page tokens, once read
}

// New returns a Kernel. [Kernel.Run] must run beside it, or watchers learn of changes only by polling.
func New(cfg Config) *Kernel {
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Meters == nil {
		cfg.Meters = noop.NewMeterProvider()
	}
	var ordinary chan struct{}
	if cfg.Ordinary > 0 {
		ordinary = make(chan struct{}, cfg.Ordinary)
	}
	return &Kernel{
		ordinary: ordinary,

		pool:    cfg.Pool,
		service: cfg.Service,
		clock:   cfg.Clock,
		log:     cfg.Log,
		wake:    make(chan struct{}, 1),
		refused: newRefusals(),

		suppressed: newSuppressed(cfg.Meters),
	}
}

// Func is the work of one call. It may be run again from the start when the transaction lost a race in the database,
// so it keeps its effects in tx and in what it returns.
type Func func(ctx context.Context, tx *Tx) (proto.Message, error)

// Do is [Kernel.Change] for an answer of a known type.
func Do[T proto.Message](ctx context.Context, k *Kernel, fn func(context.Context, *Tx) (T, error)) (T, error) {
	return typed[T](k.Change(ctx, untyped(fn)))
}

// DoUrgently is [Kernel.ChangeUrgently] for an answer of a known type.
func DoUrgently[T proto.Message](ctx context.Context, k *Kernel, fn func(context.Context, *Tx) (T, error)) (T, error) {
	return typed[T](k.ChangeUrgently(ctx, untyped(fn)))
}

// View is [Kernel.Read] for an answer of a known type.
func View[T proto.Message](ctx context.Context, k *Kernel, fn func(context.Context, *Tx) (T, error)) (T, error) {
	return typed[T](k.Read(ctx, untyped(fn)))
}

func untyped[T proto.Message](fn func(context.Context, *Tx) (T, error)) Func {
	return func(ctx context.Context, tx *Tx) (proto.Message, error) {
		m, err := fn(ctx, tx)
		if err != nil {
			return nil, err
		}
		return m, nil
	}
}

func typed[T proto.Message](m proto.Message, err error) (T, error) {
	var none T
	if err != nil {
		return none, err
	}
	t, ok := m.(T)
	if !ok {
		return none, fault.New(fault.Internal, reasonInternal, "the stored answer has another type")
	}
	return t, nil
}

// Change runs fn in a transaction and commits its rows, its audit event, its published entries and its answer
// together.
//
// A call with a request_id that was answered within 24 hours gets the first answer again, which is audited as a replay,
// and fn does not run; a twin that is still running is waited for. The same id with another request is refused with
// REQUEST_ID_REUSED. A call that only validates runs fn, takes back all its effects and is audited as such.
//
// Errors of fn are returned as [pg.Fault] makes them, after the failed call was audited. Beyond those:
// AUDIT_UNAVAILABLE when the event cannot be written, DEPENDENCY_UNAVAILABLE when the database cannot be reached and
// nothing was done, and OUTCOME_UNKNOWN when the connection was lost during the commit; a retry with the same
// request_id resolves that.
func (k *Kernel) Change(ctx context.Context, fn Func) (proto.Message, error) {
	leave, err := k.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	return k.run(ctx, fn, true)
}

// ChangeUrgently is [Kernel.Change] that waits for no room among ordinary ones. It is for what stops something, and locks
// nothing that ordinary changes hold for long.
func (k *Kernel) ChangeUrgently(ctx context.Context, fn Func) (proto.Message, error) {
	return k.run(ctx, fn, true)
}

// enter waits for room. Without it until ctx ends, the call did nothing.
func (k *Kernel) enter(ctx context.Context) (leave func(), err error) {
	if k.ordinary == nil {
		return func() {}, nil
	}
	select {
	case k.ordinary <- struct{}{}:
		return func() { <-k.ordinary }, nil
	case <-ctx.Done():
		return nil, fault.New(fault.Unavailable, fault.ReasonOverloaded, "too many other changes wait for one another; try again").
			WithRetry(time.Second)
	}
}

// Read runs fn in a transaction and returns its answer after the call's audit event is committed. fn may not publish.
// Errors are those of [Kernel.Change].
func (k *Kernel) Read(ctx context.Context, fn Func) (proto.Message, error) {
	return k.run(ctx, fn, false)
}

// Opened records that a stream opens; its first message is sent after it returned. A method whose rule asks for no
// audit is not recorded.
func (k *Kernel) Opened(ctx context.Context, resource string) error {
	_, err := k.Read(ctx, func(_ context.Context, tx *Tx) (proto.Message, error) {
		tx.Audit(resource)
		return tx.call.Request, nil
	})
	return err
}

func (k *Kernel) run(ctx context.Context, fn Func, writable bool) (proto.Message, error) {
	call, ok := rule.CallFrom(ctx)
	if !ok || call.Rule == nil {
		return nil, fault.New(fault.Internal, reasonInternal, "the unit of work has no call")
	}
	var m proto.Message
	last := &unit{tx: new(Tx)} // try; what it named is audited also when it fails
	err := pg.Tx(ctx, k.pool, pg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) (err error) {
		u := &unit{kernel: k, tx: &Tx{kernel: k, tx: tx, call: call, tenant: actingTenant(ctx, call), writable: writable}, fn: fn}
		last = u
		m, err = u.run(ctx)
		return err
	})
	if err != nil {
		k.refuse(ctx, call, err, last.tx)
		return nil, err
	}
	if last.published {
		k.notify()
	}
	return m, nil
}

func (k *Kernel) notify() {
	select {
	case k.wake <- struct{}{}:
	default: // a wake-up is on its way and will carry this change too
	}
}

// pageKey returns the key that all replicas of the service seal page tokens with.
func (k *Kernel) pageKey(ctx context.Context, tx *Tx) ([]byte, error) {
	if key := k.pages.Load(); key != nil {
		return *key, nil
	}
	var key []byte
	if err := tx.QueryRow(ctx, `SELECT key FROM kernel.page_key`).Scan(&key); err != nil {
		return nil, err
	}
	k.pages.Store(&key)
	return key, nil
}
