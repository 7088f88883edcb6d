-- What the rules look at. Every rule is a SELECT over these; package catalog puts the chosen
-- ones behind them, so that one statement reads each catalog once. It runs with search_path
-- = pg_catalog, pg_temp, as any role: nothing here is readable by superusers only.
--
-- Only columns that PostgreSQL 15 to 18 have are named; among the catalogs pg_parameter_acl
-- and pg_publication_namespace are of 15. Rights are read from the ACLs themselves, so that
-- privileges which a release adds (MAINTAIN, in 17) need no function that knows them.
WITH RECURSIVE input AS MATERIALIZED (
	SELECT $1::text AS app, coalesce(nullif($2::text, ''), (
		SELECT r.rolname::text FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner
		WHERE n.nspname = 'app' AND r.rolname LIKE 'rowhouse\_owner\_%'), 'rowhouse_owner') AS owner, $3::text AS security, $4::text AS tenant_column, $5::text AS schemas,
		$6::text[] AS context, $7::text AS own_schema, $8::text[] AS carriers, $9::text[] AS definers, $10::int[] AS floors,
		$11::boolean AS dedicated, $12::boolean AS touched, $13::jsonb AS shipped
),

-- Roles. The app is its group role and the logins that may connect to this database.
login AS MATERIALIZED (
	SELECT r.oid FROM pg_roles r, input
	WHERE r.rolname = input.app OR starts_with(r.rolname::text, input.app || '_')
		AND has_database_privilege(r.oid, current_database(), 'CONNECT')
),
-- The login of the app whose database this is, and where its settings for this database are kept. Other apps' logins are of R35.
own_login AS MATERIALIZED (
	SELECT r.oid, r.rolname, d.oid AS database, format('role %I in database %I', r.rolname, d.datname) AS here,
		format('ALTER ROLE %I IN DATABASE %I', r.rolname, d.datname) AS alter
	FROM login JOIN pg_roles r USING (oid) JOIN pg_database d ON d.datname = current_database()
	WHERE r.rolcanlogin AND r.rolname = (SELECT replace(o.rolname, 'rowhouse_owner_', 'rowhouse_app_')
		FROM pg_namespace n JOIN pg_roles o ON o.oid = n.nspowner WHERE n.nspname = 'app')
),
-- Every membership counts, also one without INHERIT or SET (16 and later): an ADMIN option turns it into the others.
becomes(oid) AS (
	SELECT oid FROM login
	UNION SELECT m.roleid FROM becomes b JOIN pg_auth_members m ON m.member = b.oid
),
-- Whose rights are the app's. That it can become the owner or a predefined role is a finding by itself, and would
-- otherwise be one for each table.
who AS MATERIALIZED (
	SELECT r.oid, quote_ident(r.rolname) AS name FROM becomes JOIN pg_roles r USING (oid), input
	WHERE r.rolname NOT IN (input.owner, input.security) AND r.rolname NOT LIKE 'pg\_%'
	UNION ALL SELECT 0, 'PUBLIC'
),

-- Schemas that hold what is judged.
ns AS MATERIALIZED (
	SELECT n.oid, n.nspname, coalesce(n.nspacl, acldefault('n', n.nspowner)) AS acl, NOT input.touched OR age(n.xmin) <= 0 AS judged
	FROM pg_namespace n, input
	WHERE n.nspname NOT IN ('information_schema', input.own_schema) AND n.nspname NOT LIKE 'pg\_%' AND n.nspname ~ input.schemas
),
rel AS MATERIALIZED (
	SELECT c.oid, c.relkind, c.relowner, c.relacl, c.relrowsecurity, c.relforcerowsecurity, c.reloptions, c.relreplident, c.relnamespace,
		c.xmin, format('%I.%I', ns.nspname, c.relname) AS name, a.attnum AS tenant, a.attnotnull, quote_ident(input.tenant_column) AS col
	FROM input, ns JOIN pg_class c ON c.relnamespace = ns.oid
	LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = (SELECT tenant_column FROM input) AND NOT a.attisdropped
	WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
),

-- Which view reads which relation.
uses AS MATERIALIZED (
	SELECT DISTINCT w.ev_class AS view, d.refobjid AS of
	FROM rel JOIN pg_rewrite w ON w.ev_class = rel.oid
	JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass
	WHERE rel.relkind IN ('v', 'm') AND d.refobjid <> w.ev_class
),

