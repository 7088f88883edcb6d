// Package mint makes tenant contexts as a gateway would, for programs that attack databases and
// services made for it: it is their gateway, signing key and root of trust in one.
//
// Nothing but its own verifier believes in it. The seals are real where the database has the
// key. The package does not import testing; in tests package tenanttest does more. Start at [New].
package mint

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
)

// What all mints have in common.
const (
	// Cell is the name of the cell in which all tenants live.
	Cell = "scratch"
	// TrustDomain is that of the gateway's identity.
	TrustDomain = "mint.localhost"
	// Generation is the placement generation of all tenants.
	Generation = 1

	audience   = 16
	cellNumber = 1
	keyID      = 1
)

// NewKey returns a random key of the cell, for [New] and for the database.
func NewKey() cell.Key {
	key := cell.Key{ID: keyID, Cell: cellNumber, NotAfter: time.Now().Add(tenant.MaxKeyLife)}
	_, _ = rand.Read(key.Secret[:]) // crypto/rand never fails
	return key
}

// Mint makes contexts. It is safe for concurrent use.
type Mint struct {
	key      cell.Key
	signer   *tenant.Signer
	trust    *tenant.Trust
	verifier *tenant.Verifier
	gateway  identity.ID
}

// New returns a mint whose seals are made with the key. It knows no tenants.
func New(key cell.Key) (*Mint, error) {
	m := &Mint{key: key, trust: tenant.NewTrust(time.Now)}
	root, certify, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("a root of trust: %w", err)
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("a signing key: %w", err)
	}
	if m.gateway, err = identity.Service(TrustDomain, Cell, "gateway"); err != nil {
		return nil, fmt.Errorf("a gateway's name: %w", err)
	}
	if m.signer, err = tenant.NewSigner(private); err != nil {
		return nil, fmt.Errorf("a signer: %w", err)
	}
	start := time.Now().Truncate(time.Second)
	signed, err := tenant.SignKeyCertificate(certify, tenant.KeyCertificate{
		PublicKey: public, Minter: "gateway", SPIFFE: m.gateway, Cells: []string{Cell}, Audience: tenant.AudienceApp(audience),
		Classes: tenant.ClassesOf(tenant.ClassSession), NotBefore: start, NotAfter: start.Add(tenant.MaxKeyLife),
	})
	if err != nil {
		return nil, fmt.Errorf("certify the key: %w", err)
	}
	certificate, err := tenant.ParseKeyCertificate([]ed25519.PublicKey{root}, signed)
	if err != nil {
		return nil, fmt.Errorf("certify the key: %w", err)
	}
	if err := m.trust.SetKey(certificate); err != nil {
		return nil, fmt.Errorf("trust the key: %w", err)
	}
	m.verifier, err = tenant.NewVerifier(tenant.VerifierConfig{
		Trust: m.trust, Audience: tenant.AudienceApp(audience), Cells: []string{Cell}, MayPresent: tenant.Presenters(m.gateway),
	})
	if err != nil {
		return nil, fmt.Errorf("a verifier: %w", err)
	}
	return m, nil
}

// Key returns the key with which the seals are made.
func (m *Mint) Key() cell.Key { return m.key }

// Gateway returns the identity that may present the mint's contexts.
func (m *Mint) Gateway() identity.ID { return m.gateway }

// Verifier returns the verifier that believes in the mint, as a service has it.
func (m *Mint) Verifier() *tenant.Verifier { return m.verifier }

// Tenant makes up an active tenant that the verifier knows.
func (m *Mint) Tenant(id string) (t tenant.TenantState, err error) {
	uid, err := tenant.NewUID(time.Now(), rand.Reader)
	if err != nil {
		return t, fmt.Errorf("a tenant's uid: %w", err)
	}
	parsed, err := tenant.ParseID(id)
	if err != nil {
		return t, fmt.Errorf("a tenant's id: %w", err)
	}
	t = tenant.TenantState{UID: uid, ID: parsed, Generation: 1, PlacementGeneration: Generation, State: tenant.StateActive}
	if err := m.trust.SetTenant(t); err != nil {
		return t, fmt.Errorf("know the tenant: %w", err)
	}
	return t, nil
}

// Token signs a context of the tenant, which lives in that model, as it was issued so long ago.
func (m *Mint) Token(t tenant.TenantState, model tenant.Model, age time.Duration) (string, error) {
	issued := time.Now().Add(-age).Truncate(time.Second)
	claims := tenant.Claims{
		TenantUID: t.UID, TenantID: t.ID, Generation: t.Generation, Model: model, Cell: Cell, CellNumber: m.key.Cell,
		Region: "local", PlacementGeneration: t.PlacementGeneration, Plan: "business", PrincipalKind: tenant.PrincipalVisitor,
		Audience: tenant.AudienceApp(audience), Minter: "gateway", IssueTime: issued, ExpireTime: issued.Add(tenant.MaxSessionLife),
		Class: tenant.ClassSession,
	}
	token, err := m.signer.Sign(claims.WithSeal(&m.key.Secret, m.key.ID))
	if err != nil {
		return "", fmt.Errorf("sign a context: %w", err)
	}
	m.trust.Bookmark(time.Now())
	return string(token), nil
}

// Context returns a fresh context of the tenant, verified as behind a server's door.
func (m *Mint) Context(t tenant.TenantState, model tenant.Model) (tenant.Context, error) {
	token, err := m.Token(t, model, 0)
	if err != nil {
		return tenant.Context{}, err
	}
	c, err := m.verifier.Verify(token, m.gateway)
	if err != nil {
		return tenant.Context{}, fmt.Errorf("verify a context: %w", err)
	}
	return c, nil
}

// Caller returns a function that puts a context of the tenant, made like Token, into the
// outgoing metadata of each call: a party of package apiattack calls so.
func (m *Mint) Caller(
	t tenant.TenantState, model tenant.Model, age time.Duration,
) func(ctx context.Context, method string, request proto.Message) (context.Context, error) {
	return func(ctx context.Context, _ string, _ proto.Message) (context.Context, error) {
		token, err := m.Token(t, model, age)
		return metadata.AppendToOutgoingContext(ctx, tenant.MetadataKey, token), err
	}
}
