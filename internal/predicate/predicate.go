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
)

const (
	// MaxText is how many bytes an expression may have.
	MaxText = 4 << 10
	// CostLimit is what one evaluation may cost, in CEL's units: an operation is about one.
	CostLimit = 10_000

	maxDepth = 50
	// typicalSize is how large a list, map or text is taken to be when a cost is estimated.
	typicalSize = 100
)

// ErrExpression is wrapped by what [Compile] refuses.
var ErrExpression = errors.New("predicate: not an acceptable CEL expression")

// ErrCost is returned for an evaluation that was given up because it cost too much.
var ErrCost = errors.New("predicate: the expression costs too much")

// ErrValue is returned for an evaluation without a result, such as one that asks for a member that is not there.
var ErrValue = errors.New("predicate: the expression has no value")

// Scope is what an expression may ask about.
type Scope struct{ env *cel.Env }

// Names of variables. All are texts but the config, which is a JSON object; its numbers are doubles.
const (
	Tenant      = "tenant"
	Plan        = "plan"
	Region      = "region"
	Environment = "environment"
	Config      = "config"
)

// NewScope returns a scope with the given variables, from those above.
func NewScope(variables ...string) (*Scope, error) {
	options := []cel.EnvOption{cel.ParserRecursionLimit(maxDepth), cel.ParserExpressionSizeLimit(MaxText)}
	for _, name := range variables {
		kind := cel.StringType
		if name == Config {
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

// Predicate is a compiled expression. It is safe for concurrent use.
type Predicate struct{ program cel.Program }

// Compile checks an expression: that it is one of CEL, names only variables of the scope, is a truth value, and costs no
// more than an evaluation may when each list, map and text has a hundred elements. The error wraps [ErrExpression].
func (s *Scope) Compile(text string) (*Predicate, error) {
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
	cost, err := s.env.EstimateCost(ast, sizes{})
	if err != nil {
		return nil, fmt.Errorf("%w: its cost cannot be told: %w", ErrExpression, err)
	}
	if cost.Max > CostLimit {
		return nil, fmt.Errorf("%w: it may cost %d, more than %d", ErrExpression, cost.Max, CostLimit)
	}
	program, err := s.env.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(CostLimit))
	if err != nil {
		return nil, fmt.Errorf("%w: %s", ErrExpression, firstLine(err.Error()))
	}
	return &Predicate{program}, nil
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return strings.TrimPrefix(line, "ERROR: <input>:")
}

// sizes says how large values are that an expression does not hold itself.
type sizes struct{}

// EstimateSize implements checker.CostEstimator.
func (sizes) EstimateSize(checker.AstNode) *checker.SizeEstimate {
	return &checker.SizeEstimate{Min: 0, Max: typicalSize}
}

// EstimateCallCost implements checker.CostEstimator: calls cost what CEL says.
func (sizes) EstimateCallCost(string, string, *checker.AstNode, []checker.AstNode) *checker.CallEstimate {
	return nil
}

// Holds evaluates the expression; values must have all variables of its scope. It ends after at most [CostLimit], which
// is some milliseconds, and waits for nothing. The error is [ErrCost] or [ErrValue], and holds no value of a variable.
func (p *Predicate) Holds(values map[string]any) (bool, error) {
	out, _, err := p.program.Eval(values)
	if err != nil {
		if strings.Contains(err.Error(), "cost limit exceeded") {
			return false, ErrCost
		}
		return false, ErrValue
	}
	b, ok := out.(types.Bool)
	if !ok {
		return false, ErrValue
	}
	return bool(b), nil
}
