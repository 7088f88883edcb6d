package jsonlogic

// operator says how one is compiled.
type operator struct {
	build func(args) expr
	least int  // arguments in a list
	lazy  bool // evaluates its arguments itself, and so must be given them in a list
	reads bool // something other than its arguments: it cannot be computed before
	check func(args) string
}

// args are the compiled arguments: those of a list that stands in the rule, or else one expression. If that one yields a
// list, its items are the arguments.
type args struct {
	list    []node
	literal bool
}

// operators are all there are. The map is never written.
//
//nolint:gochecknoglobals // a table
var operators = map[string]operator{
	"var":          {build: buildVar, reads: true},
	"val":          {build: eager(val), reads: true},
	"exists":       {build: eager(exists), reads: true},
	"missing":      {build: eager(missing), reads: true},
	"missing_some": {build: eager(missingSome), reads: true, least: 2},

	"if":    {build: buildIf, lazy: true},
	"?:":    {build: buildIf, lazy: true},
	"and":   {build: buildAnd, lazy: true},
	"or":    {build: buildOr, lazy: true},
	"??":    {build: buildCoalesce},
	"!":     {build: eager(not)},
	"!!":    {build: eager(notNot)},
	"throw": {build: eager(throw), reads: true},
	"try":   {build: buildTry, reads: true},

	"==":  {build: chain(equal), lazy: true, least: 2},
	"!=":  {build: chain(unequal), lazy: true, least: 2},
	"===": {build: chain(same), lazy: true, least: 2},
	"!==": {build: chain(different), lazy: true, least: 2},
	"<":   {build: chain(less), lazy: true, least: 2},
	"<=":  {build: chain(lessOrEqual), lazy: true, least: 2},
	">":   {build: chain(greater), lazy: true, least: 2},
	">=":  {build: chain(greaterOrEqual), lazy: true, least: 2},

	"+":   {build: eager(add)},
	"-":   {build: eager(subtract), least: 1},
	"*":   {build: eager(multiply)},
	"/":   {build: eager(divide), least: 1},
	"%":   {build: eager(modulo), least: 2},
	"min": {build: eager(smallest)},
	"max": {build: eager(largest)},

	"cat":         {build: eager(cat)},
	"substr":      {build: eager(substr), least: 2},
	"starts_with": {build: pair(startsWith, onlyTwo(startsWith))},
	"ends_with":   {build: pair(endsWith, onlyTwo(endsWith))},
	"sem_ver":     {build: eager(semVer), check: checkSemVer},

	"in":     {build: buildIn},
	"merge":  {build: eager(merge)},
	"map":    {build: buildMap, lazy: true, least: 2, reads: true},
	"filter": {build: buildFilter, lazy: true, least: 2, reads: true},
	"reduce": {build: buildReduce, lazy: true, least: 2, reads: true},
	"all":    {build: buildAll, lazy: true, least: 2, reads: true},
	"some":   {build: buildSome, lazy: true, least: 2, reads: true},
	"none":   {build: buildNone, lazy: true, least: 2, reads: true},

	"fractional": {build: buildFractional, reads: true, check: checkFractional},
}

// eager makes an operator of a function of values. The function must not keep the slice.
func eager(apply func(*frame, []Value) Value) func(args) expr {
	return func(a args) expr {
		if a.literal {
			evals := exprs(a.list)
			return func(f *frame) Value { return f.apply(evals, apply) }
		}
		one := a.list[0].eval
		return func(f *frame) Value {
			v := one(f)
			if v.kind != List {
				return f.applyOne(v, apply)
			}
			if !f.spend(len(v.Items())) {
				return Value{}
			}
			return apply(f, v.Items())
		}
	}
}

// pair is eager for an operator that mostly has two arguments, which need no list then; otherwise is for the other cases.
func pair(apply func(f *frame, a, b Value) Value, otherwise func(*frame, []Value) Value) func(args) expr {
	return func(a args) expr {
		if !a.literal || len(a.list) != 2 {
			return eager(otherwise)(a)
		}
		x, y := a.list[0].eval, a.list[1].eval
		if b := a.list[1].value; a.list[1].known { // as in most rules
			return func(f *frame) Value { return apply(f, x(f), b) }
		}
		return func(f *frame) Value {
			a := x(f)
			return apply(f, a, y(f))
		}
	}
}

// apply evaluates arguments, which wait on the frame's stack, and applies a function to them.
func (f *frame) apply(evals []expr, apply func(*frame, []Value) Value) Value {
	base := len(f.stack)
	for _, eval := range evals {
		v := eval(f) // which may move the stack
		f.stack = append(f.stack, v)
	}
	return f.pop(base, apply(f, f.stack[base:]))
}

func (f *frame) applyOne(v Value, apply func(*frame, []Value) Value) Value {
	base := len(f.stack)
	f.stack = append(f.stack, v)
	return f.pop(base, apply(f, f.stack[base:]))
}

// pop drops the arguments above base, and what they hold on to, and returns the result.
func (f *frame) pop(base int, result Value) Value {
	clear(f.stack[base:])
	f.stack = f.stack[:base]
	return result
}
