package cli

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
)

// noun is a kind of resource and what can be done with it.
type noun struct {
	name, short, long string
	// below is the noun under which it stands: "brand" in "rowhouse brand assets".
	below string
	// service is the gRPC service of its RPCs; columns are those of its tables: "HEADER=path", where "@collection"
	// takes the id after that collection out of a name.
	service, columns string
	verbs            []verb
}

// verb is one command. Most of it follows from its RPC: --etag, --reason, --dry-run, --request-id, --filter, --limit,
// --wait, --file and --confirm exist where the request or the response calls for them.
type verb struct {
	name, rpc, short, long, example string
	// service differs from the noun's.
	service string
	// fields are filled by the arguments, in order: a path in the request and the form of its value.
	fields []field
	flags  []flag
	// preset are fields with a value that is always sent.
	preset map[string]string
	// columns differ from the noun's; limit is the default of --limit, 0 for all.
	columns string
	limit   int
	// wide shows one resource field by field, for people.
	wide bool
	// before completes the request from what the arguments and flags gave; show writes the response. Both may be nil.
	before func(*app, *cobra.Command, *call) error
	show   func(*app, *cobra.Command, *invocation) error
	// more defines flags that are no field of the request; ownFile says that --file is one of them.
	more    func(*cobra.Command)
	ownFile bool
}

// serviceOf is the gRPC service of a verb's RPC.
func (n noun) serviceOf(v verb) string { return cmp.Or(v.service, n.service) }

// field is a field of a request that an argument fills.
type field struct{ path, form string }

// flag is a field of a request that a flag fills. Its name is the last part of the path, unless given.
type flag struct {
	path, usage string
	name, form  string
	required    bool
}

// flagName is what is typed behind "--".
func (f flag) flagName() string {
	return cmp.Or(f.name, strings.ReplaceAll(lastPart(f.path), "_", "-"))
}

const (
	tenantForm = "tenants/{tenant}"
	planForm   = "plans/{plan}"
	appForm    = "apps/{app}"
	cellForm   = "cells/{cell}"
	domainForm = "tenants/{tenant}/domains/{host}"
	limitForm  = "{layer}/limits/{limit}"
	configForm = "{layer}/config/{namespace}"
	chainForm  = "chains/{chain=platform}"
)

func named(form string) []field { return []field{{"name", form}} }

// nouns is the table of all nouns.
func nouns() []noun {
	return []noun{
		tenants(), domains(), plans(), apps(), migrations(), cells(), placements(), configs(), namespaces(), brands(),
		brandAssets(), brandDrafts(), clientKeys(), limits(), rateLimits(), quotas(), entitlements(),
		audits(), operations(), routes(), consumers(),
		keys(), featureFlags(),
		webhooks(), hooks(), brandMails(), configSecrets(), changes(), rollouts(), jobPolicies(),
		meters(), tenantsUsage(),
	}
}

