// Package registry knows what a tenant's life may look like: which event is allowed in which state and what follows from
// it, which ids and host names may be taken, and in which cell a new tenant finds room.
//
// Everything here is a pure function of its arguments: it knows no database, no wire and no clock. The store persists
// what it decides; the rpc layer asks it before it writes.
//
// Start at Next, the one function that knows the lifecycle.
package registry

import (
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

// Domain is the domain of the reasons that tenancy owns.
const Domain = "rowhouse.tenancy"

// The reasons that tenancy owns, as rowhouse.tenancy.v1.Reason lists them.
const (
	ReasonTenantIDTaken    = "TENANT_ID_TAKEN"
	ReasonTenantIDReserved = "TENANT_ID_RESERVED"
	ReasonDomainInvalid    = "DOMAIN_INVALID"
	ReasonDomainTaken      = "DOMAIN_TAKEN"
	ReasonNotDeleted       = "NOT_DELETED"
	ReasonDeleteProtected  = "DELETE_PROTECTED"
	ReasonPlanInUse        = "PLAN_IN_USE"
	ReasonAppInUse         = "APP_IN_USE"
	ReasonModelNotAllowed  = "MODEL_NOT_ALLOWED"
	ReasonNoCellCapacity   = "NO_CELL_CAPACITY"
	ReasonCellUnreachable  = "CELL_UNREACHABLE"
	ReasonParentInvalid    = "PARENT_INVALID"
	ReasonHasChildren      = "TENANT_HAS_CHILDREN"

	ReasonChecksumDrift       = "CHECKSUM_DRIFT"
	ReasonMigrationOutOfOrder = "MIGRATION_OUT_OF_ORDER"
	ReasonMigrationsMissing   = "MIGRATIONS_MISSING"
	ReasonMigrationFailed     = "MIGRATION_FAILED"
	ReasonMigrationInUse      = "MIGRATION_IN_USE"
	ReasonMigrationsTooMany   = "MIGRATIONS_TOO_MANY"
	ReasonMigrationsUntried   = "MIGRATIONS_UNTRIED"

	ReasonJobNotDeclared     = "JOB_NOT_DECLARED"
	ReasonJobOriginExpired   = "JOB_ORIGIN_EXPIRED"
	ReasonJobBudgetExhausted = "JOB_BUDGET_EXHAUSTED"
)

// refuse makes a fault of tenancy's own domain.
func refuse(kind fault.Kind, reason, format string, args ...any) *fault.Error {
	return fault.New(kind, reason, format, args...).WithDomain(Domain)
}
