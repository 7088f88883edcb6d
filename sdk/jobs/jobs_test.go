package jobs_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/jobs"
	"github.com/rowhouse-platform/rowhouse/sdk/jobs/jobstest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
)

const items = `CREATE TABLE app.item (tenant_id uuid NOT NULL DEFAULT rowhouse.tenant_id(), job uuid NOT NULL, n bigint NOT NULL,
	PRIMARY KEY (tenant_id, job, n));
SELECT rowhouse.secure('app.item');`

var (
	addItems   = tenantdb.Stmt(`INSERT INTO app.item (job, n) SELECT $1, g FROM generate_series($2::bigint, $3::bigint) g`)
	countItems = tenantdb.Stmt(`SELECT count(*), coalesce(min(n), 0), coalesce(max(n), 0) FROM app.item WHERE job = $1`)
	dropItems  = tenantdb.Stmt(`DELETE FROM app.item WHERE job = $1`)
)

// fill is a job that writes the numbers from 1 to N, at most Most in a step.
type fill struct{ N, Most int64 }

func fillStep(ctx context.Context, tx *tenantdb.Tx, s jobs.Step) (p jobs.Progress, err error) {
	var args fill
	if err := json.Unmarshal(s.Args, &args); err != nil {
		return p, jobs.Permanent(err)
	}
	last := int64(0)
	if s.Cursor != nil {
		if err := json.Unmarshal(s.Cursor, &last); err != nil {
			return p, jobs.Permanent(err)
		}
	}
	next := min(args.N, last+int64(s.Rows))
	if args.Most > 0 {
		next = min(next, last+args.Most)
	}
	if _, err := tx.Exec(ctx, addItems, s.Job, last+1, next); err != nil {
		return p, err
	}
	p = jobs.Progress{Rows: next - last, Total: args.N, Done: next == args.N}
	p.Cursor, err = json.Marshal(next)
	return p, err
}

func config(kinds ...jobs.Kind) jobs.Config {
	c := jobs.Config{Classes: map[string]jobs.Class{"bulk": {Workers: 2}}, Lease: 2 * time.Second}
	for _, k := range kinds {
		k.Class = "bulk"
		c.Kinds = append(c.Kinds, k)
	}
	return c
}

func filling() jobs.Config { return config(jobs.Kind{Name: "fill", Step: fillStep}) }

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// until waits for what others do in their own time.
func until(tb testing.TB, what string, is func() (bool, string)) {
	tb.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(60 * time.Second)
	defer deadline.Stop()
	for {
		ok, state := is()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			tb.Fatalf("never came: %s; it is %s", what, state)
		}
	}
}

// reaches waits for a job's state. Contexts are short, so it takes a fresh one each time.
func reaches(tb testing.TB, db *dbtest.Database, q *jobs.Queue, id string, job uuid.UUID, want jobs.State) (j jobs.Job) {
	tb.Helper()
	until(tb, "the job is "+string(want), func() (bool, string) {
		var err error
		j, err = q.Get(db.In(tb, id), job)
		return err == nil && j.State == want, fmt.Sprintf("%+v, %v", j, err)
	})
	return j
}

// whole wants all rows of a job, each once: the primary key keeps others out.
func whole(tb testing.TB, db *dbtest.Database, id string, job uuid.UUID, n int64) {
	tb.Helper()
	var count, low, high int64
	must(tb, db.DB.QueryRow(db.In(tb, id), countItems, job).Scan(&count, &low, &high))
	if count != n || n > 0 && (low != 1 || high != n) {
		tb.Errorf("%s has %d items of the job, %d to %d; want %d", id, count, low, high, n)
	}
}

// queued returns how much the queue's own database knows.
func queued(tb testing.TB, queue *pgxpool.Pool) (turns, entries int) {
	tb.Helper()
	must(tb, queue.QueryRow(tb.Context(), `SELECT (SELECT count(*) FROM jobs.turn), (SELECT count(*) FROM jobs.entry)`).Scan(&turns, &entries))
	return turns, entries
}

func admin(tb testing.TB, dsn string) *pgxpool.Pool {
	tb.Helper()
	pool, err := pgxpool.New(tb.Context(), dsn+"&pool_max_conns=1")
	must(tb, err)
	tb.Cleanup(pool.Close)
	return pool
}

