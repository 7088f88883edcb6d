package tenanttest_test

import (
	"context"
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

func TestContextIsTheTenants(t *testing.T) {
	t.Parallel()
	issuer := tenanttest.NewIssuer(t, nil)
	c, err := tenant.FromContext(issuer.In(t.Context(), t, "acme", tenanttest.As("ann")))
	if err != nil {
		t.Fatal(err)
	}
	if c.UID() != tenanttest.UID("acme") || c.ID().String() != "acme" || c.Plan() != tenanttest.Plan ||
		c.PrincipalKind() != tenant.PrincipalUser || !c.HasSeal() {
		t.Errorf("claims = %+v", c.Claims())
	}
	if got := issuer.Context(t, "globex").UID(); got == c.UID() {
		t.Error("two tenants have one uid")
	}
	if _, err := tenant.FromContext(context.WithoutCancel(t.Context())); fault.ReasonOf(err) != fault.ReasonContextMissing {
		t.Errorf("without a tenant: %v", err)
	}
}

func TestIssuersDoNotTrustEachOther(t *testing.T) {
	t.Parallel()
	one, two := tenanttest.NewIssuer(t, nil), tenanttest.NewIssuer(t, nil)
	two.Tenant(t, "acme")
	_, err := two.Verifier(t).Verify(one.Token(t, "acme"), two.Gateway())
	if fault.ReasonOf(err) != fault.ReasonContextInvalid {
		t.Errorf("a stranger's token: %v", err)
	}
}

func TestContextsAreMadeLongAfterTheStart(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	issuer := tenanttest.NewIssuer(t, func() time.Time { return now })
	now = now.Add(time.Hour)
	request := tenant.RequestDigest("/m", "id", "name")
	if got := issuer.Context(t, "acme", tenanttest.For(request)).Class(); got != tenant.ClassTransaction {
		t.Errorf("class = %v", got)
	}
}

func TestSetModel(t *testing.T) {
	t.Parallel()
	issuer := tenanttest.NewIssuer(t, nil)
	if got := issuer.Context(t, "acme").Model(); got != tenant.ModelShared {
		t.Errorf("at first acme lives in %s", got)
	}
	issuer.SetModel(tenant.ModelDatabase)
	issuer.SetModel(tenant.ModelSchema, "acme", "globex")
	for id, want := range map[string]tenant.Model{
		"acme": tenant.ModelSchema, "globex": tenant.ModelSchema, "initech": tenant.ModelDatabase,
	} {
		if got := issuer.Context(t, id).Model(); got != want || issuer.Model(id) != want {
			t.Errorf("%s lives in %s, want %s", id, got, want)
		}
	}
}
