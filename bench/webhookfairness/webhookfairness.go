// Package webhookfairness measures what the receivers of one tenant's webhooks cost another's.
//
// Two installations of the queue, each with its own database, carry the same load at the same time: forty tenants whose
// receivers answer in 50 ms, and beside them thirty tenants with ten webhooks each. In one those answer like the others; in
// the other they hang until they are given up, answer after three seconds, fail, redirect, point inside, or say what is no
// answer. What is compared is the time from an event to the call of a receiver of the forty, with the hostile neighbours and
// with the good ones: what it costs that there are neighbours at all, and what else the machine does, is in both. Waits take
// most of each time, so that no processor is full: a full one would measure the contention of this machine.
//
// The load is in a _test.go file of the queue's own package, since a database for it comes from its tests.
package webhookfairness

import (
	"context"
	"fmt"
	"strconv"

	"github.com/rowhouse-platform/rowhouse/bench/gotest"
	"github.com/rowhouse-platform/rowhouse/bench/measure"
)

// goal is for the ratio of the others' p99 beside hostile receivers to that beside good ones.
const goal = 1.05

const defaultSeconds = 30

// Benchmark returns the comparison.
func Benchmark() measure.Benchmark {
	return measure.Benchmark{
		Name: "webhook-fairness",
		About: "p99 from an event to the call of a good receiver beside 300 hostile ones, divided by the same beside 300 good ones, " +
			"measured at the same time; the goal bounds that ratio",
		Run: run,
	}
}

func run(ctx context.Context, env measure.Env) (measure.Result, error) {
	binary, err := gotest.Build(ctx, env.Root, "./services/config/internal/store", env.Scratch)
	if err != nil {
		return measure.Result{}, err
	}
	all, err := binary.Run(ctx, "^BenchmarkFairness$", strconv.Itoa(env.SecondsOr(defaultSeconds))+"x")
	if err != nil {
		return measure.Result{}, err
	}
	m := all["Fairness"]
	return measure.Result{
		Name: "webhook-fairness", Value: m["ms-hostile"], Unit: "ms", Peer: "good-neighbours", Ratio: m["ratio"],
		Goal: goal, OK: m["ratio"] > 0 && m["ratio"] <= goal,
		Beside: []string{
			fmt.Sprintf("p99 %.1f ms beside good neighbours, %.1f ms beside hostile ones, of %.0f calls each; p50 %.1f and %.1f ms",
				m["ms-good"], m["ms-hostile"], m["calls"], m["p50-good"], m["p50-hostile"]),
			fmt.Sprintf("hostile calls meanwhile: %.0f, %.0f under way at the end; good neighbours' calls: %.0f",
				m["hostile-calls"], m["hostile-busy"], m["good-calls"]),
		},
	}, nil
}
