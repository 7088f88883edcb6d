// Package operator says who calls on the admin and peer planes, and what that caller may do.
//
// A caller is an operator, who shows a bearer token (a static one, or an OIDC token of a known issuer), or a workload,
// which shows a client certificate. Both become a [Principal]. What a principal may do comes from the roles table in
// this package and from two files: operators.yaml for people, peers.yaml for workloads.
//
// It is not about tenants' users: they arrive inside the verified tenant context and never here. Start at [New].
package operator

import (
	"maps"
	"slices"
)

// Kind is the sort of a principal.
type Kind uint8

// The kinds. The zero Kind belongs to the zero Principal, which may do nothing.
const (
	// KindOperator is a person, or an automation that acts like one.
	KindOperator Kind = iota + 1
	// KindWorkload is a process with a client certificate.
	KindWorkload
	// KindTenant is whoever a verified tenant context names. It holds no permissions of this package.
	KindTenant
)

// String returns "operator", "workload" or "tenant".
func (k Kind) String() string {
	switch k {
	case KindOperator:
		return "operator"
	case KindWorkload:
		return "workload"
	case KindTenant:
		return "tenant"
	default:
		return "nobody"
	}
}

// Principal is an authenticated caller. It is immutable and may be shared.
type Principal struct {
	// Kind is the sort of caller.
	Kind Kind
	// Name is unique and stable, fit for audit records and request logs: "operator:ada@https://id.example",
	// "operator:dev@static" or a SPIFFE URI. People are keyed by issuer and subject, never by e-mail.
	Name string
	// Roles are the roles that were bound to the caller, in alphabetical order.
	Roles []string

	granted map[string]bool
}

// NewPrincipal makes a principal with single permissions, for callers that no file describes: tenants' users, jobs,
// tests. The permissions are not looked up in the roles table.
func NewPrincipal(kind Kind, name string, permissions ...string) Principal {
	granted := make(map[string]bool, len(permissions))
	for _, permission := range permissions {
		granted[permission] = true
	}
	return Principal{Kind: kind, Name: name, granted: granted}
}

// Has reports whether the caller holds permission.
func (p Principal) Has(permission string) bool { return permission != "" && p.granted[permission] }

// HasAny reports whether the caller holds one of permissions.
func (p Principal) HasAny(permissions ...string) bool { return slices.ContainsFunc(permissions, p.Has) }

// Permissions returns all that the caller holds, in alphabetical order.
func (p Principal) Permissions() []string { return slices.Sorted(maps.Keys(p.granted)) }

// IsZero reports whether nobody was authenticated.
func (p Principal) IsZero() bool { return p.Kind == 0 }
