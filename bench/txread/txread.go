// Package txread measures what it costs to read one row by its key through
// [tenantdb.DB.QueryRow], where the database itself verifies the tenant.
//
// The peers are plain pgx with WHERE tenant_id, in autocommit and without row security,
// and the usual idiom of row security: BEGIN, set_config, the query, COMMIT. All read the
// same rows, in one run, in turns. Round trips are counted on the wire.
//
// "Loopback" is TCP to 127.0.0.1 with a processor for the backend and another for the
// client ("apart"), as they have on two machines. Left alone ("free"), Linux often runs a
// client beside a backend that answers within some 40 µs and moves a slower one away; then
// plain pgx pays for no wake-up of an idle processor and ours for two, and it is the
// scheduler that is compared. Both on one processor ("together") shows the work of both
// sides without any waiting. All three are printed, and the socket.
//
// The reading itself is in this package's _test.go file, because a database for it comes
// from dbtest.
//
// [tenantdb.DB.QueryRow]: https://pkg.go.dev/github.com/rowhouse-platform/rowhouse/sdk/tenantdb#DB.QueryRow
package txread

import (
	"context"
	"errors"
	"fmt"

	"github.com/rowhouse-platform/rowhouse/bench/gotest"
	"github.com/rowhouse-platform/rowhouse/bench/measure"
)

// The goals of the three ratios.
const (
	goalNear  = 2.0
	goalFar   = 1.10
	goalIdiom = 1.1
)

// Near compares with plain pgx on loopback.
func Near() measure.Benchmark {
	return measure.Benchmark{
		Name: "tx-read",
		About: "a point read through tenantdb divided by plain pgx's autocommit read with WHERE tenant_id, over 127.0.0.1, " +
			"backend and client on a processor each; the goal bounds the ratio, and one round trip",
		Run: func(ctx context.Context, env measure.Env) (measure.Result, error) {
			all, err := read(ctx, env, "apart|together|free|socket")
			if err != nil {
				return measure.Result{}, err
			}
			apart := all["PointRead/apart"]
			return result("tx-read", "pgx-autocommit", apart, "ratio-plain", goalNear,
				describe("apart", apart), describe("together on one processor", all["PointRead/together"]),
				describe("left to the scheduler", all["PointRead/free"]),
				describe("left to the scheduler, on the socket", all["PointRead/socket"])), nil
		},
	}
}

// Far compares with plain pgx over a network.
func Far() measure.Benchmark {
	return measure.Benchmark{
		Name:  "tx-read-2ms",
		About: "tx-read through a proxy that delays each direction by 1 ms; the goal bounds the ratio, and one round trip",
		Run: func(ctx context.Context, env measure.Env) (measure.Result, error) {
			all, err := read(ctx, env, "far")
			if err != nil {
				return measure.Result{}, err
			}
			far := all["PointRead/far"]
			return result("tx-read-2ms", "pgx-autocommit", far, "ratio-plain", goalFar,
				describe(fmt.Sprintf("2 ms delay (an empty round trip takes %.2f ms)", far["µs-trip"]/1000), far)), nil
		},
	}
}

// Idiom compares with the usual row security on loopback.
func Idiom() measure.Benchmark {
	return measure.Benchmark{
		Name: "tx-idiom",
		About: "tx-read divided by BEGIN, set_config, the query and COMMIT under row security; " +
			"the goal bounds the ratio, and one round trip",
		Run: func(ctx context.Context, env measure.Env) (measure.Result, error) {
			all, err := read(ctx, env, "apart|free")
			if err != nil {
				return measure.Result{}, err
			}
			apart := all["PointRead/apart"]
			return result("tx-idiom", "begin-set-query-commit", apart, "ratio-idiom", goalIdiom,
				describe("apart", apart), describe("left to the scheduler", all["PointRead/free"])), nil
		},
	}
}

// read measures over the links.
func read(ctx context.Context, env measure.Env, links string) (map[string]gotest.Metrics, error) {
	binary, err := gotest.Build(ctx, env.Root, "./bench/txread", env.Scratch)
	if err != nil {
		return nil, err
	}
	all, err := binary.Run(ctx, "^BenchmarkPointRead$/^("+links+")$", "1x")
	if err == nil && len(measure.Processors()) < 2 && links != "far" {
		err = errors.New("two processors are needed, one for the server and one for the client")
	}
	return all, err
}

func result(name, peer string, m gotest.Metrics, ratio string, goal float64, beside ...string) measure.Result {
	return measure.Result{
		Name: name, Value: m["µs-sealed"], Unit: "µs", Peer: peer, Ratio: m[ratio],
		Goal: goal, OK: m[ratio] > 0 && m[ratio] <= goal && m["trips-sealed"] == 1, Beside: beside,
	}
}

// describe tells what was measured over one link.
func describe(link string, m gotest.Metrics) string {
	return fmt.Sprintf("%s: tenantdb %.0f µs in %g round trip, ReadTx %.0f µs in %g; plain pgx %.0f µs in %g, ratio %.2f; "+
		"BEGIN/set_config/query/COMMIT %.0f µs in %g, ratio %.2f", link,
		m["µs-sealed"], m["trips-sealed"], m["µs-tx"], m["trips-tx"], m["µs-plain"], m["trips-plain"], m["ratio-plain"],
		m["µs-idiom"], m["trips-idiom"], m["ratio-idiom"])
}
