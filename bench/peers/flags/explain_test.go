package flags_test

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// difference is where two engines part: one operator over arguments of which both think the same.
type difference struct {
	operator string
	args     []any // their values
	rule     any
	data     any

	ours, theirs verdict
}

// locate returns the first difference in a rule over data, and nil if the engines agree.
func locate(rule, data any) *difference {
	found := &difference{rule: rule, data: data, ours: ours(rule, data), theirs: theirs(rule, data)}
	if found.ours == found.theirs {
		return nil
	}
	if items, ok := rule.([]any); ok {
		return first(items, data)
	}
	var args []any
	switch found.operator, args = operation(rule); found.operator {
	case "":
		return found
	case "if", "and", "or":
		return locateLazy(found, args)
	case "map", "filter", "all", "some", "none", "reduce":
		return locateWalk(found, args)
	}
	if d := first(args, data); d != nil {
		return d
	}
	for _, arg := range args {
		found.args = append(found.args, value(arg, data))
	}
	return found
}

// first returns the first difference in a list of rules.
func first(rules []any, data any) *difference {
	for _, rule := range rules {
		if d := locate(rule, data); d != nil {
			return d
		}
	}
	return nil
}

// locateLazy looks at the arguments that are evaluated.
func locateLazy(found *difference, args []any) *difference {
	for i, arg := range args {
		if found.operator == "if" && i%2 == 1 {
			continue // looked at with its condition
		}
		if d := locate(arg, found.data); d != nil {
			return d
		}
		v := value(arg, found.data)
		found.args = append(found.args, v)
		switch holds := truthy(v); {
		case found.operator == "if" && i+1 < len(args) && holds:
			found.args = append(found.args, value(args[i+1], found.data))
			if d := locate(args[i+1], found.data); d != nil {
				return d
			}
			return found
		case found.operator == "and" && !holds, found.operator == "or" && holds:
			return found
		}
	}
	return found
}

// locateWalk looks at the list, and at the body over each element.
func locateWalk(found *difference, args []any) *difference {
	if len(args) < 2 {
		return found
	}
	if d := locate(args[0], found.data); d != nil {
		return d
	}
	items := value(args[0], found.data)
	found.args = append(found.args, items)
	var accumulator any
	if len(args) > 2 {
		if d := locate(args[2], found.data); d != nil {
			return d
		}
		accumulator = value(args[2], found.data)
		found.args = append(found.args, nil, accumulator)
	}
	elements, _ := items.([]any)
	for _, element := range elements {
		data := element
		if found.operator == "reduce" {
			data = object{"current": element, "accumulator": accumulator}
		}
		if d := locate(args[1], data); d != nil {
			return d
		}
		accumulator = value(args[1], data)
	}
	return found
}

// operation splits a rule into its operator and arguments.
func operation(rule any) (operator string, args []any) {
	members, ok := rule.(object)
	if !ok || len(members) != 1 {
		return "", nil
	}
	for name, raw := range members {
		if args, ok = raw.([]any); !ok {
			args = []any{raw}
		}
		operator = name
	}
	return operator, args
}

// thrown is the value of a rule that fails.
type thrown struct{}

func value(rule, data any) any {
	v, err := evaluate(rule, data)
	if err != nil {
		return thrown{}
	}
	return v.Any()
}

func truthy(v any) bool {
	return ours(object{"!!": []any{object{"preserve": v}}}, nil) == "true"
}

// resolve puts shared rules in the place of references.
func resolve(rule any, shared object) any {
	switch rule := rule.(type) {
	case object:
		if name, ok := rule["$ref"].(string); ok && len(rule) == 1 {
			return resolve(shared[name], shared)
		}
		out := maps.Clone(rule)
		for name, v := range out {
			out[name] = resolve(v, shared)
		}
		return out
	case []any:
		out := make([]any, len(rule))
		for i, v := range rule {
			out[i] = resolve(v, shared)
		}
		return out
	default:
		return rule
	}
}