func tenants() noun {
	flags := []flag{
		{path: "tenant.display_name", usage: "name for people"},
		{path: "tenant.parent", usage: "the tenant that it belongs to, as a reseller's customer does", form: tenantForm},
		{path: "tenant.plan", usage: "the plan", form: planForm},
		{path: "tenant.labels", usage: "free labels; they replace all that were there"},
		{path: "tenant.external_id", usage: "the tenant's id in your own systems"},
		{path: "tenant.delete_protection", usage: "refuse deletion"},
		{path: "tenant.loss_policy", usage: "what verifiers do without the control plane"},
	}
	placement := []flag{
		{path: "tenant.placement.model", usage: "how its rows are kept apart"},
		{path: "tenant.placement.cell", usage: "the cell that holds its data", form: cellForm},
	}
	cause := []flag{{path: "cause", usage: "the cause; resuming lifts just this one", required: true}}
	return noun{
		name: "tenants", short: "Customers' organisations", service: "rowhouse.tenancy.v1.TenantService",
		columns: "TENANT=name@tenants NAME=display_name PLAN=plan@plans STATE=state " +
			"MODEL=placement.model CELL=placement.cell@cells CREATED=create_time",
		verbs: []verb{
			{
				name: "list", rpc: "ListTenants", short: "List tenants",
				example: "rowhouse tenants list\nrowhouse tenants list --filter 'plan = \"plans/free\"' -o name\n" +
					"rowhouse tenants list --filter 'parent = \"tenants/acme\"'",
			},
			{
				name: "get", rpc: "GetTenant", short: "Show a tenant", fields: named(tenantForm), wide: true,
				example: "rowhouse tenants get acme\nrowhouse tenants get acme -o yaml",
			},
			{
				name: "lookup", rpc: "LookupTenant", short: "Find a tenant by its uid or your own id", fields: []field{{"key", "{key}"}}, wide: true,
				example: "rowhouse tenants lookup external:4711\nrowhouse tenants lookup uid:0198c5f0-7f4b-7cc1-8a5e-3f0f8f1e2d3c",
			},
			{
				name: "create", rpc: "CreateTenant", short: "Create a tenant", fields: []field{{"tenant_id", "{tenant}"}},
				flags: slices.Concat(flags, placement),
				example: "rowhouse tenants create initrode --display-name Initrode --plan business --external-id 4711\n" +
					"rowhouse tenants create soylent --plan enterprise --model database\n" +
					"rowhouse tenants create aviato --parent initrode",
			},
			{
				name: "update", rpc: "UpdateTenant", short: "Change a tenant, for example its plan", fields: []field{{"tenant.name", tenantForm}},
				flags:   flags,
				example: "rowhouse tenants update acme --plan enterprise\nrowhouse tenants update acme --delete-protection=false",
			},
			{
				name: "suspend", rpc: "SuspendTenant", short: "Refuse a tenant's calls everywhere, keep its data", fields: named(tenantForm),
				flags:   cause,
				example: "rowhouse tenants suspend acme --cause billing --reason \"an unpaid bill\" --confirm acme",
			},
			{
				name: "resume", rpc: "ResumeTenant", short: "Lift one cause of a suspension", fields: named(tenantForm), flags: cause,
				example: "rowhouse tenants resume acme --cause billing",
			},
			{
				name: "delete", rpc: "DeleteTenant", short: "Delete a tenant; it can be restored until its purge time", fields: named(tenantForm),
				example: "rowhouse tenants delete acme --reason \"end of contract\" --confirm acme",
			},
			{
				name: "undelete", rpc: "UndeleteTenant", short: "Restore a deleted tenant", fields: named(tenantForm),
				example: "rowhouse tenants undelete acme --reason \"deleted by mistake\"",
			},
			noisyTenants(),
		},
	}
}

func domains() noun {
	return noun{
		name: "domains", short: "Host names that lead to tenants", service: "rowhouse.tenancy.v1.DomainService",
		columns: "TENANT=name@tenants HOST=host STATE=state APP=app@apps VERIFIED=verify_time",
		verbs: []verb{
			{
				name: "list", rpc: "ListDomains", short: "List domains of a tenant, or of all", fields: []field{{"parent", "tenants/{tenant=-}"}},
				example: "rowhouse domains list\nrowhouse domains list acme",
			},
			{
				name: "get", rpc: "GetDomain", short: "Show a domain", fields: named(domainForm), wide: true,
				example: "rowhouse domains get acme notes.acme.localhost",
			},
			{
				name: "create", rpc: "CreateDomain", short: "Claim a host name for a tenant",
				fields:  []field{{"parent", tenantForm}, {"domain_id", "{host}"}},
				flags:   []flag{{path: "domain.app", usage: "the app that it leads to", form: appForm, required: true}},
				example: "rowhouse domains create acme notes.acme.example.com --app notes",
			},
			{
				name: "update", rpc: "UpdateDomain", short: "Lead a domain to another app", fields: []field{{"domain.name", domainForm}},
				flags:   []flag{{path: "domain.app", usage: "the app that it leads to", form: appForm}},
				example: "rowhouse domains update acme notes.acme.example.com --app notes",
			},
			{
				name: "verify", rpc: "VerifyDomain", short: "Declare a domain verified, so that it serves", fields: named(domainForm),
				example: "rowhouse domains verify acme notes.acme.example.com --reason \"TXT record seen\"",
			},
			{
				name: "delete", rpc: "DeleteDomain", short: "Take a host name from a tenant", fields: named(domainForm),
				example: "rowhouse domains delete acme notes.acme.example.com --confirm notes.acme.example.com",
			},
		},
	}
}

