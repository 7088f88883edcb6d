package renew_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/internal/renew"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

const notesBit = 16

// rig is a street of servers that renew, a gateway and tenancy, and what an app verifies with.
type rig struct {
	*testing.T
	now              time.Time
	issuer           *tenanttest.Issuer
	app              identity.ID
	state            renew.Tenant
	down             error // what a house answers about tenants; nil for the state
	gateway, tenancy *renew.Server
	verifier         *tenant.Verifier
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{T: t, now: time.Unix(1_800_000_000, 0).UTC()}
	r.issuer = tenanttest.NewIssuer(t, r.clock)
	r.verifier = r.issuer.Verifier(t)
	var err error
	r.app, err = identity.App(tenanttest.TrustDomain, tenanttest.Cell, "notes")
	r.need(err)
	r.state = renew.Tenant{
		State: tenant.StateActive, Generation: 1, PlacementGeneration: 1, Plan: tenanttest.Plan, Model: tenant.ModelShared,
		Cell: tenanttest.Cell, CellNumber: tenanttest.CellNumber, Region: tenanttest.Region,
	}
	r.gateway = r.server(r.issuer.Signer(), tenanttest.Minter)
	r.tenancy = r.server(r.certified("tenancy"), "tenancy")
	return r
}

func (r *rig) need(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) clock() time.Time { return r.now }

func (r *rig) advance(d time.Duration) {
	r.now = r.now.Add(d)
	r.issuer.Trust().Bookmark(r.now)
}

// certified makes a second key that everybody trusts.
func (r *rig) certified(minter string) *tenant.Signer {
	r.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	r.need(err)
	cert := r.issuer.Certificate()
	cert.KeyID, cert.PublicKey, cert.Minter = tenant.KeyIDOf(public), public, minter
	r.need(r.issuer.Trust().SetKey(cert))
	signer, err := tenant.NewSigner(private)
	r.need(err)
	return signer
}

func (r *rig) server(signer *tenant.Signer, minter string) *renew.Server {
	r.Helper()
	house := house{r, renew.Keys{Signer: signer, Minter: minter, Seal: r.issuer.SealKey(), SealKID: tenanttest.SealKID}}
	s, err := renew.New(renew.Config{House: house, Trust: r.issuer.Trust(), Clock: r.clock})
	r.need(err)
	return s
}

// house is what a server knows here.
type house struct {
	r    *rig
	keys renew.Keys
}

func (h house) Audiences(_ context.Context, caller identity.ID) ([]tenant.Audience, error) {
	switch caller {
	case h.r.app:
		return []tenant.Audience{tenant.AudienceApp(notesBit + 1), tenant.AudienceApp(notesBit)}, nil
	case h.r.issuer.Gateway():
		return []tenant.Audience{tenant.AudienceGateway}, nil
	default:
		return nil, nil
	}
}

func (h house) Tenant(context.Context, tenant.UID) (renew.Tenant, error) { return h.r.state, h.r.down }

func (h house) Keys(context.Context, string) (renew.Keys, error) { return h.keys, nil }

// forNotes is an edit: the context is for the app and our own services, as gateways make them.
func forNotes(c *tenant.Claims) { c.Audience = tenant.AudienceApp(notesBit) | tenant.AudienceGateway }

func (r *rig) token(edits ...func(*tenant.Claims)) string {
	r.Helper()
	return r.issuer.Token(r, "acme", append([]func(*tenant.Claims){forNotes}, edits...)...)
}

// read verifies a context as the app does.
func (r *rig) read(token []byte) tenant.Context {
	r.Helper()
	c, err := r.verifier.Verify(string(token), r.issuer.Gateway())
	r.need(err)
	return c
}

// A chain whose links gateway and tenancy make in turn lives an hour and not a second longer, however it is renewed.
func TestChainEndsAfterAnHour(t *testing.T) {
	t.Parallel()
	for name, every := range map[string]time.Duration{"at once": 0, "often": 7 * time.Second, "late": 44 * time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			began, token := r.now, r.token()
			var last tenant.Context
			for turn := 0; ; turn++ {
				server := []*renew.Server{r.gateway, r.tenancy}[turn%2]
				fresh, err := server.Renew(t.Context(), r.app, token)
				if fault.ReasonOf(err) == fault.ReasonContextExpired {
					break
				}
				r.need(err)
				last, token = r.read(fresh), string(fresh)
				if !last.FirstIssueTime().Equal(began) || last.ExpireTime().After(began.Add(time.Hour)) {
					t.Fatalf("the chain began at %v; a context says %+v", began, last.Claims())
				}
				if want := []string{tenanttest.Minter, "tenancy"}[turn%2]; last.Minter() != want {
					t.Fatalf("minter %s, want %s", last.Minter(), want)
				}
				if every == 0 && turn > 100 { // renewing in the same second leads nowhere
					if !last.ExpireTime().Equal(began.Add(tenant.MaxSessionLife)) {
						t.Fatalf("renewals at once moved the end to %v", last.ExpireTime())
					}
					return
				}
				r.advance(every)
			}
			if !last.ExpireTime().Equal(began.Add(time.Hour)) {
				t.Errorf("the chain ended after %v", last.ExpireTime().Sub(began))
			}
		})
	}
}

