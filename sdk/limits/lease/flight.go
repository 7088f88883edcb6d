package lease

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

const (
	// maxWaiters is how many calls of one scope wait for an ask.
	maxWaiters = 1000
	// maxBatch is how many asks go together.
	maxBatch = 256
	// maxShare is the part of the burst that one process borrows at a time.
	maxShare = 4
	// maxGrowth is how much larger than the last lease the next one is at most.
	maxGrowth = 8
)

// flights are the asks under way, by scope.
type flights struct {
	mu sync.Mutex
	of map[Scope]*flight
}

// flight is the one ask of a scope that is under way, and who waits for the next.
type flight struct {
	users int // under the lock of flights

	mu      sync.Mutex
	asking  bool
	waiting []*waiter
	// lost is until when nothing of this scope is asked.
	lost int64
}

// result is what became of a waiter.
type result uint8

const (
	again    result = iota // the answer to somebody else may help
	answered               // answer and holds are set
	refused                // the allocator does not serve the scope
	lost                   // nobody could be asked in time
	busy                   // too many wait
)

// waiter is one call's ask.
type waiter struct {
	ask   Ask
	ready chan struct{}

	// Under the flight's lock.
	lead, gone, done bool
	// The leader's until ready is closed, then the waiter's.
	result result
	answer Answer
	// holds are what was taken of leases for this call, by cell; without a cell the grant
	// is exact.
	holds [MaxLevels]hold
}

func (t *Table) flightOf(s Scope) *flight {
	all := &t.flights[s[len(s)-1]]
	all.mu.Lock()
	defer all.mu.Unlock()
	f := all.of[s]
	if f == nil {
		if all.of == nil {
			all.of = make(map[Scope]*flight)
		}
		f = new(flight)
		all.of[s] = f
	}
	f.users++
	return f
}

// leave forgets a flight that nobody needs.
func (t *Table) leave(s Scope, f *flight) {
	now := t.moment()
	all := &t.flights[s[len(s)-1]]
	all.mu.Lock()
	defer all.mu.Unlock()
	if f.users--; f.users == 0 && now >= f.lost {
		delete(all.of, s)
	}
}

// enter asks the allocator, or waits for the ask that is under way, and returns how
// that ended.
func (t *Table) enter(ctx context.Context, w *waiter) result {
	f := t.flightOf(w.ask.Scope)
	defer t.leave(w.ask.Scope, f)
	now := t.moment()
	f.mu.Lock()
	switch {
	case now < f.lost || now < t.lost.Load():
		f.mu.Unlock()
		return lost
	case f.asking && len(f.waiting) >= maxWaiters:
		f.mu.Unlock()
		return busy
	case f.asking:
		f.waiting = append(f.waiting, w)
		f.mu.Unlock()
		if lead, came := f.await(ctx, w); !came {
			return lost
		} else if !lead {
			return w.result
		}
		f.mu.Lock()
	}
	f.asking = true
	n := min(len(f.waiting), maxBatch-1)
	batch := append(make([]*waiter, 0, n+1), w)
	batch = append(batch, f.waiting[:n]...)
	f.waiting = slices.Delete(f.waiting, 0, n)
	f.mu.Unlock()
	t.lead(ctx, f, batch)
	return w.result
}

