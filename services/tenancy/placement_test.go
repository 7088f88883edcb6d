package tenancy_test

import (
	"testing"

	"google.golang.org/grpc/codes"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
)

// TestPlacementIsMissingOnlyWhenItIs breaks what a placement is read from: the tenant is there all the same.
func TestPlacementIsMissingOnlyWhenItIs(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.furnish(), t.Context()
	r.tenant(a, "acme")
	_, err := a.GetPlacement(ctx, &tenancyv1.GetPlacementRequest{Name: "tenants/nobody/placement"})
	refused(t, "nobody's placement", err, codes.NotFound, "RESOURCE_NOT_FOUND")
	_, err = r.super.Exec(ctx, `ALTER TABLE registry.suspension RENAME TO elsewhere`)
	r.must(err)
	_, err = a.GetPlacement(ctx, &tenancyv1.GetPlacementRequest{Name: "tenants/acme/placement"})
	refused(t, "a placement that cannot be read", err, codes.Internal, "INTERNAL")
}
