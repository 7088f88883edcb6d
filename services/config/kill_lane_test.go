package config_test

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/keyfile"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
	"github.com/rowhouse-platform/rowhouse/services/config"
)

// lane is followers of a service in which so many tenants of a plan have documents of their own.
type lane struct {
	*rig

	a      api
	stores []*settings.Store

	wanted  atomic.Bool // the value of the banner that is waited for
	waiting atomic.Int64
	all     chan struct{} // closed by the last follower that reads it
	reads   []atomic.Bool // what each read last
}

func newLane(tb testing.TB, tenants, followers int) *lane {
	tb.Helper()
	ids := make([]string, tenants)
	for i := range ids {
		ids[i] = fmt.Sprintf("tenant-%06d", i)
	}
	r := newRigWith(tb, func(*config.Config) {}, ids...)
	l := &lane{rig: r, a: r.as("owner"), stores: make([]*settings.Store, followers), reads: make([]atomic.Bool, followers)}
	n := r.namespace(l.a, "notes", killableSchema)
	r.set(l.a, "platform/config/notes", `{"banner":true}`)
	uids := make([]string, tenants)
	for i, id := range ids {
		uids[i] = tenanttest.UID(id).String()
	}
	// As if each had been written, without an hour of calls: the text of each is another.
	owner := r.db.Owner(tb)
	_, err := owner.Exec(tb.Context(), `INSERT INTO settings.document
			(namespace_uid, layer, layer_id, content, author, reason, revision_time, revision)
		SELECT $1, 'tenant', u, '{"size":' || i || '}', 'x', '', now(), 1 FROM unnest($2::text[]) WITH ORDINALITY AS t (u, i)`, n.GetUid(), uids)
	must(tb, err)
	r.stop()
	r.start()
	keys, err := keyfile.Public(r.path("feed.pub"))
	must(tb, err)
	known := families(tb)
	for i := range l.stores {
		l.stores[i] = &settings.Store{Trust: known}
		f, err := settings.Follow(tb.Context(), settings.FollowConfig{
			Config: r.gateway(), FeedKeys: keys, Replica: strconv.Itoa(i), Store: l.stores[i], Log: slog.New(slog.DiscardHandler),
		})
		must(tb, err)
		tb.Cleanup(f.Close)
		<-f.Ready()
		l.reads[i].Store(true)
		l.stores[i].OnChange(func() { l.look(i) })
	}
	l.a = r.as("owner") // the service has another address now
	return l
}

// look has a follower read the banner of a tenant of the plan.
func (l *lane) look(i int) {
	e, _ := l.stores[i].Holds(settings.Reader{UID: tenanttest.UID("acme"), Plan: "business", Region: tenanttest.Region}, "notes")
	now := e.Object["banner"] == true
	if l.reads[i].Swap(now) != now && now == l.wanted.Load() && l.waiting.Add(-1) == 0 {
		close(l.all)
	}
}

// kill kills or lifts, and returns how long it takes until all followers read that.
func (l *lane) kill(tb testing.TB, lift bool) time.Duration {
	tb.Helper()
	l.all = make(chan struct{})
	l.waiting.Store(int64(len(l.stores)))
	l.wanted.Store(lift)
	const name, pointer, reason = "plans/business/config/notes", "/banner", "to see how long it takes"
	start := time.Now()
	var err error
	if lift {
		_, err = l.a.LiftSetting(tb.Context(), &configv1.LiftSettingRequest{Name: name, Pointer: pointer, Reason: reason})
	} else {
		_, err = l.a.KillSetting(tb.Context(), &configv1.KillSettingRequest{Name: name, Pointer: pointer, Reason: reason})
	}
	must(tb, err)
	select {
	case <-l.all:
	case <-time.After(time.Minute):
		tb.Fatal("the kill never comes")
	}
	return time.Since(start)
}

// kills takes the times of so many kills and lifts in turn.
func (l *lane) kills(tb testing.TB, n int) (took []float64) {
	tb.Helper()
	for i := range n {
		took = append(took, ms(l.kill(tb, i%2 == 1)))
	}
	return took
}

