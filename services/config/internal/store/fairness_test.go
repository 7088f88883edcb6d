package store_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/internal/egress"
)

const (
	// answerAfter is how long a good receiver takes. It waits rather than works, as the network would have it.
	answerAfter = 50 * time.Millisecond
	slowAfter   = 3 * time.Second

	others, neighbours, perNeighbour = 40, 30, 10
	// In each tick of 100 ms so many events of the others happen, and so many of the neighbours, each told to ten receivers.
	eventTick                    = 100 * time.Millisecond
	rounds                       = 5
	ticksPerSecond               = int(time.Second / eventTick)
	otherEvents, neighbourEvents = 8, 1
	otherKind, neighbourKind     = 1, 2
	warmUp                       = 3 * ticksPerSecond
	// Revisions go up from tick to tick, as those of one database do.
	perTick, firstOfOthers, firstOfTheRest = 100, 0, 50
)

// hostile are ways to answer badly; a neighbour's ten receivers have them all.
var hostile = [perNeighbour]string{"hang", "hang", "hang", "hang", "hang", "slow", "fail", "redirect", "inside", "lie"}

// street is all receivers: those of the others, whose times are kept, and the neighbours.
type street struct {
	mu    sync.Mutex
	times []time.Duration // from an event of the others to its call
	rest  atomic.Int64    // calls to neighbours
	busy  atomic.Int64    // of those, under way
}

func (s *street) Post(ctx context.Context, url string, _ http.Header, body []byte) (*egress.Answer, error) {
	kind, _, _ := strings.Cut(strings.TrimPrefix(url, "https://"), "-")
	if kind == "other" {
		_, rest, _ := strings.Cut(string(body), `"timestamp":"`)
		at, err := time.Parse(time.RFC3339Nano, rest[:strings.IndexByte(rest, '"')])
		if err != nil {
			return nil, err
		}
		took := time.Since(at)
		s.mu.Lock()
		s.times = append(s.times, took)
		s.mu.Unlock()
	} else {
		s.rest.Add(1)
		s.busy.Add(1)
		defer s.busy.Add(-1)
	}
	switch kind {
	case "hang":
		<-ctx.Done()
		return nil, &egress.Error{Class: egress.Timeout}
	case "inside":
		return nil, &egress.Error{Class: egress.Private}
	case "slow":
		return pause(ctx, slowAfter, http.StatusOK)
	case "fail":
		return pause(ctx, answerAfter, http.StatusInternalServerError)
	case "redirect":
		return pause(ctx, answerAfter, http.StatusFound)
	case "lie":
		if answer, err := pause(ctx, answerAfter, http.StatusOK); err != nil {
			return answer, err
		}
		return nil, &egress.Error{Class: egress.BadAnswer}
	default:
		return pause(ctx, answerAfter, http.StatusNoContent)
	}
}

func pause(ctx context.Context, d time.Duration, status int) (*egress.Answer, error) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return nil, &egress.Error{Class: egress.Timeout}
	case <-t.C:
		return &egress.Answer{Status: status}, nil
	}
}

// take returns the times since it was last called.
func (s *street) take() []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.times
	s.times = nil
	return taken
}

func (s *street) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.times)
}

// quarter is one installation: a queue, the others and their neighbours.
type quarter struct {
	*house

	street *street
	tick   int
	alone  bool
}

// newQuarter makes an installation whose neighbours are as kinds says; there are none without.
func newQuarter(tb testing.TB, kinds []string) *quarter {
	tb.Helper()
	q := &quarter{house: newHouse(tb), street: new(street), alone: len(kinds) == 0}
	for i := range others {
		q.endpoint(tenant(otherKind, i), "e", fmt.Sprintf("https://other-%d.dev", i))
	}
	for i := range neighbours {
		for e, kind := range kinds {
			q.endpoint(tenant(neighbourKind, i), fmt.Sprintf("e%d", e), fmt.Sprintf("https://%s-%d-%d.dev", kind, i, e))
		}
	}
	q.serve(q.queue, q.street)
	return q
}

