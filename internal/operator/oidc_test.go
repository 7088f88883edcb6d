package operator_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/rowhouse-platform/rowhouse/internal/operator"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

// idp is an OIDC issuer over TLS.
type idp struct {
	server  *httptest.Server
	key     *ecdsa.PrivateKey
	rsa     *rsa.PrivateKey // published too, for others
	fetches atomic.Int64
}

const audience = "rowhouse"

func newIDP(t *testing.T) *idp {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p := &idp{key: key, rsa: rsaKey}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		p.fetches.Add(1)
		reply(w, map[string]any{
			"issuer": p.server.URL, "jwks_uri": p.server.URL + "/keys", "authorization_endpoint": p.server.URL + "/auth",
			// Offering more than is pinned must change nothing.
			"id_token_signing_alg_values_supported": []string{"ES256", "RS256", "HS256", "none"},
		})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		p.fetches.Add(1)
		reply(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
			{Key: key.Public(), KeyID: "k1", Algorithm: "ES256", Use: "sig"},
			{Key: rsaKey.Public(), KeyID: "r1", Algorithm: "RS256", Use: "sig"},
		}})
	})
	p.server = httptest.NewTLSServer(mux)
	t.Cleanup(p.server.Close)
	return p
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		panic(err) // net/http turns it into a broken answer
	}
}

func (p *idp) claims() map[string]any {
	return map[string]any{
		"iss": p.server.URL, "aud": audience, "sub": "248289761001", "email": "root@rowhouse.example",
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
	}
}

// sign makes a token; edits change claims, nil deletes.
func (p *idp) sign(t *testing.T, key any, alg jose.SignatureAlgorithm, kid string, edits map[string]any) string {
	t.Helper()
	return p.signWith(t, jose.SigningKey{Algorithm: alg, Key: key}, edits, map[jose.HeaderKey]any{"kid": kid, "typ": "JWT"})
}

