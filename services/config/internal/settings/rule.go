package settings

import (
	"errors"
	"fmt"
	"strings"

	"github.com/rowhouse-platform/rowhouse/sdk/predicate"
	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
)

const (
	maxRules   = 50
	maxMessage = 200
)

// rule is a condition in CEL that every effective value must meet.
type rule struct {
	predicate *predicate.Predicate
	// pointer is the member that a problem is reported at, message what is said of it.
	pointer, message string
}

// compileRules reads the rules of a schema. They are about the value alone and not about whose it is, so that tenants
// with the same value are judged once.
func compileRules(schema sdk.Object) ([]rule, error) {
	given, ok := schema[sdk.RulesKeyword]
	if !ok {
		return nil, nil
	}
	list, ok := given.([]any)
	if !ok || len(list) > maxRules {
		return nil, fmt.Errorf("%w: %s is not a list of at most %d rules", ErrSchema, sdk.RulesKeyword, maxRules)
	}
	scope, err := predicate.NewScope(predicate.Config)
	if err != nil {
		return nil, err
	}
	rules := make([]rule, len(list))
	for i, one := range list {
		if rules[i], err = compileRule(scope, one); err != nil {
			return nil, fmt.Errorf("%w: %s/%d: %w", ErrSchema, sdk.RulesKeyword, i, err)
		}
	}
	return rules, nil
}

func compileRule(scope *predicate.Scope, given any) (rule, error) {
	o, ok := given.(map[string]any)
	if !ok {
		return rule{}, errors.New("is not an object")
	}
	var text string
	r := rule{}
	for key, value := range o {
		s, ok := value.(string)
		into := map[string]*string{"rule": &text, "message": &r.message, "pointer": &r.pointer}[key]
		if !ok || into == nil {
			return rule{}, fmt.Errorf("has the member %q, want the texts rule, message and pointer", key)
		}
		*into = s
	}
	if r.message == "" || len(r.message) > maxMessage || r.pointer != "" && !strings.HasPrefix(r.pointer, "/") {
		return rule{}, fmt.Errorf("needs a message of at most %d bytes, and a JSON pointer or none", maxMessage)
	}
	p, err := scope.Compile(text)
	r.predicate = p
	return r, err
}

// problem is how a value breaks the rule, ok is false when it does not. A rule that has no result is broken: one that
// is about members which may be missing asks for them with has().
func (r rule) problem(o sdk.Object) (p sdk.Problem, broken bool) {
	holds, err := r.predicate.Holds(map[string]any{predicate.Config: o})
	if err == nil && holds {
		return p, false
	}
	p = sdk.Problem{Pointer: r.pointer, Rule: sdk.RulesKeyword, Text: r.message}
	switch {
	case errors.Is(err, predicate.ErrCost):
		p.Text += " (the rule costs too much for this value)"
	case err != nil:
		p.Text += " (the rule cannot be evaluated for this value)"
	}
	return p, true
}
