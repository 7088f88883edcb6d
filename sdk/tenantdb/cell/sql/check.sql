-- What would let an application reach rows of another tenant, or owners lose track of
-- theirs: one row per finding. Tables of tenants are those with a column tenant_id; other
-- tables that the app can reach say 'tenancy:global' in their comment. R numbers are those
-- of the catalog audit.
WITH ns AS (
	SELECT n.oid, n.nspname FROM pg_catalog.pg_namespace n
	WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'rowhouse') AND n.nspname NOT LIKE 'pg\_%'
), rel AS (
	SELECT c.oid, c.relname, c.relkind, c.relowner, c.relrowsecurity, c.relforcerowsecurity, c.reloptions,
		pg_catalog.format('%I.%I', ns.nspname, c.relname) AS name, a.attnum, a.attnotnull,
		pg_catalog.has_table_privilege('rowhouse_app', c.oid, 'SELECT, INSERT, UPDATE, DELETE')
			OR pg_catalog.has_any_column_privilege('rowhouse_app', c.oid, 'SELECT, INSERT, UPDATE') AS reached
	FROM pg_catalog.pg_class c JOIN ns ON ns.oid = c.relnamespace
	LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
	WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
), tt AS (
	SELECT * FROM rel WHERE attnum IS NOT NULL AND relkind IN ('r', 'p')
), pol AS (
	SELECT p.polrelid, p.polpermissive, p.polname, p.polcmd, p.polroles,
		pg_catalog.pg_get_expr(p.polqual, p.polrelid) AS qual, pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) AS chk
	FROM pg_catalog.pg_policy p
), own(qual) AS (
	VALUES ('(tenant_id = ( SELECT rowhouse.tenant_id() AS tenant_id))')
)
SELECT 'R01', name, 'row security is not enabled' FROM tt WHERE NOT relrowsecurity
UNION ALL SELECT 'R02', name, 'row security is not forced' FROM tt WHERE NOT relforcerowsecurity
UNION ALL SELECT 'R03', name, 'no restrictive tenant policy for all commands and roles; call rowhouse.secure' FROM tt
WHERE NOT EXISTS (SELECT FROM pol, own WHERE pol.polrelid = tt.oid AND NOT pol.polpermissive
	AND pol.polcmd = '*' AND pol.polroles = '{0}' AND pol.qual = own.qual)
UNION ALL SELECT 'R04', name, 'the tenant policy does not check new rows' FROM tt
WHERE EXISTS (SELECT FROM pol, own WHERE pol.polrelid = tt.oid AND NOT pol.polpermissive
	AND pol.qual = own.qual AND pol.chk IS DISTINCT FROM own.qual)
UNION ALL SELECT 'R09', name, 'not owned by rowhouse_owner' FROM rel WHERE relowner <> 'rowhouse_owner'::regrole
UNION ALL SELECT 'R10', tt.name, pg_catalog.format('key %s does not lead with tenant_id', i.indexrelid::regclass)
FROM tt JOIN pg_catalog.pg_index i ON i.indrelid = tt.oid
WHERE (i.indisunique OR i.indisexclusion) AND i.indkey[0] <> tt.attnum
UNION ALL SELECT 'R11', tt.name, pg_catalog.format('foreign key %s does not pair tenant_id with tenant_id', k.conname)
FROM tt JOIN pg_catalog.pg_constraint k ON k.conrelid = tt.oid AND k.contype = 'f' JOIN tt f ON f.oid = k.confrelid
WHERE k.confkey[pg_catalog.array_position(k.conkey, tt.attnum)] IS DISTINCT FROM f.attnum
UNION ALL SELECT 'R13', name, 'view without security_invoker is granted to the app' FROM rel
WHERE relkind = 'v' AND reached AND NOT coalesce(reloptions, '{}') && '{security_invoker=true,security_invoker=on,security_invoker=1}'
UNION ALL SELECT 'R14', name, 'materialized view is granted to the app' FROM rel WHERE relkind = 'm' AND reached
UNION ALL SELECT 'R15', p.oid::regprocedure::text, 'function with its owner''s rights is executable by the app'
FROM pg_catalog.pg_proc p JOIN ns ON ns.oid = p.pronamespace
WHERE p.prosecdef AND pg_catalog.has_function_privilege('rowhouse_app', p.oid, 'EXECUTE')
UNION ALL SELECT 'R16', tt.name, 'partition is granted to the app' FROM tt
WHERE reached AND EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = tt.oid)
UNION ALL SELECT 'R17', name, 'TRUNCATE, REFERENCES or TRIGGER is granted to the app' FROM rel
WHERE pg_catalog.has_table_privilege('rowhouse_app', oid, 'TRUNCATE, REFERENCES, TRIGGER')
UNION ALL SELECT 'R18', nspname, 'the app may create in the schema' FROM ns
WHERE pg_catalog.has_schema_privilege('rowhouse_app', oid, 'CREATE')
UNION ALL SELECT 'R23', name, 'tenant_id may be null' FROM tt WHERE NOT attnotnull
UNION ALL SELECT 'R25', name, 'the app reaches a table without tenant_id whose comment is not tenancy:global' FROM rel
WHERE reached AND attnum IS NULL AND relkind IN ('r', 'p')
	AND coalesce(pg_catalog.obj_description(oid, 'pg_class'), '') !~ '^tenancy:global\M'
UNION ALL SELECT 'R27', name, 'foreign table is granted to the app' FROM rel WHERE relkind = 'f' AND reached
UNION ALL SELECT 'R31', tt.name, pg_catalog.format('trigger %s runs with its owner''s rights', t.tgname)
FROM tt JOIN pg_catalog.pg_trigger t ON t.tgrelid = tt.oid AND NOT t.tgisinternal
JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid WHERE p.prosecdef
ORDER BY 1, 2, 3
