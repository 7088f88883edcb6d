package flags_test

import (
	"fmt"
	"math/rand/v2"
	"strconv"
)

// generator makes flag documents and contexts, the same ones of a seed.
type generator struct{ *rand.Rand }

func newGenerator(seed uint64) generator { return generator{rand.New(rand.NewPCG(seed, 7))} }

// object is a JSON object.
type object = map[string]any

func (g generator) chance(percent int) bool { return g.IntN(100) < percent }

func pick[T any](g generator, of ...T) T { return of[g.IntN(len(of))] }

// kind is what an expression should yield.
type kind int

const (
	boolean kind = iota
	number
	text
	list
	kinds
)

// document makes a document of so many flags. It is valid under flagd's schema unless it is wild.
func (g generator) document(flags int, wild bool) object {
	shared := object{}
	for _, name := range []string{"isStaff", "inEurope"} {
		shared[name] = g.rule(boolean, 2, false)
	}
	d := object{"$evaluators": shared, "flags": object{}}
	if g.chance(50) {
		d["metadata"] = object{"version": "7", "owner": "set"}
	}
	for i := range flags {
		d["flags"].(object)[fmt.Sprintf("flag-%d", i)] = g.flag(wild)
	}
	return d
}

func (g generator) flag(wild bool) object {
	names := []string{"on", "off", "true", "false"}
	values := pick(g, []any{true, false, true, false}, []any{"a", "", "b c", "é"}, []any{1.0, 0.0, 2.5, -7.0},
		[]any{object{"x": 1.0}, object{}, object{"y": []any{1.0, "z"}}, object{"n": nil}})
	variants := object{}
	for i, name := range names {
		variants[name] = values[i]
	}
	f := object{"state": "ENABLED", "variants": variants, "defaultVariant": pick(g, names...)}
	switch {
	case g.chance(5):
		f["state"] = "DISABLED"
	case g.chance(10):
		f["defaultVariant"] = nil
	case g.chance(11):
		delete(f, "defaultVariant")
	}
	if g.chance(30) {
		f["metadata"] = object{"owner": "flag", "n": 1.5}
	}
	switch {
	case g.chance(5):
	case g.chance(3):
		f["targeting"] = object{}
	default:
		f["targeting"] = g.outcome(4, wild)
	}
	return f
}

// outcome makes a rule that yields a variant, null, or something that names none.
func (g generator) outcome(depth int, wild bool) any {
	if depth == 0 {
		return g.constantOutcome()
	}
	result := func() any {
		if g.chance(60) {
			return g.constantOutcome()
		}
		return g.outcome(depth-1, wild)
	}
	switch g.IntN(12) {
	case 0, 1, 2, 3, 4:
		args := []any{g.condition(depth-1, wild), result(), result()}
		if g.chance(30) {
			args = append([]any{g.condition(depth-1, wild), result()}, args...)
		}
		if g.chance(20) {
			args = args[:len(args)-1]
		}
		return object{"if": args}
	case 5, 6, 7:
		return g.fractional(wild)
	case 8:
		return object{pick(g, "and", "or"): []any{g.condition(depth-1, wild), result(), result()}}
	case 9:
		return object{"var": pick[any](g, "choice", []any{"choice", "off"}, []any{"absent", "on"})}
	case 10:
		return g.rule(text, depth-1, wild)
	default:
		return g.rule(boolean, depth-1, wild)
	}
}

func (g generator) constantOutcome() any {
	if g.chance(3) {
		return "nobody"
	}
	return pick[any](g, "on", "off", "on", "off", "true", "false", true, false, nil)
}

func (g generator) condition(depth int, wild bool) any {
	if g.chance(10) {
		return object{"$ref": pick(g, "isStaff", "inEurope")}
	}
	return g.value(boolean, depth, wild)
}

