package tenantotel

import (
	"context"
	"net/http"

	"github.com/rowhouse-platform/rowhouse/sdk/tenanthttp"
)

// Handler is [tenanthttp.Handler] with a span and a measurement for each request,
// as [Telemetry.ServerOptions] is for gRPC. The trace is the gateway's: its requests
// come over mutual TLS only. The span bears the tenant once it is verified; refused
// requests bear none. route stands for every path that next serves: few values,
// never the path itself. An answer that is broken off counts as a 500.
func (t *Telemetry) Handler(cfg tenanthttp.Config, route string, next http.Handler) http.Handler {
	if cfg.Log == nil {
		cfg.Log = t.logger
	}
	verified := tenanthttp.Handler(cfg, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		Stamp(r.Context())
		if seen, ok := r.Context().Value(seenKey{}).(*seen); ok {
			seen.ctx = r.Context()
		}
		next.ServeHTTP(w, r)
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, call := t.StartHTTP(r.Context(), HTTPRequest{Request: r, Route: route, Origin: Inside, Clock: cfg.Clock})
		answer := &statusWriter{ResponseWriter: w, status: http.StatusInternalServerError}
		latest := &seen{ctx: ctx}
		defer func() { call.End(latest.ctx, answer.status) }()
		verified.ServeHTTP(answer, r.WithContext(context.WithValue(ctx, seenKey{}, latest)))
		answer.returned()
	})
}

type seenKey struct{}

// seen carries the request's context with its tenant out to the measurement.
type seen struct {
	ctx context.Context //nolint:containedctx // handed back to where the request came from
}

// statusWriter remembers the status, which counts once the handler has returned.
type statusWriter struct {
	http.ResponseWriter
	written, status int
}

// WriteHeader implements http.ResponseWriter.
func (w *statusWriter) WriteHeader(status int) {
	if w.written == 0 && status >= http.StatusOK { // below are hints, which an answer may follow
		w.written = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets [http.ResponseController] reach what lies below.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *statusWriter) returned() {
	w.status = http.StatusOK
	if w.written != 0 {
		w.status = w.written
	}
}
