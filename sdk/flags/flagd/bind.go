package flagd

import (
	"maps"
	"strings"

	"github.com/rowhouse-platform/rowhouse/sdk/flags"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// binding holds what rules see of a tenant, as constants; null is what is not known.
type binding map[string]any

// bound returns a tenant's flags as a document in which rules have the tenant's own values for {"var":"tenant"} and its
// like. Providers evaluate it where the caller is: some ignore the context that is sent along, and all believe what the
// caller says over it. Within bodies of map and its like, var sees elements and is left alone.
func bound(view *flags.View) string { return view.Bound(bind) }

func bind(view *flags.View) string {
	who := view.Who.Identity()
	b := binding{}
	for name, value := range map[string]string{
		"tenant": who.Tenant, "plan": who.Plan, "region": who.Region, "environment": who.Environment,
	} {
		if b[name] = nil; value != "" {
			b[name] = value
		}
	}
	if !b.mentioned(view.Text()) {
		return view.Text()
	}
	document := maps.Clone(view.Document())
	document["flags"] = b.each(document["flags"], b.flag)
	document["$evaluators"] = b.each(document["$evaluators"], func(rule any) any { return b.rule(rule, true) })
	return string(settings.Canonical(document))
}

// mentioned reports whether a document can read any of it.
func (b binding) mentioned(text string) bool {
	for name := range b {
		if strings.Contains(text, `"`+name+`"`) {
			return true
		}
	}
	return false
}

// each applies fn to the members of an object.
func (binding) each(object any, fn func(any) any) any {
	out := map[string]any{}
	members, _ := object.(map[string]any) // $evaluators may be absent
	for name, member := range members {
		out[name] = fn(member)
	}
	return out
}

func (b binding) flag(flag any) any {
	members, ok := flag.(map[string]any)
	if !ok || members["targeting"] == nil {
		return flag
	}
	out := maps.Clone(members)
	out["targeting"] = b.rule(members["targeting"], true)
	return out
}

// rule binds a rule; root says whether its var sees the whole context.
func (b binding) rule(rule any, root bool) any {
	if items, ok := rule.([]any); ok {
		return b.rules(items, func(int) bool { return root })
	}
	members, ok := rule.(map[string]any)
	if !ok || len(members) != 1 {
		return rule
	}
	for operator, args := range members {
		if operator == "preserve" {
			return rule
		}
		if operator == "var" && root {
			if value, ok := b.variable(args); ok {
				return value
			}
		}
		items, ok := args.([]any)
		if !ok {
			return map[string]any{operator: b.rule(args, root && !walks(operator))}
		}
		return map[string]any{operator: b.rules(items, func(i int) bool { return root && !(walks(operator) && i == 1) })}
	}
	return rule
}

func (b binding) rules(items []any, root func(i int) bool) []any {
	out := make([]any, len(items))
	for i, item := range items {
		out[i] = b.rule(item, root(i))
	}
	return out
}

// walks reports whether an operator's second argument sees elements of the first.
func walks(operator string) bool {
	switch operator {
	case "map", "filter", "reduce", "all", "some", "none":
		return true
	default:
		return false
	}
}

// variable is what a var of one of the names yields.
func (b binding) variable(args any) (value any, ok bool) {
	items, isList := args.([]any)
	if !isList {
		items = []any{args}
	}
	if len(items) == 0 {
		return nil, false
	}
	name, _ := items[0].(string)
	if value, ok = b[name]; ok && value == nil && len(items) > 1 {
		value = b.rule(items[1], true)
	}
	return value, ok
}
