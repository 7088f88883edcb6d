package dev

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
)

// A host that the house's operator adds has a certificate that the house's roots vouch for.
func TestCertificateFollowsTheDomains(t *testing.T) {
	t.Parallel()
	l := Layout{filepath.Join(t.TempDir(), "state")}
	if err := errors.Join(l.open(), l.prepareIdentities()); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	h := &house{l: l, o: Options{Out: &said}}
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(l.Roots())
	if err != nil || !roots.AppendCertsFromPEM(pem) {
		t.Fatal(err)
	}
	verify := func(host string) error {
		pair, err := tls.LoadX509KeyPair(l.path("gateway", "front", identity.CertFile), l.path("gateway", "front", identity.KeyFile))
		if err != nil {
			return err
		}
		_, err = pair.Leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots})
		return err
	}
	put := func(reset bool, keys ...string) {
		change := feed.Change{Reset: reset}
		for _, key := range keys {
			change.Entries = append(change.Entries, feed.Entry{Key: key})
		}
		if err := h.applyHosts(change); err != nil {
			t.Error(err)
		}
	}
	put(true, "tenant/x", "domain/notes.acme.localhost")
	if err := verify("notes.acme.localhost"); err != nil {
		t.Error(err)
	}
	if err := verify("notes.hooli.localhost"); err == nil {
		t.Error("a host that nobody added is named")
	}
	put(false, "domain/notes.hooli.localhost", "domain/shop.localhost", "domain/shop.example.com")
	for _, host := range []string{"notes.acme.localhost", "notes.hooli.localhost", "shop.localhost", platform} {
		if err := verify(host); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	authority, err := identity.OpenAuthority(l.path("ca"), authorityConfig())
	if err := errors.Join(err, h.renewFront(authority), verify("notes.hooli.localhost")); err != nil {
		t.Errorf("renewed: %v", err)
	}
	if said.Len() > 0 {
		t.Errorf("it said: %s", &said)
	}
}

func TestCertificateIsBounded(t *testing.T) {
	t.Parallel()
	hosts := map[string]bool{}
	for i := range 2 * maxNames {
		hosts[fmt.Sprintf("notes.t%d.localhost", i)] = true
	}
	if names, whole := namesFor(hosts); len(names) != maxNames || whole {
		t.Errorf("%d names, whole %v", len(names), whole)
	}
}
