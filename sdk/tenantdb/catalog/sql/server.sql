-- Roles, the database and its server.

-- R06
SELECT fn AS object, CASE p.provolatile WHEN 'i' THEN 'the context function is IMMUTABLE: a prepared statement would keep the first tenant'
		ELSE 'the context function is VOLATILE: no index serves a policy with it' END AS what,
	format('ALTER FUNCTION %s() STABLE;', fn) AS mend
-- Not to_regprocedure: it wants USAGE on the schema, which an auditor's login need not have.
FROM input, unnest(input.context) fn
JOIN pg_proc p ON p.pronargs = 0 AND p.pronamespace <> 'pg_catalog'::regnamespace AND p.oid::regprocedure::text = fn || '()'
WHERE p.provolatile <> 's'

-- R07
SELECT format('role %I', r.rolname) AS object, format('the app is, or can become, a role with %s', array_to_string(a.rights, ', ')) AS what,
	format('ALTER ROLE %I NO%s;', r.rolname, array_to_string(a.rights, ' NO')) AS mend
FROM becomes JOIN pg_roles r USING (oid), LATERAL (SELECT array_remove(ARRAY[CASE WHEN r.rolsuper THEN 'SUPERUSER' END,
	CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END, CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END,
	CASE WHEN r.rolcreatedb THEN 'CREATEDB' END, CASE WHEN r.rolreplication THEN 'REPLICATION' END], NULL) AS rights) a
WHERE a.rights <> '{}'

-- R08
SELECT format('role %I', r.rolname) AS object, 'the app can become a predefined role, whose rights reach past row security' AS what,
	format('REVOKE %I FROM %s;', r.rolname, string_agg(quote_ident(pg_get_userbyid(m.member)), ', ')) AS mend
FROM becomes JOIN pg_roles r USING (oid) JOIN pg_auth_members m ON m.roleid = r.oid AND m.member IN (SELECT oid FROM becomes)
WHERE r.rolname LIKE 'pg\_%' GROUP BY r.rolname

-- R19
SELECT format('database %I', d.datname) AS object, 'the app may create temporary tables' AS what,
	format('REVOKE TEMPORARY ON DATABASE %I FROM %s;', d.datname, string_agg(who.name, ', ')) AS mend
FROM pg_database d, aclexplode(d.datacl) x JOIN who ON who.oid = x.grantee
WHERE d.datname = current_database() AND x.privilege_type = 'TEMPORARY' AND x.grantee <> 0 GROUP BY d.datname

-- R20
SELECT format('language %I', l.lanname) AS object, 'the app may use a procedural language, so DO runs' AS what,
	format('REVOKE USAGE ON LANGUAGE %I FROM %s;', l.lanname, string_agg(who.name, ', ')) AS mend
FROM pg_language l, aclexplode(coalesce(l.lanacl, acldefault('l', l.lanowner))) x JOIN who ON who.oid = x.grantee
WHERE l.lanispl AND l.lanpltrusted GROUP BY l.lanname

-- R21
SELECT b.oid::regprocedure::text AS object, 'the app may call it' AS what,
	format('REVOKE EXECUTE ON FUNCTION %s FROM %s;', b.oid::regprocedure, string_agg(who.name, ', ')) AS mend
FROM builtin b, aclexplode(coalesce(b.proacl, acldefault('f', b.proowner))) x JOIN who ON who.oid = x.grantee
WHERE NOT b.counts GROUP BY b.oid
UNION ALL
SELECT 'counters and sizes', format('the app may call %s functions that tell how much others hold and do, %s for one: run rowhouse cells init again',
	count(DISTINCT b.oid), min(b.oid::regprocedure::text)), ''
FROM builtin b, aclexplode(coalesce(b.proacl, acldefault('f', b.proowner))) x JOIN who ON who.oid = x.grantee
WHERE b.counts HAVING count(*) > 0

-- R22
SELECT c.oid::regclass::text AS object, 'the app may read the statements of others' AS what,
	format('REVOKE ALL ON %s FROM %s;', c.oid::regclass, string_agg(DISTINCT who.name, ', ')) AS mend
FROM pg_class c, aclexplode(c.relacl) x JOIN who ON who.oid = x.grantee
WHERE c.relname IN ('pg_stat_statements', 'pg_stat_statements_info') AND c.relkind = 'v' GROUP BY c.oid
UNION ALL
SELECT p.oid::regprocedure::text, 'the app may read the statements of others',
	format('REVOKE EXECUTE ON FUNCTION %s FROM %s;', p.oid::regprocedure, string_agg(DISTINCT who.name, ', '))
FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) x JOIN who ON who.oid = x.grantee
WHERE p.proname = 'pg_stat_statements' GROUP BY p.oid

-- R26
SELECT concat_ws(' in ', CASE WHEN s.setrole = 0 AND s.setdatabase = 0 THEN 'all roles' WHEN s.setrole <> 0 THEN format('role %I', r.rolname) END,
		CASE WHEN s.setdatabase <> 0 THEN format('database %I', current_database()) END) || ' setting ' || c.name AS object,
	'sessions of the app begin with a setting that decides what they see' AS what,
	format('ALTER %s RESET %s;', CASE WHEN s.setrole = 0 AND s.setdatabase <> 0 THEN format('DATABASE %I', current_database())
		ELSE format('ROLE %s', coalesce(quote_ident(r.rolname), 'ALL'))
			|| CASE WHEN s.setdatabase <> 0 THEN format(' IN DATABASE %I', current_database()) ELSE '' END END, c.name) AS mend
FROM input, pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) e, LATERAL (SELECT split_part(e, '=', 1) AS name) c
WHERE (s.setrole = 0 OR s.setrole IN (SELECT oid FROM becomes))
	AND (s.setdatabase = 0 OR s.setdatabase = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))
	AND (c.name IN ('row_security', 'search_path', 'session_replication_role', 'role') OR c.name = ANY (input.carriers))
UNION ALL
-- A login may make settings for itself, so who stole its password may have left some for the sessions of honest processes.
SELECT CASE WHEN s.setdatabase = 0 THEN format('role %I', o.rolname) ELSE o.here END || ' setting ' || c.name,
	'sessions of the app begin with a setting that cell.Init does not make: ' || e,
	format('%s RESET %s;', CASE WHEN s.setdatabase = 0 THEN format('ALTER ROLE %I', o.rolname) ELSE o.alter END, quote_ident(c.name))
FROM input, own_login o JOIN pg_db_role_setting s ON s.setrole = o.oid AND s.setdatabase IN (0, o.database),
	unnest(s.setconfig) e, LATERAL (SELECT split_part(e, '=', 1) AS name) c
WHERE c.name NOT IN ('row_security', 'search_path', 'session_replication_role', 'role') AND c.name <> ALL (input.carriers)
	AND NOT (s.setdatabase <> 0 AND c.name IN ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout',
		'client_connection_check_interval',
		'cpu_operator_cost', -- R42 judges it
		'temp_file_limit')) -- no login may set it
UNION ALL
SELECT o.here || ' setting ' || w.name, 'sessions of the app do not begin with what cell.Init sets, ' || CASE WHEN s.value IS NULL THEN 'but with the server''s value'
		ELSE 'but with ' || s.value END,
	format('%s SET %s = %L;', o.alter, w.name, w.usual)
FROM own_login o CROSS JOIN (VALUES ('statement_timeout', '^[1-9][0-9]*$', '30000'), ('lock_timeout', '^[1-9][0-9]*$', '5000'),
	('idle_in_transaction_session_timeout', '^[1-9][0-9]*$', '15000'), ('client_connection_check_interval', '^1s$', '1s')) w(name, form, usual)
LEFT JOIN LATERAL (SELECT substr(e, length(w.name) + 2) AS value FROM pg_db_role_setting s, unnest(s.setconfig) e
	WHERE s.setrole = o.oid AND s.setdatabase = o.database AND starts_with(e, w.name || '=')) s ON true
WHERE s.value IS NULL OR s.value !~ w.form

-- R32
SELECT 'server' AS object, CASE WHEN f.floor IS NULL THEN format('PostgreSQL %s.%s: no release of this major is known to be sound',
		facts.version / 10000, facts.version % 10000)
	ELSE format('PostgreSQL %s.%s is older than %s.%s: it has known holes', facts.version / 10000, facts.version % 10000, f.floor / 10000, f.floor % 10000)
	END AS what, '' AS mend
FROM facts LEFT JOIN (SELECT unnest(floors) AS floor FROM input) f ON f.floor / 10000 = facts.version / 10000
WHERE f.floor IS NULL OR facts.version < f.floor
UNION ALL
-- A cluster that was made before the fix of CVE-2024-4317 keeps the old view until its script is run.
SELECT 'pg_catalog.pg_stats_ext', 'it shows statistics of rows that the reader may not see: run fix-CVE-2024-4317.sql of the release', ''
WHERE position('pg_has_role' IN pg_get_viewdef('pg_stats_ext'::regclass)) = 0

