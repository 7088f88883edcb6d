package rule

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	"github.com/rowhouse-platform/rowhouse/internal/operator"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
)

// DefaultMaxRequest is the size above which requests are refused.
const DefaultMaxRequest = tenantgrpc.MaxRequest

// Authenticator knows callers; *operator.Authenticator is the real one. Errors are faults.
type Authenticator interface {
	Bearer(ctx context.Context, token string) (operator.Principal, error)
	Peer(id identity.ID) operator.Principal
}

// Config says what an [Enforcer] works with.
type Config struct {
	// Authenticator knows callers. Required, unless all methods are on the DATA plane or open.
	Authenticator Authenticator
	// Table holds the rules of methods that declare none; [Health] is always part of it.
	Table Table
	// Scopes gives the names of scopes that DATA methods declare their bits.
	Scopes map[string]tenant.Scopes
	// Denied hears of each refused call of the ADMIN plane, and of audited calls of the PEER plane, before the answer
	// leaves: err is a fault of kind Unauthenticated or PermissionDenied, or REASON_REQUIRED. Call.Principal is zero
	// when nobody was authenticated. It runs within the call's deadline and deals with its own errors. Optional.
	Denied func(ctx context.Context, call Call, err error)
	// MaxRequest is the size in bytes above which requests are refused. Default 1 MiB.
	MaxRequest int
	// Log hears why calls failed: causes are told here and never to callers. Default: slog.Default.
	Log *slog.Logger
	// Clock measures deadlines. Default: time.Now.
	Clock func() time.Time
}

// Enforcer applies rules to the calls of one server. Its options go into the server when it is made; after all
// services are registered [Enforcer.Seal] resolves the rules, and until then every call is refused as STARTING.
type Enforcer struct {
	cfg    Config
	sealed atomic.Pointer[map[string]*method]
}

// New makes an enforcer.
func New(cfg Config) *Enforcer {
	if cfg.MaxRequest <= 0 {
		cfg.MaxRequest = DefaultMaxRequest
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	return &Enforcer{cfg: cfg}
}

// Seal checks every registered method as [Check] does and puts the rules in force. Call it once, after registering
// and before serving. The error names every method that is not in order.
func (e *Enforcer) Seal(server Registrar) error {
	table := Join(Health(), e.cfg.Table)
	methods, err := judge{roles: operator.AllRoles(), scopes: e.cfg.Scopes}.methods(server, table)
	if err != nil {
		return err
	}
	for _, m := range methods {
		if !m.entry.Open && m.rule.GetPlane() != apiv1.Plane_PLANE_DATA && e.cfg.Authenticator == nil {
			return errors.New(m.full + " needs an authenticator")
		}
	}
	methods = maps.Clone(methods)
	e.sealed.Store(&methods)
	return nil
}

// HasPlane reports whether a sealed method is on plane.
func (e *Enforcer) HasPlane(plane apiv1.Plane) bool {
	methods := e.sealed.Load()
	if methods == nil {
		return false
	}
	for _, m := range *methods {
		if m.rule.GetPlane() == plane {
			return true
		}
	}
	return false
}

// Outer returns the options that must come before all others with interceptors: panics and errors end here as
// statuses, unknown methods are refused, deadlines are set.
func (e *Enforcer) Outer() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(e.outerUnary),
		grpc.ChainStreamInterceptor(e.outerStream),
		grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error { return errUnknownMethod() }),
	}
}

// Inner returns the options that come last, after the interceptors of sdk/tenantgrpc: who calls, what with, may they.
func (e *Enforcer) Inner() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(e.innerUnary),
		grpc.ChainStreamInterceptor(e.innerStream),
	}
}

// begin makes the call's record.
func (e *Enforcer) begin(ctx context.Context, full string) (*Call, *method, error) {
	call := &Call{Method: full, Peer: address(ctx)}
	if span := trace.SpanContextFromContext(ctx); span.HasTraceID() {
		call.TraceID = span.TraceID().String()
	}
	methods := e.sealed.Load()
	if methods == nil {
		return call, nil, fault.New(fault.Unavailable, fault.ReasonStarting, "the server is starting")
	}
	m, ok := (*methods)[full]
	if !ok {
		return call, nil, errUnknownMethod()
	}
	call.Rule = m.rule
	return call, m, nil
}

func (e *Enforcer) method(full string) *method { return (*e.sealed.Load())[full] }

// address is the network address alone: host names are never looked up.
func address(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return ""
	}
	if host, _, err := net.SplitHostPort(p.Addr.String()); err == nil {
		return host
	}
	return p.Addr.String()
}

func errUnknownMethod() error {
	return fault.New(fault.Unimplemented, fault.ReasonMethodUnknown, "there is no such method")
}
