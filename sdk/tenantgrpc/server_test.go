package tenantgrpc_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

func with(tokens ...string) func(context.Context) context.Context {
	return func(ctx context.Context) context.Context {
		pairs := make([]string, 0, 2*len(tokens))
		for _, token := range tokens {
			pairs = append(pairs, tenant.MetadataKey, token)
		}
		return metadata.AppendToOutgoingContext(ctx, pairs...)
	}
}

// Everybody who writes the metadata by hand, as an attacker inside the house can.
func TestServerRefusesWhatIsNotAContext(t *testing.T) {
	t.Parallel()
	h, stranger := newHouse(t), tenanttest.NewIssuer(t, nil)
	gateway := h.dialWith(h.Gateway())
	good := h.Token(t, "acme")
	flipped := good[:40] + string(good[40]^1) + good[41:]
	scoped := h.Token(t, "acme", func(c *tenant.Claims) { c.Scopes = scope })
	h.Suspend(t, "globex")
	h.Change(t, "initech", func(s *tenant.TenantState) { s.State = tenant.StateDeleted })
	stale := h.Token(t, "hooli")
	h.Change(t, "hooli", func(s *tenant.TenantState) { s.PlacementGeneration++ })
	for _, c := range []struct {
		name, method string
		in           func(context.Context) context.Context
		kind         fault.Kind
		reason       string
	}{
		{"none", whoami, with(), fault.Unauthenticated, "CONTEXT_MISSING"},
		{"empty", whoami, with(""), fault.Unauthenticated, "CONTEXT_MISSING"},
		{"two equal", whoami, with(good, good), fault.Unauthenticated, "CONTEXT_INVALID"},
		{"good and forged", whoami, with(good, flipped), fault.Unauthenticated, "CONTEXT_INVALID"},
		{"forged and good", whoami, with(flipped, good), fault.Unauthenticated, "CONTEXT_INVALID"},
		{"unsigned", whoami, with(good[:len(good)-64] + strings.Repeat("\x00", 64)), fault.Unauthenticated, "CONTEXT_INVALID"},
		{"one bit", whoami, with(flipped), fault.Unauthenticated, "CONTEXT_INVALID"},
		{"cut", whoami, with(good[:len(good)-1]), fault.Unauthenticated, "CONTEXT_INVALID"},
		{"foreign key", whoami, with(stranger.Token(t, "acme")), fault.Unauthenticated, "CONTEXT_INVALID"},
		{"suspended", whoami, with(h.Token(t, "globex")), fault.PermissionDenied, "TENANT_SUSPENDED"},
		{"deleted", whoami, with(h.Token(t, "initech")), fault.PermissionDenied, "TENANT_DELETED"},
		{"moved", whoami, with(stale), fault.Aborted, "PLACEMENT_STALE"},
		{"other audience", whoami, with(h.Token(t, "acme", func(c *tenant.Claims) { c.Audience = tenant.AudienceQuota })),
			fault.PermissionDenied, "PRESENTER_REFUSED"},
		{"session for a transaction", purge, with(good), fault.PermissionDenied, "PRESENTER_REFUSED"},
		{"transaction for a session", whoami, with(h.Token(t, "acme", tenanttest.For(tenant.RequestDigest(purge, "1", "x")))),
			fault.PermissionDenied, "PRESENTER_REFUSED"},
		{"without the scope", write, with(good), fault.PermissionDenied, "PERMISSION_MISSING"},
		{"stream, none", watch, with(), fault.Unauthenticated, "CONTEXT_MISSING"},
		{"stream, two", watch, with(good, good), fault.Unauthenticated, "CONTEXT_INVALID"},
		{"bidi, forged", chat, with(flipped), fault.Unauthenticated, "CONTEXT_INVALID"},
		{"no rule", bare, with(good), fault.Unimplemented, "METHOD_UNKNOWN"},
		{"no method", "/test.Notes/Nothing", with(good), fault.Unimplemented, "METHOD_UNKNOWN"},
		{"no service", "/test.Other/Whoami", with(good), fault.Unimplemented, "METHOD_UNKNOWN"},
	} {
		_, err := call(c.in(t.Context()), gateway, c.method)
		expect(t, c.name, err, c.kind, c.reason)
	}
	if n := h.notes.count(); n != 0 {
		t.Errorf("%d refused calls reached a handler", n)
	}
	for _, c := range []struct{ name, method, token string }{
		{"good", whoami, good}, {"scoped", write, scoped}, {"suspended", export, h.Token(t, "globex")},
		{"transaction", purge, h.Token(t, "acme", tenanttest.For(tenant.RequestDigest(purge, "1", "x")))},
	} {
		if _, err := call(with(c.token)(t.Context()), gateway, c.method); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// A handler that forgets to redeem must not find out from a captured call.
func TestTransactionsAreRedeemed(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	conn := h.dial(h.Gateway(), tenantgrpc.ClientConfig{})
	ctx := h.ctx("acme", tenanttest.For(tenant.RequestDigest(purge, "1", "x")))
	if got, err := call(ctx, conn, purge); err != nil || got != "acme" {
		t.Errorf("redeemed: %q, %v", got, err)
	}
	_, err := call(ctx, conn, purge)
	expect(t, "again", err, fault.PermissionDenied, "CONTEXT_REPLAYED")
	h.notes.forgets = true
	_, err = call(h.ctx("acme", tenanttest.For(tenant.RequestDigest(purge, "1", "x"))), conn, purge)
	expect(t, "forgotten", err, fault.Internal, "INTERNAL")
	if log := h.log.String(); !strings.Contains(log, "did not redeem") {
		t.Errorf("the mistake is not logged: %s", log)
	}
}

// A stolen token is worth nothing on another's connection.
func TestServerRefusesOtherPresenters(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	token := h.Token(t, "acme")
	for _, name := range []string{"billing", "notes"} {
		_, err := call(with(token)(t.Context()), h.dialWith(app(t, name)), whoami)
		expect(t, name, err, fault.PermissionDenied, "PRESENTER_REFUSED")
	}
	if _, err := call(with(token)(t.Context()), h.dialWith(h.Gateway()), whoami); err != nil {
		t.Errorf("gateway: %v", err)
	}
	if log := h.log.String(); !strings.Contains(log, "app/billing") || !strings.Contains(log, "may not present") {
		t.Errorf("the cause is not logged: %s", log)
	}
}

// Other planes have no tenant, whatever the caller sends.
func TestOtherPlanesHaveNoTenant(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	got, err := call(with(h.Token(t, "acme"))(t.Context()), h.dialWith(h.Gateway()), admin)
	if err != nil || got != "nobody" {
		t.Errorf("admin plane: %q, %v", got, err)
	}
}

// gRPC for Go does not split joined values; nobody else may either.
func TestJoinedValuesAreRefused(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	a := base64.StdEncoding.EncodeToString([]byte(h.Token(t, "acme")))
	b := base64.StdEncoding.EncodeToString([]byte(h.Token(t, "globex")))
	config := h.source(h.Gateway()).ClientTLS(h.id)
	config.NextProtos = []string{"h2"}
	transport := &http.Transport{Protocols: new(http.Protocols), DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := h.lis.DialContext(ctx)
		if err != nil {
			return nil, err
		}
		client := tls.Client(conn, config)
		return client, client.HandshakeContext(ctx)
	}}
	transport.Protocols.SetHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	ask := func(values ...string) string {
		t.Helper()
		body := strings.NewReader("\x00\x00\x00\x00\x00")
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://notes"+whoami, body)
		must(t, err)
		req.Header.Set("Content-Type", "application/grpc")
		req.Header.Set("TE", "trailers")
		for _, v := range values {
			req.Header.Add(tenant.MetadataKey, v)
		}
		res, err := transport.RoundTrip(req)
		must(t, err)
		defer res.Body.Close()
		for buf := make([]byte, 64); err == nil; {
			_, err = res.Body.Read(buf)
		}
		return res.Header.Get("Grpc-Status") + res.Trailer.Get("Grpc-Status")
	}
	if got := ask(a); got != "0" {
		t.Fatalf("one value: status %s", got)
	}
	for name, values := range map[string][]string{
		"comma": {a + "," + b}, "comma and space": {a + ", " + a}, "two lines": {a, b}, "two lines, other order": {b, a},
		"comma first": {"," + a}, "comma last": {a + ","},
	} {
		if got := ask(values...); got == "0" {
			t.Errorf("%s: accepted", name)
		}
	}
	if n := h.notes.count(); n != 1 {
		t.Errorf("the handler ran %d times", n)
	}
}

func TestErrorsBecomeStatuses(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	conn := h.dial(h.Gateway(), tenantgrpc.ClientConfig{})
	secret := errors.New("dial 10.0.0.1: password=hunter2")
	for name, fail := range map[string]func(context.Context) error{
		"plain":  func(context.Context) error { return secret },
		"status": func(context.Context) error { return status.Error(codes.PermissionDenied, secret.Error()) },
		"fault":  func(context.Context) error { return fault.New(fault.Internal, "X", "%w", secret) },
		"panic":  func(context.Context) error { panic(secret) },
	} {
		h.notes.fail = fail
		_, err := call(h.ctx("acme"), conn, whoami)
		expect(t, name, err, fault.Internal, "INTERNAL")
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the cause was sent: %v", name, err)
		}
	}
	if n := strings.Count(h.log.String(), "hunter2"); n < 4 {
		t.Errorf("the cause was logged %d times", n)
	}
	h.notes.fail = func(context.Context) error {
		return fault.New(fault.NotFound, "RESOURCE_NOT_FOUND", "no note").WithCause(secret).WithMetadata("name", "n1")
	}
	_, err := call(h.ctx("acme"), conn, whoami)
	expect(t, "fault with a cause", err, fault.NotFound, "RESOURCE_NOT_FOUND")
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the cause was sent: %v", err)
	}
}

