package token_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/token"
)

var now = time.Unix(1_800_000_000, 0)

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// office signs tokens for one issuer.
type office struct {
	ed  ed25519.PrivateKey
	ec  *ecdsa.PrivateKey
	iss string
}

func newOffice(t testing.TB, iss string) *office {
	t.Helper()
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &office{ed, ec, iss}
}

func (o *office) issuer() token.Issuer {
	return token.Issuer{
		Issuer: o.iss, Audiences: []string{"notes"}, Algorithms: []string{"EdDSA"},
		Keys: jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: o.ed.Public(), KeyID: "ed"}, {Key: o.ec.Public(), KeyID: "ec"}}},
	}
}

func (o *office) claims(edit func(map[string]any)) string {
	c := map[string]any{"iss": o.iss, "sub": "ada", "aud": "notes", "tenant": "acme", "exp": now.Add(time.Hour).Unix(), "nbf": now.Unix(), "iat": now.Unix()}
	if edit != nil {
		edit(c)
	}
	b, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func (o *office) sign(header, claims string) string {
	signed := b64(header) + "." + b64(claims)
	return signed + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(o.ed, []byte(signed)))
}

const goodHeader = `{"alg":"EdDSA","kid":"ed","typ":"JWT"}`

func verifier(t testing.TB, issuers ...token.Issuer) *token.Verifier {
	t.Helper()
	v, err := token.New(issuers, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVerify(t *testing.T) {
	t.Parallel()
	o := newOffice(t, "https://id.test")
	u, err := verifier(t, o.issuer()).Verify(o.sign(goodHeader, o.claims(nil)))
	if err != nil {
		t.Fatal(err)
	}
	if u.Tenant.String() != "acme" || u.Subject != "ada" || u.Issuer != o.iss {
		t.Errorf("user = %+v", u)
	}
}

func TestForgedTokens(t *testing.T) {
	t.Parallel()
	o, foreign := newOffice(t, "https://id.test"), newOffice(t, "https://id.test")
	v := verifier(t, o.issuer())
	good := o.sign(goodHeader, o.claims(nil))
	parts := strings.Split(good, ".")
	mac := func(header string, key []byte) string {
		signed := b64(header) + "." + parts[1]
		h := hmac.New(sha256.New, key)
		h.Write([]byte(signed))
		return signed + "." + base64.RawURLEncoding.EncodeToString(h.Sum(nil))
	}
	edit := func(f func(map[string]any)) string { return o.sign(goodHeader, o.claims(f)) }
	last := parts[2][len(parts[2])-1]
	looser := map[byte]byte{'A': 'B', 'Q': 'R', 'g': 'h', 'w': 'x'}[last] // same bytes, unused bits set
	forged := map[string]string{
		"empty":                     "",
		"two parts":                 parts[0] + "." + parts[1],
		"four parts":                good + ".x",
		"too long":                  o.sign(goodHeader, o.claims(func(c map[string]any) { c["pad"] = strings.Repeat("x", 9000) })),
		"alg none":                  b64(`{"alg":"none","kid":"ed"}`) + "." + parts[1] + ".",
		"HMAC with the public key":  mac(`{"alg":"HS256","kid":"ed"}`, o.ed.Public().(ed25519.PublicKey)),
		"another key":               foreign.sign(goodHeader, o.claims(nil)),
		"unknown kid":               o.sign(`{"alg":"EdDSA","kid":"x"}`, o.claims(nil)),
		"no kid":                    o.sign(`{"alg":"EdDSA"}`, o.claims(nil)),
		"kid of a key of other use": o.sign(`{"alg":"EdDSA","kid":"ec"}`, o.claims(nil)),
		"algorithm not pinned":      o.sign(`{"alg":"ES256","kid":"ec"}`, o.claims(nil)),
		"jku":                       o.sign(`{"alg":"EdDSA","kid":"ed","jku":"https://x.test"}`, o.claims(nil)),
		"embedded key":              o.sign(`{"alg":"EdDSA","kid":"ed","jwk":{}}`, o.claims(nil)),
		"x5u":                       o.sign(`{"alg":"EdDSA","kid":"ed","x5u":"https://x.test"}`, o.claims(nil)),
		"crit":                      o.sign(`{"alg":"EdDSA","kid":"ed","crit":["b64"],"b64":false}`, o.claims(nil)),
		"ID token type":             o.sign(`{"alg":"EdDSA","kid":"ed","typ":"ID"}`, o.claims(nil)),
		"alg twice":                 o.sign(`{"alg":"EdDSA","alg":"EdDSA","kid":"ed"}`, o.claims(nil)),
		"tenant twice":              o.sign(goodHeader, strings.Replace(o.claims(nil), `{`, `{"tenant":"globex",`, 1)),
		"tenant twice by case":      o.sign(goodHeader, strings.Replace(o.claims(nil), `{`, `{"Tenant":"globex",`, 1)),
		"something behind":          o.sign(goodHeader, o.claims(nil)+"{}"),
		"padding":                   good + "=",
		"white space":               good[:10] + "\n" + good[10:],
		"loose last bits":           good[:len(good)-1] + string(looser),
		"expired":                   edit(func(c map[string]any) { c["exp"] = now.Add(-time.Minute).Unix() }),
		"no expiry":                 edit(func(c map[string]any) { delete(c, "exp") }),
		"not yet":                   edit(func(c map[string]any) { c["nbf"] = now.Add(time.Minute).Unix() }),
		"another audience":          edit(func(c map[string]any) { c["aud"] = "mail" }),
		"no audience":               edit(func(c map[string]any) { delete(c, "aud") }),
		"another issuer":            edit(func(c map[string]any) { c["iss"] = "https://evil.test" }),
		"no subject":                edit(func(c map[string]any) { delete(c, "sub") }),
		"no tenant":                 edit(func(c map[string]any) { delete(c, "tenant") }),
		"tenant list":               edit(func(c map[string]any) { c["tenant"] = []string{"acme", "globex"} }),
		"tenant that is no id":      edit(func(c map[string]any) { c["tenant"] = "ACME" }),
	}
	for name, raw := range forged {
		if u, err := v.Verify(raw); fault.ReasonOf(err) != fault.ReasonCredentialInvalid {
			t.Errorf("%s: %+v, %v; want CREDENTIAL_INVALID", name, u, err)
		}
	}
	if looser == 0 {
		t.Errorf("the last character %q of an Ed25519 signature is not one of AQgw", last)
	}
}

// An issuer speaks only for the tenants it was given: of N issuers and N tenants
// just the diagonal passes.
func TestIssuersByTenants(t *testing.T) {
	t.Parallel()
	tenants := []string{"acme", "globex", "initech"}
	var issuers []token.Issuer
	var offices []*office
	for _, name := range tenants {
		o := newOffice(t, "https://"+name+".test")
		i := o.issuer()
		i.Tenants = []string{name}
		offices, issuers = append(offices, o), append(issuers, i)
	}
	v := verifier(t, issuers...)
	for i, o := range offices {
		for j, name := range tenants {
			_, err := v.Verify(o.sign(goodHeader, o.claims(func(c map[string]any) { c["tenant"] = name })))
			if (err == nil) != (i == j) {
				t.Errorf("issuer of %s for %s: %v", tenants[i], name, err)
			}
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	short := &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 1023), E: 65537}
	o := newOffice(t, "https://id.test")
	for name, edit := range map[string]func(*token.Issuer){
		"no audience":   func(i *token.Issuer) { i.Audiences = nil },
		"HS256":         func(i *token.Issuer) { i.Algorithms = []string{"HS256"} },
		"no keys":       func(i *token.Issuer) { i.Keys.Keys = nil },
		"kid twice":     func(i *token.Issuer) { i.Keys.Keys[1].KeyID = "ed" },
		"symmetric key": func(i *token.Issuer) { i.Keys.Keys[0].Key = []byte("secret") },
		"short RSA key": func(i *token.Issuer) { i.Keys.Keys[0].Key = short },
	} {
		i := o.issuer()
		edit(&i)
		if _, err := token.New([]token.Issuer{i}, time.Now); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func FuzzVerify(f *testing.F) {
	o := newOffice(f, "https://id.test")
	v := verifier(f, o.issuer())
	good := o.sign(goodHeader, o.claims(nil))
	f.Add(good)
	f.Add("a.b.c")
	f.Add(b64(`{"alg":"none"}`) + "." + b64(`{}`) + ".")
	f.Fuzz(func(t *testing.T, raw string) {
		if _, err := v.Verify(raw); err == nil && raw != good {
			t.Errorf("%q is accepted", raw)
		}
	})
}
