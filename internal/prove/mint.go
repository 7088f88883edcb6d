package prove

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

// What scratch cells have in common.
const (
	cellName    = "scratch"
	cellNumber  = 1
	keyID       = 1
	audience    = 16
	trustDomain = "prove.localhost"
)

// mint makes tenant contexts as a gateway would, under a root of trust of its own that only
// its verifier believes in. The seals are real: the scratch database has the key.
type mint struct {
	key      cell.Key
	signer   *tenant.Signer
	trust    *tenant.Trust
	verifier *tenant.Verifier
	gateway  identity.ID
}

// resident is a tenant of a scratch cell and the model in which it lives.
type resident struct {
	tenant.TenantState

	model tenant.Model
}

func newMint() (m *mint, err error) {
	m = &mint{trust: tenant.NewTrust(time.Now)}
	m.key = cell.Key{ID: keyID, Cell: cellNumber, NotAfter: time.Now().Add(tenant.MaxKeyLife)}
	_, _ = rand.Read(m.key.Secret[:]) // crypto/rand never fails
	root, certify, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("a root of trust: %w", err)
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("a signing key: %w", err)
	}
	if m.gateway, err = identity.Service(trustDomain, cellName, "gateway"); err != nil {
		return nil, fmt.Errorf("a gateway's name: %w", err)
	}
	if m.signer, err = tenant.NewSigner(private); err != nil {
		return nil, fmt.Errorf("a signer: %w", err)
	}
	start := time.Now().Truncate(time.Second)
	signed, err := tenant.SignKeyCertificate(certify, tenant.KeyCertificate{
		PublicKey: public, Minter: "gateway", SPIFFE: m.gateway, Cells: []string{cellName}, Audience: tenant.AudienceApp(audience),
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
		Trust: m.trust, Audience: tenant.AudienceApp(audience), Cells: []string{cellName}, MayPresent: tenant.Presenters(m.gateway),
	})
	if err != nil {
		return nil, fmt.Errorf("a verifier: %w", err)
	}
	return m, nil
}

// resident makes up an active tenant that the verifier knows.
func (m *mint) resident(id string, model tenant.Model) (resident, error) {
	uid, err := tenant.NewUID(time.Now(), rand.Reader)
	if err != nil {
		return resident{}, fmt.Errorf("a tenant's uid: %w", err)
	}
	parsed, err := tenant.ParseID(id)
	if err != nil {
		return resident{}, fmt.Errorf("a tenant's id: %w", err)
	}
	r := resident{tenant.TenantState{UID: uid, ID: parsed, Generation: 1, PlacementGeneration: 1, State: tenant.StateActive}, model}
	if err := m.trust.SetTenant(r.TenantState); err != nil {
		return r, fmt.Errorf("know the tenant: %w", err)
	}
	return r, nil
}

// token signs a context of the resident that was issued at that time.
func (m *mint) token(r resident, issued time.Time) (string, error) {
	issued = issued.Truncate(time.Second)
	claims := tenant.Claims{
		TenantUID: r.UID, TenantID: r.ID, Generation: r.Generation, Model: r.model, Cell: cellName, CellNumber: cellNumber,
		Region: "local", PlacementGeneration: r.PlacementGeneration, Plan: "business", PrincipalKind: tenant.PrincipalVisitor,
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

// in returns ctx with the resident in it, as behind a server's door.
func (m *mint) in(ctx context.Context, r resident) (context.Context, error) {
	token, err := m.token(r, time.Now())
	if err != nil {
		return ctx, err
	}
	verified, err := m.verifier.Verify(token, m.gateway)
	if err != nil {
		return ctx, fmt.Errorf("verify a context: %w", err)
	}
	return tenant.NewContext(ctx, verified), nil
}

// caller puts a context of the resident, issued so long ago, into the metadata of each call.
func (m *mint) caller(r resident, age time.Duration) func(context.Context, string, proto.Message) (context.Context, error) {
	return func(ctx context.Context, _ string, _ proto.Message) (context.Context, error) {
		token, err := m.token(r, time.Now().Add(-age))
		return metadata.AppendToOutgoingContext(ctx, tenant.MetadataKey, token), err
	}
}
