package tenant

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/identity"
)

// MaxKeyLife is the longest life of a key certificate.
const MaxKeyLife = 48 * time.Hour

const (
	certificatePrefix = "rowhouse-key/v1\x00"
	maxCertificate    = 2048
	maxCells          = 64
)

// Classes is a set of context classes.
type Classes uint8

// ClassesOf returns the set that holds the given classes.
func ClassesOf(classes ...Class) Classes {
	var s Classes
	for _, c := range classes {
		s |= 1 << c
	}
	return s
}

// Has reports whether the set holds c.
func (s Classes) Has(c Class) bool {
	return c >= ClassSession && c <= ClassTransaction && s&(1<<c) != 0
}

// KeyCertificate says which contexts a key may sign. The trust root signs it;
// see [SignKeyCertificate].
type KeyCertificate struct {
	// KeyID is derived from PublicKey; a signer of certificates may leave it zero.
	KeyID KeyID
	// PublicKey verifies the tokens; 32 bytes.
	PublicKey ed25519.PublicKey
	// Minter is the minter that the tokens must name.
	Minter string
	// SPIFFE is the process that holds the private key.
	SPIFFE identity.ID
	// Cells holds the cells whose tenants the key may speak for: 1 to 64 labels.
	Cells []string
	// Audience holds every audience bit that a token may have.
	Audience Audience
	// Classes holds the classes that the key may sign.
	Classes Classes
	// NotBefore and NotAfter bound the use of the key, in whole seconds, NotAfter
	// excluded. They lie at most MaxKeyLife apart.
	NotBefore, NotAfter time.Time
}

// Tags of the certificate's encoding: a protobuf message in the same canonical
// form as the context's payload.
const (
	certTagPublicKey = 1<<3 | wireBytes
	certTagMinter    = 2<<3 | wireBytes
	certTagSPIFFE    = 3<<3 | wireBytes
	certTagCell      = 4<<3 | wireBytes
	certTagAudience  = 5<<3 | wireFixed64
	certTagClasses   = 6<<3 | wireVarint
	certTagNotBefore = 7<<3 | wireVarint
	certTagNotAfter  = 8<<3 | wireVarint
)

// SignKeyCertificate returns the certificate as bytes that root signed. Cells
// are written in order. It fails when a field breaks its rule.
func SignKeyCertificate(root ed25519.PrivateKey, cert KeyCertificate) ([]byte, error) {
	if len(root) != ed25519.PrivateKeySize {
		return nil, errors.New("a trust root has 64 bytes")
	}
	cert.Cells = slices.Sorted(slices.Values(cert.Cells))
	if err := cert.check(); err != nil {
		return nil, fmt.Errorf("key certificate: %w", err)
	}
	message := appendCertificate([]byte(certificatePrefix), &cert)
	return append(message[len(certificatePrefix):], ed25519.Sign(root, message)...), nil
}

// ParseKeyCertificate reads a certificate that one of roots signed. It does not
// look at the clock: [Verifier] does, on every call.
func ParseKeyCertificate(roots []ed25519.PublicKey, b []byte) (KeyCertificate, error) {
	if len(b) <= ed25519.SignatureSize || len(b) > maxCertificate {
		return KeyCertificate{}, errors.New("key certificate: size out of range")
	}
	body, signature := b[:len(b)-ed25519.SignatureSize], b[len(b)-ed25519.SignatureSize:]
	message := append([]byte(certificatePrefix), body...)
	signed := slices.ContainsFunc(roots, func(root ed25519.PublicKey) bool {
		return len(root) == ed25519.PublicKeySize && ed25519.Verify(root, message, signature)
	})
	if !signed {
		return KeyCertificate{}, errors.New("key certificate: no trusted root signed it")
	}
	var cert KeyCertificate
	if err := decodeCertificate(string(body), &cert); err != nil {
		return KeyCertificate{}, fmt.Errorf("key certificate: %w", err)
	}
	return cert, nil
}

func appendCertificate(b []byte, c *KeyCertificate) []byte {
	b = appendBlob(b, certTagPublicKey, c.PublicKey)
	b = appendString(b, certTagMinter, c.Minter)
	b = appendString(b, certTagSPIFFE, c.SPIFFE.String())
	for _, cell := range c.Cells {
		b = appendString(b, certTagCell, cell)
	}
	b = appendFixed64(b, certTagAudience, uint64(c.Audience))
	b = appendVarint(b, certTagClasses, uint64(c.Classes))
	b = appendVarint(b, certTagNotBefore, seconds(c.NotBefore))
	return appendVarint(b, certTagNotAfter, seconds(c.NotAfter))
}

