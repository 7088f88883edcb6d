package tenant_test

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// world is a trust in which things happen, a verifier that remembers and the
// tokens that were made so far.
type world struct {
	clock  *fakeClock
	issuer *tenanttest.Issuer
	warm   *tenant.Verifier
	fed    bool
	tokens []string
	allow  map[identity.ID]bool
}

var worldTenants = []string{"acme", "globex", "initech"}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{clock: newFakeClock(), fed: true, allow: map[identity.ID]bool{}}
	w.issuer = tenanttest.NewIssuer(t, w.clock.Now)
	w.allow[w.issuer.Gateway()] = true
	w.warm = w.issuer.Verifier(t, w.config)
	return w
}

func (w *world) config(cfg *tenant.VerifierConfig) {
	cfg.MayPresent = func(id identity.ID) bool { return w.allow[id] }
}

// step lets one thing happen.
func (w *world) step(t *testing.T, r *rapid.T) {
	id := rapid.SampledFrom(worldTenants).Draw(r, "tenant")
	steps := map[string]func(){
		"advance": func() { w.clock.Advance(time.Duration(rapid.IntRange(1, 20_000).Draw(r, "ms")) * time.Millisecond) },
		"suspend": func() { w.issuer.Suspend(t, id) },
		"resume":  func() { w.issuer.Resume(t, id) },
		"state without generation": func() {
			w.issuer.Change(t, id, func(s *tenant.TenantState) {
				s.State = tenant.State(rapid.IntRange(1, 3).Draw(r, "state"))
			})
		},
		"raise": func() { w.issuer.Change(t, id, func(s *tenant.TenantState) { s.Generation++ }) },
		"move":  func() { w.issuer.Change(t, id, func(s *tenant.TenantState) { s.PlacementGeneration++ }) },
		"loss policy": func() {
			w.issuer.Change(t, id, func(s *tenant.TenantState) { s.Loss = tenant.LossDenyAfter(30 * time.Second) })
		},
		"remove":  func() { w.issuer.Trust().RemoveTenant(tenanttest.UID(id)) },
		"revoke":  func() { w.issuer.Trust().RevokeKey(w.issuer.Certificate().KeyID) },
		"certify": func() { w.certify(t, func(*tenant.KeyCertificate) {}) },
		"certify narrowly": func() {
			w.certify(t, func(c *tenant.KeyCertificate) { c.Audience = tenant.AudienceConfig })
		},
		"resync":        func() { w.resync(t, rapid.IntRange(0, len(worldTenants)).Draw(r, "kept")) },
		"drop stream":   func() { w.fed = false },
		"mend stream":   func() { w.fed = true },
		"peer policy":   func() { w.allow[w.issuer.Gateway()] = rapid.Bool().Draw(r, "allowed") },
		"make a token":  func() { w.tokens = append(w.tokens, w.token(t, r, id)) },
		"make a token.": func() { w.tokens = append(w.tokens, w.token(t, r, id)) },
	}
	steps[rapid.SampledFrom(sortedKeys(steps)).Draw(r, "step")]()
	if w.fed {
		w.issuer.Trust().Bookmark(w.clock.Now())
	}
}

func (w *world) certify(t *testing.T, edit func(*tenant.KeyCertificate)) {
	t.Helper()
	cert := w.issuer.Certificate()
	edit(&cert)
	if err := w.issuer.Trust().SetKey(cert); err != nil {
		t.Fatal(err)
	}
}

func (w *world) resync(t *testing.T, kept int) {
	t.Helper()
	var states []tenant.TenantState
	for _, id := range worldTenants[:kept] {
		states = append(states, w.issuer.Tenant(t, id))
	}
	if err := w.issuer.Trust().Replace([]tenant.KeyCertificate{w.issuer.Certificate()}, states); err != nil {
		t.Fatal(err)
	}
}

