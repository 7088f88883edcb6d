package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
)

const (
	maxArgs = 64 << 10
	maxPage = 1000
	// afterwards is how long a call may take that comes behind a commit, or behind its caller's end.
	afterwards = 2 * time.Second
)

// Tx is a transaction of the context's tenant that may ask for jobs.
type Tx struct {
	*tenantdb.Tx

	q      *Queue
	origin tenant.Context
	asked  []announcement
}

// announcement is an entry that was made ahead of its job.
type announcement struct {
	job   uuid.UUID
	class string
}

// Tx runs fn in a transaction of the context's tenant, as [tenantdb.DB.Tx] does. The jobs that fn asks for are there when it
// commits, and not otherwise; then they begin at once.
//
// What has to be done is written to the queue's own database ahead of the commit, and confirmed behind it. When the process
// dies in between, a worker finds out within a minute whether the job is there.
func (q *Queue) Tx(ctx context.Context, fn func(*Tx) error, options ...tenantdb.TxOption) error {
	tc, err := tenant.FromContext(ctx)
	if err != nil {
		return err
	}
	var kept, dropped []announcement
	err = q.c.DB.Tx(ctx, func(inner *tenantdb.Tx) error {
		dropped = append(dropped, kept...) // of a try that was given up
		tx := &Tx{Tx: inner, q: q, origin: tc}
		defer func() { kept = tx.asked }()
		return fn(tx)
	}, options...)
	switch {
	case err == nil:
		q.confirm(ctx, tc.UID(), kept)
	case !errors.Is(err, tenantdb.ErrOutcome): // whose jobs may be there
		dropped = append(dropped, kept...)
	}
	q.withdraw(ctx, tc.UID(), dropped)
	return err
}

// Enqueue asks for a job. It is there when the transaction commits. Errors: INVALID_FIELD for a kind that is not one of the
// queue's and arguments that are too large; UNAVAILABLE when the queue's database cannot be reached, and then nothing is asked for.
func (tx *Tx) Enqueue(ctx context.Context, n New) (Job, error) {
	kind, known := tx.q.kinds[n.Kind]
	if !known {
		return Job{}, badField("kind", "is no kind of job of this app")
	}
	args, err := json.Marshal(n.Args)
	if err != nil || len(args) > maxArgs {
		return Job{}, badField("args", "cannot be written as 64 KiB of JSON")
	}
	if n.ID == uuid.Nil {
		if n.ID, err = uuid.NewV7(); err != nil {
			return Job{}, fmt.Errorf("make a job's id: %w", err)
		}
	}
	origin := tx.origin.Token()
	if err := tx.q.announce(ctx, tx.origin.UID(), n.ID, kind, origin); err != nil {
		return Job{}, err
	}
	tx.asked = append(tx.asked, announcement{n.ID, kind.Class})
	_, err = tx.Exec(ctx, insertJob, n.ID, n.Kind, args, []byte(origin), tx.origin.IssueTime(), max(n.Rows, 0))
	if err != nil {
		return Job{}, err
	}
	return tx.q.scan(tx.QueryRow(ctx, getJob, n.ID))
}

// Submit asks for a job in a transaction of its own. Errors are those of [Tx.Enqueue] and of the transaction.
func (q *Queue) Submit(ctx context.Context, n New) (j Job, err error) {
	err = q.Tx(ctx, func(tx *Tx) (err error) {
		j, err = tx.Enqueue(ctx, n)
		return err
	})
	return j, err
}

// The statements. None of them names a tenant: PostgreSQL does.
//
//nolint:gochecknoglobals // statements are constants in all but syntax
var (
	insertJob = tenantdb.Stmt(`INSERT INTO app.job (id, kind, args, origin, origin_time, rows_total) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (tenant_id, id) DO NOTHING`)
	selectJob = tenantdb.Stmt(`SELECT id, kind, args, state, rows_done, rows_total, failures, problem, create_time, start_time,
		update_time, end_time, origin_time FROM app.job `)
	getJob   = tenantdb.Concat(selectJob, tenantdb.Stmt(`WHERE id = $1`))
	listJobs = tenantdb.Concat(selectJob, tenantdb.Stmt(`WHERE ($2::text IS NULL OR kind = $2) ORDER BY create_time DESC, id LIMIT $1`))
	lockJob  = tenantdb.Concat(selectJob, tenantdb.Stmt(`WHERE id = $1 FOR UPDATE`))
	endJob   = tenantdb.Stmt(`UPDATE app.job SET state = $2, end_time = clock_timestamp(), update_time = clock_timestamp() WHERE id = $1`)
	againJob = tenantdb.Stmt(`UPDATE app.job SET state = CASE WHEN start_time IS NULL THEN 'QUEUED' ELSE 'RUNNING' END, failures = 0,
		problem = '', origin = $2, origin_time = $3, end_time = NULL, update_time = clock_timestamp() WHERE id = $1`)
)

