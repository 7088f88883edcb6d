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
const mergeVersion = 1

// Layer is what one layer sets, with where it comes from.
type Layer struct {
	// Name is "platform", "plans/{plan}", "regions/{region}", "parent", "tenants/{tenant}" or
	// "tenants/{tenant}/environments/{environment}"; "schema" for defaults.
	Name string
	// Revision wrote it; 0 for defaults.
	Revision int64
	// Object is its document.
	Object Object
}

// Origin tells where one leaf of an effective value comes from.
type Origin struct {
	// Pointer is the leaf's JSON pointer (RFC 6901).
	Pointer string
	// Layer and Revision set it.
	Layer    string
	Revision int64
	// Shadowed names the layers whose values it hides, nearest first.
	Shadowed []string
}

// Effective is what holds.
type Effective struct {
	// Object is the merged value.
	Object Object
	// Origins has one entry for each leaf, by pointer.
	Origins []Origin
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
}

// Layers returns the layers that there are, the widest first.
func (s Stack) Layers() []Layer {
	layers := []Layer{{Name: LayerSchema, Object: s.Schema.Defaults()}}
	for _, l := range []*Layer{s.Platform, s.Plan, s.Region, s.Parent, s.Tenant, s.Environment} {
		if l != nil {
			layers = append(layers, *l)
		}
	}
	return layers
}

// Effective merges the layers.
func (s Stack) Effective() Effective { return Merge(s.Layers()...) }

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

// Merge merges layers, the widest first: objects member by member, everything else
// as a whole by the last layer that sets it. null is a value. An empty object or an
// array is a leaf.
func Merge(layers ...Layer) Effective {
	m := &merger{layers: layers}
	object := Object{}
	if len(layers) > 0 {
		object, _ = m.merge("", all(layers), nil).(Object)
	}
	slices.SortFunc(m.origins, func(a, b Origin) int { return strings.Compare(a.Pointer, b.Pointer) })
	return Effective{Object: object, Origins: m.origins, Version: version(layers)}
}

// set is a value that a layer sets at some place.
type set struct {
	layer int
	value any
}

func all(layers []Layer) []set {
	out := make([]set, len(layers))
	for i, l := range layers {
		out[i] = set{i, l.Object}
	}
	return out
}

// merger walks all layers at once, so that the value and its provenance come from
// the same step.
type merger struct {
	layers  []Layer
	origins []Origin
}

// merge returns the value that holds at pointer. vs are what layers set there, the
// widest first, at least one; above are layers whose values are hidden already.
func (m *merger) merge(pointer string, vs []set, above []int) any {
	last := len(vs) - 1
	// An object lets what is beneath shine through until something else hides it.
	first := len(vs)
	for first > 0 {
		if _, ok := vs[first-1].value.(Object); !ok {
			break
		}
		first--
	}
	hidden := above
	for i := range min(first, last) {
		hidden = append(slices.Clip(hidden), vs[i].layer)
	}
	if first > last {
		m.leaf(pointer, vs[last:], hidden)
		return vs[last].value
	}
	out := make(Object)
	for _, name := range memberNames(vs[first:]) {
		var members []set
		for _, v := range vs[first:] {
			if o, _ := v.value.(Object); hasMember(o, name) {
				members = append(members, set{v.layer, o[name]})
			}
		}
		out[name] = m.merge(pointer+"/"+escape(name), members, hidden)
	}
	if len(out) == 0 && pointer != "" {
		m.leaf(pointer, vs[first:], hidden)
	}
	return out
}

func hasMember(o Object, name string) bool {
	_, ok := o[name]
	return ok
}

// leaf records where a leaf comes from: the last of vs. It hides the others and what
// was hidden already.
func (m *merger) leaf(pointer string, vs []set, hidden []int) {
	last := len(vs) - 1
	for _, v := range vs[:last] {
		hidden = append(slices.Clip(hidden), v.layer)
	}
	from := m.layers[vs[last].layer]
	o := Origin{Pointer: pointer, Layer: from.Name, Revision: from.Revision}
	for _, layer := range slices.Backward(slices.Sorted(slices.Values(hidden))) {
		o.Shadowed = append(o.Shadowed, m.layers[layer].Name)
	}
	m.origins = append(m.origins, o)
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

// escape writes a member's name for a JSON pointer.
func escape(name string) string {
	return strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1")
}

// version digests the merge code's version and each layer's name and content.
func version(layers []Layer) string {
	h := sha256.New()
	h.Write([]byte{mergeVersion})
	put := func(b []byte) {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(b)))
		h.Write(size[:])
		h.Write(b)
	}
	for _, l := range layers {
		put([]byte(l.Name))
		var revision [8]byte
		binary.BigEndian.PutUint64(revision[:], uint64(l.Revision)) //nolint:gosec // never negative
		put(revision[:])
		if l.Revision == 0 {
			put(Canonical(l.Object))
		}
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// Patch applies an RFC 7396 merge patch and returns the result; neither argument is
// changed.
func Patch(target, patch Object) Object {
	out := make(Object, len(target)+len(patch))
	maps.Copy(out, target)
	for name, v := range patch {
		switch v := v.(type) {
		case nil:
			delete(out, name)
		case Object:
			below, _ := out[name].(Object)
			out[name] = Patch(below, v)
		default:
			out[name] = v
		}
	}
	return out
}

// Pointer writes the JSON pointer (RFC 6901) of names.
func Pointer(names ...string) string {
	var b strings.Builder
	for _, name := range names {
		b.WriteByte('/')
		b.WriteString(escape(name))
	}
	return b.String()
}

// At returns the value at a JSON pointer; false when there is none.
func At(v any, pointer string) (any, bool) {
	if pointer == "" {
		return v, true
	}
	for _, part := range strings.Split(pointer, "/")[1:] {
		name := strings.ReplaceAll(strings.ReplaceAll(part, "~1", "/"), "~0", "~")
		switch in := v.(type) {
		case Object:
			below, ok := in[name]
			if !ok {
				return nil, false
			}
			v = below
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i < 0 || i >= len(in) {
				return nil, false
			}
			v = in[i]
		default:
			return nil, false
		}
	}
	return v, true
}
