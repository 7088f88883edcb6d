// Package token verifies the tokens of tenants' users: JWTs of issuers that an
// operator configured.
//
// Signatures are a kept library's work. What stands before it is ours: a JWT has
// many spellings in the eyes of that library, and a cache, a revocation list or a
// second reader must not see two tokens where one was signed. So a token is refused
// unless it has the one canonical encoding, no header that fetches or embeds keys,
// and the algorithm that its issuer is pinned to. Start at [Verifier.Verify].
package token

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

const (
	maxToken = 8 << 10
	leeway   = 30 * time.Second
	minRSA   = 2048
	segments = 3
)

// Issuer is who signs users' tokens.
type Issuer struct {
	// Issuer is the exact "iss".
	Issuer string
	// Audiences lists accepted values of "aud"; one must be in the token. Required.
	Audiences []string
	// Algorithms lists the accepted algorithms: RS256, PS256, ES256, ES384, EdDSA. Required.
	Algorithms []string
	// TenantClaim is the claim that names the tenant. Default "tenant".
	TenantClaim string
	// Tenants, when set, lists the only tenants that the issuer may name.
	Tenants []string
	// Keys are its public keys. Required.
	Keys jose.JSONWebKeySet
}

// User is who a verified token speaks for.
type User struct {
	// Tenant is the tenant that the token names.
	Tenant tenant.ID
	// Issuer and Subject together are the user.
	Issuer, Subject string
	// ExpireTime is when the token ends.
	ExpireTime time.Time
}

// Verifier checks tokens. It is immutable and safe for concurrent use.
type Verifier struct {
	issuers map[string]*Issuer
	clock   func() time.Time
}

// New returns a Verifier for these issuers. It fails on an issuer without what is
// required, an unknown algorithm, a symmetric or short key, or a key id twice.
func New(issuers []Issuer, clock func() time.Time) (*Verifier, error) {
	v := &Verifier{issuers: make(map[string]*Issuer), clock: clock}
	for _, i := range issuers {
		if err := i.check(); err != nil {
			return nil, fmt.Errorf("issuer %q: %w", i.Issuer, err)
		}
		if v.issuers[i.Issuer] != nil {
			return nil, fmt.Errorf("issuer %q is configured twice", i.Issuer)
		}
		if i.TenantClaim == "" {
			i.TenantClaim = "tenant"
		}
		v.issuers[i.Issuer] = &i
	}
	return v, nil
}

// Enabled reports whether any issuer is configured.
func (v *Verifier) Enabled() bool { return len(v.issuers) > 0 }

func (i *Issuer) check() error {
	if i.Issuer == "" || len(i.Audiences) == 0 || len(i.Algorithms) == 0 || len(i.Keys.Keys) == 0 {
		return errors.New("issuer, audiences, algorithms and keys are required")
	}
	for _, a := range i.Algorithms {
		if !slices.Contains([]string{"RS256", "PS256", "ES256", "ES384", "EdDSA"}, a) {
			return fmt.Errorf("algorithm %q is not accepted", a)
		}
	}
	seen := make(map[string]bool)
	for _, k := range i.Keys.Keys {
		if k.KeyID == "" || seen[k.KeyID] {
			return errors.New("each key needs a kid of its own")
		}
		seen[k.KeyID] = true
		if err := checkKey(k.Key); err != nil {
			return fmt.Errorf("key %q: %w", k.KeyID, err)
		}
	}
	return nil
}

func checkKey(key any) error {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < minRSA {
			return errors.New("an RSA key needs 2048 bits")
		}
	case *ecdsa.PublicKey, ed25519.PublicKey:
	default:
		return errors.New("not a public RSA, ECDSA or Ed25519 key")
	}
	return nil
}

// Verify returns the user that a token speaks for. The error is a fault
// CREDENTIAL_INVALID, the same for every defect; its cause is for logs.
func (v *Verifier) Verify(raw string) (User, error) {
	u, err := v.verify(raw)
	if err != nil {
		return User{}, fault.New(fault.Unauthenticated, fault.ReasonCredentialInvalid, "the token is not valid").WithCause(err)
	}
	return u, nil
}

