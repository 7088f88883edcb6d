package sqlattack

// oracles ask whether another tenant has a value: the answer to {probe} must be the same where
// the victim has it and where nobody does.
func oracles() []Attack {
	insert := func(sql string) []string { return []string{"BEGIN", "{enter}", sql, "ROLLBACK"} }
	return each(Oracles, Seal, Told, []Attack{
		{ID: "primary-key", Tries: "insert a row under the key of another's", script: script{oracle: true,
			session: insert("INSERT INTO {own}.note (id, title) VALUES ({probe}, 'guess')")}},
		{ID: "unique-key", Tries: "insert a value that another has in a unique column", script: script{oracle: true,
			session: insert("INSERT INTO {own}.note (id, title) VALUES (98, '{title}')")}},
		{ID: "on-conflict", Tries: "ask ON CONFLICT whether the value is there", script: script{oracle: true,
			session: insert("INSERT INTO {own}.note (id, title) VALUES (98, '{title}') ON CONFLICT DO NOTHING")}},
		{ID: "foreign-key", Tries: "hang a row on another's", script: script{oracle: true,
			session: insert("INSERT INTO {own}.tag (note_id, tag) VALUES ({probe}, 'guess')"), refused: "23503"}},
		{ID: "sequence", Tries: "count another's inserts by a sequence", script: script{do: sequence, refused: "42P01"}},
		{ID: "error-text", Vector: Injection, Success: Read, Tries: "have an error repeat a value", script: script{
			inject: ` OR title::int = 1`, refused: "22P02"}},
		{ID: "error-before-policy", Vector: Injection, Tries: "fail on a row before the policy hides it", script: script{
			oracle: true, revoked: true, statement: `SELECT title FROM {own}.note TABLESAMPLE SYSTEM (100) ` +
				`WHERE CASE WHEN title = '{title}' THEN (SELECT 1 / (random() * 0)::int = 1) ELSE false END`}},
		{ID: "free-clause", Vector: Injection, Tries: "fail on a row before the policy, by a clause that costs nothing", script: script{
			oracle: true, statement: `SELECT title FROM {own}.note TABLESAMPLE SYSTEM (100) ` +
				`WHERE CASE WHEN {free} THEN (SELECT 1 / (random() * 0)::int = 1) ELSE false END`}},
		{ID: "free-subscript", Vector: Injection, Tries: "look a value up in a document before the policy, which costs nothing", script: script{
			oracle: true, statement: `SELECT title FROM {own}.note TABLESAMPLE SYSTEM (100) ` +
				`WHERE CASE WHEN ('{"{title}": 1}'::jsonb)[title] IS NOT NULL THEN (SELECT 1 / (random() * 0)::int = 1) ELSE false END`}},
		{ID: "error-at-own-cost", Tries: "fail before the policy, after giving operators a cost again", script: script{
			oracle: true, revoked: true, session: insert(`SET LOCAL cpu_operator_cost = 0.0025; ` +
				`SELECT title FROM {own}.note TABLESAMPLE SYSTEM (100) ` +
				`WHERE CASE WHEN title = '{title}' THEN (SELECT 1 / (random() * 0)::int = 1) ELSE false END`)}},
		{ID: "free-at-own-cost", Tries: "look a value up in a document, after giving operators a cost again", script: script{
			oracle: true, limit: true, session: insert(`SET LOCAL cpu_operator_cost = 0.0025; ` +
				`SELECT title FROM {own}.note TABLESAMPLE SYSTEM (100) ` +
				`WHERE CASE WHEN ('{"{title}": 1}'::jsonb)[title] IS NOT NULL THEN (SELECT 1 / (random() * 0)::int = 1) ELSE false END`)}},
		{ID: "time", Vector: Injection, Tries: "sleep on a row before the policy hides it", script: script{do: slow, revoked: true}},
	})
}