// await waits for the answer to others. lead says that it is w's turn to ask; came is
// false when ctx ended before.
func (f *flight) await(ctx context.Context, w *waiter) (lead, came bool) {
	select {
	case <-w.ready:
		return w.lead, true
	case <-ctx.Done():
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if w.done {
		return w.lead, true
	}
	w.gone = true
	if i := slices.Index(f.waiting, w); i >= 0 {
		f.waiting = slices.Delete(f.waiting, i, i+1)
	}
	return false, false
}

// lead asks for a batch of waiters, the leader first, hands out the answers, and makes
// one of those who came meanwhile the next leader.
func (t *Table) lead(ctx context.Context, f *flight, batch []*waiter) {
	sent := t.moment() // a lease begins before the allocator charges it
	asks, owners := t.compose(batch, sent)
	answers, err := t.put(ctx, f, asks)
	for _, w := range batch {
		if w.result = again; err != nil {
			w.result = lost
		}
	}
	for i, w := range owners {
		if err == nil {
			t.keep(w, &asks[i], sent, answers[i])
		}
	}
	if slices.ContainsFunc(batch, func(w *waiter) bool { return w.result == lost }) {
		f.lose(t.moment() + int64(retryLost))
	}
	f.mu.Lock()
	var left []*waiter
	for _, w := range batch {
		switch {
		case w == batch[0]: // it is here
		case w.gone:
			left = append(left, w)
		default:
			close(w.ready)
		}
		w.done = true
	}
	if f.asking = len(f.waiting) > 0; f.asking {
		next := f.waiting[0]
		f.waiting = slices.Delete(f.waiting, 0, 1)
		next.lead, next.done = true, true
		close(next.ready)
	}
	f.mu.Unlock()
	t.unclaimed(ctx, left)
}

func (f *flight) lose(until int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lost = until
}

// unclaimed gives back what was granted to calls that are gone.
func (t *Table) unclaimed(ctx context.Context, left []*waiter) {
	var gives []Give
	for _, w := range left {
		for j := range w.answer.Cells {
			a, q := &w.answer.Cells[j], &w.ask.Cells[j]
			switch {
			case w.result != answered || w.answer.Outcome != Granted:
			case w.holds[j].cell != nil:
				w.holds[j].undo()
			case a.TAT != 0:
				gives = append(gives, Give{Scope: w.ask.Scope, Token: w.ask.Token, Key: q.Key, Policy: q.Policy, Tokens: q.Need, TAT: a.TAT})
			}
		}
	}
	t.giveBack(ctx, gives)
}

// compose makes the asks of a batch. Of calls that need the same cells only the first
// asks, for all, as long as leases are to be had. Near the limit each asks for itself,
// but no more than there was something left for: the others look at the answer first.
func (t *Table) compose(batch []*waiter, now int64) (asks []Ask, owners []*waiter) {
	first := make(map[Key]int, len(batch)) // ask by its first cell
	wanted := make(map[Key]bool, len(batch))
	room := make(map[int]int64, len(batch)) // how many more may ask for themselves, by ask
	for _, w := range batch {
		i, ok := first[w.ask.Cells[0].Key]
		if ok && sameCells(asks[i].Cells, w.ask.Cells) {
			if room[i] < 1 {
				asks[i].add(w.ask.Cells)
				continue
			}
			room[i]--
		}
		a := Ask{Scope: w.ask.Scope, Token: w.ask.Token, Cells: slices.Clone(w.ask.Cells)}
		left, near := int64(MaxCost), false
		for j := range a.Cells {
			q := &a.Cells[j]
			want, remaining, exactly := t.want(q, now)
			if near, left = near || exactly, min(left, remaining/q.Need); !wanted[q.Key] {
				q.Want, wanted[q.Key] = want, true
			}
		}
		if !ok {
			first[a.Cells[0].Key] = len(asks)
			if near {
				room[len(asks)] = left - 1
			}
		}
		asks, owners = append(asks, a), append(owners, w)
	}
	return asks, owners
}

// add wants more, for others who need the same; where no lease is to be had it does not.
func (a *Ask) add(cells []CellAsk) {
	for j := range cells {
		if q := &a.Cells[j]; q.Want > q.Need {
			q.Want = min(q.Want+cells[j].Need, max(q.Need, q.Policy.Limit.Burst()/maxShare))
		}
	}
}

func sameCells(a, b []CellAsk) bool {
	return slices.EqualFunc(a, b, func(x, y CellAsk) bool { return x.Key == y.Key && x.Policy == y.Policy })
}

// want sizes the next lease after the demand, but no more than a quarter of the burst,
// so that others find something too. exactly says that no lease is to be expected, and
// remaining what there was last.
func (t *Table) want(q *CellAsk, now int64) (want, remaining int64, exactly bool) {
	c, number, s := t.cellOf(q.Key, now)
	defer s.mu.Unlock()
	if c == nil {
		return q.Need, 0, true
	}
	s.follow(c, number, q.Policy)
	want = max(q.Need, min(c.demand(q, now), q.Policy.Limit.Burst()/maxShare))
	return want, c.remaining(), c.exact() || want == q.Need
}

// demand is what was spent of the last lease, for the life of the next one; the shard
// is locked.
func (c *cell) demand(q *CellAsk, now int64) int64 {
	life, size, w := int64(q.Policy.Limit.Lifetime()), c.size().amount(), c.word.Load()
	if life == 0 {
		return q.Need
	}
	if w&deniedBit != 0 || size == 0 {
		return q.Need // most keys come once
	}
	spent := max(size-int64(w&amountMask), 0)
	elapsed := max(now-(c.until.Load()-life), life/(4*maxGrowth))
	next := int64(float64(spent) * float64(life) / float64(elapsed) * 1.25)
	return min(next+1, size*maxGrowth)
}

// put asks the allocator. Whoever it is asked for may go away meanwhile.
func (t *Table) put(ctx context.Context, f *flight, asks []Ask) ([]Answer, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.wait)
	defer cancel()
	t.asked.Add(1)
	answers, holders, err := t.granter.Grant(ctx, asks)
	if err == nil {
		err = fits(asks, answers)
	}
	if err == nil {
		t.holders.Store(int64(max(holders, 1)))
		return answers, nil
	}
	now := t.moment()
	until := now + int64(retryLost)
	f.lose(until)
	// An allocator that is slow, or refuses the question, may do so about this scope alone.
	if ctx.Err() == nil && t.everybody(err) {
		t.lost.Store(until)
	}
	if t.told.Swap(until) <= now {
		t.log.WarnContext(ctx, "quota cannot be asked; limits are held by their own policies", "error", err)
	}
	return nil, err
}

