// Package poolfairness measures what a quiet tenant notices of one that floods the service.
//
// The quiet tenant has one client, the flooding one a hundred, and all ask for the same: a
// statement that holds its connection for 5 ms. What is compared is the quiet tenant's p99
// with and without the flood, through tenantdb and through a plain pgxpool with as many
// connections, in one run, in turns. The statement waits rather than works, because the
// processors of this machine are the server's, the clients' and the flood's at once: a busy
// one would measure their contention, which no pool can help, and not the wait for a
// connection. Who is refused pauses before the next try.
//
// The load itself is in this package's _test.go file, because a database for it comes from
// dbtest.
package poolfairness

import (
	"context"
	"fmt"

	"github.com/rowhouse-platform/rowhouse/bench/gotest"
	"github.com/rowhouse-platform/rowhouse/bench/measure"
)

// goal is for the ratio of the quiet tenant's p99 with the flood to that without.
const goal = 1.5

// Benchmark returns the comparison.
func Benchmark() measure.Benchmark {
	return measure.Benchmark{
		Name: "pool-fairness",
		About: "a quiet tenant's p99 while another floods with a hundred times its load, divided by the p99 without the flood; " +
			"the goal bounds that ratio, and a plain pgxpool's is beside",
		Run: run,
	}
}

func run(ctx context.Context, env measure.Env) (measure.Result, error) {
	binary, err := gotest.Build(ctx, env.Root, "./bench/poolfairness", env.Scratch)
	if err != nil {
		return measure.Result{}, err
	}
	all, err := binary.Run(ctx, "^BenchmarkFlood$", "1x")
	if err != nil {
		return measure.Result{}, err
	}
	m := all["Flood"]
	return measure.Result{
		Name: "pool-fairness", Value: m["ms-sealed-flood"], Unit: "ms", Peer: "without-the-flood", Ratio: m["ratio-sealed"],
		Goal: goal, OK: m["ratio-sealed"] > 0 && m["ratio-sealed"] <= goal,
		Beside: []string{
			fmt.Sprintf("tenantdb: p99 %.1f ms alone, %.1f ms in the flood, ratio %.2f; the flood got %.0f answers/s",
				m["ms-sealed-alone"], m["ms-sealed-flood"], m["ratio-sealed"], m["flood-sealed/s"]),
			fmt.Sprintf("plain pgxpool, as many connections: p99 %.1f ms alone, %.1f ms in the flood, ratio %.1f; the flood got %.0f answers/s",
				m["ms-plain-alone"], m["ms-plain-flood"], m["ratio-plain"], m["flood-plain/s"]),
		},
	}, nil
}
