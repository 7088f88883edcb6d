package flags_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/flags"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/flagset"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// kinds has a flag of each kind and of each fate.
const kinds = `{"metadata":{"team":"core"},"flags":{
	"on":{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"on"},
	"text":{"state":"ENABLED","variants":{"a":"x","b":""},"defaultVariant":"a",
		"targeting":{"if":[{"==":[{"var":"targetingKey"},"ann"]},"b"]},"metadata":{"id":7}},
	"ten":{"state":"ENABLED","variants":{"v":10.0},"defaultVariant":"v"},
	"pi":{"state":"ENABLED","variants":{"v":3.14},"defaultVariant":"v"},
	"object":{"state":"ENABLED","variants":{"v":{"a":1}},"defaultVariant":"v"},
	"where":{"state":"ENABLED","variants":{"v":"hit","w":"miss"},"defaultVariant":"w","targeting":{"if":[{"and":[
		{"==":[{"var":"tenant"},"acme"]},{"==":[{"var":"plan"},"business"]},{"==":[{"var":"environment"},"staging"]},
		{"==":[{"var":"region"},"local"]},{"==":[{"var":"$flagd.flagKey"},"where"]}]},"v"]}},
	"nothing":{"state":"ENABLED","variants":{"v":1}},
	"off":{"state":"DISABLED","variants":{"v":true},"defaultVariant":"v"},
	"share":{"state":"ENABLED","variants":{"a":1,"b":2},"targeting":{"fractional":[["a",50],["b",50]]}},
	"broken":{"state":"ENABLED","variants":{"v":true},"defaultVariant":"v","targeting":{"frob":[1]}}}}`

func TestTypedReads(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.platform(kinds)
	c, issuer := h.client(), tenanttest.NewIssuer(t, nil)
	acme := issuer.In(t.Context(), t, "acme")
	ann, err := c.With(acme, map[string]any{"targetingKey": "ann", "plan": "free", "$flagd": map[string]any{"flagKey": "x"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []struct {
		what      string
		got, want any
	}{
		{"bool", c.Bool(acme, "on", false), true},
		{"string", c.String(acme, "text", "d"), "x"},
		{"empty string by targeting", c.String(ann, "text", "d"), ""},
		{"10.0 as an integer", c.Int(acme, "ten", 1), int64(10)},
		{"3.14 as an integer", c.Int(acme, "pi", 1), int64(1)},
		{"3.14", c.Float(acme, "pi", 1), 3.14},
		{"object", c.Object(acme, "object", nil), map[string]any{"a": 1.0}},
		{"whose it is", c.String(acme, "where", "d"), "hit"},
		{"whose it is, whatever the caller says", c.String(ann, "where", "d"), "hit"},
		{"no default variant", c.Float(acme, "nothing", 5), 5.0},
		{"disabled", c.Bool(acme, "off", false), false},
		{"broken", c.Bool(acme, "broken", false), false},
		{"bool as a string", c.String(acme, "on", "d"), "d"},
	} {
		if diff := cmp.Diff(k.want, k.got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", k.what, diff)
		}
	}
}

func TestDetails(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.platform(kinds)
	c, issuer := h.client(), tenanttest.NewIssuer(t, nil)
	acme, globex := issuer.In(t.Context(), t, "acme"), issuer.In(t.Context(), t, "globex")
	team := map[string]any{"team": "core"}
	bools := func(ctx context.Context, key string, want flags.Detail[bool]) {
		t.Helper()
		if diff := cmp.Diff(want, c.BoolDetail(ctx, key, true)); diff != "" {
			t.Errorf("%s (-want +got)\n%s", key, diff)
		}
	}
	bools(acme, "on", flags.Detail[bool]{Value: true, Variant: "on", Reason: flagset.Static, Metadata: team})
	bools(acme, "off", flags.Detail[bool]{Value: true, Reason: flagset.Disabled, Metadata: team})
	bools(acme, "nothing", flags.Detail[bool]{Value: true, Reason: flagset.Default, Metadata: team})
	bools(acme, "none", flags.Detail[bool]{Value: true, Code: flagset.FlagNotFound})
	bools(acme, "ten", flags.Detail[bool]{Value: true, Code: flagset.TypeMismatch, Metadata: team})
	bools(acme, "broken", flags.Detail[bool]{Value: true, Code: flagset.ParseError, Metadata: team})
	bools(t.Context(), "on", flags.Detail[bool]{Value: true, Code: flagset.InvalidContext})
	text := c.StringDetail(acme, "text", "")
	if diff := cmp.Diff(map[string]any{"team": "core", "id": 7.0}, text.Metadata); diff != "" || text.Reason != flagset.Default {
		t.Errorf("%v %s", text.Reason, diff)
	}
	if d := c.IntDetail(acme, "pi", 1); d.Code != flagset.TypeMismatch {
		t.Errorf("3.14 as an integer: %v", d)
	}
	if d := c.FloatDetail(acme, "pi", 1); d.Code != flagset.OK {
		t.Errorf("3.14: %v", d)
	}
	if d := c.ObjectDetail(acme, "pi", nil); d.Code != flagset.TypeMismatch {
		t.Errorf("3.14 as an object: %v", d)
	}
	// What was said of one tenant is not used for another.
	said, err := c.With(globex, map[string]any{"tenant": "globex", "a": 1})
	if err != nil {
		t.Fatal(err)
	}
	bools(tenant.NewContext(said, issuer.Context(t, "acme")), "on", flags.Detail[bool]{Value: true, Code: flagset.InvalidContext})
	if _, err := c.With(globex, map[string]any{"tenant": "acme"}); !errors.Is(err, flagset.ErrContext) {
		t.Errorf("another tenant's name: %v", err)
	}
	if _, err := c.With(t.Context(), nil); fault.ReasonOf(err) != fault.ReasonContextMissing {
		t.Errorf("without a tenant: %v", err)
	}
	var empty house
	empty.TB = t
	c = empty.client()
	bools(acme, "on", flags.Detail[bool]{Value: true, Code: flagset.NotReady})
}

func TestReadsDoNotAllocate(t *testing.T) { //nolint:paralleltest // it counts allocations
	h := newHouse(t)
	h.platform(kinds)
	c, issuer := h.client(), tenanttest.NewIssuer(t, nil)
	ctx, err := c.With(issuer.In(t.Context(), t, "acme"), map[string]any{"targetingKey": "ann"})
	if err != nil {
		t.Fatal(err)
	}
	for key, read := range map[string]func(){
		"static": func() { c.Bool(ctx, "on", false) }, "targeting": func() { c.String(ctx, "text", "") },
		"whose": func() { c.String(ctx, "where", "") }, "fractional": func() { c.Int(ctx, "share", 0) },
		"object": func() { c.Object(ctx, "object", nil) }, "detail": func() { c.StringDetail(ctx, "text", "") },
	} {
		if n := testing.AllocsPerRun(100, read); n > 0 {
			t.Errorf("%s: %v allocations", key, n)
		}
	}
}