// A job of each model's tenants runs to its end, tells how far it is, and leaves nothing in the queue.
func TestJobRunsWhereverItsTenantLives(t *testing.T) {
	t.Parallel()
	for _, model := range []tenant.Model{tenant.ModelShared, tenant.ModelSchema, tenant.ModelDatabase} {
		t.Run(model.String(), func(t *testing.T) {
			t.Parallel()
			db := dbtest.New(t, dbtest.Migrations(jobstest.Files(items)), dbtest.Model(model))
			c := filling()
			c.DSN = jobstest.Database(t)
			q := jobstest.Open(t, db, c)
			jobstest.Run(t, q)
			j, err := q.Submit(db.In(t, "acme"), jobs.New{Kind: "fill", Args: fill{N: 5000}})
			must(t, err)
			if j.State != jobs.StateQueued || j.RowsDone != 0 || j.Kind != "fill" {
				t.Errorf("asked for: %+v", j)
			}
			j = reaches(t, db, q, "acme", j.ID, jobs.StateDone)
			if j.RowsDone != 5000 || j.RowsTotal != 5000 || j.StartTime.IsZero() || j.EndTime.IsZero() || j.Remaining != 0 || j.Problem != "" {
				t.Errorf("done: %+v", j)
			}
			whole(t, db, "acme", j.ID, 5000)
			queue := admin(t, c.DSN)
			until(t, "the queue is empty", func() (bool, string) {
				turns, entries := queued(t, queue)
				return entries == 0 && turns == 0, fmt.Sprint(turns, entries)
			})
		})
	}
}

// What one tenant asks for is not there for another, by any call.
func TestTenantsSeeTheirOwnJobs(t *testing.T) {
	t.Parallel()
	for _, model := range []tenant.Model{tenant.ModelShared, tenant.ModelSchema, tenant.ModelDatabase} {
		t.Run(model.String(), func(t *testing.T) {
			t.Parallel()
			db := dbtest.New(t, dbtest.Migrations(jobstest.Files(items)), dbtest.Model(model))
			c := filling()
			c.DSN = jobstest.Database(t)
			q := jobstest.Open(t, db, c)
			j, err := q.Submit(db.In(t, "acme"), jobs.New{Kind: "fill", Args: fill{N: 10}})
			must(t, err)
			for name, call := range map[string]func(context.Context, uuid.UUID) (jobs.Job, error){"Get": q.Get, "Cancel": q.Cancel, "Retry": q.Retry} {
				if got, err := call(db.In(t, "globex"), j.ID); fault.ReasonOf(err) != fault.ReasonResourceNotFound {
					t.Errorf("%s by another tenant: %+v, %v", name, got, err)
				}
			}
			if list, err := q.List(db.In(t, "globex"), "", 10); err != nil || len(list) != 0 {
				t.Errorf("another tenant lists %v, %v", list, err)
			}
			// The same id is another job, and an entry that is forged into the queue works for the tenant of its origin alone.
			_, err = q.Submit(db.In(t, "globex"), jobs.New{ID: j.ID, Kind: "fill", Args: fill{N: 3}})
			must(t, err)
			_, err = admin(t, c.DSN).Exec(t.Context(), `INSERT INTO jobs.entry (tenant_uid, job, class, kind, origin, announced, due)
				SELECT gen_random_uuid(), job, class, kind, origin, false, now() FROM jobs.entry`)
			must(t, err)
			jobstest.Run(t, q)
			reaches(t, db, q, "acme", j.ID, jobs.StateDone)
			reaches(t, db, q, "globex", j.ID, jobs.StateDone)
			whole(t, db, "acme", j.ID, 10)
			whole(t, db, "globex", j.ID, 3)
			if _, err := q.Get(t.Context(), j.ID); fault.ReasonOf(err) != fault.ReasonContextMissing {
				t.Errorf("without a tenant: %v", err)
			}
		})
	}
}

