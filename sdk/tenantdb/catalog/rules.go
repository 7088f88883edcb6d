package catalog

import "slices"

// Severity is how bad a finding is.
type Severity string

// The severities, as SARIF names them.
const (
	// Error lets an application past a defence, or takes a promise back.
	Error Severity = "error"
	// Warning costs speed, tells a volume, or will be in the way later.
	Warning Severity = "warning"
	// Note is for the record.
	Note Severity = "note"
)

// Area is what a rule looks at, and so who can break it.
type Area string

// The areas of rules.
const (
	// Tables are relations, functions, types and schemas of the app: what migrations make.
	Tables Area = "tables"
	// Platform is what cell.Init sets up: roles, rights on the database and on
	// PostgreSQL's own functions, schema rowhouse.
	Platform Area = "platform"
	// Server is how the server runs: its release, durability, TLS.
	Server Area = "server"
)

// Rule is one thing that an audit looks for.
type Rule struct {
	// ID is R01 to R42; ids are stable and never used again.
	ID string `json:"id"`
	// Title is a few words that name the fault.
	Title string `json:"title"`
	// Severity is that of its findings. A finding of R10 may be a [Note].
	Severity Severity `json:"severity"`
	// Area says what the rule looks at.
	Area Area `json:"area"`
	// Description says what can happen, and what is right.
	Description string `json:"description"`
}

// RuleOf returns the rule with an id.
func RuleOf(id string) (Rule, bool) {
	rules := Rules()
	i := slices.IndexFunc(rules, func(r Rule) bool { return r.ID == id })
	if i < 0 {
		return Rule{}, false
	}
	return rules[i], true
}

// Rules returns all rules in the order of their ids.
func Rules() []Rule { return slices.Concat(rulesTo14(), rulesTo28(), rulesTo42()) }

// rulesTo14 are R01 to R14.
func rulesTo14() []Rule {
	return []Rule{
		{
			"R01", "Row security is not enabled", Error, Tables,
			"Every table with the tenant column has row security enabled, or everybody with a right on it sees everybody's " +
				"rows.",
		},
		{
			"R02", "Row security is not forced", Error, Tables,
			"Without FORCE the owner passes its policies: backfills, and functions that run with the owner's rights, see all " +
				"tenants.",
		},
		{
			"R03", "No restrictive policy on the tenant", Error, Tables,
			"A policy that is RESTRICTIVE, FOR ALL and TO PUBLIC compares the tenant column with the context and nothing " +
				"else. Permissive policies are OR-ed, so a later one could widen them; it cannot widen a restrictive one.",
		},
		{
			"R04", "The policy on the tenant does not check new rows", Error, Tables,
			"WITH CHECK is written out and is the same as USING, so that no row can be written into another tenant.",
		},
		{
			"R05", "A permissive policy ignores the tenant", Error, Tables,
			"A permissive policy that does not ask for the context lets every row through where no restrictive policy binds " +
				"it for that command.",
		},
		{
			"R06", "The context function is not STABLE", Error, Platform,
			"An IMMUTABLE one is folded into prepared statements, which then serve the first tenant to all; a VOLATILE one " +
				"keeps policies from using indexes.",
		},
		{
			"R07", "The app role has an attribute of power", Error, Platform,
			"The app's roles, and all that they can become, have neither SUPERUSER, BYPASSRLS, CREATEROLE, CREATEDB nor " +
				"REPLICATION.",
		},
		{
			"R08", "The app role can become a predefined role", Error, Platform,
			"Roles such as pg_read_all_data reach past grants, and some past row security.",
		},
		{
			"R09", "A tenant table is not its owner's", Error, Tables,
			"Tables of tenants and views above them belong to the owner role, which nobody logs in as. The app owns none and " +
				"cannot become their owner, who may drop policies.",
		},
		{
			"R10", "A unique index lacks the tenant column", Error, Tables,
			"Its conflicts tell whether another tenant has a value. A UUID alone is a note: it is not guessed.",
		},
		{
			"R11", "A foreign key does not pair the tenant columns", Error, Tables,
			"Checks of foreign keys pass row security: without the tenant column on both sides a row may hang on another " +
				"tenant's.",
		},
		{
			"R12", "An index does not lead with the tenant column", Warning, Tables,
			"Row security adds the tenant to every query, so other indexes read everybody's entries, and EXPLAIN ANALYZE " +
				"counts them.",
		},
		{
			"R13", "A view has its owner's rights", Error, Tables,
			"A view over tenants' tables that the app reaches, itself or through other views, has security_invoker.",
		},
		{
			"R14", "A materialized view holds tenants' rows", Error, Tables,
			"Materialized views have no row security: the app reaches none that was made of tenants' tables.",
		},
	}
}

