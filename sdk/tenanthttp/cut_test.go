package tenanthttp_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanthttp"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

const scope = tenant.Scopes(1 << 3)

func encode(token string) string { return base64.StdEncoding.EncodeToString([]byte(token)) }

// A context for one gRPC call opens no page.
func TestOnlySessionsAreServed(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	gateway := a.client(a.source(a.Gateway()).ClientTLS(a.id))
	once := a.Token(t, "acme", tenanttest.For(tenant.RequestDigest("/test.Notes/Purge", "r1", "notes/1")))
	if status, got := a.ask(gateway, encode(once)); status != 403 || got != "PRESENTER_REFUSED" {
		t.Errorf("a TRANSACTION context: %d %q", status, got)
	}
}

func TestScopesAndSuspendedTenants(t *testing.T) {
	t.Parallel()
	a := newAppOf(t, http.HandlerFunc(whoami), func(c *tenanthttp.Config) { c.Scopes, c.AllowSuspended = scope, true })
	gateway := a.client(a.source(a.Gateway()).ClientTLS(a.id))
	granted := func(c *tenant.Claims) { c.Scopes = scope | 1 }
	if status, got := a.ask(gateway, encode(a.Token(t, "acme"))); status != 403 || got != "PERMISSION_MISSING" {
		t.Errorf("without the scope: %d %q", status, got)
	}
	if status, got := a.ask(gateway, encode(a.Token(t, "acme", granted))); status != 200 || got != "acme" {
		t.Errorf("with the scope: %d %q", status, got)
	}
	a.Suspend(t, "initech")
	if status, got := a.ask(gateway, encode(a.Token(t, "initech", granted))); status != 200 || got != "initech" {
		t.Errorf("suspended: %d %q", status, got)
	}
}

// send asks over HTTP/1.1 or HTTP/2 without waiting for the whole answer.
func (a *app) send(major int, body io.Reader) (*http.Response, error) {
	a.t.Helper()
	transport := &http.Transport{TLSClientConfig: a.source(a.Gateway()).ClientTLS(a.id), ForceAttemptHTTP2: major == 2}
	a.t.Cleanup(transport.CloseIdleConnections)
	req, err := http.NewRequestWithContext(a.t.Context(), http.MethodPost, a.server.URL, body)
	must(a.t, err)
	req.Header.Set(tenanthttp.Header, encode(a.Token(a.t, "acme")))
	return transport.RoundTrip(req)
}

// A request that was cut does not take later ones of its connection along, however its
// handler ends and whatever a middleware outside answers then.
func TestSuspensionCutsNoOthers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		whole  bool // it has answered before the cut
		end    func()
	}{
		"returns":                       {http.StatusForbidden, false, func() {}},
		"panics":                        {http.StatusInternalServerError, false, func() { panic("the application's defect") }},
		"returns behind a whole answer": {http.StatusOK, true, func() {}},
		"panics behind a whole answer":  {http.StatusOK, true, func() { panic("the application's defect") }},
	} {
		for _, major := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s over %d", name, major), func(t *testing.T) {
				t.Parallel()
				working, left := make(chan struct{}), make(chan struct{})
				a := newAppBehind(t, recovering(left), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Method == http.MethodPut {
						if c.whole {
							w.Header().Set("Content-Length", "5")
							_, _ = io.WriteString(w, "whole")
							_ = http.NewResponseController(w).Flush()
						}
						close(working)
						<-r.Context().Done()
						c.end()
					} else if err := r.Context().Err(); err != nil {
						http.Error(w, err.Error(), http.StatusInternalServerError)
					}
				}))
				client := &http.Client{Transport: &http.Transport{
					TLSClientConfig: a.source(a.Gateway()).ClientTLS(a.id), ForceAttemptHTTP2: major == 2,
				}}
				t.Cleanup(client.CloseIdleConnections)
				ask := func(method, who string) (int, error) {
					req, err := http.NewRequestWithContext(patient(t), method, a.server.URL, nil)
					if err != nil {
						return 0, err
					}
					req.Header.Set(tenanthttp.Header, encode(a.Token(t, who)))
					res, err := client.Do(req)
					if err != nil {
						return 0, err
					}
					defer res.Body.Close()
					_, err = io.Copy(io.Discard, res.Body)
					return res.StatusCode, err
				}
				go func() {
					<-working
					a.Suspend(t, "acme")
				}()
				if status, err := ask(http.MethodPut, "acme"); err != nil && !c.whole || status != c.status { // HTTP/2 breaks it off still
					t.Fatalf("cut: %d, %v", status, err)
				}
				<-left // a whole answer comes before the cut
				for range 3 {
					if status, err := ask(http.MethodGet, "globex"); err != nil || status != http.StatusOK {
						t.Errorf("the next one: %d, %v", status, err)
					}
				}
			})
		}
	}
}

