package flagset

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/rowhouse-platform/rowhouse/sdk/flags/jsonlogic"
)

// Problem is something in a document that cannot work, at a JSON pointer. [Compile] accepts it, and the flag or the rule
// fails when it is evaluated; who publishes a document should refuse it.
type Problem = jsonlogic.Problem

// Validate returns all that is wrong with a document: flags that cannot be read, a default or a result of targeting that
// names no variant, references to rules that do not exist or go in a circle, operators that do not exist, conditions that
// are none, weights that are no integers or too large together, rules that are nested too deep, and rules that do too much
// whatever they are evaluated over. Nothing means that it may be published.
func Validate(document map[string]any, with ...Option) ([]Problem, error) {
	c, err := newCompiler(document, with)
	if err != nil {
		return nil, err
	}
	for _, d := range c.flags {
		if f := c.flag(d); f.rule != nil {
			c.checkOutcomes(f, d)
			c.checkCost(f, d)
		}
	}
	c.rules.CompileShared()
	problems := slices.Concat(c.problems, c.rules.Problems())
	slices.SortStableFunc(problems, func(a, b Problem) int { return strings.Compare(a.Pointer, b.Pointer) })
	return problems, nil
}

// checkOutcomes looks for constants in the place of a result that name no variant.
func (c *compiler) checkOutcomes(f *flag, d definition) {
	members, _ := d.raw.(map[string]any)
	for _, o := range c.rules.Outcomes(members["targeting"], append(slices.Clone(d.path), "targeting")...) {
		name := variantName(o.Value)
		if f.variants[name] == nil {
			c.problems = append(c.problems, Problem{
				Pointer: o.Pointer, Text: fmt.Sprintf("%.64q names no variant of flag %.64q", name, f.key),
			})
		}
	}
}

// checkCost evaluates a rule over nothing: what does too much then does too much for everybody.
func (c *compiler) checkCost(f *flag, d definition) {
	if _, err := f.rule.Eval(jsonlogic.Input{FlagKey: f.key}); errors.Is(err, jsonlogic.ErrBudget) {
		c.problem(d, "targeting", fmt.Sprintf("does too much: more than %d steps or %d levels", jsonlogic.MaxSteps, jsonlogic.MaxDepth))
	}
}

func (c *compiler) problem(d definition, member, text string) {
	path := d.path
	if member != "" {
		path = append(slices.Clone(path), member)
	}
	c.problems = append(c.problems, Problem{Pointer: jsonlogic.Pointer(path...), Text: text})
}
