package sqlattack

// plans go for functions and for plans that outlive a tenant.
func plans() []Attack {
	return each(Plans, Password, Read, []Attack{
		{ID: "cached-plan", Vector: Injection, Tries: "run the statement whose plan was made for the victim", script: script{
			do: cachedPlan}},
		{ID: "replace-tenant-id", Tries: "replace the function that returns the tenant",
			script: script{first: true, refused: "42501", session: []string{
				"CREATE OR REPLACE FUNCTION rowhouse.tenant_id() RETURNS uuid LANGUAGE sql AS $$ SELECT '{uid}'::uuid $$",
				"SELECT title FROM {their}.note"}}},
		{ID: "temp-function", Tries: "make a function of one's own", script: script{first: true, refused: "42501", session: []string{
			"CREATE FUNCTION pg_temp.f() RETURNS text LANGUAGE sql AS 'SELECT 1::text'", "SELECT title FROM {their}.note"}}},
		{ID: "temp-table-shadows", Tries: "shadow a table with a temporary one", script: script{first: true, refused: "42501", session: []string{
			"CREATE TEMP TABLE note (title text)", "SELECT title FROM {their}.note"}}},
		{ID: "temp-operator", Tries: "shadow the operator of the policy", script: script{first: true, refused: "42501", session: []string{
			"CREATE FUNCTION pg_temp.same(uuid, uuid) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
			"CREATE OPERATOR pg_temp.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = pg_temp.same)",
			"SET search_path = pg_temp, pg_catalog", "SELECT title FROM {their}.note"}}},
		{ID: "function-in-public", Tries: "make a function in schema public",
			script: script{first: true, refused: "42501 3F000", session: []string{
				"CREATE FUNCTION public.f() RETURNS text LANGUAGE sql AS 'SELECT 1::text'", "SELECT title FROM {their}.note"}}},
		{ID: "inner-enter", Tries: "call what enter() calls", script: script{refused: "42501", session: []string{
			"SELECT rowhouse.enter_checked('\\x00')"}}},
		{ID: "inner-mac", Tries: "call the check of the MAC as an oracle", script: script{refused: "42501", session: []string{
			"SELECT rowhouse.genuine('\\x00', now())"}}},
		{ID: "function-bodies", Tries: "read the bodies of functions", script: script{session: []string{
			"SELECT prosrc FROM pg_proc WHERE pronamespace >= 16384"}}},
	})
}

// catalogs are what PostgreSQL tells of others in its views.
func catalogs() []Attack {
	return each(Catalogs, Injection, Read, []Attack{
		{ID: "statistics", Tries: "read values in the planner's statistics", script: script{
			inject: ` UNION ALL SELECT concat(most_common_vals::text, histogram_bounds::text) FROM pg_stats ` +
				`WHERE tablename IN ('note', 'tag', 'event_0')`}},
		{ID: "statistics-raw", Tries: "read the statistics' own table", script: script{
			inject: ` UNION ALL SELECT stavalues1::text FROM pg_statistic`, refused: "42501"}},
		{ID: "activity", Tries: "read other sessions' statements", script: script{
			inject: ` UNION ALL SELECT query FROM pg_stat_activity`, refused: "42501", revoked: true}},
		{ID: "backend-activity", Tries: "read them by the function below the view", script: script{
			inject:  ` UNION ALL SELECT pg_stat_get_backend_activity(n) FROM generate_series(1, 200) n`,
			refused: "42501", revoked: true}},
		{ID: "locks", Success: Told, Tries: "see which tenants are at work by their locks", script: script{
			inject: ` UNION ALL SELECT objid::text FROM pg_locks WHERE locktype = 'advisory'`, refused: "42501", revoked: true}},
		{ID: "counters", Success: Told, Tries: "count what others write", script: script{
			inject:  ` UNION ALL SELECT n_tup_ins::text FROM pg_stat_user_tables WHERE schemaname = '{their}'`,
			refused: "42501", revoked: true}},
		{ID: "sizes", Success: Told, Tries: "measure another tenant's tables", script: script{
			inject: ` UNION ALL SELECT pg_total_relation_size('{their}.note')::text`, refused: "42501", revoked: true}},
		{ID: "database-sizes", Success: Told, Tries: "measure other tenants' databases", script: script{
			inject:  ` UNION ALL SELECT pg_database_size(oid)::text FROM pg_database WHERE has_database_privilege(oid, 'CONNECT')`,
			refused: "42501", revoked: true}},
		{ID: "row-counts", Vector: Password, Success: Told, Tries: "read how many rows the planner has counted", script: script{
			do: rowCounts, limit: true}},
		{ID: "explain-estimates", Vector: Password, Success: Told, Tries: "ask EXPLAIN whether a value is frequent", script: script{
			do: estimates, limit: true}},
		{ID: "explain", Tries: "EXPLAIN ANALYZE without entering", Vector: Password, script: script{
			session: []string{"EXPLAIN (ANALYZE) SELECT title FROM {their}.note"}, refused: "42501"}},
		{ID: "explain-verbose", Tries: "have EXPLAIN show values", Vector: Seal, script: script{
			session: []string{"BEGIN", "{enter}", "EXPLAIN (ANALYZE, VERBOSE) SELECT title FROM {their}.note WHERE tenant_id = '{uid}'"}}},
		{ID: "read-file", Tries: "read a file of the server", script: script{
			inject: ` UNION ALL SELECT pg_read_file('PG_VERSION')`, refused: "42501"}},
	})
}

