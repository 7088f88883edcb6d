package cli

const (
	quotaForm       = "{layer}/quotas/{quota}"
	tenantQuotaForm = "tenants/{tenant}/quotas/{quota}"
	entitlementForm = "{layer}/entitlements/{feature}"
)

func quotas() noun {
	const usage = "QUOTA=name@quotas LIMIT=limit USED=used HELD=held FREE=free OVER=overage FROM=source UNTIL=period_end"
	tenantQuota := func(v verb) verb {
		v.fields = []field{{"name", tenantQuotaForm}}
		return v
	}
	return noun{
		name: "quotas", short: "Durable quotas: seats, projects, GB, calls a month", service: "rowhouse.quota.v1.QuotaService",
		long: "Durable quotas by layer: a tenant's quota replaces its plan's of the same id, and a plan's the platform's.\n" +
			"A layer is written platform, plans/<plan> or <tenant>. What tenants used survives any crash.",
		columns: "QUOTA=name@quotas AMOUNT=amount PERIOD=period OVERAGE=overage SHARED=shared_with_children UPDATED=update_time",
		verbs: []verb{
			{
				name: "list", rpc: "ListQuotas", short: "List the quotas that a layer sets", fields: []field{{"parent", "{layer}"}},
				example: "rowhouse quotas list plans/free\nrowhouse quotas list acme",
			},
			{
				name: "get", rpc: "GetQuota", short: "Show a quota that a layer sets", fields: named(quotaForm), wide: true,
				example: "rowhouse quotas get acme seats",
			},
			{
				name: "set", rpc: "UpdateQuota", short: "Set a quota, in force with the next reservation", fields: []field{{"quota.name", quotaForm}},
				preset: map[string]string{"allow_missing": "true"},
				flags: []flag{
					{path: "quota.amount", usage: "how much there is in each period"},
					{path: "quota.period", usage: "when what was used starts over"},
					{path: "quota.anchor_day", usage: "the day on which a month begins, 1 to 31"},
					{path: "quota.anchor_hour", usage: "the hour at which a period begins, UTC"},
					{path: "quota.overage", usage: "what happens to what is more than the amount"},
					{path: "quota.grace_percent", usage: "by how many percent grace lets it be exceeded"},
					{path: "quota.grace_duration", usage: "for how long grace lets it be exceeded"},
					{path: "quota.throttle_amount", usage: "how much more is let through in each throttle period"},
					{path: "quota.throttle_period", usage: "the throttle's period"},
					{path: "quota.late_commit", usage: "what a commit does when its reservation ran out"},
					{path: "quota.on_change", usage: "what becomes of a running period when another amount holds"},
					{path: "quota.thresholds", usage: "the percents at which a notice is given"},
					{path: "quota.meter", usage: "the meter that counts what is committed", form: "meters/{meter}"},
					{path: "quota.shared_with_children", usage: "whether a tenant's children take from it"},
				},
				example: "rowhouse quotas set acme seats --amount 20 --thresholds 80,100\n" +
					"rowhouse quotas set acme exports --amount 1000 --period month --anchor-day 31 --overage allow-and-bill",
			},
			{
				name: "delete", rpc: "DeleteQuota", short: "Remove a quota, so that the layer above holds", fields: named(quotaForm),
				example: "rowhouse quotas delete acme exports --confirm exports",
			},
			tenantQuota(verb{
				name: "usage", rpc: "GetQuotaUsage", short: "Show what a tenant has used of a quota", wide: true, columns: usage,
				example: "rowhouse quotas usage acme seats",
			}),
			{
				name: "explain", rpc: "ExplainQuotas", short: "Show which quotas hold for a tenant, and what is left", columns: usage,
				fields: []field{{"parent", tenantForm}}, example: "rowhouse quotas explain acme",
			},
			tenantQuota(verb{
				name: "adjust", rpc: "AdjustQuota", short: "Add to what a tenant may use in this period", wide: true, columns: usage,
				flags:   []flag{{path: "delta", usage: "how much is added; less than 0 to take away", required: true}},
				example: "rowhouse quotas adjust acme seats --delta 5 --reason \"promised in ticket 4711\"",
			}),
			tenantQuota(verb{
				name: "set-usage", rpc: "SetUsage", short: "Say how much a tenant uses in truth", wide: true, columns: usage,
				flags:   []flag{{path: "used", usage: "how much it is", required: true}},
				example: "rowhouse quotas set-usage acme seats --used 3 --reason \"counted in the app\"",
			}),
			{
				name: "erase", rpc: "EraseTenant", short: "Erase what quota keeps for a deleted tenant", fields: named(tenantForm), wide: true,
				example: "rowhouse quotas erase acme --reason \"the contract ended\" --confirm acme",
			},
		},
	}
}

func entitlements() noun {
	return noun{
		name: "entitlements", short: "Which features come with plans and tenants", service: "rowhouse.quota.v1.EntitlementAdminService",
		long: "Entitlements by layer: a tenant's entitlement replaces its plan's of the same id, and a plan's the platform's.\n" +
			"A layer is written platform, plans/<plan> or <tenant>.",
		columns: "FEATURE=name@entitlements KIND=kind ENABLED=enabled VALUE=value QUOTA=quota EXPIRES=expire_time",
		verbs: []verb{
			{
				name: "list", rpc: "ListLayerEntitlements", short: "List the entitlements that a layer sets", fields: []field{{"parent", "{layer}"}},
				example: "rowhouse entitlements list plans/free",
			},
			{
				name: "get", rpc: "GetEntitlement", short: "Show an entitlement that a layer sets", fields: named(entitlementForm), wide: true,
				example: "rowhouse entitlements get plans/free sso",
			},
			{
				name: "set", rpc: "UpdateEntitlement", short: "Set an entitlement", fields: []field{{"entitlement.name", entitlementForm}},
				preset: map[string]string{"allow_missing": "true"},
				flags: []flag{
					{path: "entitlement.kind", usage: "what it says"},
					{path: "entitlement.enabled", usage: "of boolean: whether the tenant has the feature"},
					{path: "entitlement.value", usage: "of static: a JSON value"},
					{path: "entitlement.quota", usage: "of metered: the id of a quota"},
					{path: "entitlement.expire_time", usage: "when it ends"},
				},
				example: "rowhouse entitlements set plans/free sso --kind boolean --enabled=false\n" +
					"rowhouse entitlements set acme sso --kind boolean --enabled\n" +
					"rowhouse entitlements set plans/free exports --kind static --value '{\"formats\":[\"csv\"]}'",
			},
			{
				name: "delete", rpc: "DeleteEntitlement", short: "Remove an entitlement, so that the layer above holds", fields: named(entitlementForm),
				example: "rowhouse entitlements delete acme sso --confirm sso",
			},
			{
				name: "explain", rpc: "ExplainEntitlements", short: "Show what a tenant is entitled to, and why",
				fields: []field{{"parent", tenantForm}},
				columns: "FEATURE=entitlement.name@entitlements KIND=entitlement.kind ENABLED=entitlement.enabled VALUE=entitlement.value " +
					"LEFT=usage.free FROM=source REPLACES=shadowed",
				example: "rowhouse entitlements explain acme",
			},
		},
	}
}
