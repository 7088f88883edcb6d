package operator

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/sync/singleflight"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

const (
	fetchTimeout = 5 * time.Second
	// discoverEvery is how long a failed discovery of an issuer is remembered.
	discoverEvery = 3 * time.Second
	// fetchEvery bounds how often an issuer is asked, however many forged tokens name unknown keys.
	fetchEvery = time.Second
	fetchBurst = 3
	maxSubject = 255
	segments   = 3
)

// issuer verifies the tokens of one OIDC issuer.
type issuer struct {
	discover  func() (*oidc.IDTokenVerifier, error) // takes up to fetchTimeout
	discovery singleflight.Group
	clock     func() time.Time

	mu      sync.Mutex
	tokens  *oidc.IDTokenVerifier // nil until the issuer was discovered
	failure error                 // of the last discovery
	again   time.Time             // when to try another after a failure
}

func newIssuer(ctx context.Context, is Issuer, cfg Config) (*issuer, error) {
	u, err := url.Parse(is.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("the URL must be https, without query and fragment")
	}
	if is.Audience == "" {
		return nil, errors.New("the audience is missing")
	}
	asymmetric := []string{
		oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512,
		oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA,
	}
	if !slices.Contains(asymmetric, is.Algorithm) {
		return nil, fmt.Errorf("algorithm %q is not one of %v", is.Algorithm, asymmetric)
	}
	// go-oidc takes its HTTP client from a context and ignores the context's end.
	ctx = oidc.ClientContext(context.WithoutCancel(ctx), pacedClient(cfg))
	config := &oidc.Config{ClientID: is.Audience, SupportedSigningAlgs: []string{is.Algorithm}, Now: cfg.Clock}
	return &issuer{clock: cfg.Clock, discover: func() (*oidc.IDTokenVerifier, error) {
		provider, err := oidc.NewProvider(ctx, is.URL)
		if err != nil {
			return nil, err
		}
		return provider.VerifierContext(ctx, config), nil
	}}, nil
}

func pacedClient(cfg Config) *http.Client {
	client := http.Client{Timeout: fetchTimeout}
	if cfg.HTTPClient != nil {
		client = *cfg.HTTPClient
	}
	client.Transport = &pacedTransport{next: client.Transport, clock: cfg.Clock}
	client.CheckRedirect = func(*http.Request, []*http.Request) error {
		return errors.New("an issuer must not redirect")
	}
	return &client
}

// verify checks signature, issuer, audience, times and shape.
func (is *issuer) verify(ctx context.Context, token string) (subject, error) {
	verifier, err := is.verifier(ctx)
	if err != nil {
		return subject{}, err
	}
	verified, err := verifier.Verify(ctx, token)
	if errors.As(err, new(*url.Error)) {
		return subject{}, unreachable(err)
	}
	if err != nil {
		return subject{}, invalid(err)
	}
	if verified.Subject == "" || len(verified.Subject) > maxSubject || hasControl(verified.Subject) {
		return subject{}, invalid(errors.New("the subject is empty, too long or not printable"))
	}
	return subject{verified.Issuer, verified.Subject}, nil
}

// verifier discovers the issuer at first use, so that a service starts while the issuer is away. All who ask meanwhile
// wait for one discovery, each no longer than its own context; whoever can name an issuer reaches this with a token that
// nobody signed, so a failure is remembered, too.
func (is *issuer) verifier(ctx context.Context) (*oidc.IDTokenVerifier, error) {
	if tokens, err := is.known(); tokens != nil || err != nil {
		return tokens, err
	}
	found := is.discovery.DoChan("", func() (any, error) {
		if tokens, err := is.known(); tokens != nil || err != nil {
			return tokens, err // another discovery ended just now
		}
		return is.keep(is.discover())
	})
	select {
	case r := <-found:
		tokens, _ := r.Val.(*oidc.IDTokenVerifier)
		return tokens, r.Err
	case <-ctx.Done():
		return nil, unreachable(ctx.Err())
	}
}

// known is what the last discovery gave, and neither when there is to be another.
func (is *issuer) known() (*oidc.IDTokenVerifier, error) {
	is.mu.Lock()
	defer is.mu.Unlock()
	if is.failure != nil && is.clock().Before(is.again) {
		return nil, is.failure
	}
	return is.tokens, nil
}

func (is *issuer) keep(tokens *oidc.IDTokenVerifier, err error) (*oidc.IDTokenVerifier, error) {
	is.mu.Lock()
	defer is.mu.Unlock()
	is.tokens, is.failure = tokens, nil
	if err != nil {
		is.tokens, is.failure, is.again = nil, unreachable(err), is.clock().Add(discoverEvery)
	}
	return is.tokens, is.failure
}

func unreachable(cause error) error {
	return fault.New(fault.Unavailable, fault.ReasonDependency, "the issuer of the credential cannot be reached").
		WithRetry(discoverEvery).WithCause(cause)
}

// inspect looks at a token's shape and says which issuer it claims. There is one spelling per token: three segments
// of strict, unpadded base64url, whose headers name no key by themselves.
func inspect(token string) (iss string, err error) {
	parts := strings.Split(token, ".")
	if len(parts) != segments {
		return "", fmt.Errorf("the token has %d segments", len(parts))
	}
	var decoded [segments][]byte
	for i, part := range parts {
		if decoded[i], err = base64.RawURLEncoding.Strict().DecodeString(part); err != nil {
			return "", fmt.Errorf("segment %d: %w", i, err)
		}
		if strings.ContainsAny(part, "\r\n") { // the decoder skips them
			return "", fmt.Errorf("segment %d holds a line break", i)
		}
	}
	var header map[string]json.RawMessage
	if err := json.Unmarshal(decoded[0], &header); err != nil {
		return "", fmt.Errorf("the header: %w", err)
	}
	for _, refused := range []string{"jku", "jwk", "x5u", "x5c", "crit", "b64", "zip"} {
		if _, there := header[refused]; there {
			return "", fmt.Errorf("the header holds %s", refused)
		}
	}
	var claims struct {
		Issuer string `json:"iss"`
	}
	if err := json.Unmarshal(decoded[1], &claims); err != nil {
		return "", fmt.Errorf("the claims: %w", err)
	}
	return claims.Issuer, nil
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd })
}

// pacedTransport lets a few requests through at once and then one each fetchEvery.
type pacedTransport struct {
	next  http.RoundTripper
	clock func() time.Time

	mu     sync.Mutex
	tokens float64
	last   time.Time
}

// RoundTrip sends the request, or refuses it without sending.
func (t *pacedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if !t.take() {
		return nil, errors.New("the issuer is asked too often")
	}
	next := t.next
	if next == nil {
		next = http.DefaultTransport
	}
	return next.RoundTrip(r)
}

func (t *pacedTransport) take() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.clock()
	if t.last.IsZero() {
		t.tokens = fetchBurst
	} else if since := now.Sub(t.last); since > 0 {
		t.tokens = min(fetchBurst, t.tokens+float64(since)/float64(fetchEvery))
	}
	t.last = now
	if t.tokens < 1 {
		return false
	}
	t.tokens--
	return true
}