func (w *world) token(t *testing.T, r *rapid.T, id string) string {
	t.Helper()
	edits := []func(*tenant.Claims){func(*tenant.Claims) {}, func(c *tenant.Claims) { c.Generation++ },
		tenanttest.As("ann"), tenanttest.For([16]byte{1}), func(c *tenant.Claims) { c.Audience = tenant.AudienceApp(17) }}
	return w.issuer.Token(t, id, rapid.SampledFrom(edits).Draw(r, "claims"))
}

// answer is what a verifier says to a token, in comparable form.
func answer(v *tenant.Verifier, token string, peer identity.ID) (string, tenant.Claims) {
	c, err := v.Verify(token, peer)
	if err != nil {
		return fmt.Sprintf("%v %s", fault.KindOf(err), fault.ReasonOf(err)), tenant.Claims{}
	}
	return "accepted", c.Claims()
}

// TestCachedEqualsUncached lets things happen at random and asks a verifier with
// a memory and one without, after each, about all tokens there ever were.
func TestCachedEqualsUncached(t *testing.T) {
	t.Parallel()
	// The bubble makes waiting for a change that never comes cost nothing.
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(struct{ rapid.TB }{t}, func(r *rapid.T) { // without Deadline, which a bubble lacks
			w := newWorld(t)
			peers := []identity.ID{w.issuer.Gateway(), app(t, "stranger")}
			for range rapid.IntRange(1, 40).Draw(r, "steps") {
				w.step(t, r)
				for i, token := range w.tokens {
					peer := rapid.SampledFrom(peers).Draw(r, "peer")
					got, claims := answer(w.warm, token, peer)
					if got == "RESOURCE_EXHAUSTED OVERLOADED" {
						continue // the budget is the warm verifier's only honest memory
					}
					want, wantClaims := answer(w.issuer.Verifier(t, w.config), token, peer)
					if got != want || !cmp.Equal(wantClaims, claims, compareClaims) {
						t.Fatalf("token %d: with cache %s, without %s", i, got, want)
					}
				}
			}
		})
	})
}

// TestTwoChangesBehindAWarmToken is the shortest form of the above, exhaustive over the
// order of two changes behind a token that is warm.
func TestTwoChangesBehindAWarmToken(t *testing.T) {
	t.Parallel()
	changes := map[string]func(*testing.T, *world){
		"suspend": func(t *testing.T, w *world) { w.issuer.Suspend(t, "acme") },
		"resume":  func(t *testing.T, w *world) { w.issuer.Resume(t, "acme") },
		"move": func(t *testing.T, w *world) {
			w.issuer.Change(t, "acme", func(s *tenant.TenantState) { s.PlacementGeneration++ })
		},
		"delete": func(t *testing.T, w *world) {
			w.issuer.Change(t, "acme", func(s *tenant.TenantState) { s.State = tenant.StateDeleted })
		},
		"remove":  func(_ *testing.T, w *world) { w.issuer.Trust().RemoveTenant(tenanttest.UID("acme")) },
		"revoke":  func(_ *testing.T, w *world) { w.issuer.Trust().RevokeKey(w.issuer.Certificate().KeyID) },
		"certify": func(t *testing.T, w *world) { w.certify(t, func(*tenant.KeyCertificate) {}) },
		"expire":  func(_ *testing.T, w *world) { w.clock.Advance(45 * time.Second) },
		"silence": func(_ *testing.T, w *world) { w.clock.Advance(16 * time.Second) },
		"forbid":  func(_ *testing.T, w *world) { w.allow[w.issuer.Gateway()] = false },
	}
	for _, one := range sortedKeys(changes) {
		for _, two := range sortedKeys(changes) {
			t.Run(one+" "+two, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					token := w.issuer.Token(t, "acme")
					for range 3 {
						if got, _ := answer(w.warm, token, w.issuer.Gateway()); got != "accepted" {
							t.Fatal(got)
						}
					}
					for _, name := range []string{one, two} {
						changes[name](t, w)
						got, _ := answer(w.warm, token, w.issuer.Gateway())
						want, _ := answer(w.issuer.Verifier(t, w.config), token, w.issuer.Gateway())
						if got != want {
							t.Errorf("after %s: with cache %s, without %s", name, got, want)
						}
					}
				})
			})
		}
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	if got := tenant.CacheBytes(); got > 16<<20 {
		t.Errorf("a full cache holds %d bytes, the bound is 16 MiB", got)
	}
	issuer := tenanttest.NewIssuer(t, newFakeClock().Now)
	v := issuer.Verifier(t)
	const n = 200
	for i := range n {
		token := issuer.Token(t, "acme", tenanttest.As(fmt.Sprint("user-", i)))
		c, err := v.Verify(token, issuer.Gateway())
		if err != nil {
			t.Fatal(err)
		}
		if unsafe.StringData(c.Token()) == unsafe.StringData(token) {
			t.Fatal("the cache keeps the caller's buffer, which may be large")
		}
	}
	if got := v.Stats().CachedTokens; got != n {
		t.Errorf("%d of %d tokens are remembered", got, n)
	}
}

