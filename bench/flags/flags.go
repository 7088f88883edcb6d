// Package flags measures how much faster our flags are evaluated than flagd's evaluator does it
// (github.com/open-feature/flagd/core): without targeting, with it, and with fractional.
//
// Both get the same document and the same callers, 64 flags and 64 contexts in turn, and must give the same answers,
// which the tests of bench/peers/flags hold. Ours is given contexts that are made once a request, which is measured
// beside; flagd is given maps and reads them at each evaluation. What counts is CPU time, as other work on the machine
// disturbs it less than the clock on the wall. flagd is no dependency of our module: the measured code is in a module of
// its own, bench/peers.
package flags

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/rowhouse-platform/rowhouse/bench/gotest"
	"github.com/rowhouse-platform/rowhouse/bench/measure"
)

const (
	rounds    = 9
	benchtime = "200ms"
	unit      = "cpu-ns/op"
)

// Static compares flags that have no rule.
func Static() measure.Benchmark { return benchmark("flag-static", "Static", 25) }

// Targeting compares flags with a rule of five conditions.
func Targeting() measure.Benchmark { return benchmark("flag-targeting", "Targeting", 50) }

// Fractional compares flags that choose by a hash.
func Fractional() measure.Benchmark { return benchmark("flag-fractional", "Fractional", 50) }

func benchmark(name, function string, goal float64) measure.Benchmark {
	return measure.Benchmark{
		Name: name,
		About: "ns of evaluating a flag; the ratio is flagd's time divided by ours, how many times faster we are; " +
			"the goal is the least ratio, and 0 allocations",
		Run: func(ctx context.Context, env measure.Env) (measure.Result, error) {
			return run(ctx, env, name, function, goal)
		},
	}
}

func run(ctx context.Context, env measure.Env, name, function string, goal float64) (measure.Result, error) {
	binary, err := gotest.Build(ctx, filepath.Join(env.Root, "bench", "peers"), "./flags", env.Scratch)
	if err != nil {
		return measure.Result{}, err
	}
	var ours, theirs, making []float64
	var allocs, theirAllocs float64
	for range env.RoundsOr(rounds) {
		all, err := binary.Run(ctx, "^Benchmark("+function+"|Context)$", benchtime)
		if err != nil {
			return measure.Result{}, err
		}
		mine, peer := all[function+"/Ours"], all[function+"/Flagd"]
		ours, theirs = append(ours, mine[unit]), append(theirs, peer[unit])
		making = append(making, all["Context"][unit])
		allocs, theirAllocs = max(allocs, mine["allocs/op"]), peer["allocs/op"]
	}
	value, faster := measure.Median(ours), measure.Ratios(theirs, ours)
	ratio := measure.Median(faster)
	return measure.Result{
		Name: name, Value: value, Unit: "ns/op",
		Peer: "flagd-core", Ratio: ratio, Goal: goal, OK: ratio >= goal && allocs == 0,
		Beside: []string{
			fmt.Sprintf("ours: median %.0f ns, minimum %.0f ns of %d rounds; %g allocations", value, slices.Min(ours), len(ours), allocs),
			fmt.Sprintf("flagd: median %.0f ns, minimum %.0f ns; %g allocations", measure.Median(theirs), slices.Min(theirs), theirAllocs),
			fmt.Sprintf("times faster: minimum %.0f, maximum %.0f", slices.Min(faster), slices.Max(faster)),
			fmt.Sprintf("making the context, once a request: %.0f ns; a request of one evaluation, with its context, is %.1f times faster",
				measure.Median(making), measure.Median(theirs)/(value+measure.Median(making))),
		},
	}, nil
}
