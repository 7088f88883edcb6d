package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
)

const selectTenant = `SELECT t.uid, t.id, t.display_name, t.plan, t.state, t.generation, t.labels, coalesce(t.external_id, ''),
	t.delete_protection, t.loss, t.create_time, t.update_time, t.delete_time, t.purge_time, t.revision,
	p.model, p.cell, c.region, p.generation, p.revision,
	ARRAY(SELECT s.cause FROM registry.suspension s WHERE s.tenant_uid = t.uid ORDER BY s.cause),
	ARRAY(SELECT s.actor FROM registry.suspension s WHERE s.tenant_uid = t.uid ORDER BY s.cause),
	ARRAY(SELECT s.time FROM registry.suspension s WHERE s.tenant_uid = t.uid ORDER BY s.cause),
	ARRAY(SELECT s.note FROM registry.suspension s WHERE s.tenant_uid = t.uid ORDER BY s.cause),
	coalesce(t.parent_uid, '00000000-0000-0000-0000-000000000000'),
	coalesce((SELECT f.id FROM registry.tenant f WHERE f.uid = t.parent_uid), ''),
	coalesce((SELECT o.id::text FROM kernel.operations o WHERE o.target = 'tenants/' || t.id AND o.end_time IS NULL), '')
FROM registry.tenant t JOIN registry.placement p ON p.tenant_uid = t.uid JOIN registry.cell c ON c.id = p.cell `

func scanTenant(row pgx.CollectableRow) (registry.Tenant, error) {
	var (
		t               registry.Tenant
		id, parent      string
		model           int32
		deleted, purged *time.Time
		causes          []int32
		actors, notes   []string
		times           []time.Time
	)
	err := row.Scan((*[16]byte)(&t.UID), &id, &t.DisplayName, &t.Plan, &t.State, &t.Generation, &t.Labels, &t.ExternalID,
		&t.DeleteProtection, &t.Loss, &t.CreateTime, &t.UpdateTime, &deleted, &purged, &t.Revision,
		&model, &t.Placement.Cell, &t.Placement.Region, &t.Placement.Generation, &t.Placement.Revision,
		&causes, &actors, &times, &notes, (*[16]byte)(&t.Parent.UID), &parent, &t.Operation)
	if err != nil {
		return registry.Tenant{}, err
	}
	if t.ID, err = tenant.ParseID(id); err != nil {
		return registry.Tenant{}, fmt.Errorf("stored tenant %s: %w", t.UID, err)
	}
	if t.Parent.ID, err = tenant.ParseID(parent); err != nil && parent != "" {
		return registry.Tenant{}, fmt.Errorf("stored parent of %s: %w", t.UID, err)
	}
	t.Placement.Model = tenant.Model(model) //nolint:gosec // the table allows 1 to 3
	t.DeleteTime, t.PurgeTime = orZero(deleted), orZero(purged)
	for i := range causes {
		t.Suspensions = append(t.Suspensions, registry.Suspension{
			Cause: registry.Cause(causes[i]), Actor: actors[i], Time: times[i], Note: notes[i],
		})
	}
	return t, nil
}

func orZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// TenantKey names a tenant by one of its three names; the first that is set counts.
type TenantKey struct {
	ID         string
	UID        tenant.UID
	ExternalID string
}

func (k TenantKey) where() (string, any) {
	switch {
	case k.ID != "":
		return `t.id = $1`, k.ID
	case !k.UID.IsZero():
		return `t.uid = $1`, [16]byte(k.UID)
	default:
		return `t.external_id = $1`, k.ExternalID
	}
}

func (k TenantKey) name() string {
	if k.ID != "" {
		return "tenants/" + k.ID
	}
	return "the tenant"
}

// ReadTenant returns the tenant, or RESOURCE_NOT_FOUND.
func ReadTenant(ctx context.Context, q Querier, key TenantKey) (registry.Tenant, error) {
	where, arg := key.where()
	tenants, err := collect(ctx, q, scanTenant, selectTenant+`WHERE `+where, arg)
	if err == nil && len(tenants) == 0 {
		err = pgx.ErrNoRows
	}
	if err := found(err, key.name()); err != nil {
		return registry.Tenant{}, err
	}
	return tenants[0], nil
}

// LockTenant is ReadTenant with the row's lock, which is taken before any other of the tenant.
func LockTenant(ctx context.Context, q Querier, key TenantKey) (registry.Tenant, error) {
	where, arg := key.where()
	if err := lock(ctx, q, key.name(), `SELECT 1 FROM registry.tenant t WHERE `+where+` FOR UPDATE`, arg); err != nil {
		return registry.Tenant{}, err
	}
	return ReadTenant(ctx, q, key)
}

// LockTenants takes the locks of the rows that there are, in the one order that all take several in.
func LockTenants(ctx context.Context, q Querier, ids ...string) error {
	_, err := q.Exec(ctx, `SELECT FROM registry.tenant t WHERE t.id = ANY ($1) ORDER BY t.id FOR UPDATE`, ids)
	return err
}

