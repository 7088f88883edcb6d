package tenantotel

import (
	"context"
	"errors"
	"log/slog"
	"slices"

	"go.opentelemetry.io/otel/trace"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// NewHandler returns a handler that passes records on to next with trace, span,
// tenant, plan, cell and request id of the context they were logged in. These
// stand at the top of the record, whatever groups are open.
func NewHandler(next slog.Handler) slog.Handler { return &logHandler{base: next} }

// logHandler keeps groups and attributes back until a record comes, so that what
// it adds can be written before them.
type logHandler struct {
	base slog.Handler
	ops  []func(slog.Handler) slog.Handler
}

// Enabled implements slog.Handler.
func (h *logHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.base.Enabled(ctx, level)
}

// WithAttrs implements slog.Handler.
func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.then(func(next slog.Handler) slog.Handler { return next.WithAttrs(attrs) })
}

// WithGroup implements slog.Handler.
func (h *logHandler) WithGroup(name string) slog.Handler {
	return h.then(func(next slog.Handler) slog.Handler { return next.WithGroup(name) })
}

func (h *logHandler) then(op func(slog.Handler) slog.Handler) slog.Handler {
	return &logHandler{base: h.base, ops: append(slices.Clip(h.ops), op)}
}

// Handle implements slog.Handler.
func (h *logHandler) Handle(ctx context.Context, record slog.Record) error {
	next := h.base
	if attrs := logAttributes(ctx); len(attrs) > 0 {
		next = next.WithAttrs(attrs)
	}
	for _, op := range h.ops {
		next = op(next)
	}
	return next.Handle(ctx, record)
}

func logAttributes(ctx context.Context) []slog.Attr {
	var attrs []slog.Attr
	add := func(key, value string) { attrs = append(attrs, slog.String(key, value)) }
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		add("trace_id", span.TraceID().String())
		add("span_id", span.SpanID().String())
	}
	if c, err := tenant.FromContext(ctx); err == nil {
		add(string(KeyTenantID), c.ID().String())
		add(string(KeyTenantUID), c.UID().String())
		add(string(KeyPlan), c.Plan())
		add(string(KeyCell), c.Cell())
	}
	if id := requestID(ctx); id != "" {
		add(string(KeyRequestID), id)
	}
	return attrs
}

// both writes every record to two handlers.
type both [2]slog.Handler

// Enabled implements slog.Handler.
func (b both) Enabled(ctx context.Context, level slog.Level) bool {
	return b[0].Enabled(ctx, level) || b[1].Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (b both) Handle(ctx context.Context, record slog.Record) error {
	var errs []error
	for _, h := range b {
		if h.Enabled(ctx, record.Level) {
			errs = append(errs, h.Handle(ctx, record.Clone()))
		}
	}
	return errors.Join(errs...)
}

// WithAttrs implements slog.Handler.
func (b both) WithAttrs(attrs []slog.Attr) slog.Handler {
	return both{b[0].WithAttrs(attrs), b[1].WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (b both) WithGroup(name string) slog.Handler {
	return both{b[0].WithGroup(name), b[1].WithGroup(name)}
}
