// Package tenanthttp gives net/http applications behind the gateway their tenant.
//
// The gateway passes the tenant context in the header [Header]. [Handler]
// verifies it, and who presented it, before the application sees the request;
// handlers then read it by tenant.FromContext. [WriteProblem] answers refusals
// as problem documents (RFC 9457).
//
// It is for services that speak HTTP themselves, behind mTLS. What faces
// customers is the gateway.
package tenanthttp

import (
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/internal/lifetime"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
)

// Header carries the tenant context: its bytes in standard base64, one value.
const Header = "Rowhouse-Tenant-Bin"

// Config says how requests are verified.
type Config struct {
	// Verifier checks the contexts. Required.
	Verifier *tenant.Verifier
	// Scopes are what each context must grant. Default: none.
	Scopes tenant.Scopes
	// AllowSuspended serves suspended tenants too.
	AllowSuspended bool
	// Refresher renews the contexts of requests that outlive them: long downloads,
	// server-sent events. Without one a request ends when its context expires.
	Refresher tenantgrpc.Refresher
	// Clock is the verifier's time. Default: time.Now.
	Clock func() time.Time
	// Log is told the causes that callers are not: of refusals, and of each 500 that
	// [WriteProblem] answers, with the request's id. Default: slog.Default.
	Log *slog.Logger
}

// Handler returns a handler that verifies each request's tenant context and
// passes the request on with it, without the header. Requests without a good
// context, or from a peer that may not present one, are answered by
// [WriteProblem] and go no further. So are TRANSACTION contexts: they are for one
// gRPC call, whose digest a request over HTTP does not have.
//
// A request ends when its tenant is suspended, moved or deleted, and when its
// context expires and [Config.Refresher] has no successor for it: the request's
// context is cancelled with the cause and nothing more is written or read. While it is
// served, tenant.FromContext gives the newest of its contexts. The answer is then a problem, or is broken off when a
// part of it was written, so that nobody takes it for whole. Over HTTP/1.1 its connection
// ends too, also when the application panics and a middleware outside recovers that.
// Responses cannot be hijacked, because nobody could end what goes on there.
//
// It panics without a verifier: that is a mistake in the program.
func Handler(cfg Config, next http.Handler) http.Handler {
	if cfg.Verifier == nil {
		panic("tenanthttp: Config.Verifier is missing")
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	return &handler{cfg: cfg, next: next}
}

type handler struct {
	cfg  Config
	next http.Handler
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	presenter, _ := identity.FromTLS(r.TLS) // The verifier refuses the zero identity.
	token, err := tokenOf(r.Header.Values(Header))
	var verified tenant.Context
	if err == nil {
		verified, err = h.verify(token, presenter)
	}
	if err != nil {
		h.log(r, presenter, err)
		WriteProblem(w, r, err)
		return
	}
	begun, cause := h.serve(w, r, verified, presenter)
	if cause == nil {
		return
	}
	h.log(r, presenter, cause)
	if begun {
		panic(http.ErrAbortHandler)
	}
	WriteProblem(w, r, cause)
}

// serve passes a verified request on. It returns why the request was cut, if it
// was, and whether a part of the answer was written by then.
func (h *handler) serve(
	w http.ResponseWriter, r *http.Request, verified tenant.Context, presenter identity.ID,
) (begun bool, cause error) {
	ctx, cut := context.WithCancelCause(context.WithValue(r.Context(), logKey{}, h.cfg.Log))
	live := lifetime.NewContext(ctx, verified)
	guarded := guard(w, r)
	keeper := lifetime.Keeper{
		Verifier: h.cfg.Verifier, Refresher: h.cfg.Refresher, Fault: tenantgrpc.FromStatus, Clock: h.cfg.Clock,
		Verify: func(token string) (tenant.Context, error) { return h.verify(token, presenter) },
	}
	wait := keeper.Keep(live, func(err error) { guarded.cut(err, func() { cut(err) }) }) //nolint:contextcheck // live is of the request
	defer wait()
	defer cut(nil)
	inner := r.Clone(live) //nolint:contextcheck // the same
	inner.Header.Del(Header)
	defer func() { begun, cause = guarded.end() }() // also when the application panics
	h.next.ServeHTTP(guarded, inner)
	return false, nil // end tells
}

// verify checks a token for the requests of presenter.
func (h *handler) verify(token string, presenter identity.ID) (tenant.Context, error) {
	verify := h.cfg.Verifier.Verify
	if h.cfg.AllowSuspended {
		verify = h.cfg.Verifier.VerifySuspended
	}
	verified, err := verify(token, presenter)
	switch {
	case err != nil:
		return tenant.Context{}, err
	case verified.Class() != tenant.ClassSession:
		return tenant.Context{}, fault.New(fault.PermissionDenied, fault.ReasonPresenterRefused,
			"the request needs a tenant context of class %s", tenant.ClassSession)
	case !verified.Scopes().Has(h.cfg.Scopes):
		return tenant.Context{}, fault.New(fault.PermissionDenied, fault.ReasonPermissionMissing,
			"the tenant context lacks a scope that the request needs")
	default:
		return verified, nil
	}
}

func (h *handler) log(r *http.Request, presenter identity.ID, err error) {
	h.cfg.Log.LogAttrs(r.Context(), slog.LevelInfo, "the request was refused",
		slog.String("error", err.Error()), slog.String("peer", presenter.String()))
}

// tokenOf returns the one token of the request.
func tokenOf(values []string) (string, error) {
	value, err := tenant.OneToken(values)
	if err != nil {
		return "", err
	}
	token, err := base64.StdEncoding.Strict().DecodeString(value)
	// The decoder skips line breaks; one meaning has one spelling here.
	if err == nil && base64.StdEncoding.EncodeToString(token) != value {
		err = errors.New("another spelling")
	}
	if err != nil {
		return "", fault.New(fault.Unauthenticated, fault.ReasonContextInvalid,
			"the tenant context cannot be read").WithCause(err)
	}
	return string(token), nil
}
