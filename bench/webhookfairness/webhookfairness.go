// Package webhookfairness measures what the receivers of one tenant's webhooks cost another's.
//
// Three installations of the queue, each with its own database, carry the same load at the same time: forty tenants whose
// receivers answer in 50 ms. In one there is nobody else. In the next, thirty more tenants have ten webhooks each that hang
// until they are given up, answer after three seconds, fail, redirect, point inside, or say what is no answer. In the last
// those answer well: what neighbours cost that do nothing wrong. What is compared is the time from an event to the call of a
// receiver of the forty, in rounds, and the ratio is the median of the rounds'. All three share each moment of the machine, and
// waits take most of each time; a machine that is busy with something else makes the ratio noisy all the same.
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

// goal is for the ratio of the others' p99 beside hostile receivers to that without them.
const goal = 1.05

const defaultSeconds = 30

// Benchmark returns the comparison.
func Benchmark() measure.Benchmark {
	return measure.Benchmark{
		Name: "webhook-fairness",
		About: "p99 from an event to the call of a good receiver beside 300 hostile ones, divided by the same without them, " +
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
		Name: "webhook-fairness", Value: m["ms-hostile"], Unit: "ms", Peer: "without-them", Ratio: m["ratio"],
		Goal: goal, OK: m["ratio"] > 0 && m["ratio"] <= goal,
		Beside: []string{
			fmt.Sprintf("p99 %.1f ms alone, %.1f ms beside hostile receivers, %.1f ms beside as many good ones (ratio %.2f), of %.0f calls each",
				m["ms-alone"], m["ms-hostile"], m["ms-good"], m["ratio-good"], m["calls"]),
			fmt.Sprintf("hostile calls meanwhile: %.0f, %.0f under way at the end; good neighbours' calls: %.0f",
				m["hostile-calls"], m["hostile-busy"], m["good-calls"]),
		},
	}, nil
}
