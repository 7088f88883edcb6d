package pg

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

const (
	defaultTries = 5
	firstWait    = 5 * time.Millisecond
	// answerTime is kept back from a deadline so that the answer still reaches its caller.
	answerTime  = 20 * time.Millisecond
	cleanupTime = time.Second
)

// Beginner starts transactions: a *pgxpool.Pool or a *pgx.Conn.
type Beginner interface {
	BeginTx(ctx context.Context, opts pgx.TxOptions) (pgx.Tx, error)
}

// TxOptions tune [Tx]. The zero value is a read-write transaction of the database's default isolation level.
type TxOptions struct {
	// Isolation is the isolation level; empty for the database's default, READ COMMITTED.
	Isolation pgx.TxIsoLevel
	// ReadOnly refuses writes.
	ReadOnly bool
	// Tries bounds how often the transaction runs when it is refused for concurrency. Default 5.
	Tries int
	// Jitter picks the wait before another try, between 0 and most. Default: uniformly random.
	Jitter func(most time.Duration) time.Duration
}

// Tx runs fn in a transaction and commits it when fn returns nil. A transaction that the database refuses because of
// another one (40001, 40P01) runs again, so fn must have no effect outside tx; nothing else is retried. Statements
// end before the deadline of ctx. Errors of fn come back as [Fault] makes them. When the connection is lost during
// COMMIT the outcome is unknown: the fault OUTCOME_UNKNOWN asks the caller to repeat with the same request_id.
func Tx(ctx context.Context, db Beginner, opts TxOptions, fn func(ctx context.Context, tx pgx.Tx) error) error {
	if opts.Tries <= 0 {
		opts.Tries = defaultTries
	}
	if opts.Jitter == nil {
		opts.Jitter = func(most time.Duration) time.Duration { return rand.N(most) + 1 } //nolint:gosec // a pause is no secret
	}
	var err error
	for try := range opts.Tries {
		if try > 0 && !wait(ctx, opts.Jitter(firstWait<<try)) {
			break
		}
		if err = attempt(ctx, db, opts, fn); !lostRace(err) {
			break
		}
	}
	return Fault(err)
}

func attempt(
	ctx context.Context, db Beginner, opts TxOptions, fn func(ctx context.Context, tx pgx.Tx) error,
) (err error) {
	begin, err := beginSQL(ctx, opts)
	if err != nil {
		return err
	}
	tx, err := db.BeginTx(ctx, pgx.TxOptions{BeginQuery: begin})
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() {
		// After a commit this does nothing; after a lost connection its error says nothing new.
		ctx, cancel := cleanup(ctx)
		defer cancel()
		_ = tx.Rollback(ctx)
	}()
	if err := fn(ctx, tx); err != nil {
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return commitError(err)
	}
	return nil
}

// cleanup is the time for what must be tried also when ctx has ended. A server that went silent does not hold the caller
// for longer; the connection is closed then, which undoes as well.
func cleanup(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
}

// beginSQL puts the statement timeout into the round trip of BEGIN.
func beginSQL(ctx context.Context, opts TxOptions) (string, error) {
	sql := "begin"
	if opts.Isolation != "" {
		sql += " isolation level " + string(opts.Isolation)
	}
	if opts.ReadOnly {
		sql += " read only"
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		return sql, nil
	}
	left := time.Until(deadline) - answerTime
	if left < time.Millisecond {
		return "", fault.New(fault.DeadlineExceeded, fault.ReasonDeadlineTooShort, "too little time is left to begin")
	}
	return sql + "; set local statement_timeout = " + milliseconds(min(left, serverTimeout)), nil
}

// commitError tells a refused commit, which had no effect, from one whose answer was lost.
func commitError(err error) error {
	if errors.Is(err, pgx.ErrTxCommitRollback) {
		return fmt.Errorf("commit: a failed statement was ignored: %w", err)
	}
	var refused *pgconn.PgError
	if errors.As(err, &refused) && !connectionLost(refused.Code) {
		return fmt.Errorf("commit: %w", err)
	}
	return fault.New(fault.Unavailable, fault.ReasonOutcomeUnknown,
		"the connection was lost during commit; repeat with the same request_id to learn the outcome").
		WithRetry(retryAfter).WithCause(err)
}

func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