func (g generator) fractional(wild bool) any {
	var args []any
	switch g.IntN(4) {
	case 0:
		args = append(args, object{"cat": []any{object{"var": "$flagd.flagKey"}, object{"var": pick(g, "email", "userId", "age")}}})
	case 1:
		args = append(args, object{"var": pick(g, "email", "userId", "targetingKey", "absent")})
	case 2:
		args = append(args, object{"cat": []any{pick(g, "salt", "x:", "é"), object{"var": "userId"}, g.number()}})
	}
	variants := []string{"on", "off", "true", "false"}
	for range 2 + g.IntN(4) {
		pair := []any{pick(g, variants...)}
		if g.chance(70) {
			pair = append(pair, pick[any](g, 50.0, 25.0, 1.0, 0.0, 99.0, -3.0, 1000000.0, 2000000000.0))
		}
		if wild && g.chance(20) {
			pair[0] = pick[any](g, nil, true, 3.0, g.condition(1, false))
		}
		if wild && g.chance(20) {
			pair = append(pair[:1], pick[any](g, 2.5, "5", nil, g.value(number, 1, false)))
		}
		args = append(args, pair)
	}
	return object{"fractional": args}
}

func (g generator) number() float64 {
	return pick(g, 0.0, 1.0, 2.0, -1.0, 10.0, 18.0, 0.5, 3.14, 1e6, 1700000000.0, 4000000000.0)
}

// value makes a constant or a rule. Sometimes it yields another kind: users do.
func (g generator) value(k kind, depth int, wild bool) any {
	if g.chance(2) || wild && g.chance(8) {
		k = kind(g.IntN(int(kinds)))
	}
	if depth > 0 && g.chance(70) {
		return g.rule(k, depth, wild)
	}
	switch k {
	case boolean:
		return g.chance(50)
	case number:
		return g.number()
	case text:
		return pick(g, "", "a", "ann@example.com", "example.com", "1", "10", "1.2.3", "0", "admin", "DE", "Zürich")
	default:
		return pick[any](g, []any{}, []any{"admin", "beta"}, []any{"DE", "FR", "AT"}, []any{1.0, 2.0, 18.0}, []any{"1", "10"},
			[]any{"a", "b", "c", "d", "e", "f", "g", "h", "i", "admin"})
	}
}

// rule makes a rule that yields a kind, if its data is what it expects.
func (g generator) rule(k kind, depth int, wild bool) any {
	v := func(k kind) any { return g.value(k, depth-1, wild) }
	if depth <= 0 || g.chance(25) {
		return g.variable(k)
	}
	switch k {
	case boolean:
		return g.booleanRule(v, depth, wild)
	case number:
		switch g.IntN(3) {
		case 0:
			return object{pick(g, "+", "-", "*", "max", "min"): []any{v(number), v(number), v(number)}}
		case 1:
			return object{pick(g, "/", "%"): []any{v(number), v(number)}}
		default:
			return object{"reduce": []any{v(list), object{"+": []any{object{"var": "accumulator"}, 1.0}}, 0.0}}
		}
	case text:
		switch g.IntN(3) {
		case 0:
			return object{"cat": []any{v(text), v(pick(g, text, number)), v(text)}}
		case 1:
			return object{"substr": []any{v(text), pick(g, 0.0, 1.0, -2.0, 5.0), pick(g, 1.0, 3.0, -1.0)}}
		default:
			return object{"if": []any{v(boolean), v(text), v(text)}}
		}
	default:
		switch g.IntN(4) {
		case 0:
			return object{"merge": []any{v(list), v(list)}}
		case 1:
			return object{"filter": []any{object{"var": "roles"}, g.elementRule()}}
		case 2:
			return object{"map": []any{v(list), pick[any](g, object{"var": ""}, object{"cat": []any{object{"var": ""}, "!"}})}}
		default:
			return object{"missing": []any{"email", "absent", "address.city"}}
		}
	}
}