-- A migration is judged by what it touched: relations on which it holds a lock that readers and writers do not take,
-- which is left of dropped policies and comments, too; and those with a new row in the catalogs, which is left of a
-- GRANT. A row is ours when it is not older than our transaction; one that another committed meanwhile may count.
touched(oid) AS MATERIALIZED (
	-- The parameter itself, which the planner sees: logins that may not look at locks audit all but transactions.
	SELECT l.relation FROM pg_locks l
	WHERE $12::boolean AND l.locktype = 'relation' AND l.pid = pg_backend_pid()
		AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
		AND l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')
	UNION SELECT rel.oid FROM rel, input WHERE input.touched AND age(rel.xmin) <= 0
	UNION SELECT a.attrelid FROM input, rel JOIN pg_attribute a ON a.attrelid = rel.oid
		WHERE input.touched AND a.attnum > 0 AND age(a.xmin) <= 0
),
-- Views are judged with the tables they read, and the reverse.
judged(oid) AS (
	SELECT rel.oid FROM rel, input WHERE NOT input.touched OR rel.oid IN (SELECT oid FROM touched)
	UNION SELECT e.b FROM judged j JOIN (SELECT view AS a, of AS b FROM uses UNION ALL SELECT of, view FROM uses) e ON e.a = j.oid
),

-- Tables of tenants, and those of them that are judged.
tt AS MATERIALIZED (SELECT * FROM rel WHERE tenant IS NOT NULL AND relkind IN ('r', 'p')),
jt AS MATERIALIZED (SELECT * FROM tt WHERE oid IN (SELECT oid FROM judged)),

-- Schemas that hold tenants' tables.
tenants AS MATERIALIZED (SELECT DISTINCT relnamespace AS oid FROM tt),

-- Rights on relations that the app has and did not get by owning them.
granted AS MATERIALIZED (
	SELECT rel.oid, x.privilege_type AS privilege, who.name AS to
	FROM rel, aclexplode(rel.relacl) x JOIN who ON who.oid = x.grantee WHERE x.grantee <> rel.relowner
	UNION
	SELECT rel.oid, x.privilege_type, who.name
	FROM rel JOIN pg_attribute a ON a.attrelid = rel.oid AND a.attacl IS NOT NULL, aclexplode(a.attacl) x JOIN who ON who.oid = x.grantee
	WHERE x.grantee <> rel.relowner
),
-- Rows that the app can read or write, and the REVOKE that ends it.
reached AS MATERIALIZED (
	SELECT g.oid, format('REVOKE ALL ON %s FROM %s;', rel.name, string_agg(DISTINCT g.to, ', ')) AS mend
	FROM granted g JOIN rel ON rel.oid = g.oid
	WHERE g.privilege IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE') AND rel.relkind <> 'S' GROUP BY g.oid, rel.name
),
-- Views above tenants' tables, and views that the app reads, itself or through others.
over(oid) AS (
	SELECT u.view FROM uses u JOIN tt ON tt.oid = u.of
	UNION SELECT u.view FROM over o JOIN uses u ON u.of = o.oid
),
shown(oid) AS (
	SELECT r.oid FROM reached r JOIN rel ON rel.oid = r.oid WHERE rel.relkind IN ('v', 'm')
	UNION SELECT u.of FROM shown s JOIN uses u ON u.view = s.oid JOIN rel ON rel.oid = u.of WHERE rel.relkind IN ('v', 'm')
),

