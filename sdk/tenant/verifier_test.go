package tenant_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// fakeClock stands still until it is told to go.
type fakeClock struct {
	mu  sync.Mutex
	now time.Time
}

func newFakeClock() *fakeClock {
	return &fakeClock{now: time.Date(2027, 1, 15, 8, 0, 0, 0, time.UTC)}
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newSigner(tb testing.TB) *tenant.Signer {
	tb.Helper()
	s, err := tenant.NewSigner(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)))
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func app(tb testing.TB, name string) identity.ID {
	tb.Helper()
	id, err := identity.App(tenanttest.TrustDomain, tenanttest.Cell, name)
	if err != nil {
		tb.Fatal(err)
	}
	return id
}

func wantReason(tb testing.TB, err error, kind fault.Kind, reason string) {
	tb.Helper()
	if fault.KindOf(err) != kind || fault.ReasonOf(err) != reason {
		tb.Errorf("error = %v (%v), want %v %s", err, fault.KindOf(err), kind, reason)
	}
}

func anybody(cfg *tenant.VerifierConfig) {
	cfg.MayPresent = func(identity.ID) bool { return true }
}

func TestVerifyTellsAllClaims(t *testing.T) {
	t.Parallel()
	issuer := tenanttest.NewIssuer(t, newFakeClock().Now)
	digest := tenant.RequestDigest("/notes.v1.NoteService/DeleteNote", "r1", "notes/1")
	for name, edits := range map[string][]func(*tenant.Claims){
		"session":     {tenanttest.As("ann"), func(c *tenant.Claims) { c.Scopes = 5 }},
		"renewed":     {tenanttest.As("ann"), renewed},
		"transaction": {tenanttest.For(digest)},
	} {
		var said tenant.Claims
		token := issuer.Token(t, "acme", append(edits, func(c *tenant.Claims) { said = *c })...)
		v := issuer.Verifier(t)
		for range 3 { // cold, then remembered
			c, err := v.Verify(token, issuer.Gateway())
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			key := issuer.SealKey()
			want := said.WithSeal(&key, tenanttest.SealKID)
			if diff := cmp.Diff(want, c.Claims(), compareClaims); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
			if c.Token() != token {
				t.Errorf("%s: the token to forward is another one", name)
			}
		}
		wantCached := 1
		if name == "transaction" {
			wantCached = 0
		}
		if got := v.Stats().CachedTokens; got != wantCached {
			t.Errorf("%s: %d tokens cached, want %d", name, got, wantCached)
		}
	}
}

// TestEveryBitFlipIsRefused changes each bit of a token, of which the verifier
// has the good form in its cache.
func TestEveryBitFlipIsRefused(t *testing.T) {
	t.Parallel()
	issuer := tenanttest.NewIssuer(t, newFakeClock().Now)
	v := issuer.Verifier(t, anybody)
	for name, token := range map[string]string{
		"first": issuer.Token(t, "acme", tenanttest.As("ann")), "renewed": issuer.Token(t, "acme", tenanttest.As("ann"), renewed),
	} {
		if _, err := v.Verify(token, issuer.Gateway()); err != nil {
			t.Fatal(err)
		}
		for bit := range len(token) * 8 {
			flipped := []byte(token)
			flipped[bit/8] ^= 1 << (bit % 8)
			peer := app(t, fmt.Sprintf("%s-%d", name, bit/50)) // each has 100 bad tokens
			c, err := v.Verify(string(flipped), peer)
			if err == nil {
				t.Fatalf("%s, bit %d: accepted for tenant %v", name, bit, c.ID())
			}
			if got := fault.ReasonOf(err); got != fault.ReasonContextInvalid {
				t.Errorf("%s, bit %d: reason %s, want %s", name, bit, got, fault.ReasonContextInvalid)
			}
		}
	}
}

// renewed is an edit: the context renews one that was made ten minutes before.
func renewed(c *tenant.Claims) { c.FirstIssueTime = c.IssueTime.Add(-10 * time.Minute) }