func plans() noun {
	flags := []flag{
		{path: "plan.display_name", usage: "name for people"},
		{path: "plan.allowed_models", usage: "the isolation models that its tenants may have"},
		{path: "plan.default_model", usage: "the model of tenants that ask for none"},
		{path: "plan.statement_timeout", usage: "longest time of one SQL statement"},
		{path: "plan.lock_timeout", usage: "longest wait for one lock"},
		{path: "plan.idle_transaction_timeout", usage: "longest idle time inside a transaction"},
		{path: "plan.retention", usage: "how long a deleted tenant can be restored"},
		{path: "plan.loss_policy", usage: "what verifiers do without the control plane"},
		{path: "plan.weight", usage: "what each tenant gets of what is shared, beside the others (1 to 1000, default 100)"},
	}
	n := noun{
		name: "plans", short: "Commercial tiers: the defaults of their tenants", service: "rowhouse.tenancy.v1.PlanService",
		columns: "PLAN=name@plans NAME=display_name MODELS=allowed_models STATEMENT=statement_timeout RETENTION=retention " +
			"LOSS=loss_policy WEIGHT=weight",
	}
	n.verbs = standard(standards{
		noun: "Plan", one: "plan", form: planForm, flags: flags, known: "free", id: "gold",
		create: "--display-name Gold --statement-timeout 10s", change: "--statement-timeout 20s", verbs: "list get create update delete",
	})
	return n
}

func apps() noun {
	n := noun{
		name: "apps", short: "Product services that store tenants' data", service: "rowhouse.tenancy.v1.AppService",
		columns: "APP=name@apps NAME=display_name BIT=audience_bit SERVICES=grpc_services HOSTS=shared_hosts",
	}
	n.verbs = standard(standards{
		noun: "App", one: "app", form: appForm, known: "notes", id: "crm",
		create: "--file app.yaml", change: "--file app.yaml", verbs: "list get create update delete",
		flags: []flag{
			{path: "app.display_name", usage: "name for people"},
			{path: "app.grpc_services", usage: "the gRPC services that the gateway forwards"},
			{path: "app.shared_hosts", usage: "hosts on which path or token name the tenant"},
		},
	})
	return n
}

func cells() noun {
	n := noun{
		name: "cells", short: "PostgreSQL clusters that hold tenants' data", service: "rowhouse.tenancy.v1.CellService",
		columns: "CELL=name@cells REGION=region STATE=state MODELS=models USED=used CAPACITY=capacity",
	}
	n.verbs = standard(standards{
		noun: "Cell", one: "cell", form: cellForm, known: "cell-1", id: "cell-2", verbs: "list get create update",
		create: "--region eu-central --credentials-ref secret://file/cell-2 --models shared,schema --capacity 500", change: "--state closed",
		flags: []flag{
			{path: "cell.region", usage: "the region; fixed at creation"},
			{path: "cell.credentials_ref", usage: "secret://file/{name}: the file with its connection string"},
			{path: "cell.models", usage: "the isolation models that it takes"},
			{path: "cell.capacity", usage: "how many tenants it takes"},
			{path: "cell.state", usage: "whether it takes new tenants"},
		},
	})
	return n
}

