// Package seal encrypts the keys that a service keeps, under key-encryption keys that are not in its database.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
)

// KeySize is the size of a key-encryption key.
const KeySize = 32

// Box seals and opens small secrets. It is safe for concurrent use.
type Box struct {
	id    string
	aeads []cipher.AEAD // the first seals
}

// New returns a box under keys of KeySize: the first seals, and all open, so that a key can be replaced while the one
// before still opens what it sealed.
func New(keys ...[]byte) (*Box, error) {
	if len(keys) == 0 {
		return nil, errors.New("there is no key-encryption key")
	}
	b := &Box{id: idOf(keys[0])}
	for _, key := range keys {
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
		b.aeads = append(b.aeads, aead)
	}
	return b, nil
}

// idOf tells keys apart and says nothing about them: they are random.
func idOf(key []byte) string {
	const size = 8
	sum := sha256.Sum256(append([]byte("rowhouse-kek/v1\x00"), key...))
	return hex.EncodeToString(sum[:size])
}

// ID names the key that seals.
func (b *Box) ID() string { return b.id }

// Seal encrypts secret for the place that is named by the parts: it opens in no other.
func (b *Box) Seal(secret []byte, place ...string) []byte {
	return b.aeads[0].Seal(nil, nil, secret, digest(place)) //nolint:gosec // this AEAD makes its nonces itself
}

// Open decrypts what Seal made for the same place, under any of the box's keys.
func (b *Box) Open(sealed []byte, place ...string) ([]byte, error) {
	at := digest(place)
	var err error
	for _, aead := range b.aeads {
		var secret []byte
		if secret, err = aead.Open(nil, nil, sealed, at); err == nil {
			return secret, nil
		}
	}
	return nil, fmt.Errorf("a stored key does not open: wrong key-encryption key, or changed: %w", err)
}

// digest keeps places apart whose parts join to the same text.
func digest(place []string) []byte {
	h := sha256.New()
	for _, part := range place {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return h.Sum(nil)
}
