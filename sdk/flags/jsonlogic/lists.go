package jsonlogic

import "strings"

// buildIn makes a set of a list of many strings that stands in the rule.
func buildIn(a args) expr {
	const few = 8
	if !a.literal || len(a.list) < 2 || !a.list[1].known || len(a.list[1].value.Items()) <= few {
		return pair(in, inFirst)(a)
	}
	set := make(map[string]bool)
	var others []Value
	for _, v := range a.list[1].value.Items() {
		if v.kind == String {
			set[v.str] = true
		} else {
			others = append(others, v)
		}
	}
	wanted := a.list[0].eval
	return func(f *frame) Value {
		v := wanted(f)
		if v.kind == String {
			return OfBool(set[v.str])
		}
		return OfBool(f.among(v, others))
	}
}

// in reports whether a list holds a value, or text other text. Nothing else holds anything, and what is absent is in no
// text.
func in(f *frame, wanted, where Value) Value {
	switch {
	case where.kind == List:
		return OfBool(f.among(wanted, where.Items()))
	case where.kind != String || wanted.kind == Null:
		return OfBool(false)
	}
	text, ok := wanted.text()
	if !ok {
		return f.throw(invalidArgs)
	}
	return OfBool(f.spendText(len(where.str)) && strings.Contains(where.str, text))
}

// inFirst takes the first two of its arguments.
func inFirst(f *frame, args []Value) Value {
	if len(args) < 2 {
		return OfBool(false)
	}
	return in(f, args[0], args[1])
}

func (f *frame) among(wanted Value, items []Value) bool {
	if !f.spend(len(items)) {
		return false
	}
	for i := range items {
		if strict(wanted, items[i]) {
			return true
		}
	}
	return false
}

// merge makes one list of lists and of values.
func merge(f *frame, args []Value) Value {
	length := 0
	for _, v := range args {
		length += max(1, len(v.Items()))
	}
	if !f.spend(length) {
		return Value{}
	}
	merged := make([]Value, 0, length)
	for _, v := range args {
		if v.kind == List {
			merged = append(merged, v.Items()...)
		} else {
			merged = append(merged, v)
		}
	}
	return OfList(merged)
}

// null reports whether a null stands in the rule where a list or a body belongs.
func (n node) null() bool { return n.known && n.value.IsNull() }

// subject evaluates the list that an operator walks over. What is missing in the data has no elements; a null in the
// rule is a mistake.
func (f *frame) subject(n node) []Value {
	v := n.eval(f)
	if v.kind != List && !v.IsNull() || n.null() {
		f.throw(invalidArgs)
	}
	return v.Items()
}

// each evaluates the body with each item in turn as its data, until that fails or visit says no.
func (f *frame) each(items []Value, body node, visit func(item, result Value) bool) {
	for i, item := range items {
		if !f.spend(1 + body.cost) {
			return
		}
		f.enter(item, i)
		result := body.eval(f)
		f.leave()
		if f.failed || !visit(item, result) {
			return
		}
	}
}

func buildMap(a args) expr {
	if a.list[1].null() {
		return thrower(invalidArgs).eval
	}
	return func(f *frame) Value {
		items := f.subject(a.list[0])
		results := make([]Value, 0, len(items))
		f.each(items, a.list[1], func(_, result Value) bool {
			results = append(results, result)
			return true
		})
		return OfList(results)
	}
}

func buildFilter(a args) expr {
	if a.list[1].null() {
		return thrower(invalidArgs).eval
	}
	return func(f *frame) Value {
		var kept []Value
		f.each(f.subject(a.list[0]), a.list[1], func(item, result Value) bool {
			if result.truthy() {
				kept = append(kept, item)
			}
			return true
		})
		return OfList(kept)
	}
}

// buildAll is true if the body is true of all elements, and there is one.
func buildAll(a args) expr {
	return func(f *frame) Value {
		items := f.subject(a.list[0])
		return OfBool(len(items) > 0 && f.find(items, a.list[1], false) < 0)
	}
}

func buildSome(a args) expr {
	return func(f *frame) Value { return OfBool(f.find(f.subject(a.list[0]), a.list[1], true) >= 0) }
}

func buildNone(a args) expr {
	return func(f *frame) Value { return OfBool(f.find(f.subject(a.list[0]), a.list[1], true) < 0) }
}

// find returns the index of the first element of which the body is as wanted, or -1.
func (f *frame) find(items []Value, body node, wanted bool) int {
	found, at := -1, 0
	f.each(items, body, func(_, result Value) bool {
		if result.truthy() == wanted {
			found = at
		}
		at++
		return found < 0
	})
	return found
}

// buildReduce hands each element to the body as "current", beside what the body made of those before as "accumulator".
func buildReduce(a args) expr {
	return func(f *frame) Value {
		items := f.subject(a.list[0])
		var result Value
		if len(a.list) > 2 {
			result = a.list[2].eval(f)
		}
		for i, item := range items {
			if !f.spend(1 + a.list[1].cost) {
				return Value{}
			}
			f.enter(OfMembers([]Member{{Name: "accumulator", Value: result}, {Name: "current", Value: item}}), i)
			result = a.list[1].eval(f)
			f.leave()
			if f.failed {
				return Value{}
			}
		}
		return result
	}
}
