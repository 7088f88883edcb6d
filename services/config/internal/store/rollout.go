package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/rollout"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
)

// States of a rollout, as in rowhouse.config.v1.RolloutState.
const (
	RolloutRunning   = "RUNNING"
	RolloutHalted    = "HALTED"
	RolloutCompleted = "COMPLETED"
)

// ErrRolloutRuns says that another rollout of the namespace runs.
var ErrRolloutRuns = errors.New("another rollout of the namespace runs")

// Rollout is a row of a rollout. Version counts its changes; Content is empty in lists.
type Rollout struct {
	UID                     string
	NamespaceUID, Namespace string
	Layer                   settings.Kind
	LayerID, Document       string
	Content                 string
	BaseRevision, Revision  int64
	Plan                    rollout.Plan
	Canaries, CanaryNames   []string
	Author, Reason          string
	CreateTime              time.Time
	State                   string
	Step                    int
	StepTime                time.Time
	EndTime                 *time.Time
	Cause, Detail           string
	CompletedRevision       int64
	Baseline                rollout.Counts
	Version                 int64
}

const rolloutColumns = `uid::text, namespace_uid::text, namespace, layer, layer_id, document, base_revision, revision, steps, canaries,
	canary_names, bake, error_permille, p99_percent, min_requests, require_requests, author, reason, create_time, state, step, step_time,
	end_time, cause, detail, completed_revision, baseline_requests, baseline_errors, baseline_latency, version`

func scanRollout(row pgx.Row) (*Rollout, error) {
	r := new(Rollout)
	err := row.Scan(&r.UID, &r.NamespaceUID, &r.Namespace, &r.Layer, &r.LayerID, &r.Document, &r.BaseRevision, &r.Revision,
		&r.Plan.Steps, &r.Canaries, &r.CanaryNames, &r.Plan.Bake, &r.Plan.ErrorPermille, &r.Plan.P99Percent, &r.Plan.Requests,
		&r.Plan.RequireRequests, &r.Author, &r.Reason, &r.CreateTime, &r.State, &r.Step, &r.StepTime, &r.EndTime, &r.Cause, &r.Detail,
		&r.CompletedRevision, &r.Baseline.Requests, &r.Baseline.Errors, &r.Baseline.Latency, &r.Version, &r.Content)
	return r, err
}

// ReadRollout returns a rollout by its id. A missing one is a fault RESOURCE_NOT_FOUND.
func ReadRollout(ctx context.Context, q Querier, namespace, uid string) (*Rollout, error) {
	return oneRollout(ctx, q, namespace, uid, "")
}

// LockRollout is ReadRollout, and keeps all others from changing it until the transaction ends. Whoever locks its
// namespace as well does that first.
func LockRollout(ctx context.Context, q Querier, namespace, uid string) (*Rollout, error) {
	return oneRollout(ctx, q, namespace, uid, " FOR UPDATE")
}

func oneRollout(ctx context.Context, q Querier, namespace, uid, lock string) (*Rollout, error) {
	r, err := scanRollout(q.QueryRow(ctx, `SELECT `+rolloutColumns+`, content FROM settings.rollout
		WHERE namespace = $1 AND uid = $2`+lock, namespace, uid))
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, notFound("namespaces/" + namespace + "/rollouts/" + uid)
	}
	if err != nil {
		return nil, fmt.Errorf("read a rollout: %w", err)
	}
	return r, nil
}

// RunningRollout returns the rollout that runs in a namespace, nil without one.
func RunningRollout(ctx context.Context, q Querier, namespaceUID string) (*Rollout, error) {
	r, err := scanRollout(q.QueryRow(ctx, `SELECT `+rolloutColumns+`, content FROM settings.rollout
		WHERE namespace_uid = $1 AND state = 'RUNNING'`, namespaceUID))
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // none runs
	}
	if err != nil {
		return nil, fmt.Errorf("read the rollout that runs: %w", err)
	}
	return r, nil
}

// RunningRollouts returns all rollouts that run, without their contents, and the time.
func RunningRollouts(ctx context.Context, q Querier) (found []*Rollout, now time.Time, err error) {
	if err := q.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now); err != nil {
		return nil, now, fmt.Errorf("read the time: %w", err)
	}
	found, err = rollouts(q.Query(ctx, `SELECT `+rolloutColumns+`, '' FROM settings.rollout WHERE state = 'RUNNING' ORDER BY uid`))
	return found, now, err
}

// ListRollouts returns up to n rollouts of a namespace, or of all for "", that are older than before, the newest first,
// without their contents.
func ListRollouts(ctx context.Context, q Querier, namespace, before string, n int) ([]*Rollout, error) {
	return rollouts(q.Query(ctx, `SELECT `+rolloutColumns+`, '' FROM settings.rollout
		WHERE ($1 = '' OR namespace = $1) AND uid < $2 ORDER BY uid DESC LIMIT $3`, namespace, before, n))
}

func rollouts(rows pgx.Rows, err error) ([]*Rollout, error) {
	if err == nil {
		var found []*Rollout
		if found, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (*Rollout, error) { return scanRollout(row) }); err == nil {
			return found, nil
		}
	}
	return nil, fmt.Errorf("list rollouts: %w", err)
}

