package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/meter"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/noisy"
)

// Share is what one tenant took, as its signed context names it.
type Share struct {
	Context tenant.Context
	Amounts []noisy.Line // of which only Resource, Amount and Uncertain count
}

// Report is one report of a process.
type Report struct {
	// Identity is the process's own, which it cannot choose; Replica tells several of it apart.
	Identity, Replica string
	// Run and Sequence tell a repeat.
	Run      string
	Sequence int64
	Totals   map[noisy.Resource]int64
	Shares   []Share
}

// KeepReport adds a report to the minute that it came in. A repeat changes nothing.
func KeepReport(ctx context.Context, pool *pgxpool.Pool, r Report) error {
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `INSERT INTO noisy.reporter AS r (identity, replica, run, sequence, seen_time)
			VALUES ($1, $2, $3, $4, clock_timestamp())
			ON CONFLICT (identity, replica) DO UPDATE SET run = excluded.run, sequence = excluded.sequence, seen_time = excluded.seen_time
			WHERE r.run <> excluded.run OR r.sequence < excluded.sequence`, r.Identity, r.Replica, r.Run, r.Sequence)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		batch := new(pgx.Batch)
		r.queue(batch)
		return tx.SendBatch(ctx, batch).Close()
	})
	if err != nil {
		return fmt.Errorf("keep a report: %w", err)
	}
	return nil
}

// queue adds the rows, in the order of their keys, so that two reports never wait for each other in a circle.
func (r Report) queue(batch *pgx.Batch) {
	slices.SortFunc(r.Shares, func(a, b Share) int {
		x, y := a.Context.UID(), b.Context.UID()
		return bytes.Compare(x[:], y[:])
	})
	var uids, tenants []string
	var plans []string
	var models, resources, all []int16
	var amounts, uncertain, totals []int64
	for _, s := range r.Shares {
		uid := s.Context.UID().String()
		tenants, plans, models = append(tenants, uid), append(plans, s.Context.Plan()), append(models, int16(s.Context.Model()))
		slices.SortFunc(s.Amounts, func(a, b noisy.Line) int { return int(a.Resource) - int(b.Resource) })
		for _, l := range s.Amounts {
			uids, resources = append(uids, uid), append(resources, int16(l.Resource))
			amounts, uncertain = append(amounts, l.Amount), append(uncertain, l.Uncertain)
		}
	}
	for _, resource := range slices.Sorted(maps.Keys(r.Totals)) {
		all, totals = append(all, int16(resource)), append(totals, r.Totals[resource])
	}
	batch.Queue(`INSERT INTO noisy.total AS t (reporter, resource, minute, amount)
		SELECT $1, u.resource, date_trunc('minute', clock_timestamp()), u.amount FROM unnest($2::smallint[], $3::bigint[]) AS u (resource, amount)
		ON CONFLICT (minute, reporter, resource) DO UPDATE SET amount = t.amount + excluded.amount`, r.Identity, all, totals)
	batch.Queue(`INSERT INTO noisy.tenant AS t (tenant_uid, plan, model, seen_time)
		SELECT u.uid, u.plan, u.model, clock_timestamp() FROM unnest($1::uuid[], $2::text[], $3::smallint[]) AS u (uid, plan, model)
		ON CONFLICT (tenant_uid) DO UPDATE SET plan = excluded.plan, model = excluded.model, seen_time = excluded.seen_time`,
		tenants, plans, models)
	batch.Queue(`INSERT INTO noisy.share AS s (tenant_uid, reporter, resource, minute, amount, uncertain)
		SELECT u.uid, $1, u.resource, date_trunc('minute', clock_timestamp()), u.amount, u.uncertain
		FROM unnest($2::uuid[], $3::smallint[], $4::bigint[], $5::bigint[]) AS u (uid, resource, amount, uncertain)
		ON CONFLICT (tenant_uid, minute, reporter, resource)
		DO UPDATE SET amount = s.amount + excluded.amount, uncertain = s.uncertain + excluded.uncertain`,
		r.Identity, uids, resources, amounts, uncertain)
}

// Reported is what is known of a tenant from its last report.
type Reported struct {
	Plan  string
	Model tenant.Model
}

