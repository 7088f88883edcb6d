package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
)

func audits() noun {
	return noun{
		name: "audit", short: "Who did what: the services' audit chains", service: auditService,
		long: "Who did what. Each service keeps a chain for the platform and one for each tenant; a chain is written platform,\n" +
			"<tenant> or the tenant's uid, and --service chooses whose.",
		columns: "SEQ=seq TIME=time PRINCIPAL=principal METHOD=method OUTCOME=outcome REFUSED=reason_code RESOURCES=resources REASON=reason",
		verbs: []verb{
			{
				name: "list", rpc: "ListEvents", short: "List a chain's events, the newest first", fields: []field{{"parent", chainForm}}, limit: 50,
				before:  resolveChain,
				example: "rowhouse audit list platform\nrowhouse audit list acme --service config",
			},
			{
				name: "get", rpc: "GetEvent", short: "Show one event", fields: named("chains/{chain}/events/{seq}"), wide: true, before: resolveChain,
				example: "rowhouse audit get acme 3",
			},
			{
				name: "verify", rpc: "VerifyChain", short: "Recompute a chain and say whether it is sound", fields: named(chainForm),
				before: resolveChain, show: showVerdict,
				long:    "Recompute a chain from its first event and say whether it is sound. Exit status 1 says that it is not.",
				example: "rowhouse audit verify platform\nrowhouse audit verify acme --service quota",
			},
		},
	}
}

// resolveChain puts a tenant's uid in the place of its id, by which chains are named.
func resolveChain(a *app, c *cobra.Command, r *call) error {
	if !slices.Contains(backends(), r.service) {
		return usagef("--service %s is none of %s%s", r.service, strings.Join(backends(), ", "), didYouMean(r.service, backends(), ""))
	}
	path := ruleOf(r.method).GetTarget()
	parts := strings.SplitN(targetOf(*r), "/", 3)
	if chain := parts[1]; chain != "platform" && uuid.Validate(chain) != nil {
		get := newCall(method("rowhouse.tenancy.v1.TenantService", "GetTenant"))
		get.request = &tenancyv1.GetTenantRequest{Name: "tenants/" + chain}
		response, err := a.do(c.Context(), c, get)
		if err != nil {
			return err
		}
		parts[1] = response.(*tenancyv1.GetTenantResponse).GetTenant().GetUid() //nolint:forcetypeassert // do answers with the method's type
	}
	return setField(r.request.ProtoReflect(), path, strings.Join(parts, "/"))
}

// showVerdict says whether a chain is sound; an unsound one is an error.
func showVerdict(a *app, c *cobra.Command, i *invocation) error {
	verdict := i.response.(*auditv1.VerifyChainResponse) //nolint:forcetypeassert // the verb's RPC
	i.noun.columns = "SOUND=sound EVENTS=events FIRST-BAD=first_bad_seq PROBLEM=problem HEAD=head"
	if err := i.write(a, c, verdict); err != nil {
		return err
	}
	if verdict.GetSound() {
		return nil
	}
	return fmt.Errorf("the chain is not sound: event %d: %s; keep the database as it is and compare with its backups",
		verdict.GetFirstBadSeq(), verdict.GetProblem())
}
