package providers_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	flagdprovider "github.com/open-feature/go-sdk-contrib/providers/flagd/pkg"
	ofrepprovider "github.com/open-feature/go-sdk-contrib/providers/ofrep"
	of "github.com/open-feature/go-sdk/openfeature"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/rowhouse-platform/rowhouse/sdk/flags/doortest"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/flagd"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/ofrep"
)

const document = `{"flags":{
	"bool":{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"on","metadata":{"public":true}},
	"a/text":{"state":"ENABLED","variants":{"v":"first","w":"second"},"defaultVariant":"v","metadata":{"public":true}},
	"int":{"state":"ENABLED","variants":{"v":9000000000},"defaultVariant":"v","metadata":{"public":true}},
	"float":{"state":"ENABLED","variants":{"v":3.14},"defaultVariant":"v","metadata":{"public":true}},
	"object":{"state":"ENABLED","variants":{"v":{"a":["b"]}},"defaultVariant":"v","metadata":{"public":true}},
	"rule":{"state":"ENABLED","variants":{"hi":"hi","lo":"lo"},"defaultVariant":"lo","metadata":{"public":true},
		"targeting":{"if":[{"and":[{"==":[{"var":"tenant"},"acme"]},{"==":[{"var":"environment"},"production"]},{"==":[{"var":"level"},"high"]}]},"hi"]}},
	"off":{"state":"DISABLED","variants":{"on":true,"off":false},"defaultVariant":"off","metadata":{"public":true}}}}`

// house serves acme's flags on one address, over TLS, and can be restarted.
type house struct {
	testing.TB
	*doortest.House

	handler  http.Handler
	address  string
	cert     tls.Certificate
	certPath string
	server   *http.Server
	serving  sync.WaitGroup
}

func newHouse(tb testing.TB) *house {
	tb.Helper()
	h := &house{TB: tb, House: doortest.New(tb)}
	h.SetPlatform(document)
	remote, wire := ofrep.New(ofrep.Config{Door: h.Door, Revision: h.Revision}), flagd.New(flagd.Config{Door: h.Door})
	h.handler = h.For("acme", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.EscapedPath(), ofrep.Prefix) {
			remote.ServeHTTP(w, r)
			return
		}
		wire.ServeHTTP(w, r)
	}))
	borrowed := httptest.NewTLSServer(nil) // for its certificate
	h.cert = borrowed.TLS.Certificates[0]
	borrowed.Close()
	h.certPath = filepath.Join(tb.TempDir(), "cert.pem")
	h.must(os.WriteFile(h.certPath, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.cert.Certificate[0]}), 0o600))
	h.address = "127.0.0.1:0"
	h.start()
	tb.Cleanup(h.stop)
	return h
}

func (h *house) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

func (h *house) start() {
	h.Helper()
	l, err := net.Listen("tcp", h.address)
	h.must(err)
	h.address = l.Addr().String()
	h.server = &http.Server{
		Handler: h.handler, ReadHeaderTimeout: time.Minute, TLSConfig: &tls.Config{Certificates: []tls.Certificate{h.cert}, NextProtos: []string{"h2", "http/1.1"}},
	}
	server := h.server
	h.serving.Go(func() { _ = server.ServeTLS(l, "", "") })
}

func (h *house) stop() { _ = h.server.Close(); h.serving.Wait() }

func (h *house) port() uint16 {
	_, text, _ := net.SplitHostPort(h.address)
	var port uint16
	_, err := fmt.Sscan(text, &port)
	h.must(err)
	return port
}

func (h *house) roots() *x509.CertPool {
	leaf, err := x509.ParseCertificate(h.cert.Certificate[0])
	h.must(err)
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return pool
}

// bearer sends a client key with each call.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (bearer) RequireTransportSecurity() bool { return true }

// kinds are the providers, each as its users would make it.
func kinds() map[string]func(*house, string) of.FeatureProvider {
	provider := func(h *house, options ...flagdprovider.ProviderOption) of.FeatureProvider {
		const patience = 5000
		p, err := flagdprovider.NewProvider(append(options, flagdprovider.WithPort(h.port()), flagdprovider.WithDeadline(patience))...)
		h.must(err)
		return p
	}
	return map[string]func(*house, string) of.FeatureProvider{
		"ofrep": func(h *house, key string) of.FeatureProvider {
			transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: h.roots()}}
			h.Cleanup(transport.CloseIdleConnections)
			return ofrepprovider.NewProvider("https://"+h.address, ofrepprovider.WithBearerToken(key), ofrepprovider.WithClient(&http.Client{Transport: transport}))
		},
		"flagd-rpc": func(h *house, key string) of.FeatureProvider { // it sends no header: the key is the URL's password
			return provider(h, flagdprovider.WithHost("key:"+key+"@127.0.0.1"), flagdprovider.WithTLS(h.certPath),
				flagdprovider.WithEventStreamConnectionMaxAttempts(20))
		},
		"flagd-in-process": func(h *house, key string) of.FeatureProvider {
			return provider(h, flagdprovider.WithInProcessResolver(), flagdprovider.WithHost("127.0.0.1"), flagdprovider.WithSelector("flagSetId=acme"),
				flagdprovider.WithGrpcDialOptionsOverride([]grpc.DialOption{
					grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: h.roots()})), grpc.WithPerRPCCredentials(bearer(key)),
				}), flagdprovider.WithRetryBackoffMs(100), flagdprovider.WithRetryBackoffMaxMs(200),
				flagdprovider.WithFatalStatusCodes([]string{"PERMISSION_DENIED"}))
		},
	}
}

