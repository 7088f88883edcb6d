package identity

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// pollEvery bounds how often the files are looked at, however many handshakes
// there are.
const pollEvery = time.Second

// Options tune a [Source]. The zero value is good for production.
type Options struct {
	// Clock judges validity times and paces reloads. Default: time.Now.
	Clock func() time.Time
	// OnReload is told about each attempt to take changed files: nil for
	// success, else why the old ones stay in use. It runs inside a handshake,
	// so it must be quick. Default: nobody is told.
	OnReload func(error)
}

// Source holds a process's own certificate and the roots it trusts. It follows
// its files: changed files are taken at the next handshake, at most a second
// later, and files that cannot be used leave the old ones in force. It has no
// goroutine and may be used from several.
type Source struct {
	opts   Options
	read   func() (Pair, error)
	domain string
	id     ID

	current atomic.Pointer[material]

	looking sync.Mutex // held by the one who looks at the files; guards the rest
	checked time.Time
	pair    Pair
}

// material is one consistent reading of the files; never changed once made.
type material struct {
	cert  *tls.Certificate
	roots *x509.CertPool
	dev   bool
}

// Files reads certificate, key and roots (PEM) and follows the three files. It
// fails when the certificate is not valid now, is not vouched for by the roots
// for both ends of a connection, or does not carry exactly one identity.
func Files(cert, key, roots string, opts Options) (*Source, error) {
	return newSource(opts, func() (Pair, error) { return readPair(cert, key, roots) })
}

// FromPair is [Files] for certificates in memory, which never change. Tests and
// processes that issue for themselves use it.
func FromPair(pair Pair, opts Options) (*Source, error) {
	return newSource(opts, func() (Pair, error) { return pair, nil })
}

func newSource(opts Options, read func() (Pair, error)) (*Source, error) {
	if opts.Clock == nil {
		opts.Clock = time.Now
	}
	if opts.OnReload == nil {
		opts.OnReload = func(error) {}
	}
	pair, err := read()
	if err != nil {
		return nil, err
	}
	now := opts.Clock()
	first, id, err := load(pair, now)
	if err != nil {
		return nil, err
	}
	s := &Source{opts: opts, read: read, id: id, domain: id.TrustDomain(), checked: now, pair: pair}
	s.current.Store(first)
	return s, nil
}

// ID returns the process's own identity. It never changes: files that hold
// another identity are refused.
func (s *Source) ID() ID { return s.id }

// TrustsDevRoot reports whether one of the trusted roots was made for
// development. A production configuration refuses to start with such a root. One
// answer of false holds for good: a source that began without such a root refuses
// files that bring one.
func (s *Source) TrustsDevRoot() bool { return s.now().dev }

// ServerOption changes what [Source.ServerTLS] asks of clients.
type ServerOption func(*serverOptions)

type serverOptions struct {
	auth   tls.ClientAuthType
	protos []string
}

// OptionalClient lets clients in that show no certificate, for listeners where
// operators prove themselves with a token. A certificate that is shown is still
// verified in full. [FromPeer] reports false for clients without one.
func OptionalClient() ServerOption {
	return func(o *serverOptions) { o.auth = tls.VerifyClientCertIfGiven }
}

// WithHTTP1 lets clients negotiate HTTP/1.1 beside HTTP/2.
func WithHTTP1() ServerOption {
	return func(o *serverOptions) { o.protos = append(o.protos, "http/1.1") }
}

// ServerTLS returns a configuration for listeners: TLS 1.3, no resumption, and
// client certificates that are verified against the roots of the moment and
// carry exactly one identity of the own trust domain. The caller must not change
// it.
func (s *Source) ServerTLS(options ...ServerOption) *tls.Config {
	o := serverOptions{auth: tls.RequireAndVerifyClientCert, protos: []string{"h2"}}
	for _, option := range options {
		option(&o)
	}
	// Fails closed when something uses the outer configuration by itself: it
	// has no certificate and trusts nobody.
	outer := s.serverConfig(o, &material{roots: x509.NewCertPool()})
	outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return s.serverConfig(o, s.now()), nil
	}
	return outer
}

func (s *Source) serverConfig(o serverOptions, m *material) *tls.Config {
	cfg := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             slices.Clone(o.protos),
		ClientAuth:             o.auth,
		ClientCAs:              m.roots,
		Time:                   s.opts.Clock,
		SessionTicketsDisabled: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			return s.verifyClient(state, o.auth)
		},
	}
	if m.cert != nil {
		cfg.Certificates = []tls.Certificate{*m.cert}
	}
	return cfg
}

