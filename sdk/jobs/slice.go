package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
)

const (
	firstRows  = 100
	mostRows   = 100_000
	maxCursor  = 64 << 10
	maxProblem = 500
	// The pauses after tries in vain: of a step's own errors, of what stands between us and the tenant, and of tenants that are
	// suspended, which somebody has to resume.
	pauseFirst     = time.Second
	pauseMost      = 5 * time.Minute
	pauseBlocked   = time.Minute
	pauseSuspended = 30 * time.Second
	// longestAnnounced is how long a transaction may take that asked for a job.
	longestAnnounced = 24 * time.Hour
)

// The reasons of MintContext that mean something here.
const (
	reasonOriginExpired   = "JOB_ORIGIN_EXPIRED"
	reasonBudgetExhausted = "JOB_BUDGET_EXHAUSTED"
)

//nolint:gochecknoglobals // statements are constants in all but syntax
var (
	beginStep = tenantdb.Stmt(`SELECT args, state, cursor, rows_done, rows_total FROM app.job WHERE id = $1 FOR UPDATE`)
	endStep   = tenantdb.Stmt(`UPDATE app.job SET cursor = $2, rows_done = rows_done + $3::bigint,
		rows_total = CASE WHEN $4::bigint > 0 THEN $4 ELSE rows_total END, state = $5, failures = 0, problem = '',
		start_time = coalesce(start_time, $6), update_time = clock_timestamp(),
		end_time = CASE WHEN $5 = 'DONE' THEN clock_timestamp() END WHERE id = $1`)
	failStep = tenantdb.Stmt(`UPDATE app.job SET failures = failures + 1, problem = $2, update_time = clock_timestamp(),
		state = CASE WHEN $4 OR failures + 1 >= $3 THEN 'DEAD' ELSE state END,
		end_time = CASE WHEN $4 OR failures + 1 >= $3 THEN clock_timestamp() END
		WHERE id = $1 AND state IN ('QUEUED', 'RUNNING') RETURNING failures, state`)
)

// slice runs one turn, if there is one.
func (q *Queue) slice(ctx context.Context, class string) error {
	t, ok, err := q.take(ctx, class)
	if err != nil || !ok {
		return err
	}
	work, cancel := context.WithTimeout(ctx, q.c.Lease*2/3)
	s := q.work(work, t)
	cancel()
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), q.c.Lease/3)
	defer cancel()
	if err := q.settle(end, t, s); err != nil {
		return fmt.Errorf("settle a slice, which ends by itself later: %w", err)
	}
	return nil
}

// run is a slice that runs.
type run struct {
	q     *Queue
	t     turn
	kind  Kind
	class Class
	s     settlement
}

// work does steps until the slice's time is over, and says what came of it.
func (q *Queue) work(ctx context.Context, t turn) settlement {
	kind, known := q.kinds[t.entry.kind]
	r := &run{q: q, t: t, kind: kind, class: q.c.Classes[t.class], s: settlement{weight: t.weight, tries: t.entry.tries, rows: t.entry.rows}}
	if !known { // this process is older or newer than the one that was asked
		r.blocked(ctx, errors.New("the job's kind is not known here"), pauseBlocked)
		return r.s
	}
	began := q.c.Clock()
	for more := true; more; {
		more = r.step(ctx) && ctx.Err() == nil && q.c.Clock().Sub(began) < r.class.Slice && !q.stopped()
	}
	return r.s
}

func (q *Queue) stopped() bool {
	select {
	case <-q.stopping:
		return true
	default:
		return false
	}
}

