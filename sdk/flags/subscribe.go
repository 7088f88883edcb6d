package flags

import "context"

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

// changed drops what was made of the store's old state, and has every subscriber look.
func (c *Client) changed() {
	c.known.Store(newKnown())
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.subscriptions {
		select {
		case s.signal <- struct{}{}:
		default: // it has not looked since the last one
		}
	}
}
