// Package leases measures what a decision about a rate costs the process that holds the
// lease, and what a key costs it in memory: package sdk/limits/lease, with a million keys.
//
// Each key has a lease that lasts, so that what is measured is the decision and not the
// allocator. Keys are asked as they are in life, a few of them often (a Zipf distribution);
// by all of them in turn is printed beside. The control is what one would write first, a
// map of counters under a lock. How often the allocator is asked is measured apart, by one
// hot key under a limit that is never reached, with leases as quota grants them.
package leases

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/rowhouse-platform/rowhouse/bench/measure"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
)

const (
	keys       = 1_000_000
	rounds     = 5
	batch      = 100 // decisions between two looks at the clock
	batches    = 20_000
	leasedGoal = 150 // ns
	memoryGoal = 64  // bytes
	hotGoal    = 1000
)

// Leased returns the comparison of time.
func Leased() measure.Benchmark {
	return measure.Benchmark{
		Name: "decide-leased",
		About: "ns of a decision from a lease among a million keys, median, beside counters under a lock; the goal bounds the value; " +
			"0 allocations, 1 ask in 1,000",
		Run: leased,
	}
}

// Memory returns the comparison of memory.
func Memory() measure.Benchmark {
	return measure.Benchmark{
		Name:  "lease-memory",
		About: "bytes of a key with a lease, of a million, beside a map of counters; the goal bounds the value",
		Run:   memory,
	}
}

// granter lends what is wanted, or by the limit's own arithmetic.
type granter struct {
	forever bool
	tat     gcra.Ticks
}

func (g *granter) Grant(_ context.Context, asks []lease.Ask) ([]lease.Answer, int, error) {
	answers := make([]lease.Answer, 0, len(asks))
	for _, a := range asks {
		c := lease.CellAnswer{OK: true, Tokens: lease.MaxCost, Lifetime: 24 * time.Hour, Revision: 1}
		if !g.forever {
			q := a.Cells[0]
			n := q.Policy.Limit.Grant(g.tat, gcra.At(time.Now()), q.Need, q.Want)
			g.tat = n.TAT
			c = lease.CellAnswer{
				OK: n.OK, Tokens: n.Tokens, Lifetime: n.Lifetime, RetryAfter: n.RetryAfter, Remaining: n.Remaining, TAT: n.TAT, Revision: 1,
			}
		}
		out := lease.Answer{Outcome: lease.Granted, Cells: []lease.CellAnswer{c}}
		if !c.OK {
			out.Outcome = lease.Denied
		}
		answers = append(answers, out)
	}
	return answers, 1, nil
}

func (*granter) Return(context.Context, []lease.Give) error { return nil }

// tables are both contenders with all keys in them.
type tables struct {
	table  *lease.Table
	scope  lease.Scope
	policy *lease.Policy
	of     []lease.Key
	naive  naive
}

// naive is a map of counters under a lock.
type naive struct {
	mu sync.Mutex
	of map[lease.Key]*counter
}

type counter struct {
	tokens int64
	until  time.Time
}

func (n *naive) take(k lease.Key) bool {
	now := time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.of[k]
	if c == nil || c.tokens < 1 || !now.Before(c.until) {
		return false
	}
	c.tokens--
	return true
}

func (t *tables) take(ctx context.Context, k lease.Key) bool {
	levels := [1]lease.Level{{Key: k, Policy: t.policy, Cost: 1}}
	return t.table.Take(ctx, t.scope, "", levels[:]).OK
}

func policy() (*lease.Policy, error) {
	const rate = 1_000_000_000
	l, err := gcra.New(rate, time.Second, rate)
	return &lease.Policy{Name: "requests", Limit: l, Revision: 1}, err
}

func newTables(g *granter) (*tables, error) {
	p, err := policy()
	if err != nil {
		return nil, err
	}
	t := &tables{scope: lease.Scope{1}, policy: p, naive: naive{of: make(map[lease.Key]*counter)}}
	t.table = lease.New(lease.Config{Granter: g, Clock: time.Now})
	t.of = make([]lease.Key, keys)
	for i := range t.of {
		var name [8]byte
		binary.BigEndian.PutUint64(name[:], uint64(i))
		t.of[i] = lease.KeyOf(t.scope, "requests", string(name[:]))
	}
	return t, nil
}

func (t *tables) fill(ctx context.Context) error {
	for _, k := range t.of {
		if !t.take(ctx, k) {
			return errors.New("a key was refused")
		}
	}
	return nil
}

