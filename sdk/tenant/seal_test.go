package tenant_test

import (
	"encoding/hex"
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// TestSealVector holds the seal to the vector that PostgreSQL's side is held to.
func TestSealVector(t *testing.T) {
	t.Parallel()
	var key tenant.SealKey
	for i := range key {
		key[i] = 0x0b
	}
	uid, err := tenant.ParseUID("aaaaaaaa-0000-7000-8000-00000000000a")
	if err != nil {
		t.Fatal(err)
	}
	claims := tenant.Claims{
		TenantUID: uid, CellNumber: 42, PlacementGeneration: 7, ExpireTime: time.Unix(1800000000, 0),
	}.WithSeal(&key, 1)
	const want = "01" + "99e72aa69c6f5fe41eac9a4d8f106550"
	if got := hex.EncodeToString(claims.DBSeal[:]); got != want {
		t.Errorf("db seal = %s, want %s", got, want)
	}
	const body = "01010000" + "0000002a" + "0000000000000007" + "aaaaaaaa000070008000" + "00000000000a" + "6b49d200"
	got := claims.SealBody()
	if hex.EncodeToString(got[:]) != body {
		t.Errorf("body = %x, want %s", got, body)
	}
}

func TestContextRebuildsSeal(t *testing.T) {
	t.Parallel()
	issuer := tenanttest.NewIssuer(t, nil)
	c := issuer.Context(t, "acme")
	claims, key, seal := c.Claims(), issuer.SealKey(), c.Seal()
	body := claims.SealBody()
	tag := tenant.MakeSeal(&key, tenanttest.SealKID, body)
	if string(seal[:36]) != string(body[:]) || string(seal[36:]) != string(tag[:]) || !c.HasSeal() {
		t.Errorf("seal %x does not open cell %d", seal, c.CellNumber())
	}
	other := issuer.Context(t, "globex").Seal()
	if other == seal {
		t.Error("two tenants have one seal")
	}
}
