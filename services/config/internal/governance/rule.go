package governance

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
)

const (
	// MaxCount is how many approvals may be asked for.
	MaxCount = 3

	oneEnvironment = "environments/"
)

// Rule says of a namespace which documents need approval, and how many must approve. The zero value asks for none.
type Rule struct {
	// Layers are kinds of layers, or "environments/{environment}" for one environment of all tenants; in order.
	Layers []string
	Count  int
}

// NewRule makes a rule. One without layers is the zero value; a count of 0 counts as 1.
func NewRule(layers []string, count int) (Rule, error) {
	if len(layers) == 0 {
		return Rule{}, nil
	}
	for _, l := range layers {
		if !known(l) {
			return Rule{}, fmt.Errorf("%q is no layer: platform, plan, region, tenant, environment or environments/{environment}", l)
		}
	}
	if count < 0 || count > MaxCount {
		return Rule{}, fmt.Errorf("the count is not 1 to %d", MaxCount)
	}
	sorted := slices.Sorted(slices.Values(layers))
	return Rule{slices.Compact(sorted), max(count, 1)}, nil
}

func known(layer string) bool {
	switch settings.Kind(layer) {
	case settings.Platform, settings.Plan, settings.Region, settings.Tenant, settings.Environment:
		return true
	}
	name, ok := strings.CutPrefix(layer, oneEnvironment)
	if !ok {
		return false
	}
	o, err := settings.ParseOwner(sdk.LayerEnvironment("any", name))
	return err == nil && o.Environment == name
}

// RuleOf reads a rule from the document of a namespace: {"layers": [...], "count": 2}.
func RuleOf(v any) (Rule, error) {
	o, ok := v.(sdk.Object)
	if !ok {
		return Rule{}, errors.New("is not an object")
	}
	var layers []string
	count := 0
	for name, v := range o {
		switch name {
		case "layers":
			list, ok := v.([]any)
			if !ok {
				return Rule{}, errors.New(`"layers" is not a list`)
			}
			for _, l := range list {
				text, _ := l.(string)
				layers = append(layers, text)
			}
		case "count":
			var err error
			if count, err = strconv.Atoi(string(sdk.Canonical(v))); err != nil {
				return Rule{}, errors.New(`"count" is not a whole number`)
			}
		default:
			return Rule{}, fmt.Errorf("has the member %q, want layers and count", name)
		}
	}
	return NewRule(layers, count)
}

// Object is the inverse of [RuleOf]; nil for the zero value.
func (r Rule) Object() sdk.Object {
	if r.Count == 0 {
		return nil
	}
	layers := make([]any, len(r.Layers))
	for i, l := range r.Layers {
		layers[i] = l
	}
	return sdk.Object{"layers": layers, "count": float64(r.Count)}
}

// Needs is how many must approve an edit of an owner's document.
func (r Rule) Needs(o settings.Owner) int {
	if slices.Contains(r.Layers, string(o.Kind)) ||
		o.Kind == settings.Environment && slices.Contains(r.Layers, oneEnvironment+o.Environment) {
		return r.Count
	}
	return 0
}

// Weaker says whether the rule asks for less than another one somewhere.
func (r Rule) Weaker(other Rule) bool {
	if other.Count == 0 {
		return false
	}
	return r.Count < other.Count || slices.ContainsFunc(other.Layers, func(l string) bool {
		return !slices.Contains(r.Layers, l) &&
			!(strings.HasPrefix(l, oneEnvironment) && slices.Contains(r.Layers, string(settings.Environment)))
	})
}

// Enough refuses what has fewer approvals than are required.
func Enough(has, required int) error {
	if has >= required {
		return nil
	}
	return fault.New(fault.FailedPrecondition, ReasonApprovalRequired, "this needs %d approvals of people who did not write it, and has %d",
		required, has).WithDomain(Domain).WithMetadata("required", strconv.Itoa(required))
}
