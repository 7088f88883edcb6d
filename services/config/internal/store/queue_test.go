package store_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/egress"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/internal/pg/pgdbtest"
	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/webhook"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func long() bool { return os.Getenv("ROWHOUSE_TEST_LONG") != "" }

// house is a queue with endpoints and without the service around it. The URL of an endpoint says how its receiver behaves.
type house struct {
	tb    testing.TB
	db    *pgdbtest.DB
	super *pgxpool.Pool
	queue *store.Queue
}

func newHouse(tb testing.TB) *house {
	tb.Helper()
	db := pgdbtest.New(tb, pg.Database{Name: "rowhouse_config", Migrations: []fs.FS{change.Migrations(), store.Migrations()}})
	h := &house{tb: tb, db: db, super: db.Owner(tb)}
	h.queue = h.replica()
	return h
}

// replica is the queue as another process sees it.
func (h *house) replica() *store.Queue {
	return &store.Queue{
		Pool:   h.db.Service(h.tb),
		Names:  func(string) string { return "someone" },
		NewUID: func() (string, error) { return uuid.Must(uuid.NewV7()).String(), nil },
		OpenKey: func(string, int32, webhook.Signing, []byte) (webhook.Key, error) {
			return webhook.OpenKey(webhook.HMAC, make([]byte, 32))
		},
		Gone: func(context.Context, string) error { return nil },
	}
}

func (h *house) exec(sql string, args ...any) {
	h.tb.Helper()
	if _, err := h.super.Exec(h.tb.Context(), sql, args...); err != nil {
		h.tb.Fatal(err)
	}
}

// endpoint makes an endpoint of a tenant.
func (h *house) endpoint(tenant, id, url string) {
	h.tb.Helper()
	uid := uuid.Must(uuid.NewV7()).String()
	h.exec(`INSERT INTO webhook.endpoint (uid, tenant_uid, id, url, event_types, description, signing, disabled, create_time, update_time, revision)
		VALUES ($1, $2, $3, $4, '{}', '', 1, false, now(), clock_timestamp(), 1)`, uid, tenant, id, url)
	h.exec(`INSERT INTO webhook.key (endpoint_uid, version, sealed) VALUES ($1, 1, '')`, uid)
}

// happen makes events of a tenant.
func (h *house) happen(tenant string, first, n int) {
	h.tb.Helper()
	h.exec(`INSERT INTO webhook.event (source, revision, key, event_time)
		SELECT 'config', $2 + i, 'doc/portal/tenant/' || $1, clock_timestamp() FROM generate_series(0, $3 - 1) AS i`, tenant, first, n)
}

// post is one call of a receiver.
type post struct {
	url, id string
	took    time.Duration // since the event
}

// world is all receivers: "https://hang…" never answers, "https://fail…" is broken, all others take what comes.
type world struct {
	mu    sync.Mutex
	posts []post
	under map[string]int // calls under way, by URL
	most  map[string]int
	// hold, when it is not nil, has calls wait.
	hold chan struct{}
	// held gets a value for each call that waits.
	held chan struct{}
}

func (w *world) Post(ctx context.Context, url string, header http.Header, body []byte) (*egress.Answer, error) {
	_, rest, _ := strings.Cut(string(body), `"timestamp":"`)
	at, _ := time.Parse(time.RFC3339Nano, rest[:strings.IndexByte(rest, '"')])
	w.mu.Lock()
	w.posts = append(w.posts, post{url, header.Get("Webhook-Id"), time.Since(at)})
	w.under[url]++
	w.most[url] = max(w.most[url], w.under[url])
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.under[url]--
		w.mu.Unlock()
	}()
	switch {
	case strings.HasPrefix(url, "https://hang"):
		<-ctx.Done()
		return nil, &egress.Error{Class: egress.Timeout}
	case strings.HasPrefix(url, "https://fail"):
		return &egress.Answer{Status: 500}, nil
	case w.hold != nil:
		w.held <- struct{}{}
		<-w.hold
	}
	return &egress.Answer{Status: 204}, nil
}

func (w *world) to(prefix string) (found []post) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.posts {
		if strings.HasPrefix(p.url, prefix) {
			found = append(found, p)
		}
	}
	return found
}

func newWorld() *world { return &world{under: map[string]int{}, most: map[string]int{}} }

// dispatch is serve for a world.
func (h *house) dispatch(q webhook.Queue, w *world) (stop func()) { return h.serve(q, w) }

// serve runs a dispatcher until the test ends or stop is called.
func (h *house) serve(q webhook.Queue, w webhook.Poster) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(h.tb.Context()))
	done := make(chan struct{})
	d := webhook.NewDispatcher(webhook.Config{Queue: q, Poster: w, Clock: time.Now, Log: slog.New(slog.DiscardHandler)})
	go func() { defer close(done); _ = d.Run(ctx) }()
	stop = func() { cancel(); <-done }
	h.tb.Cleanup(stop)
	return stop
}

