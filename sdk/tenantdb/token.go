package tenantdb

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"sync"
)

// tokenLost stands for a commit whose position was not learned: no DB opens it.
const tokenLost = "-"

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
	return base64.RawURLEncoding.EncodeToString(t.aead.Seal(nil, nil, plain, bound(at)))
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

// session is what one caller has to see, across the calls of its context.
type session struct {
	mu    sync.Mutex
	token string // the last one that is known
}

type sessionKey struct{}

// WithToken returns a context whose reads see the commit that the token is of, and whose
// commits are noted for [DB.Token]. The token is what Token returned for an earlier request of
// the same caller, maybe in another process with the same [Config.TokenKey], and "" when the
// caller has none: it then is taken to have written nothing lately. One that cannot be read,
// or is of another tenant or placement, sends the reads to the primary.
//
// Packages tenanthttp and tenantgrpc carry tokens in a cookie and in metadata.
func (db *DB) WithToken(ctx context.Context, token string) context.Context {
	return context.WithValue(ctx, sessionKey{}, &session{token: token})
}

// Token returns the token of the last commit that was made in a context of [DB.WithToken], or
// the one that was given there, or "". Tokens are short texts of letters, digits, "-" and "_".
func (db *DB) Token(ctx context.Context) string {
	s := sessionOf(ctx)
	if s == nil {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.token
}

func sessionOf(ctx context.Context) *session {
	s, _ := ctx.Value(sessionKey{}).(*session)
	return s
}

func (s *session) note(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token = token
}
