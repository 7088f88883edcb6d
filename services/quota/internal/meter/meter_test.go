package meter_test

import (
	"errors"
	"testing"

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
