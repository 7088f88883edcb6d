package tenantotel

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Origin says whose trace headers a request carries.
type Origin uint8

const (
	// Outside requests come from customers: their trace becomes a link on a new
	// root, their trace state and baggage are dropped. It is the zero value.
	Outside Origin = iota
	// Inside requests come from a verified peer and continue its trace.
	Inside
)

// HTTPCall is a request that is being served. End it once.
type HTTPCall struct {
	t      *Telemetry
	span   trace.Span
	start  time.Time
	now    func() time.Time
	method string
	route  string
}

// HTTPRequest describes a request to [Telemetry.StartHTTP].
type HTTPRequest struct {
	// Request is the request as it arrived.
	Request *http.Request
	// Route is the pattern that matched, such as "/notes/{note}": few values,
	// never the path itself.
	Route string
	// Origin says whether the trace headers are trusted.
	Origin Origin
	// Clock is the time. Default: time.Now.
	Clock func() time.Time
}

// StartHTTP starts the server's span of a request. When the tenant becomes known
// later, put it into the context and call [Stamp].
func (t *Telemetry) StartHTTP(ctx context.Context, r HTTPRequest) (context.Context, *HTTPCall) {
	if r.Clock == nil {
		r.Clock = time.Now
	}
	method := knownMethod(r.Request.Method)
	options := []trace.SpanStartOption{
		trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(attribute.String("http.request.method", method), attribute.String("http.route", r.Route)),
	}
	remote := t.propagator.Extract(ctx, propagation.HeaderCarrier(r.Request.Header))
	if r.Origin == Inside {
		ctx = remote
	} else {
		options = append(options, trace.WithNewRoot())
		if caller := trace.SpanContextFromContext(remote); caller.IsValid() {
			options = append(options, trace.WithLinks(trace.Link{SpanContext: caller.WithTraceState(trace.TraceState{})}))
		}
	}
	//nolint:spancheck // HTTPCall.End ends it
	ctx, span := t.tracer.Start(ctx, method+" "+r.Route, options...)
	call := &HTTPCall{t: t, span: span, start: r.Clock(), now: r.Clock, method: method, route: r.Route}
	return ctx, call //nolint:spancheck // as above
}

// End ends the span and measures the request. ctx is the request's latest
// context: its tenant gives the measurement its plan and cell.
func (c *HTTPCall) End(ctx context.Context, status int) {
	c.span.SetAttributes(attribute.Int("http.response.status_code", status))
	if status >= http.StatusInternalServerError {
		c.span.SetStatus(codes.Error, strconv.Itoa(status))
	}
	c.span.End()
	attrs := append(metricAttributes(ctx),
		attribute.String("http.request.method", c.method), attribute.String("http.route", c.route),
		attribute.Int("http.response.status_code", status))
	c.t.duration.Record(ctx, c.now().Sub(c.start).Seconds(), metric.WithAttributes(attrs...))
}

// Inject writes the current trace into the headers of a request to a peer inside
// the house. Requests that leave the house carry none.
func (t *Telemetry) Inject(ctx context.Context, header http.Header) {
	t.propagator.Inject(ctx, propagation.HeaderCarrier(header))
}

// knownMethod keeps callers from making names.
func knownMethod(method string) string {
	if slices.Contains([]string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"}, method) {
		return method
	}
	return "_OTHER"
}
