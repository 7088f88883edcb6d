package front_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/rowhouse-platform/rowhouse/sdk/authority"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/limits"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanthttp"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/edge"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/faces"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/front"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/mint"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/token"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/upstream"
)

const shared = "rowhouse.localhost"

// street is a gateway's front door with real listeners, and an app behind it that is
// reached over mutual TLS. Its tenants: acme and globex are served, hooli is
// suspended, initech deleted, umbrella not ready.
type street struct {
	*testing.T
	issuer  *tenanttest.Issuer
	ca      *identity.Authority
	table   *edge.Table
	app     *app
	quota   *quota
	store   *limits.Store
	users   ed25519.PrivateKey
	starts  error // why nothing is served yet
	silence atomic.Int64
	// standing is what the control plane says of tenants that are being served.
	standing standing

	plain, secure string // addresses
}

func newStreet(t *testing.T, edits ...func(*front.Config)) *street {
	t.Helper()
	s := &street{T: t, issuer: tenanttest.NewIssuer(t, nil), table: edge.NewTable(), quota: &quota{}, store: new(limits.Store)}
	if err := s.store.Apply(feed.Change{Reset: true}); err != nil {
		t.Fatal(err)
	}
	var err error
	s.ca, err = identity.NewAuthority(identity.AuthorityConfig{TrustDomain: tenanttest.TrustDomain})
	need(t, err)
	_, s.users, err = ed25519.GenerateKey(rand.Reader)
	need(t, err)
	s.app = newApp(s)
	s.fill()
	pool := upstream.NewPool(s.source(s.issuer.Gateway()))
	t.Cleanup(pool.Close)
	tokens, err := token.New([]token.Issuer{{
		Issuer: "https://users.test", Audiences: []string{"notes"}, Algorithms: []string{"EdDSA"},
		Keys: jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: s.users.Public(), KeyID: "k"}}},
	}}, time.Now)
	need(t, err)
	minter := mint.New(time.Now, rand.Reader)
	minter.Use(&mint.Keys{
		Signer: s.issuer.Signer(), Certificate: s.issuer.Certificate(),
		Seals: map[string][]mint.SealKey{tenanttest.Cell: {{KID: tenanttest.SealKID, Key: s.issuer.SealKey(), NotAfter: time.Now().Add(time.Hour)}}},
	})
	c := front.Config{
		Table: func() *edge.Table { return s.table }, Silence: func() time.Duration { return time.Duration(s.silence.Load()) },
		Ready: func() error { return s.starts }, Tokens: tokens, Minter: minter,
		Verifier: s.issuer.Verifier(t, func(c *tenant.VerifierConfig) { c.Audience = tenant.AudienceGateway }),
		Self:     s.issuer.Gateway(), Services: tenant.AudienceGateway,
		Limits:   limits.New(limits.Config{Granter: s.quota, Policies: s.store, Clock: time.Now, Log: slog.New(slog.DiscardHandler)}),
		Upstream: pool, Selector: "X-Customer", Tracer: noop.NewTracerProvider().Tracer(""), Log: slog.New(slog.DiscardHandler),
		Changed: s.standing.watch, Standing: s.standing.of,
		Brand: func(_ *http.Request, r edge.Route) *faces.Brand {
			return map[tenant.UID]*faces.Brand{tenanttest.UID("hooli"): {Name: "<b>Hooli"}, tenanttest.UID("acme"): {Name: "Acme"}}[r.Tenant.UID]
		},
	}
	for _, edit := range edits {
		edit(&c)
	}
	handler, err := front.New(c)
	need(t, err)
	s.listen(handler)
	return s
}

// fill makes the routing table.
func (s *street) fill() {
	s.Helper()
	host := func(name string) authority.Host {
		h, err := authority.ParseName(name)
		need(s, err)
		return h
	}
	s.table.SetCell(edge.Cell{ID: tenanttest.Cell, Number: tenanttest.CellNumber, Region: tenanttest.Region, SealKID: tenanttest.SealKID})
	s.table.SetApp(edge.App{
		ID: "notes", Audience: tenant.AudienceApp(16), GRPCServices: map[string]bool{"test.Notes": true},
		SharedHosts: []authority.Host{host(shared)},
		Upstreams:   map[string]edge.Upstream{tenanttest.Cell: {GRPCAddress: s.app.grpc, HTTPAddress: s.app.http, SPIFFEID: s.app.id.String()}},
	})
	for name, state := range map[string]edge.State{
		"acme": edge.Active, "globex": edge.Active, "hooli": edge.Suspended, "initech": edge.Deleted, "umbrella": edge.NotReady,
	} {
		known := s.issuer.Tenant(s, name)
		s.table.SetTenant(edge.Tenant{
			UID: known.UID, ID: known.ID, State: state, Generation: known.Generation, Plan: "free", Model: tenant.ModelShared,
			Cell: tenanttest.Cell, PlacementGeneration: known.PlacementGeneration, DenyOnLoss: name == "globex",
		})
		s.table.SetDomain(edge.Domain{Host: host(name + ".localhost"), Tenant: known.UID, App: "notes"})
	}
	s.table.SetRevision(1)
}