func (v *Verifier) verify(raw string) (User, error) {
	header, err := strict(raw)
	if err != nil {
		return User{}, err
	}
	i, err := v.issuerOf(raw)
	if err != nil {
		return User{}, err
	}
	if !slices.Contains(i.Algorithms, header.Alg) {
		return User{}, errors.New("the algorithm is not the issuer's")
	}
	keys := i.Keys.Key(header.Kid)
	if len(keys) != 1 {
		return User{}, errors.New("no such key")
	}
	parsed, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(header.Alg)})
	if err != nil {
		return User{}, fmt.Errorf("parse: %w", err)
	}
	var claims jwt.Claims
	named := make(map[string]any)
	if err := parsed.Claims(keys[0].Key, &claims, &named); err != nil {
		return User{}, fmt.Errorf("verify: %w", err)
	}
	return i.user(claims, named, v.clock())
}

// user checks what the signed claims say.
func (i *Issuer) user(c jwt.Claims, named map[string]any, now time.Time) (User, error) {
	if c.Expiry == nil || c.Subject == "" {
		return User{}, errors.New("exp and sub are required")
	}
	err := c.ValidateWithLeeway(jwt.Expected{Issuer: i.Issuer, AnyAudience: i.Audiences, Time: now}, leeway)
	if err != nil {
		return User{}, fmt.Errorf("claims: %w", err)
	}
	text, ok := named[i.TenantClaim].(string)
	if !ok {
		return User{}, errors.New("the token names no tenant")
	}
	id, err := tenant.ParseID(text)
	if err != nil {
		return User{}, errors.New("the token's tenant is not an id")
	}
	if len(i.Tenants) > 0 && !slices.Contains(i.Tenants, text) {
		return User{}, errors.New("the issuer may not speak for this tenant")
	}
	return User{Tenant: id, Issuer: c.Issuer, Subject: c.Subject, ExpireTime: c.Expiry.Time()}, nil
}

// issuerOf reads the unverified "iss", only to find the keys to verify with.
func (v *Verifier) issuerOf(raw string) (*Issuer, error) {
	payload, err := decode(strings.Split(raw, ".")[1])
	if err != nil {
		return nil, err
	}
	if err := unique(payload); err != nil {
		return nil, err
	}
	var c struct {
		Issuer string `json:"iss"`
	}
	if err := json.Unmarshal(payload, &c); err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	if i := v.issuers[c.Issuer]; i != nil {
		return i, nil
	}
	return nil, errors.New("unknown issuer")
}

// head is what a header may hold; more is refused.
type head struct {
	Alg string `json:"alg"`
	Kid string `json:"kid"`
	Typ string `json:"typ"`
}

// strict refuses every spelling of a token but one.
func strict(raw string) (head, error) {
	var h head
	parts := strings.Split(raw, ".")
	if len(raw) > maxToken || len(parts) != segments {
		return h, errors.New("not a compact token of at most 8 KiB")
	}
	for _, p := range parts[1:] {
		if _, err := decode(p); err != nil {
			return h, err
		}
	}
	header, err := decode(parts[0])
	if err != nil {
		return h, err
	}
	if err := unique(header); err != nil {
		return h, err
	}
	d := json.NewDecoder(bytes.NewReader(header))
	d.DisallowUnknownFields() // crit, b64, jku, jwk, x5u, x5c
	if err := d.Decode(&h); err != nil {
		return h, fmt.Errorf("header: %w", err)
	}
	if h.Kid == "" || (h.Typ != "" && h.Typ != "JWT" && h.Typ != "at+jwt") {
		return h, errors.New("header: no kid, or another type of token")
	}
	return h, nil
}

// decode reads base64url in its one spelling: no padding, no line breaks, unused
// bits zero.
func decode(s string) ([]byte, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || s == "" || strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("not canonical base64url")
	}
	return b, nil
}

// unique refuses JSON in which an object names a member twice, or in which two
// names differ by case alone: readers disagree about which one counts.
func unique(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errors.New("not a JSON object")
	}
	if err := uniqueObject(d); err != nil {
		return err
	}
	if _, err := d.Token(); err == nil {
		return errors.New("something follows the JSON object")
	}
	return nil
}

func uniqueObject(d *json.Decoder) error {
	seen := make(map[string]bool)
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return fmt.Errorf("JSON: %w", err)
		}
		name, _ := t.(string)
		if name = strings.ToLower(name); seen[name] {
			return errors.New("a JSON member stands twice")
		}
		seen[name] = true
		if err := uniqueValue(d); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}

func uniqueValue(d *json.Decoder) error {
	t, err := d.Token()
	if err != nil {
		return fmt.Errorf("JSON: %w", err)
	}
	switch t {
	case json.Delim('{'):
		return uniqueObject(d)
	case json.Delim('['):
		for d.More() {
			if err := uniqueValue(d); err != nil {
				return err
			}
		}
		_, err := d.Token()
		return err
	}
	return nil
}
