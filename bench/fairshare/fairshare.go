// Package fairshare measures how sdk/limits/fair shares the places of a busy resource.
//
// Two loads run through our queue and through a control that serves whoever came first, with as many places, in one run and in
// turns. In the first, thirty tenants with the weights 1, 2 and 5 all want more than there is, some with calls four times as
// long: the measure is Jain's index of the time that each got by its weight. In the second, fifty tenants call at moments of
// their own choice and take half of what there is, with and without one more that calls a hundred times as often as any of
// them, which is as much as there is: the measure is the p99 of the fifty's calls with it, divided by that without it. Calls
// wait rather than work, as long as chance says around a mean: the processors of this machine are the load's too, and a busy one
// would measure their contention.
//
// The load itself is in this package's _test.go file.
package fairshare

import (
	"context"
	"fmt"

	"github.com/rowhouse-platform/rowhouse/bench/gotest"
	"github.com/rowhouse-platform/rowhouse/bench/measure"
)

// The goals: goal bounds the ratio, leastIndex the index.
const (
	goal       = 1.10
	leastIndex = 0.99
)

// Benchmark returns the comparison.
func Benchmark() measure.Benchmark {
	return measure.Benchmark{
		Name: "fair-share",
		About: "Jain's index of what tenants with the weights 1, 2 and 5 got by their weights, at least 0.99; and the p99 of fifty " +
			"tenants beside one with a hundred times the calls of each, divided by the p99 without it: the goal bounds that ratio",
		Run: run,
	}
}

func run(ctx context.Context, env measure.Env) (measure.Result, error) {
	binary, err := gotest.Build(ctx, env.Root, "./bench/fairshare", env.Scratch)
	if err != nil {
		return measure.Result{}, err
	}
	all, err := binary.Run(ctx, "^BenchmarkShare$", "1x")
	if err != nil {
		return measure.Result{}, err
	}
	m := all["Share"]
	ratio, index := m["ratio-fair"], m["index-fair"]
	return measure.Result{
		Name: "fair-share", Value: index, Unit: "jain", Peer: "without-the-aggressor", Ratio: ratio,
		Goal: goal, OK: index >= leastIndex && ratio > 0 && ratio <= goal,
		Beside: []string{
			fmt.Sprintf("fair: Jain's index %.4f; victims' p99 %.1f ms alone, %.1f ms beside the aggressor, ratio %.3f, "+
				"%.0f refused; the aggressor got %.0f calls/s",
				index, m["ms-fair-alone"], m["ms-fair-beside"], ratio, m["refused-fair"], m["aggressor-fair/s"]),
			fmt.Sprintf("first come, first served: Jain's index %.4f; victims' p99 %.1f ms alone, %.1f ms beside the aggressor, "+
				"ratio %.1f, %.0f refused; the aggressor got %.0f calls/s",
				m["index-fifo"], m["ms-fifo-alone"], m["ms-fifo-beside"], m["ratio-fifo"], m["refused-fifo"], m["aggressor-fifo/s"]),
			fmt.Sprintf("making room for a call where nobody waits: %.0f ns", m["ns-enter"]),
		},
	}, nil
}
