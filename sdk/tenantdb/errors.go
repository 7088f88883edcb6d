package tenantdb

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

// What errors.Is finds in the errors of this package, beside the reason of the fault.
var (
	// ErrNoContext says that no tenant context was there, in the call or in the database.
	ErrNoContext = errors.New("no tenant context")
	// ErrMoved says that the tenant is not in that database, or not as the context says. Nothing was
	// done. DB does not try again with a new context, after this or ErrExpired: who made the call does.
	ErrMoved = errors.New("placement is stale")
	// ErrFenced says that the tenant was locked for longer than the call waits.
	ErrFenced = errors.New("tenant is fenced")
	// ErrSeal says that the database refused the seal as not genuine.
	ErrSeal = errors.New("seal refused")
	// ErrDirty says that a connection was in a tenant before it was ours, twice over.
	ErrDirty = errors.New("connection was not clean")
	// ErrExpired says that the context's time is over.
	ErrExpired = errors.New("tenant context expired")
	// ErrSuspended says that the tenant is suspended.
	ErrSuspended = errors.New("tenant is suspended")
	// ErrTimeout says that a statement took longer than the plan or the caller allows.
	ErrTimeout = errors.New("statement timeout")
	// ErrAdmission says that no connection was free in time, or that the tenant held its share of them.
	ErrAdmission = errors.New("no connection free")
	// ErrUnreachable says that the cell's database could not be reached, or went away
	// before anything was committed.
	ErrUnreachable = errors.New("cell unreachable")
	// ErrOutcome says that a commit was sent and its answer was lost, or that it is not
	// safe yet on a standby that commits wait for.
	ErrOutcome = errors.New("outcome unknown")
	// ErrPlan says that a migration changed a table under a prepared statement.
	ErrPlan = errors.New("plan changed")
	// ErrForeignRow says that a statement would have written another tenant's row.
	ErrForeignRow = errors.New("row of another tenant")

	// ErrVerb says that a statement is of a kind that applications have no use for.
	ErrVerb = errors.New("statement refused")
	// ErrArgument says that an argument is an instruction to pgx instead of a value.
	ErrArgument = errors.New("argument refused")
	// ErrTenantChanged says that a transaction was used with another tenant's context.
	ErrTenantChanged = errors.New("transaction belongs to another tenant")
	// ErrNested says that a goroutine in a transaction asked for another connection.
	ErrNested = errors.New("transaction in a transaction")
	// ErrBusy says that a transaction was used while it was in use: by another goroutine,
	// or before the rows of its last query were closed.
	ErrBusy = errors.New("transaction is in use")
	// ErrTxDone says that a transaction was used after its function returned.
	ErrTxDone = errors.New("transaction is over")
	// ErrClosed says that the DB was closed.
	ErrClosed = errors.New("database closed")
)

// ErrNoRows is what Scan returns when the row is not there; it is pgx's own.
var ErrNoRows = pgx.ErrNoRows

// IsUniqueViolation reports whether err says that a unique key is taken, within the tenant.
func IsUniqueViolation(err error) bool { return sqlState(err) == "23505" }

// IsForeignKeyViolation reports whether err says that a referenced row is missing or held.
func IsForeignKeyViolation(err error) bool { return sqlState(err) == "23503" }

// isStalePlan reports whether a migration changed what a statement returns since it was
// prepared, or, behind a pooler, described. It did not run, and pgx has forgotten it.
func isStalePlan(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pg.Code == "0A000" && pg.Routine == "RevalidateCachedQuery" ||
		pg.Code == "08P01" && pg.Routine == "PortalSetResultFormat")
}

// domainTenancy owns the reasons that are about cells.
const domainTenancy = "rowhouse.tenancy"

// reasonCellUnreachable is of domainTenancy.
const reasonCellUnreachable = "CELL_UNREACHABLE"

func sqlState(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code
	}
	return ""
}

