package sqlattack

// inline are attacks of an injection that wants to become another tenant, or to see what is
// not its own, inside the one statement that it can change.
func inline() []Attack {
	return each(Inline, Injection, Read, []Attack{
		{ID: "always-true", Tries: "make the WHERE true for every row", script: script{inject: ` OR true`}},
		{ID: "or-set-config", Tries: "change the tenant in the WHERE, which may be evaluated before the policy", script: script{
			inject: ` OR set_config('{set}', '{victim}', true) IS NOT NULL`, refused: "42501", revoked: true}},
		{ID: "cte-set-config", Tries: "change the tenant in a materialized CTE", script: script{
			inject: ` UNION ALL (WITH x AS MATERIALIZED (SELECT set_config('{set}', '{victim}', true) s) ` +
				`SELECT title FROM x, {own}.note WHERE s <> '')`, refused: "42501", revoked: true}},
		{ID: "xml-set-config", Tries: "change the tenant in a query that query_to_xml runs", script: script{
			inject: ` AND query_to_xml('SELECT set_config(''{set}'', ''{victim}'', true)', true, false, '') IS NULL ` +
				`UNION ALL SELECT title FROM {own}.note`, refused: "42501", revoked: true}},
		{ID: "subselect-set-config", Tries: "change the tenant in a sub-select, for the session", script: script{
			inject: ` OR (SELECT set_config('{set}', '{victim}', false)) <> ''`, refused: "42501", revoked: true}},
		{ID: "returning-set-config", Tries: "change the tenant in what an UPDATE returns", script: script{
			statement: `UPDATE {own}.note SET flag = flag WHERE id = 1 RETURNING set_config('{set}', '{victim}', true), ` +
				`(SELECT string_agg(n.title, ',') FROM {own}.note n WHERE n.id <> note.id)`, refused: "42501", revoked: true}},
		{ID: "pg-settings", Tries: "change the tenant by the view pg_settings", script: script{
			statement: `UPDATE pg_settings SET setting = '{victim}' WHERE name = '{set}'`, refused: "42501", revoked: true}},
		{ID: "union-victim", Tries: "name the other tenant in a UNION", script: script{
			inject: ` UNION ALL SELECT title FROM {own}.note WHERE tenant_id = '{uid}'`}},
		{ID: "enter-again", Tries: "enter a second tenant", script: script{
			inject: ` OR {forge:cut} IS NULL`, refused: "RH004"}},
		{ID: "leaky-function", Tries: "look at rows with a function that is not leakproof, before the policy", script: script{
			inject: ` OR (title || '')::text LIKE '%{needle}%'`}},
	})
}

// stacked are further statements, and utility statements, of an injection and of a thief.
func stacked() []Attack {
	injected := each(Stacked, Injection, Read, []Attack{
		{ID: "second-statement", Tries: "put a second statement behind the first", script: script{
			inject: `; SELECT title FROM {own}.note`, refused: "42601"}},
		{ID: "second-statement-set", Tries: "put a SET behind the first statement", script: script{
			inject: `; SET {set} = '{victim}'; SELECT title FROM {own}.note`, refused: "42601"}},
	})
	return append(injected, each(Stacked, Seal, Read, []Attack{
		{ID: "set", Tries: "SET the tenant after entering", script: script{
			session: []string{"BEGIN", "{enter}", "SET {set} = '{victim}'", "SELECT title FROM {their}.note"}, refused: "42501 RH003"}},
		{ID: "set-local", Tries: "SET LOCAL the tenant after entering", script: script{
			session: []string{"BEGIN", "{enter}", "SET LOCAL {set} = '{victim}'", "SELECT title FROM {their}.note"}, refused: "42501 RH003"}},
		{ID: "set-before", Vector: Password, Tries: "SET the tenant without entering", script: script{
			session: []string{"SET {set} = '{victim}'", "SELECT title FROM {their}.note"}, refused: "42501 RH003"}},
		{ID: "reset", Tries: "RESET the tenant", script: script{
			session: []string{"BEGIN", "{enter}", "RESET {set}", "SELECT title FROM {their}.note"}, refused: "42501"}},
		{ID: "reset-all", Tries: "RESET ALL after entering", script: script{
			session: []string{"BEGIN", "{enter}", "RESET ALL", "SELECT title FROM {their}.note"}, refused: "42501"}},
		{ID: "discard-all", Tries: "DISCARD ALL after entering", script: script{
			session: []string{"{enter}", "DISCARD ALL", "SELECT title FROM {their}.note"}, refused: "42501"}},
		{ID: "do", Tries: "change the tenant in a DO block", script: script{
			session: []string{"BEGIN", "{enter}", "DO $$ BEGIN SET LOCAL {set} = '{victim}'; END $$", "SELECT title FROM {their}.note"},
			refused: "42501", revoked: true}},
		{ID: "copy-to", Tries: "COPY the table out", script: script{
			session: []string{"BEGIN", "{enter}", "COPY {their}.note TO STDOUT"}}},
		{ID: "copy-from", Tries: "COPY rows in from a program", script: script{
			session: []string{"BEGIN", "{enter}", "COPY {their}.note FROM PROGRAM 'true'"}, refused: "42501"}},
		{ID: "select-into", Tries: "copy rows into a table of one's own", script: script{
			session: []string{"BEGIN", "{enter}", "SELECT * INTO {own}.copy FROM {their}.note", "SELECT title FROM {own}.copy"},
			refused: "42501"}},
	})...)
}

