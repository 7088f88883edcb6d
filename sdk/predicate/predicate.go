// Package predicate evaluates conditions in CEL, the Common Expression Language, that operators and apps write.
//
// An expression cannot loop, call out or keep state; what it may cost is estimated before it is accepted and counted
// while it runs, so that a hostile one ends like any other. Functions beyond CEL's own standard library there are none:
// those of cel-go's lists once let work go uncounted. Start at [Compile].
package predicate

import (
	"errors"
	"fmt"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/checker"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/interpreter"
)

const (
	// MaxText is how many bytes an expression may have.
	MaxText = 4 << 10
	// CostLimit is what one evaluation may cost, in CEL's units: an operation is about one.
	CostLimit = 10_000

	maxDepth = 50
	// typicalSize is how large a list, map or text is taken to be when a cost is estimated.
	typicalSize = 100
	// largestSize is how large one can be: no document is larger, and no context.
	largestSize = 256 << 10
	// largestName bounds ids of tenants, plans, regions and environments.
	largestName = 63
	// uncounted is the cost up to which nothing is counted while an expression runs, because it cannot be exceeded whatever
	// the values are. Counting takes longer than most expressions.
	uncounted = 10 * CostLimit
)

// ErrExpression is wrapped by what [Compile] refuses.
var ErrExpression = errors.New("predicate: not an acceptable CEL expression")

// ErrCost is returned for an evaluation that was given up because it cost too much.
var ErrCost = errors.New("predicate: the expression costs too much")

// ErrValue is returned for an evaluation without a result, such as one that asks for a member that is not there.
var ErrValue = errors.New("predicate: the expression has no value")

// ValueError is an [ErrValue] with CEL's own words, which may quote what the variables hold.
type ValueError struct{ cause error }

// Error implements error. It holds no value of a variable.
func (*ValueError) Error() string { return ErrValue.Error() }

// Unwrap makes it an [ErrValue].
func (*ValueError) Unwrap() error { return ErrValue }

// Why is what CEL says, for those who may see what the variables hold.
func (e *ValueError) Why() string { return firstLine(e.cause.Error()) }

// Scope is what an expression may ask about.
type Scope struct{ env *cel.Env }

// Names of variables. All are texts but the config and the context, which are JSON objects; their numbers are doubles.
const (
	Tenant      = "tenant"
	Plan        = "plan"
	Region      = "region"
	Environment = "environment"
	Config      = "config"
	Context     = "context"
)

// NewScope returns a scope with the given variables, from those above.
func NewScope(variables ...string) (*Scope, error) {
	options := []cel.EnvOption{cel.ParserRecursionLimit(maxDepth), cel.ParserExpressionSizeLimit(MaxText)}
	for _, name := range variables {
		kind := cel.StringType
		if isObject(name) {
			kind = cel.MapType(cel.StringType, cel.DynType)
		}
		options = append(options, cel.Variable(name, kind))
	}
	env, err := cel.NewEnv(options...)
	if err != nil {
		return nil, fmt.Errorf("predicate: %w", err)
	}
	return &Scope{env}, nil
}

func isObject(variable string) bool { return variable == Config || variable == Context }

// Predicate is a compiled expression. It is safe for concurrent use.
type Predicate struct{ program cel.Program }

// Compile checks an expression: that it is one of CEL, names only variables of the scope, is a truth value, and costs no
// more than an evaluation may when each list, map and text has a hundred elements. Patterns of matches stand in the
// expression and have at most 200 instructions, and texts longer than 4 KiB match none: such an evaluation has no value.
// The error wraps [ErrExpression].
func (s *Scope) Compile(text string) (*Predicate, error) { return s.compile(text, uncounted) }

