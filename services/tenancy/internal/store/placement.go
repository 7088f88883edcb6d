package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
)

// owe marks the placement as changed, so that every app's database in the cell is told anew, at once. One that was dead when
// it was asked last counts as dead still. $1 selects the tenants.
func owe(ctx context.Context, q Querier, where string, arg any) error {
	_, err := q.Exec(ctx, `WITH p AS (UPDATE registry.placement SET revision = revision + 1 WHERE `+where+` RETURNING tenant_uid)
		UPDATE registry.placement_app a SET owed = true, next_time = now() FROM p
		WHERE a.tenant_uid = p.tenant_uid`, arg)
	if err != nil {
		return fmt.Errorf("owe placements: %w", err)
	}
	return nil
}

// OweTenant owes the tenant's state to its cell.
func OweTenant(ctx context.Context, q Querier, uid tenant.UID) error {
	return owe(ctx, q, `tenant_uid = $1`, [16]byte(uid))
}

// OwePlan owes the plan's timeouts to the cells of all tenants on it.
func OwePlan(ctx context.Context, q Querier, plan string) error {
	return owe(ctx, q, `tenant_uid IN (SELECT uid FROM registry.tenant WHERE plan = $1)`, plan)
}

// OweApp gives every tenant a place in the app's databases in those cells where the app is, and takes it where the app
// is no longer. Rows stay. Error: APP_IN_USE where tenants have homes of their own in such a cell.
func OweApp(ctx context.Context, q Querier, app string) error {
	const left = `NOT EXISTS (SELECT FROM registry.app_upstream u WHERE u.app = a.app AND u.cell = p.cell)`
	if err := noHomes(ctx, q, app, left); err != nil {
		return err
	}
	_, err := q.Exec(ctx, `INSERT INTO registry.placement_app (tenant_uid, app)
		SELECT p.tenant_uid, u.app FROM registry.app_upstream u JOIN registry.placement p ON p.cell = u.cell
		JOIN registry.tenant t ON t.uid = p.tenant_uid WHERE u.app = $1 AND t.state <> 5
		ON CONFLICT DO NOTHING`, app)
	if err != nil {
		return fmt.Errorf("place tenants in app %s: %w", app, err)
	}
	_, err = q.Exec(ctx, `DELETE FROM registry.placement_app a USING registry.placement p
		WHERE a.app = $1 AND p.tenant_uid = a.tenant_uid AND `+left, app)
	if err != nil {
		return fmt.Errorf("take tenants' places in app %s: %w", app, err)
	}
	return addHomes(ctx, q, `a.app = $1`, app)
}

// Debt is what one app's database must be told about one tenant.
type Debt struct {
	UID            tenant.UID
	App            string
	Model          tenant.Model
	Cell           string
	CredentialsRef string
	State          registry.State
	Generation     int64
	Revision       int64
	// Told is the revision that the database knows; 0 when it was never told any.
	Told        int64
	StatementMS int
	LockMS      int
	IdleMS      int
	Attempt     int
}

const selectDebt = `SELECT a.tenant_uid, a.app, p.model, p.cell, c.credentials_ref, t.state, p.generation, p.revision, a.revision,
	l.statement_ms, l.lock_ms, l.idle_ms, a.attempt
FROM registry.placement_app a JOIN registry.placement p ON p.tenant_uid = a.tenant_uid
JOIN registry.cell c ON c.id = p.cell JOIN registry.tenant t ON t.uid = a.tenant_uid JOIN registry.plan l ON l.id = t.plan `

func scanDebt(row pgx.CollectableRow) (Debt, error) {
	var d Debt
	err := row.Scan((*[16]byte)(&d.UID), &d.App, &d.Model, &d.Cell, &d.CredentialsRef, &d.State, &d.Generation, &d.Revision, &d.Told,
		&d.StatementMS, &d.LockMS, &d.IdleMS, &d.Attempt)
	return d, err
}

// housed says that the home that a is to be told to is ready, or is the one that all tenants share.
const housed = `NOT EXISTS (SELECT FROM registry.home h WHERE h.tenant_uid = a.tenant_uid AND h.app = a.app AND NOT h.ready)`

// Debts returns what the cell of one tenant is owed, due or not.
func Debts(ctx context.Context, q Querier, uid tenant.UID) ([]Debt, error) {
	return collect(ctx, q, scanDebt, selectDebt+`WHERE a.tenant_uid = $1 AND a.owed AND `+housed+` ORDER BY a.app`, [16]byte(uid))
}

// KnownInCell reports whether a database of the cell has heard of the tenant, and not yet of what became of it, or has a
// home of it.
func KnownInCell(ctx context.Context, q Querier, uid tenant.UID) (known bool, err error) {
	err = q.QueryRow(ctx, `SELECT EXISTS (SELECT FROM registry.placement_app WHERE tenant_uid = $1 AND owed AND revision > 0)
		OR EXISTS (SELECT FROM registry.home WHERE tenant_uid = $1)`,
		[16]byte(uid)).Scan(&known)
	return known, err
}

