package tenant_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// BenchmarkVerifyWarm is the check that every call pays, with the real clock.
func BenchmarkVerifyWarm(b *testing.B) {
	issuer := tenanttest.NewIssuer(b, tenant.NewClock())
	v := issuer.Verifier(b)
	start := time.Now()
	token, gateway := issuer.Token(b, "acme"), issuer.Gateway()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(token, gateway); err != nil {
			b.Fatalf("after %v: %v", time.Since(start), err)
		}
	}
}

// BenchmarkVerifyWarmFixedClock shows what is left when the clock costs nothing.
func BenchmarkVerifyWarmFixedClock(b *testing.B) {
	now := time.Now()
	issuer := tenanttest.NewIssuer(b, func() time.Time { return now })
	v := issuer.Verifier(b)
	token, gateway := issuer.Token(b, "acme"), issuer.Gateway()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(token, gateway); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkClock is the part of the warm check that is the operating system's.
func BenchmarkClock(b *testing.B) {
	clock := tenant.NewClock()
	var now time.Time
	for b.Loop() {
		now = clock()
	}
	_ = now
}

// BenchmarkTimeNow is what BenchmarkClock saves on.
func BenchmarkTimeNow(b *testing.B) {
	clock := time.Now
	var now time.Time
	for b.Loop() {
		now = clock()
	}
	_ = now
}

// BenchmarkVerifyCold verifies a token that is not in the cache.
func BenchmarkVerifyCold(b *testing.B) {
	now := time.Now()
	issuer := tenanttest.NewIssuer(b, func() time.Time { return now })
	v := issuer.Verifier(b)
	token, gateway := issuer.Token(b, "acme"), issuer.Gateway()
	b.ReportAllocs()
	for b.Loop() {
		tenant.ClearCache(v)
		if _, err := v.Verify(token, gateway); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEd25519 is the floor of BenchmarkVerifyCold.
func BenchmarkEd25519(b *testing.B) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	message := make([]byte, 280)
	signature := ed25519.Sign(private, message)
	for b.Loop() {
		if !ed25519.Verify(public, message, signature) {
			b.Fatal("refused")
		}
	}
}
