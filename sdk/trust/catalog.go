package trust

import (
	"maps"
	"slices"
	"sync"
)

const (
	planPrefix = "plan/"
	cellPrefix = "cell/"
)

// Catalog is which plans and regions tenancy has, with or without tenants. Verifying tokens does not need it; it is for
// services that keep something under the name of a plan or a region, and would otherwise take a slip of the pen for one.
// The zero value is an empty catalog. All methods are safe for concurrent use.
type Catalog struct {
	mu sync.RWMutex
	// plans and regions are by their keys in the feed; regions are those of cells.
	plans, regions map[string]string
	// weights are those of plans, by their ids.
	weights map[string]int32
}

// Plans returns the ids of all plans, in order. There are none where tenancy has none, nothing was heard of it yet, or
// it is of a release that does not tell.
func (c *Catalog) Plans() []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return slices.Sorted(maps.Values(c.plans))
}

// Weight returns what a tenant on the plan gets of what is shared, beside the others who want it; ok is false for a plan
// that nothing was heard of, or of which a tenancy of an older release did not tell.
func (c *Catalog) Weight(plan string) (weight int, ok bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	w := c.weights[plan]
	return int(w), w > 0
}

// Regions is like Plans, for the regions of cells.
func (c *Catalog) Regions() []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return slices.Compact(slices.Sorted(maps.Values(c.regions)))
}

// replace makes what is given all there is.
func (c *Catalog) replace(plans, regions map[string]string, weights map[string]int32) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.plans, c.regions, c.weights = plans, regions, weights
}

// set keeps the plan or the region under a key; without either the key is gone.
func (c *Catalog) set(key string, d decoded) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.plans == nil {
		c.plans, c.regions, c.weights = map[string]string{}, map[string]string{}, map[string]int32{}
	}
	delete(c.weights, c.plans[key])
	delete(c.plans, key)
	delete(c.regions, key)
	switch {
	case d.plan != "":
		c.plans[key], c.weights[d.plan] = d.plan, d.weight
	case d.region != "":
		c.regions[key] = d.region
	}
}