// Tried says which debts are claimed.
type Tried bool

// Those that nobody has tried to pay, and those where the last try failed.
const (
	Untried Tried = false
	Failed  Tried = true
)

// ClaimDebt takes the debt that has been due for longest, to another cell than full, and puts it off by lease, so that other
// workers leave it alone meanwhile; ok is false when none is. Two who pay one debt do no harm: see [Paid].
func ClaimDebt(ctx context.Context, q Querier, tried Tried, lease time.Duration, full []string) (d Debt, ok bool, err error) {
	debts, err := collect(ctx, q, scanDebt, `WITH due AS (
		SELECT a.tenant_uid, a.app FROM registry.placement_app a JOIN registry.placement p ON p.tenant_uid = a.tenant_uid
		WHERE a.owed AND a.next_time <= now() AND (a.attempt > 0) = $1 AND p.cell <> ALL ($3) AND `+housed+`
		ORDER BY a.next_time LIMIT 1 FOR UPDATE OF a SKIP LOCKED
	), claimed AS (
		UPDATE registry.placement_app a SET next_time = now() + $2::interval FROM due
		WHERE a.tenant_uid = due.tenant_uid AND a.app = due.app RETURNING a.tenant_uid, a.app
	) `+selectDebt+`JOIN claimed ON claimed.tenant_uid = a.tenant_uid AND claimed.app = a.app`, bool(tried), lease, full)
	if err != nil || len(debts) == 0 {
		return Debt{}, false, err
	}
	return debts[0], true, nil
}

// Paid records that the app's database knows the revision in state, unless another delivery did so: an operation and a lane
// may deliver one debt at once, to the same effect. A debt that grew meanwhile stays owed, at once: the placement is locked
// before the debt, in the order of those that owe, so that what they wrote is seen also where this waited for them; and a claim
// that did not see it yet may have put it off since.
func Paid(ctx context.Context, q Querier, d Debt, state string) error {
	_, err := q.Exec(ctx, `WITH p AS MATERIALIZED (SELECT tenant_uid, revision FROM registry.placement WHERE tenant_uid = $1 FOR SHARE)
		UPDATE registry.placement_app a SET revision = $3, state = $4, attempt = 0, write_time = now(), owed = p.revision > $3,
			next_time = CASE WHEN p.revision > $3 THEN now() ELSE a.next_time END
		FROM p WHERE p.tenant_uid = a.tenant_uid AND a.tenant_uid = $1 AND a.app = $2 AND a.owed AND a.revision < $3`,
		[16]byte(d.UID), d.App, d.Revision, state)
	return err
}

// Unpaid records a failed try, unless another delivery succeeded; the next one is after wait.
func Unpaid(ctx context.Context, q Querier, d Debt, wait time.Duration) error {
	_, err := q.Exec(ctx, `UPDATE registry.placement_app SET attempt = attempt + 1, next_time = now() + $4::interval
		WHERE tenant_uid = $1 AND app = $2 AND owed AND revision < $3`, [16]byte(d.UID), d.App, d.Revision, wait)
	return err
}

// PutOff lets a debt that nobody could try to pay wait, unless another delivery succeeded.
func PutOff(ctx context.Context, q Querier, d Debt, wait time.Duration) error {
	_, err := q.Exec(ctx, `UPDATE registry.placement_app SET next_time = now() + $4::interval
		WHERE tenant_uid = $1 AND app = $2 AND owed AND revision < $3`, [16]byte(d.UID), d.App, d.Revision, wait)
	return err
}

// PlacementApps returns what is known of a tenant's place in each app, but for its name.
func PlacementApps(ctx context.Context, q Querier, uid tenant.UID) ([]*tenancyv1.PlacementApp, error) {
	return collect(ctx, q, func(row pgx.CollectableRow) (*tenancyv1.PlacementApp, error) {
		var app, version string
		var written *time.Time
		var failure []byte
		p := new(tenancyv1.PlacementApp)
		err := row.Scan(&app, &p.State, &written, &version, &p.Reconciling, &failure)
		if err != nil {
			return nil, err
		}
		p.App = "apps/" + app
		if version != "" {
			p.Migration = p.GetApp() + "/migrations/" + version
		}
		if written != nil {
			p.UpdateTime = timestamppb.New(*written)
		}
		if failure != nil {
			p.LastError = new(spb.Status)
			err = proto.Unmarshal(failure, p.GetLastError())
		}
		return p, err
	}, `SELECT a.app, a.state, a.write_time, coalesce(h.version, ''), a.owed OR coalesce(h.owed, false), h.error
		FROM registry.placement_app a
		LEFT JOIN registry.home h ON h.tenant_uid = a.tenant_uid AND h.app = a.app
		WHERE a.tenant_uid = $1 ORDER BY a.app`, [16]byte(uid))
}
