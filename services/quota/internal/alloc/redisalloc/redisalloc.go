// Package redisalloc keeps cells and slots in a server or a cluster that speaks Redis's
// protocol.
//
// A charge is one script. The keys of a scope have its hash tag, so they are in one slot
// and the script is legal in a cluster; numbers stay below 2^53, which scripts count
// exactly. The server must never evict a key, which [New] verifies: an evicted cell is a
// fresh budget. Replication is asynchronous unless Config.WaitReplicas asks for more: a
// failover may forget what was charged last, at most one burst of each limit.
//
// It keeps rates and slots and never quotas. Start at [New].
package redisalloc

import (
	"context"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
	"golang.org/x/sync/errgroup"

	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/alloc"
)

var (
	//go:embed charge.lua
	chargeScript string
	//go:embed give.lua
	giveScript string
	//go:embed slots.lua
	slotsScript string
)

// Config makes a [Driver]. Client is required.
type Config struct {
	// Client is connected to the server or the cluster. The driver does not close it.
	Client rueidis.Client
	// Prefix begins every key. Default "rowhouse:".
	Prefix string
	// WaitReplicas is how many replicas must have a charge before it is answered. 0 waits
	// for none. Where fewer have it within WaitTimeout the charge's outcome is not known.
	WaitReplicas int
	// WaitTimeout is how long to wait for replicas. Default 20 ms.
	WaitTimeout time.Duration
	// Clock replaces the server's clock, for tests.
	Clock func() gcra.Ticks
}

// Driver is an alloc.Driver on Redis's protocol.
type Driver struct {
	Config

	charge, give, slots script
}

var _ alloc.Driver = (*Driver)(nil)

const (
	defaultPrefix = "rowhouse:"
	defaultWait   = 20 * time.Millisecond
)

// ErrEvicts is returned by [New] for a server that may evict keys.
var ErrEvicts = errors.New("redisalloc: maxmemory-policy must be noeviction: an evicted cell is a fresh budget")

// ErrReplicas is the error of a charge that too few replicas have; it counts as granted.
var ErrReplicas = errors.New("redisalloc: too few replicas have the charge")

// New returns a driver, after it asked every node whether it evicts keys.
func New(ctx context.Context, c Config) (*Driver, error) {
	if c.Prefix == "" {
		c.Prefix = defaultPrefix
	}
	if c.WaitTimeout == 0 {
		c.WaitTimeout = defaultWait
	}
	d := &Driver{Config: c, charge: newScript(chargeScript), give: newScript(giveScript), slots: newScript(slotsScript)}
	for address, node := range c.Client.Nodes() {
		info, err := node.Do(ctx, node.B().Info().Section("memory").Build()).ToString()
		if err != nil {
			return nil, fmt.Errorf("redisalloc: ask %s for its memory: %w", address, err)
		}
		if !strings.Contains(info, "maxmemory_policy:noeviction") {
			return nil, fmt.Errorf("%s: %w", address, ErrEvicts)
		}
	}
	return d, nil
}

// script is a script and its digest.
type script struct{ text, sha string }

// call is a script with its keys and values.
type call struct {
	script     script
	keys, args []string
}

// at is the time to decide by; "" for the server's.
func (d *Driver) at() string {
	if d.Clock == nil {
		return ""
	}
	return strconv.FormatInt(int64(d.Clock()), 10)
}

// tag begins the keys of a scope; the braces make it what the slot is computed of.
func (d *Driver) tag(s lease.Scope) string {
	return d.Prefix + "{" + base64.RawURLEncoding.EncodeToString(s[:]) + "}:"
}

// key is the key of a cell's part.
func (d *Driver) key(r alloc.Ref, part string) string {
	return d.tag(r.Scope) + part + ":" + base64.RawURLEncoding.EncodeToString(r.Key[:])
}

// The parts of a cell.
const (
	partCell = "c"
	partEnds = "e"
	partHas  = "h"
)

// text is a mark as scripts compare it.
func text(m alloc.Mark) string {
	return strconv.FormatInt(m.Tokens, 10) + ":" + strconv.FormatInt(m.Period, 10) + ":" + strconv.FormatInt(m.Burst, 10)
}

// parseMark reads what text wrote; the zero Mark for anything else.
func parseMark(s string) (m alloc.Mark) {
	if _, err := fmt.Sscanf(s, "%d:%d:%d", &m.Tokens, &m.Period, &m.Burst); err != nil {
		return alloc.Mark{}
	}
	return m
}

// Charge implements alloc.Driver. There are no locks to wait for.
func (d *Driver) Charge(ctx context.Context, b alloc.Batch) ([]alloc.Charged, error) {
	calls := make([]call, len(b.Charges))
	at := d.at()
	for i, c := range b.Charges {
		calls[i] = call{script: d.charge, args: []string{at}}
		for _, cell := range c.Cells {
			calls[i].keys = append(calls[i].keys, d.key(alloc.Ref{Scope: c.Scope, Key: cell.Key}, partCell))
			calls[i].args = appendCell(calls[i].args, cell)
		}
	}
	results := d.run(ctx, calls)
	out := make([]alloc.Charged, len(results))
	for i, r := range results {
		out[i] = charged(r, len(b.Charges[i].Cells))
	}
	return out, nil
}

// appendCell appends the values of one cell of a charge.
func appendCell(args []string, c alloc.Cell) []string {
	optional := int64(0)
	if c.Optional {
		optional = 1
	}
	args = append(args, text(c.Mark))
	for _, n := range []int64{c.Revision, int64(c.Burst), int64(c.Life), int64(c.Exact), optional} {
		args = append(args, strconv.FormatInt(n, 10))
	}
	for i := range alloc.Rungs {
		cost := int64(-1)
		if i < len(c.Ladder) {
			cost = int64(c.Ladder[i])
		}
		args = append(args, strconv.FormatInt(cost, 10))
	}
	if !c.Converted {
		return append(args, "-1", "", "0")
	}
	return append(args, strconv.FormatInt(int64(c.From.TAT), 10), text(c.From.Mark), strconv.FormatInt(int64(c.To), 10))
}

