package tenantgrpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// The deadlines of unary calls. Streams have none of their own.
const (
	// DataDeadline is given to DATA calls whose caller gave none.
	DataDeadline = 5 * time.Second
	// AdminDeadline is given to all other calls whose caller gave none.
	AdminDeadline = 30 * time.Second
	// MaxDeadline caps what callers may ask for.
	MaxDeadline = 60 * time.Second
)

// ServerConfig says how a server treats tenant contexts.
type ServerConfig struct {
	// Verifier checks the contexts. Required where a DATA method is served.
	Verifier *tenant.Verifier
	// Rules finds the rules of methods. Default: the linked-in descriptors alone.
	Rules *Rules
	// Scopes gives the bits of every scope that a DATA method names as its
	// permission. Such a method is refused when its scope is not here.
	Scopes map[string]tenant.Scopes
	// Refresher renews the contexts of streams that outlive them. Without one a
	// stream ends when its context expires.
	Refresher Refresher
	// Examined says that somebody else judges requests with [Examine], after this
	// package's interceptors: a server that first asks who calls. Else a request that
	// breaks the rules beside its fields is refused before its handler sees it.
	Examined bool
	// Clock is the verifier's time. Default: time.Now.
	Clock func() time.Time
	// Log is told the causes that callers are not. Default: slog.Default.
	Log *slog.Logger
}

// Refresher renews a context that is about to expire: same tenant, principal and
// audience, never wider. Gateways and tenancy serve it. Implementations are safe
// for concurrent use.
type Refresher interface {
	// RefreshContext returns the successor of token, a context that is still good.
	RefreshContext(ctx context.Context, token string) (string, error)
}

func (cfg ServerConfig) rules() *Rules {
	if cfg.Rules == nil {
		return NewRules(nil)
	}
	return cfg.Rules
}

// Server returns the options of a server whose calls are made for tenants. They
// come before all others: a telemetry handler that is registered earlier would
// name no tenant, so every call is then refused as INTERNAL. See
// tenantotel.ServerOptions, which keeps the order.
//
// A connection ends after at most 27 minutes, its streams with it, so that whoever
// lost its certificate does not stay: clients open a new one by themselves. An
// application that wants less gives its own grpc.KeepaliveParams after these.
//
// Handlers find the context by [tenant.FromContext] on DATA methods, and none on
// others. Those of methods with TRANSACTION contexts call [tenant.Context.Redeem];
// a call that succeeds without is answered as INTERNAL. Their errors become statuses as [StatusIn] says. Unknown methods and
// methods without a rule are refused as UNIMPLEMENTED.
func Server(cfg ServerConfig) []grpc.ServerOption {
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	s := &server{cfg: cfg, rules: cfg.rules()}
	return []grpc.ServerOption{
		grpc.StatsHandler(tagger{s}),
		grpc.ChainUnaryInterceptor(s.unary),
		grpc.ChainStreamInterceptor(s.stream),
		grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error { return errUnknownMethod() }),
		// grpc-go's own default takes a gateway's pings on a quiet stream for an attack and ends the connection.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
		// A connection speaks for the certificate that opened it; peers must show a new one now and then.
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: maxConnAge, MaxConnectionAgeGrace: maxConnAgeGrace}),
	}
}

const (
	// minPing is how often peers may ask whether a connection is alive.
	minPing = 5 * time.Second
	// maxConnAge is when a connection takes no new calls, give or take a tenth, which grpc-go adds so that not all
	// peers come back at once; maxConnAgeGrace later its streams are cut. Together they stay below 30 minutes.
	maxConnAge      = 20 * time.Minute
	maxConnAgeGrace = 5 * time.Minute
)

type server struct {
	cfg   ServerConfig
	rules *Rules
}

// call is what TagRPC found out; the interceptors read it and refuse.
type call struct {
	rule      *apiv1.MethodRule
	presenter identity.ID
	err       error
}

type (
	callKey      struct{}
	presenterKey struct{}
)

// tagger verifies before any other handler or interceptor runs, because
// telemetry reads the tenant when it starts the call's span.
type tagger struct{ *server }

// TagRPC implements stats.Handler.
func (t tagger) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	c := &call{}
	verified, err := t.verifyCall(ctx, info.FullMethodName, c)
	if err != nil {
		c.err = err
		return context.WithValue(ctx, callKey{}, c)
	}
	return context.WithValue(verified, callKey{}, c)
}

// HandleRPC implements stats.Handler.
func (tagger) HandleRPC(context.Context, stats.RPCStats) {}

// TagConn implements stats.Handler. It reads once per connection who is at its
// other end: a certificate takes longer to read than a context to check.
func (tagger) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	id, _ := identity.FromPeer(ctx) // The verifier refuses the zero identity.
	return context.WithValue(ctx, presenterKey{}, id)
}

// HandleConn implements stats.Handler.
func (tagger) HandleConn(context.Context, stats.ConnStats) {}

// verifyCall returns ctx with the call's tenant where the method needs one.
func (s *server) verifyCall(ctx context.Context, method string, c *call) (context.Context, error) {
	if trace.SpanContextFromContext(ctx).IsValid() {
		return nil, errors.New("a telemetry handler is registered before tenantgrpc's")
	}
	rule, ok := s.rules.Find(method)
	if !ok {
		return nil, errUnknownMethod()
	}
	c.rule = rule
	if rule.GetPlane() != apiv1.Plane_PLANE_DATA {
		return ctx, nil
	}
	token, err := tenant.OneToken(metadata.ValueFromIncomingContext(ctx, tenant.MetadataKey))
	if err != nil {
		return nil, err
	}
	c.presenter, _ = ctx.Value(presenterKey{}).(identity.ID) // The verifier refuses the zero identity.
	verified, err := s.verify(token, c)
	if err != nil {
		return nil, err
	}
	return tenant.NewContext(ctx, verified), nil
}

