package settings

import (
	"fmt"
	"log/slog"
	"sync"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// maxNamed bounds the tenants that one [Change] names; one that would name more is of all.
const maxNamed = 1024

// Change says whose settings of a namespace may be others than before.
type Change struct {
	// All says everybody's.
	All bool
	// Plans and Regions are those of tenants.
	Plans, Regions map[string]bool
	// Tenants are those who have a document that changed; their children are concerned as well.
	Tenants map[tenant.UID]bool
}

// Concerns reports whether the settings of a tenant may be others. parent is its parent, zero without one.
func (c Change) Concerns(r Reader, parent tenant.UID) bool {
	return c.All || c.Plans[r.Plan] || c.Regions[r.Region] || c.Tenants[r.UID] || c.Tenants[parent]
}

func (c *Change) of(uid tenant.UID) {
	if !c.All {
		add(&c.Tenants, uid)
	}
	if len(c.Tenants) > maxNamed {
		c.All, c.Tenants = true, nil
	}
}

func (c *Change) add(more *Change) {
	c.All = c.All || more.All
	for plan := range more.Plans {
		add(&c.Plans, plan)
	}
	for region := range more.Regions {
		add(&c.Regions, region)
	}
	for uid := range more.Tenants {
		c.of(uid)
	}
}

func add[K comparable](to *map[K]bool, k K) {
	if *to == nil {
		*to = make(map[K]bool)
	}
	(*to)[k] = true
}

// watcher is one callback. Changes that come while it runs become one.
type watcher struct {
	namespace string
	signal    chan struct{} // one place: a signal says "look"

	mu      sync.Mutex
	pending *Change
}

func (w *watcher) tell(c *Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pending == nil {
		w.pending = new(Change)
	}
	w.pending.add(c)
	select {
	case w.signal <- struct{}{}:
	default: // it has not looked since the last one
	}
}

func (w *watcher) take() *Change {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.pending
	w.pending = nil
	return c
}

// Notify calls fn after changes in a namespace, when readers see them, until stop is called. Each callback has a
// goroutine of its own, which holds no lock: one that is slow is told later of all that happened meanwhile at once, and
// one that panics is logged and called again at the next change; neither holds up the store, its readers or other
// callbacks. stop waits for a call that runs, so fn must not call it.
func (s *Store) Notify(namespace string, fn func(Change)) (stop func()) {
	w := &watcher{namespace: namespace, signal: make(chan struct{}, 1)}
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-w.signal:
			}
			if c := w.take(); c != nil {
				s.guard(func() { fn(*c) })
			}
		}
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watchers == nil {
		s.watchers = make(map[*watcher]bool)
	}
	s.watchers[w] = true
	return sync.OnceFunc(func() {
		s.mu.Lock()
		delete(s.watchers, w)
		s.mu.Unlock()
		close(done)
		running.Wait()
	})
}

// guard runs a callback, and logs what it panics with.
func (s *Store) guard(fn func()) {
	defer func() {
		if p := recover(); p != nil {
			log := s.Log
			if log == nil {
				log = slog.Default()
			}
			log.Error("settings: a callback panicked", "panic", fmt.Sprint(p))
		}
	}()
	fn()
}
