package tenant

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

// MetadataKey is the gRPC metadata entry that carries the token, one value.
const MetadataKey = "rowhouse-tenant-bin"

// MaxTokenSize is the size of the largest token, in bytes.
const MaxTokenSize = frameHeader + maxPayloadSize + ed25519.SignatureSize

const (
	tokenVersion = 0x01
	tokenPrefix  = "rowhouse-tenant/v1\x00"
	frameHeader  = 1 + 8 + 2
	minTokenSize = frameHeader + 1 + ed25519.SignatureSize
)

// KeyID names a signing key: the first 8 bytes of SHA-256 of its public key.
type KeyID [8]byte

// KeyIDOf returns the id of a public key.
func KeyIDOf(key ed25519.PublicKey) KeyID {
	sum := sha256.Sum256(key)
	return KeyID(sum[:8])
}

// Signer makes tokens with one key. It is safe for concurrent use.
type Signer struct {
	key ed25519.PrivateKey
	id  KeyID
}

// NewSigner returns a signer that owns key. It fails when key is not an
// Ed25519 private key.
func NewSigner(key ed25519.PrivateKey) (*Signer, error) {
	if len(key) != ed25519.PrivateKeySize {
		return nil, errors.New("a signing key has 64 bytes")
	}
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("the signing key has no public half")
	}
	return &Signer{key: key, id: KeyIDOf(public)}, nil
}

// KeyID returns the id of the signer's key.
func (s *Signer) KeyID() KeyID { return s.id }

// Sign returns the token that says c. It fails when a claim is missing, too
// long or contradicts another; it does not look at the clock. What a verifier
// accepts is less: the key must be certified for what c claims.
func (s *Signer) Sign(c Claims) ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("claims cannot be signed: %w", err)
	}
	if life := c.ExpireTime.Unix() - c.IssueTime.Unix(); life < 1 || life > c.Class.life() {
		return nil, fmt.Errorf("claims cannot be signed: a %s context cannot live %d s", c.Class, life)
	}
	return s.sign(&c), nil
}

func (s *Signer) sign(c *Claims) []byte {
	message := make([]byte, 0, len(tokenPrefix)+MaxTokenSize)
	message = append(message, tokenPrefix...)
	message = append(message, tokenVersion)
	message = append(message, s.id[:]...)
	message = append(message, 0, 0)
	message = appendPayload(message, c)
	frame := message[len(tokenPrefix):]
	binary.BigEndian.PutUint16(frame[9:], uint16(len(frame)-frameHeader)) //nolint:gosec // at most 309
	return append(frame, ed25519.Sign(s.key, message)...)
}

// OneToken returns the only value of the metadata entry. No value is a fault
// CONTEXT_MISSING; two or more are CONTEXT_INVALID, because choosing one of
// them would be a guess that an attacker could steer.
func OneToken(values []string) (string, error) {
	switch len(values) {
	case 0:
		return "", errMissing()
	case 1:
		return values[0], nil
	default:
		return "", errInvalid(errors.New("more than one tenant context"))
	}
}

// token is a frame cut into its parts; they share the memory of the whole.
type token struct {
	whole     string
	keyID     KeyID
	payload   string
	signature string
}

var errFrame = errors.New("not a tenant context frame")

// parseToken cuts the frame. It checks sizes and version, nothing more.
func parseToken(s string) (token, error) {
	if len(s) < minTokenSize || len(s) > MaxTokenSize || s[0] != tokenVersion {
		return token{}, errFrame
	}
	n := int(s[9])<<8 | int(s[10])
	if n != len(s)-frameHeader-ed25519.SignatureSize {
		return token{}, errFrame
	}
	t := token{whole: s, payload: s[frameHeader : frameHeader+n], signature: s[frameHeader+n:]}
	copy(t.keyID[:], s[1:9])
	return t, nil
}

// verify reports whether key signed the token.
func (t *token) verify(key ed25519.PublicKey) bool {
	var message [len(tokenPrefix) + MaxTokenSize]byte
	n := copy(message[:], tokenPrefix)
	n += copy(message[n:], t.whole)
	n -= ed25519.SignatureSize
	return ed25519.Verify(key, message[:n], message[n:n+ed25519.SignatureSize])
}

func errMissing() error {
	return fault.New(fault.Unauthenticated, fault.ReasonContextMissing, "the call carries no tenant context")
}

// errInvalid gives every forgery the same answer; the cause is for our logs.
func errInvalid(cause error) error {
	return fault.New(fault.Unauthenticated, fault.ReasonContextInvalid, "the tenant context is not valid").WithCause(cause)
}
