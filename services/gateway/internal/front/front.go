// Package front is the gateway's front door for HTTP and gRPC.
//
// A request's way is: strict head → which tenant (package edge) → the customer's
// token, if issuers are configured → the tenant's context (package mint) → the
// tenant's rate → its turn among the tenants who want the app → the app. Nothing on this way asks another service, except for a
// lease of tokens once in a while. Start at [Handler].
package front

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"

	"github.com/rowhouse-platform/rowhouse/sdk/authority"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/limits"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/fair"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanthttp"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/edge"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/faces"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/mint"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/token"
)

// denyAfter is how long tenants that deny on loss are served without the control plane.
const denyAfter = time.Minute

// Sender sends a request to an app's process; [upstream.Pool] is one.
type Sender interface {
	RoundTrip(r *http.Request, address, spiffe string, grpc bool) (*http.Response, error)
}

// Config makes a [Handler]. All fields but Ready, Selector, Brand and Log are required.
type Config struct {
	// Ready says why nothing can be served yet. It is asked until it once says nil.
	Ready func() error
	// Table returns the routing table in force.
	Table func() *edge.Table
	// Silence returns how long the control plane has been silent.
	Silence func() time.Duration
	// Tokens verifies users' tokens.
	Tokens *token.Verifier
	// Minter makes tenant contexts; Verifier reads them back as Self, so that spans
	// and limits use what was signed and nothing else.
	Minter   *mint.Minter
	Verifier *tenant.Verifier
	Self     identity.ID
	// Services is added to each context's audience: our own services that apps call.
	Services tenant.Audience
	// Limits decides about rates.
	Limits *limits.Limiter
	// Upstream reaches the apps.
	Upstream Sender
	// Selector is the header that names a tenant on shared hosts; empty for none.
	Selector string
	// Bounds hold the share of one tenant and of one client.
	Bounds Bounds
	// Changed is closed at the next change of a tenant; Standing says why it is not
	// served now.
	Changed  func(uid tenant.UID) <-chan struct{}
	Standing func(uid tenant.UID) error
	// Brand returns the look of a route's tenant on its host, or nil.
	Brand func(r *http.Request, route edge.Route) *faces.Brand
	// Own answers what the gateway itself serves on tenants' own hosts. It is false for what is the app's; then an error
	// refuses the request. Optional.
	Own func(w http.ResponseWriter, r *http.Request, route edge.Route) (served bool, err error)
	// Preview is how browsers that look at drafts of brands are told apart. Optional.
	Preview Preview
	// Flags answers what is asked of flags on tenants' own hosts; nil for nobody.
	Flags Flags
	// Observe is told of each request of a tenant that its app or we had to answer how that went, and how long it took since
	// the request had come. What we refuse, and what a client spoiled, tells of nobody but the client. Optional.
	Observe func(tc tenant.Context, status int, took time.Duration)
	// Share says how requests share the processes of each app, in each cell. Optional: without it only Bounds hold.
	Share *fair.Config
	// Used is told what each request of a tenant took, at its end. Optional.
	Used func(tc tenant.Context, u Usage)
	// Tracer makes spans, Meter measures requests. Without a Meter nothing is measured.
	Tracer trace.Tracer
	Meter  metric.Meter
	Log    *slog.Logger
}

// Handler answers every request at the front door. It is safe for concurrent use.
type Handler struct {
	c       Config
	ready   atomic.Bool
	crowd   crowd
	streams crowd // of flags
	metrics *metrics
	queues  *queues
	sampler sampler
	hygiene *edge.Hygiene
	faces   *faces.Writer
	// root are the options of nearly every request's span.
	root []trace.SpanStartOption
}

// New returns a Handler. It fails when the Meter does.
func New(c Config) (*Handler, error) {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Brand == nil {
		c.Brand = func(*http.Request, edge.Route) *faces.Brand { return nil }
	}
	if c.Ready == nil {
		c.Ready = func() error { return nil }
	}
	c.Bounds = c.Bounds.withDefaults()
	if c.Meter == nil {
		c.Meter = noop.Meter{}
	}
	m, err := newMetrics(c.Meter)
	if err != nil {
		return nil, fmt.Errorf("metrics of the front door: %w", err)
	}
	q, err := newQueues(c.Share, c.Meter)
	if err != nil {
		return nil, err
	}
	return &Handler{
		c: c, queues: q, hygiene: edge.NewHygiene(c.Selector), faces: faces.New(), metrics: m,
		root: []trace.SpanStartOption{trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindServer)},
	}, nil
}