func placements() noun {
	return noun{
		name: "placements", short: "Where tenants' data lives", service: "rowhouse.tenancy.v1.PlacementService",
		columns: "APP=app@apps STATE=state DATABASE=database SCHEMA=schema MIGRATION=migration@migrations RECONCILING=reconciling " +
			"WHY=last_error.message",
		verbs: []verb{{
			name: "get", rpc: "GetPlacement", short: "Show where a tenant's data lives, app by app",
			long: "Show where a tenant's data lives: a row for each app. -o json and -o yaml print the whole placement, with the\n" +
				"tenant's model, cell and generation.",
			fields: named("tenants/{tenant}/placement"), show: showPlacement, example: "rowhouse placements get acme",
		}},
	}
}

// showPlacement prints a row for each app, and the placement for programs that ask for it.
func showPlacement(a *app, c *cobra.Command, i *invocation) error {
	m := i.response.(*tenancyv1.GetPlacementResponse).GetPlacement() //nolint:forcetypeassert // the verb's RPC
	if format := a.formatFor(c); format != formatTable && format != formatTSV {
		return i.write(a, c, m)
	}
	p, apps := a.printer(c, i.noun.columns), m.ProtoReflect()
	return errors.Join(p.rowsOf(apps.Get(fieldAt(apps.Descriptor(), "apps")).List()), p.close())
}

func limits() noun {
	return noun{
		name: "limits", short: "Limits of plans and tenants", service: "rowhouse.quota.v1.LimitService",
		long: "Limits by layer: a tenant's limit replaces its plan's of the same id, and a plan's the platform's.\n" +
			"All limits of a resource that match a call are charged together, or none is.\n" +
			"A layer is written platform, plans/<plan> or <tenant>. Matches and costs are set with --file.",
		columns: "LIMIT=name@limits RESOURCE=resource KIND=kind TOKENS=tokens PERIOD=period BURST=burst BY=dimensions MODE=mode " +
			"LOSS=on_store_loss ENDS=expire_time UPDATED=update_time",
		verbs: []verb{
			{
				name: "list", rpc: "ListLimits", short: "List the limits that a layer sets", fields: []field{{"parent", "{layer}"}},
				example: "rowhouse limits list plans/free\nrowhouse limits list acme",
			},
			{
				name: "get", rpc: "GetLimit", short: "Show a limit that a layer sets", fields: named(limitForm), wide: true,
				example: "rowhouse limits get plans/free requests",
			},
			{
				name: "set", rpc: "UpdateLimit", short: "Set a limit, in force within a second", fields: []field{{"limit.name", limitForm}},
				preset: map[string]string{"allow_missing": "true"},
				flags: []flag{
					{path: "limit.tokens", usage: "tokens per period; 0 refuses everything"},
					{path: "limit.period", usage: "the period"},
					{path: "limit.burst", usage: "how many an idle tenant may spend at once"},
					{path: "limit.on_store_loss", usage: "what happens while quota cannot be reached"},
					{path: "limit.kind", usage: "what it bounds; fixed once it is made"},
					{path: "limit.resource", usage: "what is spent, such as bytes-out; the limit's id when empty"},
					{path: "limit.scope", usage: "who shares what is left"},
					{path: "limit.dimensions", usage: "what has a cell for each of its values, such as user,route"},
					{path: "limit.mode", usage: "whether it refuses"},
					{path: "limit.on_change", usage: "what becomes of what is spent when it changes"},
					{path: "limit.expire_time", usage: "when it ends by itself"},
					{path: "limit.max_cells", usage: "how many values of its dimensions there may be at a time"},
				},
				example: "rowhouse limits set acme requests --tokens 500 --period 1s --burst 1000\n" +
					"rowhouse limits set plans/free per-user --resource requests --dimensions user --tokens 10 --period 1s --mode shadow",
			},
			{
				name: "delete", rpc: "DeleteLimit", short: "Remove a limit, so that the layer above holds", fields: named(limitForm),
				example: "rowhouse limits delete acme requests --confirm requests",
			},
			{
				name: "explain", rpc: "ExplainLimits", short: "Show which limits hold for a tenant, and why", fields: []field{{"parent", tenantForm}},
				flags: []flag{
					{path: "resource", usage: "only what a call of this resource is charged to"},
					{path: "dimensions", usage: "of the call, such as method=POST,route=notes"},
				},
				columns: "LIMIT=limit.name@limits RESOURCE=limit.resource TOKENS=limit.tokens PERIOD=limit.period BURST=limit.burst COST=cost " +
					"FROM=source REPLACES=shadowed ENDED=expired",
				example: "rowhouse limits explain acme\nrowhouse limits explain acme --resource requests --dimensions method=POST",
			},
		},
	}
}

