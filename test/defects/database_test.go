package defects

import (
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
)

// database is a defence in PostgreSQL.
type database struct {
	// defence is what is taken away, by sql and by edits of functions.
	defence string
	sql     string
	edits   []edit
	// rung and model are where it is tried: L2b and SHARED when they are zero.
	rung  cell.Rung
	model tenant.Model
	// undo puts back what belongs to the server.
	undo string
	// red is one of the checks that must cry: an attack of the corpus, or a rule of the audit.
	red string
}

// edit is text of a function's definition that is replaced.
type edit struct{ function, from, to string }

const (
	enter   = "rowhouse.enter(bytea)"
	checked = "rowhouse.enter_checked(bytea)"
	genuine = "rowhouse.genuine(bytea, timestamptz)"
	current = "rowhouse.tenant_id()"
	secure  = "rowhouse.secure(regclass)"

	tenantPolicy = "DROP POLICY tenant ON app.note; CREATE POLICY tenant ON app.note AS RESTRICTIVE "
	ownRows      = "USING (tenant_id = (SELECT rowhouse.tenant_id())) "
)

// give returns rights on functions of PostgreSQL to everybody, by a pattern of their names.
func give(pattern string) string {
	return `DO $$ DECLARE f regprocedure; BEGIN
	FOR f IN SELECT oid FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND proname ~ '^(` + pattern + `)$' LOOP
		EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO PUBLIC', f);
	END LOOP; END $$`
}

// tables are defences that belong to tenants' tables.
func tables() []database {
	return []database{
		{defence: "policy on the tenant", sql: "DROP POLICY tenant ON app.note", red: "always-true"},
		{defence: "RESTRICTIVE", sql: "DROP POLICY tenant ON app.note; CREATE POLICY tenant ON app.note " + ownRows, red: "always-true"},
		{defence: "row security enabled", sql: "ALTER TABLE app.note DISABLE ROW LEVEL SECURITY", red: "always-true"},
		{defence: "FORCE", sql: "ALTER TABLE app.note NO FORCE ROW LEVEL SECURITY", red: "backfill"},
		{defence: "WITH CHECK", sql: tenantPolicy + ownRows + "WITH CHECK (true)", red: "insert-as-victim"},
		{defence: "policy's form", sql: tenantPolicy + "USING (coalesce(tenant_id = (SELECT rowhouse.tenant_id()), true) OR flag)",
			red: "always-true"},
		{defence: "composite primary key", sql: "ALTER TABLE app.tag DROP CONSTRAINT tag_tenant_id_note_id_fkey; " +
			"ALTER TABLE app.note DROP CONSTRAINT note_pkey, ADD PRIMARY KEY (id)", red: "primary-key"},
		{defence: "composite unique key", sql: "ALTER TABLE app.note ADD UNIQUE (title)", red: "unique-key"},
		{defence: "composite foreign key", sql: "ALTER TABLE app.note ADD UNIQUE (id); ALTER TABLE app.tag " +
			"DROP CONSTRAINT tag_tenant_id_note_id_fkey, ADD FOREIGN KEY (note_id) REFERENCES app.note (id)", red: "foreign-key"},
		{defence: "invoker's rights of a view", sql: "ALTER VIEW app.titles SET (security_invoker = off)", red: "R13"},
		{defence: "policy of a partition", sql: "ALTER TABLE app.event_0 DISABLE ROW LEVEL SECURITY; " +
			"GRANT SELECT ON app.event_0 TO rowhouse_app", red: "partition"},
		{defence: "no TRUNCATE", sql: "GRANT TRUNCATE ON app.note, app.tag TO rowhouse_app", red: "truncate"},
		{defence: "tenant column not null", sql: "ALTER TABLE app.event DROP CONSTRAINT event_pkey, ALTER tenant_id DROP NOT NULL", red: "R23"},
		{defence: "check on a schema's tenant", model: tenant.ModelSchema, red: "unsafe",
			edits: []edit{{secure, "'^t_[0-9a-f]{32}$'", "'^none$'"}}},
		{defence: "no CREATE in app's schema", sql: "GRANT CREATE ON SCHEMA app TO rowhouse_app", red: "select-into"},
	}
}

