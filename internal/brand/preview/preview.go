// Package preview makes and reads the tokens of preview links: config's signed word that whoever shows it may see one
// draft of one tenant's brand on one host for some time. Gateways read them without asking anybody. Start with Token.
package preview

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// MaxAge is the longest that a link works.
const MaxAge = 7 * 24 * time.Hour

// Token is what a link says.
type Token struct {
	Tenant tenant.UID
	// Revision is that of the draft: a changed draft has other links.
	Revision int64
	// Expires is when the link ends, in whole seconds.
	Expires time.Time
	// Host is the canonical host on which it works.
	Host string
}

// ErrToken is what is no token, or none that is good now.
var ErrToken = errors.New("preview: not a token that is good now")

// prefix keeps a signature over anything else of the same key from being one over a token.
const prefix = "rowhouse-brand-preview/v1\x00"

const fixed = 16 + 8 + 8

// Sign writes a token.
func (t Token) Sign(key ed25519.PrivateKey) string {
	b := append([]byte{}, t.Tenant[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(t.Revision))       //nolint:gosec // never negative
	b = binary.BigEndian.AppendUint64(b, uint64(t.Expires.Unix())) //nolint:gosec // after 1970
	b = append(b, t.Host...)
	return base64.RawURLEncoding.EncodeToString(append(b, ed25519.Sign(key, append([]byte(prefix), b...))...))
}

// Read reads a token that one of the keys signed and whose time has not come. There is one way to write each token.
func Read(text string, keys []ed25519.PublicKey, now time.Time) (Token, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) <= fixed+ed25519.SignatureSize || base64.RawURLEncoding.EncodeToString(b) != text { // the decoder skips line ends
		return Token{}, ErrToken
	}
	said, signature := b[:len(b)-ed25519.SignatureSize], b[len(b)-ed25519.SignatureSize:]
	for _, key := range keys {
		if !ed25519.Verify(key, append([]byte(prefix), said...), signature) {
			continue
		}
		t := Token{
			Revision: int64(binary.BigEndian.Uint64(said[16:])),               //nolint:gosec // as it was written
			Expires:  time.Unix(int64(binary.BigEndian.Uint64(said[24:])), 0), //nolint:gosec // as it was written
			Host:     string(said[fixed:]),
		}
		copy(t.Tenant[:], said)
		if left := t.Expires.Sub(now); left <= 0 || left > MaxAge+time.Minute {
			return Token{}, ErrToken
		}
		return t, nil
	}
	return Token{}, ErrToken
}