// verify checks a token for the call it came with.
func (s *server) verify(token string, c *call) (tenant.Context, error) {
	if s.cfg.Verifier == nil {
		return tenant.Context{}, errors.New("the server has no verifier")
	}
	verify := s.cfg.Verifier.Verify
	if c.rule.GetAllowSuspended() {
		verify = s.cfg.Verifier.VerifySuspended
	}
	verified, err := verify(token, c.presenter)
	if err != nil {
		return tenant.Context{}, err
	}
	return verified, s.fits(c.rule, verified)
}

// fits asks whether a good context is of the class and scope the method needs.
func (s *server) fits(rule *apiv1.MethodRule, verified tenant.Context) error {
	want := tenant.ClassSession
	if rule.GetContext() == apiv1.ContextClass_CONTEXT_CLASS_TRANSACTION {
		want = tenant.ClassTransaction
	}
	if verified.Class() != want {
		return fault.New(fault.PermissionDenied, fault.ReasonPresenterRefused,
			"the method needs a tenant context of class %s", want)
	}
	permission := rule.GetPermission()
	if permission == "" {
		return nil
	}
	scope := s.cfg.Scopes[permission]
	if scope == 0 || !verified.Scopes().Has(scope) {
		return fault.New(fault.PermissionDenied, fault.ReasonPermissionMissing,
			"the tenant context lacks the scope %s", permission).WithMetadata("permission", permission)
	}
	return nil
}

// callOf fails closed when the stats handler did not see the call.
func callOf(ctx context.Context) *call {
	c, ok := ctx.Value(callKey{}).(*call)
	if !ok {
		return &call{err: errors.New("tenantgrpc's stats handler did not see the call")}
	}
	return c
}

func (s *server) unary(
	ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (answer any, err error) {
	defer func() { err = s.answer(ctx, info.FullMethod, err) }()
	defer recoverInto(&err)
	c := callOf(ctx)
	if c.err != nil {
		return nil, c.err
	}
	if err := s.examine(c.rule, req); err != nil {
		return nil, err
	}
	ctx, cancel := withDeadline(ctx, c.rule, MaxDeadline)
	defer cancel()
	answer, err = handler(ctx, req)
	if err == nil {
		err = redeemed(ctx)
	}
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// redeemed lets no call succeed whose TRANSACTION context was not spent: a handler
// that forgets it would serve a captured call again, and nobody would notice.
func redeemed(ctx context.Context) error {
	verified, err := tenant.FromContext(ctx)
	if err != nil || verified.Class() != tenant.ClassTransaction || verified.Redeemed() {
		return nil //nolint:nilerr // a call without a tenant has nothing to spend
	}
	return errors.New("the handler did not redeem the TRANSACTION context of its call")
}

func (s *server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	ctx := ss.Context()
	defer func() { err = s.answer(ctx, info.FullMethod, err) }()
	defer recoverInto(&err)
	c := callOf(ctx)
	if c.err != nil {
		return c.err
	}
	if c.rule.GetPlane() != apiv1.Plane_PLANE_DATA {
		return handler(srv, s.examined(c.rule, ss))
	}
	return s.guard(c, ss, info.IsClientStream, func(guarded grpc.ServerStream) error {
		return handler(srv, s.examined(c.rule, guarded))
	})
}

// withDeadline gives a unary call its default deadline and bounds the one it has.
func withDeadline(ctx context.Context, rule *apiv1.MethodRule, limit time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithTimeout(ctx, limit)
	}
	if rule.GetPlane() == apiv1.Plane_PLANE_DATA {
		return context.WithTimeout(ctx, DataDeadline)
	}
	return context.WithTimeout(ctx, AdminDeadline)
}

// recoverInto keeps one tenant's panic from ending everybody's process.
func recoverInto(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
	}
}

// answer turns what a handler returned into what the caller sees.
func (s *server) answer(ctx context.Context, method string, err error) error {
	if err == nil {
		return nil
	}
	st := StatusIn(ctx, err)
	s.log(ctx, method, st.Code(), err)
	if f, ok := fault.As(err); ok && f.RetryAfter > 0 {
		// grpc-go's own retries obey this and not RetryInfo. It fails only
		// outside of a call or after the trailer was sent.
		_ = grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", strconv.FormatInt(f.RetryAfter.Milliseconds(), 10)))
	}
	return st.Err()
}

// log keeps what the caller is not told: the causes of defects and of refused
// contexts.
func (s *server) log(ctx context.Context, method string, code codes.Code, err error) {
	attrs := []slog.Attr{slog.String("rpc.method", method), slog.String("error", err.Error())}
	switch {
	case code == codes.Internal:
		s.cfg.Log.LogAttrs(ctx, slog.LevelError, "the call failed", attrs...)
	case code == codes.Unauthenticated || code == codes.PermissionDenied:
		presenter := callOf(ctx).presenter.String()
		s.cfg.Log.LogAttrs(ctx, slog.LevelInfo, "the call was refused", append(attrs, slog.String("peer", presenter))...)
	}
}
