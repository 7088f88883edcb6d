package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/services/config/internal/rollout"
)

// keepReports is for how long reports of a halted rollout are kept, for those who look why it did.
const keepReports = time.Hour

// TakeTurn reports whether it is this holder who looks after rollouts, for so long, by the database's clock.
func TakeTurn(ctx context.Context, q Querier, holder string, long time.Duration) (bool, error) {
	tag, err := q.Exec(ctx, `UPDATE settings.rollout_turn SET holder = $1, until = clock_timestamp() + $2::interval
		WHERE holder = $1 OR until < clock_timestamp()`, holder, long)
	if err != nil {
		return false, fmt.Errorf("take the turn at rollouts: %w", err)
	}
	return tag.RowsAffected() == 1, nil
}

// DeleteReports forgets what was reported of a rollout.
func DeleteReports(ctx context.Context, q Querier, uid string) error {
	if _, err := q.Exec(ctx, `DELETE FROM settings.rollout_report WHERE rollout_uid = $1`, uid); err != nil {
		return fmt.Errorf("forget reports: %w", err)
	}
	return nil
}

// SweepReports forgets what was reported of rollouts that are over.
func SweepReports(ctx context.Context, q Querier) error {
	if _, err := q.Exec(ctx, `DELETE FROM settings.rollout_report r USING settings.rollout o
		WHERE o.uid = r.rollout_uid AND o.state <> 'RUNNING' AND o.end_time < clock_timestamp() - $1::interval`, keepReports); err != nil {
		return fmt.Errorf("forget reports: %w", err)
	}
	return nil
}

// Reports returns what each process last said of a rollout, unless that was that it ends.
func Reports(ctx context.Context, q Querier, uid string) ([]rollout.Report, error) {
	rows, err := q.Query(ctx, `SELECT reporter, workload, step, report_time, quarantined, crashed, next_requests, next_errors, next_latency,
			current_requests, current_errors, current_latency
		FROM settings.rollout_report WHERE rollout_uid = $1 AND NOT (left_in_order AND quarantined = '' AND NOT crashed) ORDER BY reporter`, uid)
	if err != nil {
		return nil, fmt.Errorf("read reports: %w", err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r rollout.Report, err error) {
		return r, row.Scan(&r.Reporter, &r.Workload, &r.Step, &r.At, &r.Quarantined, &r.Crashed, &r.Next.Requests, &r.Next.Errors,
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
	// Leaving says that the process ends in order.
	Leaving bool
}

// PutReport takes a report in, unless its rollout does not run, or has [rollout.MaxReporters] or [rollout.MaxReports]
// others; a bad one is then taken if there is none so far. A process that has taken the place of one that never
// said that it leaves, and was last heard within [rollout.Fatal] of a step, means that this one died. A process that
// leaves and was well is forgotten.
func PutReport(ctx context.Context, q Querier, r Reported) error {
	_, err := q.Exec(ctx, `INSERT INTO settings.rollout_report AS r (rollout_uid, reporter, instance, step, apply_time, left_in_order,
			quarantined, crashed, next_requests, next_errors, next_latency, current_requests, current_errors, current_latency, workload)
		SELECT o.uid, $3, $4, $5, clock_timestamp() - $6::interval, $7, $8, $9, $10, $11, $12, $13, $14, $15, $17
		FROM settings.rollout o WHERE o.state = 'RUNNING' AND o.namespace = $1 AND ($2 = '' OR o.uid::text = $2) AND $5 <= o.step AND (
			EXISTS (SELECT FROM settings.rollout_report k WHERE k.rollout_uid = o.uid AND k.reporter = $3)
			OR ($8 <> '' OR $9)
				AND NOT EXISTS (SELECT FROM settings.rollout_report k WHERE k.rollout_uid = o.uid AND (k.quarantined <> '' OR k.crashed))
			OR (SELECT count(*) < $19 AND count(*) FILTER (WHERE k.workload = $17) < $18
				FROM settings.rollout_report k WHERE k.rollout_uid = o.uid))
		ON CONFLICT (rollout_uid, reporter) DO UPDATE SET
			crashed = r.crashed OR excluded.crashed OR r.instance <> excluded.instance AND NOT r.left_in_order AND
				r.report_time < $16::interval + greatest(r.apply_time, (SELECT step_time FROM settings.rollout WHERE uid = r.rollout_uid)),
			instance = excluded.instance, step = excluded.step, apply_time = excluded.apply_time, report_time = excluded.report_time,
			left_in_order = excluded.left_in_order, quarantined = excluded.quarantined, workload = excluded.workload,
			next_requests = excluded.next_requests, next_errors = excluded.next_errors, next_latency = excluded.next_latency,
			current_requests = excluded.current_requests, current_errors = excluded.current_errors,
			current_latency = excluded.current_latency`,
		r.Namespace, r.UID, r.Reporter, r.Instance, r.Step, r.Age, r.Leaving, r.Quarantined, r.Crashed, r.Next.Requests, r.Next.Errors,
		some(r.Next.Latency), r.Current.Requests, r.Current.Errors, some(r.Current.Latency), rollout.Fatal,
		r.Workload, rollout.MaxReporters, rollout.MaxReports)
	if err == nil && r.Leaving {
		_, err = q.Exec(ctx, `DELETE FROM settings.rollout_report r USING settings.rollout o WHERE o.uid = r.rollout_uid AND o.namespace = $1
			AND ($2 = '' OR o.uid::text = $2) AND r.reporter = $3 AND r.left_in_order AND r.quarantined = '' AND NOT r.crashed`,
			r.Namespace, r.UID, r.Reporter)
	}
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
