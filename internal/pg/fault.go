package pg

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/puddle/v2"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

// SQLSTATEs that stores and this package tell apart.
const (
	CodeUniqueViolation     = "23505"
	CodeForeignKeyViolation = "23503"
	CodeCheckViolation      = "23514"

	codeSerializationFailure = "40001"
	codeDeadlockDetected     = "40P01"
	codeQueryCanceled        = "57014"
	codeLockNotAvailable     = "55P03"
	codeReadOnly             = "25006"
	codeTooManyConnections   = "53300"
	codeIdleTimeout          = "25P03"

	classConnection = "08"
	classResources  = "53"
	classOperator   = "57P"
)

const (
	retryAfter = time.Second
	retrySoon  = 50 * time.Millisecond
)

// Code returns the SQLSTATE in err's chain, or "".
func Code(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

// Constraint returns the constraint that err says was violated, or "". Stores map it to the reason they own.
func Constraint(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.ConstraintName
	}
	return ""
}

// Fault gives err the kind and reason that callers act on. What is already a fault, and what has no meaning for
// callers (a violated constraint that no store expected, a broken statement), is returned as it is and ends as
// INTERNAL. The database's own text is never in a message; err stays the cause.
func Fault(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := fault.As(err); ok {
		return err
	}
	if code := Code(err); code != "" {
		return codeFault(code, err)
	}
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, context.DeadlineExceeded) && !errors.As(err, new(*pgconn.ConnectError)):
		return tooLate(err)
	case unreachable(err):
		return away(err)
	default:
		return err
	}
}

func codeFault(code string, err error) error {
	switch {
	case code == codeQueryCanceled:
		return tooLate(err)
	case code == codeSerializationFailure, code == codeDeadlockDetected, code == codeLockNotAvailable:
		return fault.New(fault.Unavailable, fault.ReasonDependency, "too many calls change the same records").
			WithRetry(retrySoon).WithCause(err)
	case connectionLost(code), code == codeReadOnly, code == codeTooManyConnections:
		return away(err)
	case strings.HasPrefix(code, classResources):
		return fault.New(fault.ResourceExhausted, fault.ReasonOverloaded, "the database has no room left").
			WithRetry(retryAfter).WithCause(err)
	default:
		return err
	}
}

func tooLate(err error) error {
	return fault.New(fault.DeadlineExceeded, fault.ReasonDeadlineTooShort, "the database did not answer in time").
		WithCause(err)
}

func away(err error) error {
	return fault.New(fault.Unavailable, fault.ReasonDependency, "the database cannot be reached").
		WithRetry(retryAfter).WithCause(err)
}

// connectionLost reports whether code says that the server ended the connection.
func connectionLost(code string) bool {
	return strings.HasPrefix(code, classConnection) || strings.HasPrefix(code, classOperator) || code == codeIdleTimeout
}

func unreachable(err error) bool {
	var network net.Error
	return errors.As(err, new(*pgconn.ConnectError)) || errors.As(err, &network) || pgconn.SafeToRetry(err) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, puddle.ErrClosedPool)
}

// lostRace reports whether another transaction was the reason and another try may succeed.
func lostRace(err error) bool {
	code := Code(err)
	return code == codeSerializationFailure || code == codeDeadlockDetected
}