func (t *tables) fillNaive() {
	until := time.Now().Add(24 * time.Hour)
	for _, k := range t.of {
		t.naive.of[k] = &counter{lease.MaxCost, until}
	}
}

// median returns the median time of a decision over batches that ask for keys in an order.
func median(order []lease.Key, take func(lease.Key) bool) float64 {
	times := make([]float64, 0, batches)
	for i := range batches {
		part := order[i*batch%(len(order)-batch):][:batch]
		began := time.Now()
		for _, k := range part {
			take(k)
		}
		times = append(times, float64(time.Since(began))/batch)
	}
	slices.Sort(times)
	return times[len(times)/2]
}

// orders returns the keys as they are asked: few of them often, and all of them alike.
func (t *tables) orders() (often, alike []lease.Key) {
	source := rand.New(rand.NewPCG(1, 2))
	zipf := rand.NewZipf(source, 1.1, 1, keys-1)
	for range batches * batch {
		often, alike = append(often, t.of[zipf.Uint64()]), append(alike, t.of[source.IntN(keys)])
	}
	return often, alike
}

func leased(ctx context.Context, env measure.Env) (measure.Result, error) {
	t, err := newTables(&granter{forever: true})
	if err != nil {
		return measure.Result{}, err
	}
	if err := t.fill(ctx); err != nil {
		return measure.Result{}, err
	}
	t.fillNaive()
	often, alike := t.orders()
	take := func(k lease.Key) bool { return t.take(ctx, k) }
	var ours, even, theirs []float64
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range env.RoundsOr(rounds) {
		ours, even = append(ours, median(often, take)), append(even, median(alike, take))
		theirs = append(theirs, median(often, t.naive.take))
	}
	runtime.ReadMemStats(&after)
	decisions := float64(env.RoundsOr(rounds) * 3 * batches * batch)
	allocs := float64(after.Mallocs-before.Mallocs) / decisions
	asked, err := hot(ctx)
	value := measure.Median(ours)
	const few = 0.001 // what the measurement itself allocates
	return measure.Result{
		Name: "decide-leased", Value: value, Unit: "ns", Peer: "locked-map", Ratio: measure.Median(measure.Ratios(ours, theirs)),
		Goal: leasedGoal, OK: value <= leasedGoal && allocs < few && asked >= hotGoal,
		Beside: []string{
			fmt.Sprintf("lease: median %.1f ns of %d rounds, minimum %.1f, maximum %.1f; all keys alike %.1f ns; %.4f allocations a decision",
				value, len(ours), slices.Min(ours), slices.Max(ours), measure.Median(even), allocs),
			fmt.Sprintf("counters under a lock, one caller: median %.1f ns", measure.Median(theirs)),
			fmt.Sprintf("a hot key: %.0f decisions for one ask", asked),
		},
	}, err
}

// hot returns how many decisions about one hot key one ask of the allocator serves.
func hot(ctx context.Context) (float64, error) {
	p, err := policy()
	if err != nil {
		return 0, err
	}
	table := lease.New(lease.Config{Granter: new(granter), Clock: time.Now})
	levels := []lease.Level{{Key: lease.Key{1}, Policy: p, Cost: 1}}
	n := 0
	for end := time.Now().Add(2 * time.Second); n%batch > 0 || time.Now().Before(end); n++ {
		if !table.Take(ctx, lease.Scope{1}, "", levels).OK {
			return 0, fmt.Errorf("decision %d was refused", n)
		}
	}
	return float64(n) / float64(table.Stats().Asks), nil
}

// heap returns the bytes in use, after all that is not is collected.
func heap() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

func memory(ctx context.Context, _ measure.Env) (measure.Result, error) {
	t, err := newTables(&granter{forever: true})
	if err != nil {
		return measure.Result{}, err
	}
	empty := heap()
	if err := t.fill(ctx); err != nil {
		return measure.Result{}, err
	}
	full := heap()
	t.fillNaive()
	both := heap()
	value, theirs := (full-empty)/keys, (both-full)/keys
	cells := t.table.Stats().Cells
	runtime.KeepAlive(t)
	return measure.Result{
		Name: "lease-memory", Value: value, Unit: "bytes", Peer: "map", Ratio: theirs / value, Goal: memoryGoal,
		OK:     value <= memoryGoal && cells == keys,
		Beside: []string{fmt.Sprintf("%d keys with a lease each: %.1f bytes a key; a map of counters %.1f", cells, value, theirs)},
	}, nil
}
