package settings

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// mergeVersion changes when the same layers would merge to another value.
const mergeVersion = 2

// Layer is what one layer sets, with where it comes from.
type Layer struct {
	// Name is "platform", "plans/{plan}", "regions/{region}", "parent", "tenants/{tenant}" or
	// "tenants/{tenant}/environments/{environment}"; "schema" for defaults.
	Name string
	// Revision wrote it; 0 for defaults.
	Revision int64
	// Object is its document.
	Object Object
	// Rollout is the id of the rollout whose new content it is; empty for a document's own.
	Rollout string

	level Level
}

// Origin tells where one leaf of an effective value comes from.
type Origin struct {
	// Pointer is the leaf's JSON pointer (RFC 6901).
	Pointer string
	// Layer and Revision set it.
	Layer    string
	Revision int64
	// Rollout is the id of the rollout whose content the layer has, empty for a document's own.
	Rollout string
	// Shadowed names the layers whose values do not hold, nearest first: those that it hides, and narrower ones that a
	// lock or a clamp keeps out.
	Shadowed []string
	// Lock is the narrowest level that may set it, empty for any; Clamp is the schema's "x-clamp" for it, as JSON.
	Lock, Clamp string
	// Kill is why the schema's safe value holds here; nil without a kill. The layer is then that of the kill, and "/kill".
	Kill *Kill
}

// Effective is what holds.
type Effective struct {
	// Object is the merged value.
	Object Object
	// Origins has one entry for each leaf, by pointer. A joined or mapped array is no leaf, its elements are.
	Origins []Origin
	// Absent has one entry for each place without a value where layers said something: it was taken away by the entry's
	// layer, or, if that is empty, all that set it were kept out.
	Absent []Origin
	// Version is a digest of what was merged: equal versions mean equal values.
	Version string
}

// Stack is the layers that hold for one tenant in one namespace. Missing ones are nil.
type Stack struct {
	// Schema is the namespace's schema, whose defaults are the widest layer of all. Nil is a schema without any.
	Schema *Schema
	// Platform to Environment are the documents, the nearest to the tenant last. Parent is the document of the tenant's
	// parent's own layer, not what holds for the parent. Environment is what the tenant sets for one environment: that
	// of the reader's registration.
	Platform, Plan, Region, Parent, Tenant, Environment *Layer
	// Kills are over all layers; see [KillsOf].
	Kills []Kill
	// Rolling is the rollout that runs of one of these documents, nil if none does.
	Rolling *Rolling
}

// Layers returns the layers that there are, the widest first.
func (s Stack) Layers() []Layer {
	layers := []Layer{{Name: LayerSchema, Object: s.Schema.Defaults()}}
	documents := []*Layer{s.Platform, s.Plan, s.Region, s.Parent, s.Tenant, s.Environment}
	s.Rolling.put(documents)
	for i, l := range documents {
		if l != nil {
			leveled := *l
			leveled.level = LevelPlatform + Level(i)
			layers = append(layers, leveled)
		}
	}
	return layers
}

// Effective merges the layers as the schema's keywords say.
func (s Stack) Effective() Effective { return merge(s.Schema, s.Layers(), s.Kills...) }

// Names of layers; the others are [LayerPlan], [LayerRegion], [LayerTenant] and [LayerEnvironment].
const (
	LayerSchema   = "schema"
	LayerPlatform = "platform"
	// LayerParent is what the tenant's parent sets in its own layer. It has no name of its own: who the parent is, its
	// children are not told by their settings.
	LayerParent = "parent"
)

// LayerPlan is the name of a plan's layer.
func LayerPlan(plan string) string { return "plans/" + plan }

// LayerRegion is the name of a region's layer.
func LayerRegion(region string) string { return "regions/" + region }

// LayerTenant is the name of a tenant's own layer, for its id.
func LayerTenant(tenant string) string { return "tenants/" + tenant }

// LayerEnvironment is the name of what a tenant sets for one environment.
func LayerEnvironment(tenant, environment string) string {
	return LayerTenant(tenant) + "/environments/" + environment
}

// Etag is the quoted version.
func (e Effective) Etag() string { return `"` + e.Version + `"` }

// Merge merges layers, the widest first, without a schema: objects member by member, everything else as a whole by the
// last layer that sets it. null is a value. An empty object or an array is a leaf.
func Merge(layers ...Layer) Effective { return merge(nil, layers) }

