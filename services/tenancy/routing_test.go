package tenancy_test

import (
	"testing"

	"google.golang.org/grpc/codes"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
)

// TestReportsAreBounded reports what an app may not, and more replicas than one identity has.
func TestReportsAreBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.furnish()
	ctx, id := t.Context(), r.id("app", "notes")
	app := apiOf(r.peer(id))
	report := func(feed, replica string) error {
		_, err := app.ReportApplied(ctx, &tenancyv1.ReportAppliedRequest{Feed: feed, Replica: replica})
		return err
	}
	refused(t, "an app reports on routes", report("routes", "notes-1"), codes.PermissionDenied, "PERMISSION_MISSING")
	r.must(report("tenants", "notes-1"))
	_, err := r.super.Exec(ctx, `INSERT INTO registry.consumer SELECT 'tenants', $1, 'other-' || n, 0, '{}', now() FROM generate_series(2, 500) n`, id.String())
	r.must(err)
	refused(t, "one replica too many", report("tenants", "notes-501"), codes.ResourceExhausted, "OVERLOADED")
	r.must(report("tenants", "notes-1"))
	_, err = r.super.Exec(ctx, `UPDATE registry.consumer SET report_time = now() - interval '61 s' WHERE replica = 'other-2'`)
	r.must(err)
	r.must(report("tenants", "notes-501"))
}