// A job is there when the transaction that asks for it is committed, and not otherwise.
func TestJobsComeWithTheirTransaction(t *testing.T) {
	t.Parallel()
	db := dbtest.New(t, dbtest.Migrations(jobstest.Files(items)))
	c := filling()
	c.DSN = jobstest.Database(t)
	q := jobstest.Open(t, db, c)
	jobstest.Run(t, q)
	no := errors.New("no")
	var gone jobs.Job
	err := q.Tx(db.In(t, "acme"), func(tx *jobs.Tx) (err error) {
		if gone, err = tx.Enqueue(db.In(t, "acme"), jobs.New{Kind: "fill", Args: fill{N: 10}}); err != nil {
			return err
		}
		return no
	})
	if !errors.Is(err, no) {
		t.Fatal(err)
	}
	if j, err := q.Get(db.In(t, "acme"), gone.ID); fault.ReasonOf(err) != fault.ReasonResourceNotFound {
		t.Errorf("a job of a transaction that was undone: %+v, %v", j, err)
	}
	if _, entries := queued(t, admin(t, c.DSN)); entries != 0 {
		t.Errorf("%d entries are left of it", entries)
	}
	id := uuid.New()
	for range 2 { // the second asks for what is there
		j, err := q.Submit(db.In(t, "acme"), jobs.New{ID: id, Kind: "fill", Args: fill{N: 10}})
		must(t, err)
		reaches(t, db, q, "acme", j.ID, jobs.StateDone)
	}
	whole(t, db, "acme", id, 10)
	for name, n := range map[string]jobs.New{
		"an unknown kind": {Kind: "none"}, "much": {Kind: "fill", Args: strings.Repeat("x", 1<<17)}, "what is no JSON": {Kind: "fill", Args: func() {}},
	} {
		if _, err := q.Submit(db.In(t, "acme"), n); fault.ReasonOf(err) != fault.ReasonInvalidField {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whoever dies between an announcement and its commit, or behind it, leaves a job that runs, or nothing.
func TestAnnouncementsThatNobodyConfirms(t *testing.T) {
	t.Parallel()
	db := dbtest.New(t, dbtest.Migrations(jobstest.Files(items)))
	c := filling()
	c.DSN = jobstest.Database(t)
	q := jobstest.Open(t, db, c)
	j, err := q.Submit(db.In(t, "acme"), jobs.New{Kind: "fill", Args: fill{N: 10}})
	must(t, err)
	queue := admin(t, c.DSN)
	// As if the process had died before it could confirm; and once more, for a job that is in no table.
	_, err = queue.Exec(t.Context(), `DELETE FROM jobs.turn; DELETE FROM jobs.river_job;
		UPDATE jobs.entry SET announced = true, due = now();
		INSERT INTO jobs.entry (tenant_uid, job, class, kind, origin, announced, due)
		SELECT tenant_uid, gen_random_uuid(), class, kind, origin, true, now() FROM jobs.entry`)
	must(t, err)
	jobstest.Run(t, q)
	reaches(t, db, q, "acme", j.ID, jobs.StateDone)
	until(t, "the other one waits for its transaction", func() (bool, string) {
		var waits int
		must(t, queue.QueryRow(t.Context(), `SELECT count(*) FROM jobs.entry WHERE announced AND due > now() + interval '10 s'`).Scan(&waits))
		_, entries := queued(t, queue)
		return waits == 1 && entries == 1, fmt.Sprint(waits, entries)
	})
	_, err = queue.Exec(t.Context(), `UPDATE jobs.entry SET due = now(), create_time = now() - interval '25 hours'`)
	must(t, err)
	until(t, "it is given up", func() (bool, string) {
		_, entries := queued(t, queue)
		return entries == 0, strconv.Itoa(entries)
	})
}

// A small job of one tenant is done while a large one of another goes on, though both share one worker.
func TestSmallJobsDoNotWaitForLargeOnes(t *testing.T) {
	t.Parallel()
	db := dbtest.New(t, dbtest.Migrations(jobstest.Files(items)))
	c := filling()
	c.Classes["bulk"] = jobs.Class{Workers: 1, Slice: 50 * time.Millisecond}
	q := jobstest.Open(t, db, c)
	jobstest.Run(t, q)
	large, err := q.Submit(db.In(t, "acme"), jobs.New{Kind: "fill", Args: fill{N: 1 << 40, Most: 10}})
	must(t, err)
	reaches(t, db, q, "acme", large.ID, jobs.StateRunning)
	for _, id := range []string{"globex", "hooli", "acme"} { // acme's own, too: its jobs take turns among themselves
		small, err := q.Submit(db.In(t, id), jobs.New{Kind: "fill", Args: fill{N: 10}})
		must(t, err)
		reaches(t, db, q, id, small.ID, jobs.StateDone)
	}
	running, err := q.Get(db.In(t, "acme"), large.ID)
	if err != nil || running.State != jobs.StateRunning || running.RowsDone == 0 || running.Remaining == 0 {
		t.Errorf("the large one: %+v, %v", running, err)
	}
	ended, err := q.Cancel(db.In(t, "acme"), large.ID)
	if err != nil || ended.State != jobs.StateCancelled || ended.EndTime.IsZero() {
		t.Errorf("cancelled: %+v, %v", ended, err)
	}
	whole(t, db, "acme", large.ID, ended.RowsDone)
}

// A step that fails is tried again, until the job is dead; then somebody retries it, and it goes on where it was.
func TestFailuresAndRetry(t *testing.T) {
	t.Parallel()
	db := dbtest.New(t, dbtest.Migrations(jobstest.Files(items)))
	var broken atomic.Bool
	c := config(jobs.Kind{Name: "shaky", Step: func(ctx context.Context, tx *tenantdb.Tx, s jobs.Step) (jobs.Progress, error) {
		p, err := fillStep(ctx, tx, s)
		if err == nil && s.RowsDone >= 10 && broken.Load() {
			return p, fault.New(fault.FailedPrecondition, "WRONG_STATE", "the shop is closed")
		}
		return p, err
	}}, jobs.Kind{Name: "panics", Step: func(context.Context, *tenantdb.Tx, jobs.Step) (jobs.Progress, error) { panic("oh") }},
		jobs.Kind{Name: "hopeless", Step: func(context.Context, *tenantdb.Tx, jobs.Step) (jobs.Progress, error) {
			return jobs.Progress{}, jobs.Permanent(errors.New("of no use"))
		}})
	c.MaxFailures = 2
	q := jobstest.Open(t, db, c)
	jobstest.Run(t, q)
	broken.Store(true)
	j, err := q.Submit(db.In(t, "acme"), jobs.New{Kind: "shaky", Args: fill{N: 30, Most: 10}})
	must(t, err)
	j = reaches(t, db, q, "acme", j.ID, jobs.StateDead)
	if j.Failures != 2 || j.Problem != "WRONG_STATE: the shop is closed" || j.RowsDone != 10 {
		t.Errorf("dead: %+v", j)
	}
	whole(t, db, "acme", j.ID, 10)
	broken.Store(false)
	j, err = q.Retry(db.In(t, "acme"), j.ID)
	if err != nil || !j.State.Live() || j.Failures != 0 || j.Problem != "" {
		t.Errorf("retried: %+v, %v", j, err)
	}
	reaches(t, db, q, "acme", j.ID, jobs.StateDone)
	whole(t, db, "acme", j.ID, 30)
	for kind, failures := range map[string]int{"panics": 2, "hopeless": 1} {
		j, err := q.Submit(db.In(t, "globex"), jobs.New{Kind: kind})
		must(t, err)
		j = reaches(t, db, q, "globex", j.ID, jobs.StateDead)
		if j.Failures != failures || !strings.HasPrefix(j.Problem, "INTERNAL: ") || strings.Contains(j.Problem, "of no use") {
			t.Errorf("%s: %+v", kind, j)
		}
		if j, err = q.Cancel(db.In(t, "globex"), j.ID); err != nil || j.State != jobs.StateCancelled {
			t.Errorf("cancelled: %+v, %v", j, err)
		}
	}
}

// The jobs of a suspended tenant wait; those of a deleted one are forgotten, until somebody who restored it retries them.
func TestJobsFollowTheirTenant(t *testing.T) {
	t.Parallel()
	db := dbtest.New(t, dbtest.Migrations(jobstest.Files(items)))
	c := filling()
	c.DSN = jobstest.Database(t)
	q := jobstest.Open(t, db, c)
	j, err := q.Submit(db.In(t, "acme"), jobs.New{Kind: "fill", Args: fill{N: 10}})
	must(t, err)
	db.Suspend(t, "acme")
	jobstest.Run(t, q)
	queue := admin(t, c.DSN)
	until(t, "the job waits", func() (bool, string) {
		var tries int
		must(t, queue.QueryRow(t.Context(), `SELECT coalesce(max(tries), 0) FROM jobs.entry WHERE due > now() + interval '10 s'`).Scan(&tries))
		return tries == 1, strconv.Itoa(tries)
	})
	db.Resume(t, "acme")
	if j, err = q.Get(db.In(t, "acme"), j.ID); err != nil || j.State != jobs.StateQueued {
		t.Errorf("while suspended: %+v, %v", j, err)
	}
	db.Change(t, "acme", func(s *tenant.TenantState) { s.State, s.Generation = tenant.StateDeleted, s.Generation+1 })
	_, err = queue.Exec(t.Context(), `UPDATE jobs.entry SET due = now()`)
	must(t, err)
	until(t, "the tenant is forgotten", func() (bool, string) {
		turns, entries := queued(t, queue)
		return turns == 0 && entries == 0, fmt.Sprint(turns, entries)
	})
	db.Change(t, "acme", func(s *tenant.TenantState) { s.State, s.Generation = tenant.StateActive, s.Generation+1 })
	_, err = q.Retry(db.In(t, "acme"), j.ID)
	must(t, err)
	reaches(t, db, q, "acme", j.ID, jobs.StateDone)
	whole(t, db, "acme", j.ID, 10)
}

// What a job needed is removed in the transaction that ends it.
func TestEndComesWithTheEnd(t *testing.T) {
	t.Parallel()
	db := dbtest.New(t, dbtest.Migrations(jobstest.Files(items)))
	q := jobstest.Open(t, db, config(jobs.Kind{Name: "fill", Step: fillStep, End: func(ctx context.Context, tx *tenantdb.Tx, j jobs.Job) error {
		if j.State.Live() || j.EndTime.IsZero() {
			return fmt.Errorf("the job has not ended: %+v", j)
		}
		_, err := tx.Exec(ctx, dropItems, j.ID)
		return err
	}}))
	jobstest.Run(t, q)
	j, err := q.Submit(db.In(t, "acme"), jobs.New{Kind: "fill", Args: fill{N: 10}})
	must(t, err)
	reaches(t, db, q, "acme", j.ID, jobs.StateDone)
	whole(t, db, "acme", j.ID, 0)
}

// Without the database's connections, and with new ones, jobs go on where they were.
func TestJobsSurviveLostConnections(t *testing.T) {
	t.Parallel()
	const n = 3000
	db := dbtest.New(t, dbtest.Migrations(jobstest.Files(items)))
	c := filling()
	c.DSN = jobstest.Database(t)
	q := jobstest.Open(t, db, c)
	jobstest.Run(t, q)
	j, err := q.Submit(db.In(t, "acme"), jobs.New{Kind: "fill", Args: fill{N: n, Most: 50}})
	must(t, err)
	queue, seen := admin(t, c.DSN), int64(0)
	until(t, "the job is done", func() (bool, string) {
		got, err := q.Get(db.In(t, "acme"), j.ID)
		if err == nil && got.RowsDone > seen+n/5 && got.State.Live() {
			seen = got.RowsDone
			_, err = db.Admin.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
				WHERE datname = $1 OR datname = current_database() AND pid <> pg_backend_pid()`, queue.Config().ConnConfig.Database)
			must(t, err)
		}
		return err == nil && got.State == jobs.StateDone, fmt.Sprintf("%+v, %v", got, err)
	})
	whole(t, db, "acme", j.ID, n)
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	db := dbtest.New(t)
	for name, edit := range map[string]func(*jobs.Config){
		"nothing":          func(c *jobs.Config) { *c = jobs.Config{} },
		"no such class":    func(c *jobs.Config) { c.Kinds[0].Class = "none" },
		"a kind twice":     func(c *jobs.Config) { c.Kinds = append(c.Kinds, c.Kinds[0]) },
		"a kind's name":    func(c *jobs.Config) { c.Kinds[0].Name = "Fill!" },
		"no step":          func(c *jobs.Config) { c.Kinds[0].Step = nil },
		"too long a slice": func(c *jobs.Config) { c.Classes["bulk"] = jobs.Class{Slice: 2 * time.Second} },
		"a share":          func(c *jobs.Config) { c.Classes["bulk"] = jobs.Class{Share: 1.5} },
		"a lease":          func(c *jobs.Config) { c.Lease = time.Millisecond },
		"a DSN":            func(c *jobs.Config) { c.DSN = "postgres://secret@%zz" },
	} {
		c := filling()
		c.DB, c.DSN = db.DB, "postgres:///nowhere"
		edit(&c)
		if _, err := jobs.Open(t.Context(), c); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