// listen opens the front door's addresses as the gateway does.
func (s *street) listen(h http.Handler) {
	s.Helper()
	names := []string{shared, "nobody.localhost"}
	for _, name := range []string{"acme", "globex", "hooli", "initech", "umbrella"} {
		names = append(names, name+".localhost")
	}
	pair, err := s.ca.Issue(identity.Leaf{ID: s.issuer.Gateway(), DNSNames: names})
	need(s, err)
	cert, err := tls.X509KeyPair(pair.Cert, pair.Key)
	need(s, err)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Handler: h, Protocols: protocols, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}},
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0), ReadHeaderTimeout: time.Minute,
	}
	plain, secure := listener(s), listener(s)
	s.plain, s.secure = plain.Addr().String(), secure.Addr().String()
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(plain) })
	serving.Go(func() { _ = server.ServeTLS(secure, "", "") })
	s.Cleanup(func() { _ = server.Close(); serving.Wait() })
}

func listener(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	need(t, err)
	return l
}

func (s *street) source(id identity.ID) *identity.Source {
	s.Helper()
	pair, err := s.ca.Issue(identity.Leaf{ID: id})
	need(s, err)
	source, err := identity.FromPair(pair, identity.Options{})
	need(s, err)
	return source
}

func (s *street) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.ca.RootsPEM())
	return pool
}

// jwt returns a user's token that names a tenant.
func (s *street) jwt(tenantID string) string {
	b64 := base64.RawURLEncoding.EncodeToString
	now := time.Now()
	body := b64([]byte(`{"alg":"EdDSA","kid":"k","typ":"JWT"}`)) + "." + b64(fmt.Appendf(nil,
		`{"iss":"https://users.test","aud":"notes","sub":"ada","tenant":%q,"exp":%d,"iat":%d,"nbf":%d}`,
		tenantID, now.Add(time.Hour).Unix(), now.Unix(), now.Unix()))
	return body + "." + b64(ed25519.Sign(s.users, []byte(body)))
}

// limit gives every tenant a limit.
func (s *street) limit(tokens int64, period time.Duration, loss limits.Loss) {
	s.Helper()
	l, err := gcra.New(tokens, period, 0)
	need(s, err)
	s.store.SetPlatform(limits.Requests, &limits.Policy{Limit: l, Revision: 1, OnLoss: loss})
}

// standing says why a tenant is not served any more.
type standing struct {
	mu      sync.Mutex
	why     map[tenant.UID]error
	changed chan struct{}
}

func (s *standing) watch(tenant.UID) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.changed
}

func (s *standing) of(uid tenant.UID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.why[uid]
}

func (s *standing) set(uid tenant.UID, why error) {
	s.watch(uid)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.why = map[tenant.UID]error{uid: why}
	close(s.changed)
	s.changed = nil
}

// quota lends from cells in memory.
type quota struct {
	mu     sync.Mutex
	cells  map[lease.Key]gcra.Ticks
	tokens map[string]int64 // granted, by limit
	denied string
	down   bool
}

func (q *quota) Grant(_ context.Context, asks []lease.Ask) ([]lease.Answer, int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.down {
		return nil, 0, errors.New("no quota")
	}
	var answers []lease.Answer
	for _, a := range asks {
		answers = append(answers, q.answer(a))
	}
	return answers, 1, nil
}

// answer charges the cells of an ask, all or none.
func (q *quota) answer(a lease.Ask) lease.Answer {
	out, after := lease.Answer{Outcome: lease.Granted}, make(map[lease.Key]gcra.Ticks)
	for _, c := range a.Cells {
		g := c.Policy.Limit.Grant(q.cells[c.Key], gcra.At(time.Now()), c.Need, c.Want)
		if c.Policy.Name == q.denied {
			g = gcra.Grant{RetryAfter: 6500 * time.Millisecond}
		}
		after[c.Key] = g.TAT
		out.Cells = append(out.Cells, lease.CellAnswer{
			OK: g.OK, Tokens: g.Tokens, Lifetime: g.Lifetime, RetryAfter: g.RetryAfter, Remaining: g.Remaining, Revision: 1,
		})
		if !g.OK {
			out.Outcome = lease.Denied
		}
	}
	for i, c := range a.Cells {
		if out.Outcome == lease.Granted {
			q.charge(c, after[c.Key], out.Cells[i].Tokens)
		}
	}
	return out
}

func (q *quota) charge(c lease.CellAsk, tat gcra.Ticks, tokens int64) {
	if q.cells == nil {
		q.cells, q.tokens = make(map[lease.Key]gcra.Ticks), make(map[string]int64)
	}
	q.cells[c.Key] = tat
	q.tokens[c.Policy.Name] += tokens
}

// keys are the cells that were charged, spent the tokens of a limit.
func (q *quota) keys() []lease.Key {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Collect(maps.Keys(q.cells))
}

func (q *quota) spent(limit string) int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.tokens[limit]
}