// rights are defences that were made by taking rights away.
func rights() []database {
	return []database{
		{defence: "no set_config", rung: cell.L2a, sql: give("set_config"), red: "or-set-config"},
		{defence: "no procedural language", rung: cell.L2a, sql: "GRANT USAGE ON LANGUAGE plpgsql TO PUBLIC", red: "do"},
		{defence: "no temporary tables",
			sql: "DO $$ BEGIN EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO PUBLIC', current_database()); END $$",
			red: "select-into-temp"},
		{defence: "no advisory locks", sql: give("pg_.*advisory.*"), red: "advisory-lock"},
		{defence: "no large objects", sql: give("lo_.*|loread|lowrite"), red: "large-objects"},
		{defence: "no ending of sessions", sql: give("pg_terminate_backend"), red: "terminate"},
		{defence: "no cancelling", sql: give("pg_cancel_backend"), red: "cancel"},
		{defence: "no prepared statements of the session", sql: give("pg_prepared_statement"), red: "prepared-statements"},
		{defence: "no cursors of the session", sql: give("pg_cursor"), red: "cursors"},
		{defence: "no statements of other sessions", sql: give("pg_stat_get_activity"), red: "activity"},
		{defence: "no statement of one session", sql: give("pg_stat_get_backend_activity"), red: "backend-activity"},
		{defence: "no locks of other sessions", sql: give("pg_lock_status"), red: "locks"},
		{defence: "no counters", sql: give("pg_stat_get_.*"), red: "counters"},
		{defence: "no sizes of tables", sql: give("pg_total_relation_size"), red: "sizes"},
		{defence: "no sizes of databases", sql: give("pg_database_size"), red: "database-sizes"},
		{defence: "no seeds", sql: give("setseed"), red: "seed"},
		{defence: "no notifications", sql: give("pg_notify"), red: "notify"},
		{defence: "no messages in the log", sql: give("pg_logical_emit_message"), red: "logical-message"},
		{defence: "no exported snapshots", sql: give("pg_export_snapshot"), red: "export-snapshot"},
		{defence: "no functions in schema public", sql: "GRANT CREATE, USAGE ON SCHEMA public TO PUBLIC", red: "function-in-public"},
		{defence: "keys are nobody's to read", sql: "GRANT SELECT ON rowhouse.mac_key TO rowhouse_app", red: "mac-keys"},
		{defence: "placements are nobody's to read", sql: "GRANT SELECT ON rowhouse.placement TO rowhouse_app", red: "placements"},
		{defence: "placements are nobody's to write", sql: "GRANT INSERT ON rowhouse.placement TO rowhouse_app", red: "place-myself"},
		{defence: "the MAC is no oracle", sql: "GRANT EXECUTE ON FUNCTION rowhouse.genuine TO rowhouse_app", red: "inner-mac"},
		{defence: "a database is its app's only", red: "other-app",
			sql: "DO $$ BEGIN EXECUTE format('GRANT CONNECT ON DATABASE %I TO PUBLIC', current_database()); END $$"},
		{defence: "common databases are closed", sql: "GRANT CONNECT ON DATABASE postgres TO PUBLIC",
			undo: "REVOKE ALL ON DATABASE postgres FROM PUBLIC", red: "common-databases"},
		{defence: "the carrier is nobody's to set", sql: "GRANT SET ON PARAMETER backtrace_functions TO rowhouse_app",
			undo: "REVOKE ALL ON PARAMETER backtrace_functions FROM rowhouse_app", red: "set"},
		{defence: "the login is no member of the owner", sql: "GRANT rowhouse_owner_test TO rowhouse_app_test",
			undo: "REVOKE rowhouse_owner_test FROM rowhouse_app_test", red: "role-owner"},
		{defence: "the login obeys row security", sql: "ALTER ROLE rowhouse_app_test BYPASSRLS",
			undo: "ALTER ROLE rowhouse_app_test NOBYPASSRLS", red: "always-true"},
		{defence: "policies are the cheapest clause", sql: "ALTER FUNCTION pg_catalog.uuid_eq(uuid, uuid) COST 1", red: "error-at-own-cost"},
		{defence: "operators cost nothing", sql: "DO $$ BEGIN EXECUTE format('ALTER ROLE rowhouse_app_test IN DATABASE %I " +
			"RESET cpu_operator_cost', current_database()); END $$", red: "free-subscript"},
		{defence: "the login's settings are those of Init", sql: "DO $$ BEGIN EXECUTE format('ALTER ROLE rowhouse_app_test IN DATABASE %I " +
			"SET work_mem = 5000', current_database()); END $$", red: "R26"},
		{defence: "no function is marked leakproof", sql: "ALTER FUNCTION pg_catalog.textlike(text, text) LEAKPROOF", red: "R38"},
	}
}

