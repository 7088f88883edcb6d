package tenantdb

import (
	"context"
	"errors"
	"net"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

// loss is an error that came because the connection went: the server stopped, failed over,
// or somebody ended the session. It says nothing about the statement or the tenant.
type loss struct{ err error }

func (l *loss) Error() string { return "connection lost: " + l.err.Error() }
func (l *loss) Unwrap() error { return l.err }

// left is the error of a call whose time ended before all answers came. What was sent may have
// run to its end.
type left struct{ err error }

func (l *left) Error() string { return l.err.Error() }
func (l *left) Unwrap() error { return l.err }

func isLeft(err error) bool {
	_, is := errors.AsType[*left](err)
	return is
}

// judge returns err as a loss or as left when it is one. An open connection was not lost, whatever
// err looks like: functions of the caller return errors of other connections.
func (l lease) judge(err error) error {
	if err == nil || !l.IsClosed() {
		return err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return &left{err} // pgx closed it
	}
	if code := sqlState(err); code != "" && !isLossCode(code) {
		return err
	}
	return &loss{err}
}

// isLossCode reports whether the server says with a SQLSTATE that it ends the session:
// class 08, and shutdown, crash, not yet up and idle too long.
func isLossCode(code string) bool {
	switch code {
	case "57P01", "57P02", "57P03", "57P05":
		return true
	}
	return strings.HasPrefix(code, "08")
}

func isLost(err error) bool {
	_, lost := errors.AsType[*loss](err)
	return lost
}

// isUnsent reports whether what was to commit was not sent to its end, so that it cannot
// have happened. The last message commits: a write that failed did not bring it over. pgx's
// "conn closed" is no proof, although SafeToRetry has it among the errors from before
// sending: pgx may drop the error by which an answer was lost, and then find its connection
// closed.
func isUnsent(err error) bool {
	if _, preparing := errors.AsType[pgx.ErrPreprocessingBatch](err); preparing {
		return true
	}
	if pgconn.SafeToRetry(err) && !errors.Is(err, pgconn.ErrConnClosed) {
		return true
	}
	wire, ok := errors.AsType[*net.OpError](err)
	return ok && wire.Op == "write"
}

// isUndone reports whether a batch whose prologue was lost cannot have run to its end: it
// was not sent, or its statements were still being prepared, or the server ended the session
// where the prologue's answer belongs and so had not gone beyond it. A pooler may end it in
// another order; it does not name a routine.
func isUndone(err error) bool {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Routine == "ProcessInterrupts"
	}
	return isUnsent(err)
}

// unknown is the answer when a commit was sent and its answer was lost, or was no promise.
func unknown(err error) error {
	return fault.New(fault.Unavailable, fault.ReasonOutcomeUnknown, "the change may or may not have happened").
		WithCause(errors.Join(ErrOutcome, err))
}

const unsafeKey = "rowhouse: the last commit is not safe on its standby"

// noteUnsafe remembers that the server gave up waiting for a synchronous standby, because
// somebody cancelled the statement: it then reports a commit, after a mere warning. The
// routine is what tells that warning from others of its SQLSTATE (01000), which an
// application's triggers may raise.
func noteUnsafe(conn *pgconn.PgConn, notice *pgconn.Notice) {
	if notice.Routine == "SyncRepWaitForLSN" {
		conn.CustomData()[unsafeKey] = notice
	}
}

// unsafe returns the warning that came with the last commit, nil when there was none.
func (l lease) unsafe() error {
	data := l.PgConn().CustomData()
	notice, ok := data[unsafeKey].(*pgconn.Notice)
	if !ok {
		return nil
	}
	delete(data, unsafeKey)
	return (*pgconn.PgError)(notice)
}

type pingKey struct{}

// withPing makes the pool ask connections whether they live: after one was lost, the others
// that lie idle are likely to be gone too.
func withPing(ctx context.Context) context.Context { return context.WithValue(ctx, pingKey{}, true) }

func wantsPing(ctx context.Context) bool { return ctx.Value(pingKey{}) != nil }
