package sqlattack

// inline are attacks of an injection that wants to become another tenant, or to see what is
// not its own, inside the one statement that it can change.
func inline() []Attack {
	list := []Attack{
		{ID: "always-true", Tries: "make the WHERE true for every row", script: script{inject: ` OR true`}},
		{ID: "or-set-config", Tries: "change the tenant in the WHERE, which may be evaluated before the policy",
			script: script{inject: ` OR set_config('{set}', '{victim}', true) IS NOT NULL`, refused: "42501", revoked: true}},
		{ID: "cte-set-config", Tries: "change the tenant in a materialized CTE", script: script{
			inject: ` UNION ALL (WITH x AS MATERIALIZED (SELECT set_config('{set}', '{victim}', true) s) ` +
				`SELECT title FROM x, {own}.note WHERE s <> '')`, refused: "42501", revoked: true}},
		{ID: "xml-set-config", Tries: "change the tenant in a query that query_to_xml runs", script: script{
			inject: ` AND query_to_xml('SELECT set_config(''{set}'', ''{victim}'', true)', true, false, '') IS NULL ` +
				`UNION ALL SELECT title FROM {own}.note`, refused: "42501", revoked: true}},
		{ID: "subselect-set-config", Tries: "change the tenant in a sub-select, for the session", script: script{
			inject: ` OR (SELECT set_config('{set}', '{victim}', false)) <> ''`, refused: "42501", revoked: true}},
		{ID: "union-victim", Tries: "name the other tenant in a UNION", script: script{
			inject: ` UNION ALL SELECT title FROM {own}.note WHERE tenant_id = '{victim}'`}},
		{ID: "pg-settings", Tries: "change the tenant by the view pg_settings", script: script{
			statement: `UPDATE pg_settings SET setting = '{victim}' WHERE name = '{set}'`, refused: "42501", revoked: true}},
		{ID: "enter-again", Tries: "enter a second tenant", script: script{
			inject: ` OR {forge:cut} IS NULL`, refused: "RH004"}},
		{ID: "leaky-function", Tries: "look at rows with a function that is not leakproof, before the policy", script: script{
			inject: ` OR (title || '')::text LIKE '%{canary}%'`}},
	}
	return each(list, Inline, Injection, Read)
}

// stacked are further statements, and utility statements, of an injection and of a thief.
func stacked() []Attack {
	list := []Attack{
		{ID: "second-statement", Tries: "put a second statement behind the first", script: script{
			inject: `; SELECT title FROM {own}.note`, refused: "42601"}},
		{ID: "second-statement-set", Tries: "put a SET behind the first statement", script: script{
			inject: `; SET {set} = '{victim}'; SELECT title FROM {own}.note`, refused: "42601"}},
	}
	list = each(list, Stacked, Injection, Read)
	thief := []Attack{
		{ID: "set", Tries: "SET the tenant after entering", script: script{
			session: []string{"BEGIN", "{enter}", "SET {set} = '{victim}'", "SELECT title FROM {own}.note"}, refused: "42501 RH003"}},
	}
	return append(list, each(thief, Stacked, Seal, Read)...)
}

// each fills in what all of a list have in common.
func each(list []Attack, f Family, v Vector, success Outcome) []Attack {
	for i := range list {
		if list[i].Family = f; list[i].Vector == "" {
			list[i].Vector = v
		}
		if list[i].Success == "" {
			list[i].Success = success
		}
	}
	return list
}