// fits checks that answers are of the shape of the asks.
func fits(asks []Ask, answers []Answer) error {
	if len(answers) != len(asks) {
		return fmt.Errorf("%d answers to %d asks", len(answers), len(asks))
	}
	for i, a := range answers {
		if n := len(asks[i].Cells); (a.Outcome == Granted || a.Outcome == Denied) && len(a.Cells) != n {
			return fmt.Errorf("an answer of %d cells to an ask of %d", len(a.Cells), n)
		}
		for j := range a.Cells {
			if c := &a.Cells[j]; a.Outcome == Granted && c.OK && !c.Unlimited && c.Tokens < asks[i].Cells[j].Need {
				return fmt.Errorf("%d tokens granted of %d needed", c.Tokens, asks[i].Cells[j].Need)
			}
		}
	}
	return nil
}

// keep remembers what an answer says about later calls, and takes what the waiter needs.
func (t *Table) keep(w *waiter, q *Ask, sent int64, a Answer) {
	w.answer = a
	switch {
	case a.Outcome != Refused:
		w.result = answered
	case a.Reason == fault.ReasonTenantSuspended || a.Reason == fault.ReasonTenantDeleted || a.Reason == fault.ReasonLimiterBusy:
		w.result = refused
		return
	default: // the allocator may not know a new tenant yet
		w.result = lost
		return
	}
	if a.Outcome == Unlimited {
		return
	}
	for j := range a.Cells {
		c := &a.Cells[j]
		switch {
		case c.Unlimited:
		case !c.OK:
			t.denied(&q.Cells[j], c)
		case a.Outcome == Granted:
			w.holds[j] = t.granted(q, j, sent, c)
		}
	}
}

// mine reports whether a cell still follows the policy by which an answer was given.
func (c *cell) mine(asked *Policy, revision int64) bool {
	p := c.policy.Load()
	return p == asked || p != nil && p.Revision == revision
}

// granted keeps a lease. What this call needs of it is taken already: the hold.
func (t *Table) granted(q *Ask, j int, sent int64, a *CellAnswer) hold {
	ask, now := &q.Cells[j], t.moment()
	c, number, s := t.cellOf(ask.Key, now)
	defer s.mu.Unlock()
	if c == nil {
		return hold{}
	}
	if c.policy.Load() == nil {
		s.follow(c, number, ask.Policy)
	}
	if !c.mine(ask.Policy, a.Revision) {
		return hold{} // the limit has changed meanwhile: the answer is for this call alone
	}
	if a.Lifetime <= 0 {
		if c.leased(now) == 0 {
			c.mark(a.Remaining, ask.Need, sent+int64(ask.Policy.Limit.Lifetime()))
		}
		return hold{}
	}
	until := sent + int64(a.Lifetime-a.Lifetime/keepShare)
	rest := a.Tokens - ask.Need
	fresh := rest
	if left := c.leased(now); left > 0 && c.until.Load()-now >= int64(a.Lifetime/2) {
		rest, until = left+rest, min(until, c.until.Load())
	}
	gen := c.lend(rest, a.Remaining, rest+ask.Need, until)
	if a.Revision != c.policy.Load().Revision {
		if s.ahead == nil {
			s.ahead = make(map[uint32]int64)
		}
		s.ahead[number] = a.Revision
	}
	if a.TAT != 0 && fresh > 0 {
		t.idle.note(lent{
			cell: c, gen: gen, until: until,
			give: Give{Scope: q.Scope, Token: q.Token, Key: ask.Key, Policy: ask.Policy, Tokens: fresh, TAT: a.TAT},
		})
	}
	return hold{c, gen, uint64(ask.Need), rest + a.Remaining} //nolint:gosec // positive
}

// denied has the denial repeated until it is worth asking again.
func (t *Table) denied(ask *CellAsk, a *CellAnswer) {
	now := t.moment()
	c, number, s := t.cellOf(ask.Key, now)
	defer s.mu.Unlock()
	if c == nil {
		return
	}
	if c.policy.Load() == nil {
		s.follow(c, number, ask.Policy)
	}
	if !c.mine(ask.Policy, a.Revision) || c.leased(now) > 0 { // what a lease still has, cheaper calls may take
		return
	}
	until, retry := now+int64(maxDenial), int64(0)
	if a.RetryAfter > 0 {
		until = now + int64(min(a.RetryAfter, maxDenial))
		retry = (now + int64(a.RetryAfter) + int64(time.Millisecond) - 1) / int64(time.Millisecond)
	}
	c.deny(ask.Need, a.Remaining, until, retry)
}
