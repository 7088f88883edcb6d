package alloc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
)

// job is an ask on its way.
type job struct {
	charge Charge
	offers []offer
	tries  int

	done   chan struct{}
	answer lease.Answer
	err    error
}

func newJob(ask lease.Ask) *job {
	j := &job{charge: Charge{Scope: ask.Scope}, done: make(chan struct{})}
	for _, c := range ask.Cells {
		o, cell := offerOf(c)
		j.offers, j.charge.Cells = append(j.offers, o), append(j.charge.Cells, cell)
	}
	return j
}

// finish answers the job. It reports whether it was decided; if not it is ready to be
// tried once more.
func (j *job) finish(got Charged) bool {
	j.tries++
	switch {
	case got.Err != nil:
		if (errors.Is(got.Err, ErrBusy) || errors.Is(got.Err, ErrAgain)) && j.tries < attempts {
			return false
		}
		j.err = got.Err
	case got.Stale:
		if j.tries >= attempts {
			j.err = fmt.Errorf("a cell changes all the time: %w", ErrAgain)
			break
		}
		j.charge = j.charge.converted(got)
		return false
	default:
		j.answer = lease.Answer{Outcome: lease.Denied, Cells: make([]lease.CellAnswer, len(j.offers))}
		if got.OK {
			j.answer.Outcome = lease.Granted
		}
		for i, o := range j.offers {
			j.answer.Cells[i] = o.answer(got.Cells[i], got.OK, got.Now)
		}
	}
	close(j.done)
	return true
}

// lane is the asks of one scope that wait, in their order. It is ready, locked or at the
// store, in one of these at a time, and gone when nothing waits.
type lane struct {
	scope lease.Scope
	jobs  []*job
}

// queue takes asks to the store: many scopes in one trip, one scope in one trip at a time.
// Scopes take turns. One whose cells somebody else has locked is left out of the trip and
// waits by itself, so that it delays no other.
type queue struct {
	charge  func(context.Context, Batch) ([]Charged, error)
	flushes int
	working sync.WaitGroup

	mu      sync.Mutex
	lanes   map[lease.Scope]*lane
	ready   []*lane
	locked  []*lane
	active  int // trips with many scopes
	waiting int // trips with one that was locked
}

// add puts jobs in; nil ones are left out.
func (q *queue) add(ctx context.Context, jobs []*job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, j := range jobs {
		if j == nil {
			continue
		}
		l := q.lanes[j.charge.Scope]
		if l == nil {
			l = &lane{scope: j.charge.Scope}
			q.lanes[l.scope] = l
			q.ready = append(q.ready, l)
		}
		if len(l.jobs) >= maxQueue {
			j.answer = lease.Answer{Reason: fault.ReasonLimiterBusy}
			close(j.done)
			continue
		}
		l.jobs = append(l.jobs, j)
	}
	q.start(context.WithoutCancel(ctx))
}

// start begins as many trips as there is work and room for. The lock is held. Whoever asked
// may go away: ctx does not end.
func (q *queue) start(ctx context.Context) {
	for len(q.ready) > 0 && q.active < q.flushes {
		n := min(len(q.ready), maxScopes)
		trip := q.ready[:n:n]
		q.ready = q.ready[n:]
		q.active++
		q.working.Go(func() { q.trip(ctx, trip, 0, &q.active) })
	}
	for len(q.locked) > 0 && q.waiting < q.flushes {
		trip := q.locked[:1:1]
		q.locked = q.locked[1:]
		q.waiting++
		q.working.Go(func() { q.trip(ctx, trip, patience, &q.waiting) })
	}
}

// trip takes the next asks of some scopes to the store. running counts trips like it.
func (q *queue) trip(ctx context.Context, lanes []*lane, patience time.Duration, running *int) {
	jobs := q.take(lanes)
	again := q.run(ctx, jobs, Batch{Patience: patience})
	q.mu.Lock()
	defer q.mu.Unlock()
	*running--
	for i, l := range lanes {
		l.jobs = append(again[i].jobs, l.jobs...)
		switch {
		case len(l.jobs) == 0:
			delete(q.lanes, l.scope)
		case again[i].locked:
			q.locked = append(q.locked, l)
		default:
			q.ready = append(q.ready, l)
		}
	}
	q.start(ctx)
}

// take takes the next jobs of each lane.
func (q *queue) take(lanes []*lane) [][]*job {
	q.mu.Lock()
	defer q.mu.Unlock()
	jobs := make([][]*job, len(lanes))
	for i, l := range lanes {
		n := min(len(l.jobs), maxPerScope)
		jobs[i], l.jobs = l.jobs[:n:n], l.jobs[n:]
	}
	return jobs
}

// undecided is the jobs of a lane that have to be tried again, and whether because others
// had a lock.
type undecided struct {
	jobs   []*job
	locked bool
}

// run takes jobs to the store and answers those that were decided.
func (q *queue) run(ctx context.Context, lanes [][]*job, b Batch) []undecided {
	for _, jobs := range lanes {
		for _, j := range jobs {
			b.Charges = append(b.Charges, j.charge)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, storeWait)
	defer cancel()
	got, err := q.charge(ctx, b)
	if err == nil && len(got) != len(b.Charges) {
		err = fmt.Errorf("%d answers to %d charges", len(got), len(b.Charges))
	}
	if err != nil {
		got = make([]Charged, len(b.Charges))
		for i := range got {
			got[i].Err = err
		}
	}
	again := make([]undecided, len(lanes))
	for i, jobs := range lanes {
		for n, j := range jobs {
			if !j.finish(got[n]) {
				again[i].jobs = append(again[i].jobs, j)
				again[i].locked = again[i].locked || got[n].Err != nil
			}
		}
		got = got[len(jobs):]
	}
	return again
}