func merge(s *Schema, layers []Layer, kills ...Kill) Effective {
	digest := version(s, layers, kills)
	if l, ok := s.killed(kills); ok {
		layers = append(slices.Clip(layers), l)
	}
	m := &merger{layers: layers}
	vs := make([]set, len(layers))
	for i, l := range layers {
		vs[i] = set{layer: i, value: l.Object}
	}
	v, _ := m.merge(place{rule: s.rules(), lock: LevelEnvironment}, vs)
	object, _ := v.(Object)
	if object == nil {
		object = Object{}
	}
	byPointer := func(a, b Origin) int { return strings.Compare(a.Pointer, b.Pointer) }
	slices.SortFunc(m.origins, byPointer)
	slices.SortFunc(m.absent, byPointer)
	return Effective{Object: object, Origins: m.origins, Absent: m.absent, Version: digest}
}

// set is a value that a layer sets at some place. One that is out does not hold and is only told of.
type set struct {
	layer int
	value any
	out   bool
}

// place is where values are merged.
type place struct {
	rule    *rule
	pointer string
	lock    Level // the widest on the way here
	hidden  []int // layers whose values some place on the way hides
}

// below is the place of a member, or of an element, whose rule is r. Hidden are the layers that do not reach it.
func (p place) below(name string, r *rule, hidden []int) place {
	return place{rule: r, pointer: p.pointer + "/" + escape(name), lock: p.lock, hidden: hidden}
}

// merger walks all layers at once, so that the value and its provenance come from
// the same step.
type merger struct {
	layers          []Layer
	origins, absent []Origin
}

// merge returns the value that holds at a place; false when none does. vs are what layers set there, the widest first.
func (m *merger) merge(at place, vs []set) (any, bool) {
	if at.rule != nil {
		at.lock = min(at.lock, at.rule.lock)
		vs = m.judge(at.rule, vs)
	}
	last := len(vs) - 1
	for last >= 0 && vs[last].out {
		last--
	}
	if last < 0 || isUnset(vs[last].value) {
		m.nothing(at, vs, last)
		return nil, false
	}
	// What merges lets what is beneath shine through until something else hides it.
	first := last + 1
	for first > 0 && (vs[first-1].out || at.rule.merges(vs[first-1].value)) {
		first--
	}
	if !at.rule.merges(vs[last].value) {
		m.leaf(at, vs, last)
		if f, ok := vs[last].value.(forced); ok {
			return f.value, true
		}
		return vs[last].value, true
	}
	switch how, key := at.rule.how(); how {
	case joined:
		return m.join(at, vs, first, last), true
	case mapped:
		return m.mapped(at, vs, first, last, key), true
	default:
		return m.object(at, vs, first, last), true
	}
}

// judge marks what does not hold.
func (m *merger) judge(r *rule, vs []set) []set {
	vs = slices.Clone(vs)
	for i, v := range vs {
		vs[i].out = v.out || r.refuses(m.layers[v.layer].level, v.value) != ""
	}
	return vs
}

// split parts the sets into those that reach what is below and the layers of the others.
func split(vs []set, hidden []int, reaches func(i int, v set) bool) ([]set, []int) {
	var through []set
	hidden = slices.Clip(hidden)
	for i, v := range vs {
		if reaches(i, v) {
			through = append(through, v)
		} else {
			hidden = append(hidden, v.layer)
		}
	}
	return through, hidden
}

// object merges member by member. What is out goes along, to be told of where it would have held.
func (m *merger) object(at place, vs []set, first, last int) any {
	through, hidden := split(vs, at.hidden, func(i int, v set) bool {
		_, ok := v.value.(Object)
		return ok && !isUnset(v.value) && (v.out || i >= first)
	})
	out := make(Object)
	for _, name := range memberNames(through) {
		var members []set
		for _, v := range through {
			o, _ := v.value.(Object)
			if value, ok := o[name]; ok {
				members = append(members, set{v.layer, value, v.out})
			}
		}
		if v, ok := m.merge(at.below(name, at.rule.member(name), hidden), members); ok {
			out[name] = v
		}
	}
	if len(out) == 0 && at.pointer != "" {
		m.leaf(at, vs, last)
	}
	return out
}

