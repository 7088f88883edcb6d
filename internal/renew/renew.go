// Package renew makes a fresh tenant context out of one that is about to expire, for whoever holds a certified key:
// gateways and tenancy serve ContextRenewalService with it alike.
//
// It remembers nothing. That a chain of renewals ends an hour after its first context is written into every context
// (its first issue time) and held by every verifier, so it makes no difference who renews which link. It never makes a
// context wider; what a server knows, and what it signs with, it learns from a [House]. Start at [New], or at [Claims]
// for the rule itself.
package renew

import (
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// Tenant is what is known of a tenant now. All fields are required.
type Tenant struct {
	State               tenant.State
	Generation          uint64
	PlacementGeneration uint64
	Plan                string
	Model               tenant.Model
	Cell                string
	CellNumber          uint32
	Region              string
}

// Claims returns what the successor of old says, but for minter and seal: the same tenant, principal, scopes and
// audience, plan and placement as they are now, and fresh times that end an hour after the chain's first issue.
//
// Errors are faults: PRESENTER_REFUSED for a TRANSACTION context, which is good for one request; TENANT_SUSPENDED;
// TENANT_DELETED; PLACEMENT_STALE when the tenant's generation has changed since; CONTEXT_EXPIRED when the chain has
// ended; STARTING when t is older than what the context says, so that somebody else must be asked.
func Claims(old tenant.Context, t Tenant, now time.Time) (tenant.Claims, error) {
	if old.Class() != tenant.ClassSession {
		return tenant.Claims{}, refused("a TRANSACTION context is good for one request")
	}
	if err := standing(old, t); err != nil {
		return tenant.Claims{}, err
	}
	end := old.FirstIssueTime().Add(tenant.MaxChainLife)
	if !end.After(old.ExpireTime()) {
		return tenant.Claims{}, fault.New(fault.Unauthenticated, fault.ReasonContextExpired,
			"the context can be renewed no more; make a new one at the edge")
	}
	c := old.Claims()
	c.Plan, c.Model, c.Cell, c.CellNumber, c.Region = t.Plan, t.Model, t.Cell, t.CellNumber, t.Region
	c.PlacementGeneration = t.PlacementGeneration
	c.DBSeal = tenant.DBSeal{}
	c.IssueTime = now.Truncate(time.Second).UTC()
	if c.IssueTime.Before(old.IssueTime()) { // made by a clock that is ahead of ours
		c.IssueTime = old.IssueTime()
	}
	c.FirstIssueTime = time.Time{}
	if first := old.FirstIssueTime(); first.Before(c.IssueTime) {
		c.FirstIssueTime = first
	}
	c.ExpireTime = c.IssueTime.Add(tenant.MaxSessionLife)
	if end.Before(c.ExpireTime) {
		c.ExpireTime = end
	}
	return c, nil
}

// standing says why a tenant's context may not go on; nil when it may.
func standing(old tenant.Context, t Tenant) error {
	switch {
	case t.Generation < old.Generation() || t.PlacementGeneration < old.PlacementGeneration():
		return fault.New(fault.Unavailable, fault.ReasonStarting, "the tenant's newest state is not known here yet")
	case t.State == tenant.StateSuspended:
		return fault.New(fault.PermissionDenied, fault.ReasonTenantSuspended, "the tenant is suspended")
	case t.State != tenant.StateActive:
		return fault.New(fault.PermissionDenied, fault.ReasonTenantDeleted, "the tenant is deleted")
	case t.Generation != old.Generation():
		return fault.New(fault.Aborted, fault.ReasonPlacementStale,
			"the tenant has changed since the context was made; make a new one")
	default:
		return nil
	}
}

func refused(message string) error {
	return fault.New(fault.PermissionDenied, fault.ReasonPresenterRefused, "%s", message)
}