-- R35
SELECT format('database %I', d.datname) AS object, format('everybody has %s on the database', string_agg(x.privilege_type, ', ' ORDER BY 1)) AS what,
	format('REVOKE ALL ON DATABASE %I FROM PUBLIC;', d.datname) AS mend
FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) x
WHERE d.datname = current_database() AND x.grantee = 0 GROUP BY d.datname

-- R36
SELECT 'parameter ' || a.parname AS object, 'others than the owner of schema ' || input.own_schema || ' may set what carries the tenant' AS what,
	format('REVOKE ALL ON PARAMETER %s FROM %s;', a.parname,
		string_agg(CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END, ', ')) AS mend
FROM input, pg_parameter_acl a, aclexplode(a.paracl) x LEFT JOIN pg_roles r ON r.oid = x.grantee
WHERE a.parname = ANY (input.carriers) AND (x.grantee = 0 OR r.rolname <> input.security AND NOT r.rolsuper)
GROUP BY a.parname, input.own_schema
UNION ALL
SELECT 'parameter ' || s.name, 'what carries the tenant is set for the whole server', format('ALTER SYSTEM RESET %s;', s.name)
FROM pg_settings s, input WHERE s.name = ANY (input.carriers) AND s.source IN ('configuration file', 'command line', 'environment variable')
UNION ALL
-- A setting of our own is not in pg_settings. Nothing was entered in this session, so a value came with it.
SELECT 'parameter ' || c, 'what carries the tenant is set before a tenant was entered', ''
FROM input, unnest(input.carriers) c WHERE position('.' IN c) > 0 AND coalesce(current_setting(c, true), '') <> ''

-- R37
WITH ours AS (SELECT n.oid, n.nspowner, n.nspacl FROM pg_namespace n JOIN input ON n.nspname = input.own_schema),
want_table AS (SELECT w.* FROM input, jsonb_to_recordset(input.shipped -> 'tables') w(name text, grants jsonb)),
want_function AS (
	SELECT w.* FROM input, facts, jsonb_to_recordset(input.shipped -> 'functions')
		w(name text, args int, rung text, definer boolean, body text, grants jsonb)
	WHERE w.rung IN ('', facts.rung)
),
-- A body in SQL's own form is kept parsed, and what PostgreSQL shows of it differs from what was written in blanks,
-- parentheses and casts of constants.
is_function AS (
	SELECT p.oid, p.proname::text AS name, p.pronargs::int AS args, p.proowner AS owner, p.prosecdef AS definer,
		coalesce(p.proacl, acldefault('f', p.proowner)) AS acl, p.prosecdef AND NOT EXISTS (
			SELECT FROM unnest(p.proconfig) c WHERE c = 'search_path=pg_catalog, pg_temp') AS loose,
		CASE WHEN p.prosqlbody IS NULL THEN p.prosrc ELSE replace(replace(replace(regexp_replace(pg_get_function_sqlbody(p.oid),
			'[\s()]', '', 'g'), 'pg_catalog.', ''), '::text', ''), 'doubleprecision', 'float8') END AS body
	FROM ours JOIN pg_proc p ON p.pronamespace = ours.oid
),
thing AS (
	SELECT 'schema ' || input.own_schema AS object, ours.oid IS NOT NULL AS there, true AS wanted, ours.nspowner AS owner, ours.nspacl AS acl,
		input.shipped -> 'schema' AS grants, NULL::text AS wrong
	FROM input LEFT JOIN ours ON true
	UNION ALL
	SELECT format('%I.%I', input.own_schema, coalesce(c.relname::text, w.name)), c.oid IS NOT NULL, w.name IS NOT NULL, c.relowner, c.relacl, w.grants, NULL
	FROM input JOIN ours ON true JOIN pg_class c ON c.relnamespace = ours.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
	LEFT JOIN want_table w ON w.name = c.relname::text
	UNION ALL
	SELECT format('%I.%I', input.own_schema, w.name), false, true, NULL, NULL, NULL, NULL
	FROM input JOIN ours ON true JOIN want_table w ON NOT EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = ours.oid AND c.relname::text = w.name)
	UNION ALL
	SELECT f.oid::regprocedure::text, true, w.name IS NOT NULL, f.owner, f.acl, w.grants, concat_ws('; ',
		CASE WHEN f.body IS DISTINCT FROM w.body THEN 'its body is not the one that was shipped' END,
		CASE WHEN f.definer <> w.definer THEN 'it runs with the rights of another than it should' END,
		CASE WHEN f.loose THEN 'its search_path is not pinned' END)
	FROM is_function f LEFT JOIN want_function w USING (name, args)
	UNION ALL
	SELECT format('%I.%I', input.own_schema, w.name), false, true, NULL, NULL, NULL, NULL
	FROM input JOIN ours ON true JOIN want_function w ON NOT EXISTS (SELECT FROM is_function f WHERE f.name = w.name AND f.args = w.args)
)
SELECT thing.object, wrong.list || ': run rowhouse cells init again' AS what, '' AS mend
FROM thing JOIN input ON input.shipped IS NOT NULL, LATERAL (
	SELECT coalesce(jsonb_agg(y.g ORDER BY y.g COLLATE "C"), '[]') AS grants FROM (
		SELECT concat(coalesce(r.rolname, 'PUBLIC'), ' ', x.privilege_type) AS g
		FROM aclexplode(thing.acl) x LEFT JOIN pg_roles r ON r.oid = x.grantee WHERE x.grantee <> thing.owner) y
) held, LATERAL (SELECT CASE WHEN NOT thing.there THEN 'it is missing' WHEN NOT thing.wanted THEN 'this release does not ship it'
	ELSE concat_ws('; ', CASE WHEN pg_get_userbyid(thing.owner) <> input.security THEN 'it belongs to ' || quote_ident(pg_get_userbyid(thing.owner)) END,
		CASE WHEN held.grants <> thing.grants THEN 'its grants are not those that were shipped' END, nullif(thing.wrong, '')) END AS list) wrong
