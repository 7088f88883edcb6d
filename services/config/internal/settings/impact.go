package settings

import (
	"maps"
	"slices"

	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// State is what is written in one namespace, as far as a change of it is concerned.
type State struct {
	Schema *Schema
	// Platform is the platform's document, nil when there is none.
	Platform *sdk.Layer
	// Plans and Regions hold the documents of plans and regions by their ids.
	Plans, Regions map[string]*sdk.Layer
	// Tenants holds, by their ids, the tenants for which more is written than for their plan and region: those that
	// have a document, for themselves or an environment, and those whose parent has one; and these parents.
	Tenants map[string]Own
}

// Own is what is written for a tenant.
type Own struct {
	// Plan and Region are the tenant's now, and so is Parent, the id of its parent or empty.
	Plan, Region, Parent string
	// Layer is its document, nil when there is none.
	Layer *sdk.Layer
	// Environments holds its documents for environments.
	Environments map[string]*sdk.Layer
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
	// Tenant is the owner, when that is a tenant or one of its environments and Before does not have it.
	Tenant Own
}

// Finding is something that would be wrong after a write and was not before.
type Finding struct {
	sdk.Problem

	// Where names whose effective value it is in: tenants with documents of their own or of a parent, in all environments
	// or in one; a plan, a region or both for their other tenants; or the platform for all others.
	Where []string
}

// Findings says what the change would break. What is broken already, and stays as it is,
// does not count: it must not stand in the way of other changes.
func (c Change) Findings() []Finding {
	after := c.After()
	found := make(findings)
	spent := 0
	for _, g := range after.groups(c) {
		wrongs := after.check(g)
		if len(wrongs) == 0 {
			continue
		}
		known := c.Before.check(g)
		if spent += c.excuse(g, wrongs, known); spent > maxSpent {
			found.add(map[wrong]bool{{Problem: sdk.Problem{Rule: ruleBounds, Text: costly}}: true}, nil, g.names...)
			break
		}
		found.add(wrongs, known, g.names...)
	}
	return found.sorted()
}

// maxSpent is for how many groups checks may be stopped because of what they cost before the change is refused for that.
const maxSpent = 10

// excuse takes away that the check of another tenant's value costs too much, if it did so before: nobody is stopped by
// that. What has a part of the owner's cannot be known to be right, as costly as it was. It returns 1 if a check was stopped.
func (c Change) excuse(g group, wrongs, known map[wrong]bool) int {
	if !hasCostly(wrongs) {
		return 0
	}
	others := g.one.tenant != "" && (!c.Owner.OfTenant() || g.one.tenant != c.Owner.Name)
	switch {
	case !others:
		maps.DeleteFunc(known, func(w wrong, _ bool) bool { return isCostly(w.Problem) })
	case hasCostly(known):
		maps.DeleteFunc(wrongs, func(w wrong, _ bool) bool { return isCostly(w.Problem) })
	}
	return 1
}

func hasCostly(wrongs map[wrong]bool) bool {
	for w := range wrongs {
		if isCostly(w.Problem) {
			return true
		}
	}
	return false
}

// After is the state that the change would make.
func (c Change) After() State {
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
	case Region:
		s.Regions = with(s.Regions, c.Owner.Name, c.Layer, c.Layer != nil)
	case Tenant:
		own := c.own()
		own.Layer = c.Layer
		s.Tenants = with(s.Tenants, c.Owner.Name, own, true)
	case Environment:
		own := c.own()
		own.Environments = with(own.Environments, c.Owner.Environment, c.Layer, c.Layer != nil)
		s.Tenants = with(s.Tenants, c.Owner.Name, own, true)
	}
	return s
}

// Rolled is the state of tenants who have a rollout's content already: of o's document, t being the owner if that is a
// tenant.
func (s State) Rolled(o Owner, l *sdk.Layer, t Own) State {
	return Change{Before: s, Owner: o, Layer: l, Tenant: t}.After()
}

// own is what is written for the tenant that the change is of.
func (c Change) own() Own {
	if own, ok := c.Before.Tenants[c.Owner.Name]; ok {
		return own
	}
	return c.Tenant
}

