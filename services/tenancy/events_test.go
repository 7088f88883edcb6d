package tenancy_test

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
)

// happened is the feed of events as it is stored: type, tenant, and what else each says.
func (r *rig) happened() (out []string) {
	r.tb.Helper()
	rows, err := r.super.Query(r.tb.Context(), `SELECT key, value FROM kernel.feed_state WHERE feed = 'events' ORDER BY key`)
	must(r.tb, err)
	defer rows.Close()
	var last int64
	for rows.Next() {
		var key string
		var value []byte
		must(r.tb, rows.Scan(&key, &value))
		m := new(tenancyv1.TenancyEvent)
		must(r.tb, proto.Unmarshal(value, m))
		if m.GetRevision() < last || m.GetTenantUid() == "" || m.GetTime() == nil || !strings.HasSuffix(key, "/"+m.GetTenantUid()) {
			r.tb.Errorf("%s: %s", key, m)
		}
		last = m.GetRevision()
		more := strings.Join(slices.DeleteFunc([]string{m.GetPreviousPlan(), m.GetHost(), m.GetVerb(), m.GetError()}, func(s string) bool { return s == "" }), " ")
		out = append(out, strings.TrimSpace(m.GetType()+" "+m.GetTenantId()+" "+more))
	}
	must(r.tb, rows.Err())
	return out
}

// Each step of a tenant's life leaves one event, in the transaction that takes it.
func TestWhatHappensToTenantsIsPublished(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.furnish(), t.Context()
	_, err := a.CreateTenant(ctx, &tenancyv1.CreateTenantRequest{TenantId: "acme", Tenant: &tenancyv1.Tenant{DisplayName: "Acme"}})
	must(t, err)
	for _, tenant := range []*tenancyv1.Tenant{
		{Name: "tenants/acme", DisplayName: "Acme Inc"}, {Name: "tenants/acme", Plan: "plans/business"}, {Name: "tenants/acme", Plan: "plans/business"},
	} {
		_, err := a.UpdateTenant(ctx, &tenancyv1.UpdateTenantRequest{Tenant: tenant})
		must(t, err)
	}
	_, err = a.UpdateTenant(ctx, &tenancyv1.UpdateTenantRequest{Tenant: &tenancyv1.Tenant{Name: "tenants/acme", Plan: "plans/free"}, ValidateOnly: true})
	must(t, err)
	for _, host := range []string{"a.localhost", "acme.example.com"} { // the second serves when it is verified
		_, err := a.CreateDomain(ctx, &tenancyv1.CreateDomainRequest{
			Parent: "tenants/acme", DomainId: host, Domain: &tenancyv1.Domain{App: "apps/" + r.app},
		})
		must(t, err)
	}
	_, err = a.VerifyDomain(ctx, &tenancyv1.VerifyDomainRequest{Name: "tenants/acme/domains/acme.example.com", Reason: "TXT record seen"})
	must(t, err)
	_, err = a.DeleteDomain(ctx, &tenancyv1.DeleteDomainRequest{Name: "tenants/acme/domains/a.localhost"})
	must(t, err)
	want := []string{
		"tenant.created acme", "operation.done acme create", "tenant.active acme", "tenant.plan_changed acme free",
		"domain.attached acme a.localhost", "domain.attached acme acme.example.com", "domain.removed acme a.localhost",
	}
	if got := r.happened(); !slices.Equal(got, want) {
		t.Errorf("happened:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}

	suspended, err := a.SuspendTenant(ctx, &tenancyv1.SuspendTenantRequest{
		Name: "tenants/acme", Cause: tenancyv1.SuspensionCause_SUSPENSION_CAUSE_BILLING, Reason: "an unpaid bill",
	})
	must(t, err)
	r.wait(a, suspended.GetOperation())
	_, err = a.ResumeTenant(ctx, &tenancyv1.ResumeTenantRequest{
		Name: "tenants/acme", Cause: tenancyv1.SuspensionCause_SUSPENSION_CAUSE_BILLING, Reason: "it was paid",
	})
	must(t, err)
	deleted, err := a.DeleteTenant(ctx, &tenancyv1.DeleteTenantRequest{Name: "tenants/acme", Reason: "end of contract"})
	must(t, err)
	r.wait(a, deleted.GetOperation())
	got := r.happened()[len(want):]
	for _, one := range []string{
		"tenant.suspended acme", "operation.done acme suspend", "tenant.active acme", "tenant.deleted acme", "operation.done acme delete",
	} {
		if n := len(slices.DeleteFunc(slices.Clone(got), func(s string) bool { return s != one })); n != 1 {
			t.Errorf("%q happened %d times:\n%s", one, n, strings.Join(got, "\n"))
		}
	}
}
