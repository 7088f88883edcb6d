package settings_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

func parse(tb rapid.TB, text string) settings.Object {
	tb.Helper()
	o, err := settings.Parse([]byte(text))
	if err != nil {
		tb.Fatalf("%s: %v", text, err)
	}
	return o
}

func layer(tb rapid.TB, name string, revision int64, text string) settings.Layer {
	tb.Helper()
	return settings.Layer{Name: name, Revision: revision, Object: parse(tb, text)}
}

func TestMerge(t *testing.T) {
	t.Parallel()
	e := settings.Merge(
		layer(t, "schema", 0, `{"a":1,"list":[1,2],"over":{"x":1,"y":1},"deep":{"d":{"e":1}},"gone":{"z":1}}`),
		layer(t, "platform", 3, `{"a":null,"over":7,"deep":{"d":{"e":2,"f":2}},"empty":{},"a/b~c":1}`),
		layer(t, "plans/free", 5, `{"list":[3],"over":{"y":5},"deep":{"d":{}},"empty":{}}`),
		layer(t, "tenants/acme", 9, `{"gone":"text","a":false}`),
	)
	want := `{"a":false,"a/b~c":1,"deep":{"d":{"e":2,"f":2}},"empty":{},"gone":"text","list":[3],"over":{"y":5}}`
	if got := string(settings.Canonical(e.Object)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	origins := []settings.Origin{
		{Pointer: "/a", Layer: "tenants/acme", Revision: 9, Shadowed: []string{"platform", "schema"}},
		{Pointer: "/a~1b~0c", Layer: "platform", Revision: 3},
		{Pointer: "/deep/d/e", Layer: "platform", Revision: 3, Shadowed: []string{"schema"}},
		{Pointer: "/deep/d/f", Layer: "platform", Revision: 3},
		{Pointer: "/empty", Layer: "plans/free", Revision: 5, Shadowed: []string{"platform"}},
		{Pointer: "/gone", Layer: "tenants/acme", Revision: 9, Shadowed: []string{"schema"}},
		{Pointer: "/list", Layer: "plans/free", Revision: 5, Shadowed: []string{"schema"}},
		{Pointer: "/over/y", Layer: "plans/free", Revision: 5, Shadowed: []string{"platform", "schema"}},
	}
	if diff := cmp.Diff(origins, e.Origins); diff != "" {
		t.Errorf("origins (-want +got)\n%s", diff)
	}
}

func TestStackLayers(t *testing.T) {
	t.Parallel()
	at := func(name string, revision int64, text string) *settings.Layer {
		l := layer(t, name, revision, text)
		return &l
	}
	s := settings.Stack{
		Schema: settings.NewSchema(parse(t, `{"properties":{"a":{"default":0}}}`)), Platform: at("platform", 1, `{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1}`),
		Plan: at(settings.LayerPlan("p"), 2, `{"b":2,"c":2,"d":2,"e":2,"f":2}`), Region: at(settings.LayerRegion("r"), 3, `{"c":3,"d":3,"e":3,"f":3}`),
		Parent: at(settings.LayerParent, 4, `{"d":4,"e":4,"f":4}`), Tenant: at(settings.LayerTenant("t"), 5, `{"e":5,"f":5}`),
		Environment: at(settings.LayerEnvironment("t", "e"), 6, `{"f":6}`),
	}
	var got []string
	for _, o := range s.Effective().Origins {
		got = append(got, o.Pointer+" "+o.Layer)
	}
	want := []string{"/a platform", "/b plans/p", "/c regions/r", "/d parent", "/e tenants/t", "/f tenants/t/environments/e"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestMergeNothing(t *testing.T) {
	t.Parallel()
	for name, e := range map[string]settings.Effective{
		"no layer": settings.Merge(), "nil": settings.Merge(settings.Layer{Name: "x"}), "empty": settings.Merge(layer(t, "x", 1, `{}`)),
	} {
		if string(settings.Canonical(e.Object)) != "{}" || len(e.Origins) > 0 {
			t.Errorf("%s: %v", name, e)
		}
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	base := func() []settings.Layer {
		return []settings.Layer{layer(t, "schema", 0, `{"a":1}`), layer(t, "platform", 3, `{"a":2}`), layer(t, "plans/p", 4, `{"a":3}`)}
	}
	first := settings.Merge(base()...).Version
	if again := settings.Merge(base()...).Version; again != first {
		t.Errorf("%s, and then %s", first, again)
	}
	seen := map[string]string{first: "the first"}
	for name, change := range map[string]func([]settings.Layer) []settings.Layer{
		"default":  func(l []settings.Layer) []settings.Layer { l[0].Object = parse(t, `{"a":0}`); return l },
		"revision": func(l []settings.Layer) []settings.Layer { l[1].Revision = 5; return l },
		"name":     func(l []settings.Layer) []settings.Layer { l[2].Name = "plans/q"; return l },
		"fewer":    func(l []settings.Layer) []settings.Layer { return l[:2] },
		"order":    func(l []settings.Layer) []settings.Layer { l[1], l[2] = l[2], l[1]; return l },
	} {
		e := settings.Merge(change(base())...)
		if other, ok := seen[e.Version]; ok {
			t.Errorf("%s has the version of %s", name, other)
		}
		seen[e.Version] = name
		if e.Etag() != `"`+e.Version+`"` {
			t.Errorf("etag %s", e.Etag())
		}
	}
}

// values draws small objects that collide often.
func values() *rapid.Generator[any] {
	leaf := rapid.OneOf(
		rapid.Just[any](nil), rapid.Map(rapid.Bool(), func(b bool) any { return b }),
		rapid.Map(rapid.IntRange(0, 3), func(i int) any { return float64(i) }),
		rapid.Map(rapid.SampledFrom([]string{"", "x", "é", "😀", "\u001f"}), func(s string) any { return s }),
		rapid.Map(rapid.SliceOfN(rapid.IntRange(0, 1), 0, 2), func(n []int) any {
			a := []any{}
			for _, i := range n {
				a = append(a, float64(i))
			}
			return a
		}),
	)
	return rapid.Deferred(func() *rapid.Generator[any] {
		return rapid.OneOf(leaf, rapid.Map(objects(), func(o settings.Object) any { return o }))
	})
}

func objects() *rapid.Generator[settings.Object] {
	return rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", "~/", "\ufb33", "😀"}), values(), 0, 3)
}

func stacks() *rapid.Generator[[]settings.Layer] {
	return rapid.Map(rapid.SliceOfN(objects(), 0, 4), func(objects []settings.Object) []settings.Layer {
		var out []settings.Layer
		for i, o := range objects {
			out = append(out, settings.Layer{Name: string(rune('A' + i)), Revision: int64(i), Object: o})
		}
		return out
	})
}

// overlay is merging as one would say it: two at a time.
func overlay(below, above any) any {
	b, both := below.(settings.Object)
	a, ok := above.(settings.Object)
	if !ok || !both {
		if !ok {
			return above
		}
		b = nil
	}
	out := settings.Object{}
	maps.Copy(out, b)
	for name, v := range a {
		if old, ok := out[name]; ok {
			v = overlay(old, v)
		}
		out[name] = v
	}
	return out
}

func TestMergeEqualsOverlays(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		layers := stacks().Draw(t, "layers")
		var want any = settings.Object{}
		for _, l := range layers {
			want = overlay(want, l.Object)
		}
		if diff := cmp.Diff(want, any(settings.Merge(layers...).Object)); diff != "" {
			t.Fatalf("(-want +got)\n%s", diff)
		}
	})
}

// leaves lists what origins are for: values, arrays as a whole, and empty objects below the root.
func leaves(pointer string, v any, out map[string]any) {
	o, ok := v.(settings.Object)
	if !ok || len(o) == 0 && pointer != "" {
		out[pointer] = v
		return
	}
	for name, below := range o {
		leaves(pointer+settings.Pointer(name), below, out)
	}
}

func TestExplainEqualsEvaluate(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		layers := stacks().Draw(t, "layers")
		e := settings.Merge(layers...)
		want := make(map[string]any)
		leaves("", e.Object, want)
		if len(want) != len(e.Origins) || !slices.IsSortedFunc(e.Origins, func(a, b settings.Origin) int {
			return strings.Compare(a.Pointer, b.Pointer)
		}) {
			t.Fatalf("origins %v of %v", e.Origins, e.Object)
		}
		for _, o := range e.Origins {
			i := slices.IndexFunc(layers, func(l settings.Layer) bool { return l.Name == o.Layer })
			if i < 0 || layers[i].Revision != o.Revision {
				t.Fatalf("%v comes from nowhere", o)
			}
			set, ok := settings.At(layers[i].Object, o.Pointer)
			if !ok || !cmp.Equal(set, want[o.Pointer]) {
				t.Fatalf("%v: the layer says %v, the value is %v", o, set, want[o.Pointer])
			}
			for _, l := range layers[i+1:] {
				if above, ok := settings.At(l.Object, o.Pointer); ok {
					t.Fatalf("%v, but %s says %v", o, l.Name, above)
				}
			}
			hides(t, layers[:i], o)
		}
	})
}

