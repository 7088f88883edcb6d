package settings_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
)

// mostWork is what any check of a document of a few hundred bytes may cost.
const mostWork = 80_000

// ladder is a schema in which n steps stand twice on the next, for a value that is there or not.
func ladder(n int, value string) string {
	var b strings.Builder
	b.WriteString(`{"properties":{"v":{"$ref":"#/$defs/a0"` + value + `}},"$defs":{`)
	for i := range n {
		fmt.Fprintf(&b, `"a%d":{"allOf":[{"$ref":"#/$defs/a%d"},{"$ref":"#/$defs/a%d"}]},`, i, i+1, i+1)
	}
	fmt.Fprintf(&b, `"a%d":{"type":"integer"}}}`, n)
	return b.String()
}

// nested says the members of a document that stands n times inside of itself.
func nested(n int, before, after string) string {
	return strings.Repeat(before, n) + `{"link":1}` + strings.Repeat(after, n)
}

// TestChecksAreBounded: of documents and schemas that cost exponentially much a part is looked at, and then they are refused.
func TestChecksAreBounded(t *testing.T) {
	t.Parallel()
	menu := func(how string) string {
		return `{"properties":{"menu":{"$ref":"#/$defs/item"}},"$defs":{"item":` + how + `}}`
	}
	const children = `"properties":{"children":{"type":"array","items":{"$ref":"#/$defs/item"}}}`
	const twice = `{"properties":{"c":{"$ref":"#/$defs/item"},"link":false},"patternProperties":{"^c":{"$ref":"#/$defs/item"}}}`
	for name, c := range map[string]struct{ schema, before, after string }{
		"anyOf":          {menu(`{"anyOf":[{"required":["link"],` + children + `},{"required":["action"],` + children + `}]}`), `{"children":[`, `]}`},
		"oneOf":          {menu(`{"oneOf":[{"required":["link"],` + children + `},{"required":["action"],` + children + `}]}`), `{"children":[`, `]}`},
		"without errors": {`{"properties":{"menu":{"not":{"not":{"$ref":"#/$defs/item"}}}},"$defs":{"item":` + twice + `}}`, `{"c":`, `}`},
		"dynamic": {`{"properties":{"menu":{"$dynamicRef":"#item"}},"$defs":{"item":{"$dynamicAnchor":"item",` +
			strings.ReplaceAll(twice[1:], `"$ref":"#/$defs/item"`, `"$dynamicRef":"#item"`) + `}}`, `{"c":`, `}`},
		"dependencies": {menu(`{"dependentSchemas":{"c":{"properties":{"c":{"$ref":"#/$defs/item"}}}},"properties":{"c":{"$ref":"#/$defs/item"}}}`),
			`{"c":`, `}`},
	} {
		s, err := settings.CompileNew("notes", c.schema, "")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		o := parsed(t, `{"menu":`+nested(28, c.before, c.after)+`,"other":{"a":[1,2,3]}}`)
		found := s.Check(sdk.Effective{Object: o})
		if len(found) != 1 || found[0].Rule != "bounds" || found[0].Pointer != "/menu" {
			t.Errorf("%s: %v", name, found)
		}
		if got := s.Work(); got > mostWork {
			t.Errorf("%s costs %d units", name, got)
		}
	}
}

