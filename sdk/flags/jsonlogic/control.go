package jsonlogic

func buildIf(a args) expr {
	list := a.list
	switch len(list) {
	case 0:
		return func(*frame) Value { return Value{} }
	case 3: // most of all
		condition, then, otherwise := list[0].eval, list[1].eval, list[2].eval
		return func(f *frame) Value {
			if condition(f).truthy() {
				return then(f)
			}
			return otherwise(f)
		}
	default:
		return func(f *frame) Value {
			rest := list
			for ; len(rest) > 1 && !f.failed; rest = rest[2:] {
				if rest[0].eval(f).truthy() {
					return rest[1].eval(f)
				}
			}
			if len(rest) == 1 {
				return rest[0].eval(f)
			}
			return Value{}
		}
	}
}

func buildAnd(a args) expr { return first(a.list, false) }

func buildOr(a args) expr { return first(a.list, true) }

// first returns the first value that is as wanted, or the last one; false of none.
func first(list []node, wanted bool) expr {
	evals := exprs(list)
	return func(f *frame) Value {
		v := OfBool(false)
		for _, eval := range evals {
			if v = eval(f); v.truthy() == wanted {
				break
			}
		}
		return v
	}
}

// exprs keeps of nodes what evaluating needs.
func exprs(list []node) []expr {
	evals := make([]expr, len(list))
	for i, n := range list {
		evals[i] = n.eval
	}
	return evals
}

// buildCoalesce returns the first value that is not null.
func buildCoalesce(a args) expr {
	return func(f *frame) (v Value) {
		for i := range a.list {
			if v = a.list[i].eval(f); !v.IsNull() {
				break
			}
		}
		return v
	}
}

func not(_ *frame, args []Value) Value { return OfBool(len(args) == 0 || !args[0].truthy()) }

func notNot(_ *frame, args []Value) Value { return OfBool(len(args) > 0 && args[0].truthy()) }

func throw(f *frame, args []Value) Value {
	switch {
	case len(args) == 0:
		return f.throw(invalidArgs)
	case args[0].kind == Object:
		return f.throwValue(args[0])
	default:
		return f.throwValue(errorObject(args[0]))
	}
}

// buildTry returns the first argument that does not throw. All but the first see what the one before threw as their data.
func buildTry(a args) expr {
	return func(f *frame) (v Value) {
		for i := range a.list {
			if i > 0 {
				f.enter(f.thrown, 0)
				f.failed, f.thrown = false, Value{}
			}
			v = a.list[i].eval(f)
			if i > 0 {
				f.leave()
			}
			if !f.failed || f.spent {
				break
			}
		}
		return v
	}
}

// chain makes an operator of a relation: it must hold between each argument and the next. Those after one where it does
// not hold are not evaluated.
func chain(holds func(f *frame, a, b Value) bool) func(args) expr {
	return func(a args) expr {
		list := a.list
		if len(list) == 2 {
			x, y := list[0].eval, list[1].eval
			if b := list[1].value; list[1].known { // as in most rules
				return func(f *frame) Value { return OfBool(holds(f, x(f), b)) }
			}
			return func(f *frame) Value {
				a := x(f)
				return OfBool(holds(f, a, y(f)))
			}
		}
		return func(f *frame) Value {
			before := list[0].eval(f)
			for _, n := range list[1:] {
				v := n.eval(f)
				if !holds(f, before, v) {
					return OfBool(false)
				}
				before = v
			}
			return OfBool(true)
		}
	}
}

func equal(f *frame, a, b Value) bool {
	equal, ok := loose(a, b)
	if !ok {
		f.throw(notANumber)
	}
	return equal
}

func unequal(f *frame, a, b Value) bool { return !equal(f, a, b) }

func same(_ *frame, a, b Value) bool { return strict(a, b) }

func different(_ *frame, a, b Value) bool { return !strict(a, b) }

func less(f *frame, a, b Value) bool { return f.sign(a, b) == before }

func lessOrEqual(f *frame, a, b Value) bool { return f.sign(a, b) <= level }

func greater(f *frame, a, b Value) bool { return f.sign(a, b) == after }

func greaterOrEqual(f *frame, a, b Value) bool { s := f.sign(a, b); return s == level || s == after }

// sign compares two values, and throws where that is a mistake.
func (f *frame) sign(a, b Value) sign {
	s := order(a, b)
	if s == unsorted {
		f.throw(notANumber)
	}
	return s
}
