// Package webhook is what config knows about telling others of events: which events there are, who hears of them, how
// a message is signed, when it is tried again, and how no receiver keeps others waiting.
//
// It follows Standard Webhooks 1.0. It knows no database: that is the [Queue]. Start at [Dispatcher].
package webhook

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Signing is how messages are signed; its numbers are stored.
type Signing int16

// The ways to sign.
const (
	HMAC    Signing = 1
	Ed25519 Signing = 2
)

// keySize is the size of a secret and of an Ed25519 seed. Standard Webhooks wants 24 to 64 bytes.
const keySize = 32

// Key signs messages. It never shows itself in a log.
type Key struct {
	signing Signing
	secret  []byte
}

// NewKey makes a key.
func NewKey(s Signing, random io.Reader) (Key, error) {
	k := Key{signing: s, secret: make([]byte, keySize)}
	if _, err := io.ReadFull(random, k.secret); err != nil {
		return Key{}, fmt.Errorf("make a webhook's key: %w", err)
	}
	return k, nil
}

// OpenKey is the key that Reveal gave.
func OpenKey(s Signing, secret []byte) (Key, error) {
	if len(secret) != keySize || s != HMAC && s != Ed25519 {
		return Key{}, errors.New("a webhook's key has another size or kind")
	}
	return Key{s, secret}, nil
}

// Reveal returns the bytes to be sealed.
func (k Key) Reveal() []byte { return k.secret }

// String hides the key.
func (Key) String() string { return "[redacted]" }

// GoString hides the key.
func (Key) GoString() string { return "[redacted]" }

// Secret is what a receiver needs to verify HMACs, "" for Ed25519.
func (k Key) Secret() string {
	if k.signing != HMAC {
		return ""
	}
	return "whsec_" + base64.StdEncoding.EncodeToString(k.secret)
}

// Public is the public key of Ed25519, nil for HMAC.
func (k Key) Public() []byte {
	if k.signing != Ed25519 {
		return nil
	}
	public, _ := ed25519.NewKeyFromSeed(k.secret).Public().(ed25519.PublicKey)
	return public
}

// PublicText is a public key as receivers get it.
func PublicText(public []byte) string { return "whpk_" + base64.StdEncoding.EncodeToString(public) }

func (k Key) sign(signed []byte) string {
	if k.signing == Ed25519 {
		return "v1a," + base64.StdEncoding.EncodeToString(ed25519.Sign(ed25519.NewKeyFromSeed(k.secret), signed))
	}
	mac := hmac.New(sha256.New, k.secret)
	mac.Write(signed)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// Header returns the headers of a message that is sent now, signed by each of the keys.
func Header(id string, now time.Time, body []byte, keys []Key) http.Header {
	at := strconv.FormatInt(now.Unix(), 10)
	signed := append([]byte(id+"."+at+"."), body...)
	signatures := make([]string, len(keys))
	for i, k := range keys {
		signatures[i] = k.sign(signed)
	}
	return http.Header{
		"Content-Type":      {"application/json"},
		"Webhook-Id":        {id},
		"Webhook-Timestamp": {at},
		"Webhook-Signature": {strings.Join(signatures, " ")},
	}
}