// writes try to change, add to or take from another tenant's rows.
func writes() []Attack {
	own := func(sql string) []string { return []string{"BEGIN", "{enter}", sql, "COMMIT"} }
	return each(Writes, Seal, Wrote, []Attack{
		{ID: "insert-as-victim", Tries: "insert a row of the victim's", script: script{refused: "42501",
			session: own("INSERT INTO {their}.note (tenant_id, id, title) VALUES ('{uid}', 13, 'planted')")}},
		{ID: "update-victim", Tries: "update the victim's rows", script: script{
			session: own("UPDATE {their}.note SET title = title || '!' WHERE tenant_id = '{uid}'")}},
		{ID: "update-all", Tries: "update all rows", script: script{session: own("UPDATE {their}.tag SET tag = tag || '!'")}},
		{ID: "delete-victim", Tries: "delete the victim's rows", script: script{
			session: own("DELETE FROM {their}.note WHERE tenant_id = '{uid}'")}},
		{ID: "move-row", Tries: "give an own row to the victim", script: script{refused: "42501",
			session: own("UPDATE {own}.note SET tenant_id = '{uid}' WHERE id = 2")}},
		{ID: "merge-victim", Tries: "MERGE into the victim's rows", script: script{
			session: own("MERGE INTO {their}.note n USING (SELECT 11 AS id) s ON n.id = s.id " +
				"WHEN MATCHED THEN UPDATE SET title = 'merged'")}},
		{ID: "insert-injected", Vector: Injection, Tries: "insert a row of the victim's by an injected statement", script: script{
			refused:   "42501",
			statement: `INSERT INTO {own}.note (tenant_id, id, title) VALUES ('{uid}', 14, 'planted')`}},
		{ID: "set-before-write", Vector: Password, Tries: "write with the tenant set, without entering", script: script{
			session: []string{"SET {set} = '{victim}'", "DELETE FROM {their}.tag WHERE tenant_id = '{uid}'"}, refused: "42501 RH003"}},
	})
}

// objects are things with rows in them that no policy covers.
func objects() []Attack {
	read := func(sql string) []string { return []string{"BEGIN", "{enter}", sql} }
	list := each(Objects, Seal, Read, []Attack{
		{ID: "view", Tries: "read a view", script: script{session: read("SELECT title FROM {their}.titles")}},
		{ID: "partition", Tries: "read a partition past its parent", script: script{refused: "42501",
			session: read("SELECT body FROM {their}.event_0")}},
		{ID: "mac-keys", Vector: Injection, Tries: "read the cell's keys", script: script{
			inject: ` UNION ALL SELECT encode(ipad, 'hex') FROM rowhouse.mac_key`, refused: "42501"}},
		{ID: "placements", Vector: Injection, Tries: "list the tenants", script: script{
			inject: ` UNION ALL SELECT tenant_id::text FROM rowhouse.placement`, refused: "42501"}},
		{ID: "large-objects", Vector: Injection, Tries: "read large objects, which have no policies", script: script{
			before: `SELECT lo_from_bytea(0, '{secret} object')`, refused: "42501", revoked: true,
			inject: ` UNION ALL SELECT encode(lo_get(oid), 'escape') FROM pg_largeobject_metadata`}},
	})
	return append(list, each(Objects, Mistake, Read, []Attack{
		{ID: "definer-view", Tries: "ship a view with its owner's rights", script: script{
			migration: "CREATE VIEW {app}.everything AS SELECT title FROM {app}.note; GRANT SELECT ON {app}.everything TO {role}",
			undo:      "DROP VIEW {their}.everything", session: read("SELECT title FROM {their}.everything"), refused: "unsafe"}},
		{ID: "materialized-view", Tries: "ship a materialized view", script: script{
			migration: "CREATE MATERIALIZED VIEW {app}.cached AS SELECT title FROM {app}.note{unfilled}; GRANT SELECT ON {app}.cached TO {role}",
			undo:      "DROP MATERIALIZED VIEW {their}.cached", session: read("SELECT title FROM {their}.cached"), refused: "unsafe"}},
		{ID: "definer-function", Tries: "ship a function with its owner's rights", script: script{
			migration: "CREATE FUNCTION {app}.search() RETURNS SETOF text LANGUAGE sql SECURITY DEFINER AS 'SELECT title FROM {app}.note'; " +
				"GRANT EXECUTE ON FUNCTION {app}.search() TO {role}",
			undo: "DROP FUNCTION {their}.search()", session: read("SELECT {their}.search()"), refused: "unsafe"}},
		{ID: "forgotten-policy", Tries: "ship a table and forget its policy", script: script{
			migration: "CREATE TABLE {app}.late (tenant_id uuid, body text, PRIMARY KEY (tenant_id, body)); " +
				"INSERT INTO {app}.late VALUES ('{uid}', '{secret}'); GRANT SELECT ON {app}.late TO {role}",
			undo: "DROP TABLE {their}.late", session: read("SELECT body FROM {their}.late")}},
		{ID: "generous-policy", Tries: "ship a second policy that lets everybody read", script: script{
			migration: "CREATE POLICY readers ON {app}.note FOR SELECT USING (true)",
			undo:      "DROP POLICY readers ON {their}.note", session: read("SELECT title FROM {their}.note")}},
	})...)
}

