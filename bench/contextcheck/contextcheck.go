// Package contextcheck measures what it costs a service to check a tenant context that
// it has seen before: [tenant.Verifier.Verify], warm.
//
// The peer is the least that any such check must do, looking the same token up in a map.
// Both hold the tokens of a thousand tenants, and both are asked by all of them in turn,
// with bytes that are not the ones they hold, as those of a request never are. One
// token again and again would be found in the processor's nearest cache, and be cheaper.
//
// What counts is CPU time: without a wait in it a check takes no other, and other work on
// the machine then disturbs less than by the clock on the wall, which is printed beside.
//
// [tenant.Verifier.Verify]: https://pkg.go.dev/github.com/rowhouse-platform/rowhouse/sdk/tenant#Verifier.Verify
package contextcheck

import (
	"context"
	"fmt"
	"slices"

	"github.com/rowhouse-platform/rowhouse/bench/gotest"
	"github.com/rowhouse-platform/rowhouse/bench/measure"
)

const (
	rounds    = 9
	benchtime = "200ms"
	goal      = 100 // ns/op
)

// Benchmark returns the comparison.
func Benchmark() measure.Benchmark {
	return measure.Benchmark{
		Name:  "context-check",
		About: "ns of a warm check of a tenant context, beside a bare map look-up; the goal bounds the value, and 0 allocations",
		Run:   run,
	}
}

func run(ctx context.Context, env measure.Env) (measure.Result, error) {
	var verify, wall, lookup []float64
	var allocs float64
	binary, err := gotest.Build(ctx, env.Root, "./bench/contextcheck", env.Scratch)
	if err != nil {
		return measure.Result{}, err
	}
	for range env.RoundsOr(rounds) {
		all, err := binary.Run(ctx, "^Benchmark(Verify|MapLookup)$", benchtime)
		if err != nil {
			return measure.Result{}, err
		}
		verify, lookup = append(verify, all["Verify"]["cpu-ns/op"]), append(lookup, all["MapLookup"]["cpu-ns/op"])
		wall = append(wall, all["Verify"]["ns/op"])
		allocs = max(allocs, all["Verify"]["allocs/op"])
	}
	value := measure.Median(verify)
	return measure.Result{
		Name: "context-check", Value: value, Unit: "ns/op",
		Peer: "map-lookup", Ratio: measure.Median(measure.Ratios(verify, lookup)),
		Goal: goal, OK: value <= goal && allocs == 0,
		Beside: []string{
			fmt.Sprintf("verify: median %.1f ns, minimum %.1f ns, maximum %.1f ns of %d rounds; %g allocations",
				value, slices.Min(verify), slices.Max(verify), len(verify), allocs),
			fmt.Sprintf("verify by the clock on the wall: median %.1f ns, minimum %.1f ns", measure.Median(wall), slices.Min(wall)),
			fmt.Sprintf("map look-up: median %.1f ns, minimum %.1f ns", measure.Median(lookup), slices.Min(lookup)),
		},
	}, nil
}