// verifyClient runs after the chain was verified, on every handshake.
func (s *Source) verifyClient(state tls.ConnectionState, auth tls.ClientAuthType) error {
	if err := refuseResumption(state); err != nil {
		return err
	}
	if len(state.PeerCertificates) == 0 && auth == tls.VerifyClientCertIfGiven {
		return nil
	}
	if len(state.VerifiedChains) == 0 {
		return errors.New("the client's certificate was not verified")
	}
	id, err := checkLeaf(state.PeerCertificates[0], x509.ExtKeyUsageClientAuth)
	if err != nil {
		return err
	}
	if id.TrustDomain() != s.domain {
		return fmt.Errorf("client %s is of a foreign trust domain", id)
	}
	return nil
}

// ClientTLS returns a configuration for connections to peer and nobody else. The
// server's chain is verified against the roots of the moment; who it is decides
// its identity alone, so host names and addresses do not matter. The caller may
// set NextProtos and nothing else.
func (s *Source) ClientTLS(peer ID) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		Time:       s.opts.Clock,
		// Not insecure: VerifyConnection does all of it. The built-in check
		// would insist on host names, which identify nobody here.
		InsecureSkipVerify: true, //nolint:gosec // see above
		VerifyConnection: func(state tls.ConnectionState) error {
			return verifyServer(state, s.now().roots, s.opts.Clock(), peer)
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return s.now().cert, nil
		},
	}
}

// AnonymousClientTLS returns a configuration for callers that have no
// certificate of their own and prove themselves otherwise, such as an operator's
// command line. It checks the server as [Source.ClientTLS] does. A nil clock is
// time.Now.
func AnonymousClientTLS(rootsPEM []byte, peer ID, clock func() time.Time) (*tls.Config, error) {
	roots, _, err := parseRoots(rootsPEM)
	if err != nil {
		return nil, err
	}
	if clock == nil {
		clock = time.Now
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		Time:               clock,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection does all of it
		VerifyConnection: func(state tls.ConnectionState) error {
			return verifyServer(state, roots, clock(), peer)
		},
	}, nil
}

func verifyServer(state tls.ConnectionState, roots *x509.CertPool, now time.Time, want ID) error {
	if err := refuseResumption(state); err != nil {
		return err
	}
	if len(state.PeerCertificates) == 0 {
		return errors.New("the server showed no certificate")
	}
	if err := verifyChain(state.PeerCertificates, roots, now, x509.ExtKeyUsageServerAuth); err != nil {
		return err
	}
	id, err := checkLeaf(state.PeerCertificates[0], x509.ExtKeyUsageServerAuth)
	if err != nil {
		return err
	}
	if want.IsZero() || id != want {
		return fmt.Errorf("the server is %s, expected %q", id, want)
	}
	return nil
}

// refuseResumption guards a promise that both ends make: nothing is resumed, so
// a root or peer that lost trust has no session to come back with.
func refuseResumption(state tls.ConnectionState) error {
	if state.DidResume {
		return errors.New("resumed TLS sessions are refused")
	}
	return nil
}

func verifyChain(chain []*x509.Certificate, roots *x509.CertPool, now time.Time, usage x509.ExtKeyUsage) error {
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return fmt.Errorf("verify the certificate: %w", err)
	}
	return nil
}

// FromTLS returns who is at the other end of a server's connection. It reports
// false unless the client's certificate was verified and carries one identity.
func FromTLS(state *tls.ConnectionState) (ID, bool) {
	if state == nil || len(state.VerifiedChains) == 0 || len(state.PeerCertificates) == 0 {
		return ID{}, false
	}
	id, err := checkLeaf(state.PeerCertificates[0], x509.ExtKeyUsageClientAuth)
	return id, err == nil
}

// FromPeer returns who called the gRPC method that ctx belongs to. It reports
// false outside of a gRPC server and for callers without a verified certificate.
func FromPeer(ctx context.Context) (ID, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ID{}, false
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return ID{}, false
	}
	return FromTLS(&info.State)
}

// checkLeaf returns the identity of a certificate that may stand for a process
// at one end of a connection. The standard library takes a certificate without
// usages for one with all of them; here the usage must be written down.
func checkLeaf(cert *x509.Certificate, usage x509.ExtKeyUsage) (ID, error) {
	switch {
	case cert.IsCA:
		return ID{}, errors.New("the certificate is an authority's, not a process's")
	case cert.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return ID{}, errors.New("the certificate's key usage does not allow signatures")
	case !slices.Contains(cert.ExtKeyUsage, usage):
		return ID{}, errors.New("the certificate does not name the usage it is shown for")
	}
	return idOf(cert)
}