// explain turns an error of pgx into what the caller gets. Errors that are about neither
// the tenant nor the connection stay as they are.
func explain(err error) error {
	if err == nil {
		return nil
	}
	if _, done := fault.As(err); done {
		return err
	}
	if isLost(err) {
		return unreachable(err)
	}
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return explainLocal(err)
	}
	f, sentinel := refusal(pg)
	if sentinel == nil {
		return err
	}
	return f.WithCause(errors.Join(sentinel, err))
}

// refusal is the table of what the database says about a tenant: the fault and what
// errors.Is finds in it. The sentinel is nil when it says nothing about one.
func refusal(pg *pgconn.PgError) (f *fault.Error, sentinel error) {
	switch pg.Code {
	case "42501":
		return refusedRight(pg)
	case "RH001":
		return moved(), ErrMoved
	case "RH002":
		return notReady(), ErrFenced
	case "RH003":
		return fault.New(fault.Unauthenticated, fault.ReasonContextInvalid, "the tenant context is not valid"), ErrSeal
	case "RH004":
		return fault.New(fault.Internal, fault.ReasonInternal, "the database connection was not clean"), ErrDirty
	case "RH005":
		return fault.New(fault.Unauthenticated, fault.ReasonContextExpired, "the tenant context expired"), ErrExpired
	case "RH007":
		return fault.New(fault.PermissionDenied, fault.ReasonTenantSuspended, "the tenant is suspended"), ErrSuspended
	case "0A000", "08P01":
		if isStalePlan(pg) {
			return fault.New(fault.Aborted, fault.ReasonConcurrentOp, "the tables changed meanwhile"), ErrPlan
		}
	case "57014":
		return fault.New(fault.DeadlineExceeded, fault.ReasonDeadlineTooShort, "the statement took too long"), ErrTimeout
	case "53300":
		return overloaded(), ErrAdmission
	}
	return f, sentinel
}

// refusedRight tells the three meanings of 42501 apart: rowhouse.tenant_id() names its
// schema, row security is known by the server's routine, the rest is a missing GRANT.
func refusedRight(pg *pgconn.PgError) (f *fault.Error, sentinel error) {
	switch {
	case pg.SchemaName == "rowhouse":
		return fault.New(fault.Unauthenticated, fault.ReasonContextMissing, "there is no tenant context"), ErrNoContext
	case pg.Routine == "ExecWithCheckOptions":
		return fault.New(fault.PermissionDenied, fault.ReasonPermissionMissing, "the row belongs to another tenant"), ErrForeignRow
	}
	return f, sentinel
}

func moved() *fault.Error {
	return fault.New(fault.Aborted, fault.ReasonPlacementStale, "the tenant has moved")
}

func notReady() *fault.Error {
	return fault.New(fault.Unavailable, fault.ReasonTenantNotReady, "the tenant is not ready").
		WithDomain(domainTenancy).WithRetry(time.Second)
}

func overloaded() *fault.Error {
	return fault.New(fault.ResourceExhausted, fault.ReasonOverloaded, "the database is busy").WithRetry(time.Second)
}

func explainLocal(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return fault.New(fault.DeadlineExceeded, fault.ReasonDeadlineTooShort, "the call took too long").
			WithCause(errors.Join(ErrTimeout, err))
	}
	return err
}

// unreachable explains why no connection could be made. pgx's text names host, user and
// database, so it is a cause, for the log.
func unreachable(err error) error {
	if _, told := fault.As(err); told || errors.Is(err, context.Canceled) {
		return err
	}
	if sqlState(err) == "53300" {
		return explain(err)
	}
	return fault.New(fault.Unavailable, reasonCellUnreachable, "the tenant's database cannot be reached").
		WithDomain(domainTenancy).WithRetry(time.Second).WithCause(errors.Join(ErrUnreachable, err))
}

func misuse(sentinel error, format string, args ...any) error {
	return fault.New(fault.Internal, fault.ReasonInternal, "the service misused its database").
		WithCause(fmt.Errorf("%w: %s", sentinel, fmt.Sprintf(format, args...)))
}
