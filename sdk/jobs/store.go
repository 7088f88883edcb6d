package jobs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// announcedFor is how long an announcement waits for the confirmation of its commit until a worker looks for itself.
const announcedFor = 30 * time.Second

// permit is what River carries: that one slice of its queue's class may run.
type permit struct{}

// Kind implements river.JobArgs.
func (permit) Kind() string { return "slice" }

// turn is a slice that a worker has taken: a tenant's, of one job.
type turn struct {
	class  string
	uid    tenant.UID
	fence  int64
	vstart int64
	weight int
	entry  entry
}

// entry is a job that goes on.
type entry struct {
	job       uuid.UUID
	kind      string
	origin    string
	announced bool
	rows      int
	tries     int
	age       time.Duration
}

// settlement is what a slice came to.
type settlement struct {
	cost   time.Duration
	weight int
	gone   bool          // the job goes on no more
	erased bool          // none of the tenant's does
	wait   time.Duration // until the job may go on
	tries  int           // in vain, in a row
	rows   int           // that a step does
}

// down makes a fault of an error of the queue's database.
func down(err error) error {
	if err == nil {
		return nil
	}
	return fault.New(fault.Unavailable, fault.ReasonDependency, "the queue of jobs cannot be reached").WithCause(err)
}

// addClasses makes the classes that are new.
func (q *Queue) addClasses(ctx context.Context) error {
	for name := range q.c.Classes {
		if _, err := q.pool.Exec(ctx, `INSERT INTO jobs.class (class) VALUES ($1) ON CONFLICT DO NOTHING`, name); err != nil {
			return fmt.Errorf("the queue's database is not there or not migrated: %w", err)
		}
	}
	return nil
}

// announce writes ahead of a job's commit that it may be there. A job that is on its way already stays as it is.
func (q *Queue) announce(ctx context.Context, uid tenant.UID, job uuid.UUID, kind Kind, origin string) error {
	_, err := q.pool.Exec(ctx, `INSERT INTO jobs.entry (tenant_uid, job, class, kind, origin, announced, due)
		VALUES ($1, $2, $3, $4, $5, true, now() + $6::interval) ON CONFLICT (tenant_uid, job) DO NOTHING`,
		[16]byte(uid), job, kind.Class, kind.Name, []byte(origin), announcedFor)
	return down(err)
}