// idOf reads the one identity of a certificate.
func idOf(cert *x509.Certificate) (ID, error) {
	uris, err := rawURIs(cert)
	if err != nil {
		return ID{}, err
	}
	if len(uris) != 1 {
		return ID{}, fmt.Errorf("the certificate carries %d URIs, expected exactly one", len(uris))
	}
	return Parse(uris[0])
}

// rawURIs returns the URIs as the certificate spells them. cert.URIs went
// through a URL parser, which forgives capitals in the scheme and a trailing "#".
func rawURIs(cert *x509.Certificate) ([]string, error) {
	const tagURI = 6 // GeneralName.uniformResourceIdentifier, RFC 5280 4.2.1.6
	var uris []string
	for _, extension := range cert.Extensions {
		if !extension.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}) {
			continue
		}
		var names []asn1.RawValue
		if rest, err := asn1.Unmarshal(extension.Value, &names); err != nil || len(rest) > 0 {
			return nil, errors.New("the certificate's alternative names cannot be read")
		}
		for _, name := range names {
			if name.Class == asn1.ClassContextSpecific && name.Tag == tagURI {
				uris = append(uris, string(name.Bytes))
			}
		}
	}
	return uris, nil
}

// now returns the material of the moment, after looking at the files when the
// last look is older than pollEvery. While one handshake looks, which a slow disk
// may draw out, the others go on with what is in force.
func (s *Source) now() *material {
	if s.looking.TryLock() {
		defer s.looking.Unlock()
		s.look()
	}
	return s.current.Load()
}

// look is called with looking held.
func (s *Source) look() {
	now := s.opts.Clock()
	if age := now.Sub(s.checked); age >= 0 && age < pollEvery {
		return
	}
	s.checked = now
	pair, err := s.read()
	if err != nil {
		s.opts.OnReload(err)
		return
	}
	if pair.equal(s.pair) {
		return
	}
	next, err := s.reload(pair, now)
	s.opts.OnReload(err)
	if err == nil {
		s.pair = pair
		s.current.Store(next)
	}
}

func (s *Source) reload(pair Pair, now time.Time) (*material, error) {
	next, id, err := load(pair, now)
	if err != nil {
		return nil, err
	}
	if id != s.id {
		return nil, fmt.Errorf("the new certificate is for %s, this process is %s", id, s.id)
	}
	if next.dev && !s.current.Load().dev {
		return nil, errors.New("the new roots hold one that was made for development, the old ones do not")
	}
	return next, nil
}

// load makes material of files and refuses what no peer would accept.
func load(pair Pair, now time.Time) (*material, ID, error) {
	cert, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		return nil, ID{}, fmt.Errorf("read certificate and key: %w", err)
	}
	roots, dev, err := parseRoots(pair.Roots)
	if err != nil {
		return nil, ID{}, err
	}
	chain, err := parseChain(cert.Certificate)
	if err != nil {
		return nil, ID{}, err
	}
	var id ID
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		if err := verifyChain(chain, roots, now, usage); err != nil {
			return nil, ID{}, fmt.Errorf("own certificate: %w", err)
		}
		if id, err = checkLeaf(chain[0], usage); err != nil {
			return nil, ID{}, fmt.Errorf("own certificate: %w", err)
		}
	}
	return &material{cert: &cert, roots: roots, dev: dev}, id, nil
}

func parseChain(ders [][]byte) ([]*x509.Certificate, error) {
	chain := make([]*x509.Certificate, 0, len(ders))
	for _, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("read the certificate's chain: %w", err)
		}
		chain = append(chain, c)
	}
	return chain, nil
}

// parseRoots also reports whether one of the roots was made for development.
func parseRoots(b []byte) (*x509.CertPool, bool, error) {
	pool, found, dev := x509.NewCertPool(), false, false
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, false, fmt.Errorf("the roots hold a PEM block of type %q", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, false, fmt.Errorf("read a root: %w", err)
		}
		pool.AddCert(cert)
		found = true
		dev = dev || slices.Contains(cert.Subject.Organization, DevOrganization)
	}
	if !found {
		return nil, false, errors.New("the roots hold no certificate")
	}
	return pool, dev, nil
}

func readPair(cert, key, roots string) (Pair, error) {
	var pair Pair
	for _, f := range []struct {
		path string
		into *[]byte
	}{{cert, &pair.Cert}, {key, &pair.Key}, {roots, &pair.Roots}} {
		content, err := os.ReadFile(f.path)
		if err != nil {
			return Pair{}, fmt.Errorf("read identity files: %w", err)
		}
		*f.into = content
	}
	return pair, nil
}

func (p Pair) equal(q Pair) bool {
	return bytes.Equal(p.Cert, q.Cert) && bytes.Equal(p.Key, q.Key) && bytes.Equal(p.Roots, q.Roots)
}
