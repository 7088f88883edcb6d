package flags

import (
	"context"
	"maps"
	"slices"
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

// Next waits until the flags are others than at the last call. The error is that of ctx.
func (s *Subscription) Next(ctx context.Context) (Change, error) {
	for {
		select {
		case <-ctx.Done():
			return Change{}, context.Cause(ctx)
		case <-s.signal:
		}
		v, err := s.client.For(s.who)
		if err != nil || s.last != nil && v.Version == s.last.Version {
			continue // what was there goes on to hold
		}
		change := Change{View: v}
		if s.last == nil {
			change.Keys = v.Keys()
		} else {
			change.Keys = v.Changed(s.last.Set.Set)
		}
		s.last = v
		return change, nil
	}
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.client.mu.Lock()
	defer s.client.mu.Unlock()
	delete(s.client.subscriptions, s)
}

// Watch tells which keys may have another answer, for any tenant that was asked for in this process. Who did not ask
// holds no old answer. It is for one goroutine, and must be closed.
type Watch struct {
	client  *Client
	signal  chan struct{} // one place: a signal says "look"
	retired []*known      // guarded by the client's mu
}

// Watch begins now.
func (c *Client) Watch() *Watch {
	w := &Watch{client: c, signal: make(chan struct{}, 1)}
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
		keys := make(map[string]bool)
		for _, k := range w.take() {
			w.client.compare(k, keys)
		}
		if len(keys) > 0 {
			return slices.Sorted(maps.Keys(keys)), nil
		}
	}
}

func (w *Watch) take() []*known {
	w.client.mu.Lock()
	defer w.client.mu.Unlock()
	retired := w.retired
	w.retired = nil
	return retired
}

// Close ends the watch.
func (w *Watch) Close() {
	w.client.mu.Lock()
	defer w.client.mu.Unlock()
	delete(w.client.watches, w)
}

// compare adds the keys whose answers are others now than they were in k. Tenants that shared a set before and share
// one now are looked at once.
func (c *Client) compare(k *known, keys map[string]bool) {
	k.mu.RLock()
	views := slices.Collect(maps.Values(k.views))
	k.mu.RUnlock()
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

// changed drops what was made of the store's old state, and has everybody look.
func (c *Client) changed() {
	old := c.known.Swap(newKnown(c.store.Families()))
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.subscriptions {
		look(s.signal)
	}
	for w := range c.watches {
		w.retired = append(w.retired, old)
		look(w.signal)
	}
}

func look(signal chan struct{}) {
	select {
	case signal <- struct{}{}:
	default: // it has not looked since the last one
	}
}
