package settings

import (
	"fmt"
	"maps"
	"slices"
)

// Keywords of a schema that say how layers are merged. They act on the root and where "properties" and
// "additionalProperties" lead from there, and nowhere else.
const (
	// keywordMerge is "deep", the default where layers set objects; "replace", the default elsewhere: the nearest layer
	// counts as a whole; "append": arrays are joined, the widest layer's first; or {"map": "id"}: arrays of objects are
	// merged element by element, where the member "id" says which belong together.
	keywordMerge = "x-merge"
	// keywordLock names the narrowest layer that may set what is at this place and below it: "platform", "plan",
	// "region" or "tenant". What narrower layers set there does not hold. There is no lock "parent", since one
	// document is what a tenant sets and what its children see as their parent's.
	keywordLock = "x-lock"
	// keywordClamp bounds what layers narrower than the platform may set: numbers by "min" and "max", all values by
	// "enum". What is out of bounds does not hold, as behind a lock: the next wider layer's value does.
	keywordClamp = "x-clamp"
	// keywordEditable, true, lets the tenant itself set what is at this place and below it.
	keywordEditable = "x-tenant-editable"
	// keywordSecret, true, on a text: what stands here is not the text but a reference to it; see [Reference]. Anything else
	// does not hold, so that no value of a secret is ever served from a document.
	keywordSecret = "x-secret"
	// memberUnset, true and alone in an object, stands where a layer takes away what wider layers set, defaults
	// included. An element of a mapped array has it beside its key.
	memberUnset = "$unset"
)

// keywords are all of ours that act on one place.
func keywords() []string {
	return []string{keywordMerge, keywordLock, keywordClamp, keywordEditable, keywordKill, keywordSecret}
}

// Level is how narrow a layer is.
type Level int

// The levels, the widest first.
const (
	LevelSchema Level = iota
	LevelPlatform
	LevelPlan
	LevelRegion
	LevelParent
	LevelTenant
	LevelEnvironment
)

// String returns the level's word, as locks name it.
func (l Level) String() string {
	return [...]string{"schema", "platform", "plan", "region", "parent", "tenant", "environment"}[l]
}

// lockable are the levels that a lock may name.
func lockable() []Level { return []Level{LevelPlatform, LevelPlan, LevelRegion, LevelTenant} }

// manner is how the values of several layers at one place become one.
type manner int

const (
	deep    manner = iota // objects member by member, all else as a whole
	replace               // as a whole
	joined                // arrays end to end
	mapped                // arrays by a key of their elements
)

// rule is what the keywords say of one place. Nil says nothing.
type rule struct {
	manner   manner
	key      string // of a mapped array
	lock     Level
	beneath  Level // the widest lock here or below
	clamp    *clamp
	editable bool
	killable bool
	safe     any // the value once it is killed
	secret   bool
	members  map[string]*rule
	others   *rule
}

// readRule reads the keywords of a schema; nil when it and what is below it have none.
func readRule(schema Object) *rule {
	r := &rule{lock: LevelEnvironment}
	r.manner, r.key = readManner(schema[keywordMerge])
	for _, l := range lockable() {
		if schema[keywordLock] == l.String() {
			r.lock = l
		}
	}
	if c, ok := schema[keywordClamp].(Object); ok {
		r.clamp = readClamp(c)
	}
	r.editable = schema[keywordEditable] == true
	r.safe, r.killable = readSafe(schema)
	if r.secret = schema[keywordSecret] == true; r.secret {
		r.manner = replace // a reference is one value, not two members that layers set apart
	}
	r.beneath = r.lock
	properties, _ := schema["properties"].(Object)
	for name, p := range properties {
		property, _ := p.(Object)
		if below := readRule(property); below != nil {
			if r.members == nil {
				r.members = make(map[string]*rule)
			}
			r.members[name] = below
			r.beneath = min(r.beneath, below.beneath)
		}
	}
	if others, ok := schema["additionalProperties"].(Object); ok {
		if r.others = readRule(others); r.others != nil {
			r.beneath = min(r.beneath, r.others.beneath)
			// A property without keywords is no additional one.
			for name := range properties {
				if r.members[name] == nil {
					if r.members == nil {
						r.members = make(map[string]*rule)
					}
					r.members[name] = &rule{lock: LevelEnvironment, beneath: LevelEnvironment}
				}
			}
		}
	}
	said := r.lock != LevelEnvironment || r.clamp != nil || r.editable || r.killable || r.secret
	if r.manner == deep && !said && r.members == nil && r.others == nil {
		return nil
	}
	return r
}

