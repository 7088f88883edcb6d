// Package cel evaluates conditions of flags in CEL, the Common Expression Language: {"cel": "plan == 'free'"} in a
// flag's targeting.
//
// A condition sees tenant, plan, region and environment, which come from the verified tenant context, and context with all
// attributes of the evaluation: context.email, or has(context.email) && … where it may be missing. What it may cost is
// bounded. Who does not import this package does not link CEL. Start at [New].
package cel

import (
	"errors"
	"fmt"
	"sync"

	"github.com/rowhouse-platform/rowhouse/sdk/flags/jsonlogic"
	"github.com/rowhouse-platform/rowhouse/sdk/predicate"
)

// mostKept bounds how many compiled conditions are kept: flags are compiled again at each change, and for each tenant
// that has flags of its own.
const mostKept = 10_000

// Conditions implements [jsonlogic.Conditions].
type Conditions struct {
	scope *predicate.Scope

	mu   sync.Mutex
	kept map[string]jsonlogic.Condition
}

// New returns conditions for flags.Config, for as many clients as there are.
func New() (*Conditions, error) {
	s, err := predicate.NewScope(predicate.Tenant, predicate.Plan, predicate.Region, predicate.Environment, predicate.Context)
	if err != nil {
		return nil, fmt.Errorf("cel: %w", err)
	}
	return &Conditions{scope: s, kept: make(map[string]jsonlogic.Condition)}, nil
}

// Compile implements [jsonlogic.Conditions].
func (c *Conditions) Compile(text string) (jsonlogic.Condition, error) {
	c.mu.Lock()
	known := c.kept[text]
	c.mu.Unlock()
	if known != nil {
		return known, nil
	}
	p, err := c.scope.Compile(text)
	if err != nil {
		return nil, err
	}
	made := &condition{p}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.kept) >= mostKept {
		clear(c.kept)
	}
	c.kept[text] = made
	return made, nil
}

type condition struct{ predicate *predicate.Predicate }

// Holds implements [jsonlogic.Condition].
func (c *condition) Holds(data jsonlogic.Value) (bool, error) {
	holds, err := c.predicate.HoldsFor(variables{data})
	if errors.Is(err, predicate.ErrCost) {
		return false, fmt.Errorf("cel: %w", jsonlogic.ErrBudget)
	}
	if value, ok := errors.AsType[*predicate.ValueError](err); ok {
		return false, noValue{value}
	}
	return holds, err
}

// noValue says why a condition has no value: whose context it is may read that.
type noValue struct{ cause *predicate.ValueError }

// Error implements error.
func (e noValue) Error() string { return e.cause.Why() }

// Unwrap implements errors.
func (e noValue) Unwrap() error { return e.cause }

// variables are what a condition sees of the data of an evaluation.
type variables struct{ data jsonlogic.Value }

// Variable implements [predicate.Variables]. What we do not know of a caller is an empty text. A context may be large and an
// expression may mention it often, so it is turned into CEL's terms once for all conditions that see it.
func (v variables) Variable(name string) any {
	if name == predicate.Context {
		if v.data.Kind() != jsonlogic.Object {
			return map[string]any{}
		}
		return v.data.Shared()
	}
	known, _ := v.data.Member(name)
	if known.Kind() != jsonlogic.String {
		return ""
	}
	return known.String()
}
