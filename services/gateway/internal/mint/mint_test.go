package mint_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/mint"
)

// house is a tenancy that certifies, with a clock that the test moves.
type house struct {
	now   time.Time
	root  ed25519.PrivateKey
	self  identity.ID
	asked int
	down  bool
	seals []*tenancyv1.SealKey // when set, what is answered
}

func (h *house) seal(kid uint32, life time.Duration) *tenancyv1.SealKey {
	return &tenancyv1.SealKey{Cell: "cell-1", Kid: kid, Key: bytes.Repeat([]byte{0x0b}, 32), NotAfter: timestamppb.New(h.now.Add(life))}
}

func newHouse(t *testing.T) *house {
	t.Helper()
	_, root, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	self, err := identity.Service("rowhouse.test", "cell-1", "gateway")
	if err != nil {
		t.Fatal(err)
	}
	return &house{now: time.Now().Truncate(time.Second), root: root, self: self}
}

func (h *house) clock() time.Time { return h.now }

func (h *house) CertifyKey(_ context.Context, in *tenancyv1.CertifyKeyRequest) (*tenancyv1.CertifyKeyResponse, error) {
	h.asked++
	if h.down {
		return nil, errors.New("no tenancy")
	}
	if !ed25519.Verify(in.GetPublicKey(), []byte("rowhouse-certify/v1\x00"+h.self.String()), in.GetProof()) {
		return nil, errors.New("wrong proof")
	}
	cert, err := tenant.SignKeyCertificate(h.root, tenant.KeyCertificate{
		PublicKey: in.GetPublicKey(), Minter: "gateway", SPIFFE: h.self, Cells: []string{"cell-1"},
		Audience: 1<<16 | tenant.AudienceConfig, Classes: tenant.ClassesOf(tenant.ClassSession, tenant.ClassTransaction),
		NotBefore: h.now.Add(-time.Minute), NotAfter: h.now.Add(47 * time.Hour),
	})
	seals := h.seals
	if seals == nil {
		seals = []*tenancyv1.SealKey{h.seal(1, 72*time.Hour)}
	}
	return &tenancyv1.CertifyKeyResponse{Certificate: cert, SealKeys: seals}, err
}

func (h *house) keeper(t *testing.T, path string, m *mint.Minter, kek byte) (*mint.Keeper, error) {
	t.Helper()
	return mint.NewKeeper(mint.KeeperConfig{
		Minter: m, Certifier: h, Roots: []ed25519.PublicKey{h.root.Public().(ed25519.PublicKey)}, SPIFFEID: h.self.String(),
		Path: path, KEK: bytes.Repeat([]byte{kek}, 32), Clock: h.clock, Random: rand.Reader,
	})
}

