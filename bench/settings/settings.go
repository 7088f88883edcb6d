// Package settings measures what readers of settings pay: a typed read, the memory of a follower of 100,000 tenants,
// how long a write takes until all of a thousand clients read it, and a kill beside a large edit.
//
// The measured code is in _test.go files beside what it measures, sdk/settings and services/config, because it needs
// package testing and, for the fan-out, a config service on a real PostgreSQL.
package settings

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/rowhouse-platform/rowhouse/bench/gotest"
	"github.com/rowhouse-platform/rowhouse/bench/measure"
	"github.com/rowhouse-platform/rowhouse/bench/servertest"
	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
)

// Read compares a typed read with decoding the same document.
func Read() measure.Benchmark {
	return measure.Benchmark{
		Name: "settings-read",
		About: "CPU ns of a typed read of a tenant's settings that were read before, beside decoding them at each read; " +
			"the goal bounds the value, and 0 allocations",
		Run: read,
	}
}

// Memory compares what a follower holds with parsed documents.
func Memory() measure.Benchmark {
	return measure.Benchmark{
		Name: "config-memory",
		About: "bytes that a follower of 100,000 tenants with 20 overrides holds for each, all in all, beside a map of parsed " +
			"documents and nothing else; the goal bounds the value",
		Run: memory,
	}
}

// Fanout compares deltas with full snapshots.
func Fanout() measure.Benchmark {
	return measure.Benchmark{
		Name: "config-fanout",
		About: "ms from the call of a write until a client has applied it, p99 of 1,000 clients of one process on 10 connections, beside " +
			"the same clients getting everything again; the goal bounds the value",
		Run: fanout,
	}
}

// KillLane compares kills beside edits of a large plan with kills alone.
func KillLane() measure.Benchmark {
	return measure.Benchmark{
		Name: "kill-lane",
		About: "ms from the call of a kill until each of 20 clients reads it, p99, while a plan of 100,000 tenants with documents of " +
			"their own is edited again and again, beside kills while nobody edits; the goal bounds the value",
		Run: killLane,
	}
}

func read(ctx context.Context, env measure.Env) (measure.Result, error) {
	const rounds, goal = 9, 250
	binary, err := gotest.Build(ctx, env.Root, "./sdk/settings", env.Scratch)
	if err != nil {
		return measure.Result{}, err
	}
	var ours, decode, table []float64
	var allocs float64
	for range env.RoundsOr(rounds) {
		all, err := binary.Run(ctx, "^BenchmarkRead$", "100ms")
		if err != nil {
			return measure.Result{}, err
		}
		ours, decode = append(ours, all["Read/Ours"]["cpu-ns/op"]), append(decode, all["Read/Decode"]["cpu-ns/op"])
		table = append(table, all["Read/LockedMap"]["cpu-ns/op"])
		allocs = max(allocs, all["Read/Ours"]["allocs/op"])
	}
	value := measure.Median(ours)
	return measure.Result{
		Name: "settings-read", Value: value, Unit: "ns/op", Peer: "decode-each-time", Ratio: measure.Median(measure.Ratios(ours, decode)),
		Goal: goal, OK: value <= goal && allocs == 0,
		Beside: []string{
			fmt.Sprintf("ours: median %.0f ns, minimum %.0f ns of %d rounds; %g allocations", value, slices.Min(ours), len(ours), allocs),
			fmt.Sprintf("decoding: median %.0f ns; a map of decoded values under a lock, which hears of no change: %.0f ns",
				measure.Median(decode), measure.Median(table)),
		},
	}, nil
}

