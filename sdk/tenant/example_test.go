package tenant_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// A gateway says for whom a call is, a service checks it, a handler reads it.
// Interceptors of sdk/tenantgrpc do the middle part for you.
func Example() {
	gateway, err := identity.Parse("spiffe://rowhouse.localhost/cell/cell-1/service/gateway")
	check(err)
	id, err := tenant.ParseID("acme")
	check(err)
	uid, err := tenant.NewUID(time.Now(), rand.Reader)
	check(err)
	public, private, err := ed25519.GenerateKey(rand.Reader)
	check(err)
	now := time.Now().Truncate(time.Second)

	// What tenancy tells every verifier: which keys sign, which tenants live.
	trust := tenant.NewTrust(tenant.NewClock())
	check(trust.SetKey(tenant.KeyCertificate{
		PublicKey: public, Minter: "gateway", SPIFFE: gateway, Cells: []string{"cell-1"},
		Audience: tenant.AudienceApp(16), Classes: tenant.ClassesOf(tenant.ClassSession),
		NotBefore: now, NotAfter: now.Add(tenant.MaxKeyLife),
	}))
	acme := tenant.TenantState{UID: uid, ID: id, Generation: 1, PlacementGeneration: 1, State: tenant.StateActive}
	check(trust.SetTenant(acme))
	trust.Bookmark(now)

	// The gateway.
	signer, err := tenant.NewSigner(private)
	check(err)
	token, err := signer.Sign(tenant.Claims{
		TenantUID: uid, TenantID: id, Generation: 1, Model: tenant.ModelShared, Cell: "cell-1", CellNumber: 1,
		Region: "local", PlacementGeneration: 1, Plan: "free", PrincipalKind: tenant.PrincipalVisitor,
		Audience: tenant.AudienceApp(16), Minter: "gateway", Class: tenant.ClassSession,
		IssueTime: now, ExpireTime: now.Add(tenant.MaxSessionLife),
	})
	check(err)

	// The service: the peer's identity comes from its mTLS connection.
	verifier, err := tenant.NewVerifier(tenant.VerifierConfig{
		Trust: trust, Audience: tenant.AudienceApp(16), MayPresent: tenant.Presenters(gateway),
	})
	check(err)
	verified, err := verifier.Verify(string(token), gateway)
	check(err)
	ctx := tenant.NewContext(context.Background(), verified)

	// The handler.
	c, err := tenant.FromContext(ctx)
	check(err)
	fmt.Println("for", c.ID(), "on plan", c.Plan())

	// A suspension reaches the very next call.
	acme.State, acme.Generation = tenant.StateSuspended, 2
	check(trust.SetTenant(acme))
	_, err = verifier.Verify(string(token), gateway)
	fmt.Println(fault.ReasonOf(err))
	// Output:
	// for acme on plan free
	// TENANT_SUSPENDED
}

// Without a tenant context a reader gets an error, never a zero value.
func ExampleFromContext() {
	_, err := tenant.FromContext(context.Background())
	fmt.Println(fault.ReasonOf(err))
	// Output: CONTEXT_MISSING
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
