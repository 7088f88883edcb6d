package gateway_test

import (
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
)

// workload returns the gateway's renewals as a workload sees them.
func (r *rig) workload(g *running, id identity.ID) tenancyv1.ContextRenewalServiceClient {
	r.Helper()
	conn, err := grpc.NewClient("passthrough:///"+g.api, grpc.WithTransportCredentials(credentials.NewTLS(r.source(id).ClientTLS(r.self))),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	r.need(err)
	r.Cleanup(func() { _ = conn.Close() })
	return tenancyv1.NewContextRenewalServiceClient(conn)
}

// shown returns the context with which the gateway asks the app for the tenant.
func (r *rig) shown(g *running, host string) string {
	r.Helper()
	eventually(r, host+" is served", func() bool { return r.get(g, host, "/").status == 200 })
	return *r.seen.Load()
}

// A gateway renews contexts for the app that they are for, also with the control plane
// gone and after a restart, and for nobody else.
func TestRenewalNeedsNoControlPlane(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	stopControl := r.serveControl()
	g := r.start()
	token := r.shown(g, "acme.localhost")
	verifier, err := tenant.NewVerifier(tenant.VerifierConfig{Trust: r.trust, Audience: tenant.AudienceApp(16), MayPresent: tenant.Presenters(r.self)})
	r.need(err)
	old, err := verifier.Verify(token, r.self)
	r.need(err)
	refresh := func(g *running, as identity.ID, token string) (string, error) {
		res, err := r.workload(g, as).RefreshContext(t.Context(), &tenancyv1.RefreshContextRequest{TenantContext: []byte(token)})
		return string(res.GetTenantContext()), err
	}
	check := func(when, token string) {
		t.Helper()
		c, err := verifier.Verify(token, r.self)
		r.need(err)
		if c.UID() != old.UID() || c.Audience() != old.Audience() || c.Scopes() != old.Scopes() || c.PrincipalKind() != old.PrincipalKind() ||
			!c.HasSeal() || c.Minter() != old.Minter() || !c.FirstIssueTime().Equal(old.IssueTime()) || c.ExpireTime().Before(old.ExpireTime()) {
			t.Errorf("%s: %+v", when, c.Claims())
		}
	}
	fresh, err := refresh(g, r.app, token)
	r.need(err)
	check("with the control plane", fresh)
	for who, want := range map[identity.ID]string{
		r.id("app", "thief"): fault.ReasonPresenterRefused, r.id("app", "nobody"): fault.ReasonPermissionMissing, r.peer: fault.ReasonPermissionMissing,
	} {
		_, err := refresh(g, who, token)
		if status.Code(err) != codes.PermissionDenied || fault.ReasonOf(tenantgrpc.FromStatus(err)) != want {
			t.Errorf("as %v: %v, want %s", who, err, want)
		}
	}
	stopControl()
	g.stop()
	r.reach("127.0.0.1:1")
	r.write("db.dsn", "postgres://nobody@127.0.0.1:1/none?sslmode=disable")
	g = r.start()
	fresh, err = refresh(g, r.app, fresh)
	r.need(err)
	check("without the control plane", fresh)
}

// What the gateway knows of the tenant now decides.
func TestRenewalFollowsTheTenant(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.serveControl()
	g := r.start()
	token := r.shown(g, "acme.localhost")
	renewals := r.workload(g, r.app)
	reason := func() string {
		_, err := renewals.RefreshContext(t.Context(), &tenancyv1.RefreshContextRequest{TenantContext: []byte(token)})
		return fault.ReasonOf(tenantgrpc.FromStatus(err))
	}
	r.setTenant("acme", tenancyv1.TenantState_TENANT_STATE_SUSPENDED, 2)
	eventually(t, "a suspended tenant's is refused", func() bool { return reason() == fault.ReasonTenantSuspended })
	r.setTenant("acme", tenancyv1.TenantState_TENANT_STATE_ACTIVE, 3)
	eventually(t, "one from before the suspension is stale", func() bool { return reason() == fault.ReasonPlacementStale })
	r.setTenant("acme", tenancyv1.TenantState_TENANT_STATE_DELETED, 4)
	eventually(t, "a deleted tenant's is refused", func() bool { return reason() == fault.ReasonTenantDeleted })
}
