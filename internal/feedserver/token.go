package feedserver

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
)

const (
	tokenPrefix = "rowhouse-feed-token/v1\x00"
	tokenBody   = 16 + 8
	tokenMAC    = 16
)

// token seals a position: the history's epoch and the revision, bound to the feed.
func (s *Server) token(feed string, epoch [16]byte, revision int64) string {
	b := make([]byte, 0, tokenBody+tokenMAC)
	b = append(b, epoch[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(revision)) //nolint:gosec // revisions are not negative
	return base64.RawURLEncoding.EncodeToString(append(b, s.mac(feed, b)...))
}

// parseToken opens a token of feed. One that is not ours is answered like one that is too old: the watcher starts over.
func (s *Server) parseToken(feed, token string) (epoch [16]byte, revision int64, err error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) != tokenBody+tokenMAC || !hmac.Equal(b[tokenBody:], s.mac(feed, b[:tokenBody])) {
		return epoch, 0, resync("the resume token is not of this feed")
	}
	copy(epoch[:], b)
	return epoch, int64(binary.BigEndian.Uint64(b[16:])), nil //nolint:gosec // we made it of an int64
}

func (s *Server) mac(feed string, body []byte) []byte {
	h := hmac.New(sha256.New, s.tokenKey)
	h.Write([]byte(tokenPrefix))
	h.Write([]byte(feed))
	h.Write([]byte{0})
	h.Write(body)
	return h.Sum(nil)[:tokenMAC]
}
