package limits

import (
	"sync"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// Store holds the limits of all layers. A tenant's limit replaces its plan's, and a
// plan's the platform's, as a whole. It is safe for concurrent use. The zero Store
// does not know yet which limits there are: quota is asked about every call, and
// without quota none may go.
type Store struct {
	mu     sync.RWMutex
	loaded bool
	layers layers
}

type layers struct {
	platform map[string]Policy
	plans    map[planKey]Policy
	tenants  map[key]Policy
}

type planKey struct{ plan, limit string }

// SetPlatform sets the platform's limit; nil removes it.
func (s *Store) SetPlatform(limit string, p *Policy) {
	s.put(edit{layer: platform, limit: limit, policy: p})
}

// SetPlan sets a plan's limit; nil removes it.
func (s *Store) SetPlan(plan, limit string, p *Policy) {
	s.put(edit{layer: plans, plan: plan, limit: limit, policy: p})
}

// SetTenant sets a tenant's limit; nil removes it.
func (s *Store) SetTenant(uid tenant.UID, limit string, p *Policy) {
	s.put(edit{layer: tenants, uid: uid, limit: limit, policy: p})
}

// Policy returns the limit that holds.
func (s *Store) Policy(uid tenant.UID, plan, limit string) (Policy, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if p, ok := s.layers.tenants[key{uid, limit}]; ok {
		return p, true
	}
	if p, ok := s.layers.plans[planKey{plan, limit}]; ok {
		return p, true
	}
	p, ok := s.layers.platform[limit]
	if !s.loaded {
		return Policy{OnLoss: FailClosed}, true
	}
	return p, ok
}

// The layers, as [Policy.Source] and the keys of the feed name them.
const (
	platform = "platform"
	plans    = "plan"
	tenants  = "tenant"
)

// edit is one change of a store.
type edit struct {
	layer  string
	plan   string
	uid    tenant.UID
	limit  string
	policy *Policy // nil removes
}

// put takes edits in, all at once.
func (s *Store) put(edits ...edit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loaded = true
	s.layers.put(edits)
}

// replace makes edits the whole content, with no moment in between.
func (s *Store) replace(edits []edit) {
	var fresh layers
	fresh.put(edits)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loaded, s.layers = true, fresh
}

func (l *layers) put(edits []edit) {
	for _, e := range edits {
		switch e.layer {
		case platform:
			set(&l.platform, e.limit, e)
		case plans:
			set(&l.plans, planKey{e.plan, e.limit}, e)
		case tenants:
			set(&l.tenants, key{e.uid, e.limit}, e)
		}
	}
}

func set[K comparable](m *map[K]Policy, k K, e edit) {
	if e.policy == nil {
		delete(*m, k)
		return
	}
	if *m == nil {
		*m = make(map[K]Policy)
	}
	p := *e.policy
	p.Source = e.layer
	(*m)[k] = p
}
