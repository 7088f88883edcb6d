package predicate

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"

	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/interpreter"
)

const (
	// maxProgram is how many instructions a pattern may become, and maxMatched how many bytes it may be held against.
	// Together they bound what one match takes: CEL counts its cost when it is over.
	maxProgram = 200
	maxMatched = 4 << 10
)

// boundMatches is a decorator of CEL's planner. It lets `matches` take patterns only that stand in the expression, so
// that none comes with a request, and only texts of bounded length.
func boundMatches(i interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
	call, ok := i.(interpreter.InterpretableCall)
	if !ok || call.Function() != overloads.Matches || len(call.Args()) != 2 {
		return i, nil
	}
	constant, ok := call.Args()[1].(interpreter.InterpretableConst)
	if !ok {
		return nil, errors.New("a pattern of matches must stand in the expression")
	}
	pattern, ok := constant.Value().(types.String)
	if !ok {
		return nil, errors.New("a pattern of matches must be a text")
	}
	// cel.RegexProgramSizeLimit panics on repetitions with bounds, and where a pattern is no text.
	parsed, err := syntax.Parse(string(pattern), syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("a pattern of matches: %w", err)
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, fmt.Errorf("a pattern of matches: %w", err)
	}
	if size := len(program.Inst); size > maxProgram {
		return nil, fmt.Errorf("a pattern of matches has %d instructions, more than %d", size, maxProgram)
	}
	compiled, err := regexp.Compile(string(pattern))
	if err != nil {
		return nil, fmt.Errorf("a pattern of matches: %w", err)
	}
	// Under another name, so that no later decorator takes it for CEL's own. Its cost is that of its overload.
	return interpreter.NewCall(call.ID(), "boundedMatches", overloads.MatchesString, call.Args(), func(values ...ref.Val) ref.Val {
		text, ok := values[0].Value().(string)
		if !ok {
			return types.MaybeNoSuchOverloadErr(values[0])
		}
		if len(text) > maxMatched {
			return types.NewErr("a text for matches has more than %d bytes", maxMatched)
		}
		return types.Bool(compiled.MatchString(text))
	}), nil
}
