package cli

func jobPolicies() noun {
	const form = appForm + "/jobPolicies/{kind}"
	flags := []flag{
		{path: "job_policy.scopes", usage: "bit set of the scopes that jobs of this kind may have, of those that their origins have"},
		{path: "job_policy.contexts_per_minute", usage: "how many contexts the app gets for one tenant in a minute"},
		{path: "job_policy.tenants_per_minute", usage: "for how many tenants it gets contexts within a minute"},
		{path: "job_policy.max_origin_age", usage: "how old the call may be in which a job was asked for, up to 7 days: 86400s"},
	}
	return noun{
		name: "job-policies", short: "Kinds of jobs that apps may run for tenants", service: "rowhouse.tenancy.v1.JobPolicyService",
		long: "Kinds of jobs that apps may run for tenants in the background. For jobs of a declared kind tenancy makes contexts,\n" +
			"never wider than the call was in which the job was asked for; for others it makes none.",
		columns: "KIND=name@jobPolicies APP=name@apps SCOPES=scopes CONTEXTS=contexts_per_minute TENANTS=tenants_per_minute " +
			"AGE=max_origin_age",
		verbs: []verb{
			{
				name: "list", rpc: "ListJobPolicies", short: "List an app's kinds of jobs", fields: []field{{"parent", appForm}},
				example: "rowhouse job-policies list notes",
			},
			{
				name: "get", rpc: "GetJobPolicy", short: "Show what is declared for a kind of job", fields: named(form), wide: true,
				example: "rowhouse job-policies get notes import",
			},
			{
				name: "set", rpc: "UpdateJobPolicy", short: "Declare a kind of job, or change what is declared",
				fields: []field{{"job_policy.name", form}}, flags: flags, preset: map[string]string{"allow_missing": "true"},
				example: "rowhouse job-policies set notes import --contexts-per-minute 60\n" +
					"rowhouse job-policies set notes export --max-origin-age 86400s",
			},
			{
				name: "delete", rpc: "DeleteJobPolicy", short: "Withdraw a kind of job: jobs of it stand still", fields: named(form),
				example: "rowhouse job-policies delete notes export --confirm export",
			},
		},
	}
}
