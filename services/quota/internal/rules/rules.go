// Package rules knows, in a replica of quota, which limits hold for whom: its own feed of
// limits, read in the process.
//
// What an ask is charged under is what is found here, and never what a caller says. A
// change is here within milliseconds of its commit, and at once for who made it at this
// replica, see [Set.Await]. When the database is away the last limits known hold on.
// Start at [Set.Follow] and [Set.Find].
package rules

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/limits"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/meter"
)

// Rule is a limit as it holds for a tenant.
type Rule struct {
	// Policy is one for each version of a limit.
	Policy *lease.Policy
	// Scope is who shares its cells.
	Scope lease.Scope
	// Limit is the limit as it is stored.
	Limit *quotav1.Limit
}

// rule is a limit that is set somewhere.
type rule struct {
	policy  *lease.Policy
	limit   *quotav1.Limit
	expires time.Time // zero: never
}

// Set is the limits of all layers. It is safe for concurrent use.
type Set struct {
	clock  func() time.Time
	loaded chan struct{}

	mu       sync.RWMutex
	rules    map[string]map[string]rule // by owner, as in the feed's keys, and id
	next     map[string]map[string]rule // a snapshot in parts
	revision int64
	moved    chan struct{} // closed at the next revision
}

// New returns a set without limits, that is not loaded.
func New(clock func() time.Time) *Set {
	return &Set{clock: clock, loaded: make(chan struct{}), rules: make(map[string]map[string]rule), moved: make(chan struct{})}
}

// Loaded is closed once the limits are known.
func (s *Set) Loaded() <-chan struct{} { return s.loaded }

// Find returns the limit of an id that holds for a tenant on a plan: the nearest layer's.
func (s *Set) Find(uid tenant.UID, plan, id string) (Rule, bool) {
	now := s.clock()
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, owner := range owners(uid, plan) {
		if r, ok := s.rules[owner][id]; ok && r.holds(now) {
			return Rule{Policy: r.policy, Scope: scopeOf(r.limit, uid, plan), Limit: r.limit}, true
		}
	}
	return Rule{}, false
}

// owners are whose limits may hold, the nearest first, as in the feed's keys.
func owners(uid tenant.UID, plan string) [3]string {
	return [3]string{string(meter.Tenant) + "/" + uid.String(), string(meter.Plan) + "/" + plan, string(meter.Platform)}
}

func (r rule) holds(now time.Time) bool { return r.expires.IsZero() || now.Before(r.expires) }

// scopeOf says who shares a limit's cells. Holders of leases say the same.
func scopeOf(l *quotav1.Limit, uid tenant.UID, plan string) lease.Scope {
	switch l.GetScope() {
	case quotav1.LimitScope_LIMIT_SCOPE_PLATFORM:
		return lease.PlatformScope()
	case quotav1.LimitScope_LIMIT_SCOPE_PLAN:
		return lease.PlanScope(plan)
	default:
		return lease.Scope(uid)
	}
}

// PolicyOf reads a limit of the API. It fails for numbers that make no limit.
func PolicyOf(l *quotav1.Limit) (*lease.Policy, error) {
	_, id, err := meter.ParseName(l.GetName())
	if err != nil {
		return nil, err
	}
	p := &lease.Policy{Name: id, Revision: l.GetRevision(), Shadow: l.GetMode() == quotav1.LimitMode_LIMIT_MODE_SHADOW}
	if l.GetOnChange() == quotav1.LimitChange_LIMIT_CHANGE_RESET {
		p.OnChange = lease.Reset
	}
	if l.GetKind() == quotav1.LimitKind_LIMIT_KIND_CONCURRENCY {
		p.Kind, p.Slots, p.TTL = lease.Concurrency, l.GetTokens(), l.GetPeriod().AsDuration()
		return p, nil
	}
	p.Limit, err = gcra.New(l.GetTokens(), l.GetPeriod().AsDuration(), l.GetBurst())
	return p, err
}

// Feed is quota's feed of limits, as its server serves it.
type Feed interface {
	Watch(ctx context.Context, feed, token string, send func(*apiv1.FeedFrame) error) error
}

// again is how long after the end of a stream the next one is opened.
const again = 50 * time.Millisecond

// Follow keeps the set up to date until ctx ends.
func (s *Set) Follow(ctx context.Context, f Feed, log *slog.Logger) error {
	for {
		err := f.Watch(ctx, limits.FeedName, "", s.take)
		pause := time.NewTimer(again)
		select {
		case <-ctx.Done():
			pause.Stop()
			return nil
		case <-pause.C:
		}
		select {
		case <-s.loaded:
			log.WarnContext(ctx, "the limits are read anew", "error", err)
		default: // the feed is being loaded
		}
	}
}

// take takes a frame in.
func (s *Set) take(frame *apiv1.FeedFrame) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch k := frame.GetKind().(type) {
	case *apiv1.FeedFrame_Chunk:
		if k.Chunk.GetIndex() == 0 {
			s.next = make(map[string]map[string]rule)
		}
		put(s.next, k.Chunk.GetEntries())
		if k.Chunk.GetLast() {
			s.rules, s.next = s.next, nil
			s.moveTo(k.Chunk.GetRevision())
			select {
			case <-s.loaded:
			default:
				close(s.loaded)
			}
		}
	case *apiv1.FeedFrame_Delta:
		put(s.rules, k.Delta.GetChanges())
		s.moveTo(k.Delta.GetRevision())
	}
	return nil
}

// moveTo notes a revision. The lock is held.
func (s *Set) moveTo(revision int64) {
	s.revision = revision
	close(s.moved)
	s.moved = make(chan struct{})
}

// put sets and removes limits. What cannot be read is left as it was: it came from this
// service, and the others are none the worse.
func put(rules map[string]map[string]rule, entries []*apiv1.FeedEntry) {
	for _, e := range entries {
		owner, id, ok := cut(e.GetKey())
		if !ok {
			continue
		}
		if e.GetDeleted() {
			delete(rules[owner], id)
			continue
		}
		r, err := read(e.GetValue())
		if err != nil {
			continue
		}
		if rules[owner] == nil {
			rules[owner] = make(map[string]rule)
		}
		rules[owner][id] = r
	}
}

// cut splits a key of the feed into the owner and the limit's id.
func cut(key string) (owner, id string, ok bool) {
	i := strings.LastIndexByte(key, '/')
	if i <= 0 {
		return "", "", false
	}
	return key[:i], key[i+1:], true
}

func read(value []byte) (rule, error) {
	entry := new(quotav1.LimitEntry)
	if err := proto.Unmarshal(value, entry); err != nil {
		return rule{}, fmt.Errorf("decode a limit: %w", err)
	}
	p, err := PolicyOf(entry.GetLimit())
	r := rule{policy: p, limit: entry.GetLimit()}
	if t := entry.GetLimit().GetExpireTime(); t != nil {
		r.expires = t.AsTime()
	}
	return r, err
}

// Await waits until the set is at a revision, or ctx ends.
func (s *Set) Await(ctx context.Context, revision int64) {
	for {
		s.mu.RLock()
		at, moved := s.revision, s.moved
		s.mu.RUnlock()
		if at >= revision {
			return
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return
		}
	}
}
