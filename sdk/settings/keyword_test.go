package settings_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// stackOf makes layers of documents: the platform's, a plan's, a tenant's and an environment's.
func stackOf(t *testing.T, schema string, texts ...string) settings.Stack {
	t.Helper()
	s := settings.Stack{Schema: settings.NewSchema(parse(t, schema))}
	for i, to := range []**settings.Layer{&s.Platform, &s.Plan, &s.Tenant, &s.Environment} {
		if i < len(texts) && texts[i] != "" {
			l := layer(t, []string{"platform", "plan", "tenant", "environment"}[i], int64(i+1), texts[i])
			*to = &l
		}
	}
	return s
}

func TestKeywords(t *testing.T) {
	t.Parallel()
	const lists = `{"properties":{"l":{"x-merge":"append","default":[0]},"m":{"x-merge":{"map":"id"}},"r":{"x-merge":"replace"}}}`
	const locked = `{"properties":{"o":{"properties":{"a":{"x-lock":"plan","default":0},"b":{"default":0}}},
		"n":{"x-clamp":{"min":1,"max":9},"default":0},"e":{"x-clamp":{"enum":["x","y"]}}}}`
	for name, c := range map[string]struct {
		schema string
		layers []string
		want   string
	}{
		"append":                      {lists, []string{`{"l":[1]}`, `{"l":[2,2]}`, `{"l":[]}`}, `{"l":[0,1,2,2]}`},
		"append, hidden":              {lists, []string{`{"l":[1]}`, `{"l":null}`, `{"l":[3]}`}, `{"l":[3]}`},
		"map":                         {lists, []string{`{"m":[{"id":"a","v":1,"w":1},{"id":"b"}]}`, `{"m":[{"id":"c"},{"id":"a","v":2}]}`}, `{"l":[0],"m":[{"id":"a","v":2,"w":1},{"id":"b"},{"id":"c"}]}`},
		"map, taken away":             {lists, []string{`{"m":[{"id":"a"},{"id":"b"}]}`, `{"m":[{"id":"a","$unset":true}]}`}, `{"l":[0],"m":[{"id":"b"}]}`},
		"map, away and back":          {lists, []string{`{"m":[{"id":"a","v":1},{"id":"b"}]}`, `{"m":[{"id":"a","$unset":true}]}`, `{"m":[{"id":"a"}]}`}, `{"l":[0],"m":[{"id":"b"},{"id":"a"}]}`},
		"no map":                      {lists, []string{`{"m":[{"id":"a"}]}`, `{"m":[{"id":"b"},{"id":"b"}]}`}, `{"l":[0],"m":[{"id":"b"},{"id":"b"}]}`},
		"replace":                     {lists, []string{`{"r":{"a":1}}`, `{"r":{"b":1}}`}, `{"l":[0],"r":{"b":1}}`},
		"unset of a default":          {lists, []string{`{"l":{"$unset":true}}`}, `{}`},
		"unset and set":               {lists, []string{`{"o":{"a":1}}`, `{"o":{"$unset":true}}`, `{"o":{"b":1}}`}, `{"l":[0],"o":{"b":1}}`},
		"unset of a member":           {lists, []string{`{"o":{"a":1}}`, `{"o":{"a":{"$unset":true}}}`}, `{"l":[0],"o":{}}`},
		"lock":                        {locked, []string{`{"o":{"a":1}}`, `{"o":{"a":2}}`, `{"o":{"a":3,"b":3}}`}, `{"n":0,"o":{"a":2,"b":3}}`},
		"lock against what is above":  {locked, []string{`{}`, `{"o":{"a":2}}`, `{"o":7}`, `{"o":{"$unset":true}}`}, `{"n":0,"o":{"a":2,"b":0}}`},
		"a plan may hide what it may": {locked, []string{`{}`, `{"o":7}`}, `{"n":0,"o":7}`},
		"clamp":                       {locked, []string{`{"n":100}`, `{"n":5,"e":"z"}`, `{"n":10,"e":"x"}`}, `{"e":"x","n":5,"o":{"a":0,"b":0}}`},
		"the platform is not clamped": {locked, []string{`{"n":100}`, `{"n":0}`}, `{"n":100,"o":{"a":0,"b":0}}`},
		"clamped values may go":       {locked, []string{`{"n":100}`, `{"n":{"$unset":true}}`}, `{"o":{"a":0,"b":0}}`},
	} {
		e := stackOf(t, c.schema, c.layers...).Effective()
		if got := string(settings.Canonical(e.Object)); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestOriginsTellLocksAndWhatWasTakenAway(t *testing.T) {
	t.Parallel()
	e := stackOf(t, `{"properties":{"a":{"x-lock":"plan"},"b":{"x-clamp":{"max":9}},"l":{"x-merge":"append"},"k":{"x-lock":"platform"}}}`,
		`{"a":1,"b":1,"c":1,"l":[1]}`, `{"a":2,"l":[2]}`, `{"a":3,"b":10,"c":{"$unset":true},"k":1}`).Effective()
	want := []settings.Origin{
		{Pointer: "/a", Layer: "plan", Revision: 2, Shadowed: []string{"tenant", "platform"}, Lock: "plan"},
		{Pointer: "/b", Layer: "platform", Revision: 1, Shadowed: []string{"tenant"}, Clamp: `{"max":9}`},
		{Pointer: "/l/0", Layer: "platform", Revision: 1},
		{Pointer: "/l/1", Layer: "plan", Revision: 2},
	}
	absent := []settings.Origin{
		{Pointer: "/c", Layer: "tenant", Revision: 3, Shadowed: []string{"platform"}},
		{Pointer: "/k", Shadowed: []string{"tenant"}, Lock: "platform"},
	}
	if diff := cmp.Diff(want, e.Origins); diff != "" {
		t.Errorf("origins (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(absent, e.Absent); diff != "" {
		t.Errorf("absent (-want +got)\n%s", diff)
	}
}

func TestVersionsOfKeywords(t *testing.T) {
	t.Parallel()
	layers := []string{`{"l":[1]}`, `{"l":[2]}`}
	plain, appended := stackOf(t, `{"title":"x"}`, layers...).Effective(), stackOf(t, `{"properties":{"l":{"x-merge":"append"}}}`, layers...).Effective()
	if plain.Version == appended.Version {
		t.Error("another value has the same version")
	}
	if same := stackOf(t, `{"title":"y"}`, layers...).Effective(); same.Version != plain.Version {
		t.Error("what merging does not read changes the version")
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	s := settings.NewSchema(parse(t, `{"x-lock":"tenant","properties":{"p":{"x-lock":"platform"},"o":{"properties":{"r":{"x-lock":"region"}}},
		"n":{"x-clamp":{"min":1}},"m":{"x-merge":{"map":"id"}},"w":{"x-merge":"replace"}},"additionalProperties":{"x-lock":"plan"}}`))
	for name, c := range map[string]struct {
		level settings.Level
		text  string
		want  string
	}{
		"platform":            {settings.LevelPlatform, `{"p":1,"o":{"r":1},"n":0,"more":1}`, ""},
		"plan":                {settings.LevelPlan, `{"p":1,"o":{"r":1},"n":0,"more":1}`, "/n x-clamp, /p x-lock"},
		"region":              {settings.LevelRegion, `{"o":{"r":1},"more":{"x":1}}`, "/more x-lock"},
		"tenant":              {settings.LevelTenant, `{"o":{"r":{"$unset":true},"s":1},"n":1}`, "/o/r x-lock"},
		"tenant, from above":  {settings.LevelTenant, `{"o":{"$unset":true}}`, "/o x-lock"},
		"environment":         {settings.LevelEnvironment, `{"n":1}`, " x-lock"},
		"no map":              {settings.LevelPlan, `{"m":[{"id":"a"},{}]}`, "/m x-merge"},
		"map":                 {settings.LevelPlan, `{"m":[{"id":"a","$unset":true},{"id":"b","v":{"$unset":true}}]}`, ""},
		"unset beside others": {settings.LevelPlatform, `{"x":{"$unset":true,"y":1},"z":{"$unset":false}}`, "/x/$unset $unset, /z/$unset $unset"},
		"unset of everything": {settings.LevelPlatform, `{"$unset":true}`, " $unset"},
		"unset where nothing is merged": {
			settings.LevelPlatform, `{"w":{"a":{"$unset":true}},"x":[{"$unset":true}]}`, "/w/a/$unset $unset, /x/0/$unset $unset",
		},
	} {
		var got []string
		for _, p := range s.Refused(c.level, parse(t, c.text)) {
			got = append(got, p.Pointer+" "+p.Rule)
		}
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%s: %v, want %s", name, got, c.want)
		}
	}
}

func TestCheckKeywords(t *testing.T) {
	t.Parallel()
	for schema, want := range map[string]string{
		`{"properties":{"a":{"x-merge":"deep","x-lock":"tenant"}},"additionalProperties":{"x-clamp":{"min":1,"max":1,"enum":[1]}}}`: "",
		`{"properties":{"x-lock":{"default":{"x-lock":1}}},"const":{"x-lock":1},"x-other":{"x-lock":1}}`:                            "",
		`{"x-merge":"sum"}`:                        "/x-merge",
		`{"x-merge":{"map":""}}`:                   "/x-merge",
		`{"x-merge":{"map":1}}`:                    "/x-merge",
		`{"x-lock":"parent"}`:                      "/x-lock",
		`{"x-lock":"environment"}`:                 "/x-lock",
		`{"x-clamp":{}}`:                           "/x-clamp",
		`{"x-clamp":{"min":"1"}}`:                  "/x-clamp",
		`{"x-clamp":{"low":1}}`:                    "/x-clamp",
		`{"x-clamp":{"enum":[]}}`:                  "/x-clamp",
		`{"x-clamp":{"min":2,"max":1}}`:            "/x-clamp",
		`{"x-clamp":{"min":2},"properties":{}}`:    "/x-clamp",
		`{"x-clamp":{"min":2},"x-merge":"append"}`: "/x-clamp",
		`{"x-tenant-editable":1}`:                  "/x-tenant-editable",
		`{"x-lock":"plan","properties":{"a":{"x-tenant-editable":true}}}`:                                    "/properties/a/x-tenant-editable",
		`{"properties":{"a":{"items":{"x-lock":"plan"}}}}`:                                                   "/properties/a/items/x-lock",
		`{"x-merge":"replace","properties":{"a":{"x-lock":"plan"}}}`:                                         "/properties/a/x-lock",
		`{"allOf":[{"x-merge":"deep"}],"$defs":{"d":{"not":{"x-clamp":{}}}}}`:                                "/$defs/d/not/x-clamp /allOf/0/x-merge",
		`{"patternProperties":{"a":{"x-tenant-editable":true}},"if":{"properties":{"a":{"x-lock":"plan"}}}}`: "/if/properties/a/x-lock /patternProperties/a/x-tenant-editable",
	} {
		var got []string
		for _, p := range settings.CheckKeywords(parse(t, schema)) {
			got = append(got, p.Pointer)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", schema, got, want)
		}
	}
}

func TestEditable(t *testing.T) {
	t.Parallel()
	s := settings.NewSchema(parse(t, `{"properties":{"a":{"x-tenant-editable":true},"o":{"properties":{"b~/":{"x-tenant-editable":true}}},
		"w":{"x-tenant-editable":true,"x-merge":{"map":"id"}}}}`))
	for path, want := range map[string]bool{
		"": false, "/a": true, "/a/b": true, "/o": false, "/o/b~0~1": true, "/o/c": false, "/z": false, "/w/0/id": true,
	} {
		if got := s.Editable(path); got != want {
			t.Errorf("%s: %t", path, got)
		}
	}
}
