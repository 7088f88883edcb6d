package flags_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/sdk/flags"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

func TestCheckRefusesWhatTheFormatDoesNotHave(t *testing.T) {
	t.Parallel()
	for document, want := range map[string][]string{
		`{"$schema":"https://flagd.dev/schema/v0/flags.json","metadata":{"flagSetId":"x","own":1},"$evaluators":{"yes":{"==":[1,1]}},
			"flags":{"a":{"description":"counts","state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"off",
			"targeting":{"if":[{"$ref":"yes"},"on"]},"metadata":{"anything":"goes"}}}}`: nil,
		`{"flag":{}}`: {`/flag is no member of flagd's format; did you mean "flags"?`},
		`{"flags":{"a/b":{"state":"ENABLED","variants":{"on":{"x":1}},"defaultVarient":"on","zzz":1}}}`: {
			`/flags/a~1b/defaultVarient is no member of flagd's format; did you mean "defaultVariant"?`,
			"/flags/a~1b/zzz is no member of flagd's format"},
		`{"flags":{"a":{"state":"ENABLED","variants":{"on":true,"off":"no"},"defaultVariant":"on"}}}`: {
			"/flags/a/variants are of several types, boolean and string; all variants of a flag have one"},
		`{"$evaluator":{},"flags":{}}`: {`/$evaluator is no member of flagd's format; did you mean "$evaluators"?`},
	} {
		o, err := settings.Parse([]byte(document))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range flags.Check(settings.Merge(settings.Layer{Object: o})) {
			got = append(got, p.Pointer+" "+p.Text)
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", document, diff)
		}
	}
}

// TestNarrowLayersSetSomeMembers is about a flag whose variants are another layer's.
func TestNarrowLayersSetSomeMembers(t *testing.T) {
	t.Parallel()
	var layers []settings.Layer
	for _, document := range []string{
		`{"flags":{"a":{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"off"}}}`,
		`{"flags":{"a":{"defaultVariant":"on"}}}`,
	} {
		o, err := settings.Parse([]byte(document))
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, settings.Layer{Name: document, Object: o})
	}
	if found := flags.Check(settings.Merge(layers...)); len(found) > 0 {
		t.Errorf("found %v", found)
	}
}
