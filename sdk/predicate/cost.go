package predicate

import (
	"cel.dev/cel-go/cel"
	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/interpreter"
)

// perUnit is how many bytes of text or values in lists are worked over for one unit of cost, as CEL has it for texts.
const perUnit = 10

// tooHeavy is more than an evaluation may work over at once.
const tooHeavy = perUnit*CostLimit + 1

// prices are what calls cost while they are counted. CEL prices a call by the overload that was chosen when the expression was
// compiled. Members of documents and contexts have a type only when it runs: then there is no such overload, and CEL would count
// 1 whatever the size. It also counts nothing for what is in lists in lists.
type prices struct{}

// CallCost implements interpreter.ActualCostEstimator.
func (prices) CallCost(function, overload string, args []ref.Val, result ref.Val) *uint64 {
	work := 0
	switch {
	case isComparison(function) && len(args) == 2:
		work = comparing(function, args[0], args[1])
	case function == operators.Add && len(args) == 2:
		work = joining(args[0], args[1], result)
	case overload != "" && function != overloads.Size:
		return nil // as CEL has it
	default:
		for _, a := range args {
			work += textSize(a)
		}
	}
	cost := 1 + uint64(max(0, work))/perUnit
	return &cost
}

func isComparison(function string) bool {
	return function == operators.Equals || function == operators.NotEquals || function == operators.In
}

// comparing is what a comparison works over.
func comparing(function string, a, b ref.Val) int {
	_, isMap := b.(traits.Mapper)
	switch {
	case function != operators.In:
		if size(a) != size(b) {
			return 1
		}
		return weigh(a, tooHeavy) + weigh(b, tooHeavy)
	case isMap:
		return textSize(a)
	default:
		return weigh(b, tooHeavy)
	}
}

// joining is what a concatenation works over. Lists are joined without a copy, but what is then done with them grows with
// their size; the list that a macro fills grows in its place.
func joining(a, b, result ref.Val) int {
	if _, fills := a.(traits.MutableLister); fills {
		return size(b)
	}
	return size(result)
}

// size is the size of a text, a list or a map; -1 of what has none.
func size(v ref.Val) int {
	switch v := v.(type) {
	case types.String, types.Bytes:
		return textSize(v)
	case traits.Lister:
		return count(v)
	case traits.Mapper:
		return count(v)
	default:
		return -1
	}
}

func textSize(v ref.Val) int {
	switch v := v.(type) {
	case types.String:
		return len(v)
	case types.Bytes:
		return len(v)
	default:
		return 0
	}
}

func count(v traits.Sizer) int {
	n, _ := v.Size().(types.Int)
	return int(n)
}

// weigh counts values and bytes of text at all depths, up to some limit: one list may stand in another many times.
func weigh(v ref.Val, limit int) int {
	weight := 1 + textSize(v)
	switch v := v.(type) {
	case traits.Lister:
		for i := 0; i < count(v) && weight < limit; i++ {
			weight += weigh(v.Get(types.Int(i)), limit-weight)
		}
	case traits.Mapper:
		for it := v.Iterator(); weight < limit && it.HasNext() == types.True; {
			key := it.Next()
			weight += weigh(key, limit) + weigh(v.Get(key), limit-weight)
		}
	}
	return weight
}

// boundComparisons is a decorator of CEL's planner. What a call costs is counted when it is over, and the values of an expression
// may be worked over in one comparison for longer than anybody waits: a list that stands twice in a list, which stands twice in
// a list, and so on. So those that are too heavy are not compared.
func boundComparisons(i interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
	call, ok := i.(interpreter.InterpretableCall)
	if !ok || !isComparison(call.Function()) || len(call.Args()) != 2 {
		return i, nil
	}
	compare := map[string]func(a, b ref.Val) ref.Val{
		operators.Equals:    types.Equal,
		operators.NotEquals: func(a, b ref.Val) ref.Val { return types.Bool(types.Equal(a, b) != types.True) },
		operators.In:        contains,
	}[call.Function()]
	return interpreter.NewCall(call.ID(), call.Function(), call.OverloadID(), call.Args(), func(values ...ref.Val) ref.Val {
		if comparing(call.Function(), values[0], values[1]) >= tooHeavy {
			panic(interpreter.EvalCancelledError{Cause: interpreter.CostLimitExceeded, Message: "too heavy to compare"}) // as CEL itself gives up
		}
		return compare(values[0], values[1])
	}), nil
}

func contains(v, in ref.Val) ref.Val {
	if c, ok := in.(traits.Container); ok {
		return c.Contains(v)
	}
	return types.MaybeNoSuchOverloadErr(in)
}

// builds reports whether an expression makes lists or maps of values that it does not hold itself: those can be larger than any
// document, so it is counted.
func builds(ast *cel.Ast) bool {
	found := false
	variable := func(e celast.Expr) bool { return e.Kind() != celast.LiteralKind }
	celast.PostOrderVisit(ast.NativeRep().Expr(), celast.NewExprVisitor(func(e celast.Expr) {
		switch e.Kind() {
		case celast.ListKind:
			for _, element := range e.AsList().Elements() {
				found = found || variable(element)
			}
		case celast.MapKind:
			found = found || e.AsMap().Size() > 0
		}
	}))
	return found
}
