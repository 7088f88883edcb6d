package change

import (
	"context"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
)

// Call is what the unit of work must know about the call that it serves.
type Call struct {
	// Method is the full gRPC method, or "job/<name>" for work that no call began.
	Method string
	// Principal is who called, as it is written into the audit chain.
	Principal string
	// Peer is the caller's network address.
	Peer string
	// Rule is what the method declares about itself.
	Rule *apiv1.MethodRule
	// Request is the whole request; never changed here.
	Request proto.Message
	// RequestID is the caller's UUID for this logical call; empty when it gave none.
	RequestID string
	// ValidateOnly asks for all checks and no effect.
	ValidateOnly bool
	// Reason is why the caller calls, in its own words.
	Reason string
	// Tenant is the uid of the acting tenant on the data plane; empty on the others.
	Tenant string
}

type callKey struct{}

// NewContext returns a context whose unit of work is done for call.
func NewContext(ctx context.Context, call Call) context.Context {
	return context.WithValue(ctx, callKey{}, call)
}

// CallFrom returns the call that ctx serves, and whether there is one.
func CallFrom(ctx context.Context) (Call, bool) {
	call, ok := ctx.Value(callKey{}).(Call)
	return call, ok
}

// NewJob returns a context for work that no call began, such as a step of an operation. It is audited as a change by
// the service itself.
func NewJob(ctx context.Context, service, name string) context.Context {
	return NewContext(ctx, Call{
		Method:    "job/" + name,
		Principal: "service:" + service,
		Rule: &apiv1.MethodRule{
			Plane: apiv1.Plane_PLANE_ADMIN,
			Audit: apiv1.AuditClass_AUDIT_CLASS_CHANGE,
		},
	})
}

func (c Call) audited() bool {
	switch c.Rule.GetAudit() {
	case apiv1.AuditClass_AUDIT_CLASS_UNSPECIFIED, apiv1.AuditClass_AUDIT_CLASS_NONE:
		return false
	default:
		return true
	}
}

// caller is the part of the request log's key that keeps one caller's ids apart from another's.
func (c Call) caller() string {
	if c.Tenant == "" {
		return c.Principal
	}
	return c.Tenant + "/" + c.Principal
}
