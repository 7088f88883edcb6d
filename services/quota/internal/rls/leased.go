package rls

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/alloc"
)

// Store is what of an allocator's store is looked at and put back beside leases.
type Store interface {
	// Read returns the state of cells, and the store's time.
	Read(ctx context.Context, refs []alloc.Ref) (states []alloc.State, now gcra.Ticks, err error)
	// Return gives tokens back to cells that are in the state that is given, and reports which were.
	Return(ctx context.Context, gives []lease.Give) (taken []bool, err error)
}

// LeasedConfig makes a [Leased]. All is required.
type LeasedConfig struct {
	// Granter lends tokens.
	Granter lease.Granter
	Store   Store
	Clock   func() time.Time
}

// Leased is an [Engine] that decides from leases of an allocator in the same process.
type Leased struct {
	table  *lease.Table
	store  Store
	clock  func() time.Time
	states states
}

// NewLeased returns an engine without leases. [Leased.Run] gives idle ones back.
func NewLeased(c LeasedConfig) *Leased {
	l := &Leased{store: c.Store, clock: c.Clock}
	l.table = lease.New(lease.Config{Granter: noting{c.Granter, &l.states}, Clock: c.Clock, Wait: decideWithin, Patience: decideWithin})
	return l
}

// decideWithin is how long a decision waits for the database. Envoy waits 20 ms unless it is told otherwise; a lease that
// comes later is kept for the next call.
const decideWithin = 250 * time.Millisecond

// Run gives idle leases back until ctx ends.
func (l *Leased) Run(ctx context.Context) error { return l.table.Run(ctx) }

// fits reports whether the charge could ever be taken.
func (c *Charge) fits() bool {
	return c.Policy.Limit.Tokens() > 0 && c.Cost <= c.Policy.Limit.Burst()
}

// Take implements [Engine].
func (l *Leased) Take(ctx context.Context, charges []Charge) error {
	plain, refused := true, false
	for i := range charges {
		c := &charges[i]
		if c.Cost >= 1 && c.fits() {
			continue
		}
		plain = false
		if err := l.look(ctx, c); err != nil {
			return err
		}
		refused = refused || c.Over && !c.Policy.Shadow
	}
	switch {
	case plain:
		return l.charge(ctx, charges)
	case refused:
		return l.lookAtRest(ctx, charges)
	}
	rest := make([]Charge, 0, len(charges))
	for _, c := range charges {
		if c.Cost >= 1 && c.fits() {
			rest = append(rest, c)
		}
	}
	err := l.charge(ctx, rest)
	for i, j := 0, 0; i < len(charges); i++ {
		if charges[i].Cost >= 1 && charges[i].fits() {
			charges[i] = rest[j]
			j++
		}
	}
	return err
}

