package system

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
)

// visit is one HTTP request at the front door.
type visit struct {
	method string // GET when empty
	host   string
	path   string
	tls    bool
	header map[string]string
	body   string
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// reason is that of the problem document.
func (a answer) reason() string {
	var problem struct{ Reason string }
	_ = json.Unmarshal([]byte(a.body), &problem) // no problem, no reason
	return problem.Reason
}

// browser returns a client that reaches the front door by every name.
func (h *house) browser() *http.Client {
	pool := x509.NewCertPool()
	pem, _ := os.ReadFile(h.path("ca", "roots.pem")) // without it every handshake fails
	pool.AppendCertsFromPEM(pem)
	transport := &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: 64,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
		},
	}
	h.finally(transport.CloseIdleConnections)
	return &http.Client{
		Transport:     transport,
		Timeout:       settle,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// ask sends one request.
func (h *house) ask(ctx context.Context, client *http.Client, v visit) (answer, error) {
	if v.method == "" {
		v.method = http.MethodGet
	}
	scheme, port := "http", h.ports.HTTP
	if v.tls {
		scheme, port = "https", h.ports.HTTPS
	}
	req, err := http.NewRequestWithContext(ctx, v.method, fmt.Sprintf("%s://%s:%d%s", scheme, v.host, port, v.path), strings.NewReader(v.body))
	if err != nil {
		return answer{}, err
	}
	for name, value := range v.header {
		req.Header.Set(name, value)
	}
	res, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, string(b)}, err
}

// visit is ask with a client of its own, for a test that fails when nothing answers.
func (h *house) visit(t testing.TB, v visit) answer {
	t.Helper()
	a, err := h.ask(t.Context(), h.browser(), v)
	if err != nil {
		t.Fatalf("%s %s%s: %v", v.method, v.host, v.path, err)
	}
	return a
}