// channels reach other sessions, or out of the database.
func channels() []Attack {
	return each(Channels, Injection, Stopped, []Attack{
		{ID: "terminate", Tries: "end the victim's session", script: script{
			inject: ` OR pg_terminate_backend({pid})`, refused: "42501", revoked: true}},
		{ID: "cancel", Tries: "cancel the victim's statement", script: script{
			inject: ` OR pg_cancel_backend({pid})`, refused: "42501", revoked: true}},
		{ID: "advisory-lock", Tries: "take the lock by which tenants are fenced", script: script{
			inject: ` OR pg_advisory_xact_lock_shared({door}) IS NULL`, refused: "42501", revoked: true}},
		{ID: "fence-lock", Vector: Password, Tries: "wait for that lock for oneself, behind which nobody else enters", script: script{
			do: fenceLock, refused: "42501", revoked: true}},
		{ID: "lock-table", Vector: Password, Tries: "lock a table that others work with", script: script{do: lockTable, limit: true}},
		{ID: "notify", Success: Told, Tries: "signal to other sessions", script: script{
			inject: ` OR pg_notify('c', title) IS NULL`, refused: "42501", revoked: true}},
		{ID: "logical-message", Vector: Seal, Success: Wrote, Tries: "write a mark into the log that moves follow", script: script{
			session: []string{"BEGIN", "{enter}", "SELECT pg_logical_emit_message(true, 'rowhouse.fence', '')"}, refused: "42501", revoked: true}},
		{ID: "export-snapshot", Vector: Seal, Success: Read, Tries: "export a snapshot", script: script{
			session: []string{"BEGIN", "{enter}", "SELECT pg_export_snapshot()"}, refused: "42501", revoked: true}},
		{ID: "replication-slot", Vector: Password, Success: Read, Tries: "decode the log", script: script{
			session: []string{"SELECT pg_create_logical_replication_slot('attacked', 'test_decoding')"}, refused: "42501"}},
		{ID: "publication", Vector: Password, Success: Read, Tries: "publish the tables", script: script{
			session: []string{"CREATE PUBLICATION attacked FOR ALL TABLES"}, refused: "42501"}},
	})
}

