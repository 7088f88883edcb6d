package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

const selectJobPolicy = `SELECT app, kind, uid::text, scopes, contexts_minute, tenants_minute, max_origin_age_s, create_time,
	update_time, revision FROM registry.job_policy `

func scanJobPolicy(row pgx.CollectableRow) (*tenancyv1.JobPolicy, error) {
	var app, kind string
	var scopes, age int64
	var created, updated time.Time
	m := new(tenancyv1.JobPolicy)
	err := row.Scan(&app, &kind, &m.Uid, &scopes, &m.ContextsPerMinute, &m.TenantsPerMinute, &age, &created, &updated, &m.Revision)
	if err != nil {
		return nil, err
	}
	m.Name, m.Scopes = JobPolicyName(app, kind), uint64(scopes) //nolint:gosec // a bit set
	m.MaxOriginAge = durationpb.New(time.Duration(age) * time.Second)
	m.CreateTime, m.UpdateTime = timestamppb.New(created), timestamppb.New(updated)
	m.Etag = etag.Of(m.GetUid(), m.GetRevision())
	return m, nil
}

// JobPolicyName is the name of what is declared for an app's jobs of a kind.
func JobPolicyName(app, kind string) string { return "apps/" + app + "/jobPolicies/" + kind }

// ReadJobPolicy returns what is declared for an app's jobs of a kind, or RESOURCE_NOT_FOUND.
func ReadJobPolicy(ctx context.Context, q Querier, app, kind string) (*tenancyv1.JobPolicy, error) {
	all, err := collect(ctx, q, scanJobPolicy, selectJobPolicy+`WHERE app = $1 AND kind = $2`, app, kind)
	if err == nil && len(all) == 0 {
		err = pgx.ErrNoRows
	}
	if err := found(err, JobPolicyName(app, kind)); err != nil {
		return nil, err
	}
	return all[0], nil
}

// LockJobPolicy is ReadJobPolicy with the row's lock, under which also its budgets are spent.
func LockJobPolicy(ctx context.Context, q Querier, app, kind string) (*tenancyv1.JobPolicy, error) {
	err := lock(ctx, q, JobPolicyName(app, kind),
		`SELECT 1 FROM registry.job_policy WHERE app = $1 AND kind = $2 FOR NO KEY UPDATE`, app, kind)
	if err != nil {
		return nil, err
	}
	return ReadJobPolicy(ctx, q, app, kind)
}

// ListJobPolicies returns up to limit declarations of an app whose kinds follow after.
func ListJobPolicies(ctx context.Context, q Querier, app, after string, limit int) ([]*tenancyv1.JobPolicy, error) {
	return collect(ctx, q, scanJobPolicy, selectJobPolicy+`WHERE app = $1 AND kind > $2 ORDER BY kind LIMIT $3`, app, after, limit)
}

// PutJobPolicy stores a declaration, new or changed.
func PutJobPolicy(ctx context.Context, q Querier, app, kind string, m *tenancyv1.JobPolicy) error {
	_, err := q.Exec(ctx, `INSERT INTO registry.job_policy AS p (app, kind, uid, scopes, contexts_minute, tenants_minute,
			max_origin_age_s, create_time, update_time, revision) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
		ON CONFLICT (app, kind) DO UPDATE SET scopes = excluded.scopes, contexts_minute = excluded.contexts_minute,
			tenants_minute = excluded.tenants_minute, max_origin_age_s = excluded.max_origin_age_s,
			update_time = excluded.update_time, revision = excluded.revision`,
		app, kind, m.GetUid(), int64(m.GetScopes()), m.GetContextsPerMinute(), m.GetTenantsPerMinute(), //nolint:gosec // a bit set
		int64(m.GetMaxOriginAge().AsDuration()/time.Second), m.GetCreateTime().AsTime(), m.GetUpdateTime().AsTime(), m.GetRevision())
	if err != nil {
		return fmt.Errorf("store %s: %w", JobPolicyName(app, kind), err)
	}
	return nil
}

