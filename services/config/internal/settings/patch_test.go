package settings_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
)

func TestJSONPatched(t *testing.T) {
	t.Parallel()
	const content = `{"a":{"b":1},"l":[1,2],"x":null}`
	for name, c := range map[string]struct{ patch, want string }{
		"nothing":       {`[]`, content},
		"add":           {`[{"op":"add","path":"/a/c","value":2},{"op":"add","path":"/l/-","value":3},{"op":"add","path":"/l/0","value":0}]`, `{"a":{"b":1,"c":2},"l":[0,1,2,3],"x":null}`},
		"replace":       {`[{"op":"replace","path":"/a","value":{"$unset":true}}]`, `{"a":{"$unset":true},"l":[1,2],"x":null}`},
		"remove":        {`[{"op":"remove","path":"/x"},{"op":"remove","path":"/l/0"}]`, `{"a":{"b":1},"l":[2]}`},
		"move and copy": {`[{"op":"move","from":"/a/b","path":"/b"},{"op":"copy","from":"/b","path":"/a/~0~1"}]`, `{"a":{"~/":1},"b":1,"l":[1,2],"x":null}`},
		"test":          {`[{"op":"test","path":"/a","value":{"b":1.0}},{"op":"test","path":"/x","value":null},{"op":"remove","path":"/a"}]`, `{"l":[1,2],"x":null}`},
		"everything":    {`[{"op":"replace","path":"","value":{"z":1}}]`, `{"z":1}`},
		"html and 2^53": {`[{"op":"add","path":"/h","value":"<&>"},{"op":"add","path":"/n","value":9007199254740991}]`, `{"a":{"b":1},"h":"<&>","l":[1,2],"n":9007199254740991,"x":null}`},
	} {
		_, text, err := settings.JSONPatched(content, c.patch)
		if err != nil || text != c.want {
			t.Errorf("%s: %s, %v", name, text, err)
		}
	}
}

func TestJSONPatchRefused(t *testing.T) {
	t.Parallel()
	double := `{"op":"copy","from":"/l","path":"/l/-"}`
	for name, c := range map[string]struct {
		patch, pointer string
		test           bool
	}{
		"failed test":       {`[{"op":"add","path":"/b","value":1},{"op":"test","path":"/a/b","value":2},{"op":"remove","path":"/none"}]`, "/1", true},
		"test of nothing":   {`[{"op":"test","path":"/none","value":1}]`, "/0", true},
		"no such member":    {`[{"op":"add","path":"/b","value":1},{"op":"remove","path":"/none"}]`, "/1", false},
		"replace nothing":   {`[{"op":"replace","path":"/none","value":1}]`, "/0", false},
		"no such parent":    {`[{"op":"add","path":"/n/o","value":1}]`, "/0", false},
		"beyond the array":  {`[{"op":"add","path":"/l/3","value":1}]`, "/0", false},
		"negative":          {`[{"op":"remove","path":"/l/-1"}]`, "/0", false},
		"into itself":       {`[{"op":"move","from":"/a","path":"/a/b"}]`, "/0", false},
		"no operation":      {`[1]`, "/0", false},
		"unknown operation": {`[{"op":"sum","path":"/a"}]`, "/0", false},
		"no path":           {`[{"op":"remove"}]`, "/0", false},
		"no value":          {`[{"op":"add","path":"/a"}]`, "/0", false},
		"no from":           {`[{"op":"move","path":"/a"}]`, "/0", false},
		"no pointer":        {`[{"op":"remove","path":"a"}]`, "/0", false},
		"bad escape":        {`[{"op":"remove","path":"/~2"}]`, "/0", false},
		"growing":           {"[" + strings.Repeat(double+",", 60) + double + "]", "", false},
	} {
		_, text, err := settings.JSONPatched(`{"a":{"b":1},"l":[1,2]}`, c.patch)
		var failed *settings.PatchError
		if !errors.As(err, &failed) {
			if c.pointer != "" || !errors.Is(err, sdk.ErrDocument) {
				t.Errorf("%s: %s, %v", name, text, err)
			}
			continue
		}
		if c.pointer != "" && failed.Pointer != c.pointer || failed.Test != c.test {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, patch := range map[string]string{
		"no list": `{}`, "broken": `[`, "member twice": `[{"op":"add","op":"add","path":"/a","value":1}]`,
		"result is no object": `[{"op":"replace","path":"","value":[]}]`, "huge number": `[{"op":"add","path":"/a","value":1e300}]`,
	} {
		if _, text, err := settings.JSONPatched(`{"a":1}`, patch); !errors.Is(err, sdk.ErrDocument) {
			t.Errorf("%s: %s, %v", name, text, err)
		}
	}
}

// TestDiffIsAPatch writes the differences as a JSON Patch, which makes the one document into the other.
func TestDiffIsAPatch(t *testing.T) {
	t.Parallel()
	leaf := rapid.SampledFrom([]string{`1`, `"x"`, `[1]`, `null`})
	documents := rapid.Custom(func(t *rapid.T) string {
		return fmt.Sprintf(`{"a":%s,"b":%s,"c":{"d":%s}}`, leaf.Draw(t, "a"), leaf.Draw(t, "b"), leaf.Draw(t, "d"))
	})
	rapid.Check(t, func(t *rapid.T) {
		before, after := documents.Draw(t, "before"), documents.Draw(t, "after")
		var operations []string
		for _, d := range sdk.Diff(layer(t, before).Object, layer(t, after).Object) {
			operations = append(operations, fmt.Sprintf(`{"op":"replace","path":%q,"value":%s}`, d.Pointer, d.After))
		}
		_, got, err := settings.JSONPatched(before, "["+strings.Join(operations, ",")+"]")
		if err != nil || got != after {
			t.Fatalf("%s and %s: %s, %v", before, after, got, err)
		}
	})
}
