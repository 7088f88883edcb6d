// Command peer is what the benchmark proxy-http1 needs besides the house: an upstream
// that answers with 1 KB, over plain HTTP and over mutual TLS, and Go's
// httputil.ReverseProxy to compare with. The benchmark builds and starts it.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rowhouse-platform/rowhouse/sdk/identity"
)

const (
	bodySize    = 1024
	copyBuffer  = 32 << 10
	idlePerHost = 256
	headTimeout = 10 * time.Second
)

// options is the command line.
type options struct {
	listen, listenTLS, to, id, peer string
}

func main() {
	var o options
	flag.StringVar(&o.listen, "listen", "", "address for plain HTTP")
	flag.StringVar(&o.listenTLS, "listen-tls", "", "address for HTTP over mutual TLS; without -to")
	flag.StringVar(&o.to, "to", "", "address to forward to; without it, answer")
	flag.StringVar(&o.id, "identity", "", "folder of our certificate, for mutual TLS")
	flag.StringVar(&o.peer, "peer", "", "SPIFFE URI that -to must show; without it, speak plain HTTP to it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	var source *identity.Source
	if o.id != "" {
		var err error
		source, err = identity.Files(filepath.Join(o.id, identity.CertFile), filepath.Join(o.id, identity.KeyFile),
			filepath.Join(o.id, identity.RootsFile), identity.Options{})
		if err != nil {
			return err
		}
	}
	handler := http.Handler(http.HandlerFunc(answer))
	if o.to != "" {
		proxy, err := reverseProxy(o, source)
		if err != nil {
			return err
		}
		handler = proxy
	}
	var g errgroup.Group
	if o.listen != "" {
		g.Go(func() error { return serve(ctx, o.listen, handler, nil) })
	}
	if o.listenTLS != "" {
		if source == nil {
			return errors.New("-listen-tls wants -identity")
		}
		g.Go(func() error { return serve(ctx, o.listenTLS, handler, source.ServerTLS(identity.WithHTTP1())) })
	}
	return g.Wait()
}

// serve answers until ctx ends.
func serve(ctx context.Context, address string, handler http.Handler, config *tls.Config) error {
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	server := &http.Server{Handler: handler, TLSConfig: config, Protocols: protocols, ReadHeaderTimeout: headTimeout}
	var closing sync.WaitGroup
	closing.Go(func() {
		<-ctx.Done()
		_ = server.Close()
	})
	if config == nil {
		err = server.Serve(listener)
	} else {
		err = server.ServeTLS(listener, "", "")
	}
	if ctx.Err() == nil {
		return err // closing ends with the process
	}
	closing.Wait()
	return nil
}

// answer is the upstream: no work but the bytes.
func answer(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	h := w.Header()
	h["Content-Type"] = []string{"application/json"}
	h["Cache-Control"] = []string{"no-store"}
	h["Content-Length"] = []string{"1024"}
	_, _ = w.Write(body[:])
}

// body is what the upstream answers with.
var body = [bodySize]byte{0: '"', bodySize - 1: '"'}

// reverseProxy is Go's, as its documentation suggests and as well as it can be set up: it
// keeps connections, reuses buffers and does not compress.
func reverseProxy(o options, source *identity.Source) (*httputil.ReverseProxy, error) {
	to := &url.URL{Scheme: "http", Host: o.to}
	transport := &http.Transport{MaxIdleConnsPerHost: idlePerHost, DisableCompression: true}
	if o.peer != "" {
		peer, err := identity.Parse(o.peer)
		if err != nil {
			return nil, err
		}
		if source == nil {
			return nil, errors.New("-peer wants -identity")
		}
		to.Scheme = "https"
		transport.TLSClientConfig = source.ClientTLS(peer)
		transport.TLSClientConfig.NextProtos = []string{"http/1.1"}
	}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.SetXForwarded()
			r.Out.Host = r.In.Host
		},
		Transport:  transport,
		BufferPool: buffers{&sync.Pool{New: func() any { return new([copyBuffer]byte) }}},
		ErrorLog:   slog.NewLogLogger(slog.NewTextHandler(os.Stderr, nil), slog.LevelWarn),
	}, nil
}

// buffers is a httputil.BufferPool.
type buffers struct{ pool *sync.Pool }

// Get returns a buffer.
func (b buffers) Get() []byte { return b.pool.Get().(*[copyBuffer]byte)[:] } //nolint:forcetypeassert // nothing else is put

// Put takes it back.
func (b buffers) Put(p []byte) { b.pool.Put((*[copyBuffer]byte)(p)) }
