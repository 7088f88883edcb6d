package tenant_test

import (
	"bytes"
	"crypto/ed25519"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

func rootKey(n byte) (ed25519.PublicKey, ed25519.PrivateKey) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, 32))
	return ed25519.PublicKey(key[32:]), key
}

func sampleCertificate(tb testing.TB) tenant.KeyCertificate {
	tb.Helper()
	public, _ := rootKey(9)
	start := time.Date(2027, 1, 15, 8, 0, 0, 0, time.UTC)
	return tenant.KeyCertificate{
		PublicKey: public, Minter: "gateway", SPIFFE: app(tb, "edge"), Cells: []string{"cell-2", "cell-1"},
		Audience: 1<<63 | 1, Classes: tenant.ClassesOf(tenant.ClassSession),
		NotBefore: start, NotAfter: start.Add(tenant.MaxKeyLife),
	}
}

func TestCertificateRoundTrip(t *testing.T) {
	t.Parallel()
	current, key := rootKey(1)
	next, _ := rootKey(2)
	cert := sampleCertificate(t)
	signed, err := tenant.SignKeyCertificate(key, cert)
	if err != nil {
		t.Fatal(err)
	}
	got, err := tenant.ParseKeyCertificate([]ed25519.PublicKey{next, current}, signed)
	if err != nil {
		t.Fatal(err)
	}
	want := cert
	want.KeyID, want.Cells = tenant.KeyIDOf(cert.PublicKey), []string{"cell-1", "cell-2"}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(identity.ID{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if cert.Cells[0] != "cell-2" {
		t.Error("signing sorted the caller's cells")
	}
	for name, roots := range map[string][]ed25519.PublicKey{
		"another root": {next}, "no root": nil, "a short root": {current[:31]},
	} {
		if _, err := tenant.ParseKeyCertificate(roots, signed); err == nil {
			t.Errorf("%s is trusted", name)
		}
	}
}

func TestEveryBitFlipOfACertificateIsRefused(t *testing.T) {
	t.Parallel()
	root, key := rootKey(1)
	signed, err := tenant.SignKeyCertificate(key, sampleCertificate(t))
	if err != nil {
		t.Fatal(err)
	}
	roots := []ed25519.PublicKey{root}
	for bit := range len(signed) * 8 {
		flipped := bytes.Clone(signed)
		flipped[bit/8] ^= 1 << (bit % 8)
		if _, err := tenant.ParseKeyCertificate(roots, flipped); err == nil {
			t.Errorf("bit %d: accepted", bit)
		}
	}
	for n := range signed {
		if _, err := tenant.ParseKeyCertificate(roots, signed[:n]); err == nil {
			t.Errorf("first %d bytes are accepted", n)
		}
	}
}

// TestCertificateHasOneEncoding signs what the real signer would never write.
func TestCertificateHasOneEncoding(t *testing.T) {
	t.Parallel()
	root, key := rootKey(1)
	signed, err := tenant.SignKeyCertificate(key, sampleCertificate(t))
	if err != nil {
		t.Fatal(err)
	}
	body := signed[:len(signed)-ed25519.SignatureSize]
	resign := func(body []byte) []byte {
		message := append([]byte("rowhouse-key/v1\x00"), body...)
		return append(bytes.Clone(body), ed25519.Sign(key, message)...)
	}
	parse := func(b []byte) error {
		_, err := tenant.ParseKeyCertificate([]ed25519.PublicKey{root}, b)
		return err
	}
	if err := parse(resign(body)); err != nil {
		t.Fatalf("as it was: %v", err)
	}
	for name, changed := range map[string][]byte{
		"unknown field": append(bytes.Clone(body), 9<<3, 1),
		"explicit zero": append(bytes.Clone(body), 8<<3, 0),
		"repeated last": append(bytes.Clone(body), pieces(t, body)[8]...),
		"reordered":     append(bytes.Clone(body[34:]), body[:34]...),
		"overlong":      overlong(body, 0),
		"signed as a token": append(bytes.Clone(body),
			ed25519.Sign(key, append([]byte("rowhouse-tenant/v1\x00"), body...))...),
	} {
		b := changed
		if name != "signed as a token" {
			b = resign(changed)
		}
		if err := parse(b); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestCertificateRules(t *testing.T) {
	t.Parallel()
	_, key := rootKey(1)
	trust := tenant.NewTrust(time.Now)
	for name, spoil := range map[string]func(*tenant.KeyCertificate){
		"no key":            func(c *tenant.KeyCertificate) { c.PublicKey = nil },
		"foreign key id":    func(c *tenant.KeyCertificate) { c.KeyID = tenant.KeyID{1} },
		"no minter":         func(c *tenant.KeyCertificate) { c.Minter = "" },
		"no holder":         func(c *tenant.KeyCertificate) { c.SPIFFE = identity.ID{} },
		"no cells":          func(c *tenant.KeyCertificate) { c.Cells = nil },
		"same cell twice":   func(c *tenant.KeyCertificate) { c.Cells = []string{"cell-1", "cell-1"} },
		"bad cell":          func(c *tenant.KeyCertificate) { c.Cells = []string{"*"} },
		"too many cells":    func(c *tenant.KeyCertificate) { c.Cells = make([]string, 65) },
		"no audience":       func(c *tenant.KeyCertificate) { c.Audience = 0 },
		"no class":          func(c *tenant.KeyCertificate) { c.Classes = 0 },
		"unknown class":     func(c *tenant.KeyCertificate) { c.Classes |= 8 },
		"ends as it begins": func(c *tenant.KeyCertificate) { c.NotAfter = c.NotBefore },
		"lives too long":    func(c *tenant.KeyCertificate) { c.NotAfter = c.NotAfter.Add(time.Second) },
		"fraction":          func(c *tenant.KeyCertificate) { c.NotBefore = c.NotBefore.Add(time.Millisecond) },
	} {
		cert := sampleCertificate(t)
		spoil(&cert)
		if _, err := tenant.SignKeyCertificate(key, cert); err == nil {
			t.Errorf("%s is signed", name)
		}
		if err := trust.SetKey(cert); err == nil {
			t.Errorf("%s is set", name)
		}
		if err := trust.Replace([]tenant.KeyCertificate{cert}, nil); err == nil {
			t.Errorf("%s comes in by a resync", name)
		}
	}
	if _, err := tenant.SignKeyCertificate(key[:10], sampleCertificate(t)); err == nil {
		t.Error("a short root signs")
	}
}
