// Package decide measures what a rate limit decision costs servers: CPU time of all their processes per decision, in
// calls about one limit and in calls about a hundred.
//
// Ours is the listener for Envoys of a whole house, over mutual TLS, with leases of an allocator on PostgreSQL, which is
// counted with all its processes. Its peers are gubernator, which keeps counts in memory, and envoyproxy/ratelimit with
// Redis, which is counted too; both speak plain gRPC, and trace nothing. All are asked by the same client, which sends
// and receives bytes, about the same hundred keys under a limit that is never reached.
//
// All run at once, on the same processor where there are two, and are loaded in turns; what counts is the median of the
// ratios of neighbouring rounds. Ours is loaded twice in each round: what the two differ by is what a ratio is worth.
// Start at [Unary] and [Batch].
package decide

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rowhouse-platform/rowhouse/bench/measure"
	"github.com/rowhouse-platform/rowhouse/bench/proxy"
)

const (
	rounds  = 5
	seconds = 3
	keys    = 100
)

// Names of those that are compared.
const (
	ours       = "rowhouse"
	control    = "rowhouse-again"
	gubernator = "gubernator"
	ratelimit  = "ratelimit+redis"
)

// shape is one comparison.
type shape struct {
	name string
	// batch is how many decisions a call asks for, flight how many calls are under way.
	batch, flight int
	// goals are the least ratios, the peers' CPU divided by ours.
	gubernator, ratelimit float64
}

// Unary compares calls about one limit each.
func Unary() measure.Benchmark {
	return benchmark(shape{name: "decide-unary", batch: 1, flight: 32, gubernator: 2.5, ratelimit: 3.5})
}

// Batch compares calls about a hundred limits each.
func Batch() measure.Benchmark {
	return benchmark(shape{name: "decide-batch", batch: keys, flight: 8, gubernator: 10, ratelimit: 6})
}

func benchmark(s shape) measure.Benchmark {
	return measure.Benchmark{
		Name: s.name,
		About: fmt.Sprintf("server CPU µs per decision over mutual TLS, %d in a call; the ratio is gubernator's divided by ours, "+
			"and the goal the "+
			"least; and %g times less than envoyproxy/ratelimit with Redis", s.batch, s.ratelimit),
		Run: func(ctx context.Context, env measure.Env) (measure.Result, error) { return run(ctx, env, s) },
	}
}

func run(ctx context.Context, env measure.Env, s shape) (_ measure.Result, err error) {
	var street street
	defer func() { err = errors.Join(err, street.stop()) }()
	if err := street.open(ctx, env); err != nil {
		return measure.Result{}, err
	}
	costs, tails := map[string][]float64{}, map[string][]float64{}
	for round := range env.RoundsOr(rounds) + 1 {
		for _, t := range street.targets {
			c, err := t.cost(ctx, s, env.SecondsOr(seconds))
			if err != nil {
				return measure.Result{}, fmt.Errorf("%s: %w", t.name, err)
			}
			env.Sayf("%s: %.2f µs a decision, %.0f decisions/s, p99 %v", t.name, c.micros, c.rate, c.p99)
			if round > 0 { // the first warms
				costs[t.name], tails[t.name] = append(costs[t.name], c.micros), append(tails[t.name], float64(c.p99.Microseconds()))
			}
		}
	}
	return conclude(s, costs, tails), nil
}

// costs is what one round says.
type cost struct {
	micros, rate float64
	p99          time.Duration
}

// cost loads a target and returns its servers' CPU time.
func (t target) cost(ctx context.Context, s shape, seconds int) (c cost, err error) {
	before, err := t.cpu()
	if err != nil {
		return c, err
	}
	l, err := t.load(ctx, s, time.Duration(seconds)*time.Second)
	if err != nil {
		return c, err
	}
	after, err := t.cpu()
	if err != nil {
		return c, err
	}
	decisions := float64(l.calls * s.batch)
	return cost{
		micros: float64((after - before).Microseconds()) / decisions, rate: decisions / l.took.Seconds(), p99: l.p99,
	}, nil
}

// cpu adds up all processes of a target, and their children.
func (t target) cpu() (total time.Duration, err error) {
	for _, pid := range t.pids {
		used, err := proxy.CPUTime(pid)
		if err != nil {
			return 0, err
		}
		total += used
	}
	return total, nil
}

func conclude(s shape, costs, tails map[string][]float64) measure.Result {
	value := measure.Median(costs[ours])
	first := measure.Median(measure.Ratios(costs[gubernator], costs[ours]))
	second := measure.Median(measure.Ratios(costs[ratelimit], costs[ours]))
	r := measure.Result{
		Name: s.name, Value: value, Unit: "us/decision", Peer: gubernator, Ratio: first, Goal: s.gubernator,
		OK: first >= s.gubernator && second >= s.ratelimit,
	}
	r.Beside = append(r.Beside, fmt.Sprintf("%s costs %.2f times ours, the goal is %g", ratelimit, second, s.ratelimit))
	for _, name := range []string{ours, control, gubernator, ratelimit} {
		r.Beside = append(r.Beside, fmt.Sprintf("%s: %.2f µs of server CPU a decision, %.2f to %.2f; p99 of a call %.0f µs",
			name, measure.Median(costs[name]), slices.Min(costs[name]), slices.Max(costs[name]), measure.Median(tails[name])))
	}
	return r
}
