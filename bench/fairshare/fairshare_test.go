package fairshare_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/bench/measure"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/fair"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

const (
	width   = 16
	victims = 50
	// each victim calls so often a second, and a call takes so long on average: together half of what there is.
	rate    = 10
	service = width * time.Second / (2 * victims * rate)
	rounds  = 5
)

// way is one way to share places.
type way struct {
	name  string
	enter func(ctx context.Context, uid tenant.UID, weight int) (leave func(), err error)
}

// ways are new ones of ours and of the control.
func ways(tb testing.TB) []way {
	tb.Helper()
	q, err := fair.New(fair.Config{Width: width})
	must(tb, err)
	places, waiting := make(chan struct{}, width), atomic.Int64{}
	return []way{
		{"fair", func(ctx context.Context, uid tenant.UID, weight int) (func(), error) {
			p, err := q.Enter(ctx, fair.Call{Tenant: uid, Weight: weight})
			if err != nil {
				return nil, err
			}
			return func() { p.Done() }, nil
		}},
		{"fifo", func(ctx context.Context, _ tenant.UID, _ int) (func(), error) {
			defer waiting.Add(-1)
			if waiting.Add(1) > 4096 {
				return nil, errors.New("too many wait")
			}
			select {
			case places <- struct{}{}: // a channel's senders have their turns in their order
				return func() { <-places }, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}},
	}
}

// work takes as long as chance says.
func work(mean time.Duration) time.Duration {
	d := time.Duration(rand.ExpFloat64() * float64(mean))
	<-time.After(d)
	return d
}

// index returns Jain's index of the time that greedy tenants get, by their weights.
func (w way) index(tb testing.TB, length time.Duration) float64 {
	tb.Helper()
	const tenants = 30
	var got [tenants]atomic.Int64
	ctx, cancel := context.WithTimeout(tb.Context(), length)
	defer cancel()
	var all sync.WaitGroup
	start := time.Now().Add(length / 5)
	for i := range tenants {
		mean := 2 * time.Millisecond
		if i%2 == 1 {
			mean *= 4
		}
		for range 8 {
			all.Go(func() {
				for ctx.Err() == nil {
					leave, err := w.enter(ctx, uid(i), weight(i))
					if err != nil {
						continue
					}
					began := time.Now()
					work(mean)
					if began.After(start) {
						got[i].Add(int64(time.Since(began)))
					}
					leave()
				}
			})
		}
	}
	all.Wait()
	var sum, squares float64
	for i := range got {
		x := float64(got[i].Load()) / float64(weight(i))
		sum += x
		squares += x * x
	}
	return sum * sum / (tenants * squares)
}

func weight(i int) int { return []int{1, 2, 5}[i%3] }

func uid(n int) tenant.UID { return tenant.UID{byte(n), 1} }

// crowd is what the victims and the aggressor of a round got.
type crowd struct {
	mu         sync.Mutex
	took       []float64 // ms, of the victims' calls
	refused    int       // of them
	aggressors int64
}

// round lets the victims call for a time, beside the aggressor or not.
func (w way) round(tb testing.TB, aggressor bool, length time.Duration) (p99 float64, c *crowd) {
	tb.Helper()
	c = &crowd{}
	var all sync.WaitGroup
	end := time.Now().Add(length)
	call := func(i int) {
		began := time.Now()
		leave, err := w.enter(tb.Context(), uid(i), fair.DefaultWeight)
		if err == nil {
			work(service)
			leave()
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		switch {
		case i == victims && err == nil:
			c.aggressors++
		case i == victims:
		case err != nil:
			c.refused++
		default:
			c.took = append(c.took, time.Since(began).Seconds()*1000)
		}
	}
	// open calls at moments that do not depend on how long calls take.
	open := func(i int, perSecond float64) {
		next := time.Now()
		for {
			next = next.Add(time.Duration(rand.ExpFloat64() / perSecond * float64(time.Second)))
			if next.After(end) {
				return
			}
			<-time.After(time.Until(next))
			all.Go(func() { call(i) })
		}
	}
	for i := range victims {
		all.Go(func() { open(i, rate) })
	}
	if aggressor {
		all.Go(func() { open(victims, 100*rate) })
	}
	all.Wait()
	if len(c.took) == 0 {
		tb.Fatal("the victims got nothing")
	}
	slices.Sort(c.took)
	return c.took[len(c.took)*99/100], c
}

// BenchmarkShare compares. Run it once: -benchtime=1x.
func BenchmarkShare(b *testing.B) {
	const length = 8 * time.Second
	b.ReportMetric(0, "ns/op") // the sum over all rounds says nothing
	indexes, alone, beside, aggressors, refused := map[string][]float64{}, map[string][]float64{}, map[string][]float64{}, map[string][]float64{}, map[string]int{}
	for range rounds {
		for _, w := range ways(b) {
			indexes[w.name] = append(indexes[w.name], w.index(b, length/2))
		}
		for _, w := range ways(b) {
			p99, _ := w.round(b, false, length)
			alone[w.name] = append(alone[w.name], p99)
			p99, c := w.round(b, true, length)
			beside[w.name] = append(beside[w.name], p99)
			aggressors[w.name] = append(aggressors[w.name], float64(c.aggressors)/length.Seconds())
			refused[w.name] += c.refused
		}
	}
	for name := range indexes {
		b.ReportMetric(measure.Median(indexes[name]), "index-"+name)
		b.ReportMetric(measure.Median(alone[name]), "ms-"+name+"-alone")
		b.ReportMetric(measure.Median(beside[name]), "ms-"+name+"-beside")
		b.ReportMetric(measure.Median(measure.Ratios(beside[name], alone[name])), "ratio-"+name)
		b.ReportMetric(measure.Median(aggressors[name]), "aggressor-"+name+"/s")
		b.ReportMetric(float64(refused[name]), "refused-"+name)
	}
	w := ways(b)[0]
	const many = 200_000
	began := time.Now()
	for i := range many {
		leave, err := w.enter(b.Context(), uid(i%victims), fair.DefaultWeight)
		must(b, err)
		leave()
	}
	b.ReportMetric(float64(time.Since(began).Nanoseconds())/many, "ns-enter")
}

// TestShare keeps the benchmark compiled, and holds that our queue refuses no victim and serves the aggressor too. How fair it is,
// is a test of its own package, in a time of its own; how long calls take, the benchmark's to measure.
func TestShare(t *testing.T) {
	t.Parallel()
	const length = 300 * time.Millisecond
	w := ways(t)[0]
	if index := w.index(t, length); index <= 0 || index > 1 {
		t.Errorf("Jain's index is %f", index)
	}
	if _, c := w.round(t, true, length); c.refused > 0 || c.aggressors == 0 {
		t.Errorf("%d of the victims' calls were refused; the aggressor got %d", c.refused, c.aggressors)
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
