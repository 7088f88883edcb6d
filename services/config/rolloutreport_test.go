package config_test

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"os"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/keyfile"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/rollout"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
)

// reporting is a process that says what it likes.
type reporting struct {
	peer    configv1.RolloutServiceClient
	replica string
}

func (p reporting) say(ctx context.Context, leaving bool, reports ...*configv1.RolloutReport) error {
	_, err := p.peer.ReportRolloutHealth(ctx, &configv1.ReportRolloutHealthRequest{
		Replica: p.replica, Instance: "1", Leaving: leaving, Reports: reports,
	})
	return err
}

// reporters are processes of the gateway and of another workload that may report.
func (r *rig) reporters() (gateway, other configv1.RolloutServiceClient) {
	r.tb.Helper()
	return configv1.NewRolloutServiceClient(r.gateway()), configv1.NewRolloutServiceClient(r.workload(r.service("tenancy")))
}

// tallied is a tally of one bucket.
func tallied(requests, errors int64) *configv1.RolloutTally {
	return &configv1.RolloutTally{Requests: requests, Errors: errors, Latency: []int64{requests}}
}

// reports counts what is kept of reports.
func (r *rig) reports() (n int) {
	r.tb.Helper()
	must(r.tb, r.db.Owner(r.tb).QueryRow(r.tb.Context(), `SELECT count(*) FROM settings.rollout_report`).Scan(&n))
	return n
}

// TestReportsAreChecked: of a request with counts that cannot be nothing is taken.
func TestReportsAreChecked(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	r.namespace(a, "notes", `{}`)
	r.begin(a, rolling("platform/config/notes", `{"v":5}`))
	gateway, _ := r.reporters()
	for name, bad := range map[string]*configv1.RolloutTally{
		"more errors than requests": tallied(5, 6),
		"more than there can be":    tallied(rollout.MaxRequests+1, 0),
		"an overflow":               tallied(math.MaxInt64, math.MaxInt64),
		"fewer than none":           {Requests: -1},
		"negative errors":           {Requests: 1, Errors: -1},
		"negative latency":          {Requests: 1, Latency: []int64{-5, 6}},
		"more latency":              {Requests: 1, Latency: []int64{1, 1}},
		"latency that overflows":    {Requests: 1, Latency: []int64{math.MaxInt64, math.MaxInt64, 3}},
	} {
		for side, report := range map[string]*configv1.RolloutReport{
			"next": {Namespace: "notes", Next: bad}, "current": {Namespace: "notes", Current: bad},
		} {
			err := reporting{gateway, "app-1"}.say(t.Context(), false, &configv1.RolloutReport{Namespace: "notes"}, report)
			refused(t, name+", "+side, err, codes.InvalidArgument, fault.ReasonInvalidField)
		}
	}
	if n := r.reports(); n != 0 {
		t.Errorf("%d reports were taken", n)
	}
	must(t, reporting{gateway, "app-1"}.say(t.Context(), false, &configv1.RolloutReport{
		Namespace: "notes", Next: tallied(rollout.MaxRequests, rollout.MaxRequests), Current: tallied(0, 0),
	}))
}

// TestReportersAreBounded: nobody fills the table, or hides by that what others and what suffering processes say.
func TestReportersAreBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	r.namespace(a, "notes", `{}`)
	made := r.begin(a, rolling("platform/config/notes", `{"v":5}`))
	gateway, other := r.reporters()
	well := &configv1.RolloutReport{Namespace: "notes"}
	for i := range rollout.MaxReporters + 10 {
		must(t, reporting{gateway, fmt.Sprint("app-", i)}.say(t.Context(), false, well))
	}
	if n := r.reports(); n != rollout.MaxReporters {
		t.Fatalf("%d reports are kept", n)
	}
	must(t, reporting{gateway, "app-0"}.say(t.Context(), false, &configv1.RolloutReport{Namespace: "notes", Next: tallied(7, 0)}))
	must(t, reporting{other, "app-0"}.say(t.Context(), false, well))
	if h := r.rollout(a, made.GetName()).GetHealth(); h.GetReporters() != rollout.MaxReporters+1 || h.GetNext().GetRequests() != 7 {
		t.Errorf("health %v", h)
	}
	must(t, reporting{gateway, "app-0"}.say(t.Context(), true, well)) // and makes room
	must(t, reporting{gateway, "app-later"}.say(t.Context(), false, well))
	if n := r.reports(); n != rollout.MaxReporters+1 {
		t.Errorf("%d reports are kept", n)
	}
	must(t, reporting{gateway, "app-bad"}.say(t.Context(), false, &configv1.RolloutReport{Namespace: "notes", Crashed: true}))
	if got := r.ended(a, made.GetName()); got.GetHalt() != configv1.RolloutHalt_ROLLOUT_HALT_CRASH {
		t.Errorf("ended %v", got)
	}
}

