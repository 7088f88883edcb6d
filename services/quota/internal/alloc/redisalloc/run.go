package redisalloc

import (
	"context"
	"crypto/sha1" //nolint:gosec // the digest by which the protocol names scripts
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/redis/rueidis"
	"golang.org/x/sync/errgroup"
)

func newScript(source string) script {
	sum := sha1.Sum([]byte(source)) //nolint:gosec // as above
	return script{source, hex.EncodeToString(sum[:])}
}

// result is what a script returned.
type result struct {
	values []rueidis.RedisMessage
	err    error
}

func (r result) number(i int) int64 {
	n, _ := r.values[i].AsInt64() // the scripts return numbers
	return n
}

func (r result) text(i int) string {
	s, _ := r.values[i].ToString() // the scripts return texts
	return s
}

// run runs calls, all in one trip to each node, and those whose script a node did not know
// once more. Nothing else is tried again: what became of it is not known.
func (d *Driver) run(ctx context.Context, calls []call) []result {
	if d.WaitReplicas > 0 {
		return d.runReplicated(ctx, calls)
	}
	commands := make(rueidis.Commands, len(calls))
	for i, c := range calls {
		commands[i] = d.Client.B().Evalsha().Sha1(c.script.sha).Numkeys(int64(len(c.keys))).Key(c.keys...).Arg(c.args...).Build()
	}
	out := make([]result, len(calls))
	var unknown []int
	for i, r := range d.Client.DoMulti(ctx, commands...) {
		out[i].values, out[i].err = r.ToArray()
		if e, ok := rueidis.IsRedisErr(out[i].err); ok && e.IsNoScript() {
			unknown = append(unknown, i)
		}
	}
	if len(unknown) == 0 {
		return out
	}
	again := make(rueidis.Commands, 0, len(unknown))
	for _, i := range unknown {
		again = append(again, d.eval(d.Client.B(), calls[i]))
	}
	for n, r := range d.Client.DoMulti(ctx, again...) {
		out[unknown[n]].values, out[unknown[n]].err = r.ToArray()
	}
	return out
}

func (d *Driver) eval(b rueidis.Builder, c call) rueidis.Completed {
	return b.Eval().Script(c.script.text).Numkeys(int64(len(c.keys))).Key(c.keys...).Arg(c.args...).Build()
}

// concurrently bounds how many connections of their own calls use that wait for replicas.
const concurrently = 16

// runReplicated runs each call on a connection that is its own meanwhile, since WAIT is
// about the writes of the connection that it is sent on; those of one scope in their order.
func (d *Driver) runReplicated(ctx context.Context, calls []call) []result {
	scopes := make(map[string][]int)
	for i, c := range calls {
		tag, _, _ := strings.Cut(c.keys[0], "}")
		scopes[tag] = append(scopes[tag], i)
	}
	out := make([]result, len(calls))
	var g errgroup.Group
	g.SetLimit(concurrently)
	for _, at := range scopes {
		g.Go(func() error {
			for _, i := range at {
				out[i] = d.replicated(ctx, calls[i])
			}
			return nil
		})
	}
	_ = g.Wait() // which never fails: the results do
	return out
}

func (d *Driver) replicated(ctx context.Context, c call) (out result) {
	out.err = d.Client.Dedicated(func(conn rueidis.DedicatedClient) error {
		results := conn.DoMulti(ctx, d.eval(conn.B(), c),
			conn.B().Wait().Numreplicas(int64(d.WaitReplicas)).Timeout(d.WaitTimeout.Milliseconds()).Build())
		var err error
		if out.values, err = results[0].ToArray(); err != nil {
			return err
		}
		n, err := results[1].AsInt64()
		if err == nil && n < int64(d.WaitReplicas) {
			err = fmt.Errorf("%d of %d: %w", n, d.WaitReplicas, ErrReplicas)
		}
		return err
	})
	return out
}