func readManner(v any) (manner, string) {
	if o, ok := v.(Object); ok {
		if key, ok := o["map"].(string); ok {
			return mapped, key
		}
	}
	switch v {
	case "replace":
		return replace, ""
	case "append":
		return joined, ""
	default:
		return deep, ""
	}
}

// member is the rule of a member.
func (r *rule) member(name string) *rule {
	if r == nil {
		return nil
	}
	if below, ok := r.members[name]; ok {
		return below
	}
	return r.others
}

// how is the rule's manner and, of a mapped array, the key.
func (r *rule) how() (manner, string) {
	if r == nil {
		return deep, ""
	}
	return r.manner, r.key
}

// merges says whether a value lets what wider layers set shine through.
func (r *rule) merges(v any) bool {
	switch how, key := r.how(); how {
	case deep:
		_, ok := v.(Object)
		return ok && !isUnset(v)
	case joined:
		_, ok := v.([]any)
		return ok
	case mapped:
		a, ok := v.([]any)
		return ok && elementsOf(a, key) != nil
	default:
		return false
	}
}

// refuses is the keyword because of which a layer's value does not hold, "" when it does. It is the one place that
// decides that, for writers and for readers.
func (r *rule) refuses(l Level, v any) string {
	switch {
	case r == nil || l == LevelSchema || l == levelKill:
		return ""
	case r.secret && !isUnset(v) && !isReference(v):
		return keywordSecret
	case l > r.lock:
		return keywordLock
	case l > r.beneath && !(r.manner == deep && r.merges(v)):
		return keywordLock // it would take away, or hide, what is locked below
	case l > LevelPlatform && r.clamp != nil && !isUnset(v) && !r.clamp.allows(v):
		return keywordClamp
	default:
		return ""
	}
}

// isUnset says whether a value takes away what wider layers set.
func isUnset(v any) bool {
	o, ok := v.(Object)
	return ok && len(o) == 1 && o[memberUnset] == true
}

// element is an element of a mapped array: what one layer says of a key.
type element struct {
	key   string
	value any
}

// elementsOf reads a mapped array; nil when it is none, because an element is no object, has no text for a key, or has
// that of another. An element that takes away becomes what isUnset tells.
func elementsOf(a []any, key string) []element {
	out := make([]element, 0, len(a))
	seen := make(map[string]bool, len(a))
	for _, v := range a {
		o, _ := v.(Object)
		k, ok := o[key].(string)
		if !ok || seen[k] {
			return nil
		}
		seen[k] = true
		if len(o) == 2 && o[memberUnset] == true {
			v = Object{memberUnset: true}
		}
		out = append(out, element{k, v})
	}
	return out
}

// clamp is what values are bounded by.
type clamp struct {
	min, max *float64
	enum     map[string]bool // canonical texts; nil for any
	text     string
}

func readClamp(o Object) *clamp {
	c := &clamp{text: string(Canonical(o))}
	for name, bound := range map[string]**float64{"min": &c.min, "max": &c.max} {
		if f, ok := o[name].(float64); ok {
			*bound = &f
		}
	}
	if values, ok := o["enum"].([]any); ok {
		c.enum = make(map[string]bool)
		for _, v := range values {
			c.enum[string(Canonical(v))] = true
		}
	}
	return c
}

func (c *clamp) allows(v any) bool {
	if f, ok := v.(float64); ok && (c.min != nil && f < *c.min || c.max != nil && f > *c.max) {
		return false
	}
	return c.enum == nil || c.enum[string(Canonical(v))]
}