func memory(ctx context.Context, env measure.Env) (measure.Result, error) {
	const goal = 1500
	binary, err := gotest.Build(ctx, env.Root, "./sdk/settings", env.Scratch)
	if err != nil {
		return measure.Result{}, err
	}
	all, err := binary.Run(ctx, "^BenchmarkMemory$", "1x")
	if err != nil {
		return measure.Result{}, err
	}
	if binary, err = gotest.Build(ctx, env.Root, "./sdk/flags", env.Scratch); err != nil {
		return measure.Result{}, err
	}
	compiled, err := binary.Run(ctx, "^BenchmarkViewMemory$", "1x")
	if err != nil {
		return measure.Result{}, err
	}
	ours, maps, view := all["Memory/Ours"], all["Memory/Maps"], compiled["ViewMemory"]
	const tenants = 100_000
	return measure.Result{
		Name: "config-memory", Value: ours["B/tenant"], Unit: "B/tenant", Peer: "parsed-maps", Ratio: ours["B/tenant"] / maps["B/tenant"],
		Goal: goal, OK: ours["B/tenant"] <= goal,
		Beside: []string{
			fmt.Sprintf("ours: %.0f B, with the feed's state and its digest; loaded in %.1f s, the publisher in the same process",
				ours["B/tenant"], ours["s-load"]),
			fmt.Sprintf("parsed maps: %.0f B, and no feed", maps["B/tenant"]),
			fmt.Sprintf("not in the value: where flags of all tenants are asked for, %.0f B for each of at most %.0f that are kept compiled, "+
				"with 3 overrides of 200 flags; that is %.0f B for each of 100,000",
				view["B/view"], view["views"], view["B/view"]*view["views"]/tenants),
		},
	}, nil
}

func fanout(ctx context.Context, env measure.Env) (measure.Result, error) {
	const goal = 50
	all, err := service(ctx, env, "Fanout")
	if err != nil {
		return measure.Result{}, err
	}
	m, apart := all["Fanout/Shared"], all["Fanout/Apart"]
	return measure.Result{
		Name: "config-fanout", Value: m["ms-p99"], Unit: "ms", Peer: "full-resend", Ratio: m["ms-p99"] / m["ms-resend-p99"],
		Goal: goal, OK: m["ms-p99"] <= goal,
		Beside: []string{
			"10 connections: " + fanoutTimes(m),
			"1,000 connections, one each: " + fanoutTimes(apart),
			"service, database and all clients, each with its own check of signatures, share this machine",
		},
	}, nil
}

func fanoutTimes(m map[string]float64) string {
	return fmt.Sprintf("a client p50 %.1f ms, p99 %.1f ms; the last of 1,000 p50 %.1f ms, p99 %.1f ms; the call alone, with a durable "+
		"commit, p50 %.1f ms, p99 %.1f ms; full resend p99 %.0f ms",
		m["ms-p50"], m["ms-p99"], m["ms-last-p50"], m["ms-last-p99"], m["ms-call-p50"], m["ms-call-p99"], m["ms-resend-p99"])
}

func killLane(ctx context.Context, env measure.Env) (measure.Result, error) {
	const goal = 25
	all, err := service(ctx, env, "KillLane")
	if err != nil {
		return measure.Result{}, err
	}
	m := all["KillLane"]
	return measure.Result{
		Name: "kill-lane", Value: m["ms-kill-p99"], Unit: "ms", Peer: "no-edits", Ratio: m["ms-kill-p99"] / m["ms-quiet-p99"],
		Goal: goal, OK: m["ms-kill-p99"] <= goal && m["edits"] > 0,
		Beside: []string{
			fmt.Sprintf("a kill beside edits: p50 %.1f ms, p99 %.1f ms; alone: p50 %.1f ms, p99 %.1f ms",
				m["ms-kill-p50"], m["ms-kill-p99"], m["ms-quiet-p50"], m["ms-quiet-p99"]),
			fmt.Sprintf("%.0f edits ended meanwhile, p50 %.0f ms each", m["edits"], m["ms-edit-p50"]),
			"service, database and all clients, each with TLS and its own check of signatures, share this machine",
		},
	}, nil
}

// service runs a benchmark of services/config once, over a PostgreSQL that commits durably.
func service(ctx context.Context, env measure.Env, name string) (map[string]gotest.Metrics, error) {
	binary, err := gotest.Build(ctx, env.Root, "./services/config", env.Scratch)
	if err != nil {
		return nil, err
	}
	server, err := pgserver.Start(ctx, pgserver.Options{Settings: servertest.Durable()})
	if err != nil {
		return nil, err
	}
	defer func() { _ = server.Stop(context.WithoutCancel(ctx)) }()
	if err := os.Setenv(pgtest.EnvServer, server.DSN(pgserver.Login{})); err != nil {
		return nil, err
	}
	defer func() { _ = os.Unsetenv(pgtest.EnvServer) }()
	return binary.Run(ctx, "^Benchmark"+name+"$", "1x")
}
