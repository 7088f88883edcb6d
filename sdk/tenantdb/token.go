package tenantdb

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
)

// tokens seals positions. A token says nothing to who holds it, because a position tells how
// much the whole cell writes, and it opens for the tenant and the placement it was made for.
type tokens struct{ aead cipher.AEAD }

func newTokens(key []byte) (tokens, error) {
	if key == nil {
		key = make([]byte, 32)
		_, _ = rand.Read(key) // it never fails
	}
	if len(key) != 32 {
		return tokens{}, fmt.Errorf("the token key has %d bytes, want 32", len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return tokens{}, fmt.Errorf("token key: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return tokens{}, fmt.Errorf("token key: %w", err)
	}
	return tokens{aead}, nil
}

// bound is what a token is for.
func bound(at place) []byte {
	uid := at.tenant.UID()
	b := append([]byte("rowhouse read token 1"), uid[:]...)
	b = binary.BigEndian.AppendUint32(b, at.tenant.CellNumber())
	return binary.BigEndian.AppendUint64(b, at.tenant.PlacementGeneration())
}

func (t tokens) seal(at place, p position) string {
	plain := binary.BigEndian.AppendUint32(nil, uint32(p.timeline)) //nolint:gosec // its bits
	plain = binary.BigEndian.AppendUint64(plain, uint64(p.lsn))     //nolint:gosec // not negative
	sealed := t.aead.Seal(nil, nil, plain, bound(at))               //nolint:gosec // the cipher makes its own nonce
	return base64.RawURLEncoding.EncodeToString(sealed)
}

func (t tokens) open(at place, token string) (position, bool) {
	sealed, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return position{}, false
	}
	plain, err := t.aead.Open(nil, nil, sealed, bound(at))
	if err != nil || len(plain) != 12 {
		return position{}, false
	}
	//nolint:gosec // as they were sealed
	return position{int32(binary.BigEndian.Uint32(plain)), int64(binary.BigEndian.Uint64(plain[4:]))}, true
}
