package jsonlogic

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Times says how the value of a rule depends on $flagd.timestamp.
type Times struct {
	// Read reports whether it can depend on it at all.
	Read bool
	// Instants are the Unix seconds at which a comparison with a constant changes its answer, in order.
	Instants []int64
	// Open reports whether there are uses other than such comparisons: the value may change at any second.
	Open bool
}

// Outcome is a constant that a rule can return, and where it stands.
type Outcome struct {
	Pointer string
	Value   Value
}

// Times analyses a rule. It errs to the side of saying more.
func (l *Library) Times(rule any) Times {
	a := analysis{library: l, seen: make(map[place]bool)}
	a.times(rule, true)
	slices.Sort(a.found.Instants)
	a.found.Instants = slices.Compact(a.found.Instants)
	return a.found
}

// place is a shared rule, over the whole data or over the elements of a list.
type place struct {
	name string
	root bool
}

type analysis struct {
	library  *Library
	seen     map[place]bool
	found    Times
	outcomes []Outcome
}

// single returns the operator of a rule, and its arguments as a list.
func single(rule any) (name string, args []any, ok bool) {
	m, ok := rule.(map[string]any)
	if !ok || len(m) != 1 {
		return "", nil, false
	}
	for op, raw := range m {
		name = op
		if args, ok = raw.([]any); !ok {
			args = []any{raw}
		}
	}
	return name, args, true
}

func (a *analysis) times(rule any, root bool) {
	if items, ok := rule.([]any); ok {
		for _, item := range items {
			a.times(item, root)
		}
		return
	}
	name, args, ok := single(rule)
	if !ok {
		return
	}
	switch name {
	case "$ref":
		if shared, ok := args[0].(string); ok && !a.seen[place{shared, root}] {
			a.seen[place{shared, root}] = true
			a.times(a.library.source[shared], root)
		}
		return
	case "preserve":
		return
	case "var":
		if root && readsTime(args) {
			a.open()
		}
	case "val", "exists":
		a.timesOfVal(args, root)
	case "<", "<=", ">", ">=", "==", "!=", "===", "!==":
		if root && a.compared(args) {
			return
		}
	}
	for i, arg := range args {
		a.times(arg, root && !(i > 0 && (i == 1 && walks(name) || name == "try")))
	}
}

// walks reports whether the second argument of an operator sees elements of the first one.
func walks(operator string) bool {
	switch operator {
	case "map", "filter", "reduce", "all", "some", "none":
		return true
	default:
		return false
	}
}

func (a *analysis) open() { a.found.Read, a.found.Open = true, true }

// readsTime reports whether a var over the whole data can see the time.
func readsTime(args []any) bool {
	if len(args) == 0 {
		return true
	}
	switch path := args[0].(type) {
	case string:
		steps := splitPath(path)
		return len(steps) == 0 || steps[0].name == properties && (len(steps) == 1 || steps[1].name == "timestamp")
	case float64, bool:
		return false
	default:
		return true
	}
}

// timesOfVal looks at val, which can reach out of lists.
func (a *analysis) timesOfVal(args []any, root bool) {
	outward := false
	if len(args) > 0 {
		switch args[0].(type) {
		case []any:
			outward, args = true, args[1:]
		case map[string]any: // may yield such a list, and the names with it
			a.open()
			return
		}
	}
	if !outward && !root {
		return
	}
	for i, want := range []string{properties, "timestamp"} {
		if i >= len(args) {
			break
		}
		if name, ok := args[i].(string); ok && name != want {
			return
		}
	}
	a.open()
}

// compared notes a comparison of the time with constants; ok is false if it is none.
func (a *analysis) compared(args []any) (ok bool) {
	var constants []float64
	for _, arg := range args {
		if name, path, ok := single(arg); ok && name == "var" && len(path) == 1 && path[0] == properties+".timestamp" {
			continue
		}
		switch x := arg.(type) {
		case float64:
			constants = append(constants, x)
		case string:
			constants = append(constants, parseNumber(x))
		default:
			return false
		}
	}
	if len(constants) == len(args) || len(constants) == 0 {
		return false
	}
	a.found.Read = true
	for _, x := range constants {
		if math.Abs(x) < 1<<53 {
			// At x "<" becomes false, or "==" true; a second later "<=" becomes false, or "==" again.
			a.found.Instants = append(a.found.Instants, int64(math.Ceil(x)), int64(math.Floor(x))+1)
		}
	}
	return true
}

// Outcomes returns the constants that a rule can return, as far as they can be told. The pointer is the rule's.
func (l *Library) Outcomes(rule any, pointer ...string) []Outcome {
	a := analysis{library: l, seen: make(map[place]bool)}
	a.results(rule, slices.Clone(pointer))
	slices.SortStableFunc(a.outcomes, func(x, y Outcome) int { return cmp.Compare(x.Pointer, y.Pointer) })
	return a.outcomes
}

func (a *analysis) note(x any, path []string) {
	if v, err := Of(x); err == nil && !v.IsNull() {
		a.outcomes = append(a.outcomes, Outcome{Pointer: Pointer(path...), Value: v})
	}
}

// results collects what a rule can return.
func (a *analysis) results(rule any, path []string) {
	name, args, ok := single(rule)
	if !ok {
		a.note(rule, path)
		return
	}
	path = append(slices.Clone(path), name)
	argument := func(i int) { a.results(args[i], append(path, strconv.Itoa(i))) }
	switch name {
	case "$ref":
		if shared, ok := args[0].(string); ok && !a.seen[place{name: shared}] {
			a.seen[place{name: shared}] = true
			if rule, exists := a.library.source[shared]; exists {
				a.results(rule, []string{evaluators, shared})
			}
		}
	case "if", "?:":
		for i := range args {
			if i%2 == 1 || i == len(args)-1 {
				argument(i)
			}
		}
	case "and", "or", "??", "try":
		for i := range args {
			argument(i)
		}
	case "fractional":
		for i, arg := range args {
			if pair, ok := arg.([]any); ok && len(pair) > 0 {
				a.results(pair[0], append(path, strconv.Itoa(i), "0"))
			}
		}
	case "==", "!=", "===", "!==", "<", "<=", ">", ">=", "!", "!!", "in", "all", "some", "none", "exists", "starts_with",
		"ends_with", "sem_ver", conditionOperator:
		a.note(true, path)
		a.note(false, path)
	}
}

// Pointer writes a JSON pointer (RFC 6901).
func Pointer(path ...string) string {
	var pointer strings.Builder
	escape := strings.NewReplacer("~", "~0", "/", "~1")
	for _, name := range path {
		pointer.WriteByte('/')
		pointer.WriteString(escape.Replace(name))
	}
	return pointer.String()
}