func TestUnaryCallsHaveDeadlines(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	left := make(chan int, 1)
	h.notes.fail = func(ctx context.Context) error {
		deadline, ok := ctx.Deadline()
		if !ok {
			return errors.New("no deadline")
		}
		left <- int(time.Until(deadline).Seconds() + 0.5)
		return nil
	}
	foreign := h.dialWith(h.Gateway())
	for _, c := range []struct {
		method string
		want   int
	}{{whoami, 5}, {admin, 30}} {
		if _, err := call(with(h.Token(t, "acme"))(t.Context()), foreign, c.method); err != nil {
			t.Fatal(err)
		}
		if got := <-left; got != c.want {
			t.Errorf("%s has %d s, expected %d", c.method, got, c.want)
		}
	}
	long, cancel := context.WithTimeout(with(h.Token(t, "acme"))(t.Context()), 10*tenantgrpc.MaxDeadline)
	defer cancel()
	if _, err := call(long, foreign, whoami); err != nil {
		t.Fatal(err)
	}
	if got := <-left; got != 60 {
		t.Errorf("a caller may wait %d s", got)
	}
}

// Telemetry that starts before the context is verified names the wrong tenant or
// none; a server wired so serves nobody.
func TestStatsHandlerIsNeeded(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	options := tenantgrpc.Server(h.cfg)[1:]
	n := &notes{}
	server := grpc.NewServer(append(options, grpc.Creds(credentials.NewTLS(h.source(h.id).ServerTLS())))...)
	server.RegisterService(n.desc(), nil)
	h2 := *h
	h2.lis = listen(t, server)
	_, err := call(with(h.Token(t, "acme"))(t.Context()), h2.dialWith(h.Gateway()), whoami)
	expect(t, "without the stats handler", err, fault.Internal, "INTERNAL")
	if n.count() != 0 {
		t.Error("the handler ran")
	}
}