// TestReportsAreBoundedInAll does not depend on whose they are.
func TestReportsAreBoundedInAll(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	r.namespace(a, "notes", `{}`)
	r.begin(a, rolling("platform/config/notes", `{"v":5}`))
	_, err := r.db.Owner(t).Exec(t.Context(), `INSERT INTO settings.rollout_report (rollout_uid, reporter, workload, instance, step, apply_time,
			left_in_order, quarantined, crashed, next_requests, next_errors, next_latency, current_requests, current_errors, current_latency)
		SELECT uid, 'w' || i || '/r', 'w' || i, '1', 0, now(), false, '', false, 0, 0, '{}', 0, 0, '{}'
		FROM settings.rollout, generate_series(1, $1) i`, rollout.MaxReports)
	must(t, err)
	gateway, _ := r.reporters()
	must(t, reporting{gateway, "app-1"}.say(t.Context(), false, &configv1.RolloutReport{Namespace: "notes"}))
	if n := r.reports(); n != rollout.MaxReports {
		t.Errorf("%d reports are kept", n)
	}
}

// TestALiarHidesNothing: a workload that reports too well does not outweigh another one.
func TestALiarHidesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	r.namespace(a, "notes", `{}`)
	made := r.begin(a, rolling("platform/config/notes", `{"v":5}`))
	r.advance(a, made.GetName())
	gateway, other := r.reporters()
	const most = rollout.MaxRequests
	must(t, reporting{gateway, "liar"}.say(t.Context(), false, &configv1.RolloutReport{
		Namespace: "notes", Step: 1, Next: tallied(most, 0), Current: tallied(most, most/2),
	}))
	must(t, reporting{other, "app-1"}.say(t.Context(), false, &configv1.RolloutReport{
		Namespace: "notes", Step: 1, Next: tallied(200, 20), Current: tallied(200, 0),
	}))
	if got := r.ended(a, made.GetName()); got.GetHalt() != configv1.RolloutHalt_ROLLOUT_HALT_ERRORS {
		t.Errorf("ended %v", got)
	}
}

// TestWhoLeavesCountsNoLonger: a process that ends in order leaves nothing behind, and one that leaves in trouble does.
func TestWhoLeavesCountsNoLonger(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	r.namespace(a, "notes", `{}`)
	made := r.begin(a, rolling("platform/config/notes", `{"v":5}`))
	gateway, _ := r.reporters()
	for i := range 5 {
		p := reporting{gateway, fmt.Sprint("app-", i)}
		must(t, p.say(t.Context(), false, &configv1.RolloutReport{Namespace: "notes", Next: tallied(50, 0)}))
		must(t, p.say(t.Context(), true, &configv1.RolloutReport{Namespace: "notes", Next: tallied(50, 0)}))
	}
	if h := r.rollout(a, made.GetName()).GetHealth(); h.GetReporters() != 0 || h.GetNext().GetRequests() != 0 || r.reports() != 0 {
		t.Errorf("health %v, %d reports", h, r.reports())
	}
	must(t, reporting{gateway, "app-9"}.say(t.Context(), true, &configv1.RolloutReport{Namespace: "notes", Quarantined: "not an object"}))
	if got := r.ended(a, made.GetName()); got.GetHalt() != configv1.RolloutHalt_ROLLOUT_HALT_QUARANTINE {
		t.Errorf("ended %v", got)
	}
}

