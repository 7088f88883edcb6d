package settings

import (
	"cmp"
	"maps"
	"slices"

	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// State is what is written in one namespace, as far as a change of it is concerned.
type State struct {
	Schema *Schema
	// Platform is the platform's document, nil when there is none.
	Platform *sdk.Layer
	// Plans holds the plans' documents by the plan's id.
	Plans map[string]*sdk.Layer
	// Tenants holds the tenants that have a document, by their ids.
	Tenants map[string]Own
}

// Own is a tenant's document.
type Own struct {
	// Plan is the tenant's plan now.
	Plan  string
	Layer *sdk.Layer
}

// Change is a write in a namespace.
type Change struct {
	// Before is how things are.
	Before State
	// Schema is the new schema; nil leaves the old one.
	Schema *Schema
	// Owner's document becomes Layer, nil to remove it. Unused when the schema changes.
	Owner Owner
	Layer *sdk.Layer
	// Plan is the owner's plan, when that is a tenant.
	Plan string
}

// Finding is something that would be wrong after a write and was not before.
type Finding struct {
	sdk.Problem

	// Where names whose effective value it is in: tenants with documents of their own,
	// a plan for its other tenants, or the platform for tenants of all other plans.
	Where []string
}

// Findings says what the change would break. What is broken already, and stays as it is,
// does not count: it must not stand in the way of other changes.
func (c Change) Findings() []Finding {
	after := c.after()
	found := make(map[sdk.Problem]*Finding)
	for _, g := range after.groups(c) {
		wrongs := after.check(g)
		if len(wrongs) == 0 {
			continue
		}
		known := c.Before.check(g)
		for w := range wrongs {
			if known[w] {
				continue
			}
			f := found[w.Problem]
			if f == nil {
				f = &Finding{Problem: w.Problem}
				found[w.Problem] = f
			}
			f.Where = append(f.Where, g.names...)
		}
	}
	out := make([]Finding, 0, len(found))
	for _, f := range found {
		slices.Sort(f.Where)
		out = append(out, *f)
	}
	slices.SortFunc(out, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Pointer, b.Pointer), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Text, b.Text))
	})
	return out
}

// after is the state that the change would make.
func (c Change) after() State {
	s := c.Before
	if c.Schema != nil {
		s.Schema = c.Schema
		return s
	}
	switch c.Owner.Kind {
	case Platform:
		s.Platform = c.Layer
	case Plan:
		s.Plans = with(s.Plans, c.Owner.Name, c.Layer, c.Layer != nil)
	case Tenant:
		s.Tenants = with(s.Tenants, c.Owner.Name, Own{c.Plan, c.Layer}, c.Layer != nil)
	}
	return s
}

// with returns a copy of m with k set or, unless present, gone.
func with[V any](m map[string]V, k string, v V, present bool) map[string]V {
	out := make(map[string]V, len(m)+1)
	maps.Copy(out, m)
	if present {
		out[k] = v
	} else {
		delete(out, k)
	}
	return out
}

// group is tenants that share one effective value after the change.
type group struct {
	names []string
	plan  string
	// tenant is one of them, empty when they have no document of their own.
	tenant string
}

// groups returns whom the change concerns: tenants with the same document and plan
// count once, and so do all tenants of a plan without one.
func (s State) groups(c Change) []group {
	if c.Schema == nil && c.Owner.Kind == Tenant {
		return []group{{names: []string{c.Owner.String()}, plan: c.Plan, tenant: c.Owner.Name}}
	}
	one := c.Schema == nil && c.Owner.Kind == Plan
	var out []group
	if !one {
		out = append(out, group{names: []string{sdk.LayerPlatform}})
	}
	plans := maps.Clone(s.Plans)
	if one {
		plans = map[string]*sdk.Layer{c.Owner.Name: nil}
	}
	for plan := range plans {
		out = append(out, group{names: []string{Owner{Plan, plan}.String()}, plan: plan})
	}
	return append(out, s.ownGroups(func(plan string) bool { return !one || plan == c.Owner.Name })...)
}

// ownGroups groups the tenants of some plans that have documents.
func (s State) ownGroups(concerned func(plan string) bool) []group {
	type same struct{ plan, content string }
	at := make(map[same]*group)
	texts := make(map[*sdk.Layer]string) // tenants may share one
	for id, own := range s.Tenants {
		if !concerned(own.Plan) {
			continue
		}
		text, known := texts[own.Layer]
		if !known {
			text = string(sdk.Canonical(own.Layer.Object))
			texts[own.Layer] = text
		}
		k := same{own.Plan, text}
		if at[k] == nil {
			at[k] = &group{plan: own.Plan, tenant: id}
		}
		at[k].names = append(at[k].names, Owner{Tenant, id}.String())
	}
	out := make([]group, 0, len(at))
	for _, g := range at {
		out = append(out, *g)
	}
	return out
}

// wrong is a problem and, where it is in a single value, that value: another wrong value
// in the same place is another wrong.
type wrong struct {
	sdk.Problem

	value string
}

// check returns what is wrong with the effective value of a group.
func (s State) check(g group) map[wrong]bool {
	stack := sdk.Stack{Schema: s.Schema.Object, Platform: s.Platform, Plan: s.Plans[g.plan], Tenant: s.Tenants[g.tenant].Layer}
	e := stack.Effective()
	out := make(map[wrong]bool)
	for _, p := range s.Schema.Check(e) {
		w := wrong{Problem: p}
		v, _ := sdk.At(e.Object, p.Pointer)
		switch v.(type) {
		case sdk.Object, []any:
		default:
			w.value = string(sdk.Canonical(v))
		}
		out[w] = true
	}
	return out
}
