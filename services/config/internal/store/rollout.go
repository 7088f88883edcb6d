package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/services/config/internal/rollout"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
)

// States of a rollout, as in rowhouse.config.v1.RolloutState.
const (
	RolloutRunning   = "RUNNING"
	RolloutHalted    = "HALTED"
	RolloutCompleted = "COMPLETED"
)

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
	Baseline                map[string]rollout.Counts
	Approvals               int // how many had approved the content when it began
	Version                 int64
}

const rolloutColumns = `uid::text, namespace_uid::text, namespace, layer, layer_id, document, base_revision, revision, steps, canaries,
	canary_names, bake, error_permille, p99_percent, min_requests, require_requests, author, reason, create_time, state, step, step_time,
	end_time, cause, detail, completed_revision, baselines, approvals, version`

func scanRollout(row pgx.Row) (*Rollout, error) {
	r := new(Rollout)
	var baselines string
	err := row.Scan(&r.UID, &r.NamespaceUID, &r.Namespace, &r.Layer, &r.LayerID, &r.Document, &r.BaseRevision, &r.Revision,
		&r.Plan.Steps, &r.Canaries, &r.CanaryNames, &r.Plan.Bake, &r.Plan.ErrorPermille, &r.Plan.P99Percent, &r.Plan.Requests,
		&r.Plan.RequireRequests, &r.Author, &r.Reason, &r.CreateTime, &r.State, &r.Step, &r.StepTime, &r.EndTime, &r.Cause, &r.Detail,
		&r.CompletedRevision, &baselines, &r.Approvals, &r.Version, &r.Content)
	if err == nil {
		err = json.Unmarshal([]byte(baselines), &r.Baseline)
	}
	return r, err
}

// ReadRollout returns a rollout by its id. A missing one is a fault RESOURCE_NOT_FOUND.
func ReadRollout(ctx context.Context, q Querier, namespace, uid string) (*Rollout, error) {
	return oneRollout(ctx, q, namespace, uid, "")
}

// LockRollout is ReadRollout, and keeps all others from changing it until the transaction ends; reports are taken
// meanwhile. Whoever locks its namespace as well does that first, and judges before this: halts wait for this lock.
func LockRollout(ctx context.Context, q Querier, namespace, uid string) (*Rollout, error) {
	return oneRollout(ctx, q, namespace, uid, " FOR NO KEY UPDATE")
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
			author, reason, create_time, state, step, step_time, approvals)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, 'RUNNING', 0, $20, $21)`,
		r.UID, r.NamespaceUID, r.Namespace, string(r.Layer), r.LayerID, r.Document, r.Content, r.BaseRevision, r.Revision, r.Plan.Steps,
		r.Canaries, r.CanaryNames, r.Plan.Bake, r.Plan.ErrorPermille, r.Plan.P99Percent, r.Plan.Requests, r.Plan.RequireRequests,
		r.Author, r.Reason, r.CreateTime, r.Approvals)
	return wroteRollout(err)
}

// UpdateRollout writes what changes of a rollout, and counts its version up.
func UpdateRollout(ctx context.Context, q Querier, r *Rollout) error {
	r.Version++
	baselines := []byte("{}")
	if r.Baseline != nil {
		var err error
		if baselines, err = json.Marshal(r.Baseline); err != nil {
			return fmt.Errorf("write a rollout: %w", err)
		}
	}
	_, err := q.Exec(ctx, `UPDATE settings.rollout SET state = $2, step = $3, step_time = $4, end_time = $5, cause = $6, detail = $7,
			completed_revision = $8, baselines = $9, version = $10
		WHERE uid = $1`, r.UID, r.State, r.Step, r.StepTime, r.EndTime, r.Cause, r.Detail, r.CompletedRevision, string(baselines), r.Version)
	return wroteRollout(err)
}

func wroteRollout(err error) error {
	if err != nil {
		return fmt.Errorf("write a rollout: %w", err)
	}
	return nil
}