// The successor says what its predecessor said, but for times, minter, plan and placement.
func TestNeverWider(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	old := r.read([]byte(r.token(tenanttest.As("ann"), func(c *tenant.Claims) { c.Scopes = 5 })))
	r.advance(40 * time.Second)
	r.state.Plan, r.state.Region, r.state.CellNumber = "free", "elsewhere", 7
	fresh, err := r.tenancy.Renew(t.Context(), r.app, old.Token())
	r.need(err)
	want := old.Claims()
	want.Minter, want.IssueTime, want.FirstIssueTime, want.ExpireTime = "tenancy", r.now, old.IssueTime(), r.now.Add(tenant.MaxSessionLife)
	want.Plan, want.Region, want.CellNumber = "free", "elsewhere", 7
	key := r.issuer.SealKey()
	got := r.read(fresh)
	if diff := cmp.Diff(want.WithSeal(&key, tenanttest.SealKID), got.Claims(), cmp.AllowUnexported(tenant.ID{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	claims := r.issuer.Claims(t, "acme")
	forNotes(&claims)
	unsealed, err := r.issuer.Signer().Sign(claims)
	r.need(err)
	fresh, err = r.gateway.Renew(t.Context(), r.app, string(unsealed))
	r.need(err)
	if r.read(fresh).HasSeal() {
		t.Error("a context that opened no database opens one now")
	}
}

// A minter's clock may be ahead: its contexts are renewed, and say nothing impossible.
func TestClockOfTheMinterIsAhead(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	token := r.token()
	issued := r.now
	r.advance(-3 * time.Second)
	for range 2 {
		fresh, err := r.gateway.Renew(t.Context(), r.app, token)
		r.need(err)
		if c := r.read(fresh); !c.IssueTime().Equal(issued) || !c.FirstIssueTime().Equal(issued) {
			t.Errorf("issued %v, first %v; want %v", c.IssueTime(), c.FirstIssueTime(), issued)
		}
		token = string(fresh)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	thief, err := identity.App(tenanttest.TrustDomain, tenanttest.Cell, "thief")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		prepare func(r *rig)
		token   func(r *rig) string
		caller  func(r *rig) identity.ID
		reason  string
		kind    fault.Kind
	}{
		"a one-request context": {
			token:  func(r *rig) string { return r.token(tenanttest.For([16]byte{1})) },
			reason: fault.ReasonPresenterRefused, kind: fault.PermissionDenied,
		},
		"a context for another app": {
			token: func(r *rig) string {
				return r.token(func(c *tenant.Claims) { c.Audience = tenant.AudienceApp(notesBit + 2) })
			},
			reason: fault.ReasonPresenterRefused, kind: fault.PermissionDenied,
		},
		"an app without a place in the table": {
			caller: func(*rig) identity.ID { return thief },
			reason: fault.ReasonPresenterRefused, kind: fault.PermissionDenied,
		},
		"a forged context": {
			token:  func(r *rig) string { token := r.token(); return token[:len(token)-1] + "x" },
			reason: fault.ReasonContextInvalid, kind: fault.Unauthenticated,
		},
		"a context that has ended": {
			prepare: func(r *rig) { r.advance(tenant.MaxSessionLife) },
			reason:  fault.ReasonContextExpired, kind: fault.Unauthenticated,
		},
		"a suspended tenant": {
			prepare: func(r *rig) { r.state.State, r.state.Generation = tenant.StateSuspended, 2 },
			reason:  fault.ReasonTenantSuspended, kind: fault.PermissionDenied,
		},
		"a tenant that the trust knows as suspended": {
			prepare: func(r *rig) { r.issuer.Suspend(r, "acme") },
			reason:  fault.ReasonTenantSuspended, kind: fault.PermissionDenied,
		},
		"a deleted tenant": {
			prepare: func(r *rig) { r.state.State, r.state.Generation = tenant.StateDeleted, 2 },
			reason:  fault.ReasonTenantDeleted, kind: fault.PermissionDenied,
		},
		"a tenant that was suspended and resumed": {
			prepare: func(r *rig) { r.state.Generation = 3 },
			reason:  fault.ReasonPlacementStale, kind: fault.Aborted,
		},
		"a server that is behind": {
			token: func(r *rig) string {
				token := r.token(func(c *tenant.Claims) { c.Generation = 2 })
				r.issuer.Change(r, "acme", func(s *tenant.TenantState) { s.Generation = 2 })
				return token
			},
			reason: fault.ReasonStarting, kind: fault.Unavailable,
		},
		"a server that is behind a move": {
			token: func(r *rig) string {
				token := r.token(func(c *tenant.Claims) { c.PlacementGeneration = 2 })
				r.issuer.Change(r, "acme", func(s *tenant.TenantState) { s.PlacementGeneration = 2 })
				return token
			},
			reason: fault.ReasonStarting, kind: fault.Unavailable,
		},
		"a server that cannot tell": {
			prepare: func(r *rig) { r.down = fault.New(fault.Unavailable, fault.ReasonDependency, "no database") },
			reason:  fault.ReasonDependency, kind: fault.Unavailable,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			if c.token == nil {
				c.token = func(r *rig) string { return r.token() }
			}
			if c.caller == nil {
				c.caller = func(r *rig) identity.ID { return r.app }
			}
			token, caller := c.token(r), c.caller(r)
			if c.prepare != nil {
				c.prepare(r)
			}
			fresh, err := r.gateway.Renew(t.Context(), caller, token)
			if fresh != nil || fault.ReasonOf(err) != c.reason || fault.KindOf(err) != c.kind {
				t.Errorf("%v (%v), want %s", err, fault.KindOf(err), c.reason)
			}
		})
	}
}

func TestNewWantsItsParts(t *testing.T) {
	t.Parallel()
	if _, err := renew.New(renew.Config{}); err == nil {
		t.Error("a server without parts was made")
	}
	if _, err := newRig(t).gateway.RefreshContext(t.Context(), nil); fault.ReasonOf(err) != fault.ReasonCredentialMissing {
		t.Errorf("without a certificate: %v", err)
	}
}