// rulesTo28 are R15 to R28.
func rulesTo28() []Rule {
	return []Rule{
		{
			"R15", "The app may call a function with its owner's rights", Error, Tables,
			"SECURITY DEFINER functions in reach of the app are on a list, and pin their search_path.",
		},
		{
			"R16", "A partition or child is reached past its parent", Error, Tables,
			"Policies are those of the table that a query names: the app has no rights on partitions, and none on a parent " +
				"that lacks the tenant column of its children.",
		},
		{
			"R17", "A right that row security does not bind", Error, Tables,
			"TRUNCATE, REFERENCES, TRIGGER and MAINTAIN act on all tenants' rows.",
		},
		{
			"R18", "The app may create objects", Error, Tables,
			"With CREATE on a schema or the database the app could shadow names and make objects that it owns.",
		},
		{
			"R19", "The app may create temporary tables", Error, Platform,
			"They outlive a transaction on a pooled session and shadow names. Rights of PUBLIC on the database are R35.",
		},
		{
			"R20", "The app may use a procedural language", Error, Platform,
			"With one, DO runs any code inside one statement. On rung L2a without a superuser this right is not ours to take, " +
				"and is reported as accepted.",
		},
		{
			"R21", "The app may call a dangerous function", Error, Platform,
			"Functions of PostgreSQL that change settings inside a statement, stop or watch other sessions, signal to them, " +
				"write large objects, take the advisory locks of moves, or tell how much others hold and do (one finding for " +
				"all of those). On rung L2a without a superuser as R20.",
		},
		{
			"R22", "Statements of others can be read", Error, Platform,
			"pg_stat_statements shows all tenants' statements, with literals.",
		},
		{
			"R23", "The tenant column may be null", Error, Tables,
			"A row without a tenant belongs to nobody and is found by no policy, erase or export.",
		},
		{
			"R24", "The app may use a sequence", Warning, Tables,
			"A sequence's next value tells how much others write.",
		},
		{
			"R25", "The app reaches rows that no tenant owns", Error, Tables,
			"A table without the tenant column that the app reaches is the same for all tenants and says so: its comment " +
				"begins with tenancy:global.",
		},
		{
			"R26", "A role or database presets what a session sees", Error, Platform,
			"No setting of the app's roles or of the database presets the carrier of the tenant, row_security, search_path, " +
				"role or session_replication_role. The app's own login has the settings that cell.Init makes in the database and " +
				"no others: PostgreSQL lets a login make settings for itself, and so lets who stole its password. Timeouts may " +
				"be of any length.",
		},
		{
			"R27", "A foreign table holds tenants' rows", Error, Tables,
			"Foreign tables have no row security: the app reaches none with the tenant column.",
		},
		{
			"R28", "A publication has no row filter", Warning, Tables,
			"It streams the rows of every tenant to whoever subscribes.",
		},
	}
}

