package registry

import (
	"slices"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// State is where a tenant is in its life. The numbers are those of rowhouse.tenancy.v1.TenantState and are stored.
type State int32

// The states.
const (
	StateCreating State = iota + 1
	StateActive
	StateSuspended
	StateDeleted
	StateFailed
)

// String returns the state's name in the API.
func (s State) String() string {
	names := [...]string{"UNSPECIFIED", "CREATING", "ACTIVE", "SUSPENDED", "DELETED", "FAILED"}
	if s < 0 || int(s) >= len(names) {
		return "UNSPECIFIED"
	}
	return names[s]
}

// Served reports whether verifiers and gateways must know a tenant in this state: from its activation to its end.
func (s State) Served() bool { return s == StateActive || s == StateSuspended || s == StateDeleted }

// Cause is why a tenant is suspended. The numbers are those of rowhouse.tenancy.v1.SuspensionCause and are stored.
type Cause int32

// The causes.
const (
	CauseBilling Cause = iota + 1
	CauseAbuse
	CauseSecurity
	CauseOperator
)

// String returns the cause's name in the API.
func (c Cause) String() string {
	names := [...]string{"UNSPECIFIED", "BILLING", "ABUSE", "SECURITY", "OPERATOR"}
	if c < 0 || int(c) >= len(names) {
		return "UNSPECIFIED"
	}
	return names[c]
}

// Loss is what verifiers do with a tenant's calls while the control plane is lost. The numbers are those of
// rowhouse.tenancy.v1.LossPolicy and are stored.
type Loss int32

// The loss policies; LossDefault means the plan's.
const (
	LossDefault Loss = iota
	LossServe
	LossDeny
)

// Suspension is one cause in force.
type Suspension struct {
	Cause Cause
	Actor string
	Time  time.Time
	Note  string
}

// Tenant is a tenant as the registry knows it. A Tenant is a value: Next returns a changed copy and shares nothing with
// the one it was given.
type Tenant struct {
	UID              tenant.UID
	ID               tenant.ID
	DisplayName      string
	Parent           Parent
	Plan             string
	State            State
	Generation       int64
	Placement        Placement
	Suspensions      []Suspension // by cause, each once
	Labels           map[string]string
	ExternalID       string
	DeleteProtection bool
	Loss             Loss
	CreateTime       time.Time
	UpdateTime       time.Time
	DeleteTime       time.Time // zero while it lives
	PurgeTime        time.Time // zero while it lives
	// Revision is the registry's revision at the last change; the store fills it.
	Revision int64
	// Operation is the operation that runs for the tenant now, "" when none does; the store fills it.
	Operation string
}

// Parent is the tenant that another one belongs to; the zero Parent is none.
type Parent struct {
	UID tenant.UID
	ID  tenant.ID
}

// Name is the parent's resource name, "" for none.
func (p Parent) Name() string {
	if p.UID.IsZero() {
		return ""
	}
	return "tenants/" + p.ID.String()
}

// Placement is where a tenant's rows are.
type Placement struct {
	Model      tenant.Model
	Cell       string
	Region     string
	Generation int64
	// Revision grows with each change that the cell's databases must learn; the store fills it.
	Revision int64
}

// Suspended reports whether cause is in force.
func (t Tenant) Suspended(cause Cause) bool {
	return slices.ContainsFunc(t.Suspensions, func(s Suspension) bool { return s.Cause == cause })
}

// CellState returns what the databases of the tenant's cell must say about it: "active", "suspended", or "moved" when
// it has no home there.
func (t Tenant) CellState() string {
	switch t.State {
	case StateCreating, StateActive:
		return "active"
	case StateFailed:
		return "moved"
	default:
		return "suspended"
	}
}