// seals are seals that are not genuine, or not for here and now.
func seals() []Attack {
	enter := func(id, tries, seal, refused string) Attack {
		return Attack{ID: id, Tries: tries, script: script{refused: refused,
			session: []string{"BEGIN", "SELECT {forge:" + seal + "}", "SELECT title FROM {their}.note"}}}
	}
	carry := func(id, tries, seal string) Attack {
		return Attack{ID: id, Tries: tries, script: script{refused: "42501 RH003",
			session: []string{"BEGIN", "SET LOCAL {set} = '{carry:" + seal + "}{began}'", "SELECT title FROM {their}.note"}}}
	}
	return each(Seals, Password, Read, []Attack{
		{ID: "seal-swapped", Vector: Seal, Tries: "put the victim into one's own seal", script: script{refused: "RH003",
			session: []string{"BEGIN", "SELECT {forge:swapped}", "SELECT title FROM {their}.note"}}},
		{ID: "seal-read-only", Vector: Seal, Success: Wrote, Tries: "write with a seal for reading", script: script{
			refused: "25006", ours: true,
			session: []string{"BEGIN", "SELECT {forge:read-only}", "INSERT INTO {own}.note (id, title) VALUES (55, 'guess')"}}},
		enter("seal-guessed", "seal for the victim with another key", "guessed", "RH003"),
		enter("seal-zero-key", "seal for the victim with a key of zeros", "zero-key", "RH003"),
		enter("seal-cut", "leave the last byte of the tag out", "cut", "RH003"),
		enter("seal-bare", "leave the tag out", "bare", "RH003"),
		enter("seal-long", "add a byte", "long", "RH003"),
		enter("seal-empty", "enter with nothing", "empty", "RH003"),
		enter("seal-flags", "set a flag that does not exist", "flags", "RH003"),
		enter("seal-expired", "use a seal of the victim's that expired", "expired", "RH005"),
		enter("seal-far-future", "use a seal that is good for an hour", "far", "RH005"),
		enter("seal-other-cell", "use a seal for another cell", "cell", "RH003"),
		enter("seal-other-generation", "use a seal of another placement", "generation", "RH001"),
		enter("seal-unknown-key", "name a key that is not there", "kid", "RH003"),
		enter("seal-ended-key", "use a seal under a key that ended", "ended", "RH003"),
		carry("carry-swapped", "put a forged seal where the tenant is carried", "swapped"),
		carry("carry-guessed", "put a seal by another key there", "guessed"),
		carry("carry-expired", "put an expired seal there", "expired"),
		carry("carry-far-future", "put a seal that is good for an hour there", "far"),
		carry("carry-other-cell", "put a seal for another cell there", "cell"),
		carry("carry-ended-key", "put a seal under a key that ended there", "ended"),
		carry("carry-cut", "put a cut seal there", "cut"),
		{ID: "carry-own", Vector: Seal, Success: Wrote, Tries: "carry the own seal without entering, past a fence", script: script{
			refused: "42501 RH003", ours: true,
			session: []string{"BEGIN", "SET LOCAL {set} = '{carry:own}{began}'", "INSERT INTO {own}.note (id, title) VALUES (56, 'guess')"}}},
		{ID: "carry-session", Tries: "put there for the session what was carried when the victim was entered", script: script{
			refused: "42501 RH003", session: []string{"SET {set} = '{carry:entered}'", "SELECT title FROM {their}.note"}}},
	})
}

