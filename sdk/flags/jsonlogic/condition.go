package jsonlogic

import (
	"errors"
	"strings"
)

// conditionOperator is the operator {"cel": "<expression>"}. It is ours: flagd's evaluators do not know it.
const conditionOperator = "cel"

// conditionSteps is what evaluating a condition takes of [MaxSteps]: it has a bound of its own, and there may be many.
const conditionSteps = 500

// failedCondition is thrown where a condition has no result.
const failedCondition = "CEL"

// Conditions compiles conditions in a language of their own, which rules hold as {"cel": text}. It is safe for concurrent
// use. Package sdk/flags/cel has one, so that who needs none does not link it.
type Conditions interface {
	// Compile checks and compiles a condition. The error says to its author what is wrong.
	Compile(text string) (Condition, error)
}

// Condition is a compiled condition. It is safe for concurrent use.
type Condition interface {
	// Holds evaluates the condition over the whole data of an evaluation. The error wraps [ErrBudget] where it would do too
	// much; any other is one that rules can catch.
	Holds(data Value) (bool, error)
}

// Accept has rules that are compiled from now on hold conditions. Nil conditions are none.
func (l *Library) Accept(c Conditions) { l.conditions = c }

// condition compiles a condition.
func (c *compiler) condition(raw any) node {
	text, ok := raw.(string)
	switch {
	case !ok:
		c.problemf("%q takes one text", conditionOperator)
		return thrower(invalidArgs)
	case c.library.conditions == nil:
		c.problemf("conditions in CEL are not evaluated here")
		return thrower(unknownOperator)
	}
	condition, err := c.library.conditions.Compile(text)
	if err != nil {
		c.problemf("%s", strings.TrimPrefix(err.Error(), "predicate: "))
		return thrower(invalidArgs)
	}
	return node{cost: 1, eval: func(f *frame) Value {
		if !f.spend(conditionSteps) {
			return Value{}
		}
		holds, err := condition.Holds(f.in.Data)
		switch {
		case err == nil:
			return OfBool(holds)
		case errors.Is(err, ErrBudget):
			f.failed, f.spent = true, true
			return Value{}
		case f.failed:
			return Value{}
		default:
			f.throw(failedCondition)
			f.cause = err
			return Value{}
		}
	}}
}

// HasCondition reports whether a rule, or a shared one that it refers to, has a condition anywhere.
func (l *Library) HasCondition(rule any) bool { return l.hasCondition(rule, make(map[string]bool)) }

func (l *Library) hasCondition(rule any, seen map[string]bool) bool {
	if items, ok := rule.([]any); ok {
		for _, item := range items {
			if l.hasCondition(item, seen) {
				return true
			}
		}
		return false
	}
	name, args, ok := single(rule)
	switch {
	case !ok || name == "preserve":
		return false
	case name == conditionOperator:
		return true
	case name == "$ref":
		shared, ok := args[0].(string)
		if !ok || seen[shared] {
			return false
		}
		seen[shared] = true
		return l.hasCondition(l.source[shared], seen)
	default:
		return l.hasCondition(args, seen)
	}
}

// Evaluates reports whether the library can evaluate a rule as far as its language goes: not one with a condition if it
// has no [Conditions].
func (l *Library) Evaluates(rule any) bool { return l.conditions != nil || !l.HasCondition(rule) }
