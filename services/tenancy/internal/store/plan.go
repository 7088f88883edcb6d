package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
)

const selectPlan = `SELECT id, uid::text, display_name, models, default_model, statement_ms, lock_ms, idle_ms, retention_s,
	loss, weight, create_time, update_time, revision FROM registry.plan `

func scanPlan(row pgx.CollectableRow) (*tenancyv1.Plan, error) {
	var (
		p                     tenancyv1.Plan
		id                    string
		models                []int32
		model, loss           int32
		statement, lock, idle int64
		retention             int64
		created, updated      time.Time
	)
	err := row.Scan(&id, &p.Uid, &p.DisplayName, &models, &model, &statement, &lock, &idle, &retention, &loss, &p.Weight,
		&created, &updated, &p.Revision)
	if err != nil {
		return nil, err
	}
	p.Name = "plans/" + id
	p.AllowedModels = modelsOf(models)
	p.DefaultModel, p.LossPolicy = tenancyv1.IsolationModel(model), tenancyv1.LossPolicy(loss)
	p.StatementTimeout, p.LockTimeout, p.IdleTransactionTimeout = millis(statement), millis(lock), millis(idle)
	p.Retention = durationpb.New(time.Duration(retention) * time.Second)
	p.CreateTime, p.UpdateTime = timestamppb.New(created), timestamppb.New(updated)
	p.Etag = etag.Of(p.GetUid(), p.GetRevision())
	return &p, nil
}

func millis(n int64) *durationpb.Duration { return durationpb.New(time.Duration(n) * time.Millisecond) }

func modelsOf(numbers []int32) []tenancyv1.IsolationModel {
	models := make([]tenancyv1.IsolationModel, len(numbers))
	for i, n := range numbers {
		models[i] = tenancyv1.IsolationModel(n)
	}
	return models
}

func numbersOf(models []tenancyv1.IsolationModel) []int32 {
	numbers := make([]int32, len(models))
	for i, m := range models {
		numbers[i] = int32(m)
	}
	return numbers
}

// ReadPlan returns the plan, or RESOURCE_NOT_FOUND.
func ReadPlan(ctx context.Context, q Querier, id string) (*tenancyv1.Plan, error) {
	plans, err := collect(ctx, q, scanPlan, selectPlan+`WHERE id = $1`, id)
	if err == nil && len(plans) == 0 {
		err = pgx.ErrNoRows
	}
	if err := found(err, "plans/"+id); err != nil {
		return nil, err
	}
	return plans[0], nil
}

// SharePlan is ReadPlan for a tenant that comes to the plan: it waits for a change of the plan, and keeps others waiting,
// so that a change reaches every tenant.
func SharePlan(ctx context.Context, q Querier, id string) (*tenancyv1.Plan, error) {
	if err := lock(ctx, q, "plans/"+id, `SELECT 1 FROM registry.plan WHERE id = $1 FOR SHARE`, id); err != nil {
		return nil, err
	}
	return ReadPlan(ctx, q, id)
}

// LockPlan is ReadPlan with the row's lock.
func LockPlan(ctx context.Context, q Querier, id string) (*tenancyv1.Plan, error) {
	if err := lock(ctx, q, "plans/"+id, `SELECT 1 FROM registry.plan WHERE id = $1 FOR UPDATE`, id); err != nil {
		return nil, err
	}
	return ReadPlan(ctx, q, id)
}

// ListPlans returns up to limit plans whose id follows after.
func ListPlans(ctx context.Context, q Querier, after string, limit int) ([]*tenancyv1.Plan, error) {
	return collect(ctx, q, scanPlan, selectPlan+`WHERE id > $1 ORDER BY id LIMIT $2`, after, limit)
}