// rulesTo42 are R29 to R42.
func rulesTo42() []Rule {
	return []Rule{
		{
			"R29", "The replica identity lacks the tenant column", Warning, Tables,
			"Changes of such a table cannot be told apart by tenant, so a move stops at it.",
		},
		{
			"R30", "An operator class is not leakproof", Warning, Tables,
			"Behind row security the planner uses an index only for leakproof operators; this one is read in full by every " +
				"query.",
		},
		{
			"R31", "A trigger runs with its owner's rights", Error, Tables,
			"A SECURITY DEFINER trigger on a tenant table acts past the policies.",
		},
		{
			"R32", "The server lacks security fixes", Error, Server,
			"Each supported major has a floor: the first release with all known fixes of row security. See Floors and " +
				"Advisories.",
		},
		{
			"R33", "An identity column", Warning, Tables,
			"It counts over all tenants; keys are UUIDs of version 7.",
		},
		{
			"R34", "A policy asks for the context once per row", Warning, Tables,
			"Called in a scalar sub-select it is asked once per statement.",
		},
		{
			"R35", "Everybody has rights on the database", Error, Platform,
			"PUBLIC has CONNECT and TEMPORARY on a new database, and on a clone: rights are no part of a template.",
		},
		{
			"R36", "The carrier of the tenant is open", Error, Platform,
			"The setting that carries the verified tenant is preset nowhere, and nobody but the owner of schema rowhouse may " +
				"set it.",
		},
		{
			"R37", "Schema rowhouse is not as shipped", Error, Platform,
			"Owners, grants and bodies of what verifies the tenant are those of this release.",
		},
		{
			"R38", "A function was marked LEAKPROOF", Error, Server,
			"The planner runs leakproof functions before policies. In a database with more than one tenant only PostgreSQL's " +
				"own marks stand.",
		},
		{
			"R39", "A type in a tenant schema", Warning, Tables,
			"Enums, domains and composite types have another number in every schema, which breaks cached statements in the " +
				"SCHEMA model.",
		},
		{
			"R40", "Durability or TLS is off", Error, Server,
			"fsync and synchronous_commit are on, and a server that listens on the network has TLS. Judged by the settings: " +
				"sessions come and go. Settings of the app's role are of R26.",
		},
		{
			"R41", "A tenant's own schema takes other tenants' rows", Error, Tables,
			"The policies bind rows to the caller, not to the schema: each table with the tenant column in a schema t_<uid> has " +
				"the constraint tenant_home, which takes that tenant's rows only.",
		},
		{
			"R42", "A query's own clause may come before a policy", Error, Platform,
			"The planner sorts clauses by their cost, and one that fails or sleeps would tell of rows which the policy has yet to " +
				"hide. cell.Init makes the policies' comparison of UUIDs the cheapest, and has the app's sessions begin with " +
				"cpu_operator_cost = 0, by which policies come first. On rung L2a without a superuser as R20.",
		},
	}
}

// Advisory is a published hole that reached past row security, by the first sound release of each major.
type Advisory struct {
	// CVE is its number, and Title what was wrong.
	CVE, Title string
	// Fixed holds, by major, the minor that fixed it; of [Floors], a major that is not in it never had it.
	Fixed map[int]int
}

// Floors are, by major, the minors from which on a server is sound. They are newer than all of [Advisories]
// and are raised with each release of Rowhouse.
func Floors() map[int]int { return map[int]int{15: 18, 16: 14, 17: 10, 18: 4} }

// Advisories are the holes in or around row security that the floors close.
func Advisories() []Advisory {
	return []Advisory{
		{"CVE-2023-2455", "row security ignores a change of role after inlining", map[int]int{15: 3}},
		{"CVE-2023-39418", "MERGE does not enforce UPDATE and SELECT policies", map[int]int{15: 4}},
		{"CVE-2024-4317", "pg_stats_ext shows statistics of others' rows; old clusters need its script", map[int]int{15: 7, 16: 3}},
		{"CVE-2024-10976", "row security below sub-queries ignores a change of role", map[int]int{15: 9, 16: 5, 17: 1}},
		{"CVE-2025-8713", "optimizer statistics show sampled values behind a view, partition or child", map[int]int{15: 14, 16: 10, 17: 6}},
		{"CVE-2026-2004", "intarray runs code through an unchecked operator argument", map[int]int{15: 16, 16: 12, 17: 8, 18: 2}},
	}
}
