package jsonlogic

import "math"

// split is what fractional chooses from.
type split struct {
	total    uint64
	bounds   []uint64 // where each variant's part ends
	variants []Value
}

// newSplit reads [variant, weight] pairs; problem says why they are none, as flagd would. A weight is 1 unless it is
// said; one below 0 comes from a computed rollout and counts as 0.
func newSplit(pairs []Value) (s split, problem string) {
	s = split{bounds: make([]uint64, len(pairs)), variants: make([]Value, len(pairs))}
	for i, pair := range pairs {
		items := pair.Items()
		if len(items) == 0 {
			return split{}, "a part of fractional is no list of a variant and a weight"
		}
		if s.variants[i] = items[0]; items[0].kind >= List {
			return split{}, "a variant of fractional is a list or an object"
		}
		weight := 1.0
		if len(items) > 1 && !items[1].IsNull() {
			weight = items[1].num
			switch {
			case items[1].kind != Number || weight != math.Trunc(weight) || weight < math.MinInt64:
				return split{}, "a weight of fractional is no integer"
			case weight > math.MaxInt32:
				return split{}, "a weight of fractional is beyond 2147483647"
			}
		}
		s.total += uint64(max(0, weight))
		s.bounds[i] = s.total
	}
	if s.total > math.MaxInt32 {
		return split{}, "the weights of fractional are together beyond 2147483647"
	}
	return s, ""
}

// pick chooses by a hash; null of nothing.
func (s *split) pick(hash uint32) Value {
	bucket := uint64(hash) * s.total >> 32
	for i, bound := range s.bounds {
		if bucket < bound {
			return s.variants[i]
		}
	}
	return Value{}
}

// fractional chooses among [variant, weight] pairs by the hash of its first argument, if that is text or null, or else
// of the flag's key and the targeting key.
func fractional(f *frame, args []Value) Value {
	if len(args) == 0 {
		return Value{}
	}
	var hash uint32
	var ok bool
	switch args[0].kind {
	case String:
		ok = f.spendText(len(args[0].str))
		hash, args = Murmur3(args[0].str), args[1:]
	case Null:
		args = args[1:]
		fallthrough
	default:
		hash, ok = f.subjectHash()
	}
	s, problem := newSplit(args)
	if !ok || problem != "" {
		return Value{}
	}
	return s.pick(hash)
}

// subjectHash hashes the flag's key and the targeting key; ok is false without one.
func (f *frame) subjectHash() (hash uint32, ok bool) {
	subject := f.near().at(&step{name: "targetingKey", index: -1})
	if subject.kind != String || subject.str == "" {
		return 0, false
	}
	var m murmur
	if f.atRoot() {
		m.write(f.in.FlagKey)
	}
	m.write(subject.str)
	return m.sum(), true
}

// buildFractional computes the parts beforehand if they stand in the rule, and joins no text to hash it.
func buildFractional(a args) expr {
	if !a.literal || len(a.list) == 0 {
		return eager(fractional)(a)
	}
	key, pairs := a.list[0], a.list[1:]
	own := key.known && key.value.kind != String // the key is the subject's
	if own && !key.value.IsNull() {
		pairs = a.list
	}
	known, ok := values(pairs)
	if !ok {
		return eager(fractional)(a)
	}
	s, problem := newSplit(known)
	if problem != "" {
		s = split{}
	}
	switch {
	case own:
		return func(f *frame) Value {
			hash, ok := f.subjectHash()
			if !ok {
				return Value{}
			}
			return s.pick(hash)
		}
	case key.parts != nil:
		return func(f *frame) Value { return s.pick(f.hashOf(key.parts)) }
	default:
		return func(f *frame) Value {
			switch v := key.eval(f); v.kind {
			case String:
				if !f.spendText(len(v.str)) {
					return Value{}
				}
				return s.pick(Murmur3(v.str))
			case Null:
				hash, ok := f.subjectHash()
				if !ok {
					return Value{}
				}
				return s.pick(hash)
			case List: // and so it is the first pair
				return fractional(f, append([]Value{v}, known...))
			default:
				return Value{}
			}
		}
	}
}

// hashOf hashes the text that a cat of the expressions would make.
func (f *frame) hashOf(parts []node) uint32 {
	var m murmur
	for i := range parts {
		v := parts[i].eval(f)
		if v.kind == String {
			if f.spendText(len(v.str)) {
				m.write(v.str)
			}
			continue
		}
		var digits [32]byte
		text, ok := v.appendText(digits[:0])
		if !ok {
			f.throw(invalidArgs)
		}
		for _, c := range text {
			m.writeByte(c)
		}
	}
	return m.sum()
}

// checkFractional says what can be said before evaluating.
func checkFractional(a args) string {
	pairs := a.list
	if len(pairs) > 0 && (!pairs[0].known || pairs[0].value.kind != List) {
		pairs = pairs[1:]
	}
	if known, ok := values(pairs); ok && a.literal {
		_, problem := newSplit(known)
		return problem
	}
	return ""
}
