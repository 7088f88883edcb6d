package settings_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

const killable = `{"properties":{"banner":{"x-lock":"tenant","x-kill":{"value":false}},
	"page":{"properties":{"size":{"type":"integer","x-kill":{"value":10}},"fit":{"default":true}}},
	"theme":{"x-kill":{"value":{"dark":false}}}},"additionalProperties":{"x-kill":{"value":null}}}`

func TestKillsGoOverAllLayers(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	kill := func(pointer, layer string) settings.Kill {
		k := settings.ReadKill(pointer, layer, settings.KillEntry("it breaks", "ann", at))
		k.Revision = 9
		return k
	}
	s := stackOf(t, killable, `{"banner":true,"theme":{"dark":true,"accent":"red"}}`, ``, `{"banner":"big","page":{"size":500}}`, `{"page":7,"more":1}`)
	before := s.Effective()
	for name, c := range map[string]struct {
		kills []settings.Kill
		want  string
	}{
		"none":            {nil, `{"banner":"big","more":1,"page":7,"theme":{"accent":"red","dark":true}}`},
		"over a lock":     {[]settings.Kill{kill("/banner", "platform")}, `{"banner":false,"more":1,"page":7,"theme":{"accent":"red","dark":true}}`},
		"as a whole":      {[]settings.Kill{kill("/theme", "plans/p")}, `{"banner":"big","more":1,"page":7,"theme":{"dark":false}}`},
		"over no object":  {[]settings.Kill{kill("/page/size", "platform")}, `{"banner":"big","more":1,"page":{"size":10},"theme":{"accent":"red","dark":true}}`},
		"of the others":   {[]settings.Kill{kill("/more", "platform"), kill("/none", "platform")}, `{"banner":"big","more":null,"none":null,"page":7,"theme":{"accent":"red","dark":true}}`},
		"not to be":       {[]settings.Kill{kill("/page/fit", "platform"), kill("/theme/dark", "platform")}, `{"banner":"big","more":1,"page":7,"theme":{"accent":"red","dark":true}}`},
		"not the whole":   {[]settings.Kill{kill("", "platform"), kill("banner", "platform")}, `{"banner":"big","more":1,"page":7,"theme":{"accent":"red","dark":true}}`},
		"of two at once":  {[]settings.Kill{kill("/page/size", "platform"), kill("/banner", "plans/p")}, `{"banner":false,"more":1,"page":{"size":10},"theme":{"accent":"red","dark":true}}`},
		"within another":  {[]settings.Kill{kill("/more/x", "platform"), kill("/more", "platform")}, `{"banner":"big","more":null,"page":7,"theme":{"accent":"red","dark":true}}`},
		"where no one is": {[]settings.Kill{kill("/a~1b", "platform")}, `{"a/b":null,"banner":"big","more":1,"page":7,"theme":{"accent":"red","dark":true}}`},
	} {
		s.Kills = c.kills
		e := s.Effective()
		if got := string(settings.Canonical(e.Object)); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
		if (e.Version == before.Version) != (len(c.kills) == 0) {
			t.Errorf("%s has the version %s", name, e.Version)
		}
	}
	k := kill("/banner", "plans/p")
	s.Kills = []settings.Kill{k}
	want := settings.Origin{
		Pointer: "/banner", Layer: "plans/p/kill", Revision: 9, Shadowed: []string{"tenant", "platform"}, Lock: "tenant", Kill: &k,
	}
	if diff := cmp.Diff(want, s.Effective().Origins[0]); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestKillKeywords(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"x-kill":{"value":1}}`:                                                   "/x-kill is for a property, not for the whole document",
		`{"properties":{"a":{"x-kill":1}}}`:                                        `/properties/a/x-kill must have a "value" and nothing else`,
		`{"properties":{"a":{"x-kill":{"value":1,"why":2}}}}`:                      `/properties/a/x-kill must have a "value" and nothing else`,
		`{"properties":{"a":{"x-kill":{"value":{"$unset":true}}}}}`:                `/properties/a/x-kill must not take anything away`,
		`{"properties":{"a":{"x-kill":{"value":[{"$unset":true}]}}}}`:              `/properties/a/x-kill must not take anything away`,
		`{"properties":{"a":{"x-merge":"replace","x-kill":{"value":null}}}}`:       "",
		`{"additionalProperties":{"properties":{"b":{"x-kill":{"value":"off"}}}}}`: "",
		`{"properties":{"a":{"items":{"x-kill":{"value":1}}}}}`: `/properties/a/items/x-kill acts only where "properties" and ` +
			`"additionalProperties" lead from the root, above a value that is merged deep`,
	} {
		var all []string
		for _, p := range settings.CheckKeywords(parse(t, text)) {
			all = append(all, p.Pointer+" "+p.Text)
		}
		if got := strings.Join(all, ", "); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// TestReadersObeyKills kills at a layer, elsewhere, and lifts, between reads that are kept.
func TestReadersObeyKills(t *testing.T) {
	t.Parallel()
	var s settings.Store
	kills := func(namespace, pointer string) string {
		return string(settings.Canonical(settings.Object{namespace: settings.Object{pointer: settings.KillEntry("it breaks", "ann", time.Now())}}))
	}
	acme, globex := settings.Reader{UID: uidOf("acme"), Plan: "p"}, settings.Reader{UID: uidOf("globex"), Plan: "q"}
	apply(t, &s, feed.Change{Reset: true, Entries: []feed.Entry{
		schemaEntry(t, "n", killable), schemaEntry(t, "m", killable), schemaEntry(t, settings.KillsNamespace, settings.KillSchema()),
		docEntry(t, settings.PlatformKey("n"), `{"banner":true}`, 1), docEntry(t, settings.PlatformKey("m"), `{"banner":true}`, 1),
		docEntry(t, settings.TenantKey("n", uidOf("acme").String()), `{"page":{"fit":false}}`, 2),
	}})
	heard := make(chan settings.Change, 10)
	defer s.Notify("n", func(c settings.Change) { heard <- c })()
	reads := func(what string, want ...bool) {
		t.Helper()
		var got []bool
		for _, r := range []settings.Reader{acme, globex, {UID: uidOf("initech"), Plan: "p"}} {
			for _, n := range []string{"n", "m"} {
				e, ok := s.Holds(r, n)
				banner, isBool := e.Object["banner"].(bool)
				if !ok || !isBool {
					t.Fatalf("%s: %v", what, e.Object)
				}
				got = append(got, banner)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: acme, globex, initech, each n and m (-want +got)\n%s", what, diff)
		}
	}
	reads("before", true, true, true, true, true, true)
	for i, c := range []struct {
		key, text string
		want      []bool
	}{
		{settings.PlanKey(settings.KillsNamespace, "p"), kills("n", "/banner"), []bool{false, true, true, true, false, true}},
		{settings.PlanKey(settings.KillsNamespace, "p"), `{}`, []bool{true, true, true, true, true, true}},
		{settings.TenantKey(settings.KillsNamespace, uidOf("globex").String()), kills("m", "/banner"), []bool{true, true, true, false, true, true}},
		{settings.PlatformKey(settings.KillsNamespace), kills("n", "/banner"), []bool{false, true, false, false, false, true}},
		{settings.PlatformKey(settings.KillsNamespace), kills("n", "/gone/nowhere"), []bool{true, true, true, false, true, true}},
	} {
		apply(t, &s, feed.Change{Revision: int64(i + 2), Entries: []feed.Entry{docEntry(t, c.key, c.text, int64(i+3))}})
		reads(fmt.Sprint("change ", i), c.want...)
		if i > 0 {
			continue // callbacks hear as one what comes while they run
		}
		if c := <-heard; !c.Plans["p"] || c.All {
			t.Errorf("the first kill concerns %+v", c)
		}
	}
}
