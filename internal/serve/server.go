package serve

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	"github.com/rowhouse-platform/rowhouse/internal/rule"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
)

const (
	maxStreams       = 1000
	maxConnAge       = 10 * time.Minute
	maxConnAgeGrace  = 30 * time.Second
	maxConnIdle      = 5 * time.Minute // less than the age, which would end it anyway
	serverPing       = time.Minute
	pingTimeout      = 10 * time.Second
	handshakeTimeout = 10 * time.Second
	maxHeaderList    = 16 << 10
	// receiveSlack lets rule refuse a request that is a little too large with a proper reason.
	receiveSlack = 64 << 10
)

// server is the gRPC server with what ends it.
type server struct {
	grpc     *grpc.Server
	health   *health.Server
	draining chan struct{}
	once     sync.Once
}

func (p *Process) newServer(s *Service) (*server, error) {
	table := rule.Join(rule.Health(), s.Table)
	enforcer := rule.New(rule.Config{
		Authenticator: p.Callers, Table: s.Table, Scopes: s.Scopes, Denied: s.Denied, Log: p.Log, Clock: p.Clock,
	})
	srv := &server{health: health.NewServer(), draining: make(chan struct{})}
	rules := tenantgrpc.ServerConfig{
		Verifier: s.Verifier, Rules: tenantgrpc.NewRules(foreignRules(table)), Scopes: s.Scopes,
		Refresher: s.Refresher, Clock: p.Clock, Log: p.Log,
		Examined: true, // by the enforcer, which first asks who calls
	}
	options := append(enforcer.Outer(), grpc.ChainStreamInterceptor(srv.endStreams))
	options = append(options, p.Telemetry.ServerOptions(rules)...)
	options = append(options, enforcer.Inner()...)
	// Last: its keepalive replaces that of tenantgrpc.
	options = append(options, transport(p.Identity, max(s.MaxRequest, rule.DefaultMaxRequest))...)
	srv.grpc = grpc.NewServer(options...)
	grpc_health_v1.RegisterHealthServer(srv.grpc, srv.health)
	s.Register(srv.grpc)
	if err := enforcer.Seal(srv.grpc); err != nil {
		return nil, err
	}
	if enforcer.HasPlane(apiv1.Plane_PLANE_DATA) && s.Verifier == nil {
		return nil, errors.New("there are DATA methods and no verifier")
	}
	return srv, nil
}

// transport are the options of the connection. Certificates are optional there, because operators come with tokens;
// rule demands them where the method's plane does.
func transport(source *identity.Source, maxRequest int) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(credentials.NewTLS(source.ServerTLS(identity.OptionalClient()))),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxRecvMsgSize(maxRequest + receiveSlack),
		grpc.MaxHeaderListSize(maxHeaderList),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.WaitForHandlers(true),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: maxConnIdle, MaxConnectionAge: maxConnAge, MaxConnectionAgeGrace: maxConnAgeGrace,
			Time: serverPing, Timeout: pingTimeout,
		}),
	}
}

// foreignRules shows sdk/tenantgrpc the methods of the table: no tenant context is asked for there.
func foreignRules(table rule.Table) tenantgrpc.Table {
	rules := tenantgrpc.Table{}
	for method, entry := range table {
		if entry.Open {
			rules[method] = &apiv1.MethodRule{
				Plane: apiv1.Plane_PLANE_PEER, Audit: apiv1.AuditClass_AUDIT_CLASS_NONE,
				Idempotency: apiv1.Idempotency_IDEMPOTENCY_SAFE,
			}
			continue
		}
		rules[method] = entry.Rule
	}
	return rules
}

// endStreams ends server streams when draining begins: watches never end by themselves, and their clients resume
// elsewhere by token.
func (s *server) endStreams(
	srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler,
) error {
	if !info.IsServerStream || info.IsClientStream {
		return handler(srv, stream)
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-s.draining:
			cancel(errGoingAway())
		case <-ctx.Done():
		}
	}()
	err := handler(srv, &cutStream{stream, ctx})
	cut := fault.KindOf(context.Cause(ctx)) == fault.Unavailable
	cancel(nil)
	<-watched
	if cut && err != nil {
		return errGoingAway()
	}
	return err
}

// cutStream is a stream whose context ends early.
type cutStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // a stream is where gRPC keeps the context of a call
}

// Context returns the context that draining ends.
func (s *cutStream) Context() context.Context { return s.ctx }

func errGoingAway() error {
	return fault.New(fault.Unavailable, fault.ReasonDependency, "the server is going away; resume elsewhere").
		WithRetry(time.Second)
}

// drain ends serving: not ready, delay, no new calls, the rest gets its time.
func (s *server) drain(state *readiness, d Drain) {
	state.stop()
	s.health.Shutdown()
	pause(d.Delay)
	s.once.Do(func() { close(s.draining) })
	timeout := d.Timeout
	if timeout == 0 {
		timeout = defaultDrain
	}
	graceful := make(chan struct{})
	go func() {
		defer close(graceful)
		s.grpc.GracefulStop()
	}()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-graceful:
	case <-timer.C:
		s.grpc.Stop()
		<-graceful
	}
}

func pause(d time.Duration) {
	if d > 0 {
		<-time.After(d)
	}
}
