// Package replicaread measures what it costs to read one row from a streaming replica through
// [tenantdb.DB.ReadTx], which waits there for the caller's last commit.
//
// The peer is the same call to the primary, while nothing is written: what is above one is
// the price of the wait. Beside it stands the naive read, which enters the tenant on the same
// replica in one batch of plain pgx and waits for nothing; it has no transaction block to end,
// so it is faster than either. Then each of them reads right after a commit, and answers from
// before the commit are counted. The reading itself is in this package's _test.go file.
//
// [tenantdb.DB.ReadTx]: https://pkg.go.dev/github.com/rowhouse-platform/rowhouse/sdk/tenantdb#DB.ReadTx
package replicaread

import (
	"context"
	"fmt"

	"github.com/rowhouse-platform/rowhouse/bench/gotest"
	"github.com/rowhouse-platform/rowhouse/bench/measure"
)

// goal bounds the ratio to the peer, with nothing written.
const goal = 1.5

// Benchmark returns the comparison.
func Benchmark() measure.Benchmark {
	return measure.Benchmark{
		Name: "replica-read",
		About: "a point read by ReadTx from a replica, with its wait for the caller's commit, divided by one from the primary; " +
			"the goal bounds the ratio, and no read right after a commit is stale",
		Run: run,
	}
}

func run(ctx context.Context, env measure.Env) (measure.Result, error) {
	binary, err := gotest.Build(ctx, env.Root, "./bench/replicaread", env.Scratch)
	if err != nil {
		return measure.Result{}, err
	}
	all, err := binary.Run(ctx, "^BenchmarkReplicaRead$", "1x")
	if err != nil {
		return measure.Result{}, err
	}
	m := all["ReplicaRead"]
	return measure.Result{
		Name: "replica-read", Value: m["ratio"], Unit: "x", Peer: "primary-read", Ratio: m["ratio"],
		Goal: goal, OK: m["ratio"] <= goal && m["stale"] == 0,
		Beside: []string{
			fmt.Sprintf("nothing written: from the replica %.0f µs, from the primary %.0f µs, the naive read %.0f µs",
				m["µs-idle"], m["µs-primary"], m["µs-naive-idle"]),
			fmt.Sprintf("right after each of %g commits: ReadTx p50 %.0f µs, %g stale, %g read from the replica; "+
				"the naive read p50 %.0f µs, %g stale",
				m["pairs"], m["µs-after"], m["stale"], m["served"], m["µs-naive-after"], m["stale-naive"]),
		},
	}, nil
}