// claims say, for each name in docs/flagd-differences.md, which differences it explains.
var claims = map[string]func(d difference) bool{
	"arithmetic-of-others": func(d difference) bool { return arithmetic(d) && len(d.args) > 0 && some(d, notNumber) },
	"no-finite-number":     func(d difference) bool { return arithmetic(d) && d.theirs == notFinite && d.ours == fails },
	"argument-count": func(d difference) bool {
		return len(d.args) < 2 && (ordering(d) || is(d, "-", "/", "and", "or")) || len(d.args) > 2 && is(d, "==", "===", "!=", "!==", "%")
	},
	"one-argument": func(d difference) bool {
		members, ok := d.rule.(object)
		return ok && !isList(members[d.operator]) && d.theirs == fails
	},
	"order-of-others":   func(d difference) bool { return ordering(d) && d.ours == fails && some(d, notNumber) },
	"order-of-null":     func(d difference) bool { return is(d, "<=", ">=") && some(d, isNull) },
	"lazy-chain":        func(d difference) bool { return ordering(d) && some(d, isThrown) && d.theirs == fails },
	"equality-of-trees": func(d difference) bool { return is(d, "==", "!=") && some(d, isTree) && d.ours == fails },
	"empty-object": func(d difference) bool {
		return is(d, "if", "and", "or", "!", "!!", "filter", "all", "some", "none") && some(d, holdsEmptyObject)
	},
	"value-as-rule": func(d difference) bool { return is(d, "if") && some(d, isObject) },

	"cat-spaces": func(d difference) bool {
		joined, ok := value(d.rule, d.data).(string)
		return is(d, "cat") && ok && d.theirs == verdict(marshal(strings.TrimSpace(joined)))
	},
	"cat-of-others": func(d difference) bool { return is(d, "cat") && d.theirs == fails && some(d, notText) },
	"substr-of-others": func(d difference) bool {
		return is(d, "substr") && (notText(d.args[0]) || slices.ContainsFunc(d.args[1:], notReal))
	},
	"substr-outside": func(d difference) bool {
		if !is(d, "substr") || notText(d.args[0]) || notReal(d.args[1]) {
			return false
		}
		length, start := float64(utf8.RuneCountInString(d.args[0].(string))), d.args[1].(float64)
		return start > length || start < -length || d.theirs == fails && d.ours == `""`
	},
	"numeric-text": func(d difference) bool { return some(d, oddNumber) },

	"in-text": func(d difference) bool { return is(d, "in") && isText(d.args[1]) && notText(d.args[0]) },
	"in-numbers": func(d difference) bool {
		return is(d, "in") && !notReal(d.args[0]) && contains(d.args[1], notReal)
	},
	"in-ranges": func(d difference) bool { return is(d, "in") && contains(d.args[1], isTree) },

	"var-path":     func(d difference) bool { return is(d, "var") && (isNull(d.args[0]) || notText(d.args[0]) || lost(d)) },
	"var-default":  func(d difference) bool { return is(d, "var") && len(d.args) == 2 && isThrown(d.args[1]) },
	"missing-list": func(d difference) bool { return is(d, "missing") && some(d, isList) },

	"walk-literal":   func(d difference) bool { return walks(d) && contains(rawArg(d, 0), isObject) },
	"walk-null":      func(d difference) bool { return walks(d) && (isNull(rawArg(d, 0)) || isNull(rawArg(d, 1))) },
	"walk-of-others": func(d difference) bool { return walks(d) && d.ours == fails && !isList(d.args[0]) },
	"body-outside": func(d difference) bool {
		return is(d, "filter", "some", "none") && readsOutside(rawArg(d, 1), d.data)
	},
	"body-constant": func(d difference) bool { return walks(d) && d.theirs == fails && !isObject(rawArg(d, 1)) },
	"reduce-absent": func(d difference) bool { return is(d, "reduce") && isNull(d.args[0]) },
	"reduce-kinds": func(d difference) bool {
		return is(d, "reduce") && len(d.args) > 2 && (contains(d.args[0], isNull) || kindOf(value(d.rule, d.data)) != kindOf(d.args[2]))
	},

	"more-operators":  func(d difference) bool { return is(d, "val", "exists", "??", "try", "throw", "preserve") },
	"fewer-operators": func(d difference) bool { return is(d, "abs", "set", "contains_all", "contains_any", "contains_none") },
}

func arithmetic(d difference) bool { return is(d, "+", "-", "*", "/", "%", "min", "max") }

func ordering(d difference) bool { return is(d, "<", "<=", ">", ">=") }

func walks(d difference) bool { return is(d, "map", "filter", "all", "some", "none", "reduce") }

// rawArg is an argument as it stands in the rule.
func rawArg(d difference, i int) any {
	if _, args := operation(d.rule); i < len(args) {
		return args[i]
	}
	return nil
}

// readsOutside reports whether a body has a var that finds something in the data around it.
func readsOutside(body, data any) bool {
	if operator, args := operation(body); operator != "" {
		return operator == "var" && args[0] != "" && value(body, data) != nil || slices.ContainsFunc(args, func(arg any) bool { return readsOutside(arg, data) })
	}
	return contains(body, func(v any) bool { return readsOutside(v, data) })
}

// lost reports whether a path goes through a list by something other than an index.
func lost(d difference) bool {
	v := d.data
	path, _ := d.args[0].(string)
	for name := range strings.SplitSeq(path, ".") {
		switch at := v.(type) {
		case object:
			v = at[name]
		case []any:
			return strings.Trim(name, "0123456789") != ""
		default:
			return false
		}
	}
	return false
}

func kindOf(v any) string { return fmt.Sprintf("%T", v) }

func is(d difference, operators ...string) bool { return slices.Contains(operators, d.operator) }

func some(d difference, holds func(any) bool) bool { return slices.ContainsFunc(d.args, holds) }

func contains(v any, holds func(any) bool) bool {
	items, _ := v.([]any)
	return slices.ContainsFunc(items, holds)
}

func isThrown(v any) bool { return v == thrown{} }

func isNull(v any) bool { return v == nil }

func isObject(v any) bool { _, ok := v.(object); return ok }

func isList(v any) bool { _, ok := v.([]any); return ok }

func isText(v any) bool { _, ok := v.(string); return ok }

func isTree(v any) bool { return isList(v) || isObject(v) }

func notText(v any) bool { return !isText(v) }

func notReal(v any) bool { _, ok := v.(float64); return !ok }

func holdsEmptyObject(v any) bool {
	members, ok := v.(object)
	return ok && len(members) == 0 || contains(v, holdsEmptyObject)
}

// notNumber is true of all that arithmetic has to turn into a number first.
func notNumber(v any) bool {
	if s, ok := v.(string); ok {
		_, err := strconv.ParseFloat(s, 64)
		return err != nil
	}
	_, ok := v.(float64)
	return !ok
}

// oddNumber is text that strconv reads as a number and JSON does not.
func oddNumber(v any) bool {
	s, ok := v.(string)
	_, err := strconv.ParseFloat(s, 64)
	return ok && err == nil && strings.ContainsAny(s, "xXpPnN_")
}

func sortedClaims() iter.Seq[string] { return slices.Values(slices.Sorted(maps.Keys(claims))) }
