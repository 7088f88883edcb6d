// Package seal encrypts the keys that a service keeps, under a key-encryption key that is not in its database.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"errors"
	"fmt"
)

// KeySize is the size of a key-encryption key.
const KeySize = 32

// Box seals and opens small secrets. It is safe for concurrent use.
type Box struct{ aead cipher.AEAD }

// New returns a box under a key of KeySize.
func New(key []byte) (*Box, error) {
	if len(key) != KeySize {
		return nil, errors.New("the key-encryption key has not 32 bytes")
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	return &Box{aead}, nil
}

// Seal encrypts secret for the place that is named by the parts: it opens in no other.
func (b *Box) Seal(secret []byte, place ...string) []byte {
	return b.aead.Seal(nil, nil, secret, digest(place)) //nolint:gosec // this AEAD makes its nonces itself
}

// Open decrypts what Seal made for the same place.
func (b *Box) Open(sealed []byte, place ...string) ([]byte, error) {
	secret, err := b.aead.Open(nil, nil, sealed, digest(place))
	if err != nil {
		return nil, fmt.Errorf("a stored key does not open: wrong key-encryption key, or changed: %w", err)
	}
	return secret, nil
}

// digest keeps places apart whose parts join to the same text.
func digest(place []string) []byte {
	h := sha256.New()
	for _, part := range place {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return h.Sum(nil)
}
