package front

import (
	"testing"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// What we write by hand is what OpenTelemetry's propagator writes.
func TestTraceparent(t *testing.T) {
	t.Parallel()
	for _, flags := range []trace.TraceFlags{0, trace.FlagsSampled} {
		sc := trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: trace.TraceID{0: 0xab, 15: 1}, SpanID: trace.SpanID{0: 0xcd, 7: 2}, TraceFlags: flags,
		})
		want := propagation.MapCarrier{}
		propagation.TraceContext{}.Inject(trace.ContextWithSpanContext(t.Context(), sc), want)
		if got := traceparent(sc); got != want["traceparent"] {
			t.Errorf("traceparent = %q, want %q", got, want["traceparent"])
		}
	}
}