// begin has announced jobs begin, and gives their tenant a turn. The turn's row is locked first, as everywhere.
func (q *Queue) begin(ctx context.Context, uid tenant.UID, class string, ids []uuid.UUID) error {
	return pgx.BeginFunc(ctx, q.pool, func(tx pgx.Tx) error {
		if err := q.wake(ctx, tx, uid, class); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE jobs.entry SET announced = false, due = now()
			WHERE tenant_uid = $1 AND job = ANY ($2) AND announced`, [16]byte(uid), ids)
		return err
	})
}

// wake gives a tenant a turn in a class unless it has one. One that was idle begins at the class's time: it saves up nothing.
func (q *Queue) wake(ctx context.Context, tx pgx.Tx, uid tenant.UID, class string) error {
	tag, err := tx.Exec(ctx, `INSERT INTO jobs.turn AS t (tenant_uid, class, state, vstart)
		SELECT $1, class, 'ready', vnow FROM jobs.class WHERE class = $2
		ON CONFLICT (tenant_uid, class) DO UPDATE SET state = 'ready', vstart = greatest(t.finish, excluded.vstart)
		WHERE t.state = 'idle'`, [16]byte(uid), class)
	if err != nil || tag.RowsAffected() == 0 {
		return err
	}
	return q.permit(ctx, tx, class, 1)
}

// permit lets n more slices run.
func (q *Queue) permit(ctx context.Context, tx pgx.Tx, class string, n int) error {
	params := make([]river.InsertManyParams, n)
	for i := range params {
		params[i] = river.InsertManyParams{Args: permit{}, InsertOpts: &river.InsertOpts{Queue: class}}
	}
	_, err := q.river.InsertManyFastTx(ctx, tx, params)
	return err
}

// forget removes a job's entry.
func (q *Queue) forget(ctx context.Context, uid tenant.UID, job uuid.UUID) error {
	_, err := q.pool.Exec(ctx, `DELETE FROM jobs.entry WHERE tenant_uid = $1 AND job = $2`, [16]byte(uid), job)
	return down(err)
}

// forgetAnnounced removes entries whose jobs never came to be.
func (q *Queue) forgetAnnounced(ctx context.Context, uid tenant.UID, ids []uuid.UUID) error {
	_, err := q.pool.Exec(ctx, `DELETE FROM jobs.entry WHERE tenant_uid = $1 AND job = ANY ($2) AND announced`, [16]byte(uid), ids)
	return down(err)
}

// Erase removes all that the queue knows of a tenant. Its jobs themselves are rows of the tenant's and go with those. Workers do
// the same for a tenant that tenancy says is deleted.
func (q *Queue) Erase(ctx context.Context, uid tenant.UID) error {
	return down(pgx.BeginFunc(ctx, q.pool, func(tx pgx.Tx) error { return erase(ctx, tx, uid) }))
}

func erase(ctx context.Context, tx pgx.Tx, uid tenant.UID) error {
	if _, err := tx.Exec(ctx, `DELETE FROM jobs.turn WHERE tenant_uid = $1`, [16]byte(uid)); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `DELETE FROM jobs.entry WHERE tenant_uid = $1`, [16]byte(uid))
	return err
}

// take begins the turn of the tenant whose virtual start is lowest, among those that nobody else is taking; ok is false when
// none is ready.
func (q *Queue) take(ctx context.Context, class string) (t turn, ok bool, err error) {
	for !ok && err == nil {
		t = turn{class: class}
		more := true
		err = pgx.BeginFunc(ctx, q.pool, func(tx pgx.Tx) (err error) {
			ok, more, err = q.takeIn(ctx, tx, &t)
			return err
		})
		if !more {
			break
		}
	}
	return t, ok, err
}

// takeIn is one try; more says that another tenant may be ready.
func (q *Queue) takeIn(ctx context.Context, tx pgx.Tx, t *turn) (ok, more bool, err error) {
	var uid [16]byte
	err = tx.QueryRow(ctx, `SELECT tenant_uid, vstart, weight FROM jobs.turn WHERE class = $1 AND state = 'ready'
		ORDER BY vstart, tenant_uid LIMIT 1 FOR UPDATE SKIP LOCKED`, t.class).Scan(&uid, &t.vstart, &t.weight)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, false, nil
	}
	if err != nil {
		return false, false, err
	}
	t.uid = tenant.UID(uid)
	var origin []byte
	err = tx.QueryRow(ctx, `UPDATE jobs.entry SET ran = clock_timestamp(), taken = taken + 1 WHERE tenant_uid = $1 AND job = (
			SELECT job FROM jobs.entry WHERE tenant_uid = $1 AND class = $2 AND due <= now() ORDER BY ran, sequence LIMIT 1)
		RETURNING job, kind, origin, announced, rows, tries, now() - create_time`, uid, t.class).
		Scan(&t.entry.job, &t.entry.kind, &origin, &t.entry.announced, &t.entry.rows, &t.entry.tries, &t.entry.age)
	if errors.Is(err, pgx.ErrNoRows) {
		_, err = tx.Exec(ctx, `UPDATE jobs.turn SET state = 'idle' WHERE tenant_uid = $1 AND class = $2`, uid, t.class)
		return false, true, err
	}
	if err != nil {
		return false, false, err
	}
	t.entry.origin = string(origin)
	err = tx.QueryRow(ctx, `WITH c AS (UPDATE jobs.class SET vnow = $3 WHERE class = $2 AND vnow < $3)
		UPDATE jobs.turn SET state = 'running', fence = fence + 1, lease_until = now() + $4::interval, job = $5
		WHERE tenant_uid = $1 AND class = $2 RETURNING fence`, uid, t.class, t.vstart, q.c.Lease, t.entry.job).Scan(&t.fence)
	return err == nil, true, err
}

// settle ends a turn at what it really cost. It does nothing when the turn is somebody else's by now.
func (q *Queue) settle(ctx context.Context, t turn, s settlement) error {
	return pgx.BeginFunc(ctx, q.pool, func(tx pgx.Tx) error {
		uid := [16]byte(t.uid)
		var one int
		err := tx.QueryRow(ctx, `SELECT 1 FROM jobs.turn WHERE tenant_uid = $1 AND class = $2 AND fence = $3 AND state = 'running'
			FOR UPDATE`, uid, t.class, t.fence).Scan(&one)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		switch {
		case s.erased:
			return erase(ctx, tx, t.uid)
		case s.gone:
			_, err = tx.Exec(ctx, `DELETE FROM jobs.entry WHERE tenant_uid = $1 AND job = $2`, uid, t.entry.job)
		default:
			_, err = tx.Exec(ctx, `UPDATE jobs.entry SET due = now() + $3::interval, tries = $4, rows = $5, taken = 0
				WHERE tenant_uid = $1 AND job = $2`, uid, t.entry.job, s.wait, s.tries, s.rows)
		}
		if err != nil {
			return err
		}
		var ready bool
		err = tx.QueryRow(ctx, `WITH next AS (SELECT EXISTS (SELECT FROM jobs.entry
				WHERE tenant_uid = $1 AND class = $2 AND due <= now()) AS ready)
			UPDATE jobs.turn t SET finish = t.vstart + $3, weight = $4, job = NULL, lease_until = NULL,
				vstart = greatest(t.vstart + $3, (SELECT vnow FROM jobs.class WHERE class = $2)),
				state = CASE WHEN next.ready THEN 'ready' ELSE 'idle' END
			FROM next WHERE t.tenant_uid = $1 AND t.class = $2 RETURNING next.ready`,
			uid, t.class, virtual(s.cost, s.weight), s.weight).Scan(&ready)
		if err != nil || !ready {
			return err
		}
		return q.permit(ctx, tx, t.class, 1)
	})
}

// virtual is how much of a class's time a slice takes: nanoseconds of one worker, divided by the tenant's weight. No slice is for
// nothing, or one that fails at once would have all turns.
func virtual(cost time.Duration, weight int) int64 {
	const least = time.Millisecond
	return int64(max(cost, least)) / int64(weight)
}
