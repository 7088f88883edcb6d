package limits

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// Store holds the limits of all layers. A tenant's limit replaces its plan's of the same
// id, and a plan's the platform's, as a whole. It is safe for concurrent use; reading
// takes no lock. The zero Store does not know yet which limits there are: quota is asked
// about every call, and without quota none may go.
type Store struct {
	mu   sync.Mutex // writers'
	root atomic.Pointer[root]
}

// root is all that is known at a moment. It never changes.
type root struct {
	platform map[string]*Policy
	plans    map[string]map[string]*Policy
	tenants  [tenantShards]map[tenant.UID]*own
	// sets are what holds for tenants that set nothing, by plan; common is that of plans
	// that set nothing.
	sets   map[string]*set
	common *set
}

const tenantShards = 256

// own is what one tenant sets.
type own struct {
	limits map[string]*Policy
	// last is the set that was made for it last.
	last atomic.Pointer[ownSet]
}

type ownSet struct {
	root *root
	plan string
	set  *set
}

// set is what holds for a tenant, by resource, at most [lease.MaxLevels] each.
type set struct {
	of map[string][]rule
	// until is when the first of its limits ends by itself, 0 for never; in Unix ns.
	until int64
}

// rule is a policy that holds and whose cells it charges; the zero scope is the tenant's.
type rule struct {
	*Policy

	scope lease.Scope
}

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

// Policy returns the limit of an id that holds at a moment.
func (s *Store) Policy(uid tenant.UID, plan, limit string, now time.Time) (Policy, bool) {
	r := s.root.Load()
	if r == nil {
		return Policy{ID: limit, Resource: limit, OnLoss: FailClosed}, true
	}
	if o := r.tenants[shardOf(uid)][uid]; o != nil {
		if p := o.limits[limit]; p.holds(now) {
			return *p, true
		}
	}
	if p := r.plans[plan][limit]; p.holds(now) {
		return *p, true
	}
	if p := r.platform[limit]; p.holds(now) {
		return *p, true
	}
	return Policy{}, false
}

func (p *Policy) holds(now time.Time) bool {
	return p != nil && (p.ExpireTime.IsZero() || now.Before(p.ExpireTime))
}

func shardOf(uid tenant.UID) byte { return uid[len(uid)-1] }

// holding returns the rules of a resource that hold for a tenant on a plan.
func (s *Store) holding(uid tenant.UID, plan, resource string, clock func() time.Time) []rule {
	r := s.root.Load()
	if r == nil {
		p := &Policy{OnLoss: FailClosed} // quota knows, and only quota
		p.finish(resource, "")
		return []rule{{Policy: p}}
	}
	found := r.setOf(uid, plan)
	if found == nil || found.until != 0 && clock().UnixNano() >= found.until {
		found = s.renew(uid, plan, clock())
	}
	return found.of[resource]
}

// setOf returns what holds for a tenant, nil when that has to be made.
func (r *root) setOf(uid tenant.UID, plan string) *set {
	if o := r.tenants[shardOf(uid)][uid]; o != nil {
		if last := o.last.Load(); last != nil && last.root == r && last.plan == plan {
			return last.set
		}
		return nil
	}
	if found := r.sets[plan]; found != nil {
		return found
	}
	return r.common
}

// renew makes the set of a tenant, and those of plans when one of their limits has ended.
func (s *Store) renew(uid tenant.UID, plan string, now time.Time) *set {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.root.Load()
	if found := r.setOf(uid, plan); found != nil && found.until != 0 && now.UnixNano() >= found.until {
		r = r.clone()
		r.settle(now)
		s.root.Store(r)
	}
	o := r.tenants[shardOf(uid)][uid]
	if o == nil {
		found := r.setOf(uid, plan)
		if found == nil { // the first of its plan
			found = r.gather(nil, plan, now)
			r = r.clone()
			r.sets = maps.Clone(r.sets)
			r.sets[plan] = found
			s.root.Store(r)
		}
		return found
	}
	found := r.gather(o.limits, plan, now)
	o.last.Store(&ownSet{r, plan, found})
	return found
}

