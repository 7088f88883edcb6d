package rpc

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/allowance"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/durable"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/usage"
)

// forecastEvery is how often periods are looked at.
const forecastEvery = time.Minute

// Forecasts tells, until ctx ends, of quotas that will be used up before their period ends: once for each quota and period.
func Forecasts(c Config) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		tick := time.NewTicker(forecastEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
				if err := Forecast(ctx, c); err != nil && ctx.Err() == nil {
					c.Log.WarnContext(ctx, "quotas were not forecast", "error", err) // the next minute comes
				}
			}
		}
	}
}

// running is a period of a tenant's quota that nobody has been told of.
type running struct {
	tenant, quota string
	start         time.Time
	used, limit   int64
	period        allowance.Period
}

// Forecast looks at all periods once. What cannot be told is left to the next time.
func Forecast(ctx context.Context, c Config) error {
	var last running
	for ctx.Err() == nil {
		found, now, err := runningAfter(ctx, c, last)
		if err != nil || len(found) == 0 {
			return err
		}
		for _, r := range found {
			start, end := r.period.At(now)
			at, reached := usage.Forecast(start, end, now, r.used, r.limit)
			if !reached || !start.Equal(r.start) { // or a period that is over
				continue
			}
			n := durable.Notice{
				Type: durable.LimitForecast, TenantUID: r.tenant, Quota: r.quota, Percent: 100, Used: r.used, Limit: r.limit,
				PeriodStart: start, PeriodEnd: end, Forecast: at,
			}
			if err := tell(ctx, c, n); err != nil {
				return err
			}
		}
		last = found[len(found)-1]
	}
	return ctx.Err()
}

// runningAfter returns the next periods in the order of tenants and quotas, and the database's time.
func runningAfter(ctx context.Context, c Config, last running) (found []running, now time.Time, err error) {
	const most = 500
	err = pg.Tx(ctx, c.Pool, pg.TxOptions{ReadOnly: true}, func(ctx context.Context, tx pgx.Tx) error {
		if err := store.AsEvery(ctx, tx); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `SELECT c.tenant_uid::text, c.quota, c.period_start, c.used, c.lim, q.period, q.anchor_day, q.anchor_hour
			FROM quota.counter c JOIN quota.quota q ON q.uid::text = split_part(c.source, '/', 1)
			WHERE c.period_start > $1 AND c.used > 0 AND c.used < c.lim AND (c.tenant_uid::text, c.quota, c.period_start) > ($2, $3, $4)
				AND NOT EXISTS (SELECT FROM quota.notice n WHERE n.tenant_uid = c.tenant_uid AND n.about = 'quotas/' || c.quota
					AND n.type = $5 AND n.period_start = c.period_start)
			ORDER BY 1, 2, 3 LIMIT $6`, now.AddDate(0, 0, -32), last.tenant, last.quota, last.start, durable.LimitForecast, most)
		if err != nil {
			return err
		}
		found, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (r running, err error) {
			err = row.Scan(&r.tenant, &r.quota, &r.start, &r.used, &r.limit, &r.period.Cycle, &r.period.Day, &r.period.Hour)
			r.start = r.start.UTC()
			return r, err
		})
		return err
	})
	if err != nil {
		return nil, now, fmt.Errorf("look at periods: %w", err)
	}
	return found, now.UTC(), nil
}

// tell gives a notice in a unit of work of its own.
func tell(ctx context.Context, c Config, n durable.Notice) error {
	uid, err := tenant.ParseUID(n.TenantUID)
	if err != nil {
		return err
	}
	job := change.NewBookkeeping(ctx, "quota", "usage.forecast")
	_, err = change.Do(job, c.Kernel, func(ctx context.Context, tx *change.Tx) (*quotav1.QuotaEventEntry, error) {
		if err := store.AsTenant(ctx, tx, uid); err != nil {
			return nil, err
		}
		_, err := durable.Raise(ctx, tx, n)
		return &quotav1.QuotaEventEntry{}, err
	})
	return err
}