// run makes events for so many ticks, and waits until the others were told of theirs.
func (q *quarter) run(ticks int, clock <-chan time.Time) {
	q.tb.Helper()
	before := q.street.count()
	for range ticks {
		<-clock
		q.events(otherKind, others, firstOfOthers, otherEvents)
		if !q.alone {
			q.events(neighbourKind, neighbours, firstOfTheRest, neighbourEvents)
		}
		q.tick++
	}
	q.await("the others are told", func() bool { return q.street.count() >= before+ticks*otherEvents })
}

// events makes n events of tenants of a kind, in turns.
func (q *quarter) events(kind, tenants, first, n int) {
	q.tb.Helper()
	var uids []string
	for i := range n {
		uids = append(uids, tenant(kind, (q.tick*n+i)%tenants))
	}
	q.exec(`INSERT INTO webhook.event (source, revision, key, event_time)
		SELECT 'config', $2::bigint + i, 'doc/portal/tenant/' || u, clock_timestamp() FROM unnest($1::text[]) WITH ORDINALITY AS t(u, i)`,
		uids, first+q.tick*perTick)
}

// BenchmarkFairness is bench/webhookfairness. Its b.N is in seconds.
func BenchmarkFairness(b *testing.B) {
	if b.N == 1 {
		return // the benchmark framework feels its way
	}
	b.ReportMetric(0, "ns/op")
	alone, good, loud := newQuarter(b, nil), newQuarter(b, slices.Repeat([]string{"well"}, perNeighbour)), newQuarter(b, hostile[:])
	all := []*quarter{alone, good, loud}
	together(all, warmUp) // those who are good have shown that they are
	for i := range neighbours {
		for _, q := range all[1:] {
			q.happen(tenant(neighbourKind, i), 10_000_000+100*i, 2)
		}
	}
	loud.await("hostile receivers hold their calls", func() bool { return loud.street.busy.Load() >= 5*neighbours })
	for _, q := range all {
		q.street.take()
		q.street.rest.Store(0)
	}
	var p99 [3][]float64
	var ratios, goodRatios []float64
	for range rounds {
		together(all, max(1, b.N/rounds)*ticksPerSecond)
		for i, q := range all {
			times := q.street.take()
			slices.Sort(times)
			p99[i] = append(p99[i], float64(times[len(times)*99/100])/float64(time.Millisecond))
		}
		last := len(ratios)
		ratios, goodRatios = append(ratios, p99[2][last]/p99[0][last]), append(goodRatios, p99[1][last]/p99[0][last])
	}
	b.ReportMetric(median(p99[0]), "ms-alone")
	b.ReportMetric(median(p99[1]), "ms-good")
	b.ReportMetric(median(p99[2]), "ms-hostile")
	b.ReportMetric(median(ratios), "ratio")
	b.ReportMetric(median(goodRatios), "ratio-good")
	b.ReportMetric(float64(rounds*max(1, b.N/rounds)*ticksPerSecond*otherEvents), "calls")
	b.ReportMetric(float64(loud.street.rest.Load()), "hostile-calls")
	b.ReportMetric(float64(loud.street.busy.Load()), "hostile-busy")
	b.ReportMetric(float64(good.street.rest.Load()), "good-calls")
}

func median(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}

// together gives all installations the same ticks, at random places of their dispatchers' own.
func together(all []*quarter, ticks int) {
	var wait sync.WaitGroup
	clocks := make([]chan time.Time, len(all))
	for i, q := range all {
		clocks[i] = make(chan time.Time, ticks)
		wait.Go(func() { q.run(ticks, clocks[i]) })
	}
	t := time.NewTimer(0)
	defer t.Stop()
	for range ticks {
		now := <-t.C
		for _, c := range clocks {
			c <- now
		}
		t.Reset(eventTick/2 + time.Duration(rand.Int64N(int64(eventTick))))
	}
	wait.Wait()
}
