package tenantdb

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// slotsModel runs slots beside what they promise: never more than there are, never more than
// a share for one tenant, in the order of the calls within a tenant, to those who hold the
// least, and never idle while somebody waits who may have one.
type slotsModel struct {
	s     *slots
	n     int
	held  map[tenant.UID]int
	calls map[tenant.UID][]chan struct{} // that wait, in their order
	came  map[tenant.UID]int             // when the first of a tenant's calls began to wait, or its last turn was
	clock int
}

func newSlotsModel(n int) *slotsModel {
	return &slotsModel{
		s: newSlots(n), n: n,
		held: map[tenant.UID]int{}, calls: map[tenant.UID][]chan struct{}{}, came: map[tenant.UID]int{},
	}
}

func (m *slotsModel) tick() int {
	m.clock++
	return m.clock
}

func (m *slotsModel) free() int {
	free := m.n
	for _, held := range m.held {
		free -= held
	}
	return free
}

// next returns whose turn it is, if anybody's.
func (m *slotsModel) next() (who tenant.UID, ok bool) {
	for uid, calls := range m.calls {
		if len(calls) == 0 || m.held[uid] >= m.s.share {
			continue
		}
		if !ok || m.held[uid] < m.held[who] || m.held[uid] == m.held[who] && m.came[uid] < m.came[who] {
			who, ok = uid, true
		}
	}
	return who, ok
}

// settle gives what is free in the model, and expects that slots gave the same.
func (m *slotsModel) settle(t *rapid.T) {
	for m.free() > 0 {
		uid, ok := m.next()
		if !ok {
			break
		}
		if !granted(m.calls[uid][0]) {
			t.Fatalf("a slot is free and tenant %d's first call waits", uid[0])
		}
		m.calls[uid] = m.calls[uid][1:]
		m.held[uid]++
		m.came[uid] = m.tick()
	}
	for uid, calls := range m.calls {
		if slices.ContainsFunc(calls, granted) {
			t.Fatalf("tenant %d got a slot out of turn", uid[0])
		}
	}
}

func granted(call chan struct{}) bool {
	select {
	case <-call:
		return true
	default:
		return false
	}
}

func (m *slotsModel) ask(t *rapid.T, uid tenant.UID) {
	_, waits := m.next()
	now := m.free() > 0 && m.held[uid] < m.s.share
	if now && waits {
		t.Fatal("a slot is free for a call that waits")
	}
	call, full := m.s.ask(uid)
	switch {
	case full != (!now && len(m.calls[uid]) == queueMost):
		t.Fatalf("%d calls wait; refused %t", len(m.calls[uid]), full)
	case full:
	case now != (call == nil):
		t.Fatalf("%d free, %d held: waits %t", m.free(), m.held[uid], call != nil)
	case now:
		m.held[uid]++
	default:
		if len(m.calls[uid]) == 0 {
			m.came[uid] = m.tick()
		}
		m.calls[uid] = append(m.calls[uid], call)
	}
	m.settle(t)
}

func (m *slotsModel) give(t *rapid.T, uid tenant.UID) {
	m.held[uid]--
	m.s.give(uid)
	m.settle(t)
}

// leave ends the wait of a call, as its deadline does.
func (m *slotsModel) leave(t *rapid.T, uid tenant.UID, i int) {
	call := m.calls[uid][i]
	m.calls[uid] = slices.Delete(slices.Clone(m.calls[uid]), i, i+1)
	m.s.leave(uid, call, true)
	m.settle(t)
}

func (m *slotsModel) check(t *rapid.T) {
	total, waiting := 0, 0
	for uid, c := range m.s.claims {
		if c.held != m.held[uid] || len(c.calls) != len(m.calls[uid]) {
			t.Fatalf("tenant %d holds %d and waits with %d, want %d and %d", uid[0], c.held, len(c.calls), m.held[uid], len(m.calls[uid]))
		}
		if c.held > m.s.share || c.held == 0 && len(c.calls) == 0 {
			t.Fatalf("tenant %d: %+v", uid[0], c)
		}
		total += c.held
		waiting += min(1, len(c.calls))
	}
	if total+m.s.free != m.n || m.s.free < 0 || waiting != len(m.s.waiting) {
		t.Fatalf("%d held, %d free of %d; %d tenants wait, %d are listed", total, m.s.free, m.n, waiting, len(m.s.waiting))
	}
}

func TestSlotsModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := newSlotsModel(rapid.IntRange(1, 9).Draw(t, "slots"))
		tenants := rapid.IntRange(1, 6).Draw(t, "tenants")
		one := func(t *rapid.T, may func(tenant.UID) bool) (tenant.UID, bool) {
			var those []tenant.UID
			for i := range tenants {
				if uid := (tenant.UID{byte(i + 1)}); may(uid) {
					those = append(those, uid)
				}
			}
			if len(those) == 0 {
				return tenant.UID{}, false
			}
			return rapid.SampledFrom(those).Draw(t, "tenant"), true
		}
		t.Repeat(map[string]func(*rapid.T){
			"": m.check,
			"ask": func(t *rapid.T) {
				uid, _ := one(t, func(tenant.UID) bool { return true })
				for range rapid.SampledFrom([]int{1, 1, 1, 3, queueMost + 2}).Draw(t, "calls") {
					m.ask(t, uid)
				}
			},
			"give": func(t *rapid.T) {
				uid, ok := one(t, func(uid tenant.UID) bool { return m.held[uid] > 0 })
				if !ok {
					t.Skip("nobody holds one")
				}
				m.give(t, uid)
			},
			"leave": func(t *rapid.T) {
				uid, ok := one(t, func(uid tenant.UID) bool { return len(m.calls[uid]) > 0 })
				if !ok {
					t.Skip("nobody waits")
				}
				m.leave(t, uid, rapid.IntRange(0, len(m.calls[uid])-1).Draw(t, "call"))
			},
		})
	})
}