// keywordsOf is a schema without all that merging does not read.
func keywordsOf(schema Object) Object {
	out := Object{}
	for _, name := range keywords() {
		if v, ok := schema[name]; ok {
			out[name] = v
		}
	}
	below := Object{}
	properties, _ := schema["properties"].(Object)
	for name, p := range properties {
		property, _ := p.(Object)
		below[name] = keywordsOf(property)
	}
	others, additional := schema["additionalProperties"].(Object)
	if additional {
		if others = keywordsOf(others); len(others) > 0 {
			out["additionalProperties"] = others
		}
	}
	if len(others) == 0 { // names alone matter only beside others
		maps.DeleteFunc(below, func(_ string, v any) bool { return len(v.(Object)) == 0 }) //nolint:forcetypeassert // set above
	}
	if len(below) > 0 {
		out["properties"] = below
	}
	return out
}

// Refused tells what of a layer's document would not hold because a lock or a clamp is against it, and where it says
// what cannot be merged or is no reference to a secret. The rules are "x-lock", "x-clamp", "x-merge", "$unset" and "x-secret".
func (s *Schema) Refused(l Level, document Object) []Problem {
	w := &walk{level: l}
	if isUnset(document) {
		w.add("", memberUnset, unsetText)
		return w.found
	}
	w.value(s.rules(), "", document)
	slices.SortFunc(w.found, compareProblems)
	return w.found
}

const unsetText = `must stand alone in an object, with true, where a value is taken away`

// walk collects what is refused.
type walk struct {
	level Level
	found []Problem
}

func (w *walk) add(pointer, rule, text string) {
	w.found = append(w.found, Problem{Pointer: pointer, Rule: rule, Text: text})
}

func (w *walk) value(r *rule, pointer string, v any) {
	switch r.refuses(w.level, v) {
	case keywordLock:
		lock := r.lock
		if w.level <= lock {
			lock = r.beneath
		}
		w.add(pointer, keywordLock, fmt.Sprintf("may not be set by a layer narrower than the %s's", lock))
		return
	case keywordClamp:
		w.add(pointer, keywordClamp, "is not within what layers narrower than the platform may set: "+r.clamp.text)
		return
	case keywordSecret:
		w.add(pointer, keywordSecret, referenceText)
		return
	}
	if isUnset(v) {
		return
	}
	how, key := r.how()
	switch v := v.(type) {
	case Object:
		for name, below := range v {
			switch {
			case name == memberUnset:
				w.add(pointer+"/"+memberUnset, memberUnset, unsetText)
			case how == deep:
				w.value(r.member(name), pointer+Pointer(name), below)
			default:
				w.data(pointer+Pointer(name), below)
			}
		}
	case []any:
		w.array(how, key, pointer, v)
	}
}

func (w *walk) array(how manner, key, pointer string, v []any) {
	if how != mapped {
		w.data(pointer, v)
		return
	}
	elements := elementsOf(v, key)
	if elements == nil {
		w.add(pointer, keywordMerge, fmt.Sprintf("must hold objects whose members %q are different texts", key))
	}
	for i, e := range elements {
		w.value(nil, fmt.Sprintf("%s/%d", pointer, i), e.value)
	}
}

// data looks at what is never merged: nothing in it can take a value away.
func (w *walk) data(pointer string, v any) {
	switch v := v.(type) {
	case Object:
		for name, below := range v {
			if name == memberUnset {
				w.add(pointer+"/"+memberUnset, memberUnset, unsetText)
			}
			w.data(pointer+Pointer(name), below)
		}
	case []any:
		for i, below := range v {
			w.data(fmt.Sprintf("%s/%d", pointer, i), below)
		}
	}
}

// Editable says whether the tenant itself may set the value at a JSON pointer.
func (s *Schema) Editable(pointer string) bool {
	r := s.rules()
	for _, name := range names(pointer) {
		if r == nil || r.editable {
			break
		}
		if r.manner != deep {
			return false
		}
		r = r.member(name)
	}
	return r != nil && r.editable
}
