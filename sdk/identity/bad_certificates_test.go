package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

const (
	testDomain = "rowhouse.localhost"
	goodURI    = "spiffe://rowhouse.localhost/cell/cell-1/app/notes"
)

// signer is a bare authority without name constraints, so that what refuses a
// certificate is our own check and not the constraint.
type signer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func testTime() time.Time { return time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC) }

func newSigner(t *testing.T) signer {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"},
		NotBefore: testTime().Add(-time.Hour), NotAfter: testTime().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return signer{cert: cert, key: key}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// leaf is a good certificate's template; cases spoil one thing each.
type leaf struct {
	x509.Certificate
	uris, dns []string
}

func goodLeaf() *leaf {
	return &leaf{uris: []string{goodURI}, Certificate: x509.Certificate{
		SerialNumber: big.NewInt(2),
		NotBefore:    testTime().Add(-time.Minute), NotAfter: testTime().Add(time.Minute),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}}
}

// sign spells the alternative names byte by byte, as an attacker's authority could.
func (s signer) sign(t *testing.T, l *leaf) tls.Certificate {
	t.Helper()
	var names []asn1.RawValue
	for _, u := range l.uris {
		names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(u)})
	}
	for _, d := range l.dns {
		names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte(d)})
	}
	if len(names) > 0 {
		value, err := asn1.Marshal(names)
		if err != nil {
			t.Fatal(err)
		}
		l.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}}
	}
	key := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, &l.Certificate, s.cert, key.Public(), s.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

type badCertificate struct {
	name  string
	spoil func(*leaf)
	// why is what the refusing end must say, so that a case is not refused by accident.
	why string
}

func uri(s ...string) func(*leaf) { return func(l *leaf) { l.uris = s } }

func badCertificates() []badCertificate {
	const notID, many = "identity", "URIs, expected exactly one"
	const host = "spiffe://rowhouse.localhost"
	return []badCertificate{
		{"no alternative name, common name only", func(l *leaf) {
			l.uris, l.Subject = nil, pkix.Name{CommonName: goodURI}
		}, many},
		{"DNS name only", func(l *leaf) { l.uris, l.dns = nil, []string{"notes.rowhouse.localhost"} }, many},
		{"two URIs, both good", uri(goodURI, host+"/cell/cell-1/service/tenancy"), many},
		{"the same URI twice", uri(goodURI, goodURI), many},
		{"a web address beside the identity", uri(goodURI, "https://notes.example"), many},
		{"web address", uri("https://rowhouse.localhost/cell/cell-1/app/notes"), notID},
		{"scheme in capitals", uri("SPIFFE://rowhouse.localhost/cell/cell-1/app/notes"), notID},
		{"domain as suffix", uri("spiffe://evil.rowhouse.localhost/cell/cell-1/app/notes"), "trust domain"},
		{"domain as prefix", uri("spiffe://rowhouse.localhost.evil/cell/cell-1/app/notes"), "trust domain"},
		{"foreign trust domain", uri("spiffe://example.org/cell/cell-1/app/notes"), "trust domain"},
		{"capitals in the domain", uri("spiffe://Rowhouse.localhost/cell/cell-1/app/notes"), "lower-case"},
		{"port", uri("spiffe://rowhouse.localhost:443/cell/cell-1/app/notes"), "lower-case"},
		{"user", uri("spiffe://x@rowhouse.localhost/cell/cell-1/app/notes"), "lower-case"},
		{"empty fragment", uri(goodURI + "#"), "lower-case"},
		{"query", uri(goodURI + "?x=1"), "lower-case"},
		{"slash at the end", uri(goodURI + "/"), "neither"},
		{"dot segments", uri(host + "/cell/cell-1/x/../app/notes"), "neither"},
		{"escaped letter", uri(host + "/cell/cell-1/app/%6eotes"), "lower-case"},
		{"unknown kind", uri(host + "/cell/cell-1/workload/notes"), "neither"},
		{"kind without name", uri(host + "/cell/cell-1/app/"), "1 to 63 bytes"},
		{"domain without path", uri(host), "neither"},
		{"empty URI", uri(""), notID},
		{"NUL in the name", uri(goodURI + "\x00x"), "control character"},
		{"longer than 255 bytes", uri(goodURI + strings.Repeat("s", 255)), "longer"},
		{"expired", func(l *leaf) { l.NotAfter = testTime().Add(-time.Second) }, "expired"},
		{"not yet valid", func(l *leaf) { l.NotBefore = testTime().Add(time.Second) }, "not yet valid"},
		{"usage for code", func(l *leaf) { l.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} }, "usage"},
		{"no usage", func(l *leaf) { l.ExtKeyUsage = nil }, "does not name the usage"},
		{"any usage", func(l *leaf) { l.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }, "does not name the usage"},
		{"key usage without signatures", func(l *leaf) { l.KeyUsage = x509.KeyUsageKeyEncipherment }, "key usage"},
		{"an authority's own certificate", func(l *leaf) {
			l.IsCA, l.BasicConstraintsValid = true, true
			l.KeyUsage |= x509.KeyUsageCertSign
		}, "authority's"},
	}
}