func subject(t *testing.T) mint.Subject {
	t.Helper()
	id, err := tenant.ParseID("acme")
	if err != nil {
		t.Fatal(err)
	}
	uid, err := tenant.NewUID(time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return mint.Subject{
		TenantUID: uid, TenantID: id, Generation: 1, Model: tenant.ModelShared, Cell: "cell-1", CellNumber: 1,
		Region: "local", PlacementGeneration: 1, Plan: "free", PrincipalKind: tenant.PrincipalVisitor,
		Audience: 1 << 16, SealKID: 1,
	}
}

// verifier accepts what the gateway's certified key signs for the subject.
func (h *house) verifier(t *testing.T, m *mint.Minter, s mint.Subject) *tenant.Verifier {
	t.Helper()
	trust := tenant.NewTrust(h.clock)
	err := errors.Join(trust.SetKey(m.Keys().Certificate), trust.SetTenant(tenant.TenantState{
		UID: s.TenantUID, ID: s.TenantID, Generation: s.Generation, PlacementGeneration: s.PlacementGeneration, State: tenant.StateActive,
	}))
	if err != nil {
		t.Fatal(err)
	}
	trust.Bookmark(h.now)
	v, err := tenant.NewVerifier(tenant.VerifierConfig{Trust: trust, Audience: 1 << 16, MayPresent: func(identity.ID) bool { return true }})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestMintedContextIsAccepted(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m := mint.New(h.clock, rand.Reader)
	if _, err := m.Mint(subject(t)); fault.ReasonOf(err) != fault.ReasonStarting {
		t.Fatalf("Mint without a key = %v, want STARTING", err)
	}
	k, err := h.keeper(t, filepath.Join(t.TempDir(), "keys"), m, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := subject(t)
	token, err := m.Mint(s)
	if err != nil {
		t.Fatal(err)
	}
	got, err := h.verifier(t, m, s).Verify(token, h.self)
	if err != nil {
		t.Fatal(err)
	}
	if got.UID() != s.TenantUID || !got.HasSeal() || got.Minter() != "gateway" {
		t.Errorf("the context says %+v", got.Claims())
	}
}

// A context is reused for 15 s and never for another subject.
func TestReuse(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m := mint.New(h.clock, rand.Reader)
	k, err := h.keeper(t, filepath.Join(t.TempDir(), "keys"), m, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := subject(t)
	first, _ := m.Mint(s)
	h.now = h.now.Add(14 * time.Second)
	if again, _ := m.Mint(s); again != first {
		t.Error("after 14 s another context was made")
	}
	edits := map[string]func(*mint.Subject){
		"generation": func(s *mint.Subject) { s.Generation++ },
		"placement":  func(s *mint.Subject) { s.PlacementGeneration++ },
		"plan":       func(s *mint.Subject) { s.Plan = "business" },
		"principal":  func(s *mint.Subject) { s.PrincipalKind, s.PrincipalDigest = tenant.PrincipalUser, [16]byte{1} },
		"scopes":     func(s *mint.Subject) { s.Scopes = 1 },
		"audience":   func(s *mint.Subject) { s.Audience |= tenant.AudienceConfig },
		"tenant":     func(s *mint.Subject) { s.TenantUID[15]++ },
	}
	for name, edit := range edits {
		other := s
		edit(&other)
		if token, err := m.Mint(other); err != nil || token == first {
			t.Errorf("another %s got the same context (%v)", name, err)
		}
	}
	h.now = h.now.Add(time.Second)
	if again, _ := m.Mint(s); again == first {
		t.Error("after 15 s the same context was used")
	}
}

// With tenancy gone a restarted gateway mints on with the keys from disk.
func TestRestartWithoutTenancy(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	path := filepath.Join(t.TempDir(), "keys")
	first := mint.New(h.clock, rand.Reader)
	k, err := h.keeper(t, path, first, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.down = true
	h.now = h.now.Add(36 * time.Hour)
	second := mint.New(h.clock, rand.Reader)
	if _, err := h.keeper(t, path, second, 1); err != nil {
		t.Fatal(err)
	}
	s := subject(t)
	token, err := second.Mint(s)
	if err != nil {
		t.Fatalf("36 h after tenancy was lost: %v", err)
	}
	if _, err := h.verifier(t, second, s).Verify(token, h.self); err != nil {
		t.Fatal(err)
	}
	h.now = h.now.Add(12 * time.Hour)
	third := mint.New(h.clock, rand.Reader)
	if _, err := h.keeper(t, path, third, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := third.Mint(s); fault.ReasonOf(err) != fault.ReasonStarting {
		t.Errorf("with an expired certificate Mint = %v, want STARTING", err)
	}
}

// Renewals use the keys of first contexts, and end with them.
func TestRenewalKeys(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m := mint.New(h.clock, rand.Reader)
	starting := func(what, cell string) {
		t.Helper()
		if _, err := m.Renewal(cell, 1); fault.ReasonOf(err) != fault.ReasonStarting || fault.KindOf(err) != fault.Unavailable {
			t.Errorf("%s: %v, want STARTING", what, err)
		}
	}
	starting("without a key", "cell-1")
	k, err := h.keeper(t, filepath.Join(t.TempDir(), "keys"), m, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	keys, err := m.Renewal("cell-1", 9) // a number that the gateway has not yet: its newest one serves
	if err != nil || keys.Signer != m.Keys().Signer || keys.Minter != "gateway" || keys.SealKID != 1 || keys.Seal != tenant.SealKey(bytes.Repeat([]byte{0x0b}, 32)) {
		t.Errorf("keys: minter %q, kid %d, %v", keys.Minter, keys.SealKID, err)
	}
	starting("a cell of another gateway", "cell-2")
	h.now = m.Keys().Certificate.NotAfter
	starting("after the certificate's end", "cell-1")
}

func TestSealedFile(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	path := filepath.Join(t.TempDir(), "keys")
	m := mint.New(h.clock, rand.Reader)
	k, err := h.keeper(t, path, m, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if bytes.Contains(b, bytes.Repeat([]byte{0x0b}, 16)) {
		t.Error("the seal key lies open on disk")
	}
	if _, err := h.keeper(t, path, mint.New(h.clock, rand.Reader), 2); err == nil {
		t.Error("another key-encryption key opened the file")
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := h.keeper(t, path, mint.New(h.clock, rand.Reader), 1); err == nil {
		t.Error("a damaged file was opened")
	}
}

// A cell that seals with a new key makes the keeper ask at once, not in 12 h.
func TestWantAsksAtOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m := mint.New(h.clock, rand.Reader)
	k, err := h.keeper(t, filepath.Join(t.TempDir(), "keys"), m, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := m.Keys()
	k.Want("cell-1", 1)
	k.Want("cell-1", 2)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- k.Run(ctx) }()
	for m.Keys() == before {
		select {
		case err := <-done:
			t.Fatal(err)
		default:
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if h.asked != 2 {
		t.Errorf("asked %d times, want 2", h.asked)
	}
}

// A gateway that has not got a cell's new key yet seals with one that PostgreSQL still
// accepts, whatever order tenancy answers in.
func TestSealKeyThatStandsIn(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.seals = []*tenancyv1.SealKey{h.seal(3, 72*time.Hour), h.seal(2, 48*time.Hour), h.seal(1, 24*time.Hour)} // newest first
	m := mint.New(h.clock, rand.Reader)
	k, err := h.keeper(t, filepath.Join(t.TempDir(), "keys"), m, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		after    time.Duration
		asked    uint8
		sealedBy uint8 // 0 for refused
	}{{0, 1, 1}, {0, 4, 3}, {24 * time.Hour, 1, 3}, {24 * time.Hour, 2, 2}, {71 * time.Hour, 4, 3}, {72 * time.Hour, 3, 0}} {
		begin := h.now
		h.now = begin.Add(step.after)
		s := subject(t)
		s.SealKID = step.asked
		token, err := m.Mint(s)
		h.now = begin
		if step.sealedBy == 0 {
			if fault.ReasonOf(err) != fault.ReasonStarting {
				t.Errorf("after %s: %v, want STARTING", step.after, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		got, err := h.verifier(t, m, s).Verify(token, h.self)
		if step.after == 0 && err != nil {
			t.Fatal(err)
		}
		if step.after == 0 && got.Claims().DBSeal[0] != step.sealedBy {
			t.Errorf("asked for %d it sealed with %d, want %d", step.asked, got.Claims().DBSeal[0], step.sealedBy)
		}
		if sealed := token[len(token)-64-17]; step.after > 0 && sealed != step.sealedBy {
			t.Errorf("after %s, asked for %d, it sealed with %d, want %d", step.after, step.asked, sealed, step.sealedBy)
		}
	}
}

// A key that tenancy does not give is asked for once: each question makes a certificate.
func TestWantAsksForAKeyOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m := mint.New(h.clock, rand.Reader)
	k, err := h.keeper(t, filepath.Join(t.TempDir(), "keys"), m, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		k.Want("cell-9", 1)
		if err := k.Ask(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if h.asked != 2 {
		t.Errorf("asked %d times, want 2", h.asked)
	}
}

// A key that verifiers have not heard of is waited for again, not made anew; in the end
// it is given up.
func TestPendingKeyIsKept(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m := mint.New(h.clock, rand.Reader)
	deaf := true
	k, err := mint.NewKeeper(mint.KeeperConfig{
		Minter: m, Certifier: h, Roots: []ed25519.PublicKey{h.root.Public().(ed25519.PublicKey)}, SPIFFEID: h.self.String(),
		Path: filepath.Join(t.TempDir(), "keys"), KEK: make([]byte, 32), Clock: h.clock, Random: rand.Reader,
		Settled: func(context.Context, tenant.KeyID) error {
			if deaf {
				return errors.New("nobody heard of it")
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := k.Renew(t.Context()); err == nil || m.Keys() != nil {
			t.Fatal("a key is used that nobody knows")
		}
	}
	if h.asked != 1 {
		t.Errorf("asked %d times for one key", h.asked)
	}
	deaf = false
	if err := k.Renew(t.Context()); err != nil || h.asked != 2 {
		t.Errorf("after it was given up: %v, asked %d times", err, h.asked)
	}
}

// A tenant with more users than fit keeps its contexts, and those of others.
func TestManyUsersCrowdOutNobody(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m := mint.New(h.clock, rand.Reader)
	k, err := h.keeper(t, filepath.Join(t.TempDir(), "keys"), m, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	big := subject(t)
	big.PrincipalKind = tenant.PrincipalUser
	others := []mint.Subject{subject(t), subject(t), subject(t)}
	visit := func() {
		for n := range 4000 {
			binary.BigEndian.PutUint32(big.PrincipalDigest[:], uint32(n)+1)
			if _, err := m.Mint(big); err != nil {
				t.Fatal(err)
			}
		}
		for _, s := range others {
			if _, err := m.Mint(s); err != nil {
				t.Fatal(err)
			}
		}
	}
	visit()
	before := m.Minted()
	visit()
	if again := m.Minted() - before; again != 0 {
		t.Errorf("%d of 4,003 contexts were signed anew", again)
	}
}

func BenchmarkMintReused(b *testing.B) {
	_, private, _ := ed25519.GenerateKey(rand.Reader)
	signer, _ := tenant.NewSigner(private)
	m := mint.New(time.Now, rand.Reader)
	m.Use(&mint.Keys{
		Signer: signer, Certificate: tenant.KeyCertificate{Minter: "gateway"},
		Seals: map[string][]mint.SealKey{"cell-1": {{KID: 1, NotAfter: time.Now().Add(time.Hour)}}},
	})
	id, _ := tenant.ParseID("acme")
	uid, _ := tenant.NewUID(time.Now(), rand.Reader)
	s := mint.Subject{
		TenantUID: uid, TenantID: id, Generation: 1, Model: tenant.ModelShared, Cell: "cell-1", CellNumber: 1, Region: "local",
		PlacementGeneration: 1, Plan: "free", PrincipalKind: tenant.PrincipalVisitor, Audience: 1 << 16, SealKID: 1,
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Mint(s); err != nil {
			b.Fatal(err)
		}
	}
}
