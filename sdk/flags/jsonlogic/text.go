package jsonlogic

import (
	"math"
	"strings"
	"unicode/utf8"
)

// cat joins scalars as text.
func cat(f *frame, args []Value) Value {
	if len(args) == 1 && args[0].kind == String {
		return args[0]
	}
	length := 0
	for _, v := range args {
		length += len(v.str)
	}
	if !f.spendText(length) {
		return Value{}
	}
	text := make([]byte, 0, length)
	for _, v := range args {
		var ok bool
		if text, ok = v.appendText(text); !ok {
			return f.throw(invalidArgs)
		}
	}
	return OfString(string(text))
}

// substr takes text from a position, which counts from the end if it is negative, and of a length, or with so many
// characters left away at the end if that is negative.
func substr(f *frame, args []Value) Value {
	if len(args) < 2 {
		return f.throw(invalidArgs)
	}
	text := args[0]
	if text.kind != String {
		text = cat(f, args[:1])
	}
	s := text.str
	if !f.spendText(len(s)) {
		return Value{}
	}
	length := utf8.RuneCountInString(s)
	start, ok := f.whole(args[1], length)
	if !ok {
		return Value{}
	}
	if start < 0 {
		start = max(0, length+start)
	}
	end := length
	if len(args) > 2 && !args[2].IsNull() {
		n, ok := f.whole(args[2], length)
		if !ok {
			return Value{}
		}
		if n < 0 {
			end = length + n
		} else {
			end = min(length, start+n)
		}
	}
	if start >= end {
		return OfString("")
	}
	return OfString(s[offset(s, start):offset(s, end)])
}

// whole reads a number of characters, of which more than the bound are as many.
func (f *frame) whole(v Value, bound int) (n int, ok bool) {
	x := v.number()
	if math.IsNaN(x) {
		f.throw(notANumber)
		return 0, false
	}
	return int(max(min(x, float64(bound)), -float64(bound))), true
}

// offset is where the n-th character begins.
func offset(s string, n int) int {
	for i := range s {
		if n == 0 {
			return i
		}
		n--
	}
	return len(s)
}

func startsWith(_ *frame, a, b Value) Value { return affix(a, b, strings.HasPrefix) }

func endsWith(_ *frame, a, b Value) Value { return affix(a, b, strings.HasSuffix) }

// onlyTwo is null of more or fewer arguments than two.
func onlyTwo(apply func(f *frame, a, b Value) Value) func(*frame, []Value) Value {
	return func(f *frame, args []Value) Value {
		if len(args) != 2 {
			return Value{}
		}
		return apply(f, args[0], args[1])
	}
}

// affix is null of anything but strings.
func affix(a, b Value, has func(s, affix string) bool) Value {
	if a.kind != String || b.kind != String {
		return Value{}
	}
	return OfBool(has(a.str, b.str))
}
