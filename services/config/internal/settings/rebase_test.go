package settings_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
)

// parsed reads a document; "" is none.
func parsed(t *testing.T, text string) sdk.Object {
	t.Helper()
	if text == "" {
		return nil
	}
	o, err := sdk.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func written(o sdk.Object) string {
	if o == nil {
		return ""
	}
	return string(sdk.Canonical(o))
}

func TestRebase(t *testing.T) {
	t.Parallel()
	const replace = `{"properties":{"rule":{"x-merge":"replace"}}}`
	for name, tt := range map[string]struct{ schema, base, wanted, current, merged, conflicts string }{
		"nothing changed":             {`{}`, `{"a":1}`, `{"a":2}`, `{"a":1}`, `{"a":2}`, ""},
		"another leaf changed":        {`{}`, `{"a":1,"b":1}`, `{"a":2,"b":1}`, `{"a":1,"b":5}`, `{"a":2,"b":5}`, ""},
		"another leaf below":          {`{}`, `{"o":{"a":1,"b":1}}`, `{"o":{"a":2,"b":1}}`, `{"o":{"a":1,"b":5}}`, `{"o":{"a":2,"b":5}}`, ""},
		"both alike":                  {`{}`, `{"a":1}`, `{"a":2}`, `{"a":2}`, `{"a":2}`, ""},
		"both differ":                 {`{}`, `{"a":1}`, `{"a":2}`, `{"a":3}`, "", `/a 1 3 2`},
		"both added":                  {`{}`, `{}`, `{"a":2}`, `{"a":3}`, "", `/a  3 2`},
		"both added members":          {`{}`, `{}`, `{"o":{"a":1}}`, `{"o":{"b":1}}`, `{"o":{"a":1,"b":1}}`, ""},
		"removed and changed":         {`{}`, `{"a":1}`, `{}`, `{"a":3}`, "", `/a 1 3 `},
		"last one out":                {`{}`, `{"o":{"a":1}}`, `{"o":{}}`, `{"o":{"a":1,"b":1}}`, `{"o":{"b":1}}`, ""},
		"a value over an object":      {`{}`, `{"o":{"a":1}}`, `{"o":7}`, `{"o":{"a":1,"b":1}}`, "", `/o {"a":1} {"a":1,"b":1} 7`},
		"an object under a value":     {`{}`, `{}`, `{"o":{"a":1}}`, `{"o":7}`, "", `/o  7 {"a":1}`},
		"arrays are one value":        {`{}`, `{"l":[1]}`, `{"l":[1,2]}`, `{"l":[0,1]}`, "", `/l [1] [0,1] [1,2]`},
		"a new document":              {`{}`, "", `{"a":1}`, "", `{"a":1}`, ""},
		"a new document, made before": {`{}`, "", `{"a":1}`, `{"b":1}`, `{"a":1,"b":1}`, ""},
		"a deletion":                  {`{}`, `{"a":1}`, "", `{"a":1}`, "", ""},
		"a deletion of what changed":  {`{}`, `{"a":1}`, "", `{"a":2}`, "", ` {"a":1} {"a":2} `},
		"an edit of what is gone":     {`{}`, `{"a":1}`, `{"a":2}`, "", "", ` {"a":1}  {"a":2}`},
		"deleted twice":               {`{}`, `{"a":1}`, "", "", "", ""},
		"whole by the schema": {
			replace, `{"rule":{"==":[1,1]}}`, `{"rule":{"in":[1,1]}}`, `{"rule":{"and":[1]}}`, "",
			`/rule {"==":[1,1]} {"and":[1]} {"in":[1,1]}`,
		},
		"whole by its meaning": {`{}`, `{}`, `{"o":{"$unset":true}}`, `{"o":{"b":1}}`, "", `/o  {"b":1} {"$unset":true}`},
		"names are escaped":    {`{}`, `{}`, `{"a/b":1}`, `{"a/b":2}`, "", `/a~1b  2 1`},
	} {
		merged, conflicts := settings.Rebase(sdk.NewSchema(parsed(t, tt.schema)), parsed(t, tt.base), parsed(t, tt.wanted), parsed(t, tt.current))
		var got []string
		for _, c := range conflicts {
			got = append(got, strings.Join([]string{c.Pointer, c.Base, c.Current, c.Wanted}, " "))
		}
		if strings.Join(got, "; ") != tt.conflicts || len(conflicts) == 0 && written(merged) != tt.merged {
			t.Errorf("%s: %s, conflicts %q; want %s, %q", name, written(merged), got, tt.merged, tt.conflicts)
		}
	}
}

// dice makes documents and edits of them.
type dice struct{ *rand.Rand }

func (d dice) leaf() any {
	return []any{float64(d.IntN(4)), "x", true, nil, []any{float64(d.IntN(3))}, sdk.Object{}}[d.IntN(6)]
}

// paths are places of leaves, none of which lies in another.
func (d dice) paths() []string {
	var out []string
	for i := range 4 {
		for j := range 3 {
			out = append(out, fmt.Sprintf("m%d/n%d", i, j))
		}
		out = append(out, fmt.Sprintf("s%d", i))
	}
	d.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// edited is a document with some leaves set and others removed.
func edited(o sdk.Object, edits map[string]any) sdk.Object {
	out, err := sdk.Parse(sdk.Canonical(o))
	if err != nil {
		panic(err)
	}
	for _, path := range slices.Sorted(maps.Keys(edits)) {
		names := strings.Split(path, "/")
		at := out
		if len(names) == 2 {
			below, ok := at[names[0]].(sdk.Object)
			if !ok {
				below = sdk.Object{}
				at[names[0]] = below
			}
			at = below
		}
		last := names[len(names)-1]
		if edits[path] == "gone" {
			delete(at, last)
			continue
		}
		at[last] = edits[path]
	}
	return out
}

// Two who edit other leaves both have their way, in any order; two who want one leaf differently are told of just that.
func TestRebaseProperty(t *testing.T) {
	t.Parallel()
	const seeds = 20_000
	overlapped := 0
	for seed := range uint64(seeds) {
		d := dice{rand.New(rand.NewPCG(seed, 7))}
		base := sdk.Object{}
		for _, path := range d.paths()[:d.IntN(12)] {
			base = edited(base, map[string]any{path: d.leaf()})
		}
		paths := d.paths()
		mine, theirs := make(map[string]any), make(map[string]any)
		for i, path := range paths[:d.IntN(len(paths))] {
			into := []map[string]any{mine, theirs}[i%2]
			if into[path] = d.leaf(); d.IntN(4) == 0 {
				into[path] = "gone"
			}
		}
		both := make(map[string]any)
		maps.Copy(both, mine)
		maps.Copy(both, theirs)
		wanted, current := edited(base, mine), edited(base, theirs)
		merged, conflicts := settings.Rebase(nil, base, wanted, current)
		back, others := settings.Rebase(nil, base, current, wanted)
		if len(conflicts)+len(others) > 0 || written(merged) != written(edited(base, both)) || written(back) != written(merged) {
			t.Fatalf("seed %d: base %s, wanted %s, current %s: %s, %s, conflicts %v",
				seed, written(base), written(wanted), written(current), written(merged), written(back), conflicts)
		}
		// The same, with one leaf that both set and differently.
		path := paths[len(paths)-1]
		mine[path], theirs[path] = "mine", "theirs"
		_, conflicts = settings.Rebase(nil, base, edited(base, mine), edited(base, theirs))
		if len(conflicts) != 1 || conflicts[0].Pointer != "/"+path || conflicts[0].Wanted != `"mine"` || conflicts[0].Current != `"theirs"` {
			t.Fatalf("seed %d: base %s, %s: conflicts %v", seed, written(base), path, conflicts)
		}
		overlapped++
	}
	if overlapped != seeds {
		t.Errorf("%d of %d cases overlapped", overlapped, seeds)
	}
}
