package cli

// noisyTenants asks quota, which knows what tenants took, and not tenancy.
func noisyTenants() verb {
	return verb{
		name: "noisy", rpc: "ListNoisyTenants", service: "rowhouse.quota.v1.ReportService",
		short: "Rank tenants by what they took beyond their share, with what to do",
		long: "Rank tenants by what they took beyond their share of requests, of the apps' time, of bytes or of the databases in\n" +
			"the last minutes, with how long others waited because of each, and one thing to do about it. A share is the weight of\n" +
			"the tenant's plan beside the weights of the others who wanted something. -o json shows each resource, by who\n" +
			"tells of it, with its trend and the bound of its error.",
		flags:   []flag{{path: "window", usage: "how far back to look, 1m to 1h (default 5m)"}},
		columns: "TENANT=tenant@tenants PLAN=plan@plans MODEL=model MOST=resource DELAYED=delay_caused ACTION=action WHY=reason DO=suggestion",
		limit:   20,
		example: "rowhouse tenants noisy\nrowhouse tenants noisy --window 30m -o json",
	}
}
