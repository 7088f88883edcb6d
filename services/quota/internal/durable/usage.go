package durable

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/allowance"
)

// UsageEvent is what a commit tells a meter.
type UsageEvent struct {
	ID, Meter, Quota string
	Quantity         int64
	Time             time.Time
}

// Store is what commits need beside the database.
type Store struct {
	// Record writes usage events in the commit's transaction. Nil: there are no meters.
	Record func(ctx context.Context, tx Tx, tenantUID string, events []UsageEvent) error
	// NewID makes a UUIDv7.
	NewID func() (string, error)
}

// View says how usage is shown.
type View struct {
	// Prefix begins the names: "tenants/acme/" for operators, "" for the tenant itself.
	Prefix string
}

// Usage returns the quotas that hold for a tenant, by id, with what is left of them; nil asks for all.
func Usage(ctx context.Context, tx Tx, t Tenant, v View, quotas []string) ([]*quotav1.QuotaUsage, error) {
	if err := t.enter(ctx, tx); err != nil {
		return nil, err
	}
	batch := new(pgx.Batch)
	l := &ledger{now: tx.Now()}
	t.resolve(batch, quotas, &l.levels)
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return nil, fmt.Errorf("find quotas: %w", err)
	}
	if err := l.look(ctx, tx); err != nil {
		return nil, err
	}
	var out []*quotav1.QuotaUsage
	for _, id := range l.ids() {
		out = append(out, l.usage(t, v, id))
	}
	return out, nil
}

// ids are the quotas that hold, in order.
func (l *ledger) ids() (ids []string) {
	for _, level := range l.levels {
		ids = append(ids, level.quota)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// look reads the counters without locks, as they are without what has run out.
func (l *ledger) look(ctx context.Context, tx Tx) error {
	keys := keysOf(l.levels, l.now)
	owners, quotas, starts := columns(keys)
	batch := new(pgx.Batch)
	batch.Queue(`SELECT c.tenant_uid::text, c.quota, c.period_start, c.used, c.held - coalesce((
			SELECT sum(amount) FROM quota.hold h WHERE h.owner_uid = c.tenant_uid AND h.quota = c.quota
				AND h.period_start = c.period_start AND h.expire_time <= clock_timestamp()), 0)::bigint,
			c.lim, c.adjustment, c.amount, c.source, c.seen, c.grace_until, c.throttle_tat, c.version
		FROM quota.counter c JOIN unnest($1::uuid[], $2::text[], $3::timestamptz[]) AS u (owner, quota, start)
			ON c.tenant_uid = u.owner AND c.quota = u.quota AND c.period_start = u.start`, owners, quotas, starts).
		Query(func(rows pgx.Rows) error { return l.read(rows) })
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("read what is used: %w", err)
	}
	for _, level := range l.levels {
		k := level.at(l.now)
		if l.counters[k] == nil {
			l.counters[k] = &counter{Counter: allowance.New(level.policy)}
		}
		l.counters[k].Follow(level.policy, l.now)
	}
	return nil
}

// usage shows one quota.
func (l *ledger) usage(t Tenant, v View, id string) *quotav1.QuotaUsage {
	u := &quotav1.QuotaUsage{Name: v.Prefix + "quotas/" + id}
	free := int64(-1)
	for _, level := range l.levels.of(id) {
		c := l.counters[level.at(l.now)]
		if free < 0 || c.Free() < free {
			free = c.Free()
		}
		if !level.own {
			continue
		}
		start, end := level.policy.Period.At(l.now)
		u.Source, u.Limit, u.Used, u.Held = v.source(level, t), c.Bound(), c.Used, c.Held
		u.Overage, u.Adjustment = max(c.Used-c.Bound(), 0), c.Adjustment
		u.PeriodStart, u.PeriodEnd, u.GraceEndTime = stamp(start), stamp(end), stamp(c.GraceUntil)
		u.Etag = etagOf(level.at(l.now), c.version)
	}
	u.Free = max(free, 0)
	return u
}

func etagOf(k key, version int64) string {
	return etag.Of(fmt.Sprintf("%s/%s/%d", k.owner, k.quota, k.start.Unix()), version)
}

// source names a layer; a tenant is not told what its plan is called.
func (v View) source(l level, t Tenant) string {
	switch {
	case v.Prefix == "" || l.layer == "platform":
		return l.layer
	case l.layer == "plan":
		return "plans/" + l.id
	default:
		return "tenants/" + t.ID
	}
}

// Move is how an operator changes what is used, or what may be.
type Move struct {
	Quota string
	// Etag is the usage that must be current, if it is not empty.
	Etag string
	// Used is what is used in truth; nil to leave it.
	Used *int64
	// Delta is added to what may be used.
	Delta int64
}

// Apply makes a move, and returns the usage behind it and by how much what was used was off. Errors: RESOURCE_NOT_FOUND,
// ETAG_MISMATCH, INVALID_FIELD; see [Again].
func Apply(ctx context.Context, tx Tx, t Tenant, v View, m Move) (u *quotav1.QuotaUsage, drift int64, err error) {
	if err := t.enter(ctx, tx); err != nil {
		return nil, 0, err
	}
	l, err := open(ctx, tx, t, []string{m.Quota})
	if err != nil {
		return nil, 0, err
	}
	own, ok := l.levels.by(t.UID, m.Quota)
	if !ok {
		return nil, 0, fault.New(fault.NotFound, fault.ReasonResourceNotFound, "no quota %q holds for the tenant", m.Quota)
	}
	k := own.at(tx.Now())
	c := l.counters[k]
	if err := etag.Check(m.Etag, etagOf(k, c.version)); err != nil {
		return nil, 0, err
	}
	c.Adjustment += m.Delta
	c.changed = true
	if bound := c.Limit + c.Adjustment; bound < 0 || bound > allowance.MostAmount {
		return nil, 0, fault.New(fault.InvalidArgument, fault.ReasonInvalidField, "the limit would be %d", bound).
			WithField(fault.FieldViolation{Field: "delta", Description: "the limit stays within 0 and 2^50"})
	}
	charged := make(map[key]int64)
	if m.Used != nil {
		drift = *m.Used - c.Used
		c.Set(*m.Used)
		for _, level := range l.levels {
			if above := level.at(tx.Now()); !level.own && drift != 0 {
				l.counters[above].Set(l.counters[above].Used + drift)
				l.counters[above].changed = true
				charged[above] = drift
			}
		}
	}
	batch := new(pgx.Batch)
	l.save(batch)
	shares(batch, t, charged)
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return nil, 0, fmt.Errorf("set what is used: %w", err)
	}
	l.now = tx.Now()
	return l.usage(t, v, m.Quota), drift, l.notify(ctx, tx)
}