// scan reads one job.
func (q *Queue) scan(row interface{ Scan(dest ...any) error }) (Job, error) {
	var j Job
	var start, end *time.Time
	var origin time.Time
	err := row.Scan(&j.ID, &j.Kind, &j.Args, &j.State, &j.RowsDone, &j.RowsTotal, &j.Failures, &j.Problem, &j.CreateTime, &start,
		&j.UpdateTime, &end, &origin)
	if errors.Is(err, tenantdb.ErrNoRows) {
		return Job{}, fault.New(fault.NotFound, fault.ReasonResourceNotFound, "there is no such job")
	}
	if err != nil {
		return Job{}, err
	}
	if start != nil {
		j.StartTime = *start
	}
	if end != nil {
		j.EndTime = *end
	}
	now := q.c.Clock()
	if j.State.Live() && now.Sub(origin) > q.c.OriginAge { // nobody gets a context any more in which to write that down
		j.State, j.Problem = StateDead, "JOB_ORIGIN_EXPIRED: the job was asked for too long ago"
	}
	j.Remaining = j.remaining(now)
	return j, nil
}

// Get returns a job of the context's tenant. Error: RESOURCE_NOT_FOUND.
func (q *Queue) Get(ctx context.Context, id uuid.UUID) (Job, error) {
	return q.scan(q.c.DB.QueryRow(ctx, getJob, id))
}

// List returns the newest jobs of the context's tenant, at most 1,000: of one kind, or of all where kind is "".
func (q *Queue) List(ctx context.Context, kind string, limit int) ([]Job, error) {
	var of *string
	if kind != "" {
		of = &kind
	}
	rows, err := q.c.DB.Query(ctx, listJobs, min(max(limit, 1), maxPage), of)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Job, error) { return q.scan(row) })
}

// Cancel ends a job of the context's tenant and returns it. A step that runs is waited for, and its rows stay. One that has ended
// is returned as it is, but for a DEAD one, which is cancelled as well. Error: RESOURCE_NOT_FOUND.
func (q *Queue) Cancel(ctx context.Context, id uuid.UUID) (j Job, err error) {
	err = q.c.DB.Tx(ctx, func(tx *tenantdb.Tx) error {
		if j, err = q.scan(tx.QueryRow(ctx, lockJob, id)); err != nil || !j.State.Live() && j.State != StateDead {
			return err
		}
		if _, err := tx.Exec(ctx, endJob, id, string(StateCancelled)); err != nil {
			return err
		}
		if j, err = q.scan(tx.QueryRow(ctx, getJob, id)); err != nil {
			return err
		}
		return q.end(ctx, tx, j)
	})
	return j, err
}

// end runs what a kind does when a job of it ends.
func (q *Queue) end(ctx context.Context, tx *tenantdb.Tx, j Job) error {
	if kind, known := q.kinds[j.Kind]; known && kind.End != nil {
		return kind.End(ctx, tx, j)
	}
	return nil
}

// Retry has a DEAD job of the context's tenant go on where it was, with the context as its new origin; also one that is live and was
// forgotten, as the jobs of a tenant are that was deleted and restored. One that is DONE or CANCELLED is returned as it is.
// Error: RESOURCE_NOT_FOUND.
func (q *Queue) Retry(ctx context.Context, id uuid.UUID) (j Job, err error) {
	err = q.Tx(ctx, func(tx *Tx) error {
		if j, err = q.scan(tx.QueryRow(ctx, lockJob, id)); err != nil || !j.State.Live() && j.State != StateDead {
			return err
		}
		kind, known := q.kinds[j.Kind]
		if !known {
			return badField("kind", "is no kind of job of this app any more")
		}
		origin := tx.origin.Token()
		if err := q.forget(ctx, tx.origin.UID(), id); err != nil {
			return err
		}
		if err := q.announce(ctx, tx.origin.UID(), id, kind, origin); err != nil {
			return err
		}
		tx.asked = append(tx.asked, announcement{id, kind.Class})
		if _, err := tx.Exec(ctx, againJob, id, []byte(origin), tx.origin.IssueTime()); err != nil {
			return err
		}
		j, err = q.scan(tx.QueryRow(ctx, getJob, id))
		return err
	})
	return j, err
}

// confirm has jobs begin whose transaction is committed. When that fails they begin later.
func (q *Queue) confirm(ctx context.Context, uid tenant.UID, asked []announcement) {
	if len(asked) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterwards)
	defer cancel()
	byClass := map[string][]uuid.UUID{}
	for _, a := range asked {
		byClass[a.class] = append(byClass[a.class], a.job)
	}
	for class, ids := range byClass {
		if err := q.begin(ctx, uid, class, ids); err != nil {
			q.c.Log.WarnContext(ctx, "jobs begin later than they could", slog.Any("error", err))
		}
	}
}

// withdraw takes back what was announced for a transaction that did not commit. When that fails a worker does it later.
func (q *Queue) withdraw(ctx context.Context, uid tenant.UID, asked []announcement) {
	if len(asked) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterwards)
	defer cancel()
	ids := make([]uuid.UUID, len(asked))
	for i, a := range asked {
		ids[i] = a.job
	}
	slices.SortFunc(ids, func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
	if err := q.forgetAnnounced(ctx, uid, ids); err != nil {
		q.c.Log.WarnContext(ctx, "an announcement of jobs is withdrawn later", slog.Any("error", err))
	}
}

func badField(field, rule string) error {
	return fault.New(fault.InvalidArgument, fault.ReasonInvalidField, "%s %s", field, rule).
		WithField(fault.FieldViolation{Field: field, Description: rule})
}
