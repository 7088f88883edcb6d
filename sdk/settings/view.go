package settings

import (
	"fmt"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// document is one document as the feed holds it: an encoded SettingsEntry. nil is none.
type document []byte

// layer parses the document. It was checked when it came, so an error is one of this tenant alone.
func (d document) layer(name string) (*Layer, error) {
	if d == nil {
		return nil, nil //nolint:nilnil // no document is no layer
	}
	entry := new(configv1.SettingsEntry)
	if err := proto.Unmarshal(d, entry); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	object, err := parse(entry.GetContent())
	if err != nil {
		return nil, err
	}
	return &Layer{Name: name, Revision: entry.GetRevision(), Object: object}, nil
}

// view is what holds for a reader, or for all for whom the same holds: the layers, and what was made of them. It never
// becomes wrong by itself; the namespace drops it when one of its layers changes.
type view struct {
	schema                 *Schema
	platform, plan, region *Layer
	parent, tenant, env    document
	name, environment      string // of the reader; a view without own documents needs none
	kills                  []Kill
	rolling                *Rolling
	live                   *live // the rollout, if one runs
	made                   atomic.Pointer[made]
}

// own reports whether the view is of one tenant, not shared.
func (v *view) own() bool { return v.tenant != nil || v.env != nil }

// merge merges the layers.
func (v *view) merge() (Effective, error) {
	return v.mergeWith(v.rolling)
}

func (v *view) mergeWith(rolling *Rolling) (Effective, error) {
	s := Stack{Schema: v.schema, Platform: v.platform, Plan: v.plan, Region: v.region, Kills: v.kills, Rolling: rolling}
	var err error
	if s.Parent, err = v.parent.layer(LayerParent); err != nil {
		return Effective{}, fmt.Errorf("%s: %w", LayerParent, err)
	}
	if s.Tenant, err = v.tenant.layer(LayerTenant(v.name)); err != nil {
		return Effective{}, fmt.Errorf("%s: %w", LayerTenant(v.name), err)
	}
	if s.Environment, err = v.env.layer(LayerEnvironment(v.name, v.environment)); err != nil {
		return Effective{}, fmt.Errorf("%s: %w", LayerEnvironment(v.name, v.environment), err)
	}
	return s.Effective(), nil
}

// made is what a view is as one type, in a list of the few types that programs ask for.
type made struct {
	value any // *typed[T]
	next  *made
}

type typed[T any] struct {
	value T
	err   error
}

// kept returns the view as T if it was made before.
func kept[T any](v *view) (*typed[T], bool) {
	for m := v.made.Load(); m != nil; m = m.next {
		if t, ok := m.value.(*typed[T]); ok {
			return t, true
		}
	}
	return nil, false
}

// typedOf returns the view as T, and makes it if need be. Two that make it at once make the same.
func typedOf[T any](v *view, from func(Effective) (T, error)) (T, error) {
	if t, ok := kept[T](v); ok {
		return t.value, t.err
	}
	t := new(typed[T])
	e, err := v.merge()
	if err != nil {
		t.err = err
	} else {
		t.value, t.err = from(e)
	}
	if t.err != nil && v.rolling != nil && v.rolling.Next {
		t.before(v, from)
	}
	for {
		if old, ok := kept[T](v); ok {
			return old.value, old.err
		}
		head := v.made.Load()
		if v.made.CompareAndSwap(head, &made{value: t, next: head}) {
			return t.value, t.err
		}
	}
}

// before takes what held before the rollout, if its content cannot be read as some program reads it and the document's could, and
// tells the rollout.
func (t *typed[T]) before(v *view, from func(Effective) (T, error)) {
	e, err := v.mergeWith(nil)
	if err != nil {
		return
	}
	if value, err := from(e); err == nil {
		v.live.refuse(t.err)
		t.value, t.err = value, nil
	}
}

const (
	// cacheBuckets times cacheWays bounds the tenants whose views are kept in a namespace, so that memory does not grow
	// with all that were ever asked for. Others are merged when they are read.
	cacheBuckets = 4096
	cacheWays    = 4
)

// cache finds views of readers without a lock. Writers hold the store's.
type cache struct {
	slots atomic.Pointer[[cacheBuckets * cacheWays]atomic.Pointer[slot]] // nil while nobody has read
	next  int
}

// slot is a view and whom it is for. families is what [tenant.Trust.Families] said when the parent was looked up.
type slot struct {
	reader   Reader
	parent   tenant.UID
	families uint64
	view     *view
}

// bucketOf takes bits of a uid that are random.
func bucketOf(uid tenant.UID) int {
	return (int(uid[14])<<8 | int(uid[15])) % cacheBuckets * cacheWays
}

func (c *cache) find(r *Reader, families uint64) *view {
	slots := c.slots.Load()
	if slots == nil {
		return nil
	}
	first := bucketOf(r.UID)
	for i := first; i < first+cacheWays; i++ {
		if s := slots[i].Load(); s != nil && s.families == families && s.reader == *r {
			return s.view
		}
	}
	return nil
}

// keep takes a free place or the next one in turn.
func (c *cache) keep(s *slot) {
	slots := c.slots.Load()
	if slots == nil {
		slots = new([cacheBuckets * cacheWays]atomic.Pointer[slot])
		c.slots.Store(slots)
	}
	first := bucketOf(s.reader.UID)
	for i := first; i < first+cacheWays; i++ {
		if old := slots[i].Load(); old == nil || old.reader == s.reader {
			slots[i].Store(s)
			return
		}
	}
	c.next = (c.next + 1) % cacheWays
	slots[first+c.next].Store(s)
}

// forget drops what is kept for a tenant and for its children.
func (c *cache) forget(uid tenant.UID, families bool) {
	slots := c.slots.Load()
	if slots == nil {
		return
	}
	drop := func(i int) {
		if s := slots[i].Load(); s != nil && (s.reader.UID == uid || s.parent == uid) {
			slots[i].Store(nil)
		}
	}
	if families {
		for i := range slots {
			drop(i)
		}
		return
	}
	first := bucketOf(uid)
	for i := first; i < first+cacheWays; i++ {
		drop(i)
	}
}

// clear drops everything.
func (c *cache) clear() { c.slots.Store(nil) }
