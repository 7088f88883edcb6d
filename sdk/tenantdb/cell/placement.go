package cell

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// State is what a database may do for a tenant.
type State string

// The states of a placement.
const (
	// Active tenants are served.
	Active State = "active"
	// Fenced tenants are being moved: callers wait and try again.
	Fenced State = "fenced"
	// Suspended tenants are refused.
	Suspended State = "suspended"
	// Moved tenants live elsewhere.
	Moved State = "moved"
)

// ErrStale says that the database knows a later placement of the tenant.
var ErrStale = errors.New("a later placement is stored")

// Placement is one tenant in one database. Timeouts of zero are those of the app's login
// role; the plan sets others.
type Placement struct {
	// UID is the tenant.
	UID tenant.UID
	// State is what the database may do for it.
	State State
	// Generation must be that of a seal; it rises with each move.
	Generation uint64
	// Revision orders writes of one generation, such as a suspension and the resumption
	// after it: a write below the stored revision is [ErrStale]. The tenant's generation
	// serves well. Zero takes no part in the ordering.
	Revision uint64
	// StatementMS, LockMS and IdleMS bound a statement, a wait for a lock and an idle
	// transaction, in milliseconds.
	StatementMS, LockMS, IdleMS int
}

// SetPlacement stores a placement; transactions that enter the tenant after the commit
// obey it. It may be repeated. A generation or revision below the stored one is
// [ErrStale] and changes nothing.
func SetPlacement(ctx context.Context, conn Conn, p Placement) error {
	err := setPlacement(ctx, conn, p)
	// Of two that place a tenant first at once, one may trip over the table's other unique key, which ON CONFLICT does
	// not arbitrate. The row is there then.
	if violation, ok := errors.AsType[*pgconn.PgError](err); ok && violation.Code == uniqueViolation {
		err = setPlacement(ctx, conn, p)
	}
	if err != nil {
		return fmt.Errorf("place tenant %s: %w", p.UID, err)
	}
	return nil
}

const uniqueViolation = "23505"

func setPlacement(ctx context.Context, conn Conn, p Placement) error {
	return asSecurity(ctx, conn, func(t pgx.Tx) error {
		tag, err := t.Exec(ctx, `
INSERT INTO rowhouse.placement AS p (tenant_id, state, generation, revision, statement_ms, lock_ms, idle_ms)
VALUES ($1, $2, $3, $4, nullif($5, 0), nullif($6, 0), nullif($7, 0))
ON CONFLICT (tenant_id) DO UPDATE SET state = excluded.state, generation = excluded.generation,
	revision = greatest(p.revision, excluded.revision),
	statement_ms = excluded.statement_ms, lock_ms = excluded.lock_ms, idle_ms = excluded.idle_ms
WHERE p.generation < excluded.generation
	OR p.generation = excluded.generation AND (excluded.revision = 0 OR p.revision <= excluded.revision)`,
			[16]byte(p.UID), string(p.State), int64(p.Generation), int64(p.Revision), //nolint:gosec // they count changes
			p.StatementMS, p.LockMS, p.IdleMS)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return ErrStale
		}
		return nil
	})
}

// RemovePlacement forgets a tenant; its seals are then refused as of a tenant that lives
// elsewhere. Rows are left as they are. A tenant that is not there is no error.
func RemovePlacement(ctx context.Context, conn Conn, uid tenant.UID) error {
	err := asSecurity(ctx, conn, func(t pgx.Tx) error {
		_, err := t.Exec(ctx, "DELETE FROM rowhouse.placement WHERE tenant_id = $1", [16]byte(uid))
		return err
	})
	if err != nil {
		return fmt.Errorf("remove placement of tenant %s: %w", uid, err)
	}
	return nil
}