// dial opens a connection that ends with the test.
func dial(t testing.TB, target string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(target, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// front dials the front door for a host, in plain text or over TLS.
func (h *house) front(t testing.TB, host string, overTLS bool, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	if !overTLS {
		return dial(t, loopback(h.ports.HTTP),
			append(options, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority(host))...)
	}
	creds, err := credentials.NewClientTLSFromFile(h.path("ca", "roots.pem"), host)
	if err != nil {
		t.Fatal(err)
	}
	return dial(t, loopback(h.ports.HTTPS), append(options, grpc.WithTransportCredentials(creds))...)
}

// identityOf is what a process of the house is called.
func identityOf(t testing.TB, name string) identity.ID {
	t.Helper()
	of := identity.Service
	if name == app || name == thief {
		of = identity.App
	}
	id, err := of(domain, cellID, name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// source is the identity of a process, as one who has its files.
func (h *house) source(t testing.TB, name string) *identity.Source {
	t.Helper()
	s, err := identity.Files(h.path(name, identity.CertFile), h.path(name, identity.KeyFile), h.path("ca", identity.RootsFile), identity.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// as dials a service directly with the identity of a process.
func (h *house) as(t testing.TB, who, service string) *grpc.ClientConn {
	t.Helper()
	return dial(t, loopback(h.ports.GRPC[service]),
		grpc.WithTransportCredentials(credentials.NewTLS(h.source(t, who).ClientTLS(identityOf(t, service)))))
}

// token is a bearer token on every call.
type token string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (t token) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(t)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (token) RequireTransportSecurity() bool { return false }

// operator dials a service as the house's operator, or with another token, or with none.
func (h *house) operator(t testing.TB, service string, with ...token) *grpc.ClientConn {
	t.Helper()
	if with == nil {
		b, err := os.ReadFile(h.path("operator", "token"))
		if err != nil {
			t.Fatal(err)
		}
		with = []token{token(strings.TrimSpace(string(b)))}
	}
	roots, err := os.ReadFile(h.path("ca", "roots.pem"))
	if err != nil {
		t.Fatal(err)
	}
	config, err := identity.AnonymousClientTLS(roots, identityOf(t, service), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	options := []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(config))}
	if with[0] != "" {
		options = append(options, grpc.WithPerRPCCredentials(with[0]))
	}
	return dial(t, loopback(h.ports.GRPC[service]), options...)
}

// The isolation models.
const (
	inShared   = tenancyv1.IsolationModel_ISOLATION_MODEL_SHARED
	inSchema   = tenancyv1.IsolationModel_ISOLATION_MODEL_SCHEMA
	inDatabase = tenancyv1.IsolationModel_ISOLATION_MODEL_DATABASE
)

// eachModel runs a test once for each isolation model, which also names what it makes.
func eachModel(t *testing.T, test func(t *testing.T, model tenancyv1.IsolationModel, name string)) {
	t.Helper()
	for name, model := range map[string]tenancyv1.IsolationModel{"shared": inShared, "schema": inSchema, "database": inDatabase} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, model, name)
		})
	}
}

// tenant makes a SHARED tenant of the enterprise plan, with a domain of its own, and returns
// when the house serves it.
func (h *house) tenant(t testing.TB, id string) (host string) {
	t.Helper()
	return h.tenantIn(t, id, inShared)
}

// tenantIn is tenant for any isolation model.
func (h *house) tenantIn(t testing.TB, id string, model tenancyv1.IsolationModel) (host string) {
	t.Helper()
	host, created := h.begin(t, id, model)
	h.wait(t, created)
	h.served(t, host)
	return host
}

// served returns when the house serves a host.
func (h *house) served(t testing.TB, host string) {
	t.Helper()
	client := h.browser()
	eventually(t, settle, func() error {
		a, err := h.ask(t.Context(), client, visit{host: host, path: "/notes"})
		if err == nil && a.status != http.StatusOK {
			err = fmt.Errorf("%s: %d %s", host, a.status, a.body)
		}
		return err
	})
}

// begin makes a tenant and a domain and does not wait for its home.
func (h *house) begin(t testing.TB, id string, model tenancyv1.IsolationModel) (host string, created *longrunningpb.Operation) {
	t.Helper()
	host = app + "." + id + ".localhost"
	tenancy := h.operator(t, "tenancy")
	resp, err := tenancyv1.NewTenantServiceClient(tenancy).CreateTenant(t.Context(), &tenancyv1.CreateTenantRequest{
		TenantId: id, Tenant: &tenancyv1.Tenant{DisplayName: id, Plan: "plans/enterprise", Placement: &tenancyv1.TenantPlacement{Model: model}},
	})
	if err == nil {
		_, err = tenancyv1.NewDomainServiceClient(tenancy).CreateDomain(t.Context(), &tenancyv1.CreateDomainRequest{
			Parent: "tenants/" + id, DomainId: host, Domain: &tenancyv1.Domain{App: "apps/" + app},
		})
	}
	if err != nil {
		t.Fatalf("make tenant %s: %v", id, err)
	}
	return host, resp.GetOperation()
}

// wait waits for the good end of an operation.
func (h *house) wait(t testing.TB, o *longrunningpb.Operation) {
	t.Helper()
	operations := longrunningpb.NewOperationsClient(h.operator(t, "tenancy"))
	eventually(t, startWithin, func() (err error) { // whoever crashed holds it for half a minute
		if !o.GetDone() {
			o, err = operations.WaitOperation(t.Context(), &longrunningpb.WaitOperationRequest{Name: o.GetName(), Timeout: durationpb.New(settle)})
		}
		if err == nil && !o.GetDone() {
			err = fmt.Errorf("it goes on: %v", o)
		}
		return err
	})
	if o.GetError() != nil {
		t.Fatalf("operation: %v", o)
	}
}

// lodging is where a tenant's notes are.
type lodging struct{ uid, database, schema string }

// lodging asks tenancy where a tenant's notes are.
func (h *house) lodging(t testing.TB, id string) lodging {
	t.Helper()
	tenancy := h.operator(t, "tenancy")
	m, err := tenancyv1.NewTenantServiceClient(tenancy).GetTenant(t.Context(), &tenancyv1.GetTenantRequest{Name: "tenants/" + id})
	if err != nil {
		t.Fatal(err)
	}
	p, err := tenancyv1.NewPlacementServiceClient(tenancy).GetPlacement(t.Context(), &tenancyv1.GetPlacementRequest{Name: "tenants/" + id + "/placement"})
	if err != nil || len(p.GetPlacement().GetApps()) == 0 {
		t.Fatalf("placement of %s: %v %v", id, p, err)
	}
	for _, a := range p.GetPlacement().GetApps() {
		if a.GetApp() == "apps/"+app {
			return lodging{m.GetTenant().GetUid(), a.GetDatabase(), a.GetSchema()}
		}
	}
	t.Fatalf("%s has no place in the app: %v", id, p)
	return lodging{}
}

// write writes a note through the front door and returns its name.
func (h *house) write(t testing.TB, host, title string) string {
	t.Helper()
	body, err := json.Marshal(map[string]string{"title": title})
	if err != nil {
		t.Fatal(err)
	}
	a := h.visit(t, visit{method: http.MethodPost, host: host, path: "/notes", body: string(body)})
	var note struct{ Name string }
	if err := json.Unmarshal([]byte(a.body), &note); err != nil || a.status != http.StatusOK {
		t.Fatalf("write: %d %s", a.status, a.body)
	}
	return note.Name
}

// presenting returns ctx with a tenant context in the metadata.
func presenting(ctx context.Context, tokens ...string) context.Context {
	var pairs []string
	for _, t := range tokens {
		pairs = append(pairs, tenant.MetadataKey, t)
	}
	return metadata.AppendToOutgoingContext(ctx, pairs...)
}

// verdict is how a call ended: the code and the reason, "OK" for a good one.
func verdict(err error) string {
	if err == nil {
		return "OK"
	}
	st, _ := status.FromError(err)
	return strings.TrimSpace(st.Code().String() + " " + fault.ReasonOf(tenantgrpc.FromStatus(err)))
}

// issuer signs tokens of tenants' users.
type issuer struct {
	file string
	key  ed25519.PrivateKey
}

const issuerName = "https://sign-in.example"

// newIssuer makes a key and the file that names it for rowhouse dev.
func newIssuer(dir string) (*issuer, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: public, KeyID: "one", Algorithm: "EdDSA", Use: "sig"}}})
	if err != nil {
		return nil, err
	}
	jwks, file := filepath.Join(dir, "jwks.json"), filepath.Join(dir, "users.yaml")
	text := fmt.Sprintf("users:\n  - issuer: %s\n    audiences: [notes]\n    algorithms: [EdDSA]\n    jwks: %s\n", issuerName, jwks)
	err = errors.Join(os.WriteFile(jwks, keys, 0o600), os.WriteFile(file, []byte(text), 0o600))
	return &issuer{file, private}, err
}

// token returns a token of a user of the tenant.
func (i *issuer) token(t testing.TB, tenantID string, edits ...func(*jwt.Claims)) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: jose.JSONWebKey{Key: i.key, KeyID: "one"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	claims := jwt.Claims{
		Issuer: issuerName, Subject: "someone", Audience: jwt.Audience{"notes"},
		Expiry: jwt.NewNumericDate(time.Now().Add(time.Hour)), IssuedAt: jwt.NewNumericDate(time.Now()),
	}
	for _, edit := range edits {
		edit(&claims)
	}
	raw, err := jwt.Signed(signer).Claims(claims).Claims(map[string]any{"tenant": tenantID}).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
