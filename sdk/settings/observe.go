package settings

import (
	"context"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// Outcome is how a request for a tenant ended.
type Outcome struct {
	// Failed says that it failed by a fault of ours, not of whoever asked.
	Failed bool
	// Took is how long it took.
	Took time.Duration
}

// Observe tells the rollouts that run how a request of the tenant of ctx ended, so that they halt when tenants with a new
// content fare worse than those without. It costs next to nothing while none runs. Without a tenant it does nothing.
func (s *Store) Observe(ctx context.Context, o Outcome) {
	if s.rollouts.Load() == nil {
		return
	}
	if tc, err := tenant.FromContext(ctx); err == nil {
		s.ObserveReader(s.reader(tc), o)
	}
}

// ObserveReader is [Store.Observe] where no context can be made.
func (s *Store) ObserveReader(r Reader, o Outcome) {
	running := s.rollouts.Load()
	if running == nil {
		return
	}
	var parent tenant.UID
	if s.Trust != nil {
		state, _ := s.Trust.Tenant(r.UID)
		parent = state.Parent
	}
	for _, l := range *running {
		if l.level(&r, parent) == 0 {
			continue
		}
		side := &l.current
		if l.Has(r.UID) {
			side = &l.next
		}
		side.add(r.UID, o)
	}
}

// UnaryObserver returns an interceptor that observes the calls that a server answers. It belongs behind the one that
// verifies tenant contexts. Calls that failed by a fault of the caller's are no failures.
func (s *Store) UnaryObserver() grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
		if s.rollouts.Load() == nil {
			return handler(ctx, req)
		}
		began, failed := time.Now(), true // until it returns: a panic is a failure
		defer func() { s.Observe(ctx, Outcome{Failed: failed, Took: time.Since(began)}) }()
		resp, err = handler(ctx, req)
		failed = ours(err)
		return resp, err
	}
}

// ours reports whether an error is a fault of the server's.
func ours(err error) bool {
	if err == nil {
		return false
	}
	if f, ok := fault.As(err); ok {
		return f.Kind == fault.Internal || f.Kind == fault.Unavailable || f.Kind == fault.DeadlineExceeded
	}
	switch status.Code(err) {
	case codes.Unknown, codes.Internal, codes.DataLoss, codes.Unavailable, codes.DeadlineExceeded:
		return true
	default:
		return false
	}
}

// latencyBuckets are up to 0.5 ms · 2^(i/4), the last one everything beyond.
const (
	latencyBuckets = 64
	firstLatency   = 500 * time.Microsecond
)

// LatencyBound is how long requests of a bucket of latency take at most, as reports count them.
func LatencyBound(bucket int) time.Duration {
	return time.Duration(float64(firstLatency) * math.Exp2(float64(bucket)/4))
}

func latencyBucket(took time.Duration) int {
	if took <= firstLatency {
		return 0
	}
	const slack = 1e-9 // a bound is in its own bucket, whatever the logarithm rounds
	return min(int(math.Ceil(4*math.Log2(float64(took)/float64(firstLatency))-slack)), latencyBuckets-1)
}

// tally counts the requests of one side. A tenant that asks more often than all others together is counted as often as they,
// so that whoever sends as many requests as they like for one tenant does not decide how all fare.
type tally struct {
	requests, errors atomic.Int64
	latency          [latencyBuckets]atomic.Int64
	// of counts the requests by the end of the tenant's UID: a few tenants share a place, and what they may add.
	of [tallyPlaces]atomic.Int64
}

const (
	tallyPlaces = 1 << 8
	// fair is what each tenant may add, however few the others' requests are.
	fair = 1000
)

func (t *tally) add(uid tenant.UID, o Outcome) {
	own := &t.of[uid[len(uid)-1]]
	n := own.Load()
	if others := t.requests.Load() - n; others > 0 && n >= max(others, fair) {
		return // of the only one on a side, all is counted: nobody else tells how that fares
	}
	own.Add(1)
	t.requests.Add(1)
	if o.Failed {
		t.errors.Add(1)
	}
	t.latency[latencyBucket(o.Took)].Add(1)
}

// live is a step of a rollout and how this process fares with it.
type live struct {
	*Rollout
	*counts

	harmed func() // nil without a reporter; like counts it is set before others see the step
}

// counts are of one step. A snapshot that brings the same step again goes on with them.
type counts struct {
	next, current tally
	refused       atomic.Pointer[string]
}

// refuse notes that a program cannot use the new content.
func (l *live) refuse(why error) {
	if l == nil {
		return
	}
	text := why.Error()
	if l.refused.CompareAndSwap(nil, &text) && l.harmed != nil {
		l.harmed()
	}
}

// rolling is the rollout that runs, nil if none does.
func (n *namespace) rolling() *Rollout {
	if n.rollout == nil {
		return nil
	}
	return n.rollout.Rollout
}

// roll has the namespace begin, go on with or end a rollout.
func (n *namespace) roll(r *Rollout) {
	n.rollout = nil
	if r != nil {
		n.rollout = &live{Rollout: r, counts: new(counts)}
	}
}

// setRollouts lists the rollouts that run. The caller holds the lock and has dropped the views of what changed. What was
// listed before is read by others and is left as it is.
func (s *Store) setRollouts(index map[string]*namespace) {
	var before, running []*live
	if old := s.rollouts.Load(); old != nil {
		before = *old
	}
	for _, n := range index {
		if n.rollout == nil {
			continue
		}
		if !slices.Contains(before, n.rollout) {
			n.rollout.begin(s.harmed, before)
		}
		running = append(running, n.rollout)
	}
	if running == nil {
		s.rollouts.Store(nil)
		return
	}
	s.rollouts.Store(&running)
}

// begin sets up a step that nobody else sees yet. The same step goes on with what was counted.
func (l *live) begin(harmed func(), before []*live) {
	l.harmed = harmed
	for _, old := range before {
		if old.ID == l.ID && old.Step == l.Step {
			l.counts = old.counts
		}
	}
}
