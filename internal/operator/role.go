package operator

import (
	"fmt"
	"maps"
	"slices"
)

// Names of the roles. Roles of people come first, those of workloads after them.
const (
	RoleViewer   = "viewer"   // reads records
	RoleSupport  = "support"  // and explains what tenants see
	RoleOperator = "operator" // tenants, their domains, settings and limits
	RolePlacer   = "placer"   // apps, their migrations, cells and where tenants live
	RoleSecurity = "security" // suspends, blocks, revokes
	RoleAuditor  = "auditor"  // reads the audit chains, and the tenants that they are named after
	RoleOwner    = "owner"    // all that people may do

	RoleGateway = "gateway"
	RoleConfig  = "config"
	RoleQuota   = "quota"
	RoleApp     = "app"
	RoleTenancy = "tenancy"
)

// Roles is the table of roles and their permissions. It is fixed in the binary: what a role may do is reviewed like
// code. There are no wildcards.
type Roles struct {
	permissions map[string][]string
	known       map[string]bool
}

// AllRoles returns the table.
func AllRoles() Roles {
	r := Roles{permissions: map[string][]string{}, known: map[string]bool{}}
	viewer := viewerPermissions()
	r.permissions[RoleViewer] = viewer
	r.permissions[RoleSupport] = slices.Concat(viewer, supportPermissions())
	r.permissions[RoleOperator] = slices.Concat(viewer, supportPermissions(), operatorPermissions())
	r.permissions[RolePlacer] = slices.Concat(viewer, placerPermissions())
	r.permissions[RoleSecurity] = slices.Concat(viewer, supportPermissions(), securityPermissions())
	r.permissions[RoleAuditor] = auditorPermissions()
	r.permissions[RoleOwner] = slices.Concat(viewer, supportPermissions(), operatorPermissions(), placerPermissions(),
		securityPermissions(), auditorPermissions(), ownerPermissions())
	maps.Copy(r.permissions, workloadPermissions())
	for role, permissions := range r.permissions {
		slices.Sort(permissions)
		r.permissions[role] = slices.Compact(permissions)
		for _, permission := range permissions {
			r.known[permission] = true
		}
	}
	return r
}