// charged reads what the script of a charge with n cells returned.
func charged(r result, n int) alloc.Charged {
	const head, each = 2, 4
	if r.err == nil && len(r.values) != head+n*each {
		r.err = fmt.Errorf("a charge of %d cells returned %d values", n, len(r.values))
	}
	if r.err != nil {
		return alloc.Charged{Err: r.err}
	}
	out := alloc.Charged{Now: gcra.Ticks(r.number(0)), OK: r.number(1) == 1}
	for i := range n {
		at := head + i*each
		c := alloc.CellCharged{Rung: int(r.number(at)), TAT: gcra.Ticks(r.number(at + 1))}
		if c.Rung == alloc.Stale {
			out.Stale = true
			c.Stored = alloc.State{TAT: c.TAT, Mark: parseMark(r.text(at + 2)), Revision: r.number(at + 3)}
		}
		out.Cells = append(out.Cells, c)
	}
	return out
}

// Give implements alloc.Driver.
func (d *Driver) Give(ctx context.Context, gives []alloc.Give) ([]bool, error) {
	calls := make([]call, len(gives))
	for i, g := range gives {
		calls[i] = call{d.give, []string{d.key(g.Ref, partCell)}, []string{
			text(g.Mark), strconv.FormatInt(int64(g.TAT), 10), strconv.FormatInt(int64(g.By), 10),
		}}
	}
	taken := make([]bool, len(gives))
	var failed error
	for i, r := range d.run(ctx, calls) {
		taken[i] = r.err == nil && r.number(0) == 1
		failed = errors.Join(failed, r.err)
	}
	return taken, failed
}

// Read implements alloc.Driver.
func (d *Driver) Read(ctx context.Context, refs []alloc.Ref) ([]alloc.State, gcra.Ticks, error) {
	now, err := d.now(ctx)
	if err != nil {
		return nil, 0, fmt.Errorf("read the time: %w", err)
	}
	commands := make(rueidis.Commands, len(refs))
	for i, r := range refs {
		commands[i] = d.Client.B().Hmget().Key(d.key(r, partCell)).Field("t", "m", "r").Build()
	}
	states := make([]alloc.State, len(refs))
	for i, r := range d.Client.DoMulti(ctx, commands...) {
		got, err := r.ToArray()
		if err != nil {
			return nil, 0, fmt.Errorf("read a cell: %w", err)
		}
		if got[0].IsNil() {
			continue
		}
		tat, _ := got[0].AsInt64() // the scripts write numbers
		mark, _ := got[1].ToString()
		states[i].Revision, _ = got[2].AsInt64()
		states[i].TAT, states[i].Mark = gcra.Ticks(tat), parseMark(mark)
	}
	return states, now, nil
}

// now is the time of any node, to look at a cell and not to decide by.
func (d *Driver) now(ctx context.Context) (gcra.Ticks, error) {
	if d.Clock != nil {
		return d.Clock(), nil
	}
	t, err := d.Client.Do(ctx, d.Client.B().Time().Build()).AsIntSlice()
	if err != nil {
		return 0, err
	}
	return gcra.At(time.Unix(t[0], t[1]*int64(time.Microsecond))), nil
}

// Present implements alloc.Driver.
func (d *Driver) Present(ctx context.Context, holders []string, life time.Duration) (int, error) {
	t, err := d.Client.Do(ctx, d.Client.B().Time().Build()).AsIntSlice()
	if err != nil {
		return 0, fmt.Errorf("note holders: %w", err)
	}
	key, now := d.Prefix+"holders", float64(t[0])
	add := d.Client.B().Zadd().Key(key).ScoreMember()
	for _, h := range holders {
		add = add.ScoreMember(now, h)
	}
	results := d.Client.DoMulti(ctx, add.Build(),
		d.Client.B().Zremrangebyscore().Key(key).Min("-inf").Max(fmt.Sprintf("(%.0f", now-life.Seconds())).Build(),
		d.Client.B().Zcard().Key(key).Build())
	for _, r := range results {
		if err := r.Error(); err != nil {
			return 0, fmt.Errorf("note holders: %w", err)
		}
	}
	n, err := results[2].AsInt64()
	return int(n), err
}

// Collect implements alloc.Driver. Keys end by themselves.
func (d *Driver) Collect(context.Context) error { return nil }

// Erase implements alloc.Driver. It looks at every key of every node.
func (d *Driver) Erase(ctx context.Context, scope lease.Scope) error {
	g, ctx := errgroup.WithContext(ctx)
	for address, node := range d.Client.Nodes() {
		g.Go(func() error {
			if err := d.erase(ctx, node, scope); err != nil {
				return fmt.Errorf("erase a scope at %s: %w", address, err)
			}
			return nil
		})
	}
	return g.Wait()
}

func (d *Driver) erase(ctx context.Context, node rueidis.Client, scope lease.Scope) error {
	const page = 1000
	for cursor := uint64(0); ; {
		found, err := node.Do(ctx, node.B().Scan().Cursor(cursor).Match(d.tag(scope)+"*").Count(page).Build()).AsScanEntry()
		if err != nil {
			return err
		}
		for _, key := range found.Elements {
			// By the cluster's client: a node that is a replica lists what its master has.
			if err := d.Client.Do(ctx, d.Client.B().Unlink().Key(key).Build()).Error(); err != nil {
				return err
			}
		}
		if cursor = found.Cursor; cursor == 0 {
			return nil
		}
	}
}
