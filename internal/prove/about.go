package prove

// The sections, for readers who do not know Rowhouse.
//
//nolint:gochecknoglobals // constants of a type that cannot be one
var (
	aboutRung = About{
		ID: "rung", Title: "The database itself verifies the tenant", Threats: []string{"A0", "A1", "A2", "A3"},
		Shows: "Each tenant's context carries a seal that was made where the tenant was established, at the edge, with a key that no product " +
			"service holds. PostgreSQL checks it before it shows a row. The rung says how: both hold against stolen passwords and injected SQL.",
		Limits: "That the functions which are installed hold: the attacks show that.",
	}
	aboutCatalog = About{
		ID: "catalog", Title: "Every table, view and function of the app is behind row security", Threats: []string{"A0", "A1", "A2"},
		Shows: "PostgreSQL's own catalogs were read and compared with rules (docs/catalog-audit.md): row security enabled and forced on " +
			"every tenant table, a restrictive policy on the tenant, keys that pair the tenant, no view, function, trigger or partition around it.",
		Limits: "That the defences hold, or were in place yesterday: it sees what is in place at this moment.",
	}
	aboutGrants = About{
		ID: "grants", Title: "The app's role has no right that row security does not bind", Threats: []string{"A1", "A2", "A3"},
		Shows: "Roles, memberships, rights on the database and on PostgreSQL's functions, and schema rowhouse, compared with what this " +
			"release ships. The tables list who the roles are and what they may do.",
		Limits: "What operators and superusers do: they pass row security by design. Findings marked accepted are risks that somebody " +
			"took: on a managed PostgreSQL some rights are not ours to take away.",
	}
	aboutVersions = About{
		ID: "versions", Title: "The server has the fixes and runs durably", Threats: []string{"A1", "A2"},
		Shows:  "The release of PostgreSQL is not below those that closed published holes in row security, and what it acknowledges survives.",
		Limits: "Holes that were published after this release of Rowhouse.",
	}
	aboutSQLLint = About{
		ID: "sql-lint", Title: "The source sends no SQL that could cross tenants", Threats: []string{"A0", "A1"},
		Shows: "Go source and migrations were read by rowlint: all SQL on tenants' tables goes through the SDK and is constant, and nothing " +
			"sets the context, the role, or what outlives a transaction.",
		Limits: "That what is deployed was built from this source. What is suppressed has its reason in the source.",
	}
	aboutPlanLint = About{
		ID: "plan-lint", Title: "Every statement is planned within its tenant", Threats: []string{"A0"},
		Shows: "Every statement of the source was planned by PostgreSQL as the app's role, on the app's migrations: each scan of a tenant " +
			"table is bounded by the tenant in an index, so that no tenant's size or data changes another's answers or speed.",
		Limits: "Plans by production's statistics: the tenants are generated, one huge and many small.",
	}
	aboutCorpus = About{
		ID: "corpus", Title: "Attacks by SQL reach no other tenant", Threats: []string{"A0", "A1", "A2"},
		Shows: "Attacks were made on scratch databases, in each isolation model: injection into a statement, any SQL with the app's stolen " +
			"password, forged and stale seals, leftovers on pooled sessions, oracles, careless migrations. None read, wrote, entered or told " +
			"anything of another tenant's, but for what is marked accepted: limits that are written down (docs/isolation-attacks.md). Where " +
			"a superuser ran it, the same attacks were made on the usual recipe (row security on a plain " +
			"setting), which falls to many of them: that is how one sees that they are real.",
		Limits: "Attacks that nobody has thought of. Availability: who has the app's password may hold locks and sleep, within time-outs.",
	}
	aboutAPI = About{
		ID: "api", Title: "Attacks by API reach no other tenant", Threats: []string{"A0", "A3"},
		Shows: "One tenant called every method of a gRPC service with another's ids in every field, with its request ids, with the very " +
			"bytes that it had just sent, and listened while it wrote; then with no context, and with expired, captured and foreign ones. " +
			"Answers were compared with those for what never existed; they and the logs were searched for planted secrets. The same attacks " +
			"were made on a leaky server, which believes anybody and has no row security below: a kind that catches nothing there fails.",
		Limits: "The service is the example app, on scratch databases; kinds of attack to which it gives no hold are named with the control. " +
			"A product's own service is attacked by its tests, in one call (sdk/tenanttest/apiattack).",
	}
	aboutPooler = About{
		ID: "pooler", Title: "Pooled connections carry nothing from tenant to tenant", Threats: []string{"A0"},
		Shows: "Many tenants shared two connections through PgBouncer in transaction mode. Transactions were cancelled, panicked, ran out of " +
			"time and failed in the middle; none saw a row of another tenant, and no sound one failed for what another left behind. The " +
			"recipe that keeps the tenant in the session was run beside it, and crosses.",
		Limits: "What a longer load would; the test suite has one of 100,000 transactions.",
	}
)

// word is one that the report uses without saying each time what it means.
type word struct{ Word, Means string }

// words explains them to readers who do not know Rowhouse.
func words() []word {
	return []word{
		{"A0", "A mistake: a query without its filter, a call without its tenant, state left on a pooled connection."},
		{"A1", "Somebody who injects into one SQL statement."},
		{"A2", "Somebody who sends any SQL as the application: a stolen password, a hostile dependency."},
		{"A3", "Somebody who runs code in the product service: they reach the tenants it serves, while their contexts live, and no others."},
		{"Shared, schema, database", "Where a tenant's rows live: in tables that tenants share, in a schema or in a database of its own."},
		{"Usual recipe", "Row security that trusts a plain setting: what tutorials show. It is attacked beside ours for comparison."},
		{"L2a, L2b", "The rungs: how the database verifies the tenant by a seal that no product service can make: in each policy (L2a), " +
			"or once a transaction, kept where the application cannot write (L2b)."},
		{"Accepted", "A finding that is a risk which somebody took, by the command line, or one that is written down in the " +
			"product's documents."},
		{"Control", "The same attacks where nothing holds them. One that catches nothing there shows nothing elsewhere, and fails."},
	}
}

// Sections returns what the sections are, in the order of the report.
func Sections() []About {
	return []About{aboutRung, aboutCatalog, aboutGrants, aboutVersions, aboutSQLLint, aboutPlanLint, aboutAPI, aboutCorpus, aboutPooler}
}
