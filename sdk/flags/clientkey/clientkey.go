// Package clientkey knows the keys by which clients ask for a tenant's flags.
//
// A key is a secret of one tenant in one environment. Config keeps its digest, and tells gateways by the feed
// "clientkeys"; they look keys up in memory. Start at [New] to make a key and at [Store.Find] to check one. What a key
// may see is for those to decide who serve flags.
package clientkey

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

const (
	// prefix begins every key, so that people and scanners for leaked secrets know one.
	prefix = "rhc_"
	secret = 32
	// length is that of a whole key.
	length = len(prefix) + (secret*8+5)/6
)

// Digest is the SHA-256 of a key, which is all that is kept of it.
type Digest [sha256.Size]byte

// New returns a new key and its digest. The error is random's.
func New(random io.Reader) (key string, digest Digest, err error) {
	var b [secret]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", digest, fmt.Errorf("clientkey: %w", err)
	}
	key = prefix + base64.RawURLEncoding.EncodeToString(b[:])
	return key, sha256.Sum256([]byte(key)), nil
}

// DigestOf returns the digest of a text that looks like a key.
func DigestOf(text string) (Digest, bool) {
	if len(text) != length || !strings.HasPrefix(text, prefix) {
		return Digest{}, false
	}
	return sha256.Sum256([]byte(text)), true
}

// Kind says who holds a key.
type Kind uint8

// The kinds.
const (
	// Browser keys are read by everybody who opens the page: they show what is public, to listed origins.
	Browser Kind = iota + 1
	// Server keys are kept secret and show all flags of their tenant.
	Server
)

// String returns the kind's name.
func (k Kind) String() string { return [...]string{"", "BROWSER", "SERVER"}[k] }

// Key is what is known of a key. Treat it as immutable.
type Key struct {
	// ID names it in logs and metrics; it tells nothing of the secret.
	ID string
	// Digest is the secret's.
	Digest Digest
	// Tenant is whose flags it shows.
	Tenant tenant.UID
	Kind   Kind
	// Environment is where its holder runs.
	Environment string
	// Origins lists pages that may use a browser key.
	Origins []string
	// Expires is when it ends by itself; zero for never.
	Expires time.Time
}

// Allows reports whether pages of an origin may use the key, apart from the tenant's own.
func (k *Key) Allows(origin string) bool {
	return k.Kind == Browser && slices.Contains(k.Origins, origin)
}

// FeedKey is a key's key in the feed.
func FeedKey(d Digest) string { return feedPrefix + hex.EncodeToString(d[:]) }

const feedPrefix = "key/"

var errEntry = errors.New("clientkey: not an entry of the feed")

// decode reads an entry of the feed.
func decode(feedKey string, value []byte) (*Key, error) {
	digest, err := digestOf(feedKey)
	if err != nil {
		return nil, err
	}
	e := new(configv1.ClientKeyEntry)
	if err := proto.Unmarshal(value, e); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	k := &Key{ID: e.GetId(), Digest: digest, Environment: e.GetEnvironment(), Origins: e.GetOrigins()}
	switch e.GetKind() {
	case configv1.ClientKeyKind_CLIENT_KEY_KIND_BROWSER:
		k.Kind = Browser
	case configv1.ClientKeyKind_CLIENT_KEY_KIND_SERVER:
		k.Kind = Server
	default:
		return nil, errEntry
	}
	if copy(k.Tenant[:], e.GetTenantUid()) != len(k.Tenant) || k.ID == "" || k.Tenant == (tenant.UID{}) {
		return nil, errEntry
	}
	if e.GetExpireTime() != nil {
		k.Expires = e.GetExpireTime().AsTime()
	}
	return k, nil
}

func digestOf(feedKey string) (d Digest, err error) {
	text, ok := strings.CutPrefix(feedKey, feedPrefix)
	if !ok || len(text) != hex.EncodedLen(len(d)) {
		return d, errEntry
	}
	if _, err := hex.Decode(d[:], []byte(text)); err != nil {
		return d, errEntry
	}
	return d, nil
}
