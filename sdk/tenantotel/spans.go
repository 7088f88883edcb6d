package tenantotel

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// SpanProcessor stamps every span that starts, whoever starts it, with the
// tenant of the context it starts in. The zero value is ready.
type SpanProcessor struct{}

var _ sdktrace.SpanProcessor = SpanProcessor{}

// OnStart implements sdktrace.SpanProcessor.
func (SpanProcessor) OnStart(parent context.Context, span sdktrace.ReadWriteSpan) {
	if c, err := tenant.FromContext(parent); err == nil {
		span.SetAttributes(Attributes(c)...)
	}
}

// OnEnd implements sdktrace.SpanProcessor.
func (SpanProcessor) OnEnd(sdktrace.ReadOnlySpan) {}

// Shutdown implements sdktrace.SpanProcessor.
func (SpanProcessor) Shutdown(context.Context) error { return nil }

// ForceFlush implements sdktrace.SpanProcessor.
func (SpanProcessor) ForceFlush(context.Context) error { return nil }

// metricAttributes gives an RPC's measurements the few labels that do not grow
// with tenants; the tenant's id is added for the exemplar and filtered off the
// series by a view.
func metricAttributes(ctx context.Context) []attribute.KeyValue {
	c, err := tenant.FromContext(ctx)
	if err != nil {
		return nil
	}
	return []attribute.KeyValue{
		KeyPlan.String(c.Plan()), KeyCell.String(c.Cell()), KeyTenantID.String(c.ID().String()),
	}
}