// recovering is a middleware that lets no panic through, and says when a PUT has ended.
func recovering(left chan<- struct{}) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() {
				if recover() != nil {
					w.WriteHeader(http.StatusInternalServerError)
				}
				if r.Method == http.MethodPut {
					close(left)
				}
			}()
			h.ServeHTTP(w, r)
		})
	}
}

// patient bounds what only a defect would make last.
func patient(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// Whatever a handler is at when its tenant is suspended, it is stopped, and what it
// answered by then is not taken for whole.
func TestSuspensionCutsRequests(t *testing.T) {
	t.Parallel()
	large := make([]byte, 1<<16)
	for name, c := range map[string]struct {
		begun bool // the client has a part of the answer by then
		do    func(w http.ResponseWriter, r *http.Request)
	}{
		"waits": {false, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "3")
			w.Header().Set("Set-Cookie", "a=b")
			<-r.Context().Done()
			_, _ = io.WriteString(w, "yes")
		}},
		"reads": {false, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }},
		"writes": {true, func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := w.Write(large); err != nil { // held up: the client does not read
					return
				}
			}
		}},
		"returns at once": {true, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
	} {
		for _, major := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s over %d", name, major), func(t *testing.T) {
				t.Parallel()
				working, ended := make(chan struct{}), make(chan error, 1)
				a := newAppOf(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if c.begun {
						_, _ = io.WriteString(w, "begun")
						_ = http.NewResponseController(w).Flush()
					}
					close(working)
					defer func() { ended <- context.Cause(r.Context()) }()
					c.do(w, r)
				}))
				var body io.Reader // only where it is read: HTTP/1.1 reads all of it before it answers
				if name == "reads" {
					unfinished, sending := io.Pipe()
					defer sending.Close()
					body = unfinished
				}
				go func() {
					<-working
					a.Suspend(t, "acme")
				}()
				res, err := a.send(major, body)
				must(t, err)
				defer res.Body.Close()
				if res.ProtoMajor != major {
					t.Errorf("spoken over %s", res.Proto)
				}
				select {
				case err := <-ended:
					if fault.ReasonOf(err) != "TENANT_SUSPENDED" {
						t.Errorf("the handler is told %v", err)
					}
				case <-patient(t).Done():
					t.Fatal("the handler goes on")
				}
				_, err = io.Copy(io.Discard, res.Body)
				if c.begun && err == nil {
					t.Error("half an answer looks whole")
				}
				if !c.begun && (err != nil || res.StatusCode != http.StatusForbidden || res.Header.Get("Set-Cookie") != "") {
					t.Errorf("answered %d %v, %v", res.StatusCode, res.Header, err)
				}
			})
		}
	}
}

func TestRequestEndsWithItsContext(t *testing.T) {
	t.Parallel()
	a := newAppOf(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-patient(t).Done():
		}
	}), func(c *tenanthttp.Config) {
		c.Clock = func() time.Time { return time.Now().Add(tenant.MaxSessionLife) } // this much has passed
	})
	gateway := a.client(a.source(a.Gateway()).ClientTLS(a.id))
	if status, got := a.ask(gateway, encode(a.Token(t, "acme"))); status != 401 || got != "CONTEXT_EXPIRED" {
		t.Errorf("expired while it was served: %d %q", status, got)
	}
}
