// Package tenanttest makes tenant contexts for tests.
//
// An [Issuer] is a small control plane in memory: it certifies a key, knows
// tenants, signs tokens and verifies them with the production verifier. It has
// no back door: what it hands out went through [tenant.Verifier.Verify], so a
// test can be wrong about a tenant only in ways that production could be too.
//
// Start at [NewIssuer], then [Issuer.Context] for a handler's test or
// [Issuer.Token] for a test that speaks over a wire. For rows in a real
// database give [Issuer.SealKey] to the test's cell.
package tenanttest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// What every issuer's tenants have in common; a Claims edit changes it.
const (
	TrustDomain = "rowhouse.localhost"
	Cell        = "cell-1"
	CellNumber  = 1
	Region      = "local"
	Plan        = "business"
	Minter      = "gateway"
	SealKID     = 1
)

const everyAudience = ^tenant.Audience(0)

// Issuer is a control plane in memory. It is safe for concurrent use.
type Issuer struct {
	clock   func() time.Time
	trust   *tenant.Trust
	root    ed25519.PublicKey
	signer  *tenant.Signer
	cert    tenant.KeyCertificate
	sealKey tenant.SealKey
	gateway identity.ID
	context *tenant.Verifier

	mu     sync.Mutex              // guards read-change-write of tenants in trust
	models map[string]tenant.Model // guarded by mu; "" is of those that are not in it
}

// NewIssuer returns an issuer with a fresh key and no tenants. clock is the time
// of everything it makes; nil is time.Now.
func NewIssuer(tb testing.TB, clock func() time.Time) *Issuer {
	tb.Helper()
	if clock == nil {
		clock = time.Now
	}
	rootPublic, root := newKey(tb)
	public, private := newKey(tb)
	signer, err := tenant.NewSigner(private)
	must(tb, err)
	gateway, err := identity.Service(TrustDomain, Cell, "gateway")
	must(tb, err)
	i := &Issuer{clock: clock, trust: tenant.NewTrust(clock), root: rootPublic, signer: signer, gateway: gateway,
		models: map[string]tenant.Model{"": tenant.ModelShared}}
	_, err = rand.Read(i.sealKey[:])
	must(tb, err)
	i.cert = i.certify(tb, root, public)
	must(tb, i.trust.SetKey(i.cert))
	i.trust.Bookmark(clock())
	i.context = i.Verifier(tb)
	return i
}

func newKey(tb testing.TB) (ed25519.PublicKey, ed25519.PrivateKey) {
	tb.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	must(tb, err)
	return public, private
}

// certify signs a certificate for key and reads it back as a verifier would.
func (i *Issuer) certify(tb testing.TB, root ed25519.PrivateKey, key ed25519.PublicKey) tenant.KeyCertificate {
	tb.Helper()
	start := i.clock().Truncate(time.Second)
	signed, err := tenant.SignKeyCertificate(root, tenant.KeyCertificate{
		PublicKey: key,
		Minter:    Minter,
		SPIFFE:    i.gateway,
		Cells:     []string{Cell},
		Audience:  everyAudience,
		Classes:   tenant.ClassesOf(tenant.ClassSession, tenant.ClassTransaction),
		NotBefore: start,
		NotAfter:  start.Add(tenant.MaxKeyLife),
	})
	must(tb, err)
	cert, err := tenant.ParseKeyCertificate([]ed25519.PublicKey{i.root}, signed)
	must(tb, err)
	return cert
}

// Trust returns what the issuer's verifiers read. Tests may change it.
func (i *Issuer) Trust() *tenant.Trust { return i.trust }

// Certificate returns the certificate of the issuer's key.
func (i *Issuer) Certificate() tenant.KeyCertificate { return i.cert }

// Signer returns the issuer's signer, for tokens that Token cannot make.
func (i *Issuer) Signer() *tenant.Signer { return i.signer }

// Gateway returns the identity that holds the issuer's key and that its
// verifiers let present contexts.
func (i *Issuer) Gateway() identity.ID { return i.gateway }

// SealKey returns the cell's MAC key, known to it as [SealKID].
func (i *Issuer) SealKey() tenant.SealKey { return i.sealKey }

// Verifier returns a verifier that reads the issuer's trust. Unless an edit says
// otherwise it is app 16, serves all cells and lets the gateway present.
func (i *Issuer) Verifier(tb testing.TB, edits ...func(*tenant.VerifierConfig)) *tenant.Verifier {
	tb.Helper()
	cfg := tenant.VerifierConfig{
		Trust:      i.trust,
		Clock:      i.clock,
		Audience:   tenant.AudienceApp(16),
		MayPresent: tenant.Presenters(i.gateway),
	}
	for _, edit := range edits {
		edit(&cfg)
	}
	v, err := tenant.NewVerifier(cfg)
	must(tb, err)
	return v
}

// UID returns the uid that issuers give to the tenant id: the same in every test.
func UID(id string) tenant.UID {
	sum := sha256.Sum256([]byte(id))
	uid := tenant.UID(sum[:16])
	uid[6] = uid[6]&0x0f | 0x70
	uid[8] = uid[8]&0x3f | 0x80
	return uid
}

// Tenant returns the state of the tenant id, which it makes, ACTIVE, when it is new.
func (i *Issuer) Tenant(tb testing.TB, id string) tenant.TenantState {
	tb.Helper()
	return i.Change(tb, id, func(*tenant.TenantState) {})
}