// ShareTenant is ReadTenant for who relies on the tenant's state until the end of the transaction: nothing changes it.
func ShareTenant(ctx context.Context, q Querier, key TenantKey) (registry.Tenant, error) {
	where, arg := key.where()
	if err := lock(ctx, q, key.name(), `SELECT 1 FROM registry.tenant t WHERE `+where+` FOR SHARE`, arg); err != nil {
		return registry.Tenant{}, err
	}
	return ReadTenant(ctx, q, key)
}

// HasChildren reports whether tenants have uid as their parent; living counts those that are not deleted alone.
func HasChildren(ctx context.Context, q Querier, uid tenant.UID, living bool) (has bool, err error) {
	err = q.QueryRow(ctx, `SELECT EXISTS (SELECT FROM registry.tenant WHERE parent_uid = $1 AND NOT ($2 AND state = 4))`,
		[16]byte(uid), living).Scan(&has)
	return has, err
}

// TenantList says which tenants to list.
type TenantList struct {
	// Plan, Parent (an id) and State select when they are set, Labels when every pair is equal.
	Plan   string
	Parent string
	State  registry.State
	Labels map[string]string
	// Deleted includes deleted ones.
	Deleted bool
	// ByTime orders by creation time and id instead of id, Descending turns the order round.
	ByTime, Descending bool
	// After is the last key of the page before: the id, preceded by the creation time when ByTime; nil at first.
	After []string
	Limit int
}

// ListTenants returns the tenants that l selects.
func ListTenants(ctx context.Context, q Querier, l TenantList) ([]registry.Tenant, error) {
	var b strings.Builder
	b.WriteString(selectTenant + `WHERE ($1 OR t.state <> 4) AND t.labels @> $2`)
	labels := l.Labels
	if labels == nil {
		labels = map[string]string{}
	}
	args := []any{l.Deleted, labels}
	bind := func(format string, values ...any) {
		places := make([]any, len(values))
		for i, v := range values {
			args = append(args, v)
			places[i] = len(args)
		}
		fmt.Fprintf(&b, format, places...)
	}
	if l.Plan != "" {
		bind(` AND t.plan = $%d`, l.Plan)
	}
	if l.Parent != "" {
		bind(` AND t.parent_uid = (SELECT uid FROM registry.tenant WHERE id = $%d)`, l.Parent)
	}
	if l.State != 0 {
		bind(` AND t.state = $%d`, int32(l.State))
	}
	op, dir := ">", ""
	if l.Descending {
		op, dir = "<", " DESC"
	}
	switch {
	case l.ByTime && len(l.After) == 2:
		bind(` AND (t.create_time, t.id) `+op+` ($%d::text::timestamptz, $%d)`, l.After[0], l.After[1])
	case !l.ByTime && len(l.After) == 1:
		bind(` AND t.id `+op+` $%d`, l.After[0])
	}
	if l.ByTime {
		b.WriteString(` ORDER BY t.create_time` + dir + `, t.id` + dir)
	} else {
		b.WriteString(` ORDER BY t.id` + dir)
	}
	bind(` LIMIT $%d`, l.Limit)
	return collect(ctx, q, scanTenant, b.String(), args...)
}

// InsertTenant stores a new tenant with its placement, and owes it to the database of every app in its cell, or owes it
// homes of its own there. TakeRoom took
// its room there before: apps that come or go meanwhile wait for that lock. Errors: TENANT_ID_TAKEN; RESOURCE_EXISTS for
// the external id.
func InsertTenant(ctx context.Context, q Querier, t registry.Tenant) error {
	_, err := q.Exec(ctx, `INSERT INTO registry.tenant (uid, id, display_name, plan, state, generation, labels, external_id,
		delete_protection, loss, create_time, update_time, parent_uid)
		VALUES ($1, $2, $3, $4, $5, $6, $7, nullif($8, ''), $9, $10, $11, $11, $12)`,
		[16]byte(t.UID), t.ID.String(), t.DisplayName, t.Plan, int32(t.State), t.Generation, labelsOf(t), t.ExternalID,
		t.DeleteProtection, int32(t.Loss), t.CreateTime, parentOf(t))
	if err := taken(err); err != nil {
		return err
	}
	_, err = q.Exec(ctx, `INSERT INTO registry.placement (tenant_uid, model, cell, generation, revision)
		VALUES ($1, $2, $3, $4, 1)`, [16]byte(t.UID), int32(t.Placement.Model), t.Placement.Cell, t.Placement.Generation)
	if err != nil {
		return fmt.Errorf("place tenant %s: %w", t.ID, err)
	}
	_, err = q.Exec(ctx, `INSERT INTO registry.placement_app (tenant_uid, app)
		SELECT $1, app FROM registry.app_upstream WHERE cell = $2`, [16]byte(t.UID), t.Placement.Cell)
	if err != nil {
		return fmt.Errorf("place tenant %s: %w", t.ID, err)
	}
	return addHomes(ctx, q, `a.tenant_uid = $1`, [16]byte(t.UID))
}