// listeners are the configurations a server of ours may have.
func listeners() map[string][]ServerOption {
	return map[string][]ServerOption{
		"mutual":            nil,
		"client optional":   {OptionalClient()},
		"HTTP/1.1 too":      {WithHTTP1()},
		"optional HTTP/1.1": {OptionalClient(), WithHTTP1()},
	}
}

// house is a trust domain: its authority and a source for the service under test.
type house struct {
	signer
	source *Source
}

func newHouse(t *testing.T) house {
	t.Helper()
	s := newSigner(t)
	return house{signer: s, source: s.sourceFor(t, "spiffe://rowhouse.localhost/cell/cell-1/service/tenancy")}
}

func (s signer) sourceFor(t *testing.T, id string) *Source {
	t.Helper()
	l := goodLeaf()
	l.uris = []string{id}
	cert := s.sign(t, l)
	key, err := marshalKey(cert.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	source, err := FromPair(Pair{
		Cert: encodePEM("CERTIFICATE", cert.Certificate[0]), Key: key,
		Roots: encodePEM("CERTIFICATE", s.cert.Raw),
	}, Options{Clock: testTime})
	if err != nil {
		t.Fatal(err)
	}
	return source
}

// shake runs a handshake over loopback and one byte back, so that a TLS 1.3 client
// learns that the server refused it. It returns what each end thought.
func shake(t *testing.T, server, client *tls.Config) (state tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	done := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			done <- err
			return
		}
		defer conn.Close()
		srv := tls.Server(conn, server)
		if err = srv.Handshake(); err == nil {
			_, err = srv.Write([]byte{1})
		}
		state = srv.ConnectionState()
		done <- err
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	cli := tls.Client(conn, client)
	if clientErr = cli.Handshake(); clientErr == nil {
		_, clientErr = cli.Read(make([]byte, 1))
	}
	conn.Close()
	serverErr = <-done
	return state, serverErr, clientErr
}

func forgivingClient(cert *tls.Certificate) *tls.Config {
	cfg := &tls.Config{InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(4), ServerName: "x"}
	if cert != nil {
		// Unlike Certificates, this is sent whatever the server asks for.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	return cfg
}

func TestServersRefuseBadCertificates(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for name, options := range listeners() {
		for _, c := range badCertificates() {
			t.Run(name+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				l := goodLeaf()
				c.spoil(l)
				cert := h.sign(t, l)
				_, serverErr, clientErr := shake(t, h.source.ServerTLS(options...), forgivingClient(&cert))
				if serverErr == nil || clientErr == nil {
					t.Fatalf("accepted: server %v, client %v", serverErr, clientErr)
				}
				if !strings.Contains(serverErr.Error(), c.why) {
					t.Errorf("refused with %q, expected %q", serverErr, c.why)
				}
			})
		}
	}
}

func TestClientsRefuseBadCertificates(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	peer, err := Parse(goodURI)
	if err != nil {
		t.Fatal(err)
	}
	anonymous, err := AnonymousClientTLS(encodePEM("CERTIFICATE", h.cert.Raw), peer, testTime)
	if err != nil {
		t.Fatal(err)
	}
	clients := map[string]*tls.Config{"mutual": h.source.ClientTLS(peer), "anonymous": anonymous}
	for name, client := range clients {
		for _, c := range badCertificates() {
			t.Run(name+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				l := goodLeaf()
				c.spoil(l)
				why := c.why
				if why == "trust domain" { // A client expects one identity; that names the domain too.
					why = "expected"
				}
				_, _, clientErr := shake(t, &tls.Config{Certificates: []tls.Certificate{h.sign(t, l)}}, client)
				if clientErr == nil || !strings.Contains(clientErr.Error(), why) {
					t.Errorf("client said %v, expected %q", clientErr, why)
				}
			})
		}
	}
}

