// Package catalogaudit measures what an audit of the catalogs costs, on a small database and
// on one with 20,000 tables of tenants.
//
// On the small one the peer asks each rule by itself, 40 statements in a row, as a folder of
// checks would: it finds the same. Both run over one warm connection, in turns. Beside it stands what a
// migration pays, which audits only what it touched. The measuring itself is in this
// package's _test.go file, because a database for it comes from dbtest.
package catalogaudit

import (
	"context"
	"fmt"

	"github.com/rowhouse-platform/rowhouse/bench/gotest"
	"github.com/rowhouse-platform/rowhouse/bench/measure"
)

// goal is for a small database, in milliseconds.
const goal = 100

// Benchmark returns the comparison.
func Benchmark() measure.Benchmark {
	return measure.Benchmark{
		Name: "catalog-audit",
		About: "an audit of a small database by all rules in one statement, divided by one statement per rule; " +
			"the goal bounds the milliseconds of the audit",
		Run: run,
	}
}

func run(ctx context.Context, env measure.Env) (measure.Result, error) {
	binary, err := gotest.Build(ctx, env.Root, "./bench/catalogaudit", env.Scratch)
	if err != nil {
		return measure.Result{}, err
	}
	all, err := binary.Run(ctx, "^BenchmarkAudit$", "1x")
	if err != nil {
		return measure.Result{}, err
	}
	small, fleet := all["Audit/small"], all["Audit/fleet"]
	return measure.Result{
		Name: "catalog-audit", Value: small["ms-audit"], Unit: "ms",
		Peer: "statement-per-rule", Ratio: small["ratio"],
		Goal: goal, OK: small["ms-audit"] <= goal,
		Beside: []string{
			fmt.Sprintf("small database: audit %.0f ms; one statement per rule %.0f ms, ratio %.2f; what one migration touched %.0f ms",
				small["ms-audit"], small["ms-rules"], small["ratio"], small["ms-touched"]),
			fmt.Sprintf("20,000 tables: audit %.0f ms; what one migration touched %.0f ms", fleet["ms-audit"], fleet["ms-touched"]),
		},
	}, nil
}