// signWith signs headers as they are.
func (p *idp) signWith(
	t *testing.T, key jose.SigningKey, edits map[string]any, headers map[jose.HeaderKey]any,
) string {
	t.Helper()
	claims := p.claims()
	maps.Copy(claims, edits)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(key, &jose.SignerOptions{ExtraHeaders: headers})
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func (p *idp) good(t *testing.T) string {
	t.Helper()
	return p.sign(t, p.key, jose.ES256, "k1", nil)
}

func (p *idp) config(t *testing.T) operator.Config {
	t.Helper()
	path := write(t, "operators.yaml", "operators:\n- {name: ada, issuer: '"+p.server.URL+
		"', subject: '248289761001', roles: [support]}\n")
	return operator.Config{
		OperatorsFile: path, HTTPClient: p.server.Client(),
		Issuers: []operator.Issuer{{URL: p.server.URL, Audience: audience, Algorithm: "ES256"}},
	}
}

func TestOIDCOperator(t *testing.T) {
	t.Parallel()
	p := newIDP(t)
	a := mustNew(t, p.config(t))
	if n := p.fetches.Load(); n != 0 {
		t.Errorf("the issuer was asked %d times before the first token", n)
	}
	for range 3 {
		got, err := a.Bearer(t.Context(), p.good(t))
		if err != nil {
			t.Fatal(err)
		}
		if got.Name != "operator:ada@"+p.server.URL || !got.Has("gateway.routes.explain") || got.Has("tenancy.plans.create") {
			t.Errorf("principal = %+v", got)
		}
	}
	if n := p.fetches.Load(); n != 2 {
		t.Errorf("the issuer was asked %d times, want discovery and keys once", n)
	}
	unbound, err := a.Bearer(t.Context(), p.sign(t, p.key, jose.ES256, "k1", map[string]any{"sub": "ada"}))
	if err != nil || len(unbound.Permissions()) != 0 || unbound.Name != "unbound:ada@"+p.server.URL {
		t.Errorf("unbound = %+v, %v", unbound, err)
	}
}

func TestForgedTokens(t *testing.T) {
	t.Parallel()
	p, other := newIDP(t), newIDP(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	strangeKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := p.key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	with := func(edits map[string]any) string { return p.sign(t, p.key, jose.ES256, "k1", edits) }
	signed := func(header jose.HeaderKey, value any) string {
		key := jose.SigningKey{Algorithm: jose.ES256, Key: p.key}
		return p.signWith(t, key, nil, map[jose.HeaderKey]any{"kid": "k1", header: value})
	}
	good := p.good(t)
	tokens := map[string]string{
		"alg none":                  p.unsigned(t, `{"alg":"none","typ":"JWT"}`),
		"alg none, kept signature":  withHeader(good, `{"alg":"none","kid":"k1"}`),
		"HMAC with the public key":  p.sign(t, public, jose.HS256, "k1", nil),
		"RS256 by the issuer":       p.sign(t, p.rsa, jose.RS256, "r1", nil),
		"signed jku":                signed("jku", "https://evil.example/keys"),
		"signed x5u":                signed("x5u", "https://evil.example/cert"),
		"signed jwk":                signed("jwk", map[string]any{"kty": "EC"}),
		"RS256 by a stranger":       p.sign(t, rsaKey, jose.RS256, "k1", nil),
		"stranger's key, our kid":   p.sign(t, strangeKey, jose.ES256, "k1", nil),
		"stranger's key, own kid":   p.sign(t, strangeKey, jose.ES256, "k2", nil),
		"other issuer's signature":  p.sign(t, other.key, jose.ES256, "k1", nil),
		"other issuer's token":      other.good(t),
		"issuer with slash":         with(map[string]any{"iss": p.server.URL + "/"}),
		"no issuer":                 with(map[string]any{"iss": nil}),
		"other audience":            with(map[string]any{"aud": "billing"}),
		"no audience":               with(map[string]any{"aud": nil}),
		"audience by prefix":        with(map[string]any{"aud": "rowhouse-dev"}),
		"expired":                   with(map[string]any{"exp": time.Now().Add(-time.Second).Unix()}),
		"no expiry":                 with(map[string]any{"exp": nil}),
		"not yet":                   with(map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}),
		"no subject":                with(map[string]any{"sub": nil}),
		"empty subject":             with(map[string]any{"sub": ""}),
		"subject with a line break": with(map[string]any{"sub": "248289761001\n"}),
		"subject too long":          with(map[string]any{"sub": strings.Repeat("x", 256)}),
		"too long":                  with(map[string]any{"pad": strings.Repeat("x", 9<<10)}),
		"jku":                       withHeader(good, `{"alg":"ES256","kid":"k1","jku":"https://evil.example/keys"}`),
		"embedded key":              embedded(t, p, strangeKey),
		"x5u":                       withHeader(good, `{"alg":"ES256","kid":"k1","x5u":"https://evil.example/cert"}`),
		"crit":                      withHeader(good, `{"alg":"ES256","kid":"k1","crit":["exp"]}`),
		"claims of another token":   splice(good, with(map[string]any{"sub": "1"})),
		"two segments":              good[:strings.LastIndexByte(good, '.')],
		"four segments":             good + ".AAAA",
		"padding":                   good + "=",
		"standard alphabet":         strings.Replace(strings.Replace(good, "-", "+", 1), "_", "/", 1) + "",
		"line break":                good[:10] + "\n" + good[10:],
		"space":                     " " + good,
		"JSON serialization":        `{"payload":"","signatures":[]}`,
		"garbage":                   "a.b.c",
		"empty":                     "",
	}
	if !strings.ContainsAny(good, "-_") {
		delete(tokens, "standard alphabet")
	}
	a := mustNew(t, p.config(t))
	if _, err := a.Bearer(t.Context(), good); err != nil {
		t.Fatalf("the good token: %v", err)
	}
	for name, token := range tokens {
		principal, err := a.Bearer(t.Context(), token)
		f, ok := fault.As(err)
		if !ok || f.Reason != fault.ReasonCredentialInvalid || f.Kind != fault.Unauthenticated {
			t.Errorf("%s: accepted as %+v, %v", name, principal, err)
			continue
		}
		if f.Message != "the credential cannot be verified" || len(f.Metadata) > 0 || f.Unwrap() == nil {
			t.Errorf("%s: the answer must be alike for all and the cause kept: %+v", name, f)
		}
		if !principal.IsZero() {
			t.Errorf("%s: principal = %+v", name, principal)
		}
	}
}

// TestEverySpelling flips the last character of each segment: base64 leaves unused bits there.
func TestEverySpelling(t *testing.T) {
	t.Parallel()
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	p := newIDP(t)
	a := mustNew(t, p.config(t))
	good := p.good(t)
	accepted := 0
	for at := range len(good) {
		if good[at] == '.' || at+1 < len(good) && good[at+1] != '.' {
			continue
		}
		for i := range len(alphabet) {
			if _, err := a.Bearer(t.Context(), good[:at]+alphabet[i:i+1]+good[at+1:]); err == nil {
				accepted++
			}
		}
	}
	if accepted != 3 { // each segment's own last character
		t.Errorf("%d spellings of one token are accepted, want the one, 3 times", accepted)
	}
}

func TestUnreachableIssuer(t *testing.T) {
	t.Parallel()
	p := newIDP(t)
	a := mustNew(t, p.config(t))
	token := p.good(t)
	p.server.Close()
	_, err := a.Bearer(t.Context(), token)
	if fault.KindOf(err) != fault.Unavailable || fault.ReasonOf(err) != "DEPENDENCY_UNAVAILABLE" {
		t.Errorf("error = %v", err)
	}
}

// gate holds back what is sent until it is opened or told to fail.
type gate struct {
	next  http.RoundTripper
	sent  atomic.Int64
	asked chan struct{}
	open  chan error
}

func (g *gate) RoundTrip(r *http.Request) (*http.Response, error) {
	g.sent.Add(1)
	g.asked <- struct{}{}
	if err := <-g.open; err != nil {
		return nil, err
	}
	return g.next.RoundTrip(r)
}

// Nobody needs a signed token to have an issuer discovered. So a silent issuer holds no caller beyond its own deadline,
// and one that fails is not asked for each token.
func TestSilentIssuerHoldsNobody(t *testing.T) {
	t.Parallel()
	p := newIDP(t)
	cfg := p.config(t)
	c := &clock{now: time.Now()}
	g := &gate{next: cfg.HTTPClient.Transport, asked: make(chan struct{}, 10), open: make(chan error, 10)}
	cfg.HTTPClient, cfg.Clock = &http.Client{Transport: g}, c.Now
	a := mustNew(t, cfg)
	away := func(what string, err error) {
		t.Helper()
		if fault.KindOf(err) != fault.Unavailable || fault.ReasonOf(err) != fault.ReasonDependency {
			t.Errorf("%s: %v", what, err)
		}
	}
	first := make(chan error, 1)
	go func() { _, err := a.Bearer(t.Context(), p.good(t)); first <- err }()
	<-g.asked
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := a.Bearer(gone, p.good(t)) // would wait for the first
	away("a caller that cannot wait", err)
	g.open <- errors.New("it is down")
	away("the first", <-first)
	_, err = a.Bearer(t.Context(), p.good(t))
	away("right after a failure", err)
	if n := g.sent.Load(); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
	c.Advance(3 * time.Second)
	g.open <- nil
	g.open <- nil // the keys
	if _, err := a.Bearer(t.Context(), p.good(t)); err != nil {
		t.Errorf("when it is back: %v", err)
	}
}

func TestForgedKeyIDsDoNotFloodTheIssuer(t *testing.T) {
	t.Parallel()
	p := newIDP(t)
	strange, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cfg := p.config(t)
	c := &clock{now: time.Now()}
	cfg.Clock = c.Now
	a := mustNew(t, cfg)
	for range 50 {
		if _, err := a.Bearer(t.Context(), p.sign(t, strange, jose.ES256, rand.Text(), nil)); err == nil {
			t.Fatal("a forged token was accepted")
		}
	}
	if n := p.fetches.Load(); n > 3 {
		t.Errorf("50 forged tokens made %d requests", n)
	}
	if _, err := a.Bearer(t.Context(), p.good(t)); err != nil {
		t.Errorf("known keys must go on working: %v", err)
	}
}

func TestIssuersThatKeepFromStarting(t *testing.T) {
	t.Parallel()
	good := operator.Issuer{URL: "https://id.example", Audience: "rowhouse", Algorithm: "ES256"}
	tests := map[string]struct {
		edit func(*operator.Issuer)
		want string
	}{
		"plain http":  {func(i *operator.Issuer) { i.URL = "http://id.example" }, "must be https"},
		"query":       {func(i *operator.Issuer) { i.URL += "?x=1" }, "must be https"},
		"no audience": {func(i *operator.Issuer) { i.Audience = "" }, "audience"},
		"none":        {func(i *operator.Issuer) { i.Algorithm = "none" }, "algorithm"},
		"HMAC":        {func(i *operator.Issuer) { i.Algorithm = "HS256" }, "algorithm"},
		"no alg":      {func(i *operator.Issuer) { i.Algorithm = "" }, "algorithm"},
	}
	for name, test := range tests {
		bad := good
		test.edit(&bad)
		_, err := operator.New(t.Context(), operator.Config{Issuers: []operator.Issuer{bad}})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := operator.New(t.Context(), operator.Config{Issuers: []operator.Issuer{good, good}}); err == nil {
		t.Error("an issuer configured twice must be an error")
	}
}

func segment(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func (p *idp) unsigned(t *testing.T, header string) string {
	t.Helper()
	payload, err := json.Marshal(p.claims())
	if err != nil {
		t.Fatal(err)
	}
	return segment(header) + "." + segment(string(payload)) + "."
}

func withHeader(token, header string) string {
	return segment(header) + token[strings.IndexByte(token, '.'):]
}

// splice puts the claims of one token into another.
func splice(token, claims string) string {
	parts, from := strings.Split(token, "."), strings.Split(claims, ".")
	return parts[0] + "." + from[1] + "." + parts[2]
}

// embedded is signed by a key that its own header brings along.
func embedded(t *testing.T, p *idp, key crypto.Signer) string {
	t.Helper()
	payload, err := json.Marshal(p.claims())
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, &jose.SignerOptions{EmbedJWK: true})
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}