func namespaces() noun {
	n := noun{
		name: "namespaces", short: "Sets of settings with one schema", service: "rowhouse.config.v1.NamespaceService",
		columns: "NAMESPACE=name@namespaces CREATED=create_time UPDATED=update_time",
	}
	n.verbs = standard(standards{
		noun: "Namespace", one: "namespace", form: "namespaces/{namespace}", known: "brand", id: "portal",
		create: "--schema-file schema.json", change: "--schema-file schema.json",
		verbs: "list get create update delete", more: schemaFlag, before: readSchema, flags: []flag{
			{path: "namespace.approval.layers", name: "approval-layers", usage: "whose documents need approval: platform, plan, region, tenant, " +
				"environment, environments/<environment>; empty for none"},
			{path: "namespace.approval.count", name: "approval-count", usage: "how many must approve, 1 to 3 (default 1)"},
		},
	})
	for i, v := range n.verbs {
		if v.name == "update" {
			n.verbs[i].flags = append(slices.Clone(v.flags),
				flag{path: "overrides", usage: "what becomes of values that a new lock or clamp is against (default refuse)"})
		}
	}
	return n
}

func routes() noun {
	return noun{
		name: "routes", short: "How the gateway treats requests", service: "rowhouse.gateway.v1.EdgeService",
		columns: "OUTCOME=outcome REASON=reason HOST=host TENANT=tenant " +
			"NAMED-BY=named_by APP=app UPSTREAM=upstream PATH=upstream_path TABLE=source",
		verbs: []verb{{
			name: "explain", rpc: "ExplainRoute", short: "Tell what the gateway would do with a request, and why", wide: true,
			fields: []field{{"host", "{host}"}}, flags: []flag{{path: "path", usage: "the path (default /)"}}, before: splitURL,
			example: "rowhouse routes explain notes.acme.localhost\nrowhouse routes explain https://rowhouse.localhost/t/globex/notes",
		}},
	}
}

func consumers() noun {
	return noun{
		name: "consumers", short: "Processes that follow tenancy's feeds", service: "rowhouse.tenancy.v1.RoutingService",
		columns: "REPLICA=replica IDENTITY=identity FEED=feed REVISION=applied_revision QUARANTINED=quarantined REPORTED=report_time",
		verbs: []verb{{
			name: "list", rpc: "ListConsumers", short: "List who follows which feed, and how far they are", example: "rowhouse consumers list",
		}},
	}
}

func keys() noun {
	return noun{
		name: "keys", short: "Keys that sign tenant contexts", service: "rowhouse.tenancy.v1.ContextService",
		columns: "KEY=name@contextKeys MINTER=minter HOLDER=spiffe_id CELLS=cells UNTIL=not_after REVOKED=revoke_time",
		verbs: []verb{
			{name: "list", rpc: "ListContextKeys", short: "List the keys", example: "rowhouse keys list"},
			{
				name: "revoke", rpc: "RevokeContextKey", short: "Revoke a key: what it signed is refused within a second",
				fields:  named("contextKeys/{key-id}"),
				example: "rowhouse keys revoke 00112233445566ff --reason \"disk stolen\" --confirm 00112233445566ff",
			},
		},
	}
}