// visit is one request on its way.
type visit struct {
	h     *Handler
	w     http.ResponseWriter
	r     *http.Request
	id    string
	began time.Time
	grpc  bool
	flags bool // it is for Config.Flags
	body  *pacedBody
	route edge.Route
	user  token.User
	// token is the signed context, tc the same as it was read back.
	token string
	tc    tenant.Context
	span  trace.Span
	usage Usage
}

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v := &visit{h: h, w: w, r: r, id: requestID(), began: time.Now(), grpc: isGRPC(r)}
	v.flags = h.c.Flags != nil && h.c.Flags.Serves(r.URL.EscapedPath())
	ctx, span := h.start(r)
	v.span = span
	defer span.End()
	defer v.used()
	w.Header()[tenanthttp.RequestIDHeader] = []string{v.id}
	ctx, err := v.admit(ctx)
	v.r = r.WithContext(ctx) //nolint:contextcheck // made from the request's own
	if err == nil {
		err = v.pass() //nolint:contextcheck // v.r has it
	}
	if err != nil && !errors.Is(err, errAnswered) {
		v.refuse(err) //nolint:contextcheck // as above
	}
}

// pass forwards an admitted request within its bounds.
func (v *visit) pass() error {
	leave, err := v.enter()
	if err != nil {
		return err
	}
	defer leave()
	out, err := v.hold()
	if err != nil {
		return err
	}
	defer out()
	defer v.pace()()
	v.throttle()
	if v.flags {
		v.serveFlags()
		return nil
	}
	if err := v.forward(); err != nil {
		return v.spoiled(err)
	}
	return nil
}

// start begins the request's span: a new root, because a trace from outside is not
// continued.
func (h *Handler) start(r *http.Request) (context.Context, trace.Span) {
	if links := outside(r); links != nil {
		return h.c.Tracer.Start(r.Context(), "gateway.request", //nolint:spancheck // ServeHTTP ends it
			trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindServer), trace.WithLinks(links...))
	}
	return h.c.Tracer.Start(r.Context(), "gateway.request", h.root...) //nolint:spancheck // as above
}

// started refuses while the tables are empty: what is not loaded yet is not "not
// found", and no limit is not "no limit".
func (h *Handler) started() error {
	if h.ready.Load() {
		return nil
	}
	err := h.c.Ready()
	h.ready.Store(err == nil)
	return err
}

// admit decides whether the request may pass, and as whom. The context that it returns
// holds the tenant from where it is known.
func (v *visit) admit(ctx context.Context) (context.Context, error) {
	c := &v.h.c
	if err := v.h.started(); err != nil {
		return ctx, err
	}
	err := v.identify()
	if own := v.own(err); own != nil {
		return ctx, own
	}
	if err != nil {
		return ctx, err
	}
	t := v.route.Tenant
	if t.DenyOnLoss && c.Silence() > denyAfter {
		return ctx, fault.New(fault.Unavailable, fault.ReasonControlPlaneLost,
			"the control plane is away and this account asked not to be served without it")
	}
	signed, err := c.Minter.Mint(v.subject())
	if err != nil {
		return ctx, err
	}
	if v.tc, err = c.Verifier.Verify(signed, c.Self); err != nil {
		return ctx, unready(err)
	}
	v.token = signed
	ctx = tenant.NewContext(ctx, v.tc)
	describe(v.span, v.tc)
	return ctx, v.spend(ctx)
}

// errAnswered says that the gateway has answered by itself.
var errAnswered = errors.New("answered")

// own answers what the gateway itself serves on a tenant's own host: also where the app is away, and for pages that say why
// the tenant is not served now.
func (v *visit) own(refused error) error {
	r := v.route
	if v.h.c.Own == nil || v.grpc || r.Tenant == nil || r.Prefix != "" || len(r.NamedBy) == 0 || r.NamedBy[0] != "host" {
		return nil
	}
	switch fault.ReasonOf(refused) {
	case "", fault.ReasonTenantSuspended, fault.ReasonTenantNotReady, fault.ReasonUpstreamDown, fault.ReasonCredentialInvalid:
	default:
		return nil
	}
	if refused != nil && fault.ReasonOf(refused) == "" {
		return nil
	}
	served, err := v.h.c.Own(v.w, v.r, r)
	if served {
		v.measure(http.StatusOK, "")
		return errAnswered
	}
	return err
}

// unready turns a context of ours that does not verify into what the caller can do
// about it. Routes and trust are two feeds: one may know of a tenant or of a change
// before the other, which is nobody's bad credential.
func unready(err error) error {
	switch fault.ReasonOf(err) {
	case fault.ReasonContextInvalid, fault.ReasonContextExpired, fault.ReasonPlacementStale:
		return fault.New(fault.Unavailable, fault.ReasonTenantNotReady, "this account is being made ready").
			WithRetry(time.Second).WithCause(err)
	default:
		return err
	}
}

// identify finds the one tenant that the request is for.
func (v *visit) identify() error {
	r, c := v.r, &v.h.c
	if r.Method == http.MethodConnect || r.Method == http.MethodTrace {
		return fault.New(fault.Unimplemented, fault.ReasonMethodUnknown, "this method is not served")
	}
	ask := edge.Ask{Host: r.Host, Path: r.URL.EscapedPath(), GRPC: v.grpc}
	if r.TLS != nil {
		ask.SNI = r.TLS.ServerName
	}
	if c.Selector != "" {
		ask.Selector = strings.Join(r.Header.Values(c.Selector), ",")
	}
	if v.flags { // its credential is a client key, not a user's token
		var err error
		v.route, err = c.Table().ResolveHost(ask)
		return err
	}
	tokenErr := v.authenticate(&ask)
	route, err := c.Table().Resolve(ask)
	v.route = route
	if tokenErr != nil && (err == nil || fault.ReasonOf(err) == fault.ReasonResourceNotFound && route.App != nil) {
		return tokenErr
	}
	return err
}