func TestCheckNamesWhatIsNotRuled(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	err := tenantgrpc.Check(h.server, h.cfg)
	if err == nil || !strings.Contains(err.Error(), bare+" has no rule") || strings.Count(err.Error(), "\n") != 0 {
		t.Errorf("a method without a rule: %v", err)
	}
	without := h.cfg
	without.Scopes = nil
	if err := tenantgrpc.Check(h.server, without); err == nil || !strings.Contains(err.Error(), "notes.write") {
		t.Errorf("a scope that nobody knows: %v", err)
	}
	without = h.cfg
	without.Verifier = nil
	if err := tenantgrpc.Check(h.server, without); err == nil || !strings.Contains(err.Error(), "no verifier") {
		t.Errorf("no verifier: %v", err)
	}
	extra := table()
	extra["/test.Notes/Gone"] = data(nil)
	extra[bare] = data(nil)
	without = h.cfg
	without.Rules = tenantgrpc.NewRules(extra)
	if err := tenantgrpc.Check(h.server, without); err == nil || err.Error() != "the table rules /test.Notes/Gone, which is not registered" {
		t.Errorf("a rule for nothing: %v", err)
	}
	delete(extra, "/test.Notes/Gone")
	if err := tenantgrpc.Check(h.server, without); err != nil {
		t.Errorf("complete: %v", err)
	}
}

