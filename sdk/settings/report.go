package settings

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

const (
	// ReportEvery is how often a process reports on rollouts while one runs.
	ReportEvery = 5 * time.Second
	reportLimit = 2 * time.Second
	maxReports  = 100
	maxWhy      = 500
)

// reporter tells config how this process fares with rollouts.
type reporter struct {
	store    *Store
	client   configv1.RolloutServiceClient
	replica  string
	instance string
	clock    func() time.Time
	log      *slog.Logger
	wake     chan struct{}

	mu      sync.Mutex
	refused map[string]*configv1.RolloutReport // by namespace: what the feed put in quarantine, or holds back
	idle    bool                               // at its last look run found nothing to report, and nothing was refused since

	// Touched by run only.
	began    map[stepID]time.Time
	last     string // which steps were reported, and what was wrong
	reported bool   // config knows of this process
	failing  bool
}

// stepID is one step of one rollout.
type stepID struct {
	rollout tenant.UID
	step    int
}

func newReporter(c FollowConfig) *reporter {
	r := &reporter{
		store: c.Store, client: configv1.NewRolloutServiceClient(c.Config), replica: c.Replica, instance: rand.Text(), clock: c.Clock,
		log: c.Log, wake: make(chan struct{}, 1), refused: make(map[string]*configv1.RolloutReport), began: make(map[stepID]time.Time),
	}
	if r.clock == nil {
		r.clock = time.Now
	}
	if r.log == nil {
		r.log = slog.Default()
	}
	c.Store.harmed = func() { r.applied(0) }
	return r
}

// applied has run look at a new revision, where there is something to see.
func (r *reporter) applied(int64) {
	r.mu.Lock()
	idle := r.idle && r.store.rollouts.Load() == nil
	r.mu.Unlock()
	if idle {
		return
	}
	select {
	case r.wake <- struct{}{}:
	default: // it has not looked since the last one
	}
}

// check is [Check], and notes the rollouts whose content it refuses.
func (r *reporter) check(key string, value []byte) (err error) {
	defer func() {
		p := recover()
		if namespace, ok := strings.CutPrefix(key, RolloutKey("")); ok {
			r.note(namespace, value, err, p)
		}
		if p != nil {
			panic(p) // which the feed takes for a refusal
		}
	}()
	return Check(key, value)
}

func (r *reporter) note(namespace string, value []byte, err error, panicked any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil && panicked == nil {
		delete(r.refused, namespace)
		return
	}
	report := reportOf(namespace, value)
	if report.Quarantined = "it panics"; panicked == nil {
		report.Quarantined = short(err.Error())
	}
	r.refused[namespace], r.idle = report, false
}

// held notes a rollout whose entry the feed holds back, because processes died soon after they had applied it.
func (r *reporter) held(e feed.Entry) {
	namespace, ok := strings.CutPrefix(e.Key, RolloutKey(""))
	if !ok || e.Deleted {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	report := reportOf(namespace, e.Value)
	report.Crashed = true
	r.refused[namespace], r.idle = report, false
}

// reportOf is a report on the rollout of an entry that is not applied, as far as the entry can be read.
func reportOf(namespace string, value []byte) *configv1.RolloutReport {
	report := &configv1.RolloutReport{Namespace: namespace}
	entry := new(configv1.SettingsEntry)
	if proto.Unmarshal(value, entry) == nil && len(entry.GetRollout().GetId()) <= len(tenant.UID{}) {
		report.RolloutId, report.Step = entry.GetRollout().GetId(), max(entry.GetRollout().GetStep(), 0)
	}
	return report
}

// short bounds what went wrong. Errors of documents say where and never which value.
func short(why string) string {
	why = strings.ToValidUTF8(why, "")
	for len(why) > maxWhy {
		_, size := utf8.DecodeLastRuneInString(why)
		why = why[:len(why)-size]
	}
	return why
}

// run reports until ctx ends, and then that this process leaves.
func (r *reporter) run(ctx context.Context, f *feed.Feed) {
	tick := time.NewTicker(ReportEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			if r.reported {
				r.send(context.WithoutCancel(ctx), f, true, true)
			}
			return
		case <-r.wake:
			r.send(ctx, f, false, false)
		case <-tick.C:
			r.send(ctx, f, true, false)
		}
	}
}

// send sends one report on each rollout, if there are any. Unless it is due, nothing is sent of which only counts would be
// news.
func (r *reporter) send(ctx context.Context, f *feed.Feed, due, leaving bool) {
	reports := r.reports(f.Status().Quarantined)
	var steps strings.Builder
	for _, report := range reports {
		fmt.Fprintf(&steps, "%s %x %d %t %s\n", report.GetNamespace(), report.GetRolloutId(), report.GetStep(), report.GetCrashed(),
			report.GetQuarantined())
	}
	if len(reports) == 0 {
		r.reported, r.last = false, "" // a rollout that is resumed at the step of its halt is news
		return
	}
	if !due && steps.String() == r.last {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, reportLimit)
	defer cancel()
	_, err := r.client.ReportRolloutHealth(ctx, &configv1.ReportRolloutHealthRequest{
		Replica: r.replica, Instance: r.instance, Leaving: leaving, Reports: reports,
	})
	if err != nil && !r.failing && !errors.Is(ctx.Err(), context.Canceled) {
		r.log.WarnContext(ctx, "settings: cannot report on rollouts", "error", err)
	}
	if r.failing = err != nil; err == nil {
		r.reported, r.last = true, steps.String()
	}
}

// reports are on what runs, and on what cannot be read.
func (r *reporter) reports(quarantined map[string]string) []*configv1.RolloutReport {
	began := make(map[stepID]time.Time)
	byNamespace := make(map[string]*configv1.RolloutReport)
	if running := r.store.rollouts.Load(); running != nil {
		for _, l := range *running {
			at := stepID{l.ID, l.Step}
			if began[at] = r.began[at]; began[at].IsZero() {
				began[at] = r.clock()
			}
			byNamespace[l.Namespace] = l.report(r.clock().Sub(began[at]))
		}
	}
	r.began = began
	r.mu.Lock()
	defer r.mu.Unlock()
	for namespace, refused := range r.refused {
		if _, still := quarantined[RolloutKey(namespace)]; !still {
			continue // taken back, or not yet in the feed's state: then it is told of at the next look
		}
		byNamespace[namespace] = refused
	}
	r.idle = len(byNamespace)+len(r.refused) == 0
	out := make([]*configv1.RolloutReport, 0, len(byNamespace))
	for _, namespace := range slices.Sorted(maps.Keys(byNamespace)) {
		if len(out) < maxReports {
			out = append(out, byNamespace[namespace])
		}
	}
	return out
}

func (l *live) report(age time.Duration) *configv1.RolloutReport {
	out := &configv1.RolloutReport{
		Namespace: l.Namespace, RolloutId: l.ID[:], Step: int32(min(l.Step, math.MaxInt32)), //nolint:gosec // bounded
		AppliedAge: durationpb.New(max(age, 0)), Next: l.next.sum(), Current: l.current.sum(),
	}
	if why := l.refused.Load(); why != nil {
		out.Quarantined = short(*why)
	}
	return out
}

// sum is what was counted until now. It is read the other way round than it is counted, so that no more requests failed or took
// their time than there were.
func (t *tally) sum() *configv1.RolloutTally {
	out := new(configv1.RolloutTally)
	for i := range t.latency {
		out.Latency = append(out.Latency, t.latency[i].Load())
	}
	out.Errors = t.errors.Load()
	out.Requests = t.requests.Load()
	return out
}