// TestLaddersAreRefused when they are written. One that is stored is read, and costs a bounded amount.
func TestLaddersAreRefused(t *testing.T) {
	t.Parallel()
	for name, schema := range map[string]string{
		"ladder": ladder(40, ""), "ladder with a default": ladder(40, `,"default":1`),
		"itself": `{"properties":{"a":{"allOf":[{"$ref":"#/properties/a"}]}}}`,
		"deep default": `{"properties":{"menu":{"$ref":"#/$defs/item","default":` + nested(20, `{"c":[`, `]}`) + `}},"$defs":{"item":{"anyOf":[` +
			`{"required":["x"],"properties":{"c":{"items":{"$ref":"#/$defs/item"}}}},{"properties":{"c":{"items":{"$ref":"#/$defs/item"}}}}]}}}`,
	} {
		if _, err := settings.CompileNew("notes", schema, ""); !errors.Is(err, settings.ErrSchema) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := settings.CompileNew("notes", ladder(8, `,"default":1`), ""); err != nil {
		t.Errorf("a short ladder: %v", err)
	}
	for name, schema := range map[string]string{"ladder": ladder(40, ""), "with a default": ladder(40, `,"default":1`)} {
		s, err := settings.Compile("notes", schema)
		if err != nil {
			t.Errorf("stored: %s: %v", name, err)
			continue
		}
		if found := s.Check(sdk.Effective{Object: parsed(t, `{"v":1}`)}); len(found) != 1 || found[0].Rule != "bounds" || s.Work() > mostWork {
			t.Errorf("stored: %s: %v for %d", name, found, s.Work())
		}
		if _, err = settings.CompileNew("notes", s.Text, s.Text); err != nil {
			t.Errorf("unchanged: %s: %v", name, err)
		}
	}
}

// TestLargeDocumentsAreChecked: what large documents of usual schemas cost is far from the bound.
func TestLargeDocumentsAreChecked(t *testing.T) {
	t.Parallel()
	var kinds, items []string
	for i := range 30 {
		kinds = append(kinds, fmt.Sprintf(`{"required":["kind","to"],"properties":{"kind":{"const":"k%d"},"to":{"type":"string","pattern":"^/"}}}`, i))
	}
	for i := range 4900 {
		items = append(items, fmt.Sprintf(`{"kind":"k%d","to":"/%d"}`, i%30, i))
	}
	s := compile(t, "notes", `{"properties":{"list":{"type":"array","items":{"oneOf":[`+strings.Join(kinds, ",")+`]}}}}`)
	o := parsed(t, `{"list":[`+strings.Join(items, ",")+`]}`)
	if found := s.Check(sdk.Effective{Object: o}); len(found) != 0 {
		t.Errorf("%v", found)
	}
	t.Log("costs", s.Work())
}

// TestCostlyTenantsStopThemselvesAlone: what was stored before checks were bounded stands in nobody else's way.
func TestCostlyTenantsStopThemselvesAlone(t *testing.T) {
	t.Parallel()
	s := compile(t, "notes", `{"properties":{"menu":{"$ref":"#/$defs/item"}},"$defs":{"item":{"anyOf":[`+
		`{"required":["x"],"properties":{"c":{"items":{"$ref":"#/$defs/item"}}}},{"properties":{"c":{"items":{"$ref":"#/$defs/item"}}}}]}}}`)
	costly := &sdk.Layer{Object: parsed(t, `{"menu":`+nested(28, `{"c":[`, `]}`)+`}`)}
	before := func(n int) settings.State {
		st := settings.State{Schema: s, Tenants: map[string]settings.Own{}}
		for i := range n {
			l := *costly
			l.Object = parsed(t, fmt.Sprintf(`{"n":%d,"menu":%s}`, i, nested(28, `{"c":[`, `]}`)))
			st.Tenants[fmt.Sprintf("t%d", i)] = settings.Own{Layer: &l}
		}
		return st
	}
	platform := settings.Owner{Kind: settings.Platform}
	small := &sdk.Layer{Object: parsed(t, `{"a":1}`)}
	for name, c := range map[string]struct {
		change settings.Change
		want   int
	}{
		"the platform":        {settings.Change{Before: before(1), Owner: platform, Layer: small}, 0},
		"the tenant":          {settings.Change{Before: before(1), Owner: settings.Owner{Kind: settings.Tenant, Name: "t0"}, Layer: costly}, 1},
		"the tenant mends":    {settings.Change{Before: before(1), Owner: settings.Owner{Kind: settings.Tenant, Name: "t0"}, Layer: small}, 0},
		"very many":           {settings.Change{Before: before(11), Owner: platform, Layer: small}, 1},
		"the platform itself": {settings.Change{Before: settings.State{Schema: s, Platform: costly}, Owner: platform, Layer: costly}, 1},
	} {
		found := c.change.Findings()
		if len(found) != c.want || c.want > 0 && found[0].Rule != "bounds" {
			t.Errorf("%s: %v, want %d", name, found, c.want)
		}
	}
}