// parentOf is NULL without a parent.
func parentOf(t registry.Tenant) *[16]byte {
	if t.Parent.UID.IsZero() {
		return nil
	}
	return (*[16]byte)(&t.Parent.UID)
}

func labelsOf(t registry.Tenant) map[string]string {
	if t.Labels == nil {
		return map[string]string{}
	}
	return t.Labels
}

func taken(err error) error {
	switch {
	case pg.Constraint(err) == "tenant_id_taken":
		return fault.New(fault.AlreadyExists, registry.ReasonTenantIDTaken, "a tenant has this id").
			WithDomain(registry.Domain)
	case pg.Constraint(err) == "tenant_external_id_taken":
		return fault.New(fault.AlreadyExists, fault.ReasonResourceExists, "a tenant has this external_id").
			WithField(fault.FieldViolation{Field: "tenant.external_id", Description: "is another tenant's"})
	case err != nil:
		return fmt.Errorf("store tenant: %w", err)
	}
	return nil
}

// UpdateTenant stores all of a tenant that may change but its suspensions and its placement. Error: RESOURCE_EXISTS for
// the external id.
func UpdateTenant(ctx context.Context, q Querier, t registry.Tenant) error {
	_, err := q.Exec(ctx, `UPDATE registry.tenant SET display_name = $2, plan = $3, state = $4, generation = $5, labels = $6,
		external_id = nullif($7, ''), delete_protection = $8, loss = $9, update_time = $10, delete_time = $11, purge_time = $12,
		parent_uid = $13
		WHERE uid = $1`,
		[16]byte(t.UID), t.DisplayName, t.Plan, int32(t.State), t.Generation, labelsOf(t), t.ExternalID, t.DeleteProtection,
		int32(t.Loss), t.UpdateTime, orNull(t.DeleteTime), orNull(t.PurgeTime), parentOf(t))
	return taken(err)
}

// ReplaceSuspensions stores which causes are in force.
func ReplaceSuspensions(ctx context.Context, q Querier, t registry.Tenant) error {
	if _, err := q.Exec(ctx, `DELETE FROM registry.suspension WHERE tenant_uid = $1`, [16]byte(t.UID)); err != nil {
		return err
	}
	for _, s := range t.Suspensions {
		_, err := q.Exec(ctx, `INSERT INTO registry.suspension (tenant_uid, cause, actor, time, note) VALUES ($1, $2, $3, $4, $5)`,
			[16]byte(t.UID), int32(s.Cause), s.Actor, s.Time, s.Note)
		if err != nil {
			return fmt.Errorf("store suspension of %s: %w", t.ID, err)
		}
	}
	return nil
}

// RemoveTenant removes a tenant that never was served, with all that hangs on it. Its domains leave the feed before, and
// no cell may know it; see KnownInCell.
func RemoveTenant(ctx context.Context, q Querier, uid tenant.UID) error {
	for _, sql := range []string{
		`DELETE FROM registry.domain WHERE tenant_uid = $1`,
		`DELETE FROM registry.suspension WHERE tenant_uid = $1`,
		`DELETE FROM registry.placement_app WHERE tenant_uid = $1`,
		`DELETE FROM registry.placement WHERE tenant_uid = $1`,
		`DELETE FROM registry.tenant WHERE uid = $1`,
	} {
		if _, err := q.Exec(ctx, sql, [16]byte(uid)); err != nil {
			return fmt.Errorf("remove tenant %s: %w", uid, err)
		}
	}
	return nil
}

// StampTenant writes the revision of a change into its row.
func StampTenant(ctx context.Context, q Querier, uid tenant.UID, revision int64) error {
	_, err := q.Exec(ctx, `UPDATE registry.tenant SET revision = $2 WHERE uid = $1`, [16]byte(uid), revision)
	return err
}

// OweFeeds owes the feeds the tenants whose loss policy is their plan's. It waits for changes of these tenants, which may
// have read the plan as it was before.
func OweFeeds(ctx context.Context, q Querier, plan string) error {
	_, err := q.Exec(ctx, `UPDATE registry.tenant SET publish_owed = true WHERE plan = $1 AND loss = 0`, plan)
	return err
}

// FeedsOwed reports whether TakeOwed would return a tenant.
func FeedsOwed(ctx context.Context, q Querier) (owed bool, err error) {
	err = q.QueryRow(ctx, `SELECT EXISTS (SELECT FROM registry.tenant WHERE publish_owed)`).Scan(&owed)
	return owed, err
}

// TakeOwed locks up to limit tenants that the feeds are owed, marks them as told and returns them.
func TakeOwed(ctx context.Context, q Querier, limit int) ([]registry.Tenant, error) {
	uids, err := collect(ctx, q, pgx.RowTo[[16]byte], `UPDATE registry.tenant SET publish_owed = false WHERE uid IN (
		SELECT uid FROM registry.tenant WHERE publish_owed ORDER BY uid LIMIT $1 FOR UPDATE SKIP LOCKED) RETURNING uid`, limit)
	if err != nil {
		return nil, err
	}
	return collect(ctx, q, scanTenant, selectTenant+`WHERE t.uid = ANY ($1) ORDER BY t.id`, uids)
}