func (h *house) await(what string, is func() bool) {
	h.tb.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-deadline.C:
			h.tb.Fatalf("never came: %s", what)
		}
	}
}

// count is how many deliveries are in a state.
func (h *house) count(state string) (n int) {
	h.tb.Helper()
	if err := h.super.QueryRow(h.tb.Context(), `SELECT count(*) FROM webhook.delivery WHERE state = $1`, state).Scan(&n); err != nil {
		h.tb.Fatal(err)
	}
	return n
}

const good, bad = "019a0000-0000-7000-8000-0000000000aa", "019a0000-0000-7000-8000-0000000000bb"

func TestReplicasShareTheWork(t *testing.T) {
	t.Parallel()
	h, w := newHouse(t), newWorld()
	for i := range 3 {
		h.endpoint(good, fmt.Sprintf("e%d", i), fmt.Sprintf("https://good-%d.dev", i))
	}
	for range 3 {
		h.dispatch(h.replica(), w)
	}
	const n = 200
	h.happen(good, 1, n)
	h.await("all are delivered", func() bool { return h.count("DELIVERED") == 3*n })
	seen := map[string]int{}
	for _, p := range w.to("https://good") {
		seen[p.id]++
	}
	if len(seen) != 3*n || len(w.to("https://good")) != 3*n {
		t.Errorf("%d messages in %d calls, want %d of each", len(seen), len(w.to("https://good")), 3*n)
	}
	for url, most := range w.most {
		if most > webhook.PerFast {
			t.Errorf("%s had %d calls at once", url, most)
		}
	}
}

func TestWhatACrashLeavesIsSentByAnother(t *testing.T) {
	t.Parallel()
	h, w := newHouse(t), newWorld()
	h.endpoint(good, "e", "https://good.dev")
	h.exec(`UPDATE webhook.endpoint SET fast = true`)
	h.happen(good, 1, 2)
	if n, err := h.queue.FanOut(t.Context(), 10); err != nil || n != 2 {
		t.Fatalf("FanOut = %d, %v", n, err)
	}
	// The same events once more, as another replica may find them out: nothing is told twice.
	h.happen(good, 1, 2)
	if n, err := h.queue.FanOut(t.Context(), 10); err != nil || n != 2 || h.count("PENDING") != 2 {
		t.Fatalf("FanOut again = %d, %v, and %d wait", n, err, h.count("PENDING"))
	}
	taken, err := h.queue.Claim(t.Context(), 10, true)
	if err != nil || len(taken) != 2 {
		t.Fatalf("Claim = %d, %v", len(taken), err)
	}
	// The process that took them is gone. Until its lease ends they are nobody else's.
	if again, err := h.queue.Claim(t.Context(), 10, true); err != nil || len(again) != 0 {
		t.Fatalf("a second Claim = %d, %v", len(again), err)
	}
	h.exec(`UPDATE webhook.delivery SET lease_until = now() - interval '1 second'`)
	h.exec(`UPDATE webhook.endpoint SET due_time = now() - interval '1 second'`)
	h.dispatch(h.replica(), w)
	h.await("both are delivered", func() bool { return h.count("DELIVERED") == 2 })
	// It was only slow: what it writes now counts no more.
	if err := h.queue.Finish(t.Context(), taken[0], webhook.Result{Dead: true}); err != nil || h.count("DELIVERED") != 2 {
		t.Errorf("a late Finish: %v, %d are delivered", err, h.count("DELIVERED"))
	}
}

// forgetful loses the first result, as a process that crashes behind its call does.
type forgetful struct {
	webhook.Queue

	once sync.Once
}

func (f *forgetful) Finish(ctx context.Context, t webhook.Task, r webhook.Result) (err error) {
	f.once.Do(func() { err = errors.New("lost") })
	if err != nil {
		return err
	}
	return f.Queue.Finish(ctx, t, r)
}

func TestAResultIsWrittenAgain(t *testing.T) {
	t.Parallel()
	h, w := newHouse(t), newWorld()
	h.endpoint(good, "e", "https://good.dev")
	h.dispatch(&forgetful{Queue: h.queue}, w)
	h.happen(good, 1, 1)
	h.await("it is delivered", func() bool { return h.count("DELIVERED") == 1 })
	if calls := w.to("https://good"); len(calls) != 1 {
		t.Errorf("the receiver was called %d times", len(calls))
	}
}

