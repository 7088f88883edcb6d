// Package page is the paging of our lists: how many rows and bytes a page holds, and tokens that say where the next one begins.
//
// A token is sealed: it can be neither read nor made by a caller, and it opens only for the query that it was made
// for. The package knows nothing of rows but their size; it hands back the last key that it was given. Most callers reach it through
// [change.Tx.Page]. Start at [Open].
//
// [change.Tx.Page]: https://pkg.go.dev/github.com/rowhouse-platform/rowhouse/internal/change#Tx.Page
package page

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

const (
	// DefaultSize is the size of a page when the caller names none.
	DefaultSize = 50
	// MaxSize is the most that a page holds.
	MaxSize = 1000
	// MaxBytes is the most that its rows have on the wire: clients take messages of 4 MiB.
	MaxBytes = 3 << 20
	// KeySize is the size of a sealing key.
	KeySize = 32

	lifetime = 24 * time.Hour
	maxToken = 1024
	timeSize = 8
)

// Query is what a list was asked for. All but Size must be the same on every page.
type Query struct {
	// Method is the full gRPC method.
	Method string
	// Parent, Filter and Order are the request's arguments, as sent.
	Parent, Filter, Order string
	// Size is the request's page_size, Token its page_token.
	Size  int32
	Token string
}

// Page is one page of a query.
type Page struct {
	// Size is how many rows the page holds at most. Ask for one more to know whether there is a next page.
	Size int
	// After is the last key of the page before, as it was given to Next; nil on the first page.
	After []string

	seal cipher.AEAD
	now  time.Time
	aad  []byte
}

// Open reads the paging arguments of a query. Errors: INVALID_FIELD for a negative size; PAGE_TOKEN_INVALID for a token
// that is damaged, of another query, or older than 24 hours. It fails otherwise only when the key is not of KeySize.
func Open(key []byte, now time.Time, q Query) (Page, error) {
	block, err := aes.NewCipher(key)
	if err != nil || len(key) != KeySize {
		return Page{}, errors.New("the key that seals page tokens has a wrong size")
	}
	seal, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return Page{}, fmt.Errorf("seal page tokens: %w", err)
	}
	p := Page{seal: seal, now: now, aad: q.digest()}
	if p.Size, err = size(q.Size); err != nil {
		return Page{}, err
	}
	if q.Token != "" {
		p.After, err = p.open(q.Token)
	}
	return p, err
}

// Limit is how many rows to ask the database for: one more than the page holds.
func (p Page) Limit() int { return p.Size + 1 }

// Next returns the token of the page that begins after the row with this key.
func (p Page) Next(last ...string) (string, error) {
	body := binary.BigEndian.AppendUint64(nil, uint64(p.now.Add(lifetime).Unix())) //nolint:gosec // it is not 1969
	keys, err := json.Marshal(last)
	if err != nil {
		return "", fmt.Errorf("encode a page token: %w", err)
	}
	sealed := p.seal.Seal(nil, nil, append(body, keys...), p.aad) //nolint:gosec // the AEAD makes the nonce
	token := base64.RawURLEncoding.EncodeToString(sealed)
	if len(token) > maxToken {
		return "", fmt.Errorf("a page token of %d bytes is too long", len(token))
	}
	return token, nil
}

// Cut splits rows, of which up to Limit were read, into those of the page and the token of the next one. A page ends
// before MaxBytes, too, but holds at least one row. keyOf gives a row's key in the list's order.
func Cut[R proto.Message](p Page, rows []R, keyOf func(R) []string) ([]R, string, error) {
	n := p.fit(len(rows), func(i int) int { return proto.Size(rows[i]) })
	if n == len(rows) {
		return rows, "", nil
	}
	rows = rows[:n]
	token, err := p.Next(keyOf(rows[n-1])...)
	return rows, token, err
}

// fit is how many of n rows the page holds.
func (p Page) fit(n int, sizeOf func(i int) int) int {
	const framing = 8 // a tag and a length
	bytes := 0
	for i := range min(n, p.Size) {
		if bytes += sizeOf(i) + framing; bytes > MaxBytes {
			return max(i, 1)
		}
	}
	return min(n, p.Size)
}

func size(asked int32) (int, error) {
	switch {
	case asked < 0:
		return 0, fault.New(fault.InvalidArgument, fault.ReasonInvalidField, "page_size must not be negative").
			WithField(fault.FieldViolation{Field: "page_size", Description: "must not be negative"})
	case asked == 0:
		return DefaultSize, nil
	default:
		return int(min(asked, MaxSize)), nil
	}
}

func (p Page) open(token string) ([]string, error) {
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(token) > maxToken {
		return nil, invalid()
	}
	body, err := p.seal.Open(nil, nil, sealed, p.aad)
	if err != nil || len(body) < timeSize || uint64(p.now.Unix()) >= binary.BigEndian.Uint64(body) { //nolint:gosec // see Next
		return nil, invalid()
	}
	var last []string
	if err := json.Unmarshal(body[timeSize:], &last); err != nil {
		return nil, invalid()
	}
	return last, nil
}

func invalid() error {
	return fault.New(fault.InvalidArgument, fault.ReasonPageTokenInvalid,
		"page_token is damaged, expired or of another query; start from the first page")
}

// digest binds a token to its query. Lengths keep two queries apart whose parts join to the same text.
func (q Query) digest() []byte {
	h := sha256.New()
	for _, part := range []string{q.Method, q.Parent, q.Filter, q.Order} {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part)))) //nolint:gosec // a request has at most 1 MiB
		h.Write([]byte(part))
	}
	return h.Sum(nil)
}
