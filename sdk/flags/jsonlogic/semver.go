package jsonlogic

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// version is a semantic version, in pieces of the text.
type version struct {
	core [3]string // major, minor, patch: digits without leading zeros
	pre  string    // after the "-"
}

// parseVersion reads a version with or without a v, of which minor and patch may be left away.
func parseVersion(v Value) (parsed version, ok bool) {
	text := v.str
	var digits [32]byte
	switch v.kind {
	case String:
	case Number:
		text = string(strconv.AppendFloat(digits[:0], v.num, 'g', -1, 64))
	default:
		return version{}, false
	}
	if text != "" && (text[0] == 'v' || text[0] == 'V') {
		text = text[1:]
	}
	parsed.core = [3]string{"0", "0", "0"}
	for i := range parsed.core {
		if parsed.core[i], text, ok = cutNumber(text); !ok {
			return version{}, false
		}
		if text == "" {
			return parsed, true
		}
		if i < 2 {
			if text[0] != '.' {
				return version{}, false
			}
			text = text[1:]
		}
	}
	text, build, built := strings.Cut(text, "+")
	if built && !identifiers(build, false) {
		return version{}, false
	}
	if text == "" {
		return parsed, true
	}
	parsed.pre = text[1:]
	return parsed, text[0] == '-' && identifiers(parsed.pre, true)
}

// cutNumber takes digits without a leading zero off the text.
func cutNumber(text string) (number, rest string, ok bool) {
	n := 0
	for n < len(text) && '0' <= text[n] && text[n] <= '9' {
		n++
	}
	return text[:n], text[n:], n > 0 && (text[0] != '0' || n == 1)
}

// identifiers reports whether the text is identifiers with dots between, those of digits without a leading zero if so
// asked.
func identifiers(text string, strictly bool) bool {
	for more := true; more; {
		var id string
		id, text, more = strings.Cut(text, ".")
		if id == "" || strictly && len(id) > 1 && id[0] == '0' && numeric(id) {
			return false
		}
		for i := range len(id) {
			switch c := id[i]; {
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-':
			default:
				return false
			}
		}
	}
	return true
}

func numeric(id string) bool {
	for i := range len(id) {
		if id[i] < '0' || id[i] > '9' {
			return false
		}
	}
	return true
}

// compareDigits compares numbers of any length.
func compareDigits(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

// compare orders versions by precedence; the first fields alone, if fewer than all three are asked for.
func (v version) compare(w version, fields int) int {
	for i := range fields {
		if sign := compareDigits(v.core[i], w.core[i]); sign != 0 {
			return sign
		}
	}
	switch {
	case fields < len(v.core) || v.pre == w.pre:
		return 0
	case v.pre == "":
		return 1
	case w.pre == "":
		return -1
	default:
		return comparePre(v.pre, w.pre)
	}
}

func comparePre(v, w string) int {
	for v != "" && w != "" {
		var a, b string
		a, v, _ = strings.Cut(v, ".")
		b, w, _ = strings.Cut(w, ".")
		var sign int
		switch x, y := numeric(a), numeric(b); {
		case x && y:
			sign = compareDigits(a, b)
		case x:
			sign = -1
		case y:
			sign = 1
		default:
			sign = strings.Compare(a, b)
		}
		if sign != 0 {
			return sign
		}
	}
	return cmp.Compare(len(v), len(w)) // the one that goes on is later
}

// semVer compares versions; it is null of what is none.
func semVer(f *frame, args []Value) Value {
	if len(args) != 3 || args[1].kind != String || !f.spendText(len(args[0].str)+len(args[2].str)) {
		return Value{}
	}
	v, ok := parseVersion(args[0])
	w, valid := parseVersion(args[2])
	if !ok || !valid {
		return Value{}
	}
	switch args[1].str {
	case "=":
		return OfBool(v.compare(w, 3) == 0)
	case "!=":
		return OfBool(v.compare(w, 3) != 0)
	case "<":
		return OfBool(v.compare(w, 3) < 0)
	case "<=":
		return OfBool(v.compare(w, 3) <= 0)
	case ">":
		return OfBool(v.compare(w, 3) > 0)
	case ">=":
		return OfBool(v.compare(w, 3) >= 0)
	case "~":
		return OfBool(v.compare(w, 2) == 0)
	case "^":
		return OfBool(v.compare(w, 1) == 0)
	default:
		return Value{}
	}
}

// checkSemVer says what can be said before evaluating.
func checkSemVer(a args) string {
	if !a.literal || len(a.list) != 3 {
		return "sem_ver takes a version, an operator and a version"
	}
	operators := []string{"=", "!=", "<", "<=", ">", ">=", "~", "^"}
	if op := a.list[1]; op.known && (op.value.kind != String || !slices.Contains(operators, op.value.str)) {
		return "the operator of sem_ver is none of = != < <= > >= ~ ^"
	}
	for _, n := range []node{a.list[0], a.list[2]} {
		if _, ok := parseVersion(n.value); n.known && !ok {
			return "sem_ver compares what is no version"
		}
	}
	return ""
}
