// Package flagset evaluates feature flags in flagd's format.
//
// A document, as settings.Parse reads it, is compiled once: flags with state, variants, defaultVariant and targeting,
// shared rules in $evaluators, and metadata. Evaluating one flag then reads no JSON and, for most rules, allocates
// nothing. The answers are flagd's (github.com/open-feature/flagd/core v0.16.0), but for what docs/flagd-differences.md
// lists; a test in bench/peers compares. A flag that is broken, or whose rule does too much, fails alone.
//
// The package knows neither the wire nor a database. Start at [Compile], [NewContext] and [Set.Evaluate]; who publishes
// documents calls [Validate].
package flagset

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/flags/jsonlogic"
)

// ErrDocument is wrapped by what [Compile] refuses. What is wrong in one flag is no such error.
var ErrDocument = errors.New("flagset: not a document of flags")

// Set is a compiled document. It is immutable and safe for concurrent use.
type Set struct {
	flags    map[string]*flag
	base     *Set            // has the flags that are not in flags; nil if there are no others
	keys     []string        // of all flags, in order
	timed    []string        // those of flags whose rules read the time
	private  map[string]bool // shared rules that have conditions
	metadata map[string]any
	shared   map[string]any // $evaluators
	now      func() time.Time
}

// flag is one compiled flag.
type flag struct {
	key      string
	raw      any // as the document has it
	state    state
	variants map[string]*variant
	fallback *variant // the default variant, if there is one
	unknown  bool     // a default variant is named and does not exist
	rule     *jsonlogic.Rule
	times    jsonlogic.Times
	private  bool // its rule has conditions, which other evaluators do not know
	metadata map[string]any
	digest   [sha256.Size]byte // of raw
}

// state says how a flag is evaluated.
type state uint8

const (
	broken   state = iota // its definition cannot be read
	disabled              // by its state
	static                // without targeting
	targeted
)

// variant is a value that a flag can have.
type variant struct {
	name  string
	value any
	plain jsonlogic.Value // the value if it is a boolean, a number or a string
}

// Compile compiles a document as encoding/json decodes it: a whole file, or one merged of several layers. It keeps parts
// of it, which must not change. The clock is asked by flags whose rules read $flagd.timestamp.
func Compile(document map[string]any, now func() time.Time, with ...Option) (*Set, error) {
	return CompileOver(nil, document, now, with...)
}

// Option is a choice for [Compile] and [Validate].
type Option func(*compiler)

// WithConditions has rules hold conditions in another language, {"cel": "…"}. Without it a flag that has one, in whatever
// branch of its rule, is broken: it fails alone, and always.
func WithConditions(c jsonlogic.Conditions) Option { return func(k *compiler) { k.rules.Accept(c) } }

// CompileOver is Compile for a document that differs little from that of base: what does not differ is base's, so that a
// thousand such sets are little more than one. A nil base has nothing.
func CompileOver(base *Set, document map[string]any, now func() time.Time, with ...Option) (*Set, error) {
	c, err := newCompiler(document, with)
	if err != nil {
		return nil, err
	}
	s := &Set{flags: make(map[string]*flag), metadata: c.metadata, shared: c.shared, now: now, private: c.private()}
	if base.covers(c) {
		s.base, s.metadata, s.shared, s.private = base, base.metadata, base.shared, base.private
	}
	for _, d := range c.flags {
		f := s.base.flag(d.key)
		if f == nil || !reflect.DeepEqual(f.raw, d.raw) {
			f = c.flag(d)
			s.flags[d.key] = f
		}
		s.keys = append(s.keys, d.key)
		if f.times.Read {
			s.timed = append(s.timed, d.key)
		}
	}
	slices.Sort(s.keys)
	slices.Sort(s.timed)
	if s.base != nil && slices.Equal(s.keys, base.keys) {
		s.keys = base.keys
	}
	if s.base != nil && slices.Equal(s.timed, base.timed) {
		s.timed = base.timed
	}
	return s, nil
}

// private are the shared rules with conditions, nil for none.
func (c *compiler) private() (found map[string]bool) {
	for name, rule := range c.shared {
		if c.rules.HasCondition(rule) {
			if found == nil {
				found = make(map[string]bool)
			}
			found[name] = true
		}
	}
	return found
}

