package rls

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/rowhouse-platform/rowhouse/internal/rule"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
)

const (
	maxRequest       = 1 << 20
	maxStreams       = 1000
	maxHeader        = 16 << 10
	handshakeTimeout = 10 * time.Second
	headerTimeout    = 5 * time.Second
	bodyTimeout      = 10 * time.Second
	idleTimeout      = 2 * time.Minute
	connAge          = 10 * time.Minute
	connAgeGrace     = 30 * time.Second
	pingEvery        = time.Minute
	pingTimeout      = 10 * time.Second
	// drainTimeout is how long calls in flight may take at the end: no decision takes longer.
	drainTimeout = 5 * time.Second
	healthEvery  = 250 * time.Millisecond
)

// ServerConfig makes a [Server]. All is required.
type ServerConfig struct {
	// Service decides.
	Service *Service
	// Peers are those who may call.
	Peers Peers
	// Identity is the process's own certificate.
	Identity *identity.Source
	// Ready says why calls cannot be answered yet.
	Ready func() error
	Log   *slog.Logger
}

// Server is the listener for Envoys: gRPC on one port, JSON over HTTP on another, both by mTLS.
type Server struct {
	cfg    ServerConfig
	peers  map[identity.ID]*Peer
	frames frames
	grpc   *grpc.Server
	health *health.Server
	http   *http.Server
}

// NewServer returns a Server. It fails when a method that it serves has no rule.
func NewServer(c ServerConfig) (*Server, error) {
	s := &Server{cfg: c, peers: c.Peers.byIdentity(), health: health.NewServer()}
	s.grpc = grpc.NewServer(
		grpc.Creds(knowing{credentials.NewTLS(c.Identity.ServerTLS()), s.peers}),
		grpc.ForceServerCodecV2(codec{&s.frames}),
		grpc.MaxRecvMsgSize(maxRequest), grpc.MaxConcurrentStreams(maxStreams), grpc.MaxHeaderListSize(maxHeader),
		grpc.ConnectionTimeout(handshakeTimeout), grpc.WaitForHandlers(true),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionAge: connAge, MaxConnectionAgeGrace: connAgeGrace, Time: pingEvery, Timeout: pingTimeout,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingTimeout, PermitWithoutStream: true}),
	)
	s.grpc.RegisterService(described(), s)
	grpc_health_v1.RegisterHealthServer(s.grpc, s.health)
	if err := rule.Check(s.grpc, rule.Envoy()); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /json", s.json)
	mux.HandleFunc("GET /healthcheck", s.healthcheck)
	s.http = &http.Server{
		Handler: mux, TLSConfig: c.Identity.ServerTLS(identity.OptionalClient(), identity.WithHTTP1()), MaxHeaderBytes: maxHeader,
		ReadHeaderTimeout: headerTimeout, ReadTimeout: bodyTimeout, WriteTimeout: bodyTimeout, IdleTimeout: idleTimeout,
		ErrorLog: slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug), // strangers' handshakes
	}
	return s, nil
}

// Run serves until ctx ends, then lets calls in flight finish. web may be nil.
func (s *Server) Run(ctx context.Context, api, web net.Listener) error {
	failed := make(chan error, 2)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := s.grpc.Serve(api); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			failed <- fmt.Errorf("gRPC for Envoys: %w", err)
		}
	})
	if web != nil {
		serving.Go(func() {
			if err := s.http.ServeTLS(web, "", ""); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("HTTP for Envoys: %w", err)
			}
		})
	}
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	serving.Go(func() { s.watch(watching) })
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	stop()
	s.health.Shutdown()
	s.drain(ctx)
	serving.Wait()
	return err
}

// watch shows in gRPC's health whether calls can be answered.
func (s *Server) watch(ctx context.Context) {
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	for {
		is := grpc_health_v1.HealthCheckResponse_SERVING
		if s.cfg.Ready() != nil {
			is = grpc_health_v1.HealthCheckResponse_NOT_SERVING
		}
		s.health.SetServingStatus("", is)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// drain ends both ports.
func (s *Server) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		_ = s.http.Close() // what hangs is cut off
	}
	graceful := make(chan struct{})
	go func() {
		defer close(graceful)
		s.grpc.GracefulStop()
	}()
	select {
	case <-graceful:
	case <-ctx.Done():
		s.grpc.Stop()
		<-graceful
	}
}

// knowing finds out once for each connection which peer is at its other end.
type knowing struct {
	credentials.TransportCredentials

	peers map[identity.ID]*Peer
}

// known is a connection's TLS with the peer at its other end, which is nil for a stranger.
type known struct {
	credentials.TLSInfo

	peer *Peer
}

// ServerHandshake implements credentials.TransportCredentials.
func (k knowing) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := k.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	tls, ok := info.(credentials.TLSInfo)
	if !ok {
		return nil, nil, errors.Join(errors.New("the connection has no TLS"), conn.Close())
	}
	var p *Peer
	if id, ok := identity.FromTLS(&tls.State); ok {
		p = k.peers[id]
	}
	return conn, known{tls, p}, nil
}

// Clone implements credentials.TransportCredentials.
func (k knowing) Clone() credentials.TransportCredentials {
	return knowing{k.TransportCredentials.Clone(), k.peers}
}

// caller returns the peer who calls, or the refusal of a stranger.
func caller(ctx context.Context) (*Peer, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, denied("call")
	}
	info, ok := p.AuthInfo.(known)
	if !ok || info.peer == nil {
		return nil, denied("call: it is not among the peers of rate_limit")
	}
	return info.peer, nil
}

// method is how the one method reaches the server.
type method interface {
	shouldRateLimit(ctx context.Context, f *frame) error
}

const (
	serviceName = "envoy.service.ratelimit.v3.RateLimitService"
	methodName  = "ShouldRateLimit"
	describedIn = "envoy/service/ratelimit/v3/rls.proto"
)

// described is the service as gRPC serves it: what the generated code does, but for the messages.
func described() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: serviceName, HandlerType: (*method)(nil), Metadata: describedIn,
		Methods: []grpc.MethodDesc{{MethodName: methodName, Handler: handle}},
	}
}

// handle implements grpc.MethodHandler. There are no interceptors: who calls is asked here.
func handle(
	srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor, //nolint:revive // gRPC's order
) (any, error) {
	s, ok := srv.(*Server)
	if !ok {
		return nil, grpcstatus.Error(codes.Internal, "another server")
	}
	f := s.frames.take()
	if err := decode(f); err != nil {
		return nil, err
	}
	if err := s.shouldRateLimit(ctx, f); err != nil {
		return nil, tenantgrpc.Status(err).Err()
	}
	return reply{f}, nil
}

// shouldRateLimit answers the request in f. A panic ends one call.
func (s *Server) shouldRateLimit(ctx context.Context, f *frame) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.cfg.Log.ErrorContext(ctx, "a decision panicked", "panic", p, "stack", string(debug.Stack()))
			err = errPanicked
		}
	}()
	p, err := caller(ctx)
	if err != nil {
		return err
	}
	return s.answer(ctx, p, f)
}

// answer answers the request in f for a peer.
func (s *Server) answer(ctx context.Context, p *Peer, f *frame) error {
	if err := s.cfg.Ready(); err != nil {
		return err
	}
	if err := f.d.request.read(f.bytes); err != nil {
		return badRequest(err)
	}
	return s.cfg.Service.decide(ctx, p, &f.d)
}