// Noise returns what was reported of the last minutes, and of as many before, and what is known of the tenants.
func Noise(ctx context.Context, q Querier, length time.Duration) (noisy.Window, map[tenant.UID]Reported, error) {
	w := noisy.Window{Length: length, Totals: map[noisy.Source]int64{}, Tenants: map[tenant.UID]noisy.Tenant{}}
	minutes := int(length / time.Minute)
	rows, err := q.Query(ctx, `WITH span AS (
			SELECT date_trunc('minute', now()) - make_interval(mins => $1 - 1) AS began,
				date_trunc('minute', now()) - make_interval(mins => 2 * $1 - 1) AS before)
		SELECT s.tenant_uid, s.reporter, s.resource,
			coalesce(sum(s.amount) FILTER (WHERE s.minute >= span.began), 0)::bigint,
			coalesce(sum(s.uncertain) FILTER (WHERE s.minute >= span.began), 0)::bigint,
			coalesce(sum(s.amount) FILTER (WHERE s.minute < span.began), 0)::bigint
		FROM span JOIN noisy.share s ON s.minute >= span.before
		GROUP BY s.tenant_uid, s.reporter, s.resource`, minutes)
	if err != nil {
		return w, nil, fmt.Errorf("what tenants took: %w", err)
	}
	w.Lines, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (l noisy.Line, err error) {
		err = row.Scan((*[16]byte)(&l.Tenant), &l.Reporter, (*int16)(&l.Resource), &l.Amount, &l.Uncertain, &l.Before)
		return l, err
	})
	if err != nil {
		return w, nil, fmt.Errorf("what tenants took: %w", err)
	}
	rows, err = q.Query(ctx, `SELECT reporter, resource, sum(amount)::bigint FROM noisy.total
		WHERE minute >= date_trunc('minute', now()) - make_interval(mins => $1 - 1) GROUP BY reporter, resource`, minutes)
	if err != nil {
		return w, nil, fmt.Errorf("what all tenants took: %w", err)
	}
	var source noisy.Source
	var amount int64
	_, err = pgx.ForEachRow(rows, []any{&source.Reporter, (*int16)(&source.Resource), &amount}, func() error {
		w.Totals[source] = amount
		return nil
	})
	if err != nil {
		return w, nil, fmt.Errorf("what all tenants took: %w", err)
	}
	reported, err := lastSeen(ctx, q)
	return w, reported, err
}

// lastSeen returns what is known of the tenants from their last reports.
func lastSeen(ctx context.Context, q Querier) (map[tenant.UID]Reported, error) {
	known := map[tenant.UID]Reported{}
	rows, err := q.Query(ctx, `SELECT tenant_uid, plan, model FROM noisy.tenant`)
	if err != nil {
		return nil, fmt.Errorf("reported tenants: %w", err)
	}
	var uid [16]byte
	var of Reported
	var model int16
	_, err = pgx.ForEachRow(rows, []any{&uid, &of.Plan, &model}, func() error {
		of.Model = tenant.Model(model) //nolint:gosec // what a context said
		known[uid] = of
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reported tenants: %w", err)
	}
	return known, nil
}

// Limits are the layers that limit requests.
type Limits struct {
	platform       bool
	plans, tenants map[string]bool
}

// Holds reports whether a limit on requests holds for the tenant.
func (l Limits) Holds(uid tenant.UID, plan string) bool {
	return l.platform || l.plans[plan] || l.tenants[uid.String()]
}

// LimitedRequests returns which of the tenants, by themselves or through their layers, have a limit on requests.
func LimitedRequests(ctx context.Context, q Querier, uids []tenant.UID) (Limits, error) {
	l := Limits{plans: map[string]bool{}, tenants: map[string]bool{}}
	names := make([]string, len(uids))
	for i, uid := range uids {
		names[i] = uid.String()
	}
	rows, err := q.Query(ctx, `SELECT layer, layer_id FROM meter.rate_limit
		WHERE coalesce(resource, id) = 'requests' AND mode = 1 AND (expire_time IS NULL OR expire_time > now())
			AND (layer <> 'tenant' OR layer_id = ANY ($1))`, names)
	if err != nil {
		return l, fmt.Errorf("limits on requests: %w", err)
	}
	var layer, id string
	_, err = pgx.ForEachRow(rows, []any{&layer, &id}, func() error {
		switch meter.Layer(layer) {
		case meter.Platform:
			l.platform = true
		case meter.Plan:
			l.plans[id] = true
		case meter.Tenant:
			l.tenants[id] = true
		}
		return nil
	})
	if err != nil {
		return l, fmt.Errorf("limits on requests: %w", err)
	}
	return l, nil
}

// noiseLife is how long reports are kept: twice the longest window, and some.
const noiseLife = 150 * time.Minute

// CollectNoise removes reports that are too old to be asked for, and whatever was told of the tenants that are gone.
func CollectNoise(ctx context.Context, pool *pgxpool.Pool, gone func(tenant.UID) bool) error {
	known, err := lastSeen(ctx, pool)
	if err != nil {
		return err
	}
	var erased []string
	for uid := range known {
		if gone(uid) {
			erased = append(erased, uid.String())
		}
	}
	var failed error
	for _, sql := range []string{
		`DELETE FROM noisy.share WHERE minute < now() - $1::interval OR tenant_uid = ANY ($2::uuid[])`,
		`DELETE FROM noisy.total WHERE minute < now() - $1::interval AND $2::uuid[] IS NOT NULL`,
		`DELETE FROM noisy.tenant WHERE seen_time < now() - $1::interval OR tenant_uid = ANY ($2::uuid[])`,
		`DELETE FROM noisy.reporter WHERE seen_time < now() - $1::interval AND $2::uuid[] IS NOT NULL`,
	} {
		if _, err := pool.Exec(ctx, sql, noiseLife, nonNil(erased)); err != nil {
			failed = errors.Join(failed, fmt.Errorf("collect reports: %w", err))
		}
	}
	return failed
}

// nonNil makes an empty array of no array, which SQL would take for NULL.
func nonNil(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}