func TestFullSetGivesUpTheOldest(t *testing.T) {
	t.Parallel()
	issuer := tenanttest.NewIssuer(t, newFakeClock().Now)
	c := issuer.Context(t, "acme")
	left := tenant.CrowdedSet(c, []int64{50, 20, 40, 30, 60}, 10)
	if diff := cmp.Diff([]int64{30, 40, 50, 60}, left); diff != "" {
		t.Errorf("expiries left in a set (-want +got):\n%s", diff)
	}
	left = tenant.CrowdedSet(c, []int64{50, 20, 40, 30, 60}, 40)
	if diff := cmp.Diff([]int64{50, 60}, left); diff != "" {
		t.Errorf("with expired ones (-want +got):\n%s", diff)
	}
}

// TestVerifyWhileTheTrustChanges is for the race detector, and for one promise:
// once a change has returned, no call that starts later is accepted under it.
func TestVerifyWhileTheTrustChanges(t *testing.T) {
	t.Parallel()
	issuer := tenanttest.NewIssuer(t, newFakeClock().Now)
	v := issuer.Verifier(t)
	token := issuer.Token(t, "acme")
	stop := make(chan struct{})
	var background sync.WaitGroup
	for range max(2, runtime.GOMAXPROCS(0)) {
		background.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if c, err := v.Verify(token, issuer.Gateway()); err == nil && c.ID().String() != "acme" {
					t.Errorf("a context of %v", c.ID())
				}
			}
		})
	}
	state := issuer.Tenant(t, "acme")
	cert := issuer.Certificate()
	for i := range 300 {
		suspended := state
		suspended.State = tenant.StateSuspended
		mustSet(t, issuer.Trust().SetTenant(suspended))
		if _, err := v.Verify(token, issuer.Gateway()); err == nil {
			t.Error("accepted after the suspension returned")
		}
		mustSet(t, issuer.Trust().SetTenant(state))
		issuer.Trust().RevokeKey(cert.KeyID)
		if i%100 == 0 { // each costs the peer some of its budget
			if _, err := v.Verify(token, issuer.Gateway()); err == nil {
				t.Error("accepted after the revocation returned")
			}
		}
		mustSet(t, issuer.Trust().Replace([]tenant.KeyCertificate{cert}, []tenant.TenantState{state}))
		v.Stats()
	}
	close(stop)
	background.Wait()
}

func mustSet(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// TestWarmVerifyAllocatesNothing is the cheap half of the benchmark's promise.
// It is not parallel: allocations are counted for the whole process.
func TestWarmVerifyAllocatesNothing(t *testing.T) {
	issuer := tenanttest.NewIssuer(t, tenant.NewClock())
	v := issuer.Verifier(t)
	token, gateway := issuer.Token(t, "acme"), issuer.Gateway()
	allocs := testing.AllocsPerRun(1000, func() {
		if _, err := v.Verify(token, gateway); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 0 {
		t.Errorf("a warm check allocates %v times", allocs)
	}
}