// What no template can spoil: who signed, and what is shown.
func TestServersRefuseForeignSigners(t *testing.T) {
	t.Parallel()
	h, foreign := newHouse(t), newSigner(t)
	process := h.sign(t, goodLeaf())
	leafCert, err := x509.ParseCertificate(process.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	bySelf := signer{cert: leafCert, key: process.PrivateKey.(*ecdsa.PrivateKey)}.sign(t, goodLeaf())
	bySelf.Certificate = append(bySelf.Certificate, process.Certificate...)
	fromForeign := foreign.sign(t, goodLeaf())
	withOurRoot := foreign.sign(t, goodLeaf())
	withOurRoot.Certificate = append(withOurRoot.Certificate, h.cert.Raw)
	stolen := h.sign(t, goodLeaf())
	stolen.PrivateKey = newKey(t)
	for name, cert := range map[string]tls.Certificate{
		"foreign root": fromForeign, "foreign root with ours beside it": withOurRoot,
		"signed by a process": bySelf, "without the key": stolen,
	} {
		for listener, options := range listeners() {
			_, serverErr, clientErr := shake(t, h.source.ServerTLS(options...), forgivingClient(&cert))
			if serverErr == nil || clientErr == nil {
				t.Errorf("%s at %s: accepted", name, listener)
			}
		}
	}
}

func TestCertificateIsRequiredUnlessOptional(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for name, options := range listeners() {
		state, serverErr, clientErr := shake(t, h.source.ServerTLS(options...), forgivingClient(nil))
		optional := strings.Contains(name, "optional")
		if accepted := serverErr == nil && clientErr == nil; accepted != optional {
			t.Errorf("%s: accepted %v (server %v, client %v)", name, accepted, serverErr, clientErr)
		}
		if id, ok := FromTLS(&state); ok {
			t.Errorf("%s: nobody is %s", name, id)
		}
	}
}

// The control: what is right passes both ends, and the server knows who it is.
func TestGoodCertificatePasses(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	notes := h.sourceFor(t, goodURI)
	for name, options := range listeners() {
		state, serverErr, clientErr := shake(t, h.source.ServerTLS(options...), notes.ClientTLS(h.source.ID()))
		if err := errors.Join(serverErr, clientErr); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if id, ok := FromTLS(&state); !ok || id.String() != goodURI {
			t.Errorf("%s: caller is %q, %v", name, id, ok)
		}
	}
}

func TestClientRefusesOtherIdentity(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	notes := h.sourceFor(t, goodURI)
	for _, want := range []string{
		"spiffe://rowhouse.localhost/cell/cell-1/service/config",
		"spiffe://rowhouse.localhost/cell/cell-2/service/tenancy",
		"spiffe://rowhouse.localhost/cell/cell-1/app/tenancy",
		"spiffe://other.localhost/cell/cell-1/service/tenancy",
	} {
		id, err := Parse(want)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, clientErr := shake(t, h.source.ServerTLS(), notes.ClientTLS(id)); clientErr == nil {
			t.Errorf("tenancy passed for %s", want)
		}
	}
	if _, _, clientErr := shake(t, h.source.ServerTLS(), notes.ClientTLS(ID{})); clientErr == nil {
		t.Error("tenancy passed for the zero identity")
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	cert := h.sign(t, goodLeaf())
	client := forgivingClient(&cert)
	client.MaxVersion = tls.VersionTLS12
	if _, serverErr, _ := shake(t, h.source.ServerTLS(), client); serverErr == nil {
		t.Error("a server accepted TLS 1.2")
	}
	server := &tls.Config{Certificates: []tls.Certificate{cert}, MaxVersion: tls.VersionTLS12}
	peer, _ := Parse(goodURI)
	if _, _, clientErr := shake(t, server, h.source.ClientTLS(peer)); clientErr == nil {
		t.Error("a client accepted TLS 1.2")
	}
}

// A session that outlives trust is how withdrawn peers come back.
func TestNothingIsResumed(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	cert := h.sign(t, goodLeaf())
	client, server := forgivingClient(&cert), h.source.ServerTLS()
	for range 2 {
		state, serverErr, clientErr := shake(t, server, client)
		if err := errors.Join(serverErr, clientErr); err != nil {
			t.Fatal(err)
		}
		if state.DidResume {
			t.Error("the server resumed a session")
		}
	}
	peer, _ := Parse(goodURI)
	outgoing := h.source.ClientTLS(peer)
	if outgoing.ClientSessionCache != nil {
		t.Error("our client remembers sessions")
	}
	resumed := tls.ConnectionState{DidResume: true}
	if err := server.VerifyConnection(resumed); err == nil || !strings.Contains(err.Error(), "resumed") {
		t.Error("a server accepts a resumed session")
	}
	if err := outgoing.VerifyConnection(resumed); err == nil || !strings.Contains(err.Error(), "resumed") {
		t.Error("a client accepts a resumed session")
	}
}
