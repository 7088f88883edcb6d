package tenantdb

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// slots shares the connections of a pool among tenants. A tenant holds at most a share of
// them, so that one whose statements are slow leaves some to others, who may come at any
// time. A slot that becomes free goes to the tenant that holds the fewest and, of several,
// waits the longest; within a tenant it goes to the call that waits the longest. No more than
// queueMost calls of a tenant wait.
type slots struct {
	share int // of one tenant

	mu      sync.Mutex
	free    int
	claims  map[tenant.UID]*claim // of the tenants that hold or wait
	waiting []*claim              // those with calls that wait, by their last turn
	refused uint64                // calls that got none: in time, or because too many waited
}

// queueMost is how many calls of one tenant wait: what comes on top of them would hardly have
// its turn in time.
const queueMost = 64

// claim is what one tenant has of the slots and wants.
type claim struct {
	held  int
	calls []chan struct{} // closed when a slot is theirs
}

// newSlots shares n slots, of which a tenant gets half, rounded up.
func newSlots(n int) *slots {
	return &slots{share: (n + 1) / 2, free: n, claims: map[tenant.UID]*claim{}}
}

// take gets a slot for the tenant, within admissionWait and the time of ctx. Every slot is
// given back with give.
func (s *slots) take(ctx context.Context, uid tenant.UID) error {
	granted, full := s.ask(uid)
	switch {
	case full:
		return overloaded().WithCause(ErrAdmission)
	case granted == nil:
		return nil
	}
	timer := time.NewTimer(admissionWait)
	defer timer.Stop()
	select {
	case <-granted:
		return nil
	case <-timer.C:
		s.leave(uid, granted, true)
		return overloaded().WithCause(ErrAdmission)
	case <-ctx.Done():
		s.leave(uid, granted, false)
		return explain(ctx.Err())
	}
}

// ask takes a slot for the tenant, or puts the call at the end of the tenant's queue and
// returns what is closed when its turn came, or finds that queue full.
func (s *slots) ask(uid tenant.UID) (granted chan struct{}, full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.claims[uid]
	if c == nil {
		c = &claim{}
		s.claims[uid] = c
	}
	if s.free > 0 && c.held < s.share { // grant left nobody waiting who may have it
		c.held++
		s.free--
		return nil, false
	}
	if len(c.calls) == queueMost {
		s.refused++
		return nil, true
	}
	granted = make(chan struct{})
	if len(c.calls) == 0 {
		s.waiting = append(s.waiting, c)
	}
	c.calls = append(c.calls, granted)
	return granted, false
}

// leave takes a call out of its queue, or gives back what it was granted meanwhile. Late
// is who waited for admissionWait.
func (s *slots) leave(uid tenant.UID, granted <-chan struct{}, late bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.claims[uid]
	i := slices.IndexFunc(c.calls, func(call chan struct{}) bool { return call == granted })
	if i < 0 {
		s.back(uid)
		return
	}
	if late {
		s.refused++
	}
	c.calls = slices.Delete(c.calls, i, i+1)
	if len(c.calls) == 0 {
		s.waiting = slices.DeleteFunc(s.waiting, func(w *claim) bool { return w == c })
	}
	s.forget(uid)
}

// give gives a slot of the tenant back.
func (s *slots) give(uid tenant.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.back(uid)
}

func (s *slots) back(uid tenant.UID) {
	s.claims[uid].held--
	s.free++
	s.forget(uid)
	s.grant()
}

// forget drops a tenant that neither holds nor waits.
func (s *slots) forget(uid tenant.UID) {
	if c := s.claims[uid]; c.held == 0 && len(c.calls) == 0 {
		delete(s.claims, uid)
	}
}

// others is how many calls of other tenants wait, and how many hold a slot, the tenant's among them.
func (s *slots) others(uid tenant.UID) (waiting, held int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for other, c := range s.claims {
		held += c.held
		if other != uid {
			waiting += len(c.calls)
		}
	}
	return waiting, max(held, 1)
}

// grant gives what is free to those whose turn it is.
func (s *slots) grant() {
	for s.free > 0 {
		next := -1
		for i, c := range s.waiting {
			if c.held < s.share && (next < 0 || c.held < s.waiting[next].held) {
				next = i
			}
		}
		if next < 0 {
			return
		}
		c := s.waiting[next]
		s.waiting = slices.Delete(s.waiting, next, next+1)
		close(c.calls[0])
		c.calls = slices.Delete(c.calls, 0, 1)
		if len(c.calls) > 0 {
			s.waiting = append(s.waiting, c)
		}
		c.held++
		s.free--
	}
}
