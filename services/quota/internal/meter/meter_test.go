package meter_test

import (
	"errors"
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/meter"
)

func TestParseName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]meter.Owner{
		"platform/limits/requests":     {Layer: meter.Platform},
		"plans/free/limits/requests":   {Layer: meter.Plan, Name: "free"},
		"tenants/acme/limits/requests": {Layer: meter.Tenant, Name: "acme"},
	} {
		got, id, err := meter.ParseName(name)
		if err != nil || got != want || id != "requests" {
			t.Errorf("ParseName(%q) = %v, %q, %v", name, got, id, err)
		}
		if got.String()+"/limits/"+id != name {
			t.Errorf("%q is written %q", name, got.String()+"/limits/"+id)
		}
	}
	for _, name := range []string{
		"", "limits/x", "platform", "platform/limits/", "platform/limits/a/b", "platforms/limits/x", "plans//limits/x",
		"plans/a/b/limits/x", "tenants/A/limits/x", "tenants/ab/limits/x", "tenants/acme/limits/x/limits/y",
	} {
		if o, id, err := meter.ParseName(name); !errors.Is(err, meter.ErrName) {
			t.Errorf("ParseName(%q) = %v, %q, %v; want ErrName", name, o, id, err)
		}
	}
}

// A changed limit keeps what was spent; the next charge counts under the new one.
func TestChargeFollowsTheLimit(t *testing.T) {
	t.Parallel()
	limit := func(tokens int64) gcra.Limit {
		l, err := gcra.New(tokens, time.Second, tokens)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	const now = gcra.Ticks(1 << 40)
	c, g := meter.Cell{}.Charge(limit(10), now, 10, 10)
	if !g.OK {
		t.Fatalf("the first charge = %+v", g)
	}
	if _, g := c.Charge(limit(10), now, 1, 1); g.OK {
		t.Error("a spent limit was charged")
	}
	c, g = c.Charge(limit(100), now, 1, 1)
	if !g.OK || g.Remaining != 89 {
		t.Errorf("after the upgrade %+v, want 89 left", g)
	}
	if _, g := c.Charge(limit(5), now, 1, 1); g.OK || g.RetryAfter > 300*time.Millisecond {
		t.Errorf("after the downgrade %+v, want a short wait", g)
	}
}
