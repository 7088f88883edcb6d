// Package flagd serves a tenant's flags by flagd's own protocols: flagd.evaluation.v1 and v2, and flagd.sync.v1.
//
// Each is spoken as gRPC, gRPC-Web and Connect, for the public providers use all of them: flagd's Go provider asks by
// Connect over HTTP/1.1. The tenant is that of the request's context, which whoever serves this handler has verified; the
// gateway takes it from the host. A server's client key is the credential (package door), and a selector has no
// authority. Start at [New].
package flagd

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"buf.build/gen/go/open-feature/flagd/connectrpc/go/flagd/evaluation/v1/evaluationv1connect"
	"buf.build/gen/go/open-feature/flagd/connectrpc/go/flagd/evaluation/v2/evaluationv2connect"
	"buf.build/gen/go/open-feature/flagd/connectrpc/go/flagd/sync/v1/syncv1connect"
	"connectrpc.com/connect"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/clientkey"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/door"
)

// maxRequest bounds a message, in bytes.
const maxRequest = 1_000_000

// selectorHeader names a set of flags.
const selectorHeader = "Flagd-Selector"

// Config makes a [Handler]. Door is required.
type Config struct {
	// Door lets requests in.
	Door *door.Door
	// Log hears of defects. Default slog.Default.
	Log *slog.Logger
}

// Handler serves flagd's protocols. It is safe for concurrent use.
type Handler struct {
	c      Config
	mux    *http.ServeMux
	errors *connect.ErrorWriter
}

// New returns a handler.
func New(c Config) *Handler {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	h := &Handler{c: c, mux: http.NewServeMux(), errors: connect.NewErrorWriter()}
	options := connect.WithHandlerOptions(connect.WithInterceptors(gate{h}), connect.WithReadMaxBytes(maxRequest))
	h.mux.Handle(evaluationv1connect.NewServiceHandler(version1{server{h}}, options))
	h.mux.Handle(evaluationv2connect.NewServiceHandler(version2{server{h}}, options))
	h.mux.Handle(syncv1connect.NewFlagSyncServiceHandler(syncing{server{h}}, options))
	return h
}

// ServeHTTP answers a request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	h.mux.ServeHTTP(w, r)
}

// Refuse answers a request with an error, in the protocol that it came by.
func (h *Handler) Refuse(w http.ResponseWriter, r *http.Request, err error) {
	_ = h.errors.Write(w, r, h.errorOf(r.Context(), err)) // a caller that went away is nobody's error
}

// errorOf is an error as callers see it: what is no fault, or an internal one, is logged and told as INTERNAL.
// A bad credential is PERMISSION_DENIED, which providers can be told to give up at.
func (h *Handler) errorOf(ctx context.Context, err error) *connect.Error {
	if known := (*connect.Error)(nil); errors.As(err, &known) {
		return known
	}
	f, ok := fault.As(err)
	switch {
	case ok:
	case ctx.Err() != nil && errors.Is(err, context.DeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, errors.New("the caller's deadline has passed"))
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return connect.NewError(connect.CodeCanceled, errors.New("the caller went away"))
	}
	if !ok || f.Kind == fault.Internal {
		h.c.Log.ErrorContext(ctx, "flagd's protocol failed", "error", err)
		return connect.NewError(connect.CodeInternal, errors.New("the server failed"))
	}
	code := connect.CodeUnavailable
	switch f.Kind {
	case fault.Unauthenticated, fault.PermissionDenied, fault.NotFound: // a flag that is not found is no fault
		code = connect.CodePermissionDenied
	case fault.ResourceExhausted:
		code = connect.CodeResourceExhausted
	case fault.InvalidArgument:
		code = connect.CodeInvalidArgument
	}
	return connect.NewError(code, errors.New(f.Reason+": "+f.Message))
}

type visitKey struct{}

// gate lets calls in.
type gate struct{ h *Handler }

// enter returns a context with the visit.
func (g gate) enter(ctx context.Context, header http.Header) (context.Context, error) {
	v, err := g.h.c.Door.Enter(ctx, header)
	if err == nil && v.Key.Kind != clientkey.Server {
		err = fault.New(fault.PermissionDenied, fault.ReasonPermissionMissing, "flagd's protocols need the client key of a server")
	}
	for _, selector := range header.Values(selectorHeader) {
		if err == nil {
			err = checkSelector(v, selector)
		}
	}
	if err != nil {
		return nil, g.h.errorOf(ctx, err)
	}
	return context.WithValue(ctx, visitKey{}, v), nil
}

// checkSelector refuses a selector that is neither empty nor the tenant's own: which flags are seen says the key.
func checkSelector(v door.Visit, selector string) error {
	if selector == "" || selector == "flagSetId="+v.Who.ID.String() {
		return nil
	}
	return fault.New(fault.PermissionDenied, fault.ReasonTenantMismatch, "the selector names other flags than the client key's")
}

// visitOf returns who was let in.
func visitOf(ctx context.Context) door.Visit {
	v, _ := ctx.Value(visitKey{}).(door.Visit) // every call comes through the gate
	return v
}

// WrapUnary implements connect.Interceptor.
func (g gate) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		ctx, err := g.enter(ctx, req.Header())
		if err != nil {
			return nil, err
		}
		res, err := next(ctx, req)
		if err != nil {
			return nil, g.h.errorOf(ctx, err)
		}
		return res, nil
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (gate) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler implements connect.Interceptor.
func (g gate) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		ctx, err := g.enter(ctx, conn.RequestHeader())
		if err != nil {
			return err
		}
		if err := next(ctx, conn); err != nil {
			return g.h.errorOf(ctx, err)
		}
		return nil
	}
}
