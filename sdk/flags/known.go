package flags

import (
	"maps"
	"sync"
	"sync/atomic"
	"weak"

	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// maxViews bounds the views that are kept, so that memory does not grow with all tenants that were ever asked for; it is as
// many as settings keep for a namespace. Others are compiled when they are asked for.
const maxViews = 16384

// known is what was made of the store's present state. What a change concerns is dropped; all else stays.
type known struct {
	most   int
	making sync.Mutex // held while what tenants share is compiled, so that it is compiled once

	mu    sync.RWMutex
	drops uint64 // counts the changes: what was read from the store before one is not kept after it
	count int
	views map[tenant.UID][]*kept // a tenant has few: one for each environment. Those of no tenant are of plans in regions
	sets  pool                   // by the versions of settings
	same  pool                   // by their own version
	gone  map[string]bool        // the keys of all views that made room for others
}

// kept is a view that is kept. families is what the store's Families said when the parent was looked up last.
type kept struct {
	*View

	parent   tenant.UID
	families atomic.Uint64
}

// find returns what is kept for somebody, nil if nothing is.
func (k *known) find(w *Who) *kept {
	k.mu.RLock()
	defer k.mu.RUnlock()
	for _, v := range k.views[w.UID] {
		if v.Who == *w {
			return v
		}
	}
	return nil
}

func (k *known) dropped() uint64 {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.drops
}

// shared returns the set of settings with these versions, nil if it is not in use.
func (k *known) shared(versions string) *Set {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.sets.find(versions)
}

// share returns the set in use with the same content, which is s if there was none.
func (k *known) share(versions string, s *Set) *Set {
	k.mu.Lock()
	defer k.mu.Unlock()
	if old := k.same.find(s.Version); old != nil {
		s = old
	} else {
		k.same.add(s.Version, s)
	}
	k.sets.add(versions, s)
	return s
}

// keep keeps a view that was made of what the store held after so many drops. It reports false if there was another one
// meanwhile.
func (k *known) keep(v *kept, drops uint64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.drops != drops {
		return false
	}
	for i, old := range k.views[v.Who.UID] {
		if old.Who == v.Who {
			k.views[v.Who.UID][i] = v
			return true
		}
	}
	if k.count >= k.most {
		k.evict()
	}
	k.views[v.Who.UID] = append(k.views[v.Who.UID], v)
	k.count++
	return true
}

// evict drops the views of any tenant. The caller holds the lock.
func (k *known) evict() {
	var last *Set
	for uid, views := range k.views {
		if uid.IsZero() {
			continue // many are made over these
		}
		for _, v := range views {
			if v.Set == last {
				continue
			}
			last = v.Set
			for _, key := range v.Keys() {
				k.gone[key] = true
			}
		}
		delete(k.views, uid)
		k.count -= len(views)
		return
	}
}

// drop drops the views that a change concerns, and returns them; and the keys of all views that made room before, some
// of which it may have concerned.
func (k *known) drop(change settings.Change, families bool) (dropped []*View, gone []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.drops++
	of := func(uid tenant.UID) {
		stay := make([]*kept, 0, len(k.views[uid]))
		for _, v := range k.views[uid] {
			if change.Concerns(settings.Reader(v.Who), v.parent) {
				dropped = append(dropped, v.View)
			} else {
				stay = append(stay, v)
			}
		}
		k.count -= len(k.views[uid]) - len(stay)
		if k.views[uid] = stay; len(stay) == 0 {
			delete(k.views, uid)
		}
	}
	if change.All || families || len(change.Plans)+len(change.Regions) > 0 {
		for uid := range k.views {
			of(uid)
		}
	} else {
		for uid := range change.Tenants {
			of(uid)
		}
	}
	for key := range k.gone {
		gone = append(gone, key)
	}
	return dropped, gone
}

// pool finds sets that are in use. It keeps none alive.
type pool struct {
	sets map[string]weak.Pointer[Set]
	next int // how many there are when it looks for those that are no more
}

func (p *pool) find(name string) *Set { return p.sets[name].Value() }

func (p *pool) add(name string, s *Set) {
	if len(p.sets) >= p.next {
		const least = 64
		maps.DeleteFunc(p.sets, func(_ string, old weak.Pointer[Set]) bool { return old.Value() == nil })
		p.next = least + 2*len(p.sets)
	}
	p.sets[name] = weak.Make(s)
}
