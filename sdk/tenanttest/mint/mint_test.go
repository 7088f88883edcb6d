package mint_test

import (
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/mint"
)

// Contexts are good at the mint's own verifier, while they live, from its gateway; at no other.
func TestMint(t *testing.T) {
	t.Parallel()
	m, err := mint.New(mint.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := mint.New(m.Key())
	if err != nil {
		t.Fatal(err)
	}
	acme, err := m.Tenant("acme")
	if err != nil {
		t.Fatal(err)
	}
	c, err := m.Context(acme, tenant.ModelSchema)
	if err != nil || c.UID() != acme.UID || c.Model() != tenant.ModelSchema || !c.HasSeal() {
		t.Errorf("%v: %+v", err, c.Claims())
	}
	for name, test := range map[string]struct {
		by   *mint.Mint
		age  time.Duration
		want string
	}{
		"expired":        {m, tenant.MaxSessionLife + time.Minute, fault.ReasonContextExpired},
		"another signer": {stranger, 0, fault.ReasonContextInvalid},
	} {
		ctx, err := test.by.Caller(acme, tenant.ModelShared, test.age)(t.Context(), "/s/M", nil)
		if err != nil {
			t.Fatal(err)
		}
		sent, _ := metadata.FromOutgoingContext(ctx)
		if _, err := m.Verifier().Verify(sent.Get(tenant.MetadataKey)[0], m.Gateway()); fault.ReasonOf(err) != test.want {
			t.Errorf("%s: %v, want %s", name, err, test.want)
		}
	}
	if _, err := m.Tenant("Not an id"); err == nil {
		t.Error("a tenant without an id")
	}
}