// roles try to become somebody else, or to change what binds.
func roles() []Attack {
	first := func(id, tries string, session ...string) Attack {
		return Attack{ID: id, Tries: tries, script: script{
			session: append(session, "SELECT title FROM {their}.note"), first: true, refused: "42501"}}
	}
	return each(Roles, Password, Read, []Attack{
		first("role-superuser", "become the superuser", "SET ROLE {admin}"),
		first("role-owner", "become the owner of the tables", "SET ROLE {owner}"),
		{ID: "role-security", Tries: "become the owner of the keys", script: script{
			session: []string{"SET ROLE rowhouse_sec", "SELECT encode(ipad, 'hex') FROM rowhouse.mac_key"}, refused: "42501"}},
		first("session-authorization", "change the session's user", "SET SESSION AUTHORIZATION {admin}"),
		first("grant-owner", "make oneself a member of the owner", "GRANT {owner} TO CURRENT_USER"),
		first("create-role", "make a role that row security does not bind", "CREATE ROLE attacked_more BYPASSRLS"),
		{ID: "row-security-off", Vector: Seal, Tries: "switch row security off for the session", script: script{
			session: []string{"BEGIN", "{enter}", "SET row_security = off", "SELECT title FROM {their}.note"}, refused: "42501"}},
		first("alter-role-set", "preset the tenant for the login", "ALTER ROLE CURRENT_USER SET {set} = '{victim}'",
			"ALTER ROLE CURRENT_USER RESET {set}"),
		{ID: "startup-option", Tries: "preset the tenant when connecting", script: script{do: startup, refused: "42501 RH003"}},
		first("drop-policy", "drop the policy", "DROP POLICY tenant ON {their}.note"),
		first("disable-row-security", "disable row security of the table", "ALTER TABLE {their}.note DISABLE ROW LEVEL SECURITY"),
		{ID: "truncate", Vector: Seal, Success: Wrote, Tries: "TRUNCATE, which no policy binds", script: script{
			session: []string{"BEGIN", "{enter}", "TRUNCATE {their}.note CASCADE"}, refused: "42501"}},
		{ID: "trigger", Vector: Seal, Success: Wrote, Tries: "put a trigger on the table", script: script{
			session: []string{"BEGIN", "{enter}", "CREATE TRIGGER t BEFORE UPDATE ON {their}.note FOR EACH ROW " +
				"EXECUTE FUNCTION suppress_redundant_updates_trigger()"}, refused: "42501"}},
		{ID: "place-myself", Success: Wrote, Tries: "place a tenant", script: script{refused: "42501", session: []string{
			"INSERT INTO rowhouse.placement (tenant_id, state, generation) VALUES ('{uid}', 'active', 9)"}}},
		{ID: "install-key", Success: Wrote, Tries: "install a key of one's own", script: script{refused: "42501", session: []string{
			"INSERT INTO rowhouse.mac_key (kid, cell, ipad, opad, not_after) VALUES (250, 1, '', '', 'infinity')"}}},
		{ID: "other-app", Tries: "connect as the login of another app", script: script{do: otherApp, refused: "42501", ours: true}},
		{ID: "common-databases", Tries: "connect to the databases that every server has", script: script{
			do: commonDatabases, refused: "42501", revoked: true, ours: true}},
	})
}