// compile is Compile for expressions that are counted if they may cost more than free.
func (s *Scope) compile(text string, free uint64) (*Predicate, error) {
	if len(text) > MaxText {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrExpression, MaxText)
	}
	ast, issues := s.env.Compile(text)
	if err := issues.Err(); err != nil {
		return nil, fmt.Errorf("%w: %s", ErrExpression, firstLine(err.Error()))
	}
	if !ast.OutputType().IsExactType(cel.BoolType) && !ast.OutputType().IsExactType(cel.DynType) {
		return nil, fmt.Errorf("%w: it is a %s and not a truth value", ErrExpression, ast.OutputType())
	}
	cost, err := s.env.EstimateCost(ast, sizes{typicalSize})
	if err != nil {
		return nil, fmt.Errorf("%w: its cost cannot be told: %w", ErrExpression, err)
	}
	if cost.Max > CostLimit {
		return nil, fmt.Errorf("%w: it may cost %d, more than %d", ErrExpression, cost.Max, CostLimit)
	}
	options := []cel.ProgramOption{cel.EvalOptions(cel.OptOptimize), cel.CustomDecoratorV2(boundMatches)}
	if worst, err := s.env.EstimateCost(ast, sizes{largestSize}); err != nil || worst.Max > free || builds(ast) {
		options = append(options, cel.CostLimit(CostLimit), cel.CostTracking(prices{}), cel.CustomDecoratorV2(boundComparisons))
	}
	program, err := s.env.Program(ast, options...)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", ErrExpression, firstLine(err.Error()))
	}
	return &Predicate{program}, nil
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return strings.TrimPrefix(line, "ERROR: <input>:")
}

// sizes says how large values are at most that an expression does not hold itself.
type sizes struct{ most uint64 }

// EstimateSize implements checker.CostEstimator.
func (s sizes) EstimateSize(n checker.AstNode) *checker.SizeEstimate {
	if path := n.Path(); len(path) == 1 && !isObject(path[0]) && n.Type() != nil && n.Type().IsExactType(cel.StringType) {
		return &checker.SizeEstimate{Min: 0, Max: min(s.most, largestName)}
	}
	return &checker.SizeEstimate{Min: 0, Max: s.most}
}

// EstimateCallCost implements checker.CostEstimator: calls cost what CEL says, but that regular expressions over the
// largest values are always worth counting.
func (s sizes) EstimateCallCost(function, _ string, _ *checker.AstNode, _ []checker.AstNode) *checker.CallEstimate {
	if s.most == largestSize && function == "matches" {
		return &checker.CallEstimate{CostEstimate: checker.CostEstimate{Min: 0, Max: uncounted + 1}}
	}
	return nil
}

// Holds evaluates the expression; values must have all variables of its scope. It ends after some milliseconds at most,
// and waits for nothing. The error is [ErrCost] or a [*ValueError], and says no value of a variable.
func (p *Predicate) Holds(values map[string]any) (bool, error) { return p.holds(values) }

// Variables are values that are made when an expression asks for them.
type Variables interface {
	// Variable returns the value of a variable: a string, or of objects a map[string]any.
	Variable(name string) any
}

// HoldsFor is [Predicate.Holds] for values that need not all exist beforehand.
func (p *Predicate) HoldsFor(v Variables) (bool, error) { return p.holds(activation{v}) }

// activation shows variables to CEL.
type activation struct{ of Variables }

// ResolveName implements cel.Activation.
func (a activation) ResolveName(name string) (any, bool) {
	v := a.of.Variable(name)
	return v, v != nil
}

// Parent implements cel.Activation.
func (activation) Parent() cel.Activation { return nil }

// holds evaluates over a map or an activation.
func (p *Predicate) holds(values any) (bool, error) {
	out, _, err := p.program.Eval(values)
	if err != nil {
		if cancelled, ok := errors.AsType[interpreter.EvalCancelledError](err); ok && cancelled.Cause == interpreter.CostLimitExceeded {
			return false, ErrCost
		}
		return false, &ValueError{err}
	}
	b, ok := out.(types.Bool)
	if !ok {
		return false, &ValueError{fmt.Errorf("it is a %s and not a truth value", out.Type().TypeName())}
	}
	return bool(b), nil
}
