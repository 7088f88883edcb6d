package upstream_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/upstream"
)

// TestUnreadStreamsStopNobodyElse holds that clients who do not read their streams, however many, leave room in the
// connection that all tenants' calls to the app share.
func TestUnreadStreamsStopNobodyElse(t *testing.T) {
	t.Parallel()
	const streams = 300 // with net/http's own 4 MiB for each they would fill the connection's 1 GiB
	authority, err := identity.NewAuthority(identity.AuthorityConfig{TrustDomain: "rowhouse.localhost"})
	if err != nil {
		t.Fatal(err)
	}
	source := func(identify func(domain, cell, name string) (identity.ID, error), name string) (*identity.Source, identity.ID) {
		id, err := identify("rowhouse.localhost", "cell-1", name)
		if err != nil {
			t.Fatal(err)
		}
		pair, err := authority.Issue(identity.Leaf{ID: id})
		if err != nil {
			t.Fatal(err)
		}
		s, err := identity.FromPair(pair, identity.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return s, id
	}
	app, appID := source(identity.App, "notes")
	gateway, _ := source(identity.Service, "gateway")
	address, written := serveEndless(t, app)
	pool := upstream.NewPool(gateway)
	ctx, cancel := context.WithCancel(t.Context())
	defer pool.Close()
	defer cancel()
	ask := func(ctx context.Context, path string) (*http.Response, error) {
		r := (&http.Request{
			Method: http.MethodPost, URL: &url.URL{Scheme: "https", Path: path}, Host: "notes.acme.example",
			ProtoMajor: 2, Header: http.Header{"Content-Type": {"application/grpc"}},
		}).WithContext(ctx)
		return pool.RoundTrip(r, address, appID.String(), true)
	}
	if res, err := ask(ctx, "/short"); err != nil { // all streams then find this connection
		t.Fatal(err)
	} else {
		_ = res.Body.Close()
	}
	var opening sync.WaitGroup
	for range streams {
		opening.Go(func() {
			res, err := ask(ctx, "/endless")
			if err != nil {
				t.Errorf("open a stream: %v", err)
				return
			}
			t.Cleanup(func() { _ = res.Body.Close() }) // nobody reads it
		})
	}
	opening.Wait()
	still := time.NewTicker(500 * time.Millisecond)
	defer still.Stop()
	for before := int64(-1); before != written.Load(); <-still.C { // the app writes all that it may
		before = written.Load()
	}
	short, stop := context.WithTimeout(ctx, 5*time.Second)
	defer stop()
	res, err := ask(short, "/short")
	if err != nil {
		t.Fatalf("another tenant's call: %v", err)
	}
	defer func() { _ = res.Body.Close() }()
	if b, err := io.ReadAll(res.Body); err != nil || string(b) != "ok" {
		t.Errorf("another tenant's call: %q, %v", b, err)
	}
}

// serveEndless is an app that writes without an end, except on /short, and counts what it wrote.
func serveEndless(t *testing.T, source *identity.Source) (address string, written *atomic.Int64) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	chunk := make([]byte, 64<<10)
	written = new(atomic.Int64)
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	server := &http.Server{
		ReadHeaderTimeout: time.Minute, Protocols: protocols, TLSConfig: source.ServerTLS(),
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 1000},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/short" {
				_, _ = fmt.Fprint(w, "ok")
				return
			}
			for r.Context().Err() == nil {
				n, err := w.Write(chunk)
				if written.Add(int64(n)); err != nil {
					return
				}
			}
		}),
	}
	var done sync.WaitGroup
	done.Go(func() { _ = server.ServeTLS(l, "", "") })
	t.Cleanup(func() { _ = server.Close(); done.Wait() })
	return l.Addr().String(), written
}