// InsertRollout makes a rollout that runs.
func InsertRollout(ctx context.Context, q Querier, r *Rollout) error {
	_, err := q.Exec(ctx, `INSERT INTO settings.rollout (uid, namespace_uid, namespace, layer, layer_id, document, content,
			base_revision, revision, steps, canaries, canary_names, bake, error_permille, p99_percent, min_requests, require_requests,
			author, reason, create_time, state, step, step_time)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, 'RUNNING', 0, $20)`,
		r.UID, r.NamespaceUID, r.Namespace, string(r.Layer), r.LayerID, r.Document, r.Content, r.BaseRevision, r.Revision, r.Plan.Steps,
		r.Canaries, r.CanaryNames, r.Plan.Bake, r.Plan.ErrorPermille, r.Plan.P99Percent, r.Plan.Requests, r.Plan.RequireRequests,
		r.Author, r.Reason, r.CreateTime)
	return wroteRollout(err)
}

// UpdateRollout writes what changes of a rollout, and counts its version up.
func UpdateRollout(ctx context.Context, q Querier, r *Rollout) error {
	r.Version++
	latency := r.Baseline.Latency
	if latency == nil {
		latency = []int64{}
	}
	_, err := q.Exec(ctx, `UPDATE settings.rollout SET state = $2, step = $3, step_time = $4, end_time = $5, cause = $6, detail = $7,
			completed_revision = $8, baseline_requests = $9, baseline_errors = $10, baseline_latency = $11, version = $12
		WHERE uid = $1`, r.UID, r.State, r.Step, r.StepTime, r.EndTime, r.Cause, r.Detail, r.CompletedRevision,
		r.Baseline.Requests, r.Baseline.Errors, latency, r.Version)
	return wroteRollout(err)
}

func wroteRollout(err error) error {
	if pg.Code(err) == pg.CodeUniqueViolation {
		return ErrRolloutRuns
	}
	if err != nil {
		return fmt.Errorf("write a rollout: %w", err)
	}
	return nil
}

// DeleteReports forgets what was reported of a rollout.
func DeleteReports(ctx context.Context, q Querier, uid string) error {
	if _, err := q.Exec(ctx, `DELETE FROM settings.rollout_report WHERE rollout_uid = $1`, uid); err != nil {
		return fmt.Errorf("forget reports: %w", err)
	}
	return nil
}

// Reports returns what each process last said of a rollout.
func Reports(ctx context.Context, q Querier, uid string) ([]rollout.Report, error) {
	rows, err := q.Query(ctx, `SELECT reporter, step, report_time, left_in_order, quarantined, crashed, next_requests, next_errors,
			next_latency, current_requests, current_errors, current_latency
		FROM settings.rollout_report WHERE rollout_uid = $1 ORDER BY reporter`, uid)
	if err != nil {
		return nil, fmt.Errorf("read reports: %w", err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r rollout.Report, err error) {
		return r, row.Scan(&r.Reporter, &r.Step, &r.At, &r.Left, &r.Quarantined, &r.Crashed, &r.Next.Requests, &r.Next.Errors,
			&r.Next.Latency, &r.Current.Requests, &r.Current.Errors, &r.Current.Latency)
	})
	if err != nil {
		return nil, fmt.Errorf("read reports: %w", err)
	}
	return found, nil
}

// Reported is a report of a process as it comes.
type Reported struct {
	rollout.Report

	// Namespace and UID name the rollout. Without UID it is the one that runs in the namespace.
	Namespace, UID string
	// Instance tells the process from its predecessor of the same name. Age is how long ago it applied the step.
	Instance string
	Age      time.Duration
}

// PutReport takes a report in, unless its rollout does not run. A process that has taken the place of one that never
// said that it leaves, and was last heard within [rollout.Fatal] of a step, means that this one died.
func PutReport(ctx context.Context, q Querier, r Reported) error {
	_, err := q.Exec(ctx, `INSERT INTO settings.rollout_report AS r (rollout_uid, reporter, instance, step, apply_time, left_in_order,
			quarantined, crashed, next_requests, next_errors, next_latency, current_requests, current_errors, current_latency)
		SELECT o.uid, $3, $4, $5, clock_timestamp() - $6::interval, $7, $8, $9, $10, $11, $12, $13, $14, $15
		FROM settings.rollout o WHERE o.state = 'RUNNING' AND o.namespace = $1 AND ($2 = '' OR o.uid::text = $2) AND $5 <= o.step
		ON CONFLICT (rollout_uid, reporter) DO UPDATE SET
			crashed = r.crashed OR excluded.crashed OR r.instance <> excluded.instance AND NOT r.left_in_order AND
				r.report_time < $16::interval + greatest(r.apply_time, (SELECT step_time FROM settings.rollout WHERE uid = r.rollout_uid)),
			instance = excluded.instance, step = excluded.step, apply_time = excluded.apply_time, report_time = excluded.report_time,
			left_in_order = excluded.left_in_order, quarantined = excluded.quarantined,
			next_requests = excluded.next_requests, next_errors = excluded.next_errors, next_latency = excluded.next_latency,
			current_requests = excluded.current_requests, current_errors = excluded.current_errors,
			current_latency = excluded.current_latency`,
		r.Namespace, r.UID, r.Reporter, r.Instance, r.Step, r.Age, r.Left, r.Quarantined, r.Crashed, r.Next.Requests, r.Next.Errors,
		some(r.Next.Latency), r.Current.Requests, r.Current.Errors, some(r.Current.Latency), rollout.Fatal)
	if err != nil {
		return fmt.Errorf("take a report: %w", err)
	}
	return nil
}

func some(n []int64) []int64 {
	if n == nil {
		return []int64{}
	}
	return n
}
