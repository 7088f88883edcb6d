package tenanthttp_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanthttp"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// refresher is a gateway's RefreshContext: what renew says to its n-th call.
type refresher struct {
	calls atomic.Int64
	renew func(call int64, token string) (string, error)
}

func (r *refresher) RefreshContext(_ context.Context, token string) (string, error) {
	return r.renew(r.calls.Add(1), token)
}

// events answers with a line each 30 s: how long the context that it finds has to live.
func events(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).Flush()
	tick := time.NewTicker(30 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
		c, err := tenant.FromContext(r.Context())
		if err != nil {
			return
		}
		if _, err := io.WriteString(w, time.Until(c.ExpireTime()).String()+"\n"); err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
	}
}

// streaming is an app of events in memory, which a bubble of synctest can hold.
type streaming struct {
	*app
	pipe *bufconn.Listener
}

func newStreaming(t *testing.T, refresh *refresher) streaming {
	t.Helper()
	ca, err := identity.NewAuthority(identity.AuthorityConfig{TrustDomain: tenanttest.TrustDomain})
	must(t, err)
	id, err := identity.App(tenanttest.TrustDomain, tenanttest.Cell, "notes")
	must(t, err)
	s := streaming{&app{Issuer: tenanttest.NewIssuer(t, time.Now), t: t, ca: ca, id: id}, bufconn.Listen(1 << 16)}
	cfg := tenanthttp.Config{Verifier: s.Verifier(t)}
	if refresh != nil {
		cfg.Refresher = refresh
	}
	server := &http.Server{
		Handler: tenanthttp.Handler(cfg, http.HandlerFunc(events)), TLSConfig: s.source(id).ServerTLS(identity.WithHTTP1()),
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug), ReadHeaderTimeout: time.Second,
	}
	served := make(chan error, 1)
	go func() { served <- server.ServeTLS(s.pipe, "", "") }()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	return s
}

// get opens the stream of events with a context for acme.
func (s streaming) get(major int, edits ...func(*tenant.Claims)) *http.Response {
	s.t.Helper()
	transport := &http.Transport{
		TLSClientConfig: s.source(s.Gateway()).ClientTLS(s.id), ForceAttemptHTTP2: major == 2,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return s.pipe.DialContext(ctx) },
	}
	s.t.Cleanup(transport.CloseIdleConnections)
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "https://notes.test/", nil)
	must(s.t, err)
	req.Header.Set(tenanthttp.Header, encode(s.Token(s.t, "acme", edits...)))
	res, err := transport.RoundTrip(req)
	must(s.t, err)
	s.t.Cleanup(func() { _ = res.Body.Close() })
	if res.ProtoMajor != major || res.StatusCode != http.StatusOK {
		s.t.Fatalf("%s %s", res.Proto, res.Status)
	}
	return res
}

// eachProtocol runs a test in a bubble for each version of HTTP.
func eachProtocol(t *testing.T, test func(t *testing.T, major int)) {
	t.Helper()
	for major, name := range map[int]string{1: "HTTP/1.1", 2: "HTTP/2"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { test(t, major) })
		})
	}
}

func TestResponseLivesByRenewal(t *testing.T) {
	t.Parallel()
	eachProtocol(t, func(t *testing.T, major int) {
		r := &refresher{}
		s := newStreaming(t, r)
		began := time.Now()
		r.renew = func(call int64, _ string) (string, error) {
			if call%3 == 1 { // The gateway is away for a moment, now and then.
				return "", status.Error(codes.Unavailable, "away")
			}
			return s.Token(t, "acme", func(c *tenant.Claims) { c.FirstIssueTime = began }), nil
		}
		lines := bufio.NewScanner(s.get(major).Body)
		for range 20 {
			if !lines.Scan() {
				t.Fatalf("broken off after %v: %v", time.Since(began), lines.Err())
			}
			if left, err := time.ParseDuration(lines.Text()); err != nil || left <= 0 {
				t.Fatalf("the handler holds a context with %q to live, %v", lines.Text(), err)
			}
		}
		if lived := time.Since(began); lived != 10*time.Minute {
			t.Errorf("twenty lines after %v", lived)
		}
		s.Suspend(t, "acme")
		if lines.Scan() || lines.Err() == nil || time.Since(began) != 10*time.Minute {
			t.Errorf("suspended after renewals: %q, %v, after %v", lines.Text(), lines.Err(), time.Since(began))
		}
	})
}

// How a response ends that nobody suspends.
func TestResponseEnds(t *testing.T) {
	t.Parallel()
	const chain = 10 * time.Minute // what is left of it
	start := func(c *tenant.Claims) { c.FirstIssueTime = c.IssueTime.Add(chain - tenant.MaxChainLife) }
	for name, c := range map[string]struct {
		renew func(s streaming, first time.Time, token string) (string, error) // nil for no Refresher
		after time.Duration
	}{
		"without a refresher": {nil, tenant.MaxSessionLife},
		"with its chain": {func(s streaming, first time.Time, _ string) (string, error) {
			return s.Token(s.t, "acme", func(c *tenant.Claims) {
				c.FirstIssueTime = first
				if end := first.Add(tenant.MaxChainLife); c.ExpireTime.After(end) {
					c.ExpireTime = end
				}
			}), nil
		}, chain},
		"with the gateway away": {func(streaming, time.Time, string) (string, error) {
			return "", errors.New("away")
		}, tenant.MaxSessionLife},
		"refused": {func(streaming, time.Time, string) (string, error) {
			return "", tenantgrpc.Status(fault.New(fault.PermissionDenied, fault.ReasonPresenterRefused, "no")).Err()
		}, 35 * time.Second},
		"with another tenant's": {func(s streaming, first time.Time, _ string) (string, error) {
			return s.Token(s.t, "globex", func(c *tenant.Claims) { c.FirstIssueTime = first }), nil
		}, 35 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachProtocol(t, func(t *testing.T, major int) {
				var r *refresher
				if c.renew != nil {
					r = &refresher{}
				}
				s := newStreaming(t, r)
				began := time.Now()
				if r != nil {
					first := began.Add(chain - tenant.MaxChainLife)
					r.renew = func(_ int64, token string) (string, error) { return c.renew(s, first, token) }
				}
				_, err := io.Copy(io.Discard, s.get(major, start).Body)
				if lived := time.Since(began); lived != c.after || err == nil {
					t.Errorf("ended after %v, %v; want a broken answer after %v", lived, err, c.after)
				}
			})
		})
	}
}
