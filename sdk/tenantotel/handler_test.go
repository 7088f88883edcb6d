package tenantotel_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"testing"

	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanthttp"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// presented is a request of the gateway for acme, in the gateway's trace.
func (w *world) presented(path string) *http.Request {
	w.t.Helper()
	ca, err := identity.NewAuthority(identity.AuthorityConfig{TrustDomain: tenanttest.TrustDomain})
	must(w.t, err)
	pair, err := ca.Issue(identity.Leaf{ID: w.Gateway()})
	must(w.t, err)
	block, _ := pem.Decode(pair.Cert)
	cert, err := x509.ParseCertificate(block.Bytes)
	must(w.t, err)
	chain := []*x509.Certificate{cert}
	r := httptest.NewRequestWithContext(w.t.Context(), http.MethodGet, path, nil)
	r.TLS = &tls.ConnectionState{PeerCertificates: chain, VerifiedChains: [][]*x509.Certificate{chain}}
	r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	r.Header.Set(tenanthttp.Header, base64.StdEncoding.EncodeToString([]byte(w.Token(w.t, "acme"))))
	return r
}

func TestHandlerStampsTheVerifiedTenant(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	handler := w.server.Handler(tenanthttp.Config{Verifier: w.Verifier(t)}, "/notes", http.HandlerFunc(
		func(rw http.ResponseWriter, r *http.Request) {
			c, err := tenant.FromContext(r.Context())
			must(t, err)
			switch r.URL.Path {
			case "/notes/panic":
				panic(http.ErrAbortHandler)
			case "/notes/new":
				rw.WriteHeader(http.StatusCreated)
			case "/notes/flush":
				must(t, http.NewResponseController(rw).Flush())
			}
			_, _ = rw.Write([]byte(c.ID().String()))
		}))
	serve := func(r *http.Request) {
		defer func() { _ = recover() }()
		handler.ServeHTTP(httptest.NewRecorder(), r)
	}
	forged := w.presented("/notes/forged")
	forged.Header.Set(tenanthttp.Header, "AAAA")
	for _, r := range []*http.Request{
		w.presented("/notes/new"), w.presented("/notes/17"), w.presented("/notes/panic"), w.presented("/notes/flush"), forged,
	} {
		serve(r)
	}
	metrics := httptest.NewRecorder()
	w.server.Metrics().ServeHTTP(metrics, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	measured := regexp.MustCompile(`_count\{.*http_response_status_code="201".*rowhouse_plan="` + tenanttest.Plan + `"`)
	if !measured.Match(metrics.Body.Bytes()) {
		t.Errorf("the measurement has no plan: %s", metrics.Body)
	}
	w.flush()
	got := map[string]int{}
	for _, s := range w.receiver.Spans() {
		if hexOf(s.TraceId) != "0af7651916cd43dd8448eb211c80319c" || s.Attr("http.route") != "/notes" {
			t.Errorf("a span of another trace or route: %v", s)
		}
		for _, a := range s.Attributes {
			if a.Key == "http.response.status_code" {
				got[fmt.Sprint(s.Attr("tenant.id"), " ", a.Value.GetIntValue())]++
			}
		}
	}
	for want, n := range map[string]int{"acme 201": 1, "acme 200": 2, "acme 500": 1, " 401": 1} {
		if got[want] != n {
			t.Errorf("%q: %d spans, expected %d; all: %v", want, got[want], n, got)
		}
	}
}
