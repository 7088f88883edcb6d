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
}

// Plans returns the ids of all plans, in order. There are none where tenancy has none, nothing was heard of it yet, or
// it is of a release that does not tell.
func (c *Catalog) Plans() []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return slices.Sorted(maps.Values(c.plans))
}

// Regions is like Plans, for the regions of cells.
func (c *Catalog) Regions() []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return slices.Compact(slices.Sorted(maps.Values(c.regions)))
}

// replace makes what is given all there is.
func (c *Catalog) replace(plans, regions map[string]string) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.plans, c.regions = plans, regions
}

// set keeps the plan or the region under a key; without either the key is gone.
func (c *Catalog) set(key, plan, region string) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.plans == nil {
		c.plans, c.regions = map[string]string{}, map[string]string{}
	}
	delete(c.plans, key)
	delete(c.regions, key)
	switch {
	case plan != "":
		c.plans[key] = plan
	case region != "":
		c.regions[key] = region
	}
}