// deny has a limit deny from now on.
func (q *quota) deny(limit string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.denied = limit
}

func (q *quota) Return(context.Context, []lease.Give) error { return nil }

// The ways to the front door.
const (
	h1    = "http/1.1"
	h1TLS = "http/1.1 with TLS"
	h2TLS = "h2"
)

// client returns a client that comes to the front door whatever it asks for. It keeps
// one connection for all hosts that sni names, or one for each when sni is empty.
func (s *street) client(way, sni string) *http.Client {
	s.Helper()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(way != h2TLS)
	protocols.SetHTTP2(way == h2TLS)
	var dialer net.Dialer
	address := s.secure
	if way == h1 {
		address = s.plain
	}
	transport := &http.Transport{
		Protocols: protocols, TLSClientConfig: &tls.Config{RootCAs: s.roots(), ServerName: sni}, DisableCompression: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, address)
		},
	}
	s.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// answer is what a client got.
type answer struct {
	status int
	header http.Header
	body   string
	// said is what the app saw, zero when it was not the app that answered.
	said seen
	// problem is the refusal, zero when there is none.
	problem tenanthttp.Problem
}

// ask sends a request; a URL without scheme takes that of the way.
func (s *street) ask(client *http.Client, method, url string, header http.Header) answer {
	s.Helper()
	r, err := http.NewRequestWithContext(s.Context(), method, url, nil)
	need(s, err)
	maps.Copy(r.Header, header)
	res, err := client.Do(r)
	need(s, err)
	return s.read(res)
}

func (s *street) read(res *http.Response) answer {
	s.Helper()
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	need(s, err)
	a := answer{status: res.StatusCode, header: res.Header, body: string(b)}
	switch res.Header.Get("Content-Type") {
	case "application/seen+json":
		need(s, json.Unmarshal(b, &a.said))
	case "application/problem+json":
		need(s, json.Unmarshal(b, &a.problem))
	}
	return a
}

// get asks with a client of its own.
func (s *street) get(way, host, path string, header http.Header) answer {
	s.Helper()
	return s.ask(s.client(way, ""), http.MethodGet, origin(way, host)+path, header)
}

func origin(way, host string) string {
	if way == h1 {
		return "http://" + host
	}
	return "https://" + host
}

// seen is what the app was asked.
type seen struct {
	Tenant, Method, Host, URI, Proto string
	Header, Trailer                  http.Header
	Body                             string
}

// app is a product service that tells what it was asked, over mutual TLS.
type app struct {
	s          *street
	id         identity.ID
	http, grpc string
	asked      atomic.Int64
	// special answers of some paths
	paths map[string]http.HandlerFunc
	mu    sync.Mutex
}

func newApp(s *street) *app {
	s.Helper()
	id, err := identity.App(tenanttest.TrustDomain, tenanttest.Cell, "notes")
	need(s, err)
	a := &app{s: s, id: id, paths: map[string]http.HandlerFunc{}}
	source := s.source(id)
	l := listener(s)
	a.http = l.Addr().String()
	verified := tenanthttp.Handler(tenanthttp.Config{Verifier: s.issuer.Verifier(s)}, http.HandlerFunc(a.tell))
	server := &http.Server{
		TLSConfig: source.ServerTLS(identity.WithHTTP1()), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0), ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			a.asked.Add(1)
			if h := a.path(r.URL.Path); h != nil {
				h(w, r)
				return
			}
			verified.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), rawKey{}, r.Header.Clone())))
		}),
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.ServeTLS(l, "", "") })
	s.Cleanup(func() { _ = server.Close(); serving.Wait() })
	a.serveGRPC(source)
	return a
}

type rawKey struct{}

// on answers a path in a special way.
func (a *app) on(path string, h http.HandlerFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.paths[path] = h
}

func (a *app) path(path string) http.HandlerFunc {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.paths[path]
}

func (a *app) tell(w http.ResponseWriter, r *http.Request) {
	tc, err := tenant.FromContext(r.Context())
	if err != nil {
		tenanthttp.WriteProblem(w, r, err)
		return
	}
	var body bytes.Buffer
	_, _ = io.Copy(&body, r.Body)
	raw, _ := r.Context().Value(rawKey{}).(http.Header)
	w.Header().Set("Content-Type", "application/seen+json")
	w.Header().Set("Server", "notes")
	w.Header().Set("Rowhouse-Tenant-Bin", "from the app")
	told, err := json.Marshal(seen{
		Tenant: tc.ID().String(), Method: r.Method, Host: r.Host, URI: r.RequestURI, Proto: r.Proto,
		Header: raw, Trailer: r.Trailer, Body: body.String(),
	})
	if err != nil {
		a.s.Error(err)
	}
	_, _ = w.Write(told)
}

func need(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// names returns the sorted names of fields that contain what, however spelled.
func names(h http.Header, what string) []string {
	var found []string
	for name := range h {
		if strings.Contains(strings.ToLower(strings.NewReplacer("_", "-", ".", "-").Replace(name)), what) {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return found
}
