package front

import (
	"encoding/hex"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantotel"
)

// outside returns a link to the trace that a client claims to be part of. It is
// not continued: outsiders choose neither our trace ids nor our sampling.
func outside(r *http.Request) []trace.Link {
	if len(r.Header.Values("Traceparent")) != 1 {
		return nil
	}
	carrier := propagation.MapCarrier{"traceparent": r.Header.Get("Traceparent")}
	remote := trace.SpanContextFromContext(propagation.TraceContext{}.Extract(r.Context(), carrier))
	if !remote.IsValid() {
		return nil
	}
	return []trace.Link{{SpanContext: remote, Attributes: []attribute.KeyValue{attribute.String("rowhouse.link", "client")}}}
}

// describe puts what the verified context says on a span that began before it.
func describe(span trace.Span, tc tenant.Context) {
	if span.IsRecording() {
		span.SetAttributes(tenantotel.Attributes(tc)...)
	}
}

// traceparent is the W3C trace context of a call, version 00. There is no trace state to
// go with it: the trace began here.
func traceparent(sc trace.SpanContext) string {
	var b [len("00-") + 2*len(trace.TraceID{}) + len("-") + 2*len(trace.SpanID{}) + len("-00")]byte
	id, span := sc.TraceID(), sc.SpanID()
	text := append(b[:0], "00-"...)
	text = hex.AppendEncode(text, id[:])
	text = hex.AppendEncode(append(text, '-'), span[:])
	text = hex.AppendEncode(append(text, '-'), []byte{byte(sc.TraceFlags())})
	return string(text)
}
