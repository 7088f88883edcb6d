package settings

import (
	"cmp"
	"maps"
	"slices"

	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// Level is how narrow the owner's layer is. What a tenant may set is what it may as a parent.
func (o Owner) Level() sdk.Level {
	switch o.Kind {
	case Plan:
		return sdk.LevelPlan
	case Region:
		return sdk.LevelRegion
	case Tenant:
		return sdk.LevelTenant
	case Environment:
		return sdk.LevelEnvironment
	default:
		return sdk.LevelPlatform
	}
}

// Refusals says what would stand in documents after the change and cannot hold or cannot be merged, and did not before:
// of a document what it sets anew, of a schema what it is against in all documents. The rules are those of
// [sdk.Schema.Refused]. What stands already and stays as it is stops nobody.
func (c Change) Refusals() []Finding {
	found := make(findings)
	if c.Schema == nil {
		known := refused(c.Before.Schema, c.Owner, c.Before.layer(c.Owner))
		found.add(refused(c.Before.Schema, c.Owner, c.Layer), known, c.Owner.String())
		return found.sorted()
	}
	for o, l := range c.Before.layers() {
		found.add(refused(c.Schema, o, l), refused(c.Before.Schema, o, l), o.String())
	}
	return found.sorted()
}

// layers are all documents by their owners.
func (s State) layers() map[Owner]*sdk.Layer {
	out := make(map[Owner]*sdk.Layer)
	put := func(o Owner, l *sdk.Layer) {
		if l != nil {
			out[o] = l
		}
	}
	put(Owner{Kind: Platform}, s.Platform)
	for id, l := range s.Plans {
		put(Owner{Kind: Plan, Name: id}, l)
	}
	for id, l := range s.Regions {
		put(Owner{Kind: Region, Name: id}, l)
	}
	for id, own := range s.Tenants {
		put(Owner{Kind: Tenant, Name: id}, own.Layer)
		for environment, l := range own.Environments {
			put(Owner{Environment, id, environment}, l)
		}
	}
	return out
}

// layer is the document of an owner, nil when there is none.
func (s State) layer(o Owner) *sdk.Layer {
	switch o.Kind {
	case Plan:
		return s.Plans[o.Name]
	case Region:
		return s.Regions[o.Name]
	case Tenant:
		return s.Tenants[o.Name].Layer
	case Environment:
		return s.Tenants[o.Name].Environments[o.Environment]
	default:
		return s.Platform
	}
}

// refused is what of a document is refused, with the values.
func refused(s *Schema, o Owner, l *sdk.Layer) map[wrong]bool {
	if l == nil {
		return nil
	}
	out := make(map[wrong]bool)
	for _, p := range s.Merge.Refused(o.Level(), l.Object) {
		v, _ := sdk.At(l.Object, p.Pointer)
		out[wrong{p, string(sdk.Canonical(v))}] = true
	}
	return out
}

// findings collects problems with the names of where they are.
type findings map[sdk.Problem]*Finding

// add adds what is wrong and was not known.
func (f findings) add(wrongs, known map[wrong]bool, names ...string) {
	for w := range wrongs {
		if known[w] {
			continue
		}
		if f[w.Problem] == nil {
			f[w.Problem] = &Finding{Problem: w.Problem}
		}
		f[w.Problem].Where = append(f[w.Problem].Where, names...)
	}
}

func (f findings) sorted() []Finding {
	out := make([]Finding, 0, len(f))
	for _, one := range slices.Collect(maps.Values(f)) {
		slices.Sort(one.Where)
		out = append(out, *one)
	}
	slices.SortFunc(out, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Pointer, b.Pointer), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Text, b.Text))
	})
	return out
}
