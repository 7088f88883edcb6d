package jobs

import (
	"cmp"
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// newQueue opens a queue over a database of the test's own, which no worker looks at.
func newQueue(t *testing.T) *Queue {
	t.Helper()
	db := pgtest.New(t, pgtest.Template{Name: "jobs_fair", Owner: "jobs_owner", App: "jobs_app", Setup: func(ctx context.Context, dsn string) error {
		return Migrate(ctx, dsn+"&options=-c%20role%3Djobs_owner")
	}})
	step := func(context.Context, *tenantdb.Tx, Step) (Progress, error) { return Progress{}, nil }
	q, err := Open(t.Context(), Config{
		DB: new(tenantdb.DB), DSN: db.DSN("jobs_owner"), Kinds: []Kind{{Name: "k", Class: "bulk", Step: step}},
		Classes: map[string]Class{"bulk": {Workers: 4}}, Lease: time.Minute,
	})
	must(t, err)
	t.Cleanup(q.Close)
	return q
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func (q *Queue) ask(t *testing.T, id string) uuid.UUID {
	t.Helper()
	job, uid := uuid.New(), tenanttest.UID(id)
	must(t, q.announce(t.Context(), uid, job, q.kinds["k"], "an origin"))
	must(t, q.begin(t.Context(), uid, "bulk", []uuid.UUID{job}))
	return job
}

func (q *Queue) mustTake(t *testing.T) turn {
	t.Helper()
	taken, ok, err := q.take(t.Context(), "bulk")
	must(t, err)
	if !ok {
		t.Fatal("nobody's turn")
	}
	return taken
}

// Who has used least, by weight, is next, whatever slices cost and however many run at a time. No tenant is due more than the one
// turn that it may have at a time.
func TestTurnsAreSharedByWeight(t *testing.T) {
	t.Parallel()
	for width, weights := range map[int]map[string]int{
		1: {"one": 1, "two": 2, "five": 5, "long": 1, "due": 2}, 3: {"one": 1, "two": 2, "dos": 2, "long": 1, "due": 2},
	} {
		t.Run(strconv.Itoa(width), func(t *testing.T) {
			t.Parallel()
			q, random := newQueue(t), rand.New(rand.NewPCG(1, uint64(width)))
			names, used := map[tenant.UID]string{}, map[string]float64{}
			for _, id := range slices.Sorted(maps.Keys(weights)) {
				q.ask(t, id)
				names[tenanttest.UID(id)] = id
			}
			type slice struct {
				turn
				cost, end time.Duration
			}
			var running []slice
			for now, i := time.Duration(0), 0; i < 600; i++ {
				for len(running) < width {
					s := slice{turn: q.mustTake(t), cost: time.Duration(50+random.IntN(100)) * time.Millisecond}
					if names[s.uid] == "long" {
						s.cost *= 5 // it brings no more
					}
					s.end = now + s.cost
					running = append(running, s)
				}
				slices.SortFunc(running, func(a, b slice) int { return cmp.Compare(a.end, b.end) })
				s, id := running[0], names[running[0].uid]
				running, now = running[1:], s.end
				must(t, q.settle(t.Context(), s.turn, settlement{cost: s.cost, weight: weights[id]}))
				used[id] += s.cost.Seconds() / float64(weights[id])
			}
			var sum, squares float64
			for _, x := range used {
				sum, squares = sum+x, squares+x*x
			}
			if jain := sum * sum / (float64(len(weights)) * squares); jain < 0.99 || len(used) != len(weights) {
				t.Errorf("Jain's index of the shares by weight is %.4f: %v", jain, used)
			}
		})
	}
}

// A tenant that comes later neither waits for what others used before, nor is owed what it did not use.
func TestIdleTenantsSaveNothingUp(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.ask(t, "old")
	for range 20 {
		must(t, q.settle(t.Context(), q.mustTake(t), settlement{cost: time.Second, weight: 1}))
	}
	q.ask(t, "new")
	order := map[tenant.UID]int{}
	for range 10 {
		taken := q.mustTake(t)
		order[taken.uid]++
		must(t, q.settle(t.Context(), taken, settlement{cost: time.Second, weight: 1}))
	}
	if n := order[tenanttest.UID("new")]; n < 5 || n > 6 {
		t.Errorf("the new one had %d turns of 10", n)
	}
}

// A tenant has one turn at a time, its jobs have it in turns, and nobody has the turn of one that is settled.
func TestOneTurnAtATime(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	first, second := q.ask(t, "acme"), q.ask(t, "acme")
	one := q.mustTake(t)
	if _, ok, err := q.take(t.Context(), "bulk"); ok || err != nil {
		t.Errorf("a second turn of one tenant: %v, %v", ok, err)
	}
	must(t, q.settle(t.Context(), one, settlement{cost: time.Millisecond, weight: 1}))
	two := q.mustTake(t)
	if one.entry.job != first || two.entry.job != second {
		t.Errorf("%s and %s had turns, want %s and %s", one.entry.job, two.entry.job, first, second)
	}
	must(t, q.settle(t.Context(), two, settlement{gone: true, weight: 1}))
	must(t, q.settle(t.Context(), q.mustTake(t), settlement{gone: true, weight: 1}))
	if _, ok, err := q.take(t.Context(), "bulk"); ok || err != nil {
		t.Errorf("a turn of nobody: %v, %v", ok, err)
	}
}

// A worker that overslept its lease settles nothing: the turn is another's, and was paid for.
func TestLeasesEnd(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	job := q.ask(t, "acme")
	late := q.mustTake(t)
	_, err := q.pool.Exec(t.Context(), `UPDATE jobs.turn SET lease_until = now() - interval '1 s'`)
	must(t, err)
	must(t, q.sweep(t.Context()))
	again := q.mustTake(t)
	if again.entry.job != job || again.fence <= late.fence || again.vstart < late.vstart+int64(q.c.Lease) {
		t.Errorf("taken again: %+v after %+v", again, late)
	}
	must(t, q.settle(t.Context(), late, settlement{gone: true, weight: 1}))
	must(t, q.settle(t.Context(), again, settlement{cost: time.Millisecond, weight: 1}))
	if q.mustTake(t).entry.job != job {
		t.Error("the job is gone")
	}
	// A job that takes its workers along waits longer each time.
	for range 3 {
		_, err := q.pool.Exec(t.Context(), `UPDATE jobs.turn SET lease_until = now() - interval '1 s'; UPDATE jobs.entry SET due = now()`)
		must(t, err)
		must(t, q.sweep(t.Context()))
		_, err = q.pool.Exec(t.Context(), `UPDATE jobs.turn SET state = 'ready'; UPDATE jobs.entry SET due = now() - interval '1 s'`)
		must(t, err)
		q.mustTake(t)
	}
	_, err = q.pool.Exec(t.Context(), `UPDATE jobs.turn SET lease_until = now() - interval '1 s'`)
	must(t, err)
	must(t, q.endLeases(t.Context()))
	var wait float64
	must(t, q.pool.QueryRow(t.Context(), `SELECT extract(epoch FROM due - now()) FROM jobs.entry`).Scan(&wait))
	if wait < 2 {
		t.Errorf("it waits %.1f s", wait)
	}
}

// Permits that were lost are made up for, and a tenant that uses nothing is forgotten.
func TestSweepMendsWhatWasLost(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.ask(t, "acme")
	permits := func() (n int) {
		must(t, q.pool.QueryRow(t.Context(), `SELECT count(*) FROM jobs.river_job WHERE state = 'available'`).Scan(&n))
		return n
	}
	_, err := q.pool.Exec(t.Context(), `DELETE FROM jobs.river_job; DELETE FROM jobs.turn`)
	must(t, err)
	must(t, q.sweep(t.Context()))
	if permits() != 1 {
		t.Errorf("%d permits for a job whose turn was lost", permits())
	}
	_, err = q.pool.Exec(t.Context(), `DELETE FROM jobs.river_job`)
	must(t, err)
	must(t, q.sweep(t.Context()))
	must(t, q.sweep(t.Context()))
	if permits() != 1 {
		t.Errorf("%d permits for one turn", permits())
	}
	must(t, q.settle(t.Context(), q.mustTake(t), settlement{gone: true, weight: 1000}))
	q.ask(t, "globex")
	must(t, q.settle(t.Context(), q.mustTake(t), settlement{cost: time.Hour, weight: 1}))
	q.mustTake(t) // whose start is later than what acme used
	must(t, q.sweep(t.Context()))
	var n int
	must(t, q.pool.QueryRow(t.Context(), `SELECT count(*) FROM jobs.turn WHERE tenant_uid = $1`, [16]byte(tenanttest.UID("acme"))).Scan(&n))
	if n != 0 {
		t.Error("a tenant that uses nothing is kept")
	}
	must(t, q.Erase(t.Context(), tenanttest.UID("globex")))
	must(t, q.pool.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM jobs.turn) + (SELECT count(*) FROM jobs.entry)`).Scan(&n))
	if n != 0 {
		t.Errorf("%d rows are left of tenants that were erased", n)
	}
}
