// Package upstream keeps the gateway's connections to product services.
//
// Every connection is mutual TLS with the exact identity that the app's route
// names. HTTP goes over HTTP/1.1, gRPC over HTTP/2; each pair of address and
// identity has a pool of its own, so that a changed route never reuses a
// connection that was checked against another identity.
package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
)

const (
	dialTimeout   = 2 * time.Second
	headerTimeout = 30 * time.Second
	idleTimeout   = time.Minute
	idlePerHost   = 256
	maxHead       = 64 << 10
	pingEvery     = 15 * time.Second
	// What apps have sent and clients have not read yet waits here. All tenants' streams
	// share a connection and its window: what one stream may hold, times the streams of a
	// connection, must stay below that, or clients who do not read stop everybody else.
	streamBuffer     = 128 << 10
	connectionBuffer = 1 << 30
)

// Pool holds the connections. It is safe for concurrent use.
type Pool struct {
	source *identity.Source

	mu         sync.RWMutex
	transports map[key]*http.Transport
}

type key struct {
	address, spiffe string
	grpc            bool
}

// NewPool returns a Pool that shows the identity of source.
func NewPool(source *identity.Source) *Pool {
	return &Pool{source: source, transports: make(map[key]*http.Transport)}
}

// RoundTrip sends a request to the process at address, which must show the SPIFFE
// URI. The caller closes the response's body. Errors are faults
// UPSTREAM_UNAVAILABLE, UPSTREAM_FAILED and UPSTREAM_TIMEOUT, or the context's own
// error when the caller went away.
func (p *Pool) RoundTrip(r *http.Request, address, spiffe string, grpc bool) (*http.Response, error) {
	t, err := p.transport(key{address, spiffe, grpc})
	if err != nil {
		return nil, err
	}
	r.URL.Host = address // where to dial; what the app is asked for is r.Host
	res, err := t.RoundTrip(r)
	if err != nil {
		return nil, classify(r.Context(), err)
	}
	return res, nil
}

// Close closes idle connections.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.transports {
		t.CloseIdleConnections()
	}
}

func (p *Pool) transport(k key) (*http.Transport, error) {
	p.mu.RLock()
	t := p.transports[k]
	p.mu.RUnlock()
	if t != nil {
		return t, nil
	}
	peer, err := identity.Parse(k.spiffe)
	if err != nil {
		return nil, fault.New(fault.Unavailable, fault.ReasonUpstreamDown, "the app cannot be reached").WithCause(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := p.transports[k]; t != nil {
		return t, nil
	}
	t = p.newTransport(peer, k.grpc)
	p.transports[k] = t
	return t, nil
}

func (p *Pool) newTransport(peer identity.ID, grpc bool) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!grpc)
	protocols.SetHTTP2(grpc)
	config := p.source.ClientTLS(peer)
	config.NextProtos = []string{"http/1.1"}
	if grpc {
		config.NextProtos = []string{"h2"}
	}
	answerBy := headerTimeout
	if grpc {
		answerBy = 0 // a stream may have nothing to say for long; the call's own deadline holds
	}
	return &http.Transport{
		DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    dialTimeout,
		ResponseHeaderTimeout:  answerBy,
		IdleConnTimeout:        idleTimeout,
		MaxIdleConnsPerHost:    idlePerHost,
		MaxResponseHeaderBytes: maxHead,
		DisableCompression:     true,
		Protocols:              protocols,
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: pingEvery, MaxReceiveBufferPerStream: streamBuffer, MaxReceiveBufferPerConnection: connectionBuffer,
		},
	}
}

// classify tells what became of a request that got no answer.
func classify(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("the caller went away: %w", ctx.Err())
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return fault.New(fault.Unavailable, fault.ReasonUpstreamDown, "the app cannot be reached").WithCause(err)
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return fault.New(fault.DeadlineExceeded, fault.ReasonUpstreamTimeout, "the app did not answer in time").WithCause(err)
	}
	return fault.New(fault.Unavailable, fault.ReasonUpstreamFailed, "the app did not answer").WithCause(err)
}
