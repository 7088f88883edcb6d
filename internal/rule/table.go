package rule

import (
	"context"
	"maps"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
)

// Table holds the rules of methods whose protos are not ours and cannot carry the option, by full method. A method
// that carries the option must not be in it, and what is in it must be registered.
type Table map[string]Entry

// Entry is the rule of one method.
type Entry struct {
	// Open lets everybody call without a credential. Only for what reveals nothing, such as health.
	Open bool
	// Keyed says that a client key is the credential, and that it is looked at by the door that serves the method. On a
	// gRPC port nobody has the right to call it.
	Keyed bool
	// Listed says that the caller's certificate is the credential, and that what it may do is in the configuration of the
	// listener that serves the method. On a port of ours nobody has the right to call it.
	Listed bool
	// Rule is what the method would declare. Unused when Open. Its permission is empty when Permission finds it.
	Rule *apiv1.MethodRule
	// Permission says which permission a call needs, from the value of the field that the rule's target names. A
	// fault of kind NotFound means that there is no such target. Callers who lack the permission, and those who hold
	// it and name nothing, get the same answer.
	Permission func(ctx context.Context, target string) (string, error)
	// Permissions are all that Permission may return.
	Permissions []string
}

// Health is the table of grpc.health.v1. Every [Enforcer] knows it already.
func Health() Table {
	return Table{
		"/grpc.health.v1.Health/Check": {Open: true},
		"/grpc.health.v1.Health/List":  {Open: true},
		"/grpc.health.v1.Health/Watch": {Open: true},
	}
}

// OperationPermission finds the permission for a method of google.longrunning.Operations from what the operation works
// on: reading "operations/…" of a tenant needs what reading that tenant needs. verb is "get", "list", "cancel" or
// "delete". For "list", name is the parent that the request names.
type OperationPermission func(ctx context.Context, verb, name string) (string, error)

// Operations is the table of google.longrunning.Operations. Its calls are authorized by the operation's target:
// permission finds out which permission that is, and permissions are all that it may answer.
func Operations(permission OperationPermission, permissions ...string) Table {
	const service = "/google.longrunning.Operations/"
	read := func(verb string) Entry { return operationEntry(permission, permissions, verb, true) }
	change := func(verb string) Entry { return operationEntry(permission, permissions, verb, false) }
	return Table{
		service + "GetOperation":    read("get"),
		service + "WaitOperation":   read("get"),
		service + "ListOperations":  read("list"),
		service + "CancelOperation": change("cancel"),
		service + "DeleteOperation": change("delete"),
	}
}

func operationEntry(permission OperationPermission, permissions []string, verb string, read bool) Entry {
	audit, idempotency := apiv1.AuditClass_AUDIT_CLASS_CHANGE, apiv1.Idempotency_IDEMPOTENCY_NATURAL
	if read {
		audit, idempotency = apiv1.AuditClass_AUDIT_CLASS_READ, apiv1.Idempotency_IDEMPOTENCY_SAFE
	}
	return Entry{
		Rule: &apiv1.MethodRule{
			Plane: apiv1.Plane_PLANE_ADMIN, Audit: audit, Idempotency: idempotency, Target: "name",
		},
		Permission: func(ctx context.Context, target string) (string, error) {
			return permission(ctx, verb, target)
		},
		Permissions: permissions,
	}
}

// Flagd is the table of flagd's protocols, which gateways serve on tenants' own hosts. It is all that they serve of them.
func Flagd() Table {
	table := Table{}
	add := func(service string, methods ...string) {
		for _, method := range methods {
			table["/"+service+"/"+method] = Entry{Keyed: true, Rule: &apiv1.MethodRule{
				Plane: apiv1.Plane_PLANE_PEER, Audit: apiv1.AuditClass_AUDIT_CLASS_NONE, Idempotency: apiv1.Idempotency_IDEMPOTENCY_SAFE,
			}}
		}
	}
	for _, service := range []string{"flagd.evaluation.v1.Service", "flagd.evaluation.v2.Service"} {
		add(service, "ResolveBoolean", "ResolveString", "ResolveFloat", "ResolveInt", "ResolveObject", "EventStream")
	}
	add("flagd.evaluation.v1.Service", "ResolveAll")
	add("flagd.sync.v1.FlagSyncService", "SyncFlags", "FetchAllFlags", "GetMetadata")
	return table
}

// Envoy is the table of Envoy's protocols for rate limits, which quota serves on a listener of its own. A repeated call
// charges again, so nothing is said of repeats.
func Envoy() Table {
	return Table{
		"/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit": {Listed: true, Rule: &apiv1.MethodRule{
			Plane: apiv1.Plane_PLANE_PEER, Audit: apiv1.AuditClass_AUDIT_CLASS_NONE,
		}},
	}
}

// Join merges tables; a method that is in two of them keeps its last entry.
func Join(tables ...Table) Table {
	joined := Table{}
	for _, table := range tables {
		maps.Copy(joined, table)
	}
	return joined
}
