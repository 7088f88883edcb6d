// Package alloctest holds drivers of package alloc to the same decisions: one suite, and a
// model in memory that they are compared with. Start at [Run].
package alloctest

import (
	"context"
	"sync"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/alloc"
)

// Clock is a store's clock that a test sets.
type Clock struct {
	mu  sync.Mutex
	now gcra.Ticks
}

// NewClock returns a clock that stands at some moment.
func NewClock() *Clock {
	return &Clock{now: gcra.At(time.Date(2026, time.March, 29, 1, 59, 59, 123456000, time.UTC))}
}

// Now returns the time.
func (c *Clock) Now() gcra.Ticks {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Add moves the clock, also back.
func (c *Clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now += gcra.Ticks(d.Microseconds()) * gcra.Of(time.Microsecond)
}

// Model is a driver in memory: what every driver has to do, without a store.
type Model struct {
	clock func() gcra.Ticks

	mu      sync.Mutex
	cells   map[alloc.Ref]alloc.State
	holds   map[alloc.Ref]map[lease.HoldID]held
	holders map[string]bool
}

type held struct {
	holder string
	slots  int64
	end    gcra.Ticks
}

var _ alloc.Driver = (*Model)(nil)

// NewModel returns an empty model by a clock.
func NewModel(clock func() gcra.Ticks) *Model {
	return &Model{
		clock: clock, cells: make(map[alloc.Ref]alloc.State), holds: make(map[alloc.Ref]map[lease.HoldID]held), holders: make(map[string]bool),
	}
}

// Charge implements alloc.Driver.
func (m *Model) Charge(_ context.Context, b alloc.Batch) ([]alloc.Charged, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.clock()
	out := make([]alloc.Charged, len(b.Charges))
	for i, c := range b.Charges {
		states := make([]alloc.State, len(c.Cells))
		for n, cell := range c.Cells {
			states[n] = m.cells[alloc.Ref{Scope: c.Scope, Key: cell.Key}]
		}
		out[i] = c.Decide(states, now)
		for n, got := range out[i].Cells {
			if out[i].OK && got.Rung >= 0 {
				cell := c.Cells[n]
				m.cells[alloc.Ref{Scope: c.Scope, Key: cell.Key}] = alloc.State{
					TAT: got.TAT, Mark: cell.Mark, Revision: max(states[n].Revision, cell.Revision),
				}
			}
		}
	}
	return out, nil
}

// Give implements alloc.Driver.
func (m *Model) Give(_ context.Context, gives []alloc.Give) ([]bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	taken := make([]bool, len(gives))
	for i, g := range gives {
		if s := m.cells[g.Ref]; s.TAT == g.TAT && s.Mark == g.Mark {
			s.TAT -= g.By
			m.cells[g.Ref], taken[i] = s, true
		}
	}
	return taken, nil
}

// Read implements alloc.Driver.
func (m *Model) Read(_ context.Context, refs []alloc.Ref) ([]alloc.State, gcra.Ticks, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	states := make([]alloc.State, len(refs))
	for i, r := range refs {
		states[i] = m.cells[r]
	}
	return states, m.clock(), nil
}

// live returns the holds of a cell that have not ended.
func (m *Model) live(r alloc.Ref, now gcra.Ticks) map[lease.HoldID]held {
	for id, h := range m.holds[r] {
		if h.end <= now {
			delete(m.holds[r], id)
		}
	}
	if m.holds[r] == nil {
		m.holds[r] = make(map[lease.HoldID]held)
	}
	return m.holds[r]
}

// Acquire implements alloc.Driver.
func (m *Model) Acquire(_ context.Context, h alloc.Hold) (alloc.Acquired, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.clock()
	out := alloc.Acquired{OK: true}
	for _, c := range h.Cells {
		live := m.live(alloc.Ref{Scope: h.Scope, Key: c.Key}, now)
		own := live[h.ID]
		out.Taken = out.Taken || own.slots > 0 && own.holder != h.Holder
		got, first := alloc.CellAcquired{}, gcra.Never
		for _, other := range live {
			got.Held += other.slots
			first = min(first, other.end)
		}
		if len(live) > 0 {
			got.Free = (first - now).Duration()
		}
		got.OK = own.slots >= c.Slots && own.holder == h.Holder || got.Held-own.slots+c.Slots <= c.Most
		out.OK = out.OK && (got.OK || c.Optional)
		out.Cells = append(out.Cells, got)
	}
	out.OK = out.OK && !out.Taken
	if !out.OK {
		return out, nil
	}
	for i, c := range h.Cells {
		if out.Cells[i].OK {
			live := m.holds[alloc.Ref{Scope: h.Scope, Key: c.Key}]
			out.Cells[i].Held += c.Slots - live[h.ID].slots
			live[h.ID] = held{h.Holder, c.Slots, now + gcra.Of(h.TTL)}
		}
	}
	return out, nil
}

// Renew implements alloc.Driver.
func (m *Model) Renew(_ context.Context, h alloc.Hold) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.clock()
	for _, c := range h.Cells {
		if own, ok := m.live(alloc.Ref{Scope: h.Scope, Key: c.Key}, now)[h.ID]; (!ok || own.holder != h.Holder) && !c.Optional {
			return false, nil
		}
	}
	return m.own(h, func(live map[lease.HoldID]held, own held) {
		own.end = now + gcra.Of(h.TTL)
		live[h.ID] = own
	}), nil
}

// own calls do for each cell that the holder has the hold of, and reports whether there is one.
func (m *Model) own(h alloc.Hold, do func(map[lease.HoldID]held, held)) (found bool) {
	for _, c := range h.Cells {
		live := m.live(alloc.Ref{Scope: h.Scope, Key: c.Key}, m.clock())
		if own, ok := live[h.ID]; ok && own.holder == h.Holder {
			do(live, own)
			found = true
		}
	}
	return found
}

// Release implements alloc.Driver.
func (m *Model) Release(_ context.Context, h alloc.Hold) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.own(h, func(live map[lease.HoldID]held, _ held) { delete(live, h.ID) }), nil
}

// Held implements alloc.Driver.
func (m *Model) Held(_ context.Context, refs []alloc.Ref) ([]int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]int64, len(refs))
	for i, r := range refs {
		for _, h := range m.live(r, m.clock()) {
			out[i] += h.slots
		}
	}
	return out, nil
}

// Present implements alloc.Driver. Nobody who was noted goes.
func (m *Model) Present(_ context.Context, holders []string, _ time.Duration) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, h := range holders {
		m.holders[h] = true
	}
	return len(m.holders), nil
}

// Collect implements alloc.Driver.
func (m *Model) Collect(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for r, s := range m.cells {
		if s.TAT <= m.clock()-gcra.Of(time.Minute) {
			delete(m.cells, r)
		}
	}
	return nil
}

// Erase implements alloc.Driver.
func (m *Model) Erase(_ context.Context, scope lease.Scope) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for r := range m.cells {
		if r.Scope == scope {
			delete(m.cells, r)
		}
	}
	for r := range m.holds {
		if r.Scope == scope {
			delete(m.holds, r)
		}
	}
	return nil
}