// settle makes the sets of plans.
func (r *root) settle(now time.Time) {
	r.common, r.sets = r.gather(nil, "", now), make(map[string]*set, len(r.plans))
	for plan := range r.plans {
		r.sets[plan] = r.gather(nil, plan, now)
	}
	for _, p := range r.platform {
		if p.Scope == ScopePlan {
			r.common = nil // every plan has its own cell: sets are made one by one
		}
	}
}

// gather finds what holds for somebody who sets limits of their own, on a plan.
func (r *root) gather(theirs map[string]*Policy, plan string, now time.Time) *set {
	out := &set{of: make(map[string][]rule)}
	seen := make(map[string]bool)
	for _, layer := range []map[string]*Policy{theirs, r.plans[plan], r.platform} {
		for id, p := range layer {
			if seen[id] || !p.holds(now) {
				continue
			}
			seen[id] = true
			if end := p.ExpireTime.UnixNano(); !p.ExpireTime.IsZero() && (out.until == 0 || end < out.until) {
				out.until = end
			}
			out.of[p.Resource] = append(out.of[p.Resource], rule{p, p.scopeFor(plan)})
		}
	}
	for resource, rules := range out.of {
		slices.SortFunc(rules, func(a, b rule) int { return cmp.Or(cmp.Compare(a.Scope, b.Scope), cmp.Compare(a.ID, b.ID)) })
		out.of[resource] = rules[:min(len(rules), lease.MaxLevels)] // quota accepts no more
	}
	return out
}

func (p *Policy) scopeFor(plan string) lease.Scope {
	switch p.Scope {
	case ScopePlan:
		return lease.PlanScope(plan)
	case ScopePlatform:
		return lease.PlatformScope()
	default:
		return lease.Scope{}
	}
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
	s.change(s.root.Load().clone(), edits)
}

// replace makes edits the whole content, with no moment in between.
func (s *Store) replace(edits []edit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.change(new(root), edits)
}

func (s *Store) change(r *root, edits []edit) {
	copied := make(map[byte]bool) // shards and plans that are not shared with the root before
	mine := make(map[string]bool)
	r.platform = cloneOr(r.platform)
	r.plans = cloneOr(r.plans)
	for _, e := range edits {
		switch e.layer {
		case platform:
			assign(r.platform, e)
		case plans:
			if !mine[e.plan] {
				mine[e.plan], r.plans[e.plan] = true, cloneOr(r.plans[e.plan])
			}
			if assign(r.plans[e.plan], e); len(r.plans[e.plan]) == 0 {
				delete(r.plans, e.plan)
				delete(mine, e.plan)
			}
		case tenants:
			n := shardOf(e.uid)
			if !copied[n] {
				copied[n], r.tenants[n] = true, cloneOr(r.tenants[n])
			}
			r.setTenant(e)
		}
	}
	r.settle(time.Time{})
	s.root.Store(r)
}

// setTenant changes what a tenant sets; its shard is not shared.
func (r *root) setTenant(e edit) {
	shard, limits := r.tenants[shardOf(e.uid)], make(map[string]*Policy)
	if o := shard[e.uid]; o != nil {
		limits = maps.Clone(o.limits)
	}
	if assign(limits, e); len(limits) == 0 {
		delete(shard, e.uid)
		return
	}
	shard[e.uid] = &own{limits: limits}
}

func (r *root) clone() *root {
	if r == nil {
		return new(root)
	}
	c := *r
	return &c
}

func cloneOr[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return make(map[K]V)
	}
	return maps.Clone(m)
}

func assign(m map[string]*Policy, e edit) {
	if e.policy == nil {
		delete(m, e.limit)
		return
	}
	p := *e.policy
	p.finish(e.limit, e.layer)
	m[e.limit] = &p
}
