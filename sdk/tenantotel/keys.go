package tenantotel

import (
	"context"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// The keys that telemetry has for tenants. Semantic conventions have none.
const (
	// KeyTenantID is the id that the tenant's users chose: what people search for.
	KeyTenantID = attribute.Key("tenant.id")
	// KeyTenantUID is the tenant's uid, which is never used again.
	KeyTenantUID = attribute.Key("rowhouse.tenant.uid")
	// KeyPlan is the tenant's plan.
	KeyPlan = attribute.Key("rowhouse.plan")
	// KeyCell is the cell that holds the tenant's rows.
	KeyCell = attribute.Key("rowhouse.cell")
	// KeyRegion is the region of that cell.
	KeyRegion = attribute.Key("rowhouse.region")
	// KeyIsolation is the isolation model: shared, schema or database.
	KeyIsolation = attribute.Key("rowhouse.isolation")
	// KeyPrincipalKind is what kind of principal acts.
	KeyPrincipalKind = attribute.Key("rowhouse.principal.kind")
	// KeyTargetTenant is the tenant that an admin call acts on. Such calls have no
	// tenant of their own.
	KeyTargetTenant = attribute.Key("rowhouse.target.tenant")
	// KeyRequestID is the request_id of a change.
	KeyRequestID = attribute.Key("rowhouse.request.id")
)

// Attributes returns what spans say about the tenant of c.
func Attributes(c tenant.Context) []attribute.KeyValue {
	return []attribute.KeyValue{
		KeyTenantID.String(c.ID().String()),
		KeyTenantUID.String(c.UID().String()),
		KeyPlan.String(c.Plan()),
		KeyCell.String(c.Cell()),
		KeyRegion.String(c.Region()),
		KeyIsolation.String(strings.ToLower(c.Model().String())),
		KeyPrincipalKind.String(strings.ToLower(c.PrincipalKind().String())),
	}
}

// Stamp writes the tenant of ctx on the current span, for spans that began
// before the tenant was known, as at the edge. Without a tenant it does nothing.
func Stamp(ctx context.Context) {
	if c, err := tenant.FromContext(ctx); err == nil {
		trace.SpanFromContext(ctx).SetAttributes(Attributes(c)...)
	}
}

// StampTarget writes the tenant that an admin call acts on, once it is resolved,
// on the current span.
func StampTarget(ctx context.Context, target string) {
	trace.SpanFromContext(ctx).SetAttributes(KeyTargetTenant.String(target))
}

type requestIDKey struct{}

// WithRequestID returns a copy of ctx whose log lines bear the request id.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey{}, id)
}

func requestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}