// seals are defences in the functions that verify a seal. Those that are in the quick way of
// enter and in the thorough one are two.
func seals() []database {
	const began = "encode(timestamptz_send(transaction_timestamp()), 'hex')"
	const tag = "sha256(substr(seal, 37)) = sha256(substr(sha256(k.opad || sha256(k.ipad || substr(seal, 1, 36))), 1, 16))"
	const checkedTag = "sha256(substr(seal, 37, 16)) = sha256(substr(sha256(k.opad || sha256(k.ipad || substr(seal, 1, 36) || substr(seal, 53))), 1, 16))"
	return []database{
		{defence: "a leftover is not in the way", rung: cell.L2a, red: "leftover", edits: []edit{
			{enter, "right(current_setting('rowhouse.seal', true), 16) = " + began, "true"},
			{checked, "right(current_setting('rowhouse.seal', true), 16) = " + began, "true"}}},
		{defence: "a leftover is no tenant", rung: cell.L2a, red: "carry-session",
			edits: []edit{{current, "right(carrier, 16) <> " + began, "false"}}},
		{defence: "MAC, quick", edits: []edit{{enter, "\n\t\t\tAND " + tag, ""}}, red: "seal-guessed"},
		{defence: "MAC, thorough", edits: []edit{{genuine, checkedTag, "true"}}, red: "seal-guessed"},
		{defence: "length and version", edits: []edit{{genuine, "length(seal) NOT IN (52, 60) OR", ""}, {checked, "length(seal) <> 52 OR ", ""}}, red: "seal-empty"},
		{defence: "expiry, quick", edits: []edit{{enter, "-120, 0, 1) = 1", "-120, 0, 1) > 0"}}, red: "seal-expired"},
		{defence: "expiry, thorough", edits: []edit{{checked, "left_s <= 0 OR ", ""}}, red: "seal-expired"},
		{defence: "upper bound of the expiry, quick", edits: []edit{{enter, "-120, 0, 1)", "-999999, 0, 1)"}}, red: "seal-far-future"},
		{defence: "upper bound of the expiry, thorough", edits: []edit{{checked, " OR left_s > 120", ""}}, red: "seal-far-future"},
		{defence: "cell, quick", edits: []edit{{enter, "k.prefix = substr(seal, 1, 8)", "k.kid = get_byte(seal, 1)"}}, red: "seal-other-cell"},
		{defence: "cell, thorough", edits: []edit{{genuine, "AND substr(int8send(k.cell), 5, 4) = substr(seal, 5, 4)", ""}},
			red: "seal-other-cell"},
		{defence: "end of a key, quick", edits: []edit{{enter, "AND k.not_after > clock_timestamp()", ""}}, red: "seal-ended-key"},
		{defence: "end of a key, thorough", edits: []edit{{genuine, "AND k.not_after > at", ""}}, red: "seal-ended-key"},
		{defence: "generation, quick", edits: []edit{{enter, "p.home = substr(seal, 9, 24)",
			"p.tenant_id = encode(substr(seal, 17, 16), 'hex')::uuid"}}, red: "seal-other-generation"},
		{defence: "generation, thorough", edits: []edit{{checked, " OR int8send(place.generation) <> substr(seal, 9, 8)", ""}},
			red: "seal-other-generation"},
		{defence: "fence", edits: []edit{{enter, "p.home = substr(seal, 9, 24)",
			"p.tenant_id = encode(substr(seal, 17, 16), 'hex')::uuid AND int8send(p.generation) = substr(seal, 9, 8)"}}, red: "fenced"},
		{defence: "suspension", edits: []edit{{checked, "place.state IS DISTINCT FROM 'active'", "place.state IS NULL"},
			{checked, "ELSIF place.state = 'suspended' THEN\n\t\tRAISE EXCEPTION 'tenant is suspended' USING ERRCODE = 'RH007';\n\t", ""}},
			red: "suspended"},
		{defence: "tenant lock, quick", edits: []edit{{enter, "\n\t\tAND pg_try_advisory_xact_lock_shared(('x' || " +
			"encode(substr(seal, 25, 8), 'hex'))::bit(64)::bigint) THEN", " THEN"}}, red: "unlocked"},
		{defence: "tenant lock, thorough",
			edits: []edit{{checked, "NOT pg_is_in_recovery() AND NOT pg_try_advisory_xact_lock_shared(door)", "false"}},
			red:   "locked"},
		{defence: "FOR SHARE", edits: []edit{{checked, " FOR SHARE;", ";"}}, red: "old-snapshot"},
		{defence: "one tenant in a transaction, quick", edits: []edit{{enter,
			"current_setting('backtrace_functions') || current_setting('transaction_isolation')", "current_setting('transaction_isolation')"}},
			red: "enter-twice"},
		{defence: "one tenant in a transaction, thorough", edits: []edit{{checked, "current_setting('backtrace_functions') <> ''", "false"}},
			red: "enter-again"},
		{defence: "seals for reading", edits: []edit{{checked, "PERFORM set_config('transaction_read_only', 'on', true)", "NULL"}},
			red: "seal-read-only"},
		{defence: "STABLE", sql: "ALTER FUNCTION rowhouse.tenant_id() IMMUTABLE", red: "R06"},
		{defence: "an error without a tenant", red: "no-context",
			edits: []edit{{"rowhouse.no_context()",
				"RAISE EXCEPTION 'no tenant context' USING ERRCODE = '42501', SCHEMA = 'rowhouse';", "RETURN NULL;"}}},
		{defence: "pinned search_path", sql: "ALTER FUNCTION rowhouse.enter(bytea) RESET search_path", red: "R37"},
		{defence: "MAC in the policy", rung: cell.L2a, edits: []edit{{current,
			"rowhouse.genuine(seal, transaction_timestamp()) IS NOT TRUE", "false"}}, red: "carry-guessed"},
		{defence: "a carried seal was entered", rung: cell.L2a, red: "carry-own", edits: []edit{
			{genuine, " || substr(seal, 53)", ""},
			{enter, "substr(seal, 1, 36) || timestamptz_send(transaction_timestamp())))", "substr(seal, 1, 36)))"},
			{checked, "substr(seal, 1, 36) || timestamptz_send(transaction_timestamp())))", "substr(seal, 1, 36)))"}}},
	}
}