// covers reports whether the set's flags mean the same in the compiler's document, and it has all of them.
func (s *Set) covers(c *compiler) bool {
	if s == nil || s.base != nil || !reflect.DeepEqual(s.shared, c.shared) || !reflect.DeepEqual(s.metadata, c.metadata) {
		return false
	}
	known := 0
	for _, d := range c.flags {
		if s.flags[d.key] != nil {
			known++
		}
	}
	return known == len(s.flags)
}

// flag returns a flag, nil if there is none.
func (s *Set) flag(key string) *flag {
	if s == nil {
		return nil
	}
	if f := s.flags[key]; f != nil || s.base == nil {
		return f
	}
	return s.base.flags[key]
}

// compiler compiles the flags of one document.
type compiler struct {
	rules    *jsonlogic.Library
	flags    []definition
	metadata map[string]any
	shared   map[string]any
	problems []Problem
}

// definition is a flag as the document has it.
type definition struct {
	key  string
	path []string
	raw  any
}

// newCompiler reads the outside of a document.
func newCompiler(document map[string]any, with []Option) (*compiler, error) {
	c := &compiler{metadata: map[string]any{}}
	var ok bool
	if raw, exists := document["metadata"]; exists && raw != nil {
		if c.metadata, ok = raw.(map[string]any); !ok {
			return nil, fmt.Errorf("%w: /metadata is no object", ErrDocument)
		}
	}
	if raw, exists := document["$evaluators"]; exists && raw != nil {
		if c.shared, ok = raw.(map[string]any); !ok {
			return nil, fmt.Errorf("%w: /$evaluators is no object", ErrDocument)
		}
	}
	c.rules = jsonlogic.NewLibrary(c.shared)
	for _, option := range with {
		option(c)
	}
	return c, c.list(document["flags"])
}

// list reads flags by key, or a list of flags with their keys inside.
func (c *compiler) list(raw any) error {
	switch flags := raw.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(flags)) {
			c.flags = append(c.flags, definition{key: key, path: []string{"flags", key}, raw: flags[key]})
		}
	case []any:
		seen := map[string]bool{}
		for i, flag := range flags {
			members, _ := flag.(map[string]any)
			key, ok := members["key"].(string)
			if !ok || key == "" || seen[key] {
				return fmt.Errorf("%w: /flags/%d/key is no string, empty, or another flag's", ErrDocument, i)
			}
			seen[key] = true
			c.flags = append(c.flags, definition{key: key, path: []string{"flags", strconv.Itoa(i)}, raw: flag})
		}
	default:
		return fmt.Errorf("%w: /flags is neither an object nor a list", ErrDocument)
	}
	return nil
}

// flag compiles one flag. What cannot be read leaves it broken, and is a problem.
func (c *compiler) flag(d definition) *flag {
	f := &flag{key: d.key, raw: d.raw, metadata: c.metadata, digest: digestOf(d.raw)}
	members, ok := d.raw.(map[string]any)
	if !ok {
		c.problem(d, "", "is no object")
		return f
	}
	if !c.readMetadata(f, d, members["metadata"]) || !c.readVariants(f, d, members["variants"]) {
		return f
	}
	switch name := members["defaultVariant"].(type) {
	case nil:
	case string: // an empty one is none, as in flagd
		f.fallback = f.variants[name]
		if f.unknown = f.fallback == nil && name != ""; f.unknown {
			c.problem(d, "defaultVariant", "names no variant")
		}
	default:
		c.problem(d, "defaultVariant", "is neither a string nor null")
		return f
	}
	targeting, exists := members["targeting"]
	f.state = static
	if rule, ok := targeting.(map[string]any); exists && !(ok && len(rule) == 0) {
		f.state, f.rule = targeted, c.rules.Compile(targeting, append(slices.Clone(d.path), "targeting")...)
		f.times, f.private = c.rules.Times(targeting), c.rules.HasCondition(targeting)
		if !c.rules.Evaluates(targeting) {
			f.state = broken
		}
	}
	switch members["state"] {
	case "ENABLED":
	case "DISABLED":
		f.state, f.times = disabled, jsonlogic.Times{}
	default: // enabled, as in flagd
		c.problem(d, "state", "is neither ENABLED nor DISABLED")
	}
	return f
}

