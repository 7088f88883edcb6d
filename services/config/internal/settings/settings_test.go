package settings_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
)

func TestNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"platform/config/notes", "plans/free/config/notes", "regions/eu-1/config/notes", "tenants/acme/config/notes",
		"tenants/acme/environments/staging/config/notes",
	} {
		o, namespace, err := settings.ParseName(name)
		if err != nil || namespace != "notes" || o.Document(namespace) != name {
			t.Errorf("%s: %v, %q, %v", name, o, namespace, err)
		}
	}
	for _, name := range []string{
		"", "platform", "platform/config/", "platform/config/a/b", "plans//config/notes", "plans/a/b/config/notes",
		"tenants/Acme/config/notes", "tenants/ab/config/notes", "regions//config/notes", "platform/x/config/notes",
		"regions/EU/config/notes", "regions/" + strings.Repeat("x", 25) + "/config/notes", "tenants/acme/environments//config/notes",
		"tenants/acme/environments/a/b/config/notes", "tenants/acme/stages/a/config/notes", "plans/free/environments/a/config/notes",
		"tenants/acme/environments/" + strings.Repeat("x", 33) + "/config/notes", "environments/a/config/notes",
	} {
		if o, namespace, err := settings.ParseName(name); !errors.Is(err, settings.ErrName) {
			t.Errorf("%q is %v, %q, %v", name, o, namespace, err)
		}
	}
	for name, want := range map[string]string{"namespaces/notes": "notes", "namespaces/": "", "notes": "", "namespaces/a/b": ""} {
		if got, err := settings.ParseNamespace(name); got != want || (err == nil) != (want != "") {
			t.Errorf("%q is %q, %v", name, got, err)
		}
	}
}