// Names returns the roles in alphabetical order.
func (r Roles) Names() []string {
	names := make([]string, 0, len(r.permissions))
	for name := range r.permissions {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Permissions returns what role may do, in alphabetical order, or nil when there is no such role.
func (r Roles) Permissions(role string) []string { return slices.Clone(r.permissions[role]) }

// Known reports whether some role holds permission.
func (r Roles) Known(permission string) bool { return r.known[permission] }

// grant adds up what roles and single permissions allow, and refuses names that do not exist.
func (r Roles) grant(roles, permissions []string) (map[string]bool, error) {
	granted := map[string]bool{}
	for _, role := range roles {
		held, ok := r.permissions[role]
		if !ok {
			return nil, fmt.Errorf("unknown role %q; there are %v", role, r.Names())
		}
		for _, permission := range held {
			granted[permission] = true
		}
	}
	for _, permission := range permissions {
		if !r.known[permission] {
			return nil, fmt.Errorf("unknown permission %q", permission)
		}
		granted[permission] = true
	}
	return granted, nil
}

func viewerPermissions() []string {
	return []string{
		"config.changes.get", "config.changes.list", "config.clientKeys.list",
		"config.brandAssets.get", "config.brandAssets.list", "config.brandDrafts.get", "config.brandMails.preview",
		"config.documents.get", "config.documents.list",
		"config.namespaces.get", "config.namespaces.list",
		"config.hooks.get", "config.hooks.list",
		"config.secrets.list",
		"config.rollouts.get", "config.rollouts.list",
		"config.webhooks.get", "config.webhooks.list",
		"quota.entitlements.get", "quota.entitlements.list",
		"quota.limits.get", "quota.limits.list", "quota.noisyTenants.list",
		"quota.quotas.get", "quota.quotas.list",
		"quota.rateLimits.get", "quota.rateLimits.list",
		"quota.meters.get", "quota.meters.list", "quota.usage.get",
		"tenancy.apps.get", "tenancy.apps.list",
		"tenancy.cells.get", "tenancy.cells.list",
		"tenancy.consumers.list",
		"tenancy.domains.get", "tenancy.domains.list",
		"tenancy.jobPolicies.get", "tenancy.jobPolicies.list",
		"tenancy.migrations.get", "tenancy.migrations.list",
		"tenancy.operations.get", "tenancy.operations.list",
		"tenancy.placements.get",
		"tenancy.plans.get", "tenancy.plans.list",
		"tenancy.tenants.get", "tenancy.tenants.list",
	}
}

func supportPermissions() []string {
	return []string{"gateway.routes.explain"}
}

func operatorPermissions() []string {
	return []string{
		"config.changes.approve", "config.changes.create", "config.changes.publish", "config.changes.update",
		"config.clientKeys.create", "config.clientKeys.delete",
		"config.brandAssets.create", "config.brandAssets.delete",
		"config.brandDrafts.delete", "config.brandDrafts.preview", "config.brandDrafts.publish", "config.brandDrafts.update",
		"config.documents.delete", "config.documents.update", "config.flags.kill", "config.settings.kill",
		"config.secrets.delete", "config.secrets.destroy", "config.secrets.put",
		"config.rollouts.advance", "config.rollouts.create", "config.rollouts.halt",
		"config.webhooks.create", "config.webhooks.delete", "config.webhooks.redeliver", "config.webhooks.rotate",
		"config.webhooks.test", "config.webhooks.update",
		"quota.entitlements.delete", "quota.entitlements.update",
		"quota.limits.delete", "quota.limits.update",
		"quota.quotas.delete", "quota.quotas.update",
		"quota.rateLimits.delete", "quota.rateLimits.import",
		"quota.usage.adjust", "quota.usage.set",
		"quota.meters.create", "quota.meters.update",
		"tenancy.domains.create", "tenancy.domains.delete", "tenancy.domains.update", "tenancy.domains.verify",
		"tenancy.operations.cancel", "tenancy.operations.delete",
		"tenancy.tenants.create", "tenancy.tenants.delete", "tenancy.tenants.resume", "tenancy.tenants.suspend",
		"tenancy.tenants.undelete", "tenancy.tenants.update",
	}
}

func placerPermissions() []string {
	return []string{
		"tenancy.apps.create", "tenancy.apps.delete", "tenancy.apps.update",
		"tenancy.cells.create", "tenancy.cells.update",
		"tenancy.migrations.delete", "tenancy.migrations.register",
	}
}

func securityPermissions() []string {
	return []string{
		"audit.chains.verify", "audit.events.get", "audit.events.list",
		"config.flags.kill", "config.rollouts.halt", "config.settings.kill",
		"config.secrets.destroy", "config.secrets.list", "config.secrets.rewrap",
		"tenancy.contextKeys.list", "tenancy.contextKeys.revoke",
		"tenancy.jobPolicies.delete", "tenancy.jobPolicies.update",
		"tenancy.tenants.resume", "tenancy.tenants.suspend",
	}
}

// A tenant's chain is named by its uid, which auditors find out from its id.
func auditorPermissions() []string {
	return []string{"audit.chains.verify", "audit.events.get", "audit.events.list", "tenancy.tenants.get"}
}

// Hooks bind operators, so they are not theirs to change.
func ownerPermissions() []string {
	return []string{
		"config.hooks.create", "config.hooks.delete", "config.hooks.rotate", "config.hooks.skip", "config.hooks.test", "config.hooks.update",
		"config.namespaces.create", "config.namespaces.delete", "config.namespaces.update", "config.tenants.erase",
		"quota.meters.delete", "quota.tenants.erase",
		"tenancy.plans.create", "tenancy.plans.delete", "tenancy.plans.update",
	}
}

func workloadPermissions() map[string][]string {
	return map[string][]string{
		RoleGateway: {
			"config.brands.serve", "config.clientKeys.watch", "config.rollouts.report", "config.settings.watch",
			"quota.leases.grant", "quota.leases.return", "quota.limits.watch", "quota.shares.report",
			"quota.slots.acquire", "quota.slots.release", "quota.slots.renew",
			"tenancy.contextKeys.certify", "tenancy.contexts.refresh", "tenancy.routes.watch", "tenancy.tenants.watch",
		},
		RoleConfig: {"quota.events.watch", "tenancy.domains.get", "tenancy.events.watch", "tenancy.tenants.watch"},
		RoleQuota:  {"tenancy.tenants.watch"},
		RoleApp: {
			"config.rollouts.report", "config.settings.watch",
			"quota.leases.grant", "quota.leases.return", "quota.limits.watch", "quota.shares.report",
			"quota.slots.acquire", "quota.slots.release", "quota.slots.renew",
			"tenancy.contexts.mint", "tenancy.contexts.refresh", "tenancy.tenants.watch",
		},
		RoleTenancy: {"config.hooks.decide", "config.hooks.watch", "config.rollouts.report", "config.settings.watch"},
	}
}
