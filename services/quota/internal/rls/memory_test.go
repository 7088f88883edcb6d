package rls_test

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/rls"
)

// memory is an engine without leases, on a clock that tests move.
type memory struct {
	mu    sync.Mutex
	now   time.Time
	cells map[ref]state
	asked int
	fail  error
}

type ref struct {
	scope lease.Scope
	key   lease.Key
}

type state struct {
	tat   gcra.Ticks
	limit gcra.Limit
}

func newMemory() *memory {
	return &memory{now: time.Date(2026, time.November, 22, 12, 0, 0, 0, time.UTC), cells: map[ref]state{}}
}

func (m *memory) pass(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = m.now.Add(d)
}

func (m *memory) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.cells)
}

func (m *memory) of(c *rls.Charge, now gcra.Ticks) state {
	limit := c.Policy.Limit
	s, ok := m.cells[ref{c.Scope, c.Key}]
	if !ok || s.limit == limit {
		return state{s.tat, limit}
	}
	return state{gcra.Convert(s.limit, limit, s.tat, now), limit}
}

// Take implements rls.Engine.
func (m *memory) Take(_ context.Context, charges []rls.Charge) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked++
	if m.fail != nil {
		return m.fail
	}
	now, refused := gcra.At(m.now), false
	for i := range charges {
		c := &charges[i]
		for j := range i {
			if charges[j].Scope == c.Scope && charges[j].Key == c.Key {
				return errors.New("a cell is there twice")
			}
		}
		s := m.of(c, now)
		free := s.limit.Free(s.tat, now)
		c.Over = max(c.Cost, 1) > free
		refused = refused || c.Over && !c.Policy.Shadow
	}
	for i := range charges {
		c := &charges[i]
		s := m.of(c, now)
		if !refused && !c.Over {
			s.tat = max(s.tat, now) + s.limit.Cost(c.Cost)
			if c.Cost > 0 {
				m.cells[ref{c.Scope, c.Key}] = s
			}
		}
		c.Remaining = s.limit.Free(s.tat, now)
		if c.Over {
			c.Wait = s.limit.Grant(s.tat, now, max(c.Cost, 1), max(c.Cost, 1)).RetryAfter
		} else {
			c.Wait = rls.NextToken(s.limit, s.tat, now)
		}
	}
	return nil
}

// Refund implements rls.Engine.
func (m *memory) Refund(_ context.Context, c *rls.Charge) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := gcra.At(m.now)
	s := m.of(c, now)
	if c.Cost > 0 {
		s.tat = max(s.tat-s.limit.Cost(min(c.Cost, s.limit.Burst())), 0)
		m.cells[ref{c.Scope, c.Key}] = s
	}
	c.Remaining, c.Wait = s.limit.Free(s.tat, now), rls.NextToken(s.limit, s.tat, now)
	return nil
}
