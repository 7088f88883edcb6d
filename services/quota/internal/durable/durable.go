// Package durable keeps durable quotas in PostgreSQL: what layers set, what tenants used and hold, entitlements, and the
// notices about them.
//
// Reservations are one transaction each, whose truth is the counters' rows: whoever moves one holds its lock, and several
// are locked in one order, so any number of replicas serve any tenant and a crash leaves nothing half done. What a
// reservation holds it holds until a moment; from then on whoever next needs the counter takes it back, so an orphan never
// causes a refusal. The numbers themselves are decided by package allowance. Start at [Reserve].
package durable

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/allowance"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/store"
)

// Domain is the domain of the reasons below, which rowhouse.quota.v1.Reason documents.
const Domain = "rowhouse.quota"

// Reasons of refusals.
const (
	ReasonQuotaExceeded       = "QUOTA_EXCEEDED"
	ReasonReservationExpired  = "RESERVATION_EXPIRED"
	ReasonQuotaUnknown        = "QUOTA_UNKNOWN"
	ReasonTooManyReservations = "TOO_MANY_RESERVATIONS"
)

// Tx is a unit of work, as far as this package needs one.
type Tx interface {
	store.Querier
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
	// Now is when the transaction began, by the database.
	Now() time.Time
	Publisher
}

// Tenant is a tenant with those above it, the nearest first. They come from tenancy's feed, never from a request.
type Tenant struct {
	Member

	ID    string
	Above []Member
}

// Member is a tenant and its plan.
type Member struct{ UID, Plan string }

// members are the tenant and those above it.
func (t Tenant) members() []Member { return append([]Member{t.Member}, t.Above...) }

// enter has the transaction see what the tenant may: its own rows, and what those above it share.
func (t Tenant) enter(ctx context.Context, tx Tx) error {
	above := make([]string, 0, len(t.Above))
	for _, m := range t.Above {
		above = append(above, m.UID)
	}
	_, err := tx.Exec(ctx, `SELECT set_config($1, $2, true), set_config($3, $4, true)`,
		store.TenantSetting, t.UID, store.PoolsSetting, strings.Join(above, ","))
	return err
}

// key names a counter.
type key struct {
	owner, quota string
	start        time.Time
}

func compareKeys(a, b key) int {
	return cmp.Or(cmp.Compare(a.owner, b.owner), cmp.Compare(a.quota, b.quota), a.start.Compare(b.start))
}

// level is a quota that a tenant's ask is charged to: its own, or one that it shares with those above it.
type level struct {
	owner, quota string
	policy       allowance.Policy
	// layer is where the quota is set, and id its layer's.
	layer, id string
	own       bool
}

// at is the counter of the level at a moment.
func (l level) at(now time.Time) key {
	start, _ := l.policy.Period.At(now)
	return key{l.owner, l.quota, start}
}

// levels are the quotas that hold, by the tenant's.
type levels []level

// of are the levels of one quota.
func (ls levels) of(quota string) (of levels) {
	for _, l := range ls {
		if l.quota == quota {
			of = append(of, l)
		}
	}
	return of
}

// by finds the level of an owner.
func (ls levels) by(owner, quota string) (level, bool) {
	i := slices.IndexFunc(ls, func(l level) bool { return l.owner == owner && l.quota == quota })
	if i < 0 {
		return level{}, false
	}
	return ls[i], true
}

// samePeriods says whether the same counters are meant at a moment.
func (ls levels) samePeriods(others levels, now time.Time) bool {
	keys := func(ls levels) []key {
		keys := make([]key, 0, len(ls))
		for _, l := range ls {
			keys = append(keys, l.at(now))
		}
		slices.SortFunc(keys, compareKeys)
		return keys
	}
	return slices.Equal(keys(ls), keys(others))
}

const resolveSQL = `SELECT m.ord, q.layer, q.layer_id, q.id, q.uid::text, q.revision, q.amount, q.period, q.anchor_day, q.anchor_hour,
		q.overage, q.grace_percent, q.grace_ns, q.throttle_amount, q.throttle_ns, q.late_commit, q.on_change, q.thresholds, q.meter, q.shared
	FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS m (uid, plan, ord), LATERAL (
		SELECT DISTINCT ON (id) * FROM quota.quota
		WHERE (layer, layer_id) IN (('platform', ''), ('plan', m.plan), ('tenant', m.uid)) AND ($3::text[] IS NULL OR id = ANY ($3))
		ORDER BY id, array_position(ARRAY['tenant', 'plan', 'platform'], layer)) q
	WHERE m.ord = 1 OR q.shared
	ORDER BY q.id COLLATE "C", m.ord LIMIT 10000`

// resolve queues the question which quotas hold for a tenant; nil asks for all.
func (t Tenant) resolve(batch *pgx.Batch, quotas []string, into *levels) {
	members := t.members()
	var uids, plans []string
	for _, m := range members {
		uids, plans = append(uids, m.UID), append(plans, m.Plan)
	}
	batch.Queue(resolveSQL, uids, plans, quotas).Query(func(rows pgx.Rows) error {
		found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (level, error) { return scanLevel(row, members) })
		*into = found
		return err
	})
}

func scanLevel(row pgx.CollectableRow, members []Member) (l level, err error) {
	var ord int
	var uid string
	var revision int64
	var grace, throttle int64
	var late int16
	p := &l.policy
	err = row.Scan(&ord, &l.layer, &l.id, &l.quota, &uid, &revision, &p.Amount, &p.Period.Cycle, &p.Period.Day, &p.Period.Hour,
		&p.Overage, &p.GracePercent, &grace, &p.ThrottleAmount, &throttle, &late, &p.OnChange, &p.Thresholds, &p.Meter, &p.Shared)
	if err != nil {
		return l, err
	}
	const charge = 2
	l.owner, l.own = members[ord-1].UID, ord == 1
	p.GraceDuration, p.ThrottlePeriod, p.ChargeLate = time.Duration(grace), time.Duration(throttle), late == charge
	p.Source = sourceOf(uid, revision)
	return l, nil
}

// refuse makes a fault of this package's domain.
func refuse(kind fault.Kind, reason, format string, args ...any) *fault.Error {
	return fault.New(kind, reason, format, args...).WithDomain(Domain)
}