// contexts are transactions without a tenant, or whose tenant is over.
func contexts() []Attack {
	list := each(Context, Password, Read, []Attack{
		{ID: "no-context", Tries: "read without entering, where the victim was just before", script: script{
			session: []string{"SELECT title FROM {their}.note"}, refused: "42501"}},
		{ID: "empty-context", Tries: "read with an empty tenant", script: script{
			session: []string{"SET {set} = ''", "SELECT title FROM {their}.note"}, refused: "42501"}},
		{ID: "every-table", Tries: "read every table in sight", script: script{do: everyTable, refused: "42501"}},
	})
	return append(list, each(Context, Seal, Read, []Attack{
		{ID: "every-table-sealed", Tries: "read every table in sight, inside one's own tenant", script: script{do: everyTableSealed}},
		{ID: "after-commit", Tries: "read after the commit", script: script{
			session: []string{"BEGIN", "{enter}", "COMMIT", "SELECT title FROM {their}.note"}, refused: "42501"}},
		{ID: "after-rollback", Tries: "read after a rollback", script: script{
			session: []string{"BEGIN", "{enter}", "ROLLBACK", "SELECT title FROM {their}.note"}, refused: "42501"}},
		{ID: "after-savepoint", Tries: "read after the savepoint in which the tenant was entered", script: script{
			session: []string{"BEGIN", "SAVEPOINT s", "{enter}", "ROLLBACK TO s", "SELECT title FROM {their}.note"}, refused: "42501"}},
		{ID: "enter-twice", Tries: "enter again what was entered, to change it", script: script{
			session: []string{"BEGIN", "{enter}", "{enter}"}, refused: "RH004"}},
		{ID: "autocommit", Tries: "enter in one transaction and read in the next", script: script{
			session: []string{"{enter}", "SELECT title FROM {their}.note"}, refused: "42501"}},
	})...)
}

// residue is what one tenant's transaction leaves on a session that a pool gives to the next.
func residue() []Attack {
	return each(Residue, Injection, Read, []Attack{
		{ID: "prepared-statements", Tries: "read the statements that the session remembers", script: script{
			inject: ` UNION ALL SELECT statement FROM pg_prepared_statements`, refused: "42501", revoked: true}},
		{ID: "prepared-statements-xml", Tries: "read them by query_to_xml", script: script{
			inject:  ` UNION ALL SELECT query_to_xml('SELECT * FROM pg_prepared_statements', true, false, '')::text`,
			refused: "42501", revoked: true}},
		{ID: "held-cursor", Tries: "fetch from a cursor that the victim left open", script: script{
			before:    `DECLARE held CURSOR WITH HOLD FOR SELECT title FROM {their}.note`,
			statement: `FETCH ALL FROM held`, refused: "verb"}},
		{ID: "cursors", Tries: "read what cursors of the session ask for", script: script{
			before: `DECLARE asked CURSOR WITH HOLD FOR SELECT title FROM {their}.note WHERE title <> '{secret}'`,
			inject: ` UNION ALL SELECT statement FROM pg_cursors`, refused: "42501", revoked: true}},
		{ID: "temp-table", Tries: "read a temporary table of the victim's", script: script{
			before: `CREATE TEMP TABLE kept AS SELECT title FROM {their}.note`,
			inject: ` UNION ALL SELECT title FROM kept`, refused: "42P01"}},
		{ID: "select-into-temp", Tries: "read a temporary table that a SELECT made", script: script{
			before: `SELECT title INTO TEMP held_on FROM {their}.note`,
			inject: ` UNION ALL SELECT title FROM held_on`, refused: "42P01"}},
		{ID: "seed", Success: Told, Tries: "seed the session's random numbers for the next tenant", script: script{
			inject: ` OR setseed(0.5) IS NULL`, refused: "42501", revoked: true}},
		{ID: "leftover", Vector: Password, Success: Stopped, Tries: "leave something where the tenant is carried, for the session",
			script: script{do: leftover}},
		{ID: "cancelled", Tries: "read after the victim's call was cancelled at any point", script: script{do: cancelled, ours: true}},
	})
}