func TestContentIsReadAsReadersWill(t *testing.T) {
	t.Parallel()
	_, text, err := settings.Content(` {"b":1.0,"a":2e1} `)
	if err != nil || text != `{"a":20,"b":1}` {
		t.Errorf("%s, %v", text, err)
	}
	// 1e15 becomes 16 bytes: what is small enough as it came may be too large for readers.
	grows := `{"` + strings.Repeat("x", 500) + `":"` + strings.Repeat("y", 220_000) + `","n":[` + strings.Repeat("1e15,", 7000) + `1e15]}`
	if _, err := sdk.Parse([]byte(grows)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := settings.Content(grows); !errors.Is(err, sdk.ErrDocument) {
		t.Errorf("a document that readers refuse: %v", err)
	}
	if _, text, err := settings.Patched(`{"a":{"b":1,"c":2}}`, `{"a":{"b":null}}`); err != nil || text != `{"a":{"c":2}}` {
		t.Errorf("patched: %s, %v", text, err)
	}
}

func TestCompileRefuses(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "schema.json")
	if err := os.WriteFile(file, []byte(`{}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		schema string
		ok     bool
	}{
		"anything":         {`{}`, true},
		"dialect":          {`{"$schema":"https://json-schema.org/draft/2020-12/schema"}`, true},
		"local reference":  {`{"properties":{"a":{"$ref":"#/$defs/n"}},"$defs":{"n":{"type":"number"}}}`, true},
		"meta schema":      {`{"$ref":"https://json-schema.org/draft/2020-12/schema"}`, true},
		"good default":     {`{"properties":{"a":{"type":"number","default":1}},"required":["a"]}`, true},
		"not JSON":         {`{`, false},
		"not an object":    {`true`, false},
		"other dialect":    {`{"$schema":"http://json-schema.org/draft-07/schema#"}`, false},
		"wrong keyword":    {`{"type":"text"}`, false},
		"pattern":          {`{"pattern":"("}`, false},
		"look-around":      {`{"pattern":"(?=a)"}`, false},
		"remote reference": {`{"$ref":"https://example.com/schema"}`, false},
		"file":             {`{"$ref":"file://` + file + `"}`, false},
		"path":             {`{"$ref":"other.json"}`, false},
		"remote below":     {`{"properties":{"a":{"$ref":"https://example.com/schema"}}}`, false},
		"no such pointer":  {`{"$ref":"#/$defs/n"}`, false},
		"bad default":      {`{"properties":{"a":{"type":"number","default":"x"}}}`, false},
		"no default":       {`{"required":["a"]}`, false},
		"keywords":         {`{"properties":{"a":{"x-lock":"plan","x-merge":"append","default":[1]}}}`, true},
		"bad lock":         {`{"properties":{"a":{"x-lock":"nobody"}}}`, false},
		"idle lock":        {`{"allOf":[{"x-lock":"plan"}]}`, false},
		"unset default":    {`{"properties":{"a":{"default":{"b":{"$unset":true},"c":{"$unset":1}}}}}`, false},
		"no map":           {`{"properties":{"a":{"x-merge":{"map":"id"},"default":[1]}}}`, false},
		"too large":        {`{"description":"` + strings.Repeat("x", 128<<10) + `"}`, false},
	} {
		_, err := settings.Compile("notes", c.schema)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, settings.ErrSchema) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func compile(tb rapid.TB, namespace, text string) *settings.Schema {
	tb.Helper()
	s, err := settings.Compile(namespace, text)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func layer(tb rapid.TB, text string) *sdk.Layer {
	tb.Helper()
	o, err := sdk.Parse([]byte(text))
	if err != nil {
		tb.Fatal(err)
	}
	return &sdk.Layer{Object: o}
}

func TestCheckTellsPointersAndRules(t *testing.T) {
	t.Parallel()
	s := compile(t, "notes", `{"type":"object","additionalProperties":false,"properties":{
		"n":{"type":"integer","minimum":1,"maximum":9,"default":5},"s":{"type":"string","minLength":2,"maxLength":3,"pattern":"^x","default":"xx"},
		"e":{"enum":["a","b"]},"any":{"anyOf":[{"type":"string"},{"type":"number"}]},
		"o":{"type":"object","required":["p"],"properties":{"a/b":{"type":"boolean"}}},"list":{"type":"array","items":{"type":"number"},"uniqueItems":true}}}`)
	for content, want := range map[string][]string{
		`{}`:                                   nil,
		`{"n":0}`:                              {"/n minimum"},
		`{"n":10}`:                             {"/n maximum"},
		`{"n":1.5}`:                            {"/n type"},
		`{"s":"x"}`:                            {"/s minLength"},
		`{"s":"secret"}`:                       {"/s maxLength", "/s pattern"},
		`{"e":"c"}`:                            {"/e enum"},
		`{"any":null}`:                         {"/any anyOf"},
		`{"o":{"a/b":1}}`:                      {"/o required", "/o/a~1b type"},
		`{"list":[1,"x",2]}`:                   {"/list/1 type"},
		`{"list":[1,1]}`:                       {"/list uniqueItems"},
		`{"more":"secret","other":1,"n":true}`: {"/more additionalProperties", "/n type", "/other additionalProperties"},
	} {
		var got []string
		for _, p := range s.Check(sdk.Merge(*layer(t, content))) {
			got = append(got, p.Pointer+" "+p.Rule)
			if p.Text == "" || strings.Contains(p.Text, "secret") {
				t.Errorf("%s: %q", content, p.Text)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", content, diff)
		}
	}
}

// TestCheckTellsPlacesOfNames has a wrong name before, between and below what else is wrong: the library's own place of it
// is the last that it looked at.
func TestCheckTellsPlacesOfNames(t *testing.T) {
	t.Parallel()
	s := compile(t, "notes", `{"type":"object","properties":{
		"dark":{"type":"object","additionalProperties":{"type":"string"}},"light":{"$ref":"#/properties/dark"},
		"texts":{"type":"object","propertyNames":{"pattern":"^[a-z]{2}$"},"additionalProperties":{"$ref":"#/$defs/pages"}},
		"both":{"type":"object","dependentRequired":{"a":["b","c"]}}},
		"$defs":{"pages":{"type":"object","propertyNames":{"enum":["error","suspended"]},"additionalProperties":{"$ref":"#/$defs/page"}},
			"page":{"type":"object","additionalProperties":false,"properties":{"title":{"type":"string"}}}}}`)
	for content, want := range map[string][]string{
		`{"dark":{"primary":"x"},"light":{"primary":"y"},"texts":{"de":{"suspendd":{"title":"hallo"},"error":{"title":"x"}}}}`: {
			"/texts/de/suspendd propertyNames"},
		`{"dark":{"primary":"x"},"texts":{"de":{"suspendd":{"titel":1},"error":{"title":1}},"eng":{"error":{}}}}`: {
			"/texts/de/error/title type", "/texts/de/suspendd propertyNames", "/texts/de/suspendd/titel additionalProperties",
			"/texts/eng propertyNames"},
		`{"dark":{"primary":"x"},"both":{"a":1,"c":2,"d":{"e":1}}}`: {"/both dependentRequired"},
		`{"texts":{"en":{"error":{"a/b":"x"}}},"light":{"primary":1}}`: {
			"/light/primary type", "/texts/en/error/a~1b additionalProperties"},
	} {
		for range 20 { // the library goes through members in no order
			var got []string
			for _, p := range s.Check(sdk.Merge(*layer(t, content))) {
				got = append(got, p.Pointer+" "+p.Rule)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("%s (-want +got)\n%s", content, diff)
			}
		}
	}
}

func TestCheckBrands(t *testing.T) {
	t.Parallel()
	s := compile(t, sdk.BrandNamespace, sdk.BrandSchema())
	bad := *layer(t, `{"logo":"data:image/png;base64,AAAA","light":{"text":"red"}}`)
	var got []string
	for _, p := range s.Check(sdk.Merge(bad)) {
		got = append(got, p.Pointer+" "+p.Rule)
	}
	if diff := cmp.Diff([]string{"/light/text colour", "/light/text pattern", "/logo logo"}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// Equal colours are judged once, however many domains have them, and a way out is looked for a few times only.
func TestContrastCostsLittle(t *testing.T) {
	t.Parallel()
	s := compile(t, sdk.BrandNamespace, sdk.BrandSchema())
	const grey = `"light":{"background":"#7f7f7f","surface":"#7f7f80","text":"#7f7f7f","text-muted":"#7f7f7f","link":"#7f7f7f",
		"primary":"#7f7f7f","on-primary":"#7f7f7f","success":"#7f7f7f","warning":"#7f7f7f","error":"#7f7f7f"}`
	ways := func(content string) (findings, ways int) {
		for _, p := range s.Check(sdk.Merge(*layer(t, content))) {
			if p.Rule == settings.RuleContrast {
				findings++
			}
			if strings.Contains(p.Text, "passes is #") || strings.Contains(p.Text, "no colour passes") {
				ways++
			}
		}
		return findings, ways
	}
	domains := func(each string) string {
		var all []string
		for i := range 10 {
			all = append(all, fmt.Sprintf(`"d%d.acme.example":{%s}`, i, each))
		}
		return `"domains":{` + strings.Join(all, ",") + `}`
	}
	own, proposals := ways(`{` + grey + `}`)
	if own <= 10 || proposals != 10 {
		t.Fatalf("%d pairs, %d ways out", own, proposals)
	}
	if n, w := ways(`{` + grey + `,` + domains(`"name":"x"`) + `}`); n != own || w != 10 {
		t.Errorf("with names of their own: %d pairs, %d ways out", n, w)
	}
	// What is said of the light side everywhere is not said again for each domain.
	if n, w := ways(`{` + grey + `,` + domains(strings.Replace(grey, "light", "dark", 1)) + `}`); n != own+10*own || w != 10 {
		t.Errorf("with dark sides of their own: %d pairs, want %d; %d ways out", n, 11*own, w)
	}
}

func TestCheckBoundsWhatLayersAddUpTo(t *testing.T) {
	t.Parallel()
	s := compile(t, "notes", `{}`)
	big := func(name string) sdk.Layer { return *layer(t, `{"`+name+`":"`+strings.Repeat("x", 200_000)+`"}`) }
	if found := s.Check(sdk.Merge(big("a"))); len(found) > 0 {
		t.Errorf("one: %v", found)
	}
	if found := s.Check(sdk.Merge(big("a"), big("b"))); len(found) != 1 || found[0].Rule != "bounds" {
		t.Errorf("two: %v", found)
	}
}

// state has tenants acme, globex and umbrella on business, initech and hooli on free, all with documents but acme.
func state(tb rapid.TB) settings.State {
	tb.Helper()
	return settings.State{
		Schema: compile(tb, "notes", `{"properties":{"low":{"type":"number","default":1},"high":{"type":"number","default":5},
			"mode":{"enum":["a","b"]}},"if":{"properties":{"low":{"const":9}}},"then":{"properties":{"high":{"minimum":9}}}}`),
		Platform: layer(tb, `{"mode":"a"}`),
		Plans:    map[string]*sdk.Layer{"free": layer(tb, `{"low":2}`)},
		Tenants: map[string]settings.Own{
			"globex":  {Plan: "business", Layer: layer(tb, `{"low":9,"high":9}`)},
			"initech": {Plan: "free", Layer: layer(tb, `{"high":3}`)},
			"hooli":   {Plan: "free", Layer: layer(tb, `{"high":3}`)},
			// The same document on another plan is another value.
			"umbrella": {Plan: "business", Layer: layer(tb, `{"high":3}`)},
		},
	}
}

func describe(findings []settings.Finding) []string {
	var out []string
	for _, f := range findings {
		out = append(out, fmt.Sprintf("%s %s %v", f.Pointer, f.Rule, f.Where))
	}
	return out
}

func TestFindings(t *testing.T) {
	t.Parallel()
	platform, free, business := settings.Owner{Kind: settings.Platform}, settings.Owner{Kind: settings.Plan, Name: "free"},
		settings.Owner{Kind: settings.Plan, Name: "business"}
	own := func(name string) settings.Owner { return settings.Owner{Kind: settings.Tenant, Name: name} }
	for name, c := range map[string]struct {
		change settings.Change
		want   []string
	}{
		"platform, good":      {settings.Change{Owner: platform, Layer: layer(t, `{"mode":"b"}`)}, nil},
		"platform, for all":   {settings.Change{Owner: platform, Layer: layer(t, `{"mode":"c"}`)}, []string{"/mode enum [plans/free platform tenants/globex tenants/hooli tenants/initech tenants/umbrella]"}},
		"platform, for some":  {settings.Change{Owner: platform, Layer: layer(t, `{"low":9,"high":9}`)}, []string{"/high minimum [tenants/umbrella]"}},
		"platform, not free":  {settings.Change{Owner: platform, Layer: layer(t, `{"low":9}`)}, []string{"/high minimum [platform tenants/umbrella]"}},
		"platform, removed":   {settings.Change{Owner: platform}, nil},
		"plan, its tenants":   {settings.Change{Owner: free, Layer: layer(t, `{"low":9,"high":9}`)}, []string{"/high minimum [tenants/hooli tenants/initech]"}},
		"plan, its others":    {settings.Change{Owner: free, Layer: layer(t, `{"mode":1}`)}, []string{"/mode enum [plans/free tenants/hooli tenants/initech]"}},
		"plan, new":           {settings.Change{Owner: business, Layer: layer(t, `{"high":1}`)}, nil},
		"plan, new and bad":   {settings.Change{Owner: business, Layer: layer(t, `{"low":9}`)}, []string{"/high minimum [plans/business tenants/umbrella]"}},
		"tenant":              {settings.Change{Owner: own("acme"), Tenant: settings.Own{Plan: "business"}, Layer: layer(t, `{"low":9}`)}, []string{"/high minimum [tenants/acme]"}},
		"tenant, by its plan": {settings.Change{Owner: own("initech"), Tenant: settings.Own{Plan: "free"}, Layer: layer(t, `{"low":9,"high":3}`)}, []string{"/high minimum [tenants/initech]"}},
		"tenant, good":        {settings.Change{Owner: own("acme"), Tenant: settings.Own{Plan: "business"}, Layer: layer(t, `{"low":3}`)}, nil},
		"schema": {
			settings.Change{Schema: compile(t, "notes", `{"properties":{"high":{"not":{"const":3}},"low":{"maximum":5},"mode":{"const":"a"}}}`)},
			[]string{"/high not [tenants/hooli tenants/initech tenants/umbrella]", "/low maximum [tenants/globex]"},
		},
	} {
		c.change.Before = state(t)
		if diff := cmp.Diff(c.want, describe(c.change.Findings())); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
}

func TestWhatIsBrokenAlreadyStopsNobody(t *testing.T) {
	t.Parallel()
	s := state(t)
	// A change of plan, of which config is not asked, left initech with a wrong value.
	s.Tenants["initech"] = settings.Own{Plan: "free", Layer: layer(t, `{"mode":"x"}`)}
	set := func(text string) []string {
		return describe(settings.Change{
			Before: s, Owner: settings.Owner{Kind: settings.Tenant, Name: "initech"}, Layer: layer(t, text),
		}.Findings())
	}
	if got := set(`{"mode":"x","high":4}`); got != nil {
		t.Errorf("another change is refused: %v", got)
	}
	if got := set(`{"mode":"y"}`); !slices.Equal(got, []string{"/mode enum [tenants/initech]"}) {
		t.Errorf("another wrong value: %v", got)
	}
	if got := set(`{"mode":"x","low":"x"}`); !slices.Equal(got, []string{"/low type [tenants/initech]"}) {
		t.Errorf("one more wrong value: %v", got)
	}
	platform := settings.Change{Before: s, Owner: settings.Owner{Kind: settings.Platform}, Layer: layer(t, `{"mode":"b"}`)}
	if got := describe(platform.Findings()); got != nil {
		t.Errorf("the platform's change is refused: %v", got)
	}
}

func TestFindingsOfFamiliesAndPlaces(t *testing.T) {
	t.Parallel()
	own := func(name string) settings.Owner { return settings.Owner{Kind: settings.Tenant, Name: name} }
	env := func(name, e string) settings.Owner {
		return settings.Owner{Kind: settings.Environment, Name: name, Environment: e}
	}
	eu := settings.Owner{Kind: settings.Region, Name: "eu"}
	before := settings.State{
		Schema: compile(t, "notes", `{"properties":{"low":{"default":1},"high":{"default":5}},
			"if":{"properties":{"low":{"const":9}}},"then":{"properties":{"high":{"minimum":9}}}}`),
		Plans: map[string]*sdk.Layer{"free": layer(t, `{"high":4}`)}, Regions: map[string]*sdk.Layer{"us": layer(t, `{"high":9}`)},
		Tenants: map[string]settings.Own{
			"holding": {Plan: "free", Region: "us", Layer: layer(t, `{"x":1}`)},
			"child":   {Plan: "free", Region: "eu", Parent: "holding"},
			"other":   {Plan: "pro", Region: "us", Parent: "holding", Layer: layer(t, `{"high":2}`)},
			"alone":   {Plan: "pro", Region: "eu", Environments: map[string]*sdk.Layer{"staging": layer(t, `{"high":10}`), "test": layer(t, `{}`)}},
		},
	}
	for name, c := range map[string]struct {
		change settings.Change
		want   []string
	}{
		"region": {
			settings.Change{Owner: eu, Layer: layer(t, `{"low":9}`)},
			[]string{"/high minimum [plans/free in regions/eu regions/eu tenants/alone tenants/alone/environments/test tenants/child]"}, //nolint:dupword // two names
		},
		"region, with what it takes": {settings.Change{Owner: eu, Layer: layer(t, `{"low":9,"high":9}`)}, nil},
		"parent": {
			settings.Change{Owner: own("holding"), Layer: layer(t, `{"low":9}`)}, []string{"/high minimum [tenants/child tenants/other]"},
		},
		"parent, removed":     {settings.Change{Owner: own("holding")}, nil},
		"child":               {settings.Change{Owner: own("child"), Layer: layer(t, `{"low":9}`)}, []string{"/high minimum [tenants/child]"}},
		"tenant, some places": {settings.Change{Owner: own("alone"), Layer: layer(t, `{"low":9}`)}, []string{"/high minimum [tenants/alone tenants/alone/environments/test]"}},
		"environment":         {settings.Change{Owner: env("alone", "test"), Layer: layer(t, `{"low":9}`)}, []string{"/high minimum [tenants/alone/environments/test]"}},
		"environment, new": {
			settings.Change{Owner: env("fresh", "test"), Tenant: settings.Own{Plan: "free", Region: "us"}, Layer: layer(t, `{"low":9,"high":8}`)},
			[]string{"/high minimum [tenants/fresh/environments/test]"},
		},
		"plan": {
			settings.Change{Owner: settings.Owner{Kind: settings.Plan, Name: "pro"}, Layer: layer(t, `{"low":9}`)},
			[]string{"/high minimum [plans/pro tenants/alone tenants/alone/environments/test tenants/other]"},
		},
	} {
		c.change.Before = before
		if diff := cmp.Diff(c.want, describe(c.change.Findings())); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
}

// world is everything that is written, said as plainly as can be: the documents by the names of their owners.
type world struct {
	documents map[string]*sdk.Layer
	tenants   map[string]settings.Own // plan, region and parent alone
}

// stack is what holds for a tenant in an environment.
func (w world) stack(s *settings.Schema, id, environment string) sdk.Stack {
	t := w.tenants[id]
	return sdk.Stack{
		Schema: s.Merge, Platform: w.documents["platform"], Plan: w.documents["plans/"+t.Plan], Region: w.documents["regions/"+t.Region],
		Parent: w.documents["tenants/"+t.Parent], Tenant: w.documents["tenants/"+id],
		Environment: w.documents["tenants/"+id+"/environments/"+environment],
	}
}

// state is what the service would read.
func (w world) state(s *settings.Schema) settings.State {
	out := settings.State{
		Schema: s, Platform: w.documents["platform"], Plans: map[string]*sdk.Layer{}, Regions: map[string]*sdk.Layer{},
		Tenants: map[string]settings.Own{},
	}
	for name, l := range w.documents {
		o, err := settings.ParseOwner(name)
		switch {
		case err != nil:
			panic(name)
		case o.Kind == settings.Plan:
			out.Plans[o.Name] = l
		case o.Kind == settings.Region:
			out.Regions[o.Name] = l
		}
	}
	for id, t := range w.tenants {
		t.Layer = w.documents["tenants/"+id]
		if l := w.documents["tenants/"+id+"/environments/dev"]; l != nil {
			t.Environments = map[string]*sdk.Layer{"dev": l}
		}
		if t.Layer != nil || t.Environments != nil || w.documents["tenants/"+t.Parent] != nil {
			out.Tenants[id] = t
		}
	}
	return out
}

// TestGroupsMissNobody compares the grouped check with one of every single tenant in every environment.
func TestGroupsMissNobody(t *testing.T) {
	t.Parallel()
	schema := compile(t, "notes", `{"properties":{"a":{"type":"number","maximum":2},"b":{"maximum":2}},"dependentRequired":{"b":["a"]}}`)
	docs := rapid.SampledFrom([]string{`{}`, `{"a":1}`, `{"a":3}`, `{"b":1}`, `{"b":3}`, `{"a":null}`, `{"a":2,"b":2}`})
	owners := []string{"platform", "plans/p", "plans/q", "regions/r", "regions/s"}
	for i := range 6 {
		owners = append(owners, fmt.Sprintf("tenants/tenant%d", i), fmt.Sprintf("tenants/tenant%d/environments/dev", i))
	}
	rapid.Check(t, func(t *rapid.T) {
		w := world{map[string]*sdk.Layer{}, map[string]settings.Own{}}
		for _, owner := range owners {
			if rapid.Bool().Draw(t, owner) {
				w.documents[owner] = layer(t, docs.Draw(t, owner))
			}
		}
		for i := range 6 {
			own := settings.Own{
				Plan: rapid.SampledFrom([]string{"p", "q", "z"}).Draw(t, "plan"), Region: rapid.SampledFrom([]string{"r", "s", ""}).Draw(t, "region"),
			}
			if i > 1 { // the first two are parents
				own.Parent = rapid.SampledFrom([]string{"", "tenant0", "tenant1"}).Draw(t, "parent")
			}
			w.tenants[fmt.Sprintf("tenant%d", i)] = own
		}
		name := rapid.SampledFrom(slices.Concat(owners, []string{"plans/z"})).Draw(t, "owner")
		owner, err := settings.ParseOwner(name)
		if err != nil {
			t.Fatal(err)
		}
		c := settings.Change{Before: w.state(schema), Owner: owner, Tenant: w.tenants[owner.Name]}
		if owner.Kind == settings.Tenant { // as the service does: it may be the first document that children see
			for id, own := range w.tenants {
				if _, ok := c.Before.Tenants[id]; !ok && own.Parent == owner.Name {
					c.Before.Tenants[id] = own
				}
			}
		}
		after := world{maps.Clone(w.documents), w.tenants}
		if delete(after.documents, name); rapid.IntRange(0, 3).Draw(t, "removed") > 0 {
			c.Layer = layer(t, docs.Draw(t, "new"))
			after.documents[name] = c.Layer
		}
		findings := c.Findings()
		named := strings.Join(describe(findings), "\n")
		for id := range w.tenants {
			for _, environment := range []string{"", "dev"} {
				was := schema.Check(w.stack(schema, id, environment).Effective())
				for _, p := range schema.Check(after.stack(schema, id, environment).Effective()) {
					if slices.Contains(was, p) {
						continue // not new, or new in a way that is another test's matter
					}
					i := slices.IndexFunc(findings, func(f settings.Finding) bool { return f.Problem == p })
					if i < 0 || after.documents["tenants/"+id] != nil && !slices.Contains(findings[i].Where, "tenants/"+id) && environment == "" {
						t.Fatalf("%s in %q gets %v, findings:\n%s", id, environment, p, named)
					}
				}
			}
		}
		for _, f := range findings {
			for _, where := range f.Where {
				if owner.OfTenant() && !strings.HasPrefix(where, "tenants/"+owner.Name) && c.Before.Tenants[strings.Split(where, "/")[1]].Parent != owner.Name {
					t.Fatalf("a write of %s concerns %s: %s", name, where, named)
				}
			}
		}
	})
}
