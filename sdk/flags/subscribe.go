package flags

import (
	"context"
	"maps"
	"slices"

	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// Change is what became of a tenant's flags.
type Change struct {
	// View is what holds now.
	View *View
	// Keys are all flags, in order, whose answer may be another than before, removed ones too.
	Keys []string
}

// Subscription tells of the changes of one tenant's flags. Nothing piles up while nobody reads: what happened since the
// last [Subscription.Next] is one change. It is for one goroutine, and must be closed.
type Subscription struct {
	client *Client
	who    Who
	signal chan struct{} // one place: a signal says "look"
	last   *View         // nil while there is none
}

// Subscribe begins with what holds now, which it returns. The error is that of [Client.For]; the subscription is good
// all the same, and its first change is the first state.
func (c *Client) Subscribe(w Who) (*Subscription, *View, error) {
	s := &Subscription{client: c, who: w, signal: make(chan struct{}, 1)}
	c.mu.Lock()
	c.subscriptions[s] = true // before the first look, so that no change falls between them
	c.mu.Unlock()
	v, err := c.For(w)
	s.last = v
	return s, v, err
}

// Next waits until the flags are others than at the last call, by a change or because the tenant has another parent. The
// error is that of ctx.
func (s *Subscription) Next(ctx context.Context) (Change, error) {
	for {
		moved := s.moved()
		if v, err := s.client.For(s.who); err == nil && (s.last == nil || v.Version != s.last.Version) {
			change := Change{View: v}
			if s.last == nil {
				change.Keys = v.Keys()
			} else {
				change.Keys = v.Changed(s.last.Set.Set)
			}
			s.last = v
			return change, nil
		} // else what was there goes on to hold
		select {
		case <-ctx.Done():
			return Change{}, context.Cause(ctx)
		case <-s.signal:
		case <-moved:
		}
	}
}

// moved is closed when the tenant may have another parent.
func (s *Subscription) moved() <-chan struct{} {
	if s.client.store.Trust == nil {
		return nil
	}
	return s.client.store.Trust.Watch(s.who.UID)
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.client.mu.Lock()
	defer s.client.mu.Unlock()
	delete(s.client.subscriptions, s)
}

// Watch tells which keys may have another answer, for any tenant that was asked for in this process. Who did not ask
// holds no old answer. For tenants that were asked for so long ago that nothing is kept of them it names every flag they
// had, at each change, and may miss one that is new. It is for one goroutine, and must be closed.
type Watch struct {
	client *Client
	signal chan struct{} // one place: a signal says "look"

	// Guarded by the client's mu: what was answered from before the changes since the last look, the oldest for each
	// tenant, and the keys of what is not kept.
	retired map[Who]*View
	keys    map[string]bool
}

// Watch begins now.
func (c *Client) Watch() *Watch {
	w := &Watch{client: c, signal: make(chan struct{}, 1), retired: make(map[Who]*View), keys: make(map[string]bool)}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watches[w] = true
	return w
}

// Next waits until the answers of some keys may be others than at the last call, and returns those in order. The error
// is that of ctx.
func (w *Watch) Next(ctx context.Context) ([]string, error) {
	for {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-w.signal:
		}
		retired, keys := w.take()
		w.client.compare(retired, keys)
		if len(keys) > 0 {
			return slices.Sorted(maps.Keys(keys)), nil
		}
	}
}

func (w *Watch) take() (map[Who]*View, map[string]bool) {
	w.client.mu.Lock()
	defer w.client.mu.Unlock()
	retired, keys := w.retired, w.keys
	w.retired, w.keys = make(map[Who]*View), make(map[string]bool)
	return retired, keys
}

// retire notes that what views answered may be so no more. No more of them are noted than are kept.
func (w *Watch) retire(keys []string, views []*View) {
	for _, key := range keys {
		w.keys[key] = true
	}
	for _, v := range views {
		switch {
		case w.retired[v.Who] != nil: // what was answered first is compared with
		case len(w.retired) < w.client.known.most:
			w.retired[v.Who] = v
		default:
			for _, key := range v.Keys() {
				w.keys[key] = true
			}
		}
	}
	if len(keys)+len(views) > 0 {
		look(w.signal)
	}
}

// Close ends the watch.
func (w *Watch) Close() {
	w.client.mu.Lock()
	defer w.client.mu.Unlock()
	delete(w.client.watches, w)
}

// compare adds the keys whose answers are others now than views gave. Tenants that shared a set before and share one now
// are looked at once.
func (c *Client) compare(views map[Who]*View, keys map[string]bool) {
	seen := make(map[[2]*Set]bool)
	for _, old := range views {
		v, err := c.For(old.Who)
		if err != nil || v.Version == old.Version || seen[[2]*Set{old.Set, v.Set}] {
			continue
		}
		seen[[2]*Set{old.Set, v.Set}] = true
		for _, key := range v.Changed(old.Set.Set) {
			keys[key] = true
		}
	}
}

// changed drops what was made of what is no more, and has look whom that concerns.
func (c *Client) changed(change settings.Change) {
	dropped, gone := c.known.drop(change, c.store.Families() > 0)
	c.mu.Lock()
	for s := range c.subscriptions {
		if change.Concerns(settings.Reader(s.who), c.parentOf(s.who.UID)) {
			look(s.signal)
		}
	}
	c.mu.Unlock()
	c.retire(gone, dropped...)
}

// retire tells all watches.
func (c *Client) retire(keys []string, views ...*View) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for w := range c.watches {
		w.retire(keys, views)
	}
}

func look(signal chan struct{}) {
	select {
	case signal <- struct{}{}:
	default: // it has not looked since the last one
	}
}