// hides checks that an origin names just the layers below it that say something about its place: they set it, or one of
// the values on the way to it to what is no object.
func hides(t *rapid.T, below []settings.Layer, o settings.Origin) {
	t.Helper()
	var want []string
	for _, l := range slices.Backward(below) {
		says := false
		for p := o.Pointer; p != "" && !says; p = p[:strings.LastIndexByte(p, '/')] {
			v, ok := settings.At(l.Object, p)
			_, object := v.(settings.Object)
			says = ok && (p == o.Pointer || !object)
		}
		if says {
			want = append(want, l.Name)
		}
	}
	// An object that a value between hides counts as well, so what is named may be more.
	for _, name := range want {
		if !slices.Contains(o.Shadowed, name) {
			t.Fatalf("%v does not name %s", o, name)
		}
	}
	if !slices.IsSortedFunc(o.Shadowed, func(a, b string) int { return strings.Compare(b, a) }) {
		t.Fatalf("%v is not in order", o)
	}
}

func TestCanonicalReadsBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		o := objects().Draw(t, "object")
		text := settings.Canonical(o)
		back := parse(t, string(text))
		if diff := cmp.Diff(o, back); diff != "" {
			t.Fatalf("(-want +got)\n%s", diff)
		}
	})
}

// The examples are those of RFC 7396, appendix A, where both sides are objects.
func TestPatch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ target, patch, want string }{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`{"e":null}`, `{"a":1}`, `{"a":1,"e":null}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
		{`{"a":"foo"}`, `{"a":{"b":1}}`, `{"a":{"b":1}}`},
	} {
		target := parse(t, c.target)
		if got := string(settings.Canonical(settings.Patch(target, parse(t, c.patch)))); got != c.want {
			t.Errorf("%s with %s is %s, want %s", c.target, c.patch, got, c.want)
		}
		if diff := cmp.Diff(parse(t, c.target), target); diff != "" {
			t.Errorf("the target changed\n%s", diff)
		}
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	schema := parse(t, `{"properties":{
		"a":{"default":1,"properties":{"ignored":{"default":2}}},
		"b":{"type":"object","properties":{"c":{"default":null},"d":{}}},
		"e":{"properties":{"f":{}}}, "g":true}}`)
	if got := string(settings.Canonical(settings.NewSchema(schema).Defaults())); got != `{"a":1,"b":{"c":null}}` {
		t.Errorf("defaults %s", got)
	}
}

func TestAt(t *testing.T) {
	t.Parallel()
	o := parse(t, `{"a":{"~/":[1,{"b":null}]},"":2}`)
	for pointer, want := range map[string]any{"/a/~0~1/0": 1.0, "/a/~0~1/1/b": nil, "/": 2.0} {
		if got, ok := settings.At(o, pointer); !ok || got != want {
			t.Errorf("%s is %v, %t", pointer, got, ok)
		}
	}
	for _, pointer := range []string{"/b", "/a/b", "/a/~0~1/2", "/a/~0~1/-1", "/a/~0~1/x", "//x"} {
		if got, ok := settings.At(o, pointer); ok {
			t.Errorf("%s is %v", pointer, got)
		}
	}
}