// edits writes the plan's document again and again until stop is called, which returns how long each write took.
func (l *lane) edits(tb testing.TB) (stop func() []float64) {
	tb.Helper()
	ctx, cancel := context.WithCancel(tb.Context())
	began := make(chan struct{})
	var took []float64
	var editing sync.WaitGroup
	editing.Go(func() {
		close(began)
		for i := 0; ctx.Err() == nil; i++ {
			start := time.Now()
			_, err := l.a.UpdateDocument(ctx, setting("plans/business/config/notes", fmt.Sprintf(`{"size":%d}`, i)))
			switch {
			case err == nil:
				took = append(took, ms(time.Since(start)))
			case ctx.Err() == nil && status.Code(err) != codes.DeadlineExceeded: // on a machine that is busy with other work
				tb.Error(err)
				return
			}
		}
	})
	<-began
	return func() []float64 { cancel(); editing.Wait(); return took }
}

// TestKillsPassAPlansEdit kills while a plan is edited again and again: no kill waits for the lock of an edit.
func TestKillsPassAPlansEdit(t *testing.T) {
	t.Parallel()
	l := newLane(t, 50, 2)
	block := l.db.Owner(t) // an edit that is being checked holds the lock of its namespace, for as long as that takes
	tx, err := block.Begin(t.Context())
	must(t, err)
	_, err = tx.Exec(t.Context(), `SELECT FROM settings.namespace WHERE id = 'notes' FOR UPDATE`)
	must(t, err)
	l.kills(t, 4)
	must(t, tx.Rollback(t.Context()))
	stop := l.edits(t)
	l.kills(t, 4)
	stop()
}

// TestKillsPassWritesThatWait: so many writes wait for a namespace as may at once, with a connection each, and kills and halts
// find one all the same.
func TestKillsPassWritesThatWait(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	r.namespace(a, "notes", killableSchema)
	r.namespace(a, "portal", `{}`)
	running := r.begin(a, rolling("plans/free/config/portal", `{"x":1}`))
	block := r.db.Owner(t)
	tx, err := block.Begin(t.Context())
	must(t, err)
	_, err = tx.Exec(t.Context(), `SELECT FROM settings.namespace WHERE id = 'notes' FOR UPDATE`)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	for i := range 40 {
		writing.Go(func() {
			_, _ = a.UpdateDocument(ctx, setting("tenants/acme/config/notes", fmt.Sprintf(`{"size":%d}`, i)))
		})
	}
	last, same := 0, 0
	eventually(t, "as many writes wait as may", func() bool {
		var n int
		must(t, block.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks WHERE NOT granted`).Scan(&n))
		if n != last {
			last, same = n, 0
		}
		same++
		return n > 0 && same > 20
	})
	kill, done := context.WithTimeout(t.Context(), 10*time.Second)
	defer done()
	for range 5 {
		_, err = a.KillSetting(kill, &configv1.KillSettingRequest{Name: "plans/business/config/notes", Pointer: "/banner", Reason: "it is on fire"})
		must(t, err)
		_, err = a.LiftSetting(kill, &configv1.LiftSettingRequest{Name: "plans/business/config/notes", Pointer: "/banner", Reason: "it is out again"})
		must(t, err)
	}
	_, err = a.HaltRollout(kill, &configv1.HaltRolloutRequest{Name: running.GetName(), Reason: "it is on fire"})
	must(t, err)
	must(t, tx.Rollback(t.Context()))
	cancel()
	writing.Wait()
}

// BenchmarkKillLane kills and lifts a setting while the plan of 100,000 tenants with documents of their own is edited again and
// again, and takes the time until all followers read it. Run it once: -benchtime=1x.
func BenchmarkKillLane(b *testing.B) {
	const tenants, followers, kills = 100_000, 20, 100
	l := newLane(b, tenants, followers)
	quiet := l.kills(b, kills)
	stop := l.edits(b)
	busy := l.kills(b, kills)
	edits := stop()
	b.ReportMetric(at(quiet, 0.5), "ms-quiet-p50")
	b.ReportMetric(at(quiet, 0.99), "ms-quiet-p99")
	b.ReportMetric(at(busy, 0.5), "ms-kill-p50")
	b.ReportMetric(at(busy, 0.99), "ms-kill-p99")
	if len(edits) > 0 {
		b.ReportMetric(at(edits, 0.5), "ms-edit-p50")
	}
	b.ReportMetric(float64(len(edits)), "edits")
}
