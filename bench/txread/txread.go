// Package txread measures what it costs to read one row by its key through
// [tenantdb.DB.QueryRow], where the database itself verifies the tenant.
//
// The peers are plain pgx with WHERE tenant_id, in autocommit and without row security,
// and the usual idiom of row security: BEGIN, set_config, the query, COMMIT. All three
// read the same rows, in one run, in turns, first on the server's socket and then over a
// network of 2 ms. Round trips are counted on the wire. The reading itself is in this
// package's _test.go file, because a database for it comes from dbtest.
//
// [tenantdb.DB.QueryRow]: https://pkg.go.dev/github.com/rowhouse-platform/rowhouse/sdk/tenantdb#DB.QueryRow
package txread

import (
	"context"
	"fmt"

	"github.com/rowhouse-platform/rowhouse/bench/gotest"
	"github.com/rowhouse-platform/rowhouse/bench/measure"
)

// The goals for the ratio to plain pgx: on the server's socket, and over 2 ms.
const (
	goalNear = 2.0
	goalFar  = 1.10
)

// Benchmark returns the comparison.
func Benchmark() measure.Benchmark {
	return measure.Benchmark{
		Name: "tx-read",
		About: "a point read through tenantdb divided by plain pgx's autocommit read with WHERE tenant_id, on the server's socket; " +
			"the goal bounds the ratio, and one round trip",
		Run: run,
	}
}

func run(ctx context.Context, env measure.Env) (measure.Result, error) {
	binary, err := gotest.Build(ctx, env.Root, "./bench/txread", env.Scratch)
	if err != nil {
		return measure.Result{}, err
	}
	all, err := binary.Run(ctx, "^BenchmarkPointRead$", "1x")
	if err != nil {
		return measure.Result{}, err
	}
	near, far := all["PointRead/near"], all["PointRead/far"]
	return measure.Result{
		Name: "tx-read", Value: near["ratio-plain"], Unit: "x",
		Peer: "pgx-autocommit", Ratio: near["ratio-plain"],
		Goal: goalNear, OK: near["ratio-plain"] <= goalNear && near["trips-sealed"] == 1 && far["trips-sealed"] == 1,
		Beside: []string{
			describe("socket", near),
			describe(fmt.Sprintf("2 ms delay (measured %.2f ms)", far["µs-trip"]/1000), far),
			fmt.Sprintf("over 2 ms the ratio to plain pgx is %.2f, goal %.2f, ok=%t",
				far["ratio-plain"], goalFar, far["ratio-plain"] <= goalFar),
		},
	}, nil
}

// describe tells what was measured over one link.
func describe(link string, m gotest.Metrics) string {
	return fmt.Sprintf("%s: tenantdb %.0f µs in %g round trip; plain pgx %.0f µs in %g, ratio %.2f; "+
		"BEGIN/set_config/query/COMMIT %.0f µs in %g, ratio %.2f", link,
		m["µs-sealed"], m["trips-sealed"], m["µs-plain"], m["trips-plain"], m["ratio-plain"],
		m["µs-idiom"], m["trips-idiom"], m["ratio-idiom"])
}