// step does one step in a transaction of its own; more says that another one may follow.
func (r *run) step(ctx context.Context) (more bool) {
	key, began := contextKey{r.t.entry.origin, r.t.entry.kind}, r.q.c.Clock()
	tc, err := r.q.contexts.of(ctx, key, began)
	if err != nil {
		r.refused(ctx, err)
		return false
	}
	r.s.weight = min(max(r.q.c.Weight(tc), 1), 1000)
	ctx = tenant.NewContext(ctx, tc)
	began = r.q.c.Clock()
	p, err := r.transact(ctx)
	took := r.q.c.Clock().Sub(began)
	r.s.cost += took
	switch {
	case err != nil && transient(ctx, err):
		r.q.contexts.drop(key)
		if !r.interrupted(ctx) {
			r.s.rows = max(r.rows()/2, 1) // it may be that so many take too long
			r.blocked(ctx, err, pauseBlocked)
		}
		return false
	case err != nil:
		r.failed(ctx, err)
		return false
	case r.s.gone || r.s.wait > 0:
		return false
	}
	r.s.tries = 0
	r.adjust(p, took)
	return !p.Done && r.pause(ctx, took)
}

// interrupted reports whether what failed did so because the slice ended: then the job goes on at once, elsewhere.
func (r *run) interrupted(ctx context.Context) bool { return ctx.Err() != nil && r.q.stopped() }

// pause leaves the database to others for as long as the class wants.
func (r *run) pause(ctx context.Context, took time.Duration) bool {
	rest := time.Duration(float64(took) * (1/r.class.Share - 1))
	if rest <= 0 {
		return true
	}
	timer := time.NewTimer(rest)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	case <-r.q.stopping:
	}
	return false
}

// adjust finds how many rows a step may have to take its time, by no more than twice at once.
func (r *run) adjust(p Progress, took time.Duration) {
	rows := r.rows()
	if p.Rows <= 0 || took <= 0 {
		r.s.rows = rows
		return
	}
	fit := int(min(float64(p.Rows)*float64(r.q.c.StepTime)/float64(took), mostRows))
	r.s.rows = min(max(fit, rows/2, 1), rows*2, mostRows)
}

// rows is how many rows the next step should do.
func (r *run) rows() int {
	if r.s.rows > 0 {
		return r.s.rows
	}
	return firstRows
}

// transact does a step, with its progress, in one transaction. What it decides about the job is in r.s when it commits.
func (r *run) transact(ctx context.Context) (p Progress, err error) {
	var gone bool
	var wait time.Duration
	err = r.q.c.DB.Tx(ctx, func(tx *tenantdb.Tx) error {
		gone, wait = false, 0
		s := Step{Job: r.t.entry.job, Rows: r.rows()}
		var state State
		err := tx.QueryRow(ctx, beginStep, s.Job).Scan(&s.Args, &state, &s.Cursor, &s.RowsDone, &s.RowsTotal)
		if errors.Is(err, tenantdb.ErrNoRows) {
			gone, wait = r.missing()
			return nil
		}
		if err != nil {
			return err
		}
		if gone = !state.Live(); gone {
			return nil
		}
		began := r.q.c.Clock()
		if p, err = r.call(ctx, tx, s); err != nil {
			return err
		}
		gone, state = p.Done, StateRunning
		if p.Done {
			state = StateDone
		}
		_, err = tx.Exec(ctx, endStep, s.Job, p.Cursor, max(p.Rows, 0), max(p.Total, 0), string(state), began)
		if err != nil || !p.Done {
			return err
		}
		j, err := r.q.scan(tx.QueryRow(ctx, getJob, s.Job))
		if err == nil {
			err = r.q.end(ctx, tx, j)
		}
		return err
	})
	if err == nil {
		r.s.gone, r.s.wait = gone, wait
	}
	return p, err
}

// missing says what becomes of an entry whose job is not there: the transaction that asks for it may not have committed yet.
func (r *run) missing() (gone bool, wait time.Duration) {
	if !r.t.entry.announced || r.t.entry.age > longestAnnounced {
		return true, 0
	}
	return false, max(r.t.entry.age, announcedFor)
}

// call runs the kind's step. A panic is an error of it.
func (r *run) call(ctx context.Context, tx *tenantdb.Tx, s Step) (p Progress, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			r.q.c.Log.ErrorContext(ctx, "a step of a job panicked", slog.String("kind", r.kind.Name), slog.Any("panic", cause),
				slog.String("stack", string(debug.Stack())))
			err = fmt.Errorf("a step panicked: %v", cause)
		}
	}()
	p, err = r.kind.Step(ctx, tx, s)
	if err == nil && len(p.Cursor) > maxCursor {
		err = Permanent(fmt.Errorf("a cursor of %d bytes", len(p.Cursor)))
	}
	return p, err
}

