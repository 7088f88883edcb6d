package lease_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
)

// bank is an allocator in memory: it charges by its clock, all cells of an ask or none.
type bank struct {
	clock func() time.Time
	delay func(ctx context.Context) error

	mu    sync.Mutex
	cells map[lease.Key]*account
	calls int
	// asked, granted and returned count asks, and tokens by cell.
	asked             int
	granted, returned map[lease.Key]int64
	// most is how many calls of one scope were under way at the same time.
	under map[lease.Scope]int
	most  int
	fail  error
	// answer, when set, is given to every ask.
	answer *lease.Answer
}

// account is one cell and by what it was charged.
type account struct {
	tat      gcra.Ticks
	limit    gcra.Limit
	revision int64
}

func newBank(clock func() time.Time) *bank {
	return &bank{
		clock: clock, cells: make(map[lease.Key]*account), granted: make(map[lease.Key]int64), returned: make(map[lease.Key]int64),
		under: make(map[lease.Scope]int),
	}
}

var errDown = errors.New("no bank")

func (b *bank) Grant(ctx context.Context, asks []lease.Ask) ([]lease.Answer, int, error) {
	b.enter(asks[0].Scope, 1)
	defer b.enter(asks[0].Scope, -1)
	if b.delay != nil {
		if err := b.delay(ctx); err != nil {
			return nil, 0, err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls++
	if b.fail != nil {
		return nil, 0, b.fail
	}
	var answers []lease.Answer
	for _, a := range asks {
		b.asked++
		if b.answer != nil {
			answers = append(answers, *b.answer)
			continue
		}
		answers = append(answers, b.one(a))
	}
	return answers, 1, nil
}

func (b *bank) enter(s lease.Scope, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.under[s] += n
	b.most = max(b.most, b.under[s])
}

// one answers an ask.
func (b *bank) one(a lease.Ask) lease.Answer {
	now := gcra.At(b.clock())
	out := lease.Answer{Outcome: lease.Granted}
	var grants []gcra.Grant
	for _, c := range a.Cells {
		acc := b.account(c.Key, c.Policy, now)
		g := c.Policy.Limit.Grant(acc.tat, now, c.Need, c.Want)
		grants = append(grants, g)
		if !g.OK {
			out.Outcome = lease.Denied
		}
		out.Cells = append(out.Cells, lease.CellAnswer{
			OK: g.OK, Tokens: g.Tokens, Lifetime: g.Lifetime, RetryAfter: g.RetryAfter, Remaining: g.Remaining, TAT: g.TAT, Revision: c.Policy.Revision,
		})
	}
	if out.Outcome == lease.Granted {
		for i, c := range a.Cells {
			b.cells[c.Key].tat = grants[i].TAT
			b.granted[c.Key] += grants[i].Tokens
		}
	}
	return out
}

func (b *bank) account(k lease.Key, p *lease.Policy, now gcra.Ticks) *account {
	acc := b.cells[k]
	if acc == nil {
		acc = &account{limit: p.Limit, revision: p.Revision}
		b.cells[k] = acc
	}
	if acc.revision != p.Revision {
		acc.tat, acc.limit, acc.revision = gcra.Convert(acc.limit, p.Limit, acc.tat, now), p.Limit, p.Revision
	}
	return acc
}

func (b *bank) Return(_ context.Context, gives []lease.Give) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, g := range gives {
		if acc := b.cells[g.Key]; acc != nil && acc.tat == g.TAT && acc.revision == g.Policy.Revision {
			acc.tat -= g.Policy.Limit.Cost(g.Tokens)
			b.returned[g.Key] += g.Tokens
		}
	}
	return nil
}

// states returns what all cells have.
func (b *bank) states() map[lease.Key]gcra.Ticks {
	b.mu.Lock()
	defer b.mu.Unlock()
	now, out := gcra.At(b.clock()), make(map[lease.Key]gcra.Ticks)
	for k, acc := range b.cells {
		if acc.tat > now { // one that is full equals none
			out[k] = acc.tat
		}
	}
	return out
}

func (b *bank) set(fn func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fn()
}

func (b *bank) questions() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.asked
}

// world is a table, its bank, and a clock that the test moves.
type world struct {
	testing.TB
	now   time.Time
	bank  *bank
	table *lease.Table
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{TB: t, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	w.bank = newBank(w.clock)
	w.table = w.another()
	return w
}

func (w *world) clock() time.Time      { return w.now }
func (w *world) pass(d time.Duration)  { w.now = w.now.Add(d) }
func (w *world) another() *lease.Table { return w.make(func(*lease.Config) {}) }
func (w *world) make(edit func(*lease.Config)) *lease.Table {
	c := lease.Config{Granter: w.bank, Clock: w.clock, Log: slog.New(slog.DiscardHandler), Patience: -1}
	edit(&c)
	return lease.New(c)
}

func (w *world) take(levels ...lease.Level) lease.Verdict {
	w.Helper()
	return w.table.Take(w.Context(), acme, "token", levels)
}

var (
	acme   = lease.Scope{1}
	globex = lease.Scope{2}
)

func policy(t interface{ Fatal(args ...any) }, name string, tokens int64, period time.Duration, burst int64) *lease.Policy {
	l, err := gcra.New(tokens, period, burst)
	if err != nil {
		t.Fatal(err)
	}
	return &lease.Policy{Name: name, Limit: l, Revision: 1, OnLoss: lease.FailClosed}
}

func level(p *lease.Policy, cost int64, values ...string) lease.Level {
	return lease.Level{Key: lease.KeyOf(acme, p.Name, values...), Policy: p, Cost: cost}
}