// readMetadata puts the flag's metadata over the set's; null takes nothing away.
func (c *compiler) readMetadata(f *flag, d definition, raw any) bool {
	own, ok := raw.(map[string]any)
	if !ok && raw != nil {
		c.problem(d, "metadata", "is no object")
		return false
	}
	if len(own) == 0 {
		return true
	}
	f.metadata = maps.Clone(c.metadata)
	for name, value := range own {
		if value != nil {
			f.metadata[name] = value
		}
	}
	return true
}

func (c *compiler) readVariants(f *flag, d definition, raw any) bool {
	values, ok := raw.(map[string]any)
	if !ok && raw != nil {
		c.problem(d, "variants", "is no object")
		return false
	}
	if len(values) == 0 {
		c.problem(d, "variants", "has none")
	}
	f.variants = make(map[string]*variant, len(values))
	for name, value := range values {
		v := &variant{name: name, value: value}
		switch value.(type) {
		case bool, float64, string:
			plain, err := jsonlogic.Of(value)
			if err != nil {
				c.problem(d, "variants", "has a number that is none")
				return false
			}
			v.plain = plain
		}
		f.variants[name] = v
	}
	return true
}

// Keys returns the keys of all flags, in order. Do not change it.
func (s *Set) Keys() []string { return s.keys }

// Timed returns the keys of the flags whose answers can depend on the time, in order: see [Set.Times]. Do not change it.
func (s *Set) Timed() []string { return s.timed }

// Metadata returns the set's own metadata. Do not change it.
func (s *Set) Metadata() map[string]any { return s.metadata }

// Digest is one of the content: sets with equal digests give equal answers, in all processes.
func (s *Set) Digest() [sha256.Size]byte {
	all := make([]byte, 0, (len(s.keys)+1)*2*sha256.Size)
	put := func(digest [sha256.Size]byte) { all = append(all, digest[:]...) }
	put(digestOf(s.metadata))
	put(digestOf(s.shared))
	for _, key := range s.keys {
		put(sha256.Sum256([]byte(key)))
		put(s.flag(key).digest)
	}
	return sha256.Sum256(all)
}

// digestOf writes maps by their sorted names, as encoding/json does.
func digestOf(v any) [sha256.Size]byte {
	text, err := json.Marshal(v)
	if err != nil {
		text = fmt.Appendf(nil, "%v", v) // a number that is none, which JSON never decodes to
	}
	return sha256.Sum256(text)
}

// Has reports whether there is a flag with the key.
func (s *Set) Has(key string) bool { return s.flag(key) != nil }

// Document returns the flags as a document by which another evaluator gives the same answers. What it could not evaluate
// is left out: flags and shared rules that have conditions in CEL. Do not change it.
func (s *Set) Document() map[string]any {
	flags := make(map[string]any, len(s.flags))
	for _, key := range s.keys {
		if f := s.flag(key); !f.private {
			flags[key] = f.raw
		}
	}
	out := map[string]any{"flags": flags}
	shared := s.shared
	if len(s.private) > 0 {
		shared = maps.Clone(shared)
		maps.DeleteFunc(shared, func(name string, _ any) bool { return s.private[name] })
	}
	if len(shared) > 0 {
		out["$evaluators"] = shared
	}
	if len(s.metadata) > 0 {
		out["metadata"] = s.metadata
	}
	return out
}

// Changed returns the keys, in order, whose answers may be other than those of old: every key when shared rules or the
// metadata of the set changed. A nil old had no flags.
func (s *Set) Changed(old *Set) []string {
	if old == nil {
		return s.Keys()
	}
	all := !reflect.DeepEqual(s.shared, old.shared) || !reflect.DeepEqual(s.metadata, old.metadata)
	var keys []string
	for _, key := range s.keys {
		f := s.flag(key)
		if was := old.flag(key); all || was == nil || f != was && !reflect.DeepEqual(f.raw, was.raw) {
			keys = append(keys, key)
		}
	}
	for _, key := range old.keys {
		if s.flag(key) == nil {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// Times says how the answer for a flag depends on the time. Bulk answers that are cached by their context need it, and
// so does who tells clients when to ask again.
func (s *Set) Times(key string) jsonlogic.Times {
	if f := s.flag(key); f != nil {
		return f.times
	}
	return jsonlogic.Times{}
}