// lookAtRest says what is left of those that would have been taken.
func (l *Leased) lookAtRest(ctx context.Context, charges []Charge) error {
	for i := range charges {
		c := &charges[i]
		if c.Cost < 1 || !c.fits() {
			continue
		}
		if err := l.look(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// look says what is left of a cell without taking any of it. Leases that this process holds of it count as spent.
func (l *Leased) look(ctx context.Context, c *Charge) error {
	tat, now, err := l.read(ctx, c)
	if err != nil {
		return err
	}
	limit := c.Policy.Limit
	c.Remaining = limit.Free(tat, now)
	if c.Over = max(c.Cost, 1) > c.Remaining; c.Over {
		need := max(c.Cost, 1)
		c.Wait = limit.Grant(tat, now, need, need).RetryAfter
		return nil
	}
	c.Wait = NextToken(limit, tat, now)
	return nil
}

// read returns a cell's state under the charge's policy.
func (l *Leased) read(ctx context.Context, c *Charge) (tat, now gcra.Ticks, err error) {
	states, now, err := l.store.Read(ctx, []alloc.Ref{{Scope: c.Scope, Key: c.Key}})
	if err != nil {
		return 0, 0, fmt.Errorf("read a cell: %w", err)
	}
	s := states[0]
	if tat = s.TAT; s.Mark != alloc.MarkOf(c.Policy.Limit) && tat > now {
		was, err := gcra.New(s.Mark.Tokens, time.Duration(s.Mark.Period), s.Mark.Burst)
		if err != nil {
			return 0, 0, fmt.Errorf("the state of a cell: %w", err)
		}
		tat = gcra.Convert(was, c.Policy.Limit, tat, now)
	}
	return tat, now, nil
}

// most is how many levels are decided without a list of their own.
const most = lease.MaxLevels

// charge takes all charges or none.
func (l *Leased) charge(ctx context.Context, charges []Charge) error {
	var levelRoom [most]lease.Level
	var saidRoom [most]lease.LevelVerdict
	levels, said := levelRoom[:0], saidRoom[:]
	if len(charges) > most {
		levels, said = make([]lease.Level, 0, len(charges)), make([]lease.LevelVerdict, len(charges))
	}
	for i := range charges {
		c := &charges[i]
		levels = append(levels, lease.Level{Scope: c.Scope, Key: c.Key, Policy: c.Policy, Cost: c.Cost})
	}
	if len(charges) == 0 {
		return nil
	}
	v := l.table.TakeMany(ctx, charges[0].Scope, "", levels, said[:len(levels)])
	if err := failure(v); err != nil {
		return err
	}
	for i := range charges {
		if err := l.conclude(ctx, &charges[i], said[i], v.OK); err != nil {
			return err
		}
	}
	return nil
}

// failure is why nothing could be decided.
func failure(v lease.Verdict) error {
	switch {
	case v.OK:
		return nil
	case v.Unavailable:
		return fault.New(fault.Unavailable, fault.ReasonDependency, "the limits cannot be charged now")
	case v.Reason != "":
		return fault.New(fault.ResourceExhausted, v.Reason, "too many calls wait for the limits")
	}
	return nil
}

// slow reports whether a limit earns less than a token a second.
func slow(l gcra.Limit) bool { return l.Cost(1) > gcra.Of(time.Second) }

// conclude says what became of one charge.
func (l *Leased) conclude(ctx context.Context, c *Charge, said lease.LevelVerdict, all bool) error {
	c.Over, c.Remaining = said.Denied, said.Remaining
	if c.Over {
		c.Wait = said.RetryAfter
		return nil
	}
	each := c.Policy.Limit.Cost(1).Duration()
	if all && !slow(c.Policy.Limit) { // answers are in whole seconds
		c.Wait = each
		return nil
	}
	tat, known := l.states.of(alloc.Ref{Scope: c.Scope, Key: c.Key})
	if known {
		c.Wait = NextToken(c.Policy.Limit, tat, gcra.At(l.clock()))
	} else {
		c.Wait = each
	}
	switch {
	case all:
	case c.Remaining > 0: // it was taken of a lease, and put back
		c.Remaining += c.Cost
	case known:
		c.Remaining = c.Policy.Limit.Free(tat, gcra.At(l.clock()))
	default: // it was not come to
		if err := l.look(ctx, c); err != nil {
			return err
		}
		c.Over = false
	}
	return nil
}

// refundTries is how often a cell is tried that changes meanwhile.
const refundTries = 8

// Refund implements [Engine]. A cell that others charge all the time may keep a part.
func (l *Leased) Refund(ctx context.Context, c *Charge) error {
	amount := min(c.Cost, c.Policy.Limit.Burst())
	for range refundTries {
		tat, now, err := l.read(ctx, c)
		if err != nil {
			return err
		}
		c.Remaining, c.Wait = c.Policy.Limit.Free(tat, now), NextToken(c.Policy.Limit, tat, now)
		if amount < 1 || tat <= now || c.Policy.Limit.Tokens() == 0 {
			return nil
		}
		taken, err := l.store.Return(ctx, []lease.Give{{Scope: c.Scope, Key: c.Key, Policy: c.Policy, Tokens: amount, TAT: tat}})
		if err != nil {
			return fmt.Errorf("give back: %w", err)
		}
		if taken[0] {
			tat -= c.Policy.Limit.Cost(amount)
			c.Remaining, c.Wait = c.Policy.Limit.Free(tat, now), NextToken(c.Policy.Limit, tat, now)
			l.states.note(alloc.Ref{Scope: c.Scope, Key: c.Key}, tat)
			l.table.Relent(c.Key)
			return nil
		}
	}
	return nil
}

// noting is a granter whose answers are noted, and that lends nothing of slow limits in advance: what earns less than a
// token in the life of a lease is asked for one by one, so that answers are exact and nothing lies idle. That costs no
// more than a trip for each token that the limit has.
type noting struct {
	lease.Granter

	states *states
}

// Grant implements lease.Granter.
func (n noting) Grant(ctx context.Context, asks []lease.Ask) ([]lease.Answer, int, error) {
	for i := range asks {
		for j := range asks[i].Cells {
			if q := &asks[i].Cells[j]; slow(q.Policy.Limit) {
				q.Want = q.Need
			}
		}
	}
	answers, holders, err := n.Granter.Grant(ctx, asks)
	for i, a := range answers {
		for j, cell := range a.Cells {
			if cell.TAT != 0 {
				n.states.note(alloc.Ref{Scope: asks[i].Scope, Key: asks[i].Cells[j].Key}, cell.TAT)
			}
		}
	}
	return answers, holders, err
}

// maxStates bounds how many states are remembered.
const maxStates = 1 << 16

// states are what the last grants left of cells: what answers say of the next token. They decide nothing, so all are
// forgotten when there are too many.
type states struct {
	mu sync.RWMutex
	at map[alloc.Ref]gcra.Ticks
}

func (s *states) note(ref alloc.Ref, tat gcra.Ticks) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at == nil || len(s.at) >= maxStates {
		s.at = map[alloc.Ref]gcra.Ticks{}
	}
	s.at[ref] = tat
}

func (s *states) of(ref alloc.Ref) (gcra.Ticks, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	tat, ok := s.at[ref]
	return tat, ok
}
