// Package meteringest measures how many usage events a second quota counts, through its real gRPC service: exactly once, added
// up by minute, hour and day.
//
// The peer is what counting costs where it is begun: one INSERT for each event, a transaction each, into a plain table of the
// same columns with the same key, which neither finds repeats nor adds anything up. Eight clients send to either, in turns, in one
// run, to the same PostgreSQL with fsync on. Ours send requests of 1,000 events. The control is a plain INSERT of 1,000 rows at a
// time: what is left to gain.
//
// The clients are in a _test.go file of the service's own package, since a quota for it comes from its tests.
package meteringest

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/rowhouse-platform/rowhouse/bench/gotest"
	"github.com/rowhouse-platform/rowhouse/bench/measure"
	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
)

// goal is for the ratio of our events a second to the peer's.
const goal = 10

// Benchmark returns the comparison.
func Benchmark() measure.Benchmark {
	return measure.Benchmark{
		Name: "meter-ingest",
		About: "usage events counted a second through gRPC, divided by one INSERT for each event into a plain table; " +
			"the goal bounds the ratio",
		Run: run,
	}
}

func run(ctx context.Context, env measure.Env) (r measure.Result, err error) {
	binary, err := gotest.Build(ctx, env.Root, "./services/quota", env.Scratch)
	if err != nil {
		return r, err
	}
	durable := map[string]string{"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "max_wal_size": "4GB"}
	server, err := pgserver.Start(ctx, pgserver.Options{Dir: env.Scratch + "/pg", MaxConnections: 200, Settings: durable}) // on the disk
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, server.Stop(context.WithoutCancel(ctx)), os.Unsetenv(pgtest.EnvServer)) }()
	if err := os.Setenv(pgtest.EnvServer, server.DSN(pgserver.Login{})); err != nil {
		return r, err
	}
	all, err := binary.Run(ctx, "^BenchmarkIngest$", "1x")
	if err != nil {
		return r, err
	}
	m := all["Ingest"]
	return measure.Result{
		Name: "meter-ingest", Value: m["events/s"], Unit: "events/s", Peer: "insert-per-event",
		Ratio: m["ratio"], Goal: goal, OK: m["ratio"] >= goal,
		Beside: []string{fmt.Sprintf(
			"events a second: ours %.0f, one INSERT each %.0f, plain INSERT of 1,000 rows %.0f; ratios from %.1f to %.1f",
			m["events/s"], m["single/s"], m["bulk/s"], m["ratio-least"], m["ratio-most"])},
	}, nil
}