// served reports whether the host is served at all.
func (v *visit) served() bool {
	host, err := authority.ParseHost(v.r.Host)
	return err == nil && v.h.c.Table().Knows(host)
}

// authenticate reads the customer's token where issuers are configured.
func (v *visit) authenticate(ask *edge.Ask) error {
	if !v.h.c.Tokens.Enabled() {
		return nil
	}
	lines := v.r.Header.Values("Authorization")
	if len(lines) == 0 {
		return nil
	}
	if !v.served() {
		return nil // nobody has a signature checked for a host that is not served
	}
	scheme, raw, _ := strings.Cut(lines[0], " ")
	if !strings.EqualFold(scheme, "Bearer") || len(lines) > 1 {
		return fault.New(fault.Unauthenticated, fault.ReasonCredentialInvalid, "one bearer token is expected")
	}
	user, err := v.h.c.Tokens.Verify(raw)
	if err != nil {
		return err
	}
	v.user, ask.Token = user, user.Tenant
	return nil
}

// subject says for whom the context is made.
func (v *visit) subject() mint.Subject {
	t := v.route.Tenant
	audience := v.h.c.Services
	if !v.flags {
		audience |= v.route.App.Audience
	}
	s := mint.Subject{
		TenantUID: t.UID, TenantID: t.ID, Generation: t.Generation, Model: t.Model,
		Cell: t.Cell, CellNumber: v.route.Cell.Number, Region: v.route.Cell.Region, PlacementGeneration: t.PlacementGeneration,
		Plan: t.Plan, PrincipalKind: tenant.PrincipalVisitor,
		Audience: audience, SealKID: v.route.Cell.SealKID,
	}
	if v.user.Subject != "" {
		s.PrincipalKind, s.PrincipalDigest = tenant.PrincipalUser, tenant.PrincipalDigest(v.user.Issuer, v.user.Subject)
	}
	return s
}

// refuse answers by ourselves.
func (v *visit) refuse(err error) {
	if errors.Is(err, context.Canceled) {
		panic(http.ErrAbortHandler) // nobody is there to answer
	}
	reason := fault.ReasonOf(err)
	v.span.SetAttributes(attribute.String("error.type", reason))
	v.span.SetStatus(codes.Error, reason)
	v.h.sampler.log(v.r.Context(), v.h.c.Log, "reason", reason, "error", err, "request_id", v.id, "host", v.r.Host)
	v.measure(tenanthttp.Status(err), reason)
	v.usage.Refused = forWant(reason)
	if v.flags {
		v.dismiss()
		v.h.c.Flags.Refuse(v.w, v.r, err)
		return
	}
	a := faces.Refusal{Err: err, RequestID: v.id, GRPC: v.grpc}
	if t := v.route.Tenant; t != nil && reason != fault.ReasonTenantMismatch && reason != fault.ReasonMisdirected {
		a.Brand = v.h.c.Brand(v.r, v.route)
	}
	if fault.ReasonOf(err) == fault.ReasonCredentialInvalid {
		v.w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
	}
	v.dismiss()
	v.mark(v.w.Header())
	v.h.faces.Write(v.w, v.r, a)
}

// measure counts the request whose answer begins now.
func (v *visit) measure(status int, reason string) {
	k := kind{status: status, reason: reason, grpc: v.grpc}
	if v.route.App != nil {
		k.app = v.route.App.ID
	}
	v.h.metrics.record(v.r.Context(), time.Since(v.began), k)
	if v.h.c.Observe != nil && v.token != "" && v.telling(status, reason) {
		v.h.c.Observe(v.tc, status, time.Since(v.asked()))
	}
}

// telling reports whether an answer says how a tenant fares: one of its app, or that the app has none. That flags are
// refused, their clients can bring about.
func (v *visit) telling(status int, reason string) bool {
	switch reason {
	case "":
		return !v.flags || status < http.StatusBadRequest
	case fault.ReasonUpstreamDown, fault.ReasonUpstreamFailed, fault.ReasonUpstreamTimeout:
		return true
	default:
		return false
	}
}

// isGRPC reports whether a request is a gRPC call: "application/grpc", perhaps with
// a message format or parameters, but not gRPC-Web.
func isGRPC(r *http.Request) bool {
	rest, ok := strings.CutPrefix(r.Header.Get("Content-Type"), "application/grpc")
	return ok && r.ProtoMajor == 2 && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

func requestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	var text [2 * len(b)]byte
	hex.Encode(text[:], b[:])
	return string(text[:])
}

func clientIP(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
