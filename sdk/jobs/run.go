package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

const (
	// sweepEvery is how often a process looks for what was lost.
	sweepEvery = time.Second
	// drainTime is how long slices have that run when Run ends; a step is shorter.
	drainTime = 10 * time.Second
	// sweepMost bounds what one sweep mends of a kind.
	sweepMost = 100
	// overAge is how much longer than jobs may run what is left of them stays in the queue.
	overAge = time.Hour
)

// Run runs slices until ctx ends; those that run then end after their step. It returns nil after an orderly end. It runs once.
func (q *Queue) Run(ctx context.Context) error {
	if q.c.Minter == nil {
		return errors.New("run jobs: Minter is required")
	}
	detached := context.WithoutCancel(ctx)
	if err := q.river.Start(detached); err != nil {
		return fmt.Errorf("run jobs: %w", err)
	}
	q.sweepUntil(ctx)
	close(q.stopping)
	drain, cancel := context.WithTimeout(detached, drainTime)
	defer cancel()
	if err := q.river.Stop(drain); err == nil {
		return nil
	}
	hard, stop := context.WithTimeout(detached, drainTime)
	defer stop()
	return q.river.StopAndCancel(hard)
}

// sweepUntil mends what crashes left, until ctx ends.
func (q *Queue) sweepUntil(ctx context.Context) {
	for {
		if err := q.sweep(ctx); err != nil && ctx.Err() == nil {
			q.c.Log.WarnContext(ctx, "the queue of jobs could not be swept", slog.Any("error", err))
		}
		timer := time.NewTimer(time.Duration(float64(sweepEvery) * (0.75 + q.jitter()/2)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// sweep ends leases that are over, gives turns to those whose time has come, and makes up for permits that were lost. Processes
// that sweep at the same time do each other no harm.
func (q *Queue) sweep(ctx context.Context) error {
	return errors.Join(q.endLeases(ctx), q.wakeDue(ctx), q.replacePermits(ctx), q.endIdle(ctx), q.forgetOld(ctx))
}

// endLeases takes turns back from workers that are gone. They cost what they could have used. A job that took its worker along
// waits, longer each time: it may be why.
func (q *Queue) endLeases(ctx context.Context) error {
	return pgx.BeginFunc(ctx, q.pool, func(tx pgx.Tx) error {
		type lost struct {
			UID   [16]byte
			Class string
			Job   *uuid.UUID
		}
		rows, err := tx.Query(ctx, `UPDATE jobs.turn SET state = 'idle', fence = fence + 1, lease_until = NULL,
				finish = vstart + $1::bigint / weight
			WHERE (tenant_uid, class) IN (SELECT tenant_uid, class FROM jobs.turn WHERE state = 'running' AND lease_until < now()
				LIMIT $2 FOR UPDATE SKIP LOCKED) RETURNING tenant_uid, class, job`, int64(q.c.Lease), sweepMost)
		if err != nil {
			return err
		}
		all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[lost])
		if err != nil {
			return err
		}
		for _, l := range all {
			_, err := tx.Exec(ctx, `UPDATE jobs.entry SET due = now() + least(2 ^ least(taken - 1, 20) - 1, 300) * interval '1 s'
				WHERE tenant_uid = $1 AND job = $2 AND taken > 0`, l.UID, l.Job)
			if err != nil {
				return err
			}
			q.c.Log.WarnContext(ctx, "a slice of a job was not heard of any more", slog.String("class", l.Class), slog.Any("job", l.Job))
		}
		return nil
	})
}

// wakeDue gives turns to tenants with jobs whose time has come.
func (q *Queue) wakeDue(ctx context.Context) error {
	type due struct {
		UID   [16]byte
		Class string
	}
	rows, err := q.pool.Query(ctx, `SELECT DISTINCT e.tenant_uid, e.class FROM jobs.entry e
		LEFT JOIN jobs.turn t USING (tenant_uid, class)
		WHERE e.due <= now() AND coalesce(t.state, 'idle') = 'idle' LIMIT $1`, sweepMost)
	if err != nil {
		return err
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[due])
	if err != nil {
		return err
	}
	for _, d := range all {
		err := pgx.BeginFunc(ctx, q.pool, func(tx pgx.Tx) error { return q.wake(ctx, tx, tenant.UID(d.UID), d.Class) })
		if err != nil {
			return err
		}
	}
	return nil
}

// replacePermits makes as many as there are turns that are ready. One too many runs into nothing.
func (q *Queue) replacePermits(ctx context.Context) error {
	type lack struct {
		Class string
		N     int
	}
	rows, err := q.pool.Query(ctx, `SELECT t.class, t.n - coalesce(p.n, 0)
		FROM (SELECT class, count(*)::int AS n FROM jobs.turn WHERE state = 'ready' GROUP BY class) t
		LEFT JOIN (SELECT queue, count(*)::int AS n FROM jobs.river_job WHERE state = 'available' GROUP BY queue) p ON p.queue = t.class
		WHERE t.n > coalesce(p.n, 0)`)
	if err != nil {
		return err
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[lack])
	if err != nil {
		return err
	}
	for _, l := range all {
		err := pgx.BeginFunc(ctx, q.pool, func(tx pgx.Tx) error { return q.permit(ctx, tx, l.Class, min(l.N, sweepMost)) })
		if err != nil {
			return err
		}
	}
	return nil
}

// endIdle moves the time of a class in which nobody waits to where the last one ended, so that nobody owes anything from before.
func (q *Queue) endIdle(ctx context.Context) error {
	_, err := q.pool.Exec(ctx, `UPDATE jobs.class c SET vnow = t.finish FROM (SELECT class, max(finish) AS finish FROM jobs.turn
		GROUP BY class HAVING bool_and(state = 'idle')) t WHERE t.class = c.class AND c.vnow < t.finish`)
	return err
}

// forgetOld removes turns of tenants that used no more than others since, which is what new ones begin with, and entries of jobs
// that get no context any more.
func (q *Queue) forgetOld(ctx context.Context) error {
	_, err := q.pool.Exec(ctx, `DELETE FROM jobs.turn WHERE (tenant_uid, class) IN (SELECT t.tenant_uid, t.class
		FROM jobs.turn t JOIN jobs.class c USING (class) WHERE t.state = 'idle' AND t.finish <= c.vnow
		AND NOT EXISTS (SELECT FROM jobs.entry e WHERE e.tenant_uid = t.tenant_uid AND e.class = t.class)
		LIMIT $1 FOR UPDATE OF t SKIP LOCKED)`, sweepMost)
	if err != nil {
		return err
	}
	_, err = q.pool.Exec(ctx, `DELETE FROM jobs.entry WHERE (tenant_uid, job) IN (SELECT tenant_uid, job FROM jobs.entry
		WHERE create_time < now() - $1::interval LIMIT $2)`, q.c.OriginAge+overAge, sweepMost)
	return err
}

// slicer is River's worker: each of its jobs is a permit for one slice.
type slicer struct {
	river.WorkerDefaults[permit]

	q *Queue
}

// Work implements river.Worker.
func (s *slicer) Work(ctx context.Context, job *river.Job[permit]) error {
	return s.q.slice(ctx, job.Queue)
}
