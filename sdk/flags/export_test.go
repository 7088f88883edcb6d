package flags

import (
	"maps"
	"slices"
)

// What tests outside the package must reach.

// MaxViews is maxViews.
const MaxViews = maxViews

// KeepAtMost bounds the views that are kept.
func (c *Client) KeepAtMost(n int) { c.known.most = n }

// Kept is how many views are kept; -1 if they are counted wrongly.
func (c *Client) Kept() (views int) {
	c.known.mu.RLock()
	defer c.known.mu.RUnlock()
	for _, of := range c.known.views {
		views += len(of)
	}
	if views != c.known.count {
		return -1
	}
	return views
}

// Pending is Next without waiting.
func (w *Watch) Pending() []string {
	retired, keys := w.take()
	w.client.compare(retired, keys)
	return slices.Sorted(maps.Keys(keys))
}

// Retired is how many views the watch holds.
func (w *Watch) Retired() int {
	w.client.mu.Lock()
	defer w.client.mu.Unlock()
	return len(w.retired)
}
