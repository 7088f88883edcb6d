package jsonlogic

import (
	"math"
	"strconv"
	"strings"
)

// truthy is how conditions read a value: null, false, 0, "" and the empty list are false; "0" and {} are true.
func (v Value) truthy() bool {
	switch v.kind {
	case Bool, Number:
		return v.num != 0
	case String:
		return v.str != ""
	case List:
		return v.many != nil
	default:
		return v.kind == Object
	}
}

// number is how arithmetic and comparisons read a value. NaN stands for what is none: other text, lists, objects.
func (v Value) number() float64 {
	switch v.kind {
	case Null:
		return 0
	case Bool, Number:
		return v.num
	case String:
		return parseNumber(v.str)
	default:
		return math.NaN()
	}
}

// parseNumber reads a decimal number as JSON writes them, or blank text as 0. It does not use strconv's own judgement
// alone, which takes "inf" and hexadecimal, and makes garbage of each refusal.
func parseNumber(s string) float64 {
	const longest = 400 // digits of the longest double without exponent, and then some: no one pays for more
	if len(s) > longest {
		return math.NaN()
	}
	digits := 0
	for i := range len(s) {
		switch c := s[i]; {
		case '0' <= c && c <= '9':
			digits++
		case c != '.' && c != '-' && c != '+' && (c != 'e' && c != 'E' || digits == 0):
			if strings.TrimSpace(s) == "" {
				return 0
			}
			return math.NaN()
		}
	}
	if digits == 0 {
		if s == "" {
			return 0
		}
		return math.NaN()
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil && !math.IsInf(f, 0) {
		return math.NaN()
	}
	return f
}

// appendText appends how cat writes a scalar; ok is false for lists and objects.
func (v Value) appendText(b []byte) (text []byte, ok bool) {
	switch v.kind {
	case Null:
		return b, true
	case Bool:
		return strconv.AppendBool(b, v.num != 0), true
	case Number:
		return strconv.AppendFloat(b, v.num, 'f', -1, 64), true
	case String:
		return append(b, v.str...), true
	default:
		return b, false
	}
}

// text is how a scalar names a member or a path.
func (v Value) text() (text string, ok bool) {
	if v.kind == String {
		return v.str, true
	}
	b, ok := v.appendText(nil)
	return string(b), ok
}

// loose is ==. Nothing but null equals null, and text that is no number equals no number. ok is false where the question
// makes no sense: of a list or an object and a number or another such.
func loose(a, b Value) (equal, ok bool) {
	switch {
	case a.kind == Null || b.kind == Null:
		return a.kind == b.kind, true
	case a.kind == String && b.kind == String:
		return a.str == b.str, true
	case a.kind >= List || b.kind >= List:
		other := min(a.kind, b.kind)
		return false, other == Bool || other == String
	default:
		return a.number() == b.number(), true
	}
}

// strict is ===. Lists and objects equal nothing, as in JavaScript two of them are never the same.
func strict(a, b Value) bool {
	if a.kind != b.kind {
		return false
	}
	switch a.kind {
	case Null:
		return true
	case Bool, Number:
		return a.num == b.num
	case String:
		return a.str == b.str
	default:
		return false
	}
}

// sign is how < sees two values.
type sign int

const (
	before sign = iota - 1
	level
	after
	apart    // there is no order, and so no relation holds
	unsorted // there is none, and asking is a mistake
)

// order compares two strings by their bytes, and all else as numbers. Text that is no number stands apart from what is
// absent, and is not to be compared with a number.
func order(a, b Value) sign {
	if a.kind == String && b.kind == String {
		return sign(strings.Compare(a.str, b.str))
	}
	x, y := a.number(), b.number()
	switch {
	case x < y:
		return before
	case x > y:
		return after
	case x == y:
		return level
	case a.kind == Null && b.kind == String || a.kind == String && b.kind == Null:
		return apart
	default:
		return unsorted
	}
}
