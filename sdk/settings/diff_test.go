package settings_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

func TestDiff(t *testing.T) {
	t.Parallel()
	object := func(text string) settings.Object {
		t.Helper()
		o, err := settings.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	got := settings.Diff(object(`{"a":{"b":1,"c":[1]},"d":{},"e":null,"same":{"x":1}}`), object(`{"a":{"c":[2]},"d":{"z":0},"f":1,"same":{"x":1}}`))
	want := []settings.Difference{
		{Pointer: "/a/b", Before: "1"}, {Pointer: "/a/c", Before: "[1]", After: "[2]"}, {Pointer: "/d", Before: "{}"},
		{Pointer: "/d/z", After: "0"}, {Pointer: "/e", Before: "null"}, {Pointer: "/f", After: "1"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if got := settings.Diff(nil, object(`{}`)); len(got) > 0 {
		t.Errorf("nothing and nothing differ: %v", got)
	}
}