WHERE wrong.list <> ''

-- R38
SELECT p.oid::regprocedure::text AS object, 'it is marked LEAKPROOF, and not by PostgreSQL: it sees rows before the policy does' AS what,
	format('ALTER FUNCTION %s NOT LEAKPROOF;', p.oid::regprocedure) AS mend
FROM pg_proc p, input
-- initdb writes its own marks as the bootstrap transaction, number 1 (2 once frozen by an old release); a copy of the
-- database keeps the number, ALTER FUNCTION does not. So no list has to be kept per release.
WHERE p.proleakproof AND NOT input.dedicated AND current_database() !~ '_[0-9a-f]{32}$' AND (p.oid >= 16384 OR p.xmin::text::bigint > 2)
	AND p.oid <> 'uuid_eq(uuid,uuid)'::regprocedure -- cell.Init set its cost; it is leakproof in every release

-- R42
SELECT p.oid::regprocedure::text AS object, 'it costs as much as a query''s own comparisons, which may then come before the policies' AS what,
	'ALTER FUNCTION pg_catalog.uuid_eq(uuid, uuid) COST 0.0001;' AS mend
FROM pg_proc p, input
WHERE p.oid = 'uuid_eq(uuid,uuid)'::regprocedure AND p.procost > 0.001 AND NOT input.dedicated AND current_database() !~ '_[0-9a-f]{32}$'
UNION ALL
SELECT format('role %I', o.rolname), 'its operators have a cost: a query''s own clauses may come before the policies',
	format('%s SET cpu_operator_cost = 0;', o.alter)
FROM input, own_login o
WHERE NOT input.dedicated AND current_database() !~ '_[0-9a-f]{32}$' AND NOT EXISTS (
	SELECT FROM pg_db_role_setting s, unnest(s.setconfig) e
	WHERE s.setrole = o.oid AND s.setdatabase = o.database AND e = 'cpu_operator_cost=0')

-- R40
SELECT 'setting ' || s.name AS object, CASE s.name WHEN 'ssl' THEN 'the server listens on the network without TLS'
		ELSE 'it is off: what was acknowledged may be lost' END AS what, format('ALTER SYSTEM SET %s = on;', s.name) AS mend
FROM pg_settings s
WHERE s.name IN ('fsync', 'synchronous_commit') AND s.reset_val = 'off'
	OR s.name = 'ssl' AND s.setting = 'off' AND EXISTS (SELECT FROM unnest(string_to_array(current_setting('listen_addresses'), ',')) a
		WHERE trim(a) NOT IN ('', 'localhost', '127.0.0.1', '::1'))