// Change edits the state of the tenant id, which it makes when it is new. The
// edit raises generations itself, so that tests can leave them.
func (i *Issuer) Change(tb testing.TB, id string, edit func(*tenant.TenantState)) tenant.TenantState {
	tb.Helper()
	parsed, err := tenant.ParseID(id)
	must(tb, err)
	i.mu.Lock()
	defer i.mu.Unlock()
	state, known := i.trust.Tenant(UID(id))
	if !known {
		state = tenant.TenantState{
			UID: UID(id), ID: parsed, Generation: 1, PlacementGeneration: 1, State: tenant.StateActive,
		}
	}
	edit(&state)
	must(tb, i.trust.SetTenant(state))
	return state
}

// SetModel says in which model of isolation the tenants ids live; without ids, those of which
// nothing else was said. At first all are SHARED.
func (i *Issuer) SetModel(model tenant.Model, ids ...string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(ids) == 0 {
		ids = []string{""}
	}
	for _, id := range ids {
		i.models[id] = model
	}
}

// Model returns in which model the tenant id lives.
func (i *Issuer) Model(id string) tenant.Model {
	i.mu.Lock()
	defer i.mu.Unlock()
	if model, said := i.models[id]; said {
		return model
	}
	return i.models[""]
}

// Suspend suspends the tenant id as tenancy would: with a new generation.
func (i *Issuer) Suspend(tb testing.TB, id string) {
	tb.Helper()
	i.Change(tb, id, func(s *tenant.TenantState) { s.State, s.Generation = tenant.StateSuspended, s.Generation+1 })
}

// Resume ends a suspension, with a new generation.
func (i *Issuer) Resume(tb testing.TB, id string) {
	tb.Helper()
	i.Change(tb, id, func(s *tenant.TenantState) { s.State, s.Generation = tenant.StateActive, s.Generation+1 })
}

// Claims returns what a gateway would say now for a visitor of the tenant id:
// a SESSION of 45 s, no scopes, every audience. The seal is not in them: Token
// makes it.
func (i *Issuer) Claims(tb testing.TB, id string) tenant.Claims {
	tb.Helper()
	state := i.Tenant(tb, id)
	now := i.clock().Truncate(time.Second)
	return tenant.Claims{
		TenantUID:           state.UID,
		TenantID:            state.ID,
		Generation:          state.Generation,
		Model:               i.Model(id),
		Cell:                Cell,
		CellNumber:          CellNumber,
		Region:              Region,
		PlacementGeneration: state.PlacementGeneration,
		Plan:                Plan,
		PrincipalKind:       tenant.PrincipalVisitor,
		Audience:            everyAudience,
		Minter:              Minter,
		IssueTime:           now,
		ExpireTime:          now.Add(tenant.MaxSessionLife),
		Class:               tenant.ClassSession,
	}
}

// Token returns a sealed and signed token for the tenant id. Edits change the
// claims before they are sealed.
func (i *Issuer) Token(tb testing.TB, id string, edits ...func(*tenant.Claims)) string {
	tb.Helper()
	claims := i.Claims(tb, id)
	for _, edit := range edits {
		edit(&claims)
	}
	token, err := i.signer.Sign(claims.WithSeal(&i.sealKey, SealKID))
	must(tb, err)
	return string(token)
}

// Caller returns a function that puts a fresh token for the tenant id, made like Token,
// into the outgoing metadata of a call: a party of package apiattack calls so.
func (i *Issuer) Caller(
	tb testing.TB, id string, edits ...func(*tenant.Claims),
) func(ctx context.Context, method string, request proto.Message) (context.Context, error) {
	return func(ctx context.Context, _ string, _ proto.Message) (context.Context, error) {
		return metadata.AppendToOutgoingContext(ctx, tenant.MetadataKey, i.Token(tb, id, edits...)), nil
	}
}

// Expired is an edit that makes a context that ended a minute ago.
func Expired(c *tenant.Claims) {
	c.IssueTime = c.IssueTime.Add(-2 * time.Minute)
	c.ExpireTime = c.IssueTime.Add(time.Minute / 2)
}

// Context returns a verified context for the tenant id, made like Token. It
// fails the test when the verifier refuses it. Ask for a new one in tests that
// last longer than its 45 s.
func (i *Issuer) Context(tb testing.TB, id string, edits ...func(*tenant.Claims)) tenant.Context {
	tb.Helper()
	token := i.Token(tb, id, edits...)
	i.trust.Bookmark(i.clock())
	c, err := i.context.Verify(token, i.gateway)
	must(tb, err)
	return c
}

// In returns a copy of ctx in which the tenant id acts.
func (i *Issuer) In(ctx context.Context, tb testing.TB, id string, edits ...func(*tenant.Claims)) context.Context {
	tb.Helper()
	return tenant.NewContext(ctx, i.Context(tb, id, edits...))
}

// As returns an edit that lets a user act instead of a visitor.
func As(subject string) func(*tenant.Claims) {
	return func(c *tenant.Claims) {
		c.PrincipalKind = tenant.PrincipalUser
		c.PrincipalDigest = tenant.PrincipalDigest("https://idp.example", subject)
	}
}

// For returns an edit that makes a TRANSACTION context for one request, given by
// [tenant.RequestDigest].
func For(request [16]byte) func(*tenant.Claims) {
	return func(c *tenant.Claims) {
		c.Class = tenant.ClassTransaction
		c.ExpireTime = c.IssueTime.Add(tenant.MaxTransactionLife)
		c.RequestDigest = request
		_, _ = rand.Read(c.Nonce[:]) // crypto/rand never fails
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