// DeleteJobPolicy withdraws a declaration, and with it what was spent.
func DeleteJobPolicy(ctx context.Context, q Querier, app, kind string) error {
	_, err := q.Exec(ctx, `DELETE FROM registry.job_policy WHERE app = $1 AND kind = $2`, app, kind)
	return err
}

// ReadContextKey returns a key, good or not, and whether there is one.
func ReadContextKey(ctx context.Context, q Querier, id tenant.KeyID) (ContextKey, bool, error) {
	keys, err := collect(ctx, q, scanKey, selectKey+`WHERE key_id = $1`, id[:])
	if err != nil || len(keys) == 0 {
		return ContextKey{}, false, err
	}
	return keys[0], true, nil
}

// Worksite is an app whose processes show an identity.
type Worksite struct {
	App        string
	Bit        int
	CreateTime time.Time
	Cells      []string // in which they do
}

// Worksites returns the apps whose processes show the identity.
func Worksites(ctx context.Context, q Querier, spiffe string) ([]Worksite, error) {
	return collect(ctx, q, func(row pgx.CollectableRow) (w Worksite, err error) {
		err = row.Scan(&w.App, &w.Bit, &w.CreateTime, &w.Cells)
		return w, err
	}, `SELECT u.app, b.bit, a.create_time, array_agg(u.cell ORDER BY u.cell) FROM registry.app_upstream u
		JOIN registry.audience_bit b ON b.app = u.app JOIN registry.app a ON a.id = u.app
		WHERE u.spiffe_id = $1 GROUP BY u.app, b.bit, a.create_time ORDER BY u.app`, spiffe)
}

// budgetTime is the time for which budgets are given.
const budgetTime = time.Minute

// JobMint is a context that is wanted for jobs of a kind of one tenant.
type JobMint struct {
	Tenant          tenant.UID
	App, Kind       string
	ContextsAMinute int32
	Now             time.Time
}

// SpendContext takes a context out of the tenant's budget. When there is none it returns how long until there is one.
func SpendContext(ctx context.Context, q Querier, m JobMint) (wait time.Duration, err error) {
	each := budgetTime / time.Duration(m.ContextsAMinute)
	key := []any{[16]byte(m.Tenant), m.App, m.Kind, m.Now, each, m.Now.Add(budgetTime)}
	tag, err := q.Exec(ctx, `INSERT INTO registry.job_mint AS j (tenant_uid, app, kind, repaid, mint_time)
		VALUES ($1, $2, $3, $4::timestamptz + $5::interval, $4)
		ON CONFLICT (tenant_uid, app, kind) DO UPDATE SET repaid = greatest(j.repaid, $4) + $5::interval, mint_time = $4
		WHERE greatest(j.repaid, $4) + $5::interval <= $6`, key...)
	if err != nil || tag.RowsAffected() == 1 {
		return 0, err
	}
	var repaid time.Time
	err = q.QueryRow(ctx, `SELECT repaid FROM registry.job_mint WHERE tenant_uid = $1 AND app = $2 AND kind = $3`, key[:3]...).Scan(&repaid)
	if errors.Is(err, pgx.ErrNoRows) {
		return each, nil
	}
	return repaid.Add(each).Sub(m.Now.Add(budgetTime)), err
}

// TenantsServed returns for how many other tenants contexts for jobs of the kind were made within the last minute, up to most.
func TenantsServed(ctx context.Context, q Querier, m JobMint, most int32) (n int32, err error) {
	err = q.QueryRow(ctx, `SELECT count(*) FROM (SELECT FROM registry.job_mint
		WHERE app = $1 AND kind = $2 AND mint_time > $3 AND tenant_uid <> $4 LIMIT $5) t`,
		m.App, m.Kind, m.Now.Add(-budgetTime), [16]byte(m.Tenant), most).Scan(&n)
	return n, err
}

// ForgetMints removes what was spent before.
func ForgetMints(ctx context.Context, q Querier, before time.Time) error {
	_, err := q.Exec(ctx, `DELETE FROM registry.job_mint WHERE mint_time < $1`, before)
	return err
}
