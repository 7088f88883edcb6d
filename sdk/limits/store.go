package limits

import (
	"sync"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// Store holds the limits of all layers. A tenant's limit replaces its plan's, and a
// plan's the platform's, as a whole. It is safe for concurrent use; the zero Store
// is empty and ready.
type Store struct {
	mu       sync.RWMutex
	platform map[string]Policy
	plans    map[planKey]Policy
	tenants  map[key]Policy
}

type planKey struct{ plan, limit string }

// SetPlatform sets the platform's limit; nil removes it.
func (s *Store) SetPlatform(limit string, p *Policy) {
	s.mu.Lock()
	defer s.mu.Unlock()
	set(&s.platform, limit, p, "platform")
}

// SetPlan sets a plan's limit; nil removes it.
func (s *Store) SetPlan(plan, limit string, p *Policy) {
	s.mu.Lock()
	defer s.mu.Unlock()
	set(&s.plans, planKey{plan, limit}, p, "plan")
}

// SetTenant sets a tenant's limit; nil removes it.
func (s *Store) SetTenant(uid tenant.UID, limit string, p *Policy) {
	s.mu.Lock()
	defer s.mu.Unlock()
	set(&s.tenants, key{uid, limit}, p, "tenant")
}

// Reset empties the store.
func (s *Store) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.platform, s.plans, s.tenants = nil, nil, nil
}

// Policy returns the limit that holds.
func (s *Store) Policy(uid tenant.UID, plan, limit string) (Policy, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if p, ok := s.tenants[key{uid, limit}]; ok {
		return p, true
	}
	if p, ok := s.plans[planKey{plan, limit}]; ok {
		return p, true
	}
	p, ok := s.platform[limit]
	return p, ok
}

func set[K comparable](m *map[K]Policy, k K, p *Policy, source string) {
	if p == nil {
		delete(*m, k)
		return
	}
	if *m == nil {
		*m = make(map[K]Policy)
	}
	v := *p
	v.Source = source
	(*m)[k] = v
}
