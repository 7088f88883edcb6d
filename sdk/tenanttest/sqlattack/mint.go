package sqlattack

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
)

const (
	cellName   = "scratch"
	generation = 1
	audience   = 16
)

// mint makes tenant contexts as a gateway would, by a root of trust of its own that nothing
// else believes in. The seals are real: they are made with the key that the database has.
type mint struct {
	key      cell.Key
	signer   *tenant.Signer
	verifier *tenant.Verifier
	trust    *tenant.Trust
	gateway  identity.ID
}

func newMint(key cell.Key) (*mint, error) {
	rootKey, root, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a root of trust: %w", err)
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a signing key: %w", err)
	}
	m := &mint{key: key, trust: tenant.NewTrust(time.Now)}
	if m.gateway, err = identity.Service("attack.example", cellName, "gateway"); err != nil {
		return nil, fmt.Errorf("name a gateway: %w", err)
	}
	if m.signer, err = tenant.NewSigner(private); err != nil {
		return nil, fmt.Errorf("make a signer: %w", err)
	}
	start := time.Now().Truncate(time.Second)
	signed, err := tenant.SignKeyCertificate(root, tenant.KeyCertificate{
		PublicKey: public, Minter: "gateway", SPIFFE: m.gateway, Cells: []string{cellName}, Audience: tenant.AudienceApp(audience),
		Classes: tenant.ClassesOf(tenant.ClassSession), NotBefore: start, NotAfter: start.Add(tenant.MaxKeyLife),
	})
	if err != nil {
		return nil, fmt.Errorf("certify the key: %w", err)
	}
	cert, err := tenant.ParseKeyCertificate([]ed25519.PublicKey{rootKey}, signed)
	if err == nil {
		err = m.trust.SetKey(cert)
	}
	if err != nil {
		return nil, fmt.Errorf("trust the key: %w", err)
	}
	m.verifier, err = tenant.NewVerifier(tenant.VerifierConfig{
		Trust: m.trust, Audience: tenant.AudienceApp(audience), MayPresent: tenant.Presenters(m.gateway),
	})
	if err != nil {
		return nil, fmt.Errorf("make a verifier: %w", err)
	}
	return m, nil
}

// newTenant makes up a tenant, known to the verifier.
func (m *mint) newTenant(id string) (tenant.TenantState, error) {
	uid, err := tenant.NewUID(time.Now(), rand.Reader)
	if err != nil {
		return tenant.TenantState{}, fmt.Errorf("make a uid: %w", err)
	}
	parsed, err := tenant.ParseID(id)
	if err != nil {
		return tenant.TenantState{}, fmt.Errorf("name a tenant: %w", err)
	}
	state := tenant.TenantState{
		UID: uid, ID: parsed, Generation: 1, PlacementGeneration: generation, State: tenant.StateActive,
	}
	if err := m.trust.SetTenant(state); err != nil {
		return state, fmt.Errorf("know the tenant: %w", err)
	}
	return state, nil
}

// context returns a fresh context of the tenant, which lives in that model.
func (m *mint) context(t tenant.TenantState, model tenant.Model) (tenant.Context, error) {
	now := time.Now().Truncate(time.Second)
	claims := tenant.Claims{
		TenantUID: t.UID, TenantID: t.ID, Generation: t.Generation, Model: model,
		Cell: cellName, CellNumber: m.key.Cell, Region: "local", PlacementGeneration: t.PlacementGeneration, Plan: "business",
		PrincipalKind: tenant.PrincipalVisitor, Audience: tenant.AudienceApp(audience), Minter: "gateway",
		IssueTime: now, ExpireTime: now.Add(tenant.MaxSessionLife), Class: tenant.ClassSession,
	}
	token, err := m.signer.Sign(claims.WithSeal(&m.key.Secret, m.key.ID))
	if err != nil {
		return tenant.Context{}, fmt.Errorf("sign a context: %w", err)
	}
	m.trust.Bookmark(time.Now())
	c, err := m.verifier.Verify(string(token), m.gateway)
	if err != nil {
		return tenant.Context{}, fmt.Errorf("verify a context: %w", err)
	}
	return c, nil
}