func (g generator) booleanRule(v func(kind) any, depth int, wild bool) any {
	switch g.IntN(12) {
	case 0, 1:
		return object{pick(g, "==", "===", "!=", "!=="): twice(v, pick(g, text, text, number, boolean))}
	case 2:
		return object{pick(g, "<", "<=", ">", ">="): twice(v, pick(g, number, number, text))}
	case 3:
		return object{pick(g, "<", "<="): []any{v(number), v(number), v(number)}}
	case 4:
		return object{"in": []any{v(text), v(pick(g, text, list))}}
	case 5:
		return object{pick(g, "and", "or"): []any{v(boolean), v(boolean)}}
	case 6:
		return object{pick(g, "!", "!!"): []any{v(pick(g, boolean, text, number, list))}}
	case 7:
		return object{pick(g, "starts_with", "ends_with"): []any{g.rule(text, depth-1, wild), pick(g, "ann", "example.com", "")}}
	case 8, 11:
		return object{"sem_ver": []any{
			object{"var": pick(g, "version", "version", "email", "score")}, pick(g, "=", "!=", "<", "<=", ">", ">=", "~", "^"),
			pick(g, "1.2.3", "2.0.0", "1.2.3-beta.1", "1.2.4+build.5", "0.9.0"),
		}}
	case 9:
		return object{pick(g, "all", "some", "none"): []any{object{"var": pick(g, "roles", "scores")}, g.elementRule()}}
	default:
		return object{pick(g, ">", "<"): []any{object{"var": "$flagd.timestamp"}, pick(g, 1700000000.0, 4000000000.0)}}
	}
}

func (g generator) elementRule() any {
	return pick[any](g, object{"==": []any{object{"var": ""}, "admin"}}, object{"in": []any{"a", object{"var": ""}}},
		object{"in": []any{object{"var": ""}, []any{"admin", "beta", 18.0}}}, object{"!": []any{object{"var": ""}}})
}

func twice(v func(kind) any, k kind) []any { return []any{v(k), v(k)} }

func (g generator) variable(k kind) any {
	var path string
	switch k {
	case boolean:
		path = pick(g, "beta", "address.billing")
	case number:
		path = pick(g, "age", "score", "scores.0", "absentNumber")
	case text:
		path = pick(g, "email", "userId", "address.country", "address.city", "roles.0", "choice", "absentText", "$flagd.flagKey")
	default:
		path = pick(g, "roles", "scores", "absentList")
	}
	if k == number && g.chance(20) {
		return object{"var": []any{path, g.number()}}
	}
	if k == text && g.chance(20) {
		return object{"var": []any{path, pick(g, "", "x", "admin")}}
	}
	return object{"var": path}
}

// context makes what a caller says of itself. Attributes are absent, or of a kind that nobody expects.
func (g generator) context() object {
	c := object{
		"targetingKey": fmt.Sprintf("user-%d", g.IntN(1000)), "userId": strconv.Itoa(g.IntN(1000)),
		"email": pick(g, "ann@example.com", "bob@example.org", "é@example.com"), "age": float64(g.IntN(90)),
		"score": pick(g, 0.0, 1.2, -4.0, 1e7), "beta": g.chance(50), "version": g.version(),
		"roles": pick(g, []any{}, []any{"admin"}, []any{"beta", "viewer"}), "scores": pick(g, []any{}, []any{1.0, 18.0}),
		"address": object{"country": pick(g, "DE", "FR", "US"), "city": "Zürich", "billing": g.chance(50)},
		"choice":  pick[any](g, "on", "off", true, nil),
	}
	for name := range sorted(c) {
		switch {
		case g.chance(8):
			delete(c, name)
		case g.chance(2):
			c[name] = pick[any](g, nil, true, 0.0, 7.5, "", "text", " 5 ", []any{}, []any{"x"}, object{}, object{"k": 1.0})
		}
	}
	return c
}

func (g generator) version() string {
	return pick(g, "1.2.3", "v1.2.3", "V2.0.0", "1", "1.2", "2.0.0-rc.1", "1.2.3-beta.1", "1.2.3-beta.2", "1.2.3+7", "1.02.3",
		"1.2.3-", "latest", "1.10.0", "0.9.9")
}