// Erase removes what is kept for a tenant, and returns how many records of which kind. What it used of what others share
// is given back. The transaction must mean every tenant; see store.AsEvery.
func Erase(ctx context.Context, tx Tx, uid string) (map[string]int64, error) {
	removed := make(map[string]int64)
	// What it holds or used of others' counters goes first, under their locks.
	if _, err := tx.Exec(ctx, `SELECT FROM quota.counter c WHERE c.tenant_uid = $1 OR (c.tenant_uid, c.quota, c.period_start) IN (
			SELECT owner_uid, quota, period_start FROM quota.share WHERE tenant_uid = $1
			UNION SELECT owner_uid, quota, period_start FROM quota.hold WHERE tenant_uid = $1)
		ORDER BY c.tenant_uid, c.quota COLLATE "C", c.period_start FOR UPDATE`, uid); err != nil {
		return nil, fmt.Errorf("lock what a tenant used: %w", err)
	}
	for _, step := range []struct{ kind, sql string }{
		{"", `WITH gone AS (DELETE FROM quota.hold WHERE tenant_uid = $1 OR owner_uid = $1 RETURNING owner_uid, quota, period_start, amount)
			UPDATE quota.counter c SET held = c.held - g.amount FROM (
				SELECT owner_uid, quota, period_start, sum(amount)::bigint AS amount FROM gone GROUP BY 1, 2, 3) g
			WHERE c.tenant_uid = g.owner_uid AND c.quota = g.quota AND c.period_start = g.period_start`},
		{"", `WITH gone AS (DELETE FROM quota.share WHERE tenant_uid = $1 RETURNING owner_uid, quota, period_start, used)
			UPDATE quota.counter c SET used = greatest(c.used - g.used, 0), version = c.version + 1 FROM gone g
			WHERE c.tenant_uid = g.owner_uid AND c.quota = g.quota AND c.period_start = g.period_start`},
		{"", `DELETE FROM quota.share WHERE owner_uid = $1`},
		{"counters", `DELETE FROM quota.counter WHERE tenant_uid = $1`},
		{"reservations", `DELETE FROM quota.reservation WHERE tenant_uid = $1`},
		{"notices", `DELETE FROM quota.notice WHERE tenant_uid = $1`},
		{"quotas", `DELETE FROM quota.quota WHERE layer = 'tenant' AND layer_id = $1::uuid::text`},
		{"entitlements", `DELETE FROM quota.entitlement WHERE layer = 'tenant' AND layer_id = $1::uuid::text`},
	} {
		tag, err := tx.Exec(ctx, step.sql, uid)
		if err != nil {
			return nil, fmt.Errorf("erase the quotas of a tenant: %w", err)
		}
		if step.kind != "" && tag.RowsAffected() > 0 {
			removed[step.kind] = tag.RowsAffected()
		}
	}
	n, err := eraseEvents(ctx, tx, uid)
	if n > 0 {
		removed["events"] = n
	}
	return removed, err
}
