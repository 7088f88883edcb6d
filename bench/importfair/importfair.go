// Package importfair measures what others notice of a tenant that imports two million notes.
//
// A reader of another tenant lists notes at a fixed rate, and what is compared is the p99 of its answers, from the moment at which
// they were due: without an import; while sdk/jobs imports, with a quarter of one worker's time as the example app does; and while a
// plain loop inserts as fast as it can in one large transaction after the other, first come, first served. The three take turns in
// one run, with the same rows waiting. Beside it stands how long ten rows of a third tenant take while the large import goes on, and
// how long they would have waited in the order of their arrival.
//
// The load is in this package's _test.go file, because a database for it comes from dbtest.
package importfair

import (
	"context"
	"fmt"

	"github.com/rowhouse-platform/rowhouse/bench/gotest"
	"github.com/rowhouse-platform/rowhouse/bench/measure"
)

// goal is for the ratio of the reader's p99 beside the import to that without.
const goal = 1.1

// Benchmark returns the comparison.
func Benchmark() measure.Benchmark {
	return measure.Benchmark{
		Name: "import-fair",
		About: "a reader's p99 while another tenant imports 2,000,000 rows through sdk/jobs, divided by the p99 without; the goal bounds that " +
			"ratio, and a plain loop in the order of arrival is beside",
		Run: run,
	}
}

func run(ctx context.Context, env measure.Env) (measure.Result, error) {
	binary, err := gotest.Build(ctx, env.Root, "./bench/importfair", env.Scratch)
	if err != nil {
		return measure.Result{}, err
	}
	all, err := binary.Run(ctx, "^BenchmarkImport$", "1x")
	if err != nil {
		return measure.Result{}, err
	}
	m := all["Import"]
	return measure.Result{
		Name: "import-fair", Value: m["ms-jobs"], Unit: "ms", Peer: "without-an-import", Ratio: m["ratio-jobs"],
		Goal: goal, OK: m["ratio-jobs"] > 0 && m["ratio-jobs"] <= goal,
		Beside: []string{
			fmt.Sprintf("p99 of reads: %.2f ms alone, %.2f ms beside sdk/jobs (ratio %.2f), %.2f ms beside a plain loop (ratio %.2f)",
				m["ms-alone"], m["ms-jobs"], m["ratio-jobs"], m["ms-plain"], m["ratio-plain"]),
			fmt.Sprintf("ten rows of a third tenant: %.0f ms beside the large import; in the order of arrival they would wait for %.0f s of it",
				m["ms-small"], m["s-fifo"]),
			fmt.Sprintf("sdk/jobs wrote %.0f rows/s while it was measured, the plain loop %.0f", m["rows/s-jobs"], m["rows/s-plain"]),
		},
	}, nil
}
