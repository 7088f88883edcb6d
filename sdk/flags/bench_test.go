package flags_test

import (
	"testing"

	"github.com/rowhouse-platform/rowhouse/sdk/flags"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

func BenchmarkBool(b *testing.B) {
	h := newHouse(b)
	h.platform(kinds)
	c := h.client()
	ctx := tenanttest.NewIssuer(b, nil).In(b.Context(), b, "acme")
	b.ReportAllocs()
	for b.Loop() {
		c.Bool(ctx, "on", false)
	}
}

// BenchmarkViewMemory is what compiled flags cost where those of all tenants are asked for.
func BenchmarkViewMemory(b *testing.B) {
	for b.Loop() {
		b.ReportMetric(float64(viewBytes(b)), "B/view")
	}
	b.ReportMetric(flags.MaxViews, "views")
}
