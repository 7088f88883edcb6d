package jsonlogic

import (
	"math"
	"strconv"
	"strings"
)

// step is one name on a path, or one index.
type step struct {
	name  string
	index int // -1 where the name is no index
}

func stepOf(name string) step {
	const digits = 9
	if name == "" || len(name) > digits || strings.Trim(name, "0123456789") != "" {
		return step{name: name, index: -1}
	}
	index, err := strconv.Atoi(name)
	if err != nil {
		index = -1
	}
	return step{name: name, index: index}
}

// splitPath reads "a.b.0". Empty names count for nothing, as in flagd.
func splitPath(text string) []step {
	var path []step
	for name := range strings.SplitSeq(text, ".") {
		if name != "" {
			path = append(path, stepOf(name))
		}
	}
	return path
}

// at returns what an object or a list holds at a step, and null where it holds nothing.
func (v *Value) at(s *step) Value {
	switch {
	case v.many == nil:
	case v.kind == Object:
		if found := v.many.member(s.name); found != nil {
			return *found
		}
	case s.index >= 0 && s.index < len(v.many.items):
		return v.many.items[s.index]
	}
	return Value{}
}

// walk follows a path from the data in sight.
func (f *frame) walk(path []step) Value {
	if len(path) == 0 {
		return f.data()
	}
	from := f.near()
	if path[0].name == properties {
		all := f.data()
		from = &all
	}
	v := from.at(&path[0])
	for i := 1; i < len(path); i++ {
		v = v.at(&path[i])
	}
	return v
}

func buildVar(a args) expr {
	if len(a.list) == 0 {
		return (*frame).data
	}
	if !a.list[0].known {
		return eager(variable)(a)
	}
	path, ok := pathOf(a.list[0].value)
	if !ok {
		return thrower(invalidArgs).eval
	}
	find := variableAt(path)
	if len(a.list) != 2 {
		return find
	}
	fallback := a.list[1].eval
	return func(f *frame) Value {
		if v := find(f); !v.IsNull() {
			return v
		}
		return fallback(f)
	}
}

// variableAt looks a path up that stands in the rule. What we say of the evaluation is not put into an object first.
func variableAt(path []step) expr {
	find := func(f *frame) Value { return f.walk(path) }
	if len(path) == 1 && path[0].name != properties {
		only := path[0]
		return func(f *frame) Value { return f.near().at(&only) }
	}
	if len(path) != 2 || path[0].name != properties {
		return find
	}
	own := func(f *frame) Value { return OfString(f.in.FlagKey) }
	switch path[1].name {
	case "flagKey":
	case "timestamp":
		own = func(f *frame) Value { return OfNumber(float64(f.in.Timestamp)) }
	default:
		return find
	}
	return func(f *frame) Value {
		if f.atRoot() && f.in.FlagKey != "" {
			return own(f)
		}
		return find(f)
	}
}

// pathOf reads a path; null is the empty one. Lists and objects are none.
func pathOf(v Value) (path []step, ok bool) {
	text, ok := v.text()
	return splitPath(text), ok
}

// computed is pathOf for a path that the rule computes, which may be long.
func (f *frame) computed(v Value) (path []step, ok bool) {
	if !f.spendText(len(v.str)) {
		return nil, false
	}
	if path, ok = pathOf(v); !ok {
		f.throw(invalidArgs)
	}
	return path, ok
}

// variable looks up a path that the rule computes.
func variable(f *frame, args []Value) Value {
	if len(args) == 0 {
		return f.data()
	}
	path, ok := f.computed(args[0])
	if !ok {
		return Value{}
	}
	v := f.walk(path)
	if v.IsNull() && len(args) == 2 {
		return args[1]
	}
	return v
}

// val looks up a path whose names are its arguments; a first argument [n] begins n levels further out.
func val(f *frame, args []Value) Value {
	v, _ := f.search(args)
	return v
}

func exists(f *frame, args []Value) Value {
	_, found := f.search(args)
	return OfBool(found)
}

// search follows names outward and then in.
func (f *frame) search(args []Value) (v Value, found bool) {
	if len(args) > 0 && args[0].kind == List && len(args[0].Items()) > 0 {
		v, args = f.outward(args[0].Items()[0]), args[1:]
	} else {
		v = f.data()
	}
	for _, name := range args {
		text, ok := name.text()
		if !ok {
			return f.throw(invalidArgs), false
		}
		s := stepOf(text)
		if v.kind == Object {
			v, found = v.Member(s.name)
		} else {
			v = v.at(&s)
			found = !v.IsNull()
		}
		if !found {
			return Value{}, false
		}
	}
	return v, true
}

// outward is the data so many levels further out. Each walk over a list has two: the element, and {"index"} around it.
func (f *frame) outward(levels Value) Value {
	x := math.Abs(levels.number())
	if math.IsNaN(x) {
		return f.throw(invalidArgs)
	}
	n := int(min(x, 2*MaxDepth))
	inner := len(f.scopes) - 1 - n/2
	switch {
	case n%2 == 1 && inner >= 0:
		return OfMembers([]Member{{Name: "index", Value: OfNumber(float64(f.scopes[inner].index))}})
	case n%2 == 1 || inner < -1:
		return Value{}
	case inner == -1:
		return f.root()
	default:
		return f.scopes[inner].data
	}
}

// missing lists the paths that lead to nothing.
func missing(f *frame, args []Value) Value {
	if len(args) > 0 && args[0].kind == List {
		args = args[0].Items()
	}
	return OfList(f.absent(args))
}

// missingSome is missing, or nothing if enough paths lead to something.
func missingSome(f *frame, args []Value) Value {
	if len(args) < 2 || args[1].kind != List {
		return f.throw(invalidArgs)
	}
	wanted, paths := args[0].number(), args[1].Items()
	absent := f.absent(paths)
	if float64(len(paths)-len(absent)) >= wanted {
		absent = nil
	}
	return OfList(absent)
}

func (f *frame) absent(paths []Value) (absent []Value) {
	if !f.spend(len(paths)) {
		return nil
	}
	for _, p := range paths {
		path, ok := f.computed(p)
		if !ok {
			return nil
		}
		if f.walk(path).IsNull() {
			absent = append(absent, p)
		}
	}
	return absent
}