// join puts arrays end to end.
func (m *merger) join(at place, vs []set, first, last int) any {
	through, hidden := split(vs, at.hidden, func(i int, v set) bool { return !v.out && i >= first })
	out := []any{}
	for _, v := range through {
		elements, _ := v.value.([]any)
		for _, e := range elements {
			below := at.below(strconv.Itoa(len(out)), nil, hidden)
			m.leaf(below, []set{{layer: v.layer, value: e}}, 0)
			out = append(out, e)
		}
	}
	if len(out) == 0 {
		m.leaf(at, vs, last)
	}
	return out
}

// mapped merges arrays element by element, in the order in which keys first come. One that was taken away and is set
// again comes anew.
func (m *merger) mapped(at place, vs []set, first, last int, key string) any {
	through, hidden := split(vs, at.hidden, func(i int, v set) bool { return !v.out && i >= first })
	var keys []string
	of := make(map[string][]set)
	for _, v := range through {
		a, _ := v.value.([]any)
		for _, e := range elementsOf(a, key) {
			sets := of[e.key]
			if len(sets) == 0 || isUnset(sets[len(sets)-1].value) {
				keys = append(slices.DeleteFunc(keys, func(k string) bool { return k == e.key }), e.key)
			}
			of[e.key] = append(sets, set{layer: v.layer, value: e.value})
		}
	}
	out := []any{}
	for _, k := range keys {
		if sets := of[k]; isUnset(sets[len(sets)-1].value) {
			m.nothing(place{pointer: at.pointer, lock: at.lock, hidden: hidden}, sets, len(sets)-1)
		} else if v, ok := m.merge(at.below(strconv.Itoa(len(out)), nil, hidden), sets); ok {
			out = append(out, v)
		}
	}
	if len(out) == 0 {
		m.leaf(at, vs, last)
	}
	return out
}

// leaf records where a leaf comes from: the set with the index one. All others do not hold, like what was hidden already.
func (m *merger) leaf(at place, vs []set, one int) {
	m.origins = append(m.origins, m.origin(at, vs, one))
}

// nothing records that no value holds: the set with the index one took it away or, below 0, all are out.
func (m *merger) nothing(at place, vs []set, one int) {
	m.absent = append(m.absent, m.origin(at, vs, one))
}

func (m *merger) origin(at place, vs []set, one int) Origin {
	hidden := slices.Clip(at.hidden)
	for i, v := range vs {
		if i != one {
			hidden = append(hidden, v.layer)
		}
	}
	o := Origin{Pointer: at.pointer}
	if one >= 0 {
		from := m.layers[vs[one].layer]
		o.Layer, o.Revision, o.Rollout = from.Name, from.Revision, from.Rollout
		if f, ok := vs[one].value.(forced); ok {
			o.Layer, o.Revision, o.Rollout, o.Kill = f.kill.Layer+"/kill", f.kill.Revision, "", f.kill
		}
	}
	for _, layer := range slices.Backward(slices.Compact(slices.Sorted(slices.Values(hidden)))) {
		o.Shadowed = append(o.Shadowed, m.layers[layer].Name)
	}
	if at.lock < LevelEnvironment {
		o.Lock = at.lock.String()
	}
	if at.rule != nil && at.rule.clamp != nil {
		o.Clamp = at.rule.clamp.text
	}
	return o
}

// memberNames returns the names of all members, in order.
func memberNames(vs []set) []string {
	var names []string
	for _, v := range vs {
		o, _ := v.value.(Object)
		names = slices.AppendSeq(names, maps.Keys(o))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// version digests the merge code's version, the schema's defaults and keywords, each layer's name and content, and kills.
// What a rollout brings counts as another content than the same one in a document.
func version(s *Schema, layers []Layer, kills []Kill) string {
	h := sha256.New()
	h.Write([]byte{mergeVersion})
	put := func(b []byte) {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(b)))
		h.Write(size[:])
		h.Write(b)
	}
	if s != nil {
		put(s.digest[:])
		layers = layers[1:]
	}
	for _, l := range layers {
		put([]byte(l.Name))
		var revision [8]byte
		binary.BigEndian.PutUint64(revision[:], uint64(l.Revision)) //nolint:gosec // never negative
		put(revision[:])
		if l.Revision == 0 {
			put(Canonical(l.Object))
		}
		if l.Rollout != "" {
			put([]byte(l.Rollout))
		}
	}
	if len(kills) > 0 {
		put([]byte(killsText(kills)))
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}
