package jsonlogic

import "math"

func add(f *frame, args []Value) Value {
	sum := 0.0
	for _, v := range args {
		sum += v.number()
	}
	return f.finite(sum)
}

func multiply(f *frame, args []Value) Value {
	product := 1.0
	for _, v := range args {
		product *= v.number()
	}
	return f.finite(product)
}

func subtract(f *frame, args []Value) Value {
	switch len(args) {
	case 0:
		return f.throw(invalidArgs)
	case 1:
		return f.finite(-args[0].number())
	default:
		return f.left(args, func(a, b float64) float64 { return a - b })
	}
}

func divide(f *frame, args []Value) Value {
	switch len(args) {
	case 0:
		return f.throw(invalidArgs)
	case 1:
		return f.finite(1 / args[0].number())
	default:
		return f.left(args, func(a, b float64) float64 { return a / b })
	}
}

func modulo(f *frame, args []Value) Value {
	if len(args) < 2 {
		return f.throw(invalidArgs)
	}
	return f.left(args, math.Mod)
}

// left folds arguments from the left. A division by zero on the way shows in the end.
func (f *frame) left(args []Value, combine func(a, b float64) float64) Value {
	x := args[0].number()
	for _, v := range args[1:] {
		if x = combine(x, v.number()); math.IsInf(x, 0) {
			return f.throw(notANumber)
		}
	}
	return f.finite(x)
}

func smallest(f *frame, args []Value) Value { return f.extreme(args, math.Min) }

func largest(f *frame, args []Value) Value { return f.extreme(args, math.Max) }

// extreme is null of no arguments.
func (f *frame) extreme(args []Value, choose func(a, b float64) float64) Value {
	if len(args) == 0 {
		return Value{}
	}
	x := args[0].number()
	for _, v := range args[1:] {
		x = choose(x, v.number())
	}
	return f.finite(x)
}
