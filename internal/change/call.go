package change

import (
	"context"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	"github.com/rowhouse-platform/rowhouse/internal/operator"
	"github.com/rowhouse-platform/rowhouse/internal/rule"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// NewJob returns a context for work that no call began, such as a step of an operation. It is audited as a change by
// the service itself, with "job/<name>" for its method.
func NewJob(ctx context.Context, service, name string) context.Context {
	return newJob(ctx, service, name, apiv1.AuditClass_AUDIT_CLASS_CHANGE)
}

// NewBookkeeping is [NewJob] for what ends a change that is on record already, and is therefore not audited by itself.
func NewBookkeeping(ctx context.Context, service, name string) context.Context {
	return newJob(ctx, service, name, apiv1.AuditClass_AUDIT_CLASS_NONE)
}

func newJob(ctx context.Context, service, name string, audit apiv1.AuditClass) context.Context {
	return rule.NewContext(ctx, rule.Call{
		Method:    "job/" + name,
		Principal: operator.NewPrincipal(operator.KindWorkload, "service:"+service),
		Rule:      &apiv1.MethodRule{Plane: apiv1.Plane_PLANE_ADMIN, Audit: audit},
	})
}

func audited(call rule.Call) bool {
	switch call.Rule.GetAudit() {
	case apiv1.AuditClass_AUDIT_CLASS_UNSPECIFIED, apiv1.AuditClass_AUDIT_CLASS_NONE:
		return false
	default:
		return true
	}
}

// actingTenant returns the uid of the tenant that a call of the data plane acts for, and "" on the other planes.
func actingTenant(ctx context.Context, call rule.Call) string {
	if call.Rule.GetPlane() != apiv1.Plane_PLANE_DATA {
		return ""
	}
	tc, err := tenant.FromContext(ctx)
	if err != nil {
		return ""
	}
	return tc.UID().String()
}

// caller is the part of the request log's key that keeps one caller's ids apart from another's.
func caller(tenantUID string, call rule.Call) string {
	if tenantUID == "" {
		return call.Principal.Name
	}
	return tenantUID + "/" + call.Principal.Name
}
