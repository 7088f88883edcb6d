package feed

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
)

const (
	signPrefix = "rowhouse-feed/v2\x00"
	keyIDSize  = 8
)

// ErrBookmark says that a bookmark is not signed by a key that the feed trusts.
var ErrBookmark = errors.New("bookmark is not signed by a trusted key")

// KeyID returns the name of a signing key: the first 8 bytes of the SHA-256 of its public half.
func KeyID(key ed25519.PublicKey) []byte {
	sum := sha256.Sum256(key)
	return sum[:keyIDSize]
}

// Sign fills in the key id and the signature of b, which is a bookmark of the feed with this name.
func Sign(key ed25519.PrivateKey, name string, b *apiv1.FeedBookmark) {
	public, _ := key.Public().(ed25519.PublicKey)
	b.KeyId = KeyID(public)
	b.Signature = ed25519.Sign(key, signed(name, b))
}

// Verify checks the signature of b against the trusted keys. It returns [ErrBookmark] when none made it.
func Verify(keys []ed25519.PublicKey, name string, b *apiv1.FeedBookmark) error {
	if len(b.GetRoot()) != sha256.Size {
		return ErrBookmark
	}
	for _, key := range keys {
		if bytes.Equal(KeyID(key), b.GetKeyId()) && ed25519.Verify(key, signed(name, b), b.GetSignature()) {
			return nil
		}
	}
	return ErrBookmark
}

func signed(name string, b *apiv1.FeedBookmark) []byte {
	m := make([]byte, 0, len(signPrefix)+len(name)+1+8+8+sha256.Size)
	m = append(m, signPrefix...)
	m = append(m, name...)
	m = append(m, 0)
	m = binary.BigEndian.AppendUint64(m, uint64(b.GetRevision())) //nolint:gosec // any 64 bits do
	m = binary.BigEndian.AppendUint64(m, uint64(b.GetServerTime().AsTime().UnixNano()))
	return append(m, b.GetRoot()...)
}