// transient reports whether an error says nothing of the job: the database or the time of the slice is why.
func transient(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return true
	}
	for _, why := range []error{
		tenantdb.ErrUnreachable, tenantdb.ErrFenced, tenantdb.ErrMoved, tenantdb.ErrExpired, tenantdb.ErrSuspended, tenantdb.ErrAdmission,
		tenantdb.ErrOutcome, tenantdb.ErrDirty, tenantdb.ErrClosed, tenantdb.ErrPlan,
	} {
		if errors.Is(err, why) {
			return true
		}
	}
	return false
}

// blocked has the job wait because of what is not its fault.
func (r *run) blocked(ctx context.Context, err error, most time.Duration) {
	r.s.tries++
	r.s.wait = r.q.backoff(r.s.tries, pauseFirst, most)
	r.log(ctx, "a job waits", err)
}

// log tells of a job, without what tenants wrote.
func (r *run) log(ctx context.Context, message string, err error) {
	r.q.c.Log.WarnContext(ctx, message, slog.String("kind", r.t.entry.kind), slog.String("job", r.t.entry.job.String()),
		slog.String("rowhouse.tenant.uid", r.t.uid.String()), slog.Duration("wait", r.s.wait), slog.Any("error", err))
}

// backoff is the pause after the nth try in vain: twice as long each time, and random, so that those who met once do not meet
// again.
func (q *Queue) backoff(n int, first, most time.Duration) time.Duration {
	d := min(first<<min(max(n-1, 0), 20), most)
	return time.Duration(float64(d) * (0.75 + q.jitter()/4))
}

// refused decides about a job that gets no context.
func (r *run) refused(ctx context.Context, err error) {
	f, _ := fault.As(err)
	switch fault.ReasonOf(err) {
	case fault.ReasonTenantDeleted:
		r.s.erased = true // its jobs are rows of its own: who restores the tenant retries them
		r.log(ctx, "the jobs of a deleted tenant are forgotten", err)
	case reasonOriginExpired:
		r.s.gone = true
		r.log(ctx, "a job is too old to go on", err)
	case fault.ReasonTenantSuspended:
		r.s.tries++
		r.s.wait = r.q.backoff(r.s.tries, pauseSuspended, pauseMost)
	case reasonBudgetExhausted:
		r.s.wait = max(f.RetryAfter, pauseFirst)
	default:
		r.blocked(ctx, err, pauseMost)
	}
}

// failed writes down that a step failed, and decides whether there is another try.
func (r *run) failed(ctx context.Context, err error) {
	r.s.tries++
	r.s.wait = r.q.backoff(r.s.tries, pauseFirst, pauseMost)
	r.log(ctx, "a step of a job failed", err)
	var failures int
	var state State
	row := r.q.c.DB.QueryRow(ctx, failStep, r.t.entry.job, problemOf(err), r.q.c.MaxFailures, isPermanent(err))
	switch err := row.Scan(&failures, &state); {
	case errors.Is(err, tenantdb.ErrNoRows): // cancelled meanwhile
		r.s.gone = true
	case err != nil:
		r.log(ctx, "that a step of a job failed could not be written down", err)
	default:
		r.s.gone = !state.Live()
		r.s.wait = r.q.backoff(failures, pauseFirst, pauseMost)
	}
}

// problemOf is what a job's tenant is told: the reason of a fault, and nothing that only we should see.
func problemOf(err error) string {
	f, ok := fault.As(err)
	if !ok {
		return "INTERNAL: the step failed; the log says why"
	}
	text := strings.ToValidUTF8(f.Reason+": "+f.Message, "")
	if runes := []rune(text); len(runes) > maxProblem {
		text = string(runes[:maxProblem])
	}
	return text
}