// Rules of real protos come from their descriptors.
func TestRulesComeFromDescriptors(t *testing.T) {
	t.Parallel()
	rules := tenantgrpc.NewRules(nil)
	for range 2 { // the second time from memory
		rule, ok := rules.Find(configv1.SettingsService_GetSettings_FullMethodName)
		if !ok || rule.GetPlane().String() != "PLANE_DATA" {
			t.Errorf("GetSettings: %v, %v", rule, ok)
		}
	}
	for _, method := range []string{
		"", "/", "rowhouse.config.v1.SettingsService/GetSettings", "/rowhouse.config.v1.SettingsService/",
		"/rowhouse.config.v1.SettingsService", "/rowhouse.config.v1/SettingsService.GetSettings",
		"/rowhouse.config.v1.SettingsService/GetSettings/", "//GetSettings", "/rowhouse.config.v1/SettingsService",
		"/rowhouse.config.v1.SettingsService/getsettings", "/rowhouse.config.v1.GetSettingsRequest/namespace",
	} {
		if rule, ok := rules.Find(method); ok {
			t.Errorf("%q has the rule %v", method, rule)
		}
	}
}

// Two tenants at once over one connection: nobody sees the other.
func TestTenantsDoNotMix(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	conn := h.dial(h.Gateway(), tenantgrpc.ClientConfig{})
	failures := make(chan string, 200)
	done := make(chan struct{})
	for i := range 200 {
		id := []string{"acme", "globex"}[i%2]
		ctx := h.ctx(id)
		go func() {
			if got, err := call(ctx, conn, whoami); err != nil || got != id {
				failures <- id + " was answered as " + got
			}
			done <- struct{}{}
		}()
	}
	for range 200 {
		<-done
	}
	close(failures)
	for f := range failures {
		t.Error(f)
	}
}

func TestUntrustedCertificatesDoNotConnect(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	other, err := identity.NewAuthority(identity.AuthorityConfig{TrustDomain: tenanttest.TrustDomain})
	must(t, err)
	pair, err := other.Issue(identity.Leaf{ID: h.Gateway()})
	must(t, err)
	trusting := pair
	trusting.Roots = append(h.ca.RootsPEM(), pair.Roots...)
	source, err := identity.FromPair(trusting, identity.Options{})
	must(t, err)
	conn, err := grpc.NewClient("passthrough:notes",
		grpc.WithTransportCredentials(credentials.NewTLS(source.ClientTLS(h.id))),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return h.lis.DialContext(ctx) }))
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	_, err = call(with(h.Token(t, "acme"))(t.Context()), conn, whoami)
	if status.Code(err) != codes.Unavailable || h.notes.count() != 0 {
		t.Errorf("a foreign root's gateway: %v", err)
	}
}