func decodeCertificate(body string, c *KeyCertificate) error {
	for rest := body; rest != ""; {
		tag, next, ok := readVarint(rest)
		if !ok {
			return errEncoding
		}
		if rest, ok = c.readField(tag, next); !ok {
			return errEncoding
		}
	}
	if err := c.check(); err != nil {
		return err
	}
	if string(appendCertificate(nil, c)) != body {
		return errEncoding
	}
	c.KeyID = KeyIDOf(c.PublicKey)
	return nil
}

func (c *KeyCertificate) readField(tag uint64, s string) (string, bool) {
	switch tag & 7 {
	case wireVarint:
		v, rest, ok := readVarint(s)
		return rest, ok && c.setNumber(tag, v)
	case wireFixed64:
		v, rest, ok := readFixed64(s)
		c.Audience = Audience(v)
		return rest, ok && tag == certTagAudience
	case wireBytes:
		v, rest, ok := readBytes(s)
		return rest, ok && c.setBytes(tag, v)
	default:
		return "", false
	}
}

func (c *KeyCertificate) setNumber(tag, v uint64) bool {
	switch tag {
	case certTagClasses:
		c.Classes = Classes(v) //nolint:gosec // a cut value does not re-encode
	case certTagNotBefore:
		return setTime(&c.NotBefore, v)
	case certTagNotAfter:
		return setTime(&c.NotAfter, v)
	default:
		return false
	}
	return true
}

func (c *KeyCertificate) setBytes(tag uint64, v string) bool {
	switch tag {
	case certTagPublicKey:
		c.PublicKey = ed25519.PublicKey(v)
	case certTagMinter:
		c.Minter = v
	case certTagSPIFFE:
		id, err := identity.Parse(v)
		c.SPIFFE = id
		return err == nil
	case certTagCell:
		c.Cells = append(c.Cells, v)
	default:
		return false
	}
	return true
}

func (c *KeyCertificate) check() error {
	switch {
	case len(c.PublicKey) != ed25519.PublicKeySize:
		return errors.New("public key has not 32 bytes")
	case c.KeyID != KeyID{} && c.KeyID != KeyIDOf(c.PublicKey):
		return errors.New("key id is not that of the public key")
	case !isLabelUpTo(c.Minter, maxMinter):
		return errors.New("minter is not a label or too long")
	case c.SPIFFE.IsZero():
		return errors.New("the key's holder is missing")
	case c.Audience == 0:
		return errors.New("audience is empty")
	case c.Classes == 0 || c.Classes&^ClassesOf(ClassSession, ClassTransaction) != 0:
		return errors.New("classes are empty or unknown")
	}
	return errors.Join(c.checkCells(), c.checkTimes())
}

func (c *KeyCertificate) checkCells() error {
	if len(c.Cells) == 0 || len(c.Cells) > maxCells {
		return errors.New("a key is for 1 to 64 cells")
	}
	for i, cell := range c.Cells {
		if !isLabelUpTo(cell, maxCell) {
			return errors.New("cell is not a label or too long")
		}
		if i > 0 && c.Cells[i-1] >= cell {
			return errors.New("cells do not ascend")
		}
	}
	return nil
}

func (c *KeyCertificate) checkTimes() error {
	life := c.NotAfter.Sub(c.NotBefore)
	if c.NotBefore.Unix() < 1 || c.NotAfter.Unix() > maxSeconds || life <= 0 || life > MaxKeyLife {
		return errors.New("the life of a key is more than 0 and at most 48 h")
	}
	if c.NotBefore.Nanosecond() != 0 || c.NotAfter.Nanosecond() != 0 {
		return errors.New("times are whole seconds")
	}
	return nil
}

// covers reports why the certificate does not allow claims, or nil.
func (c *KeyCertificate) covers(claims *Claims) error {
	switch {
	case claims.Minter != c.Minter:
		return errors.New("key is certified for another minter")
	case !slices.Contains(c.Cells, claims.Cell):
		return errors.New("key is not certified for the cell")
	case !c.Audience.Has(claims.Audience):
		return errors.New("key is not certified for the audience")
	case !c.Classes.Has(claims.Class):
		return errors.New("key is not certified for the class")
	default:
		return nil
	}
}
