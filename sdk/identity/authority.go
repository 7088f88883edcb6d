package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// DevOrganization is written into every root that an [Authority] makes, so that
// a production configuration can refuse to trust one: see [Source.TrustsDevRoot].
const DevOrganization = "rowhouse-dev"

// File names that [Authority.Write], [OpenAuthority] and [Pair.Write] use.
const (
	CertFile  = "cert.pem"
	KeyFile   = "key.pem"
	RootsFile = "roots.pem"
)

const (
	defaultRootLife = 30 * 24 * time.Hour
	defaultLeafLife = 24 * time.Hour
	// backdate forgives clocks that differ a little between issuer and peer.
	backdate = time.Minute
)

// AuthorityConfig says which certificates an [Authority] makes.
type AuthorityConfig struct {
	// TrustDomain is the only domain it can vouch for, such as
	// "rowhouse.localhost". Required.
	TrustDomain string
	// Clock dates the certificates. Default: time.Now.
	Clock func() time.Time
	// RootLife is how long the root is valid. Default: 30 days.
	RootLife time.Duration
	// LeafLife is how long a leaf is valid when the request does not say.
	// Default: 24 hours.
	LeafLife time.Duration
}

// Authority is a small certificate authority for development and tests. Its
// root is name-constrained: it can vouch for identities of its trust domain and
// for host names below localhost or the trust domain, and for nothing else. It
// may be used from several goroutines.
type Authority struct {
	cfg  AuthorityConfig
	root *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Leaf asks for one certificate.
type Leaf struct {
	// ID is the identity that the certificate carries. Required.
	ID ID
	// DNSNames are extra host names, for listeners that browsers visit.
	DNSNames []string
	// IPs are extra addresses; the root allows loopback only.
	IPs []net.IP
	// Life overrides the authority's leaf life.
	Life time.Duration
}

// Pair is a certificate chain with its private key and the roots to trust.
type Pair struct {
	// Cert is the PEM certificate.
	Cert []byte
	// Key is the PEM private key (PKCS #8). It is a secret.
	Key []byte
	// Roots are the PEM roots that vouch for the certificate.
	Roots []byte
}

// NewAuthority makes a root with a fresh P-256 key.
func NewAuthority(cfg AuthorityConfig) (*Authority, error) {
	cfg = cfg.withDefaults()
	if err := checkDomain(cfg.TrustDomain); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the root's key: %w", err)
	}
	template := rootTemplate(cfg)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign the root: %w", err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the new root: %w", err)
	}
	return &Authority{cfg: cfg, root: root, key: key}, nil
}

// OpenAuthority reads the root that [Authority.Write] left in dir. An error that
// wraps os.ErrNotExist means that there is none yet.
func OpenAuthority(dir string, cfg AuthorityConfig) (*Authority, error) {
	cfg = cfg.withDefaults()
	certPEM, err := os.ReadFile(filepath.Join(dir, CertFile))
	if err != nil {
		return nil, fmt.Errorf("read the root: %w", err)
	}
	keyPEM, err := os.ReadFile(filepath.Join(dir, KeyFile))
	if err != nil {
		return nil, fmt.Errorf("read the root's key: %w", err)
	}
	root, err := parseCertificate(certPEM)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, CertFile), err)
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, KeyFile), err)
	}
	if !key.PublicKey.Equal(root.PublicKey) {
		return nil, fmt.Errorf("%s: root and key do not belong together", dir)
	}
	return &Authority{cfg: cfg, root: root, key: key}, nil
}

// NotAfter returns when the root expires.
func (a *Authority) NotAfter() time.Time { return a.root.NotAfter }

// RootsPEM returns the root as PEM, for the trust of others.
func (a *Authority) RootsPEM() []byte { return encodePEM("CERTIFICATE", a.root.Raw) }

// Write stores the root and its key in dir, readable by the owner alone.
func (a *Authority) Write(dir string) error {
	keyPEM, err := marshalKey(a.key)
	if err != nil {
		return err
	}
	return Pair{Cert: a.RootsPEM(), Key: keyPEM, Roots: a.RootsPEM()}.Write(dir)
}

