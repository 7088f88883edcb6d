package change

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/protobuf/proto"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

// Channel is the name that the relay notifies and watch servers listen on.
const Channel = "rowhouse_change"

// maxTries bounds how often a transaction is begun again after a serialization failure or a deadlock.
const maxTries = 5

// Config is what a Kernel needs.
type Config struct {
	// Pool connects to the service's own database, as its service role.
	Pool *pgxpool.Pool
	// Service is the name that audit events carry, for example "tenancy".
	Service string
	// Clock is the time for bounds that need no agreement between replicas. Default time.Now.
	Clock func() time.Time
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
	retries atomic.Int64
}

// New returns a Kernel. [Kernel.Run] must run beside it, or watchers learn of changes only by polling.
func New(cfg Config) *Kernel {
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	return &Kernel{
		pool:    cfg.Pool,
		service: cfg.Service,
		clock:   cfg.Clock,
		log:     cfg.Log,
		wake:    make(chan struct{}, 1),
		refused: newRefusals(),
	}
}

// Func is the work of one call. It may be run again from the start when the transaction lost a race in the database,
// so it keeps its effects in tx and in what it returns.
type Func func(ctx context.Context, tx *Tx) (proto.Message, error)

// Do is [Kernel.Change] for an answer of a known type.
func Do[T proto.Message](ctx context.Context, k *Kernel, fn func(context.Context, *Tx) (T, error)) (T, error) {
	return typed[T](k.Change(ctx, untyped(fn)))
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
// A call with a request_id that was answered within 24 hours gets the first answer again and fn does not run; a twin
// that is still running is waited for. The same id with another request is refused with REQUEST_ID_REUSED. A call that
// only validates runs fn, takes back all its effects and is audited as such.
//
// Errors of fn are returned as they are, after the failed call was audited. Beyond those: AUDIT_UNAVAILABLE when the
// event cannot be written, and DEPENDENCY_UNAVAILABLE when the database cannot be reached; its metadata "outcome" is
// "none" when nothing was done, and "unknown" when the connection was lost during the commit, which a retry with the
// same request_id resolves.
func (k *Kernel) Change(ctx context.Context, fn Func) (proto.Message, error) {
	return k.run(ctx, fn, true)
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
		return nil, nil
	})
	return err
}

func (k *Kernel) run(ctx context.Context, fn Func, writable bool) (proto.Message, error) {
	call, ok := CallFrom(ctx)
	if !ok || call.Rule == nil {
		return nil, fault.New(fault.Internal, reasonInternal, "the unit of work has no call")
	}
	var m proto.Message
	var err error
	for try := 1; ; try++ {
		m, err = k.try(ctx, call, fn, writable)
		if try == maxTries || !lostRace(err) || ctx.Err() != nil {
			break
		}
		k.retries.Add(1)
	}
	if err == nil {
		return m, nil
	}
	err = k.classify(ctx, err)
	k.refuse(ctx, call, err)
	return nil, err
}

// try is one transaction.
func (k *Kernel) try(ctx context.Context, call Call, fn Func, writable bool) (proto.Message, error) {
	pgtx, err := k.pool.Begin(ctx)
	if err != nil {
		return nil, err
	}
	u := &unit{kernel: k, tx: &Tx{tx: pgtx, call: call, writable: writable}, fn: fn}
	// The caller may be gone by now; the connection must still be cleaned.
	defer func() { _ = pgtx.Rollback(context.WithoutCancel(ctx)) }()
	m, commit, err := u.run(ctx)
	if err != nil || !commit {
		return m, err
	}
	if err := pgtx.Commit(ctx); err != nil {
		return nil, commitError(err)
	}
	if len(u.tx.entries) > 0 && !call.ValidateOnly {
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

// lostRace reports whether err says that the transaction lost to another one and may simply be tried again.
func lostRace(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pgErr.Code == "40001" || pgErr.Code == "40P01")
}

// unknownOutcome marks a commit whose answer never came.
type unknownOutcome struct{ err error }

func (e *unknownOutcome) Error() string { return "outcome of the commit is unknown: " + e.err.Error() }
func (e *unknownOutcome) Unwrap() error { return e.err }

func commitError(err error) error {
	if errors.Is(err, pgx.ErrTxCommitRollback) {
		return err
	}
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if ok && pgErr.Severity != "FATAL" && pgErr.Severity != "PANIC" {
		return err
	}
	return &unknownOutcome{err}
}

// classify turns what the database said into what the caller may know. Faults pass unchanged.
func (k *Kernel) classify(ctx context.Context, err error) error {
	if _, ok := fault.As(err); ok {
		return err
	}
	if _, ok := errors.AsType[*unknownOutcome](err); ok {
		return unavailable("unknown", err)
	}
	if cause := ctx.Err(); cause != nil {
		return cause
	}
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case !ok && (pgconn.SafeToRetry(err) || isConnect(err)):
		return unavailable("none", err)
	case ok && (pgErr.Code[:2] == "08" || pgErr.Code[:2] == "57" || pgErr.Code[:2] == "53" || lostRace(err)):
		return unavailable("none", err)
	default:
		return err
	}
}

func isConnect(err error) bool {
	_, ok := errors.AsType[*pgconn.ConnectError](err)
	return ok || pgconn.Timeout(err) || isNet(err)
}

func unavailable(outcome string, cause error) error {
	return fault.New(fault.Unavailable, reasonDependency, "the database cannot be reached; retry with the same request_id").
		WithMetadata("outcome", outcome).WithRetry(time.Second).WithCause(cause)
}
