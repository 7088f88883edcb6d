package tenancy_test

import (
	"testing"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
)

func TestTenantIsReadyInTheAnswer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.furnish()
	acme := r.tenant(a, "acme")
	if got := r.cellRow(acme.GetUid()); got != (cellRow{"active", 1, 5000}) {
		t.Errorf("the app's database knows %+v", got)
	}
	got, err := a.GetTenant(t.Context(), &tenancyv1.GetTenantRequest{Name: "tenants/acme"})
	r.must(err)
	if got.GetTenant().GetEtag() != acme.GetEtag() || got.GetTenant().GetRevision() != acme.GetRevision() || got.GetTenant().GetReconciling() {
		t.Errorf("created %v\nread %v", acme, got.GetTenant())
	}
}
