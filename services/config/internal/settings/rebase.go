package settings

import (
	"maps"
	"slices"

	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// Conflict is a place that an edit wants to be otherwise than somebody else made it meanwhile.
type Conflict struct {
	// Pointer is the place's JSON pointer; empty for the whole document.
	Pointer string
	// Base is what the edit was made from, Current what stands now, Wanted what the edit wants: JSON, empty where there is
	// none.
	Base, Current, Wanted string
}

// Rebase does to the current document what leads from base to wanted. A nil document is none.
//
// It goes down into objects, as far as the schema has them merged member by member. A place that only one side changed
// is as that side made it, and so is one that both changed alike; where the two sides differ is a conflict. Without
// conflicts the result is wanted if nothing changed meanwhile, and current if the edit changes nothing.
func Rebase(s *sdk.Schema, base, wanted, current sdk.Object) (sdk.Object, []Conflict) {
	r := rebase{schema: s}
	merged := r.merge("", valueOf(base), valueOf(wanted), valueOf(current))
	o, _ := merged.v.(sdk.Object)
	return o, r.conflicts
}

type rebase struct {
	schema    *sdk.Schema
	conflicts []Conflict
}

// value is a value, or none.
type value struct {
	v  any
	is bool
}

func valueOf(o sdk.Object) value { return value{o, o != nil} }

func member(o sdk.Object, name string) value {
	v, ok := o[name]
	return value{v, ok}
}

// text is the value as JSON, empty for none.
func (v value) text() string {
	if !v.is {
		return ""
	}
	return string(sdk.Canonical(v.v))
}

func (r *rebase) merge(pointer string, base, wanted, current value) value {
	was, want, is := base.text(), wanted.text(), current.text()
	switch {
	case want == was:
		return current
	case is == was, is == want:
		return wanted
	}
	into, wants := r.object(pointer, current), r.object(pointer, wanted)
	if into == nil || wants == nil {
		r.conflicts = append(r.conflicts, Conflict{pointer, was, is, want})
		return current
	}
	from := r.object(pointer, base) // nil has no members
	merged := make(sdk.Object, len(into)+len(wants))
	names := slices.Concat(slices.Collect(maps.Keys(into)), slices.Collect(maps.Keys(wants)))
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		v := r.merge(pointer+sdk.Pointer(name), member(from, name), member(wants, name), member(into, name))
		if v.is {
			merged[name] = v.v
		}
	}
	return value{merged, true}
}

// object is the value if it is merged member by member, or nil.
func (r *rebase) object(pointer string, v value) sdk.Object {
	if !v.is || !r.schema.MergesMembers(pointer, v.v) {
		return nil
	}
	o, _ := v.v.(sdk.Object)
	return o
}