// Issue makes a certificate with a fresh key for the leaf's identity, good for
// both ends of a connection. It refuses identities of other trust domains. A
// leaf never outlives the root.
func (a *Authority) Issue(leaf Leaf) (Pair, error) {
	if leaf.ID.IsZero() || leaf.ID.TrustDomain() != a.cfg.TrustDomain {
		return Pair{}, fmt.Errorf("identity %q is not of trust domain %q", leaf.ID, a.cfg.TrustDomain)
	}
	template, err := a.leafTemplate(leaf)
	if err != nil {
		return Pair{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.root, key.Public(), a.key)
	if err != nil {
		return Pair{}, fmt.Errorf("sign %s: %w", leaf.ID, err)
	}
	keyPEM, err := marshalKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{Cert: encodePEM("CERTIFICATE", der), Key: keyPEM, Roots: a.RootsPEM()}, nil
}

// Write stores cert.pem, key.pem and roots.pem in dir (0700, files 0600). Each
// file is replaced whole, the certificate last, so that a [Source] that reads in
// between keeps what it had.
func (p Pair) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the folder for certificates: %w", err)
	}
	return errors.Join(
		replaceFile(filepath.Join(dir, RootsFile), p.Roots),
		replaceFile(filepath.Join(dir, KeyFile), p.Key),
		replaceFile(filepath.Join(dir, CertFile), p.Cert),
	)
}

func (cfg AuthorityConfig) withDefaults() AuthorityConfig {
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.RootLife == 0 {
		cfg.RootLife = defaultRootLife
	}
	if cfg.LeafLife == 0 {
		cfg.LeafLife = defaultLeafLife
	}
	return cfg
}

func rootTemplate(cfg AuthorityConfig) *x509.Certificate {
	now := cfg.Clock()
	return &x509.Certificate{
		SerialNumber: newSerial(),
		Subject: pkix.Name{
			Organization: []string{DevOrganization},
			CommonName:   "Rowhouse development root " + cfg.TrustDomain,
		},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(cfg.RootLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		// A stolen development key must not open anything but development.
		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         []string{"localhost", cfg.TrustDomain},
		PermittedURIDomains:         []string{cfg.TrustDomain},
		PermittedEmailAddresses:     []string{cfg.TrustDomain},
		PermittedIPRanges:           loopbackRanges(),
	}
}

func (a *Authority) leafTemplate(leaf Leaf) (*x509.Certificate, error) {
	uri, err := url.Parse(leaf.ID.String())
	if err != nil {
		return nil, fmt.Errorf("identity %q as URI: %w", leaf.ID, err)
	}
	life := leaf.Life
	if life == 0 {
		life = a.cfg.LeafLife
	}
	now := a.cfg.Clock()
	end := now.Add(life)
	if end.After(a.root.NotAfter) {
		end = a.root.NotAfter
	}
	return &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{Organization: []string{DevOrganization}},
		NotBefore:             now.Add(-backdate),
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		URIs:                  []*url.URL{uri},
		DNSNames:              leaf.DNSNames,
		IPAddresses:           leaf.IPs,
	}, nil
}

func loopbackRanges() []*net.IPNet {
	return []*net.IPNet{
		{IP: net.IPv4(127, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)},
		{IP: net.IPv6loopback, Mask: net.CIDRMask(128, 128)},
	}
}

// newSerial returns a positive number of 127 bits.
func newSerial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:])
}

func marshalKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a private key: %w", err)
	}
	return encodePEM("PRIVATE KEY", der), nil
}

func parseKey(b []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("no PEM private key")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("decode a private key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("the private key is not ECDSA")
	}
	return key, nil
}

func parseCertificate(b []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("no PEM certificate")
	}
	return x509.ParseCertificate(block.Bytes)
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// replaceFile writes beside the target and renames, so that no reader sees half
// a file and the mode is 0600 from the first byte.
func replaceFile(path string, content []byte) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	_, err = io.Copy(tmp, bytes.NewReader(content))
	if err = errors.Join(err, tmp.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err = os.Rename(tmp.Name(), path); err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	return nil
}