// InsertPlan stores a new plan, of which the caller tells the feed; uid and times are set. Error: RESOURCE_EXISTS.
func InsertPlan(ctx context.Context, q Querier, id string, p *tenancyv1.Plan) error {
	_, err := q.Exec(ctx, `INSERT INTO registry.plan (id, uid, display_name, models, default_model, statement_ms, lock_ms,
		idle_ms, retention_s, loss, weight, create_time, update_time, publish_owed)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $12, $11, $11, false)`,
		id, p.GetUid(), p.GetDisplayName(), numbersOf(p.GetAllowedModels()), int32(p.GetDefaultModel()),
		p.GetStatementTimeout().AsDuration().Milliseconds(), p.GetLockTimeout().AsDuration().Milliseconds(),
		p.GetIdleTransactionTimeout().AsDuration().Milliseconds(), int64(p.GetRetention().AsDuration().Seconds()),
		int32(p.GetLossPolicy()), p.GetCreateTime().AsTime(), p.GetWeight())
	return exists(err, "plans/"+id)
}

// CatalogOwed reports whether the feed is owed a plan or a cell.
func CatalogOwed(ctx context.Context, q Querier) (owed bool, err error) {
	err = q.QueryRow(ctx, `SELECT EXISTS (SELECT FROM registry.plan WHERE publish_owed)
		OR EXISTS (SELECT FROM registry.cell WHERE publish_owed)`).Scan(&owed)
	return owed, err
}

// TakeOwedPlans locks the plans that the feeds are owed, marks them as told and returns them.
func TakeOwedPlans(ctx context.Context, q Querier) ([]*tenancyv1.Plan, error) {
	if _, err := q.Exec(ctx, `SELECT 1 FROM registry.plan WHERE publish_owed FOR UPDATE`); err != nil {
		return nil, err
	}
	owed, err := collect(ctx, q, scanPlan, selectPlan+`WHERE publish_owed ORDER BY id`)
	if err != nil {
		return nil, err
	}
	_, err = q.Exec(ctx, `UPDATE registry.plan SET publish_owed = false WHERE publish_owed`)
	return owed, err
}

// exists turns a violated primary key into RESOURCE_EXISTS.
func exists(err error, name string) error {
	if pg.Code(err) == pg.CodeUniqueViolation {
		return fault.New(fault.AlreadyExists, fault.ReasonResourceExists, "%s exists", name).WithMetadata("resource", name)
	}
	if err != nil {
		return fmt.Errorf("insert %s: %w", name, err)
	}
	return nil
}

// UpdatePlan stores a changed plan.
func UpdatePlan(ctx context.Context, q Querier, id string, p *tenancyv1.Plan) error {
	_, err := q.Exec(ctx, `UPDATE registry.plan SET display_name = $2, models = $3, default_model = $4, statement_ms = $5,
		lock_ms = $6, idle_ms = $7, retention_s = $8, loss = $9, update_time = $10, weight = $11 WHERE id = $1`,
		id, p.GetDisplayName(), numbersOf(p.GetAllowedModels()), int32(p.GetDefaultModel()),
		p.GetStatementTimeout().AsDuration().Milliseconds(), p.GetLockTimeout().AsDuration().Milliseconds(),
		p.GetIdleTransactionTimeout().AsDuration().Milliseconds(), int64(p.GetRetention().AsDuration().Seconds()),
		int32(p.GetLossPolicy()), p.GetUpdateTime().AsTime(), p.GetWeight())
	return err
}

// DeletePlan removes a plan. Error: PLAN_IN_USE.
func DeletePlan(ctx context.Context, q Querier, id string) error {
	_, err := q.Exec(ctx, `DELETE FROM registry.plan WHERE id = $1`, id)
	if pg.Code(err) == pg.CodeForeignKeyViolation {
		return fault.New(fault.FailedPrecondition, registry.ReasonPlanInUse, "tenants are on the plan, deleted ones included").
			WithDomain(registry.Domain)
	}
	return err
}

// StampPlan writes the revision of a change into its row.
func StampPlan(ctx context.Context, q Querier, id string, revision int64) error {
	_, err := q.Exec(ctx, `UPDATE registry.plan SET revision = $2 WHERE id = $1`, id, revision)
	return err
}
