package jsonlogic

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"sync/atomic"
)

// Kind says what a [Value] is.
type Kind uint8

// The kinds of JSON.
const (
	Null Kind = iota
	Bool
	Number
	String
	List
	Object
)

// Value is one JSON value. It is small, is passed by value, and never changes: lists and objects are shared.
// The zero Value is null.
type Value struct {
	kind Kind
	num  float64 // of a Number; 1 of true
	str  string  // of a String
	many *many   // of a List or an Object that is not empty
}

// many is what a list or an object holds.
type many struct {
	items   []Value
	members []Member // by name
	// shared is what [Value.Shared] made.
	shared atomic.Pointer[any]
}

// Member is one name of an object with its value.
type Member struct {
	Name  string
	Value Value
}

// OfBool returns a boolean.
func OfBool(b bool) Value {
	if b {
		return Value{kind: Bool, num: 1}
	}
	return Value{kind: Bool}
}

// OfNumber returns a number. NaN and the infinities are no JSON: do not pass them.
func OfNumber(f float64) Value { return Value{kind: Number, num: f} }

// OfString returns a string.
func OfString(s string) Value { return Value{kind: String, str: s} }

// OfList returns a list that holds items, which must not change any more.
func OfList(items []Value) Value {
	if len(items) == 0 {
		return Value{kind: List}
	}
	return Value{kind: List, many: &many{items: items}}
}

// OfMembers returns an object. It sorts members and keeps them; of two with one name either may be found.
func OfMembers(members []Member) Value {
	if len(members) == 0 {
		return Value{kind: Object}
	}
	byName := func(a, b Member) int { return cmp.Compare(a.Name, b.Name) }
	if !slices.IsSortedFunc(members, byName) {
		slices.SortFunc(members, byName)
	}
	return Value{kind: Object, many: &many{members: members}}
}

// Kind says what the value is.
func (v Value) Kind() Kind { return v.kind }

// IsNull reports whether the value is null.
func (v Value) IsNull() bool { return v.kind == Null }

// Bool returns the boolean, and false of another kind.
func (v Value) Bool() bool { return v.kind == Bool && v.num != 0 }

// Number returns the number, and 0 of another kind.
func (v Value) Number() float64 {
	if v.kind != Number {
		return 0
	}
	return v.num
}

// String returns the string, and what Go would print of another kind.
func (v Value) String() string {
	if v.kind != String {
		return fmt.Sprint(v.Any())
	}
	return v.str
}

// Items returns the values of a list, and nothing of another kind. Do not change them.
func (v Value) Items() []Value {
	if v.kind != List || v.many == nil {
		return nil
	}
	return v.many.items
}

// Members returns the members of an object by name, and nothing of another kind. Do not change them.
func (v Value) Members() []Member {
	if v.kind != Object || v.many == nil {
		return nil
	}
	return v.many.members
}

// Member returns what an object holds under a name; found is false where it holds nothing.
func (v Value) Member(name string) (found Value, ok bool) {
	if v.kind != Object || v.many == nil {
		return Value{}, false
	}
	at := v.many.member(name)
	if at == nil {
		return Value{}, false
	}
	return *at, true
}

// member returns nil where there is none.
func (m *many) member(name string) *Value {
	const few = 16
	if len(m.members) <= few { // then looking at each is faster than halving
		for i := range m.members {
			if at := &m.members[i]; at.Name == name {
				return &at.Value
			}
		}
		return nil
	}
	i := sort.Search(len(m.members), func(i int) bool { return m.members[i].Name >= name })
	if i < len(m.members) && m.members[i].Name == name {
		return &m.members[i].Value
	}
	return nil
}

// Any returns the value as encoding/json would decode it into an any.
func (v Value) Any() any {
	switch v.kind {
	case Bool:
		return v.num != 0
	case Number:
		return v.num
	case String:
		return v.str
	case List:
		items := make([]any, len(v.Items()))
		for i, item := range v.Items() {
			items[i] = item.Any()
		}
		return items
	case Object:
		members := make(map[string]any, len(v.Members()))
		for _, m := range v.Members() {
			members[m.Name] = m.Value.Any()
		}
		return members
	default:
		return nil
	}
}

// Shared is [Value.Any], but a list or an object is made once and everybody gets the same: do not change it.
func (v Value) Shared() any {
	if v.many == nil {
		return v.Any()
	}
	if made := v.many.shared.Load(); made != nil {
		return *made
	}
	made := v.Any() // by several at once, if they come together
	v.many.shared.Store(&made)
	return made
}

// maxNesting bounds how deep the values of [Of] are.
const maxNesting = 64

// ErrValue is wrapped by what [Of] refuses.
var ErrValue = errors.New("jsonlogic: not a JSON value")

// Of turns what encoding/json decodes, and Go's own integers and floats, into a value. It refuses other types, numbers
// that are not finite, and what is nested deeper than 64.
func Of(x any) (Value, error) { return of(x, 0) }

func of(x any, depth int) (Value, error) {
	if depth > maxNesting {
		return Value{}, fmt.Errorf("%w: deeper than %d", ErrValue, maxNesting)
	}
	switch x := x.(type) {
	case nil:
		return Value{}, nil
	case bool:
		return OfBool(x), nil
	case string:
		return OfString(x), nil
	case []any:
		items := make([]Value, len(x))
		for i, item := range x {
			var err error
			if items[i], err = of(item, depth+1); err != nil {
				return Value{}, err
			}
		}
		return OfList(items), nil
	case map[string]any:
		members := make([]Member, 0, len(x))
		for name, member := range x {
			v, err := of(member, depth+1)
			if err != nil {
				return Value{}, err
			}
			members = append(members, Member{Name: name, Value: v})
		}
		return OfMembers(members), nil
	default:
		return ofNumber(x)
	}
}

func ofNumber(x any) (Value, error) {
	var f float64
	switch x := x.(type) {
	case float64:
		f = x
	case float32:
		f = float64(x)
	case int:
		f = float64(x)
	case int32:
		f = float64(x)
	case int64:
		f = float64(x)
	case uint32:
		f = float64(x)
	case uint64:
		f = float64(x)
	case json.Number:
		var err error
		if f, err = x.Float64(); err != nil {
			return Value{}, fmt.Errorf("%w: %q", ErrValue, x)
		}
	default:
		return Value{}, fmt.Errorf("%w: %T", ErrValue, x)
	}
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return Value{}, fmt.Errorf("%w: not a finite number", ErrValue)
	}
	return OfNumber(f), nil
}