// backfills are changes of all tenants' rows by their owner, in a migration.
func backfills() []Attack {
	return each(Backfills, Mistake, Wrote, []Attack{
		{ID: "backfill", Tries: "ship an UPDATE of every tenant's rows", script: script{
			migration: "UPDATE {app}.note SET title = title || '!'", session: []string{"SELECT 1"}, refused: "42501"}},
		{ID: "backfill-copy", Success: Read, Tries: "ship a copy of every tenant's rows", script: script{
			migration: "CREATE TABLE {app}.copied AS SELECT title FROM {app}.note; GRANT SELECT ON {app}.copied TO {role}",
			undo:      "DROP TABLE {their}.copied", session: []string{"SELECT title FROM {their}.copied"}, refused: "42501"}},
	})
}

// fences try to work in a tenant that is being moved, is suspended, or lives elsewhere.
func fences() []Attack {
	return each(Fences, Seal, Wrote, []Attack{
		{ID: "fenced", Tries: "enter behind the fence", script: script{do: enterWhile("fenced"), refused: "RH002", ours: true}},
		{ID: "suspended", Tries: "enter while suspended", script: script{do: enterWhile("suspended"), refused: "RH007", ours: true}},
		{ID: "moved", Tries: "enter where the tenant lived before", script: script{do: enterWhile("moved"), refused: "RH001", ours: true}},
		{ID: "old-snapshot", Tries: "write with a snapshot that is older than the fence", script: script{
			do: oldSnapshot, refused: "40001 RH002", ours: true}},
		{ID: "unlocked", Tries: "have the fence go up around an open transaction", script: script{do: unlocked, ours: true}},
		{ID: "locked", Tries: "enter while the mover holds the tenant", script: script{
			do: locked, refused: "55P03", ours: true, models: "SHARED"}},
	})
}

// homes reach for schemas and databases of other tenants by their names.
func homes() []Attack {
	schema := func(id, tries, refused string, session ...string) Attack {
		return Attack{ID: id, Tries: tries, Success: Wrote, script: script{session: session, refused: refused, models: "SCHEMA"}}
	}
	database := func(id, tries, refused string, session ...string) Attack {
		return Attack{ID: id, Tries: tries, script: script{session: session, refused: refused, models: "DATABASE"}}
	}
	return each(Homes, Seal, Read, []Attack{
		schema("schema-read", "read another tenant's schema", "", "BEGIN", "{enter}", "SELECT title FROM {their}.note"),
		schema("schema-insert", "leave an own row in another tenant's schema", "23514", "BEGIN", "{enter}",
			"INSERT INTO {their}.note (id, title) VALUES (77, 'mine')", "COMMIT"),
		schema("schema-hang", "hang an own row on one of another schema", "23514 23503", "BEGIN", "{enter}",
			"INSERT INTO {their}.tag (note_id, tag) VALUES (11, 'mine')", "COMMIT"),
		schema("schema-create", "make a table in another tenant's schema", "42501", "CREATE TABLE {their}.planted (id int)"),
		schema("schema-shadow", "shadow a function in the own schema", "42501",
			"CREATE FUNCTION {own}.lower(text) RETURNS text LANGUAGE sql AS 'SELECT $1'"),
		schema("schema-rename", "rename another tenant's schema", "42501", "ALTER SCHEMA {their} RENAME TO planted"),
		{ID: "schema-shared", Success: Wrote, Tries: "keep an own row in the tables that tenants without a schema share", script: script{
			models: "SCHEMA", ours: true, session: []string{"BEGIN", "{enter}",
				"INSERT INTO app.note (id, title) VALUES (78, 'mine') RETURNING title", "SELECT title FROM app.note", "ROLLBACK"}}},
		schema("schema-path", "find another tenant's tables by search_path", "", "SET search_path = {their}", "BEGIN", "{enter}",
			"SELECT title FROM note"),
		database("database-own-seal", "bring the own seal to another tenant's database", "RH001", "BEGIN", "{enter}",
			"SELECT title FROM {their}.note"),
		database("database-no-seal", "read another tenant's database without a seal", "42501", "SELECT title FROM {their}.note"),
		database("database-create", "make a database from another tenant's", "42501", "CREATE DATABASE attacked_copy TEMPLATE {database}"),
		database("database-rename", "rename another tenant's database", "42501", "ALTER DATABASE {database} RENAME TO attacked_copy"),
	})
}