-- Policies as text. A thousand tables share a few expressions, and showing one costs more than a digest of its stored
-- form. That names columns by number, so two tables share one where the tenant column has the same number. Showing one
-- opens its table, so a migration shows those of tables that it holds anyway.
stored AS MATERIALIZED (
	SELECT p.oid, jt.oid AS rel, jt.name, jt.tenant, p.polname, p.polpermissive, p.polcmd, p.polroles,
		sha256(convert_to(p.polqual::text, 'UTF8')) AS qual, sha256(convert_to(p.polwithcheck::text, 'UTF8')) AS chk
	FROM pg_policy p JOIN jt ON jt.oid = p.polrelid
),
shown_as AS MATERIALIZED (
	SELECT s.tree, s.tenant, min(pg_get_expr(CASE WHEN s.is_qual THEN p.polqual ELSE p.polwithcheck END, p.polrelid)) AS text
	FROM (
		SELECT qual AS tree, tenant, min(oid) AS oid, true AS is_qual FROM stored WHERE qual IS NOT NULL GROUP BY 1, 2
		UNION ALL SELECT chk, tenant, min(oid), false FROM stored WHERE chk IS NOT NULL GROUP BY 1, 2
	) s JOIN pg_policy p ON p.oid = s.oid GROUP BY s.tree, s.tenant
),
-- What an expression does: own says that it binds a row to the context and nothing else, aware that it asks for the
-- context at all, often that it asks outside of a scalar sub-select.
expr AS MATERIALIZED (
	SELECT x.tree, x.tenant, coalesce(bool_or(x.text = format(f.form, quote_ident(input.tenant_column), fn, quote_ident(split_part(fn, '.', 2)))), false) AS own,
		coalesce(bool_or(position(fn || '(' IN x.text) > 0), false) AS aware,
		coalesce(bool_or(position(fn || '(' IN replace(x.text, '( SELECT ' || fn || '(', '')) > 0), false) AS often
	FROM input, unnest(input.context) fn, shown_as x, (VALUES
		('(%1$s = ( SELECT %2$s() AS %3$s))'), ('(( SELECT %2$s() AS %3$s) = %1$s)'), ('(%1$s = %2$s())'), ('(%2$s() = %1$s)')) f(form)
	GROUP BY x.tree, x.tenant
),
-- bound are the commands for which the table's restrictive policies bind rows to the context.
pol AS MATERIALIZED (
	SELECT p.*, coalesce(array_agg(p.polcmd) FILTER (WHERE NOT p.polpermissive AND p.polroles = '{0}' AND (p.qual_own OR p.polcmd = 'a' AND p.chk_own))
		OVER (PARTITION BY p.oid), '{}') AS bound
	FROM (
		SELECT s.rel AS oid, s.name, s.polname, s.polpermissive, s.polcmd, s.polroles, coalesce(q.own, false) AS qual_own, coalesce(c.own, false) AS chk_own,
			coalesce(q.aware, c.aware, false) AS aware, coalesce(c.aware, false) AS chk_aware, coalesce(q.often, false) OR coalesce(c.often, false) AS often
		FROM stored s LEFT JOIN expr q ON q.tree = s.qual AND q.tenant = s.tenant LEFT JOIN expr c ON c.tree = s.chk AND c.tenant = s.tenant
	) p
),

-- Functions that the audit knows by name and the app should not call. Some of them count what others hold and do.
builtin AS MATERIALIZED (
	SELECT p.oid, p.proname, p.proacl, p.proowner,
		(p.proname LIKE 'pg\_stat\_get\_%' OR p.proname LIKE 'pg\_%\_size' OR p.proname LIKE 'pg\_%file%' OR p.proname LIKE 'pg\_%block%'
			OR p.proname IN ('pg_get_replication_slots', 'pg_notification_queue_usage')) AND p.proname NOT LIKE '%activity' AS counts
	FROM pg_proc p
	WHERE p.pronamespace = 'pg_catalog'::regnamespace AND (p.proname IN (
		'set_config', 'pg_cancel_backend', 'pg_terminate_backend', 'pg_notify',
		'pg_database_size', 'pg_tablespace_size', 'pg_relation_size', 'pg_table_size', 'pg_indexes_size',
		'pg_total_relation_size', 'pg_relation_filepath', 'pg_relation_filenode', 'pg_filenode_relation',
		'pg_blocking_pids', 'pg_safe_snapshot_blocking_pids', 'pg_isolation_test_session_is_blocked',
		'pg_get_replication_slots', 'pg_notification_queue_usage',
		'pg_logical_emit_message', 'pg_export_snapshot', 'currtid2', 'loread', 'lowrite',
		'pg_prepared_statement', 'pg_cursor', 'pg_lock_status', 'setseed')
		OR p.proname LIKE 'lo\_%' OR p.proname LIKE 'pg\_%advisory%' OR p.proname LIKE 'pg\_stat\_get\_%')
),

-- Where the tenant is carried shows in tenant_id(): it checks again, as its owner, on rung L2a only. Whether the
-- rights in pg_catalog are ours to take shows in whether any was taken; lo_import and lo_export are so from the start.
facts AS MATERIALIZED (
	SELECT current_setting('server_version_num')::int AS version,
		(SELECT CASE WHEN p.prosecdef THEN 'L2a' ELSE 'L2b' END FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
			WHERE n.nspname = (SELECT own_schema FROM input) AND p.proname = 'tenant_id' AND p.pronargs = 0) AS rung,
		EXISTS (SELECT FROM builtin b WHERE NOT b.counts AND b.proname NOT IN ('lo_import', 'lo_export') AND b.proacl IS NOT NULL
			AND NOT EXISTS (SELECT FROM aclexplode(b.proacl) x WHERE x.grantee = 0)) AS revoked
)