func TestTheDatabaseGoesAwayWhileAReceiverAnswers(t *testing.T) {
	t.Parallel()
	h, w := newHouse(t), newWorld()
	w.hold, w.held = make(chan struct{}), make(chan struct{})
	h.endpoint(good, "e", "https://good.dev")
	h.dispatch(h.queue, w)
	h.happen(good, 1, 1)
	<-w.held
	super := h.db.Conn(t, pgserver.Superuser)
	if _, err := super.Exec(t.Context(), `SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
		WHERE datname = current_database() AND usename = 'rowhouse_config_service'`); err != nil {
		t.Fatal(err)
	}
	close(w.hold)
	h.await("it is delivered", func() bool { return h.count("DELIVERED") == 1 })
	if calls := w.to("https://good"); len(calls) != 1 {
		t.Errorf("the receiver was called %d times", len(calls))
	}
}

func TestAnOrderlyEndGivesBackWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	h, w := newHouse(t), newWorld()
	h.endpoint(bad, "e", "https://hang.dev")
	stop := h.dispatch(h.queue, w)
	h.happen(bad, 1, 1)
	h.await("it is sent", func() bool { return len(w.to("https://hang")) == 1 })
	stop()
	var attempts int
	var leased bool
	err := h.super.QueryRow(t.Context(), `SELECT attempts, lease_until IS NOT NULL FROM webhook.delivery`).Scan(&attempts, &leased)
	if err != nil || attempts != 0 || leased {
		t.Errorf("%d attempts, leased: %t, %v", attempts, leased, err)
	}
}

// tenant is a uid; kinds of tenants do not overlap.
func tenant(kind, i int) string { return fmt.Sprintf("019a0000-0000-7000-8000-%04x%08x", kind, i) }

// load is a steady flow of events of tenants whose receivers answer at once.
type load struct {
	*house

	world            *world
	tenants, perTick int
	revision         int
}

func newLoad(tb testing.TB) *load {
	tb.Helper()
	l := &load{house: newHouse(tb), world: newWorld(), tenants: 40, perTick: 20, revision: 1}
	for i := range l.tenants {
		l.endpoint(tenant(1, i), "e", fmt.Sprintf("https://good-%d.dev", i))
	}
	l.dispatch(l.queue, l.world)
	return l
}

// run makes events for so many ticks of 100 ms and returns the p99 of the time from an event to its call.
func (l *load) run(ticks int) time.Duration {
	l.tb.Helper()
	before := len(l.world.to("https://good"))
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for range ticks {
		for range l.perTick {
			l.happen(tenant(1, l.revision%l.tenants), l.revision, 1)
			l.revision++
		}
		<-tick.C
	}
	want := before + ticks*l.perTick
	l.await("all good receivers are told", func() bool { return len(l.world.to("https://good")) == want })
	var times []time.Duration
	for _, p := range l.world.to("https://good")[before:] {
		times = append(times, p.took)
	}
	slices.Sort(times)
	return times[len(times)*99/100]
}

// Receivers that hang or fail, more of them than may be called at once, delay no other tenant. Two queues carry the same
// load side by side, one of them with such receivers. With ROWHOUSE_TEST_LONG they do for a minute, in which the calls
// that hang end and begin again.
func TestReceiversThatHangDelayNobodyElse(t *testing.T) {
	t.Parallel()
	quiet, loud := newLoad(t), newLoad(t)
	ticks, tenants, endpoints := 15, 30, 10
	if long() {
		ticks = 600
	}
	both := func(ticks int) (quietly, loudly time.Duration) {
		var wait sync.WaitGroup
		wait.Go(func() { quietly = quiet.run(ticks) })
		wait.Go(func() { loudly = loud.run(ticks) })
		wait.Wait()
		return quietly, loudly
	}
	both(3) // the good ones have shown that they are
	for i := range tenants {
		for e := range endpoints {
			kind := "hang"
			if e%5 == 4 {
				kind = "fail"
			}
			loud.endpoint(tenant(2, i), fmt.Sprintf("e%d", e), fmt.Sprintf("https://%s-%d-%d.dev", kind, i, e))
		}
		loud.happen(tenant(2, i), 1_000_000+100*i, 20)
	}
	loud.await("hostile receivers hold their calls", func() bool {
		var waiting int
		if err := loud.super.QueryRow(t.Context(), `SELECT count(*) FROM webhook.event`).Scan(&waiting); err != nil {
			t.Fatal(err)
		}
		return waiting == 0 && len(loud.world.to("https://hang")) >= 100
	})
	quietly, loudly := both(ticks)
	t.Logf("p99 from event to call: %s alone, %s beside %d receivers that hang or fail: %.3f times",
		quietly, loudly, tenants*endpoints, float64(loudly)/float64(quietly))
	if loudly > 2*quietly+200*time.Millisecond {
		t.Errorf("p99 of others is %s, and %s without receivers that hang", loudly, quietly)
	}
}

