package lease

import (
	"context"
	"slices"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
)

// caller is whom a call is for.
type caller struct {
	scope Scope
	token string
}

// call is one decision that leases alone could not make. A refused one leaves every
// level as it was.
type call struct {
	caller

	table  *Table
	levels []Level
	taken  [MaxLevels]taken
}

// state is how far one level has come.
type state uint8

const (
	open  state = iota // not decided
	held               // taken of a lease
	exact              // granted for this call alone
	none               // nothing to take: no limit, or a shadow that would refuse
)

type taken struct {
	state state
	hold  hold
	tat   gcra.Ticks // that an exact grant left
}

// slow decides with whatever it takes: a denial that is known, an ask, or the policies
// of loss. It returns how long the call has to wait for its turn.
func (t *Table) slow(ctx context.Context, who caller, levels []Level, v *Verdict) (wait time.Duration) {
	c := call{caller: who, table: t, levels: slices.Clone(levels)} // the caller's may stay on its stack
	return c.decide(ctx, v)
}

// decide is [Table.slow] for a call that is kept, to be released when another one refuses.
func (c *call) decide(ctx context.Context, v *Verdict) (wait time.Duration) {
	t, asking := c.table, ctx
	var cancel context.CancelFunc
	for {
		if c.examine(t.moment(), v) {
			c.release(ctx)
			return 0
		}
		chosen, n := c.next()
		if n == 0 {
			v.OK = true
			return 0
		}
		if cancel == nil {
			asking, cancel = context.WithTimeout(ctx, t.wait) //nolint:fatcontext // once at most
			defer cancel()
		}
		w := c.question(chosen[:n])
		switch t.enter(asking, w) {
		case again:
		case answered:
			if !c.settle(chosen[:n], w, v) {
				c.release(ctx)
				return 0
			}
		case busy:
			v.Reason, v.RetryAfter = fault.ReasonLimiterBusy, time.Second
			c.release(ctx)
			return 0
		case refused:
			v.Reason = w.answer.Reason
			c.release(ctx)
			return 0
		case lost:
			if wait = t.decideAlone(c, v); !v.OK {
				c.release(ctx)
			}
			return wait
		}
	}
}

// examine takes what leases have and notes what is denied already. It reports whether
// the call is refused by that.
func (c *call) examine(now int64, v *Verdict) (refused bool) {
	for i := range c.levels {
		l := &c.levels[i]
		if c.taken[i].state != open {
			continue
		}
		cell, number, s := c.table.cellOf(l.Key, now)
		if cell == nil {
			s.mu.Unlock()
			continue
		}
		s.follow(cell, number, l.Policy)
		retry, denied := cell.denied(l.Cost, now)
		remaining := cell.remaining()
		s.mu.Unlock()
		if denied {
			refused = c.refuse(i, v, remaining, retry) || refused
			continue
		}
		lo, hi := split(l.Key)
		if h, ok := cell.take(l, lo, hi, now); ok {
			c.taken[i] = taken{state: held, hold: h}
			v.Levels[i].Remaining = h.left
		}
	}
	return refused
}

// refuse notes that a level denies. It reports whether that refuses the call.
func (c *call) refuse(i int, v *Verdict, remaining int64, retry time.Duration) bool {
	l := &v.Levels[i]
	l.Denied, l.Remaining, l.RetryAfter = true, remaining, retry
	if c.levels[i].Policy.Shadow {
		c.taken[i].state = none
		return false
	}
	first := true // of the levels that refuse
	for j := range c.levels {
		first = first && (j == i || !v.Levels[j].Denied || c.levels[j].Policy.Shadow)
	}
	switch {
	case first:
		v.RetryAfter = retry
	case retry == 0 || v.RetryAfter == 0:
		v.RetryAfter = 0 // one of them never lets it go
	default:
		v.RetryAfter = max(v.RetryAfter, retry)
	}
	return true
}

// scopeOf returns whose cell a level is.
func (c *call) scopeOf(i int) Scope {
	if s := c.levels[i].Scope; s != (Scope{}) {
		return s
	}
	return c.scope
}

// next chooses the levels to ask about: all open ones of one scope, the caller's first.
// Shadows come last and by themselves, so that they refuse nothing of others.
func (c *call) next() (chosen [MaxLevels]int, n int) {
	first := -1
	for i := range c.levels {
		if c.taken[i].state == open && !c.levels[i].Policy.Shadow && (first < 0 || c.scopeOf(i) == c.scope && c.scopeOf(first) != c.scope) {
			first = i
		}
	}
	for i := range c.levels {
		switch {
		case c.taken[i].state != open:
		case first < 0: // only shadows are left
			chosen[0] = i
			return chosen, 1
		case !c.levels[i].Policy.Shadow && c.scopeOf(i) == c.scopeOf(first):
			chosen[n] = i
			n++
		}
	}
	return chosen, n
}

// question makes the ask about some levels.
func (c *call) question(chosen []int) *waiter {
	w := &waiter{ask: Ask{Scope: c.scopeOf(chosen[0]), Token: c.token, Cells: make([]CellAsk, 0, len(chosen))}, ready: make(chan struct{})}
	for _, i := range chosen {
		l := &c.levels[i]
		w.ask.Cells = append(w.ask.Cells, CellAsk{Key: l.Key, Policy: l.Policy, Need: l.Cost, Want: l.Cost})
	}
	return w
}

// settle takes an answer in. It is false when that refuses the call.
func (c *call) settle(chosen []int, w *waiter, v *Verdict) (ok bool) {
	ok = true
	for j, i := range chosen {
		l, to := &v.Levels[i], &c.taken[i]
		if w.answer.Outcome == Unlimited {
			to.state, l.Unlimited = none, true
			continue
		}
		a := w.answer.Cells[j]
		switch {
		case a.Unlimited:
			to.state, l.Unlimited = none, true
		case !a.OK && w.answer.Outcome == Granted: // a shadow by now
			to.state, l.Denied, l.Remaining, l.RetryAfter = none, true, a.Remaining, a.RetryAfter
		case !a.OK:
			ok = !c.refuse(i, v, a.Remaining, a.RetryAfter) && ok
		case w.answer.Outcome == Denied:
		case w.holds[j].cell != nil:
			to.state, to.hold, l.Remaining = held, w.holds[j], w.holds[j].left
		default:
			to.state, to.tat, l.Remaining = exact, a.TAT, a.Remaining
		}
	}
	return ok
}

// release gives back what a refused call took.
func (c *call) release(ctx context.Context) {
	var gives []Give
	for i := range c.levels {
		l, from := &c.levels[i], &c.taken[i]
		switch {
		case from.state == held:
			from.hold.undo()
		case from.state == exact && from.tat != 0:
			gives = append(gives, Give{Scope: c.scopeOf(i), Token: c.token, Key: l.Key, Policy: l.Policy, Tokens: l.Cost, TAT: from.tat})
		}
		from.state = open
	}
	c.table.giveBack(ctx, gives)
}

// giveBack gives grants back; that it fails costs tokens, which are earned again.
func (t *Table) giveBack(ctx context.Context, gives []Give) {
	if len(gives) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.wait)
	defer cancel()
	if err := t.granter.Return(ctx, gives); err != nil {
		t.log.DebugContext(ctx, "leases were not given back", "error", err)
	}
}