// client makes a client with a provider of its own.
func (h *house) client(p of.FeatureProvider) *of.Client {
	h.Helper()
	h.must(of.SetNamedProviderAndWait(h.Name(), p))
	h.Cleanup(func() { _ = of.SetNamedProviderAndWait(h.Name(), of.NoopProvider{}) })
	return of.NewClient(h.Name())
}

// eventually asks until it is so.
func eventually(tb testing.TB, what string, is func() bool) {
	tb.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-deadline.C:
			tb.Fatalf("never came: %s", what)
		}
	}
}

// Each provider gets all kinds of values, sees a change, and goes on after a restart with what changed meanwhile.
func TestGoProviders(t *testing.T) {
	t.Parallel()
	for kind, make := range kinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			c := h.client(make(h, h.Key("acme")))
			ctx := t.Context()
			high := of.NewEvaluationContext("user", map[string]any{"level": "high", "environment": "moon"})
			h.values(c, kind, high)
			text := func() string { return c.String(ctx, "a/text", "default", high) }
			if got := text(); got != "first" {
				t.Errorf("before: %q", got)
			}
			h.SetTenant("acme", `{"flags":{"a/text":{"defaultVariant":"w"}}}`)
			eventually(t, "a change", func() bool { return text() == "second" })
			h.SetTenant("globex", `{"flags":{"bool":{"defaultVariant":"off"}}}`)
			if !c.Boolean(ctx, "bool", false, high) {
				t.Error("another tenant's change is seen")
			}
			h.stop()
			h.SetTenant("acme", `{"flags":{"a/text":{"defaultVariant":"v"}}}`)
			h.start()
			eventually(t, "the flags after a restart", func() bool { return text() == "first" })
			h.SetTenant("acme", `{"flags":{"a/text":{"defaultVariant":"w"}}}`)
			eventually(t, "a change after a restart", func() bool { return text() == "second" })
		})
	}
}

// values asks for each kind of value.
func (h *house) values(c *of.Client, kind string, who of.EvaluationContext) {
	h.Helper()
	ctx := h.Context()
	if got, err := c.BooleanValue(ctx, "bool", false, who); err != nil || !got {
		h.Errorf("bool: %v %v", got, err)
	}
	if got, err := c.IntValue(ctx, "int", 0, who); err != nil || got != 9000000000 {
		h.Errorf("int: %v %v", got, err)
	}
	if got, err := c.FloatValue(ctx, "float", 0, who); err != nil || got != 3.14 {
		h.Errorf("float: %v %v", got, err)
	}
	if got, err := c.ObjectValue(ctx, "object", nil, who); err != nil || fmt.Sprint(got) != "map[a:[b]]" {
		h.Errorf("object: %v %v", got, err)
	}
	rule, err := c.StringValueDetails(ctx, "rule", "default", who)
	if err != nil || rule.Value != "hi" || rule.Reason != of.TargetingMatchReason || rule.Variant != "hi" || rule.FlagMetadata["public"] != true {
		h.Errorf("rule: %+v %v", rule, err)
	}
	if got, err := c.StringValue(ctx, "bool", "default", who); err == nil || got != "default" {
		h.Errorf("bool as a string: %v %v", got, err)
	}
	if got, err := c.StringValueDetails(ctx, "none", "default", who); err == nil || got.Value != "default" || got.ErrorCode != of.FlagNotFoundCode {
		h.Errorf("no flag: %+v %v", got, err)
	}
	off, err := c.BooleanValueDetails(ctx, "off", true, who)
	switch kind {
	case "ofrep":
		if err != nil || !off.Value || off.Reason != of.DisabledReason {
			h.Errorf("off: %+v %v", off, err)
		}
	case "flagd-rpc": // flagd.evaluation.v1 cannot leave a value out, and this provider takes the empty one
		if err != nil || off.Value || off.Reason != of.DisabledReason {
			h.Errorf("off: %+v %v", off, err)
		}
	}
}

// A key of another tenant, a revoked one and none give nothing but defaults.
func TestGoProvidersForbidden(t *testing.T) {
	t.Parallel()
	for kind, make := range kinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			revoked := h.Key("acme")
			h.Revoke(revoked)
			for what, key := range map[string]string{"another tenant's": h.Key("globex"), "revoked": revoked, "no key": "x"} {
				p := make(h, key)
				err := of.SetNamedProviderAndWait(t.Name()+what, p)
				c := of.NewClient(t.Name() + what)
				got, asked := c.BooleanValueDetails(t.Context(), "bool", false, of.EvaluationContext{})
				if got.Value || asked == nil || (kind == "ofrep") != (err == nil) {
					t.Errorf("%s: %+v %v, and at its start %v", what, got, asked, err)
				}
				_ = of.SetNamedProviderAndWait(t.Name()+what, of.NoopProvider{})
			}
		})
	}
}