// Replicas that follow one feed record each event once, whatever they see of it: deltas, or a snapshot that holds all again.
func TestEventsAreRecordedOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	event := func(revision int64) webhook.Event {
		return webhook.Event{
			Source: webhook.SourceTenancy, Revision: revision, Key: "tenant.active/" + good, Type: "tenant.active", Time: time.Now(),
			Data: `{"tenantUid":"` + good + `"}`,
		}
	}
	record := func(revision int64, events ...int64) {
		t.Helper()
		var all []webhook.Event
		for _, r := range events {
			all = append(all, event(r))
		}
		if err := h.queue.Record(t.Context(), webhook.SourceTenancy, revision, all); err != nil {
			t.Fatal(err)
		}
	}
	waiting := func() (n int) {
		t.Helper()
		if err := h.super.QueryRow(t.Context(), `SELECT count(*) FROM webhook.event`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	h.endpoint(good, "e", "https://good.dev")
	if record(5, 3, 5); waiting() != 0 {
		t.Fatalf("%d events of the past are told", waiting())
	}
	record(6, 6)
	record(6, 6)          // another replica
	record(4, 3)          // one that is behind
	record(9, 5, 6, 7, 9) // a snapshot
	if waiting() != 3 {
		t.Fatalf("%d events wait, want those of 6, 7 and 9", waiting())
	}
	// They are told, and never again, though nothing waits any more.
	if n, err := h.queue.FanOut(t.Context(), 10); err != nil || n != 3 || h.count("PENDING") != 3 {
		t.Fatalf("FanOut = %d, %v, and %d messages wait", n, err, h.count("PENDING"))
	}
	if record(9, 6, 7, 9); waiting() != 0 {
		t.Errorf("%d events are told twice", waiting())
	}
	h.exec(`UPDATE webhook.endpoint SET disabled = true`)
	if record(10, 10); waiting() != 0 {
		t.Error("an event is kept that nobody listens to")
	}
}

func TestMeasures(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	if m, err := h.queue.Measure(t.Context()); err != nil || m != (webhook.Measures{}) {
		t.Fatalf("of nothing: %+v, %v", m, err)
	}
	h.endpoint(good, "e", "https://good.dev")
	h.happen(good, 1, 2)
	if m, err := h.queue.Measure(t.Context()); err != nil || m.Events <= 0 {
		t.Errorf("with an event: %+v, %v", m, err)
	}
	if _, err := h.queue.FanOut(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	h.exec(`UPDATE webhook.delivery SET state = 'DEAD' WHERE revision = 1`)
	if m, err := h.queue.Measure(t.Context()); err != nil || m.Dead != 1 || m.Slow <= 0 || m.Fast != 0 || m.Events != 0 {
		t.Errorf("with a message that waits and a dead one: %+v, %v", m, err)
	}
}

// Whoever serves an endpoint that is not fast holds its row. The events of others do not wait for that, and its own come when it
// is free.
func TestARowThatIsHeldKeepsNobodyWaiting(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.endpoint(good, "e", "https://good.dev")
	h.exec(`UPDATE webhook.endpoint SET fast = true`)
	h.endpoint(bad, "e", "https://hang.dev")
	holder, err := h.super.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := holder.Exec(t.Context(), `SELECT FROM webhook.endpoint WHERE tenant_uid = $1 FOR NO KEY UPDATE`, bad); err != nil {
		t.Fatal(err)
	}
	h.happen(bad, 1, 1)
	h.happen(good, 2, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := h.queue.FanOut(ctx, 10); err != nil || h.count("PENDING") != 1 {
		t.Fatalf("FanOut: %v, %d messages wait", err, h.count("PENDING"))
	}
	if err := holder.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.queue.FanOut(ctx, 10); err != nil || h.count("PENDING") != 2 {
		t.Errorf("FanOut when it is free: %v, %d messages wait", err, h.count("PENDING"))
	}
	if n, err := h.queue.FanOut(ctx, 10); err != nil || n != 0 {
		t.Errorf("FanOut of nothing: %d, %v", n, err)
	}
}

func TestABacklogOfOneThatFailsEnds(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.endpoint(bad, "e", "https://fail.dev")
	h.exec(`UPDATE webhook.endpoint SET failures = 1, due_time = now()`)
	h.exec(`INSERT INTO webhook.delivery (uid, endpoint_uid, source, revision, key, type, body, next_time, state)
		SELECT gen_random_uuid(), e.uid, 'config', i, 'x', 'x', '{}', now(), 'PENDING' FROM webhook.endpoint e, generate_series(1, 10000) AS i`)
	if _, err := h.queue.Claim(t.Context(), 10, false); err != nil {
		t.Fatal(err)
	}
	h.happen(bad, 20_000, 1)
	if _, err := h.queue.FanOut(t.Context(), 10); err != nil || h.count("DEAD") != 1 {
		t.Errorf("FanOut: %v, %d are dead", err, h.count("DEAD"))
	}
}
