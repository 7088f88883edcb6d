package quota

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/rowhouse-platform/rowhouse/internal/follower"
	"github.com/rowhouse-platform/rowhouse/internal/serve"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/alloc"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/rls"
)

// RateLimit is the listener that answers Envoys, by envoy.service.ratelimit.v3.RateLimitService.
type RateLimit struct {
	// GRPC is the address of the mTLS port for Envoys, ":8081".
	GRPC string `yaml:"grpc"`
	// HTTP is the address of the port for POST /json, by mTLS, and GET /healthcheck, ":8080". Without it there is none.
	HTTP string `yaml:"http,omitempty"`
	// Headers are the fields that answers ask Envoy to add: draft for RateLimit-Policy, RateLimit and Retry-After, three for
	// RateLimit-Limit, -Remaining and -Reset, none. Default: draft.
	Headers rls.Style `yaml:"headers,omitempty"`
	// Peers are the Envoys that may call, and what each may.
	Peers rls.Peers `yaml:"peers"`
}

func (r *RateLimit) validate() error {
	if r == nil {
		return nil
	}
	faults := []error{r.Headers.Validate(), r.Peers.Validate()}
	for key, address := range map[string]string{"grpc": r.GRPC, "http": r.HTTP} {
		if key == "http" && address == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(address); err != nil {
			faults = append(faults, fmt.Errorf("%s: %q is not host:port", key, address))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("rate_limit: %w", err)
	}
	return nil
}

// EnvoyPeers are the Envoys that may call, and what each may.
type EnvoyPeers = rls.Peers

// EnvoyPeer is one Envoy, and what it may.
type EnvoyPeer = rls.Peer

// background is what the listener needs to run.
func (r *RateLimit) background(b *follower.Base, store envoyStore) []func(context.Context) error {
	if r == nil {
		return nil
	}
	parts, err := r.build(b, store)
	if err != nil {
		return []func(context.Context) error{func(context.Context) error { return fmt.Errorf("rate_limit: %w", err) }}
	}
	return []func(context.Context) error{
		parts.follow.Run, parts.engine.Run, func(ctx context.Context) error { return r.serve(ctx, parts.server) },
	}
}

// listener is all parts of it.
type listener struct {
	follow *rls.Follower
	engine *rls.Leased
	server *rls.Server
}

func (r *RateLimit) build(b *follower.Base, store envoyStore) (l listener, err error) {
	meter, err := rls.NewMeter(b.Telemetry.MeterProvider())
	if err != nil {
		return l, err
	}
	l.engine = rls.NewLeased(rls.LeasedConfig{
		Granter: alloc.Local(store.allocator, "envoys of "+serve.Replica(store.replica)), Store: store, Clock: b.Clock,
	})
	domains := rls.NewDomains(meter)
	l.follow = rls.Follow(b.Feeds, domains, b.Log)
	l.server, err = rls.NewServer(rls.ServerConfig{
		Service: rls.New(rls.Config{Engine: l.engine, Domains: domains, Tenants: b.Trust, Meter: meter, Style: r.Headers}),
		Peers:   r.Peers, Identity: b.Identity, Ready: l.follow.Ready, Log: b.Log,
	})
	return l, err
}

// envoyStore is the allocator's store: what is read of it, and what it takes back.
type envoyStore struct {
	alloc.Driver

	allocator *alloc.Allocator
	replica   string
}

// Return implements rls.Store.
func (s envoyStore) Return(ctx context.Context, gives []lease.Give) ([]bool, error) {
	return s.allocator.Return(ctx, gives)
}

// serve listens and serves until ctx ends.
func (r *RateLimit) serve(ctx context.Context, server *rls.Server) error {
	var lc net.ListenConfig
	api, err := lc.Listen(ctx, "tcp", r.GRPC)
	if err != nil {
		return fmt.Errorf("listen for Envoys: %w", err)
	}
	var web net.Listener
	if r.HTTP != "" {
		if web, err = lc.Listen(ctx, "tcp", r.HTTP); err != nil {
			return errors.Join(fmt.Errorf("listen for Envoys' JSON: %w", err), api.Close())
		}
	}
	return server.Run(ctx, api, web)
}