// TestHaltsWaitForNoJudgement: while the completion of a rollout is judged, it is halted, and then it is not completed.
func TestHaltsWaitForNoJudgement(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("owner"), t.Context()
	r.namespace(a, "notes", `{}`)
	made := r.begin(a, rolling("platform/config/notes", `{"v":5}`))
	for range 2 {
		r.advance(a, made.GetName())
	}
	owner := r.db.Owner(t)
	hold, err := owner.Begin(ctx)
	must(t, err)
	defer func() { _ = hold.Rollback(context.WithoutCancel(ctx)) }()
	_, err = hold.Exec(ctx, `LOCK TABLE settings.document IN ACCESS EXCLUSIVE MODE`) // what a judgement reads
	must(t, err)
	completed := make(chan error, 1)
	go func() {
		_, err := a.AdvanceRollout(ctx, &configv1.AdvanceRolloutRequest{Name: made.GetName(), Reason: rolloutReason})
		completed <- err
	}()
	eventually(t, "a judgement", func() bool {
		var waits bool
		must(t, owner.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'settings.document'::regclass)`).Scan(&waits))
		return waits
	})
	within, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	halted, err := a.HaltRollout(within, &configv1.HaltRolloutRequest{Name: made.GetName(), Reason: rolloutReason})
	must(t, err)
	if halted.GetRollout().GetState() != configv1.RolloutState_ROLLOUT_STATE_HALTED {
		t.Errorf("halted %v", halted)
	}
	must(t, hold.Rollback(ctx))
	refused(t, "its completion", <-completed, codes.Aborted, fault.ReasonEtagMismatch)
	if got := r.rollout(a, made.GetName()); got.GetState() != configv1.RolloutState_ROLLOUT_STATE_HALTED {
		t.Errorf("is %v", got)
	}
}

// TestAResumedRolloutCallsTheRoll: nobody has the new content until those who read it have said anew that they can.
func TestAResumedRolloutCallsTheRoll(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("owner"), t.Context()
	r.namespace(a, "notes", `{}`)
	r.set(a, "platform/config/notes", `{"v":"old"}`)
	reader := &settings.Store{Trust: families(t)}
	r.follow(t, reader)
	made := r.begin(a, rolling("platform/config/notes", `{"v":"new"}`))
	for range 2 {
		r.advance(a, made.GetName())
	}
	eventually(t, "the last step", func() bool { return reads(t, reader, "globex").Object["v"] == "new" })
	_, err := a.HaltRollout(ctx, &configv1.HaltRolloutRequest{Name: made.GetName(), Reason: rolloutReason})
	must(t, err)
	eventually(t, "the halt", func() bool { return reads(t, reader, "globex").Object["v"] == "old" })
	if got := r.advance(a, made.GetName()); got.GetStep() != 0 || got.GetSharePercent() != 0 || got.GetState() != configv1.RolloutState_ROLLOUT_STATE_RUNNING {
		t.Fatalf("resumed %v", got)
	}
	eventually(t, "the roll call", func() bool { return r.rollout(a, made.GetName()).GetHealth().GetApplied() == 1 })
	for _, id := range []string{"acme", "globex"} {
		if got := reads(t, reader, id).Object["v"]; got != "old" {
			t.Errorf("%s reads %v in the roll call", id, got)
		}
	}
	r.advance(a, made.GetName())
	eventually(t, "the canary", func() bool { return reads(t, reader, "acme").Object["v"] == "new" })
	if got := reads(t, reader, "globex").Object["v"]; got != "old" {
		t.Errorf("globex reads %v", got)
	}
}

// TestReportsOfWhatIsOverAreForgotten: with its completion, and an hour after its halt.
func TestReportsOfWhatIsOverAreForgotten(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("owner"), t.Context()
	gateway, _ := r.reporters()
	service := r.db.Service(t)
	for _, name := range []string{"over", "fresh", "running", "done"} {
		r.namespace(a, name, `{}`)
		made := r.begin(a, rolling("platform/config/"+name, `{"v":5}`))
		must(t, reporting{gateway, "app-1"}.say(ctx, false, &configv1.RolloutReport{Namespace: name}))
		switch name {
		case "over", "fresh":
			_, err := a.HaltRollout(ctx, &configv1.HaltRolloutRequest{Name: made.GetName(), Reason: rolloutReason})
			must(t, err)
		case "done":
			for range 3 {
				r.advance(a, made.GetName())
			}
		}
	}
	_, err := r.db.Owner(t).Exec(ctx, `UPDATE settings.rollout SET end_time = end_time - interval '2 hours' WHERE namespace = 'over'`)
	must(t, err)
	if n := r.reports(); n != 3 {
		t.Errorf("%d reports are kept, want those of two that were halted and of one that runs", n)
	}
	must(t, store.SweepReports(ctx, service))
	if n := r.reports(); n != 2 {
		t.Errorf("%d reports are kept", n)
	}
}

// TestOneLooksAtATime: the turn at rollouts is one worker's, who keeps it by looking, and another one's when it is over.
func TestOneLooksAtATime(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	service := r.db.Service(t)
	for _, step := range []struct {
		holder string
		long   time.Duration
		want   bool
	}{{"a", time.Hour, true}, {"b", time.Hour, false}, {"a", -time.Hour, true}, {"b", time.Hour, true}, {"a", time.Hour, false}} {
		if got, err := store.TakeTurn(t.Context(), service, step.holder, step.long); err != nil || got != step.want {
			t.Errorf("%+v: %t %v", step, got, err)
		}
	}
}

// TestWhatKillsTwiceHaltsARollout: a process that starts without the newest changes, because two died of them, says so of the rollout
// that is among them.
func TestWhatKillsTwiceHaltsARollout(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	r.namespace(a, "notes", `{}`)
	r.set(a, "platform/config/notes", `{"v":"old"}`)
	keys, err := keyfile.Public(r.path("feed.pub"))
	must(t, err)
	dir, conn := t.TempDir(), r.gateway()
	var last *settings.Store
	start := func(process int) *feed.Feed {
		t.Helper()
		last = &settings.Store{Trust: families(t)}
		f, err := settings.Follow(t.Context(), settings.FollowConfig{
			Config: conn, FeedKeys: keys, Replica: fmt.Sprint("app-", process), Store: last, Dir: dir, Log: slog.New(slog.DiscardHandler),
		})
		must(t, err)
		t.Cleanup(f.Close)
		<-f.Ready()
		eventually(t, "a bookmark", func() bool { return !f.Status().LastBookmark.IsZero() })
		return f
	}
	f := start(0)
	eventually(t, "the old content", func() bool {
		e, ok := last.Holds(settings.Reader{UID: tenanttest.UID("acme"), Plan: plans()["acme"], Region: tenanttest.Region}, "notes")
		return ok && e.Object["v"] == "old"
	})
	applied := f.Status().LastBookmark
	eventually(t, "a bookmark behind it", func() bool { return f.Status().LastBookmark.After(applied) })
	f.Close() // in order: what it leaves is a state that processes live with
	f = start(1)
	made := r.begin(a, rolling("platform/config/notes", `{"v":"new"}`))
	r.advance(a, made.GetName())
	for process := range 2 {
		eventually(t, "the new content", func() bool { return reads(t, last, "acme").Object["v"] == "new" })
		var left string // what a process leaves that dies now
		eventually(t, "a copy between two writes", func() bool {
			left = t.TempDir()
			return os.CopyFS(left, os.DirFS(dir)) == nil
		})
		f.Close()
		dir = left
		f = start(process + 2)
	}
	got := r.ended(a, made.GetName())
	if got.GetHalt() != configv1.RolloutHalt_ROLLOUT_HALT_CRASH {
		t.Errorf("ended %v; the feed is at %+v", got, f.Status())
	}
	if v := reads(t, last, "acme").Object["v"]; v != "old" {
		t.Errorf("the third process has %v", v)
	}
}