// TestChainEndsAfterAnHour takes away the signer's own check.
func TestChainEndsAfterAnHour(t *testing.T) {
	t.Parallel()
	issuer := tenanttest.NewIssuer(t, newFakeClock().Now)
	verify := func(edit func(*tenant.Claims)) (tenant.Context, error) {
		claims := issuer.Claims(t, "acme")
		edit(&claims)
		return issuer.Verifier(t).Verify(tenant.SignUnchecked(issuer.Signer(), claims), issuer.Gateway())
	}
	hour := func(extra time.Duration) func(*tenant.Claims) {
		return func(c *tenant.Claims) { c.FirstIssueTime = c.ExpireTime.Add(-tenant.MaxChainLife - extra) }
	}
	c, err := verify(hour(0))
	if err != nil || c.FirstIssueTime() != c.ExpireTime().Add(-time.Hour) {
		t.Errorf("an hour: %v", err)
	}
	c, err = verify(func(*tenant.Claims) {})
	if err != nil || c.FirstIssueTime() != c.IssueTime() {
		t.Errorf("not renewed: %v", err)
	}
	for name, edit := range map[string]func(*tenant.Claims){
		"an hour and a second":        hour(time.Second),
		"a day":                       hour(24 * time.Hour),
		"a chain that begins later":   func(c *tenant.Claims) { c.FirstIssueTime = c.IssueTime.Add(time.Second) },
		"a chain that begins at once": func(c *tenant.Claims) { c.FirstIssueTime = c.IssueTime },
		"a renewed TRANSACTION": func(c *tenant.Claims) {
			tenanttest.For([16]byte{1})(c)
			c.FirstIssueTime = c.IssueTime.Add(-time.Second)
		},
	} {
		_, err := verify(edit)
		if fault.ReasonOf(err) != fault.ReasonContextInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOtherShapesAreRefused(t *testing.T) {
	t.Parallel()
	issuer := tenanttest.NewIssuer(t, newFakeClock().Now)
	token := issuer.Token(t, "acme")
	shapes := map[string]string{
		"a byte more": token + "\x00", "twice": token + token, "joined": token + "," + token,
		"version 2": "\x02" + token[1:], "text": "eyJhbGciOiJub25lIn0.e30.", "huge": string(make([]byte, 1<<20)),
	}
	for n := 1; n < len(token); n++ {
		shapes[fmt.Sprintf("first %d bytes", n)] = token[:n]
	}
	v := issuer.Verifier(t, anybody)
	peers := 0
	for name, shape := range shapes {
		peers++
		_, err := v.Verify(shape, app(t, fmt.Sprintf("peer-%d", peers)))
		if fault.ReasonOf(err) != fault.ReasonContextInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := v.Verify("", issuer.Gateway())
	wantReason(t, err, fault.Unauthenticated, fault.ReasonContextMissing)
}

func TestOneToken(t *testing.T) {
	t.Parallel()
	_, err := tenant.OneToken(nil)
	wantReason(t, err, fault.Unauthenticated, fault.ReasonContextMissing)
	_, err = tenant.OneToken([]string{"a", "a"})
	wantReason(t, err, fault.Unauthenticated, fault.ReasonContextInvalid)
	if got, err := tenant.OneToken([]string{"a"}); got != "a" || err != nil {
		t.Errorf("one value = %q, %v", got, err)
	}
}

// certifiedKey returns an issuer whose trust also holds the key of newSigner.
func certifiedKey(t *testing.T, edit func(*tenant.KeyCertificate)) (*tenanttest.Issuer, ed25519.PrivateKey) {
	t.Helper()
	issuer := tenanttest.NewIssuer(t, newFakeClock().Now)
	public, key := rootKey(7)
	cert := issuer.Certificate()
	cert.PublicKey, cert.KeyID = public, tenant.KeyID{}
	edit(&cert)
	mustSet(t, issuer.Trust().SetKey(cert))
	return issuer, key
}

// TestFrameIsExact signs frames that the signer would never write.
func TestFrameIsExact(t *testing.T) {
	t.Parallel()
	issuer, key := certifiedKey(t, func(*tenant.KeyCertificate) {})
	good, err := newSigner(t).Sign(issuer.Claims(t, "acme"))
	if err != nil {
		t.Fatal(err)
	}
	frame := good[:len(good)-ed25519.SignatureSize]
	const prefix = "rowhouse-tenant/v1\x00"
	for _, c := range []struct {
		name, prefix string
		edit         func(frame []byte) []byte
		ok           bool
	}{
		{"as it was", prefix, func(f []byte) []byte { return f }, true},
		{"no prefix", "", func(f []byte) []byte { return f }, false},
		{"prefix of certificates", "rowhouse-key/v1\x00", func(f []byte) []byte { return f }, false},
		{"version 0", prefix, func(f []byte) []byte { f[0] = 0; return f }, false},
		{"version 2", prefix, func(f []byte) []byte { f[0] = 2; return f }, false},
		{"length one less", prefix, func(f []byte) []byte { f[10]--; return f }, false},
		{"length one more", prefix, func(f []byte) []byte { f[10]++; return f }, false},
		{"a byte behind the payload", prefix, func(f []byte) []byte { return append(f, 0) }, false},
	} {
		f := c.edit(bytes.Clone(frame))
		token := append(bytes.Clone(f), ed25519.Sign(key, append([]byte(c.prefix), f...))...)
		_, err := issuer.Verifier(t).Verify(string(token), issuer.Gateway())
		if c.ok != (err == nil) || !c.ok && fault.ReasonOf(err) != fault.ReasonContextInvalid {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestCertificateBoundsTokens narrows a key in each dimension.
func TestCertificateBoundsTokens(t *testing.T) {
	t.Parallel()
	for name, narrow := range map[string]func(*tenant.KeyCertificate){
		"":         func(*tenant.KeyCertificate) {},
		"minter":   func(c *tenant.KeyCertificate) { c.Minter = "tenancy" },
		"cell":     func(c *tenant.KeyCertificate) { c.Cells = []string{"cell-2", "cell-3"} },
		"audience": func(c *tenant.KeyCertificate) { c.Audience &^= tenant.AudienceApp(17) },
		"class":    func(c *tenant.KeyCertificate) { c.Classes = tenant.ClassesOf(tenant.ClassTransaction) },
	} {
		issuer, _ := certifiedKey(t, narrow)
		token, err := newSigner(t).Sign(issuer.Claims(t, "acme"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = issuer.Verifier(t).Verify(string(token), issuer.Gateway())
		if name == "" {
			mustSet(t, err)
			continue
		}
		if fault.ReasonOf(err) != fault.ReasonPresenterRefused {
			t.Errorf("key for another %s: %v", name, err)
		}
	}
}

// faulty is one thing that is wrong with a call. Listed in the order in which
// the verifier must notice them.
type faulty struct {
	name   string
	kind   fault.Kind
	reason string
	claims func(*tenant.Claims)
	config func(*tenant.VerifierConfig)
	state  func(*tenant.TenantState)
}

func verifierFaults() []faulty {
	return []faulty{
		{name: "certificate does not cover the minter", kind: fault.PermissionDenied,
			reason: fault.ReasonPresenterRefused, claims: func(c *tenant.Claims) { c.Minter = "tenancy" }},
		{name: "certificate does not cover the cell", kind: fault.PermissionDenied,
			reason: fault.ReasonPresenterRefused, claims: func(c *tenant.Claims) { c.Cell = "cell-2" }},
		{name: "issued in the future", kind: fault.Unauthenticated, reason: fault.ReasonContextExpired,
			claims: func(c *tenant.Claims) { c.IssueTime = c.IssueTime.Add(6 * time.Second) }},
		{name: "expired", kind: fault.Unauthenticated, reason: fault.ReasonContextExpired,
			claims: func(c *tenant.Claims) {
				c.ExpireTime = c.IssueTime
				c.IssueTime = c.IssueTime.Add(-tenant.MaxSessionLife)
			}},
		{name: "another audience", kind: fault.PermissionDenied, reason: fault.ReasonPresenterRefused,
			claims: func(c *tenant.Claims) { c.Audience = tenant.AudienceTenancy | tenant.AudienceApp(17) }},
		{name: "a cell that is not served", kind: fault.PermissionDenied, reason: fault.ReasonPresenterRefused,
			config: func(cfg *tenant.VerifierConfig) { cfg.Cells = []string{"cell-3"} }},
		{name: "a peer that may not present", kind: fault.PermissionDenied, reason: fault.ReasonPresenterRefused,
			config: func(cfg *tenant.VerifierConfig) { cfg.MayPresent = func(identity.ID) bool { return false } }},
		{name: "deleted", kind: fault.PermissionDenied, reason: fault.ReasonTenantDeleted,
			state: func(s *tenant.TenantState) { s.State, s.Generation = tenant.StateDeleted, s.Generation+1 }},
		{name: "suspended", kind: fault.PermissionDenied, reason: fault.ReasonTenantSuspended,
			state: func(s *tenant.TenantState) { s.State = max(s.State, tenant.StateSuspended) }},
		{name: "older generation", kind: fault.Aborted, reason: fault.ReasonPlacementStale,
			state: func(s *tenant.TenantState) { s.Generation++ }},
		{name: "older placement", kind: fault.Aborted, reason: fault.ReasonPlacementStale,
			state: func(s *tenant.TenantState) { s.PlacementGeneration++ }},
		{name: "id of another tenant", kind: fault.Unauthenticated, reason: fault.ReasonContextInvalid,
			claims: func(c *tenant.Claims) { c.TenantID, _ = tenant.ParseID("globex") }},
	}
}

// present makes a call with the given faults and returns the verifier's answers
// to a token that it sees for the first time and then again.
func present(t *testing.T, faults ...faulty) (first, again error) {
	t.Helper()
	issuer := tenanttest.NewIssuer(t, newFakeClock().Now)
	var edits []func(*tenant.Claims)
	var configs []func(*tenant.VerifierConfig)
	for _, f := range faults {
		if f.claims != nil {
			edits = append(edits, f.claims)
		}
		if f.config != nil {
			configs = append(configs, f.config)
		}
	}
	token := issuer.Token(t, "acme", edits...)
	for _, f := range faults {
		if f.state != nil {
			issuer.Change(t, "acme", f.state)
		}
	}
	v := issuer.Verifier(t, configs...)
	_, first = v.Verify(token, issuer.Gateway())
	_, again = v.Verify(token, issuer.Gateway())
	return first, again
}

// TestReasonsAndOrder makes calls with each fault and with each pair of faults:
// the earlier one must be the answer.
func TestReasonsAndOrder(t *testing.T) {
	t.Parallel()
	faults := verifierFaults()
	for i, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			first, again := present(t, f)
			wantReason(t, first, f.kind, f.reason)
			wantReason(t, again, f.kind, f.reason)
			for _, later := range faults[i+1:] {
				if f.name == "issued in the future" && later.name == "expired" {
					continue // one token cannot be both
				}
				first, again := present(t, f, later)
				wantReason(t, first, f.kind, f.reason)
				wantReason(t, again, f.kind, f.reason)
			}
		})
	}
}

// TestForgeriesAreSpokenOfAlike compares what callers are told, not the cause.
func TestForgeriesAreSpokenOfAlike(t *testing.T) {
	t.Parallel()
	issuer, stranger := tenanttest.NewIssuer(t, nil), tenanttest.NewIssuer(t, nil)
	token := issuer.Token(t, "acme")
	v := issuer.Verifier(t)
	var told []string
	for _, forged := range []string{
		token[:80], stranger.Token(t, "acme"), token[:len(token)-1] + string(token[len(token)-1]^1), "x",
	} {
		_, err := v.Verify(forged, issuer.Gateway())
		f, ok := fault.As(err)
		if !ok || f.Unwrap() == nil {
			t.Fatalf("error = %v, want a fault with a cause for the log", err)
		}
		told = append(told, f.Kind.String()+f.Reason+f.Message+fmt.Sprint(f.Metadata))
	}
	for _, s := range told[1:] {
		if s != told[0] {
			t.Errorf("forgeries are told apart: %q and %q", told[0], s)
		}
	}
}

func TestLifeOfAToken(t *testing.T) {
	t.Parallel()
	clock := newFakeClock()
	issuer := tenanttest.NewIssuer(t, clock.Now)
	v := issuer.Verifier(t)
	token := issuer.Token(t, "acme")
	transaction := issuer.Token(t, "acme", tenanttest.For([16]byte{1}))
	for second := range 50 {
		for range 2 {
			_, err := v.Verify(token, issuer.Gateway())
			if alive := second < 45; (err == nil) != alive {
				t.Errorf("session after %d s: %v", second, err)
			}
		}
		_, err := v.Verify(transaction, issuer.Gateway())
		if alive := second < 10; (err == nil) != alive {
			t.Errorf("transaction after %d s: %v", second, err)
		}
		clock.Advance(time.Second)
		issuer.Trust().Bookmark(clock.Now())
	}
	early := issuer.Token(t, "acme", func(c *tenant.Claims) { c.IssueTime = c.IssueTime.Add(5 * time.Second) })
	if _, err := v.Verify(early, issuer.Gateway()); err != nil {
		t.Errorf("a minter 5 s ahead of us: %v", err)
	}
}

// TestLongLivedTokensAreRefused takes away the signer's own check.
func TestLongLivedTokensAreRefused(t *testing.T) {
	t.Parallel()
	clock := newFakeClock()
	issuer := tenanttest.NewIssuer(t, clock.Now)
	for name, edit := range map[string]func(*tenant.Claims){
		"session of 46 s": func(c *tenant.Claims) { c.ExpireTime = c.IssueTime.Add(46 * time.Second) },
		"transaction of 11 s": func(c *tenant.Claims) {
			tenanttest.For([16]byte{1})(c)
			c.ExpireTime = c.IssueTime.Add(11 * time.Second)
		},
		"life of 0 s": func(c *tenant.Claims) { c.IssueTime = c.IssueTime.Add(time.Second); c.ExpireTime = c.IssueTime },
	} {
		claims := issuer.Claims(t, "acme")
		edit(&claims)
		token := tenant.SignUnchecked(issuer.Signer(), claims)
		_, err := issuer.Verifier(t).Verify(token, issuer.Gateway())
		if fault.ReasonOf(err) != fault.ReasonContextExpired {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKeyLife(t *testing.T) {
	t.Parallel()
	clock := newFakeClock()
	issuer := tenanttest.NewIssuer(t, clock.Now)
	v := issuer.Verifier(t)
	verify := func() error {
		issuer.Trust().Bookmark(clock.Now())
		_, err := v.Verify(issuer.Token(t, "acme"), issuer.Gateway())
		return err
	}
	clock.Advance(-6 * time.Second)
	wantReason(t, verify(), fault.Unauthenticated, fault.ReasonContextInvalid)
	clock.Advance(time.Second)
	if err := verify(); err != nil {
		t.Errorf("5 s before the key's time: %v", err)
	}
	clock.Advance(tenant.MaxKeyLife + 4*time.Second)
	token := issuer.Token(t, "acme")
	if err := verify(); err != nil {
		t.Errorf("in the key's last second: %v", err)
	}
	clock.Advance(time.Second)
	_, err := v.Verify(token, issuer.Gateway())
	wantReason(t, err, fault.Unauthenticated, fault.ReasonContextInvalid)
}

func TestRevokedKeyAndItsReturn(t *testing.T) {
	t.Parallel()
	issuer := tenanttest.NewIssuer(t, newFakeClock().Now)
	v := issuer.Verifier(t)
	token := issuer.Token(t, "acme")
	verify := func() error {
		_, err := v.Verify(token, issuer.Gateway())
		return err
	}
	if err := errors.Join(verify(), verify()); err != nil {
		t.Fatal(err)
	}
	issuer.Trust().RevokeKey(issuer.Certificate().KeyID)
	wantReason(t, verify(), fault.Unauthenticated, fault.ReasonContextInvalid)
	if got := v.Stats().CachedTokens; got != 0 {
		t.Errorf("%d tokens of a revoked key are cached", got)
	}
	if err := issuer.Trust().SetKey(issuer.Certificate()); err != nil {
		t.Fatal(err)
	}
	if err := verify(); err != nil {
		t.Errorf("a repaired key must work at once: %v", err)
	}
	narrow := issuer.Certificate()
	narrow.Cells = []string{"cell-2"}
	if err := issuer.Trust().SetKey(narrow); err != nil {
		t.Fatal(err)
	}
	wantReason(t, verify(), fault.PermissionDenied, fault.ReasonPresenterRefused)
}

func TestRemovedTenantIsNotServedFromCache(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := tenanttest.NewIssuer(t, nil)
		v := issuer.Verifier(t)
		token := issuer.Token(t, "acme")
		for range 3 {
			if _, err := v.Verify(token, issuer.Gateway()); err != nil {
				t.Fatal(err)
			}
		}
		state := issuer.Tenant(t, "acme")
		issuer.Trust().RemoveTenant(state.UID)
		for range 2 {
			_, err := v.Verify(token, issuer.Gateway())
			wantReason(t, err, fault.Unavailable, fault.ReasonStarting)
		}
		if err := issuer.Trust().SetTenant(state); err != nil {
			t.Fatal(err)
		}
		if _, err := v.Verify(token, issuer.Gateway()); err != nil {
			t.Errorf("tenant is back: %v", err)
		}
	})
}

func TestSuspensionIsSeenByTheNextCall(t *testing.T) {
	t.Parallel()
	issuer := tenanttest.NewIssuer(t, newFakeClock().Now)
	v := issuer.Verifier(t)
	token := issuer.Token(t, "acme")
	for range 3 {
		if _, err := v.Verify(token, issuer.Gateway()); err != nil {
			t.Fatal(err)
		}
	}
	issuer.Suspend(t, "acme")
	_, err := v.Verify(token, issuer.Gateway())
	wantReason(t, err, fault.PermissionDenied, fault.ReasonTenantSuspended)

	fresh := issuer.Token(t, "acme")
	for range 2 {
		if _, err := v.VerifySuspended(fresh, issuer.Gateway()); err != nil {
			t.Errorf("a method that serves the suspended: %v", err)
		}
		_, err = v.Verify(fresh, issuer.Gateway())
		wantReason(t, err, fault.PermissionDenied, fault.ReasonTenantSuspended)
	}
	issuer.Resume(t, "acme")
	_, err = v.Verify(fresh, issuer.Gateway())
	wantReason(t, err, fault.Aborted, fault.ReasonPlacementStale)
	if _, err := v.Verify(issuer.Token(t, "acme"), issuer.Gateway()); err != nil {
		t.Errorf("after the resume: %v", err)
	}
}

func TestPresenterIsAskedOnEveryCall(t *testing.T) {
	t.Parallel()
	issuer := tenanttest.NewIssuer(t, newFakeClock().Now)
	allowed := true
	v := issuer.Verifier(t, func(cfg *tenant.VerifierConfig) {
		cfg.MayPresent = func(identity.ID) bool { return allowed }
	})
	token := issuer.Token(t, "acme")
	for range 3 {
		if _, err := v.Verify(token, issuer.Gateway()); err != nil {
			t.Fatal(err)
		}
	}
	_, err := v.Verify(token, identity.ID{})
	wantReason(t, err, fault.PermissionDenied, fault.ReasonPresenterRefused)
	allowed = false
	_, err = v.Verify(token, issuer.Gateway())
	wantReason(t, err, fault.PermissionDenied, fault.ReasonPresenterRefused)
}

func TestPresentersKnowsItsListOnly(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 3, 20} {
		var ids []identity.ID
		for i := range n {
			ids = append(ids, app(t, fmt.Sprintf("app-%d", i)))
		}
		may := tenant.Presenters(ids...)
		for _, id := range ids {
			if !may(id) {
				t.Errorf("of %d: %v is refused", n, id)
			}
		}
		if may(app(t, "other")) || may(identity.ID{}) {
			t.Errorf("of %d: a stranger is let in", n)
		}
	}
}

func TestTokenAheadWaitsForTheChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := tenanttest.NewIssuer(t, nil)
		v := issuer.Verifier(t)
		state := issuer.Tenant(t, "acme")
		ahead := issuer.Token(t, "acme", func(c *tenant.Claims) { c.Generation = 2 })

		start := time.Now()
		_, err := v.Verify(ahead, issuer.Gateway())
		wantReason(t, err, fault.Unavailable, fault.ReasonStarting)
		if waited := time.Since(start); waited != 250*time.Millisecond {
			t.Errorf("waited %v, want 250ms", waited)
		}

		unknown := issuer.Token(t, "globex")
		late := issuer.Tenant(t, "globex")
		issuer.Trust().RemoveTenant(late.UID)
		results := make(chan error, 2)
		for _, token := range []string{ahead, unknown} {
			go func() {
				_, err := v.Verify(token, issuer.Gateway())
				results <- err
			}()
		}
		synctest.Wait() // both wait for news
		state.Generation = 2
		start = time.Now()
		for _, s := range []tenant.TenantState{state, late} {
			if err := issuer.Trust().SetTenant(s); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if err := <-results; err != nil {
				t.Errorf("after the news: %v", err)
			}
		}
		if waited := time.Since(start); waited != 0 {
			t.Errorf("the news were not told at once but after %v", waited)
		}
	})
}

func TestLossOfTheControlPlane(t *testing.T) {
	t.Parallel()
	clock := newFakeClock()
	issuer := tenanttest.NewIssuer(t, clock.Now)
	v := issuer.Verifier(t)
	issuer.Change(t, "strict", func(s *tenant.TenantState) { s.Loss = tenant.LossDenyAfter(30 * time.Second) })
	verify := func(id string, edits ...func(*tenant.Claims)) error {
		_, err := v.Verify(issuer.Token(t, id, edits...), issuer.Gateway())
		return err
	}
	transaction := tenanttest.For([16]byte{1})
	future := func(c *tenant.Claims) { c.Generation++ }
	for _, step := range []struct {
		silence                        time.Duration
		session, strict, change, ahead string
	}{
		{0, "", "", "", fault.ReasonStarting},
		{14 * time.Second, "", "", "", fault.ReasonStarting},
		{15 * time.Second, "", "", fault.ReasonControlPlaneLost, ""},
		{29 * time.Second, "", "", fault.ReasonControlPlaneLost, ""},
		{30 * time.Second, "", fault.ReasonControlPlaneLost, fault.ReasonControlPlaneLost, ""},
		{36 * time.Hour, "", fault.ReasonControlPlaneLost, fault.ReasonControlPlaneLost, ""},
	} {
		clock.Advance(step.silence - v.Stats().Silence)
		got := []string{
			fault.ReasonOf(verify("acme")), fault.ReasonOf(verify("strict")),
			fault.ReasonOf(verify("acme", transaction)), fault.ReasonOf(verify("acme", future)),
		}
		want := []string{step.session, step.strict, step.change, step.ahead}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("after %v of silence (-want +got):\n%s", step.silence, diff)
		}
	}
	if got := v.Stats().Unproven; got != 4 {
		t.Errorf("%d unproven contexts counted, want 4", got)
	}
	issuer.Suspend(t, "acme") // known before the silence, or from disk
	if got := fault.ReasonOf(verify("acme")); got != fault.ReasonTenantSuspended {
		t.Errorf("suspended in the silence: %q", got)
	}
	issuer.Trust().Bookmark(clock.Now())
	if err := errors.Join(verify("strict"), verify("strict", transaction)); err != nil {
		t.Errorf("after the return: %v", err)
	}
}

func TestSilenceEmptiesTheCache(t *testing.T) {
	t.Parallel()
	clock := newFakeClock()
	issuer := tenanttest.NewIssuer(t, clock.Now)
	v := issuer.Verifier(t)
	for _, id := range []string{"acme", "globex", "initech"} {
		if _, err := v.Verify(issuer.Token(t, id), issuer.Gateway()); err != nil {
			t.Fatal(err)
		}
	}
	clock.Advance(15 * time.Second)
	if _, err := v.Verify(issuer.Token(t, "acme"), issuer.Gateway()); err != nil {
		t.Fatal(err)
	}
	if got := v.Stats().CachedTokens; got != 1 {
		t.Errorf("%d tokens cached after 15 s of silence, want the new one only", got)
	}
}

func TestNothingVerifiesBeforeTheTrustIsLoaded(t *testing.T) {
	t.Parallel()
	issuer := tenanttest.NewIssuer(t, nil)
	empty := tenant.NewTrust(time.Now)
	v := issuer.Verifier(t, func(cfg *tenant.VerifierConfig) { cfg.Trust = empty })
	_, err := v.Verify(issuer.Token(t, "acme"), issuer.Gateway())
	wantReason(t, err, fault.Unavailable, fault.ReasonStarting)

	// A disk copy without a bookmark serves, as after a loss.
	keys, tenants := []tenant.KeyCertificate{issuer.Certificate()}, []tenant.TenantState{issuer.Tenant(t, "acme")}
	if err := empty.Replace(keys, tenants); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(issuer.Token(t, "acme"), issuer.Gateway()); err != nil {
		t.Errorf("from disk: %v", err)
	}
	_, err = v.Verify(issuer.Token(t, "acme", tenanttest.For([16]byte{1})), issuer.Gateway())
	wantReason(t, err, fault.Unavailable, fault.ReasonControlPlaneLost)
}

func TestBadTokenBudget(t *testing.T) {
	t.Parallel()
	clock := newFakeClock()
	issuer := tenanttest.NewIssuer(t, clock.Now)
	v := issuer.Verifier(t, anybody)
	warm := issuer.Token(t, "acme")
	if _, err := v.Verify(warm, issuer.Gateway()); err != nil {
		t.Fatal(err)
	}
	bad := tenanttest.NewIssuer(t, clock.Now).Token(t, "acme")
	attacker := app(t, "attacker")
	flood := func() (verified int) {
		for range 300 {
			if _, err := v.Verify(bad, attacker); fault.ReasonOf(err) != fault.ReasonOverloaded {
				verified++
			}
		}
		return verified
	}
	if got := flood(); got != 100 {
		t.Errorf("%d bad tokens verified at once, want 100", got)
	}
	clock.Advance(time.Second)
	if got := flood(); got != 50 {
		t.Errorf("%d bad tokens verified a second later, want 50", got)
	}
	_, err := v.Verify(issuer.Token(t, "globex"), attacker)
	wantReason(t, err, fault.ResourceExhausted, fault.ReasonOverloaded)
	if _, err := v.Verify(warm, attacker); err != nil {
		t.Errorf("a cached token costs no budget: %v", err)
	}
	if _, err := v.Verify(issuer.Token(t, "globex"), issuer.Gateway()); err != nil {
		t.Errorf("another peer pays for the attacker: %v", err)
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	issuer := tenanttest.NewIssuer(t, newFakeClock().Now)
	v := issuer.Verifier(t)
	c := issuer.Context(t, "acme")
	ch := v.Watch(c)
	issuer.Suspend(t, "globex")
	issuer.Tenant(t, "acme") // set again, unchanged
	issuer.Change(t, "acme", func(s *tenant.TenantState) { s.Loss = tenant.LossDenyAfter(time.Minute) })
	if ended(ch) {
		t.Error("a stream was cut although nothing happened to its tenant")
	}
	issuer.Suspend(t, "acme")
	if !ended(ch) {
		t.Error("a suspended tenant's stream lives on")
	}
	if !ended(v.Watch(c)) {
		t.Error("a change before Watch goes unnoticed")
	}
	issuer.Resume(t, "acme")
	moved := v.Watch(issuer.Context(t, "acme"))
	issuer.Change(t, "acme", func(s *tenant.TenantState) { s.PlacementGeneration++ })
	if !ended(moved) {
		t.Error("a moved tenant's stream lives on")
	}
	removed := v.Watch(issuer.Context(t, "acme"))
	issuer.Trust().RemoveTenant(c.UID())
	if !ended(removed) {
		t.Error("a removed tenant's stream lives on")
	}
}

func ended(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// What is known of a tenant that was removed is what is known since it came back.
func TestWatchFindsATenantThatCameBack(t *testing.T) {
	t.Parallel()
	issuer := tenanttest.NewIssuer(t, nil)
	v, c, state := issuer.Verifier(t), issuer.Context(t, "acme"), issuer.Tenant(t, "acme")
	issuer.Trust().RemoveTenant(state.UID)
	if !ended(v.Watch(c)) {
		t.Error("the tenant is gone and the watch goes on")
	}
	if err := issuer.Trust().SetTenant(state); err != nil {
		t.Fatal(err)
	}
	back := v.Watch(c)
	if ended(back) {
		t.Error("the tenant is back as it was and the watch has ended")
	}
	issuer.Suspend(t, "acme")
	if !ended(back) {
		t.Error("a suspension is not told")
	}
}

func TestRedeem(t *testing.T) {
	t.Parallel()
	issuer := tenanttest.NewIssuer(t, newFakeClock().Now)
	digest := tenant.RequestDigest("/m", "r1", "notes/1")
	c := issuer.Context(t, "acme", tenanttest.For(digest))
	spent := map[[16]byte]time.Time{}
	insert := func(nonce [16]byte, until time.Time) (bool, error) {
		_, known := spent[nonce]
		spent[nonce] = until
		return !known, nil
	}
	for _, other := range [][16]byte{
		tenant.RequestDigest("/m", "r1", "notes/2"), tenant.RequestDigest("/m", "r2", "notes/1"),
		tenant.RequestDigest("/n", "r1", "notes/1"), tenant.RequestDigest("/m", "r1notes/1", ""),
	} {
		wantReason(t, c.Redeem(other, insert), fault.PermissionDenied, fault.ReasonContextReplayed)
	}
	if len(spent) != 0 {
		t.Error("a refused request spent the nonce")
	}
	if err := c.Redeem(digest, insert); err != nil {
		t.Errorf("first use: %v", err)
	}
	wantReason(t, c.Redeem(digest, insert), fault.PermissionDenied, fault.ReasonContextReplayed)
	if until := spent[c.Claims().Nonce]; until.Before(c.ExpireTime()) {
		t.Errorf("the nonce is forgotten at %v, before the context ends", until)
	}
	broken := errors.New("database is gone")
	err := c.Redeem(digest, func([16]byte, time.Time) (bool, error) { return false, broken })
	if !errors.Is(err, broken) {
		t.Errorf("insert failed: %v", err)
	}
	session := issuer.Context(t, "acme")
	wantReason(t, session.Redeem([16]byte{}, insert), fault.Unauthenticated, fault.ReasonContextInvalid)
}

func TestNewVerifierWantsItsParts(t *testing.T) {
	t.Parallel()
	good := tenant.VerifierConfig{
		Trust: tenant.NewTrust(time.Now), Audience: tenant.AudienceQuota, MayPresent: tenant.Presenters(),
	}
	if _, err := tenant.NewVerifier(good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*tenant.VerifierConfig){
		"no trust":        func(c *tenant.VerifierConfig) { c.Trust = nil },
		"no audience":     func(c *tenant.VerifierConfig) { c.Audience = 0 },
		"two audiences":   func(c *tenant.VerifierConfig) { c.Audience = 3 },
		"no presenters":   func(c *tenant.VerifierConfig) { c.MayPresent = nil },
		"not a known app": func(c *tenant.VerifierConfig) { c.Audience = tenant.AudienceApp(64) },
	} {
		cfg := good
		spoil(&cfg)
		if _, err := tenant.NewVerifier(cfg); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
