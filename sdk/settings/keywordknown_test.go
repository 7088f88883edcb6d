package settings_test

import (
	"strings"
	"testing"

	"github.com/rowhouse-platform/rowhouse/sdk/flags"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

func TestKeywordsThatNobodyKnows(t *testing.T) {
	t.Parallel()
	for schema, want := range map[string]string{
		`{"x-lok":"plan"}`:                                   `/x-lok did you mean "x-lock"?`,
		`{"propertis":{"a":{"x-lok":1}}}`:                    `/propertis did you mean "properties"?`,
		`{"properties":{"a/b":{"requird":["x"]}}}`:           `/properties/a~1b/requird did you mean "required"?`,
		`{"additionalProperties":{"additionalItems":{}}}`:    `/additionalProperties/additionalItems did you mean "items"?`,
		`{"x-merge":"replace","properties":{"a":{"tpe":1}}}`: `/properties/a/tpe did you mean "type"?`,
		`{"anyOf":[true,{"items":{"x-owner":"billing"}}]}`:   `/anyOf/1/items/x-owner notes belong into "$comment"`,
		`{"definitions":{"a":{"enumm":[1]}}}`:                `/definitions/a/enumm did you mean "enum"?`,
		`{"dependencies":{"a":["b"],"c":{"consst":1}}}`:      `/dependencies/c/consst did you mean "const"?`,
		`{"definitions":{"a":{"x-lock":"plan"}}}`:            `/definitions/a/x-lock acts only where "properties" and "additionalProperties" lead from the root, above a value that is merged deep`,
		`{"properties":{"a":{"x-rules":[]}}}`:                `/properties/a/x-rules acts only at the root of the schema`,
		`{"if":{"x-rules":[]}}`:                              `/if/x-rules acts only at the root of the schema`,
		`{"x-lock":"moon"}`:                                  `/x-lock must be "platform", "plan", "region" or "tenant"`,
		`{"` + strings.Repeat("x", 65) + `":1}`:              `/` + strings.Repeat("x", 65) + ` notes belong into "$comment"`,
	} {
		found := settings.CheckNewKeywords(parse(t, schema))
		if len(found) != 1 {
			t.Errorf("%s: %v, want one problem", schema, found)
			continue
		}
		text := strings.TrimLeft(strings.TrimPrefix(found[0].Text, "is no keyword of JSON Schema 2020-12 and none of ours"), ":; ")
		if got := found[0].Pointer + " " + text; got != want {
			t.Errorf("%s: %s, want %s", schema, got, want)
		}
	}
}

// TestKeywordsThatAreKnown are those of the standard, and what is no keyword where it stands: names of members, and data.
func TestKeywordsThatAreKnown(t *testing.T) {
	t.Parallel()
	for name, schema := range map[string]string{
		"members": `{"properties":{"x-lok":{},"requird":{}},"patternProperties":{"x-lok":{}},"$defs":{"x-lok":{}},"dependentSchemas":{"x-lok":{}}}`,
		"data": `{"enum":[{"x-lok":1}],"const":{"x-lok":1},"default":{"x-lok":1},"examples":[{"x-lok":1}],
			"properties":{"a":{"x-kill":{"value":{"x-lok":1}},"default":{"x-lok":1}}}}`,
		"for people": `{"$comment":"x","title":"x","description":"x","deprecated":true,"readOnly":true,"writeOnly":true,"format":"date",
			"contentMediaType":"application/json","contentEncoding":"base64","contentSchema":{}}`,
		"rules": `{"x-rules":[{"rule":"true","message":"m"}]}`,
		"brand": settings.BrandSchema(), "flags": flags.Schema(), "kills of flags": flags.KillSchema(), "kills": settings.KillSchema(),
	} {
		if found := settings.CheckNewKeywords(parse(t, schema)); len(found) > 0 {
			t.Errorf("%s: %v", name, found)
		}
	}
}

// TestStoredSchemasMayHaveAnyKeyword because they were accepted once.
func TestStoredSchemasMayHaveAnyKeyword(t *testing.T) {
	t.Parallel()
	stored := parse(t, `{"x-lok":"plan","propertis":{},"properties":{"a":{"x-rules":[]}},"definitions":{"a":{"x-lock":"plan"}}}`)
	if found := settings.CheckKeywords(stored); len(found) > 0 {
		t.Errorf("%v", found)
	}
}