// concerns says whether a subject can see the change.
func (c Change) concerns(s subject) bool {
	if c.Schema != nil {
		return true
	}
	switch c.Owner.Kind {
	case Plan:
		return s.plan == c.Owner.Name
	case Region:
		return s.region == c.Owner.Name
	case Tenant:
		return s.tenant == c.Owner.Name || s.parent == c.Owner.Name
	case Environment:
		return s.tenant == c.Owner.Name && s.environment == c.Owner.Environment
	default:
		return true
	}
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

// subject is whoever reads the settings: a tenant in an environment. Without a tenant it is all tenants of a plan and a
// region for which nothing else is written, and without these those of all other plans and regions.
type subject struct{ plan, region, parent, tenant, environment string }

// String names the subject.
func (s subject) String() string {
	switch {
	case s.environment != "":
		return sdk.LayerEnvironment(s.tenant, s.environment)
	case s.tenant != "":
		return sdk.LayerTenant(s.tenant)
	case s.plan != "" && s.region != "":
		return sdk.LayerPlan(s.plan) + " in " + sdk.LayerRegion(s.region)
	case s.plan != "":
		return sdk.LayerPlan(s.plan)
	case s.region != "":
		return sdk.LayerRegion(s.region)
	default:
		return sdk.LayerPlatform
	}
}

// stack is what holds for a subject.
func (s State) stack(who subject) sdk.Stack {
	own := s.Tenants[who.tenant]
	return sdk.Stack{
		Schema: s.Schema.Merge, Platform: s.Platform, Plan: s.Plans[who.plan], Region: s.Regions[who.region],
		Parent: s.Tenants[who.parent].Layer, Tenant: own.Layer, Environment: own.Environments[who.environment],
	}
}

// group is subjects that share one effective value after the change, and did before it: what they do not share, it does
// not touch.
type group struct {
	names []string
	one   subject
}

// groups returns whom the change concerns.
func (s State) groups(c Change) []group {
	var out []group
	for _, plan := range idsOf(s.Plans, c.changed(Plan)) {
		for _, region := range idsOf(s.Regions, c.changed(Region)) {
			if who := (subject{plan: plan, region: region}); c.concerns(who) {
				out = append(out, group{[]string{who.String()}, who})
			}
		}
	}
	return append(out, s.ownGroups(c)...)
}

// idsOf are those that have documents, "" for all others, and that whose document the change may take away.
func idsOf(documents map[string]*sdk.Layer, changed string) []string {
	out := slices.AppendSeq([]string{""}, maps.Keys(documents))
	if changed != "" && documents[changed] == nil {
		out = append(out, changed)
	}
	return out
}

// changed is the id of the owner if it is of that kind.
func (c Change) changed(k Kind) string {
	if c.Owner.Kind == k {
		return c.Owner.Name
	}
	return ""
}

// ownGroups groups the tenants for which something is written.
func (s State) ownGroups(c Change) []group {
	type same struct {
		plan, region, parent, tenant, environment string

		owner bool // before the change it may have been another than those that are now alike
	}
	at := make(map[same]*group)
	texts := make(map[*sdk.Layer]string) // tenants may share one
	text := func(l *sdk.Layer) string {
		if l == nil {
			return ""
		}
		if _, known := texts[l]; !known {
			texts[l] = string(sdk.Canonical(l.Object))
		}
		return texts[l]
	}
	for id, own := range s.Tenants {
		owner := c.Owner.OfTenant() && id == c.Owner.Name
		changed := ""
		if owner {
			changed = c.Owner.Environment
		}
		for _, environment := range idsOf(own.Environments, changed) {
			who := subject{own.Plan, own.Region, own.Parent, id, environment}
			if !c.concerns(who) {
				continue
			}
			stack := s.stack(who)
			k := same{own.Plan, own.Region, text(stack.Parent), text(stack.Tenant), text(stack.Environment), owner}
			if at[k] == nil {
				at[k] = &group{one: who}
			}
			at[k].names = append(at[k].names, who.String())
		}
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
	e := named(s.stack(g.one)).Effective()
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

// named tells the layers apart, for checks that ask whether two values come from one.
func named(s sdk.Stack) sdk.Stack {
	for kind, layer := range map[Kind]**sdk.Layer{
		Platform: &s.Platform, Plan: &s.Plan, Region: &s.Region, "parent": &s.Parent, Tenant: &s.Tenant, Environment: &s.Environment,
	} {
		if *layer != nil {
			l := **layer
			l.Name = string(kind)
			*layer = &l
		}
	}
	return s
}
