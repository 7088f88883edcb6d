// Package bulkinsert measures what it costs to insert 50,000 rows through
// [tenantdb.DB.InsertRows] into a table with row security, where PostgreSQL allows no COPY.
//
// The peer is pgx.CopyFrom into a table of the same columns and key without row security.
// Both insert the same rows into empty tables, in one run, in turns, each in one
// transaction, on a server with fsync on. The floor is 1.25, which is what PostgreSQL works longer for
// an INSERT ... SELECT, with row security or without (docs/decisions/0033). Both programs use two
// processors: on a machine where others work too, the ratio says little. The inserting itself is in this
// package's _test.go file, because a database for it comes from dbtest.
//
// [tenantdb.DB.InsertRows]: https://pkg.go.dev/github.com/rowhouse-platform/rowhouse/sdk/tenantdb#DB.InsertRows
package bulkinsert

import (
	"context"
	"fmt"

	"github.com/rowhouse-platform/rowhouse/bench/gotest"
	"github.com/rowhouse-platform/rowhouse/bench/measure"
)

// goal is for the ratio to COPY.
const goal = 1.4

// Benchmark returns the comparison.
func Benchmark() measure.Benchmark {
	return measure.Benchmark{
		Name: "bulk-insert",
		About: "50,000 rows by InsertRows into a table with row security, divided by pgx.CopyFrom into one without; " +
			"the goal bounds the ratio",
		Run: run,
	}
}

func run(ctx context.Context, env measure.Env) (measure.Result, error) {
	binary, err := gotest.Build(ctx, env.Root, "./bench/bulkinsert", env.Scratch)
	if err != nil {
		return measure.Result{}, err
	}
	all, err := binary.Run(ctx, "^BenchmarkInsert$", "1x")
	if err != nil {
		return measure.Result{}, err
	}
	m := all["Insert"]
	return measure.Result{
		Name: "bulk-insert", Value: m["ms-rows"], Unit: "ms", Peer: "pgx-copyfrom-unprotected", Ratio: m["ratio"],
		Goal: goal, OK: m["ratio"] > 0 && m["ratio"] <= goal,
		Beside: []string{fmt.Sprintf("50,000 rows: InsertRows %.0f ms, CopyFrom %.0f ms; "+
			"one INSERT a row in a Batch %.0f ms",
			m["ms-rows"], m["ms-copy"], m["ms-batch"])},
	}, nil
}
