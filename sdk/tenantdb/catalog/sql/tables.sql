-- Row security of tenants' tables, and their columns.

-- R01
SELECT name AS object, 'row security is not enabled' AS what, format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY;', name) AS mend
FROM jt WHERE NOT relrowsecurity

-- R02
SELECT name AS object, 'row security is not forced on the owner' AS what, format('ALTER TABLE %s FORCE ROW LEVEL SECURITY;', name) AS mend
FROM jt WHERE NOT relforcerowsecurity

-- R03
SELECT name AS object, 'there is no restrictive policy on the tenant for all commands and all roles' AS what,
	format('SELECT %I.secure(%L);', (SELECT own_schema FROM input), name) AS mend
FROM jt WHERE oid NOT IN (SELECT pol.oid FROM pol WHERE '*' = ANY (pol.bound))

-- R04
SELECT format('%s policy %I', name, polname) AS object, 'the policy on the tenant does not check new rows as it checks old ones' AS what,
	format('SELECT %I.secure(%L);', (SELECT own_schema FROM input), name) AS mend
FROM pol WHERE NOT polpermissive AND (polcmd IN ('*', 'w') AND qual_own OR polcmd = 'a' AND chk_aware) AND NOT chk_own

-- R05
SELECT format('%s policy %I', name, polname) AS object, 'a permissive policy ignores the tenant, and no restrictive one binds it' AS what,
	format('SELECT %I.secure(%L);', (SELECT own_schema FROM input), name) AS mend
FROM pol WHERE polpermissive AND NOT aware AND NOT bound && ARRAY['*', polcmd]::"char"[]

-- R34
SELECT format('%s policy %I', name, polname) AS object, 'the policy asks for the context once per row: call it in a scalar sub-select' AS what,
	format('SELECT %I.secure(%L);', (SELECT own_schema FROM input), name) AS mend
FROM pol WHERE often

-- R41
SELECT jt.name AS object, 'the table is in the schema of one tenant and takes rows of others' AS what,
	format('SELECT %I.secure(%L);', (SELECT own_schema FROM input), jt.name) AS mend
FROM jt JOIN ns ON ns.oid = jt.relnamespace AND ns.nspname ~ '^t_[0-9a-f]{32}$'
WHERE NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = jt.oid AND k.conname = 'tenant_home'
	AND pg_get_constraintdef(k.oid) = format('CHECK ((%s = %L::uuid))', jt.col, substring(ns.nspname FROM 3)::uuid))

-- R23
SELECT name AS object, format('column %s may be null', col) AS what, format('ALTER TABLE %s ALTER COLUMN %s SET NOT NULL;', name, col) AS mend
FROM jt WHERE NOT attnotnull

-- R33
SELECT format('%s.%I', jt.name, a.attname) AS object, 'an identity column tells how many rows others have: use a UUID of version 7' AS what,
	format('ALTER TABLE %s ALTER COLUMN %I DROP IDENTITY;', jt.name, a.attname) AS mend
FROM jt JOIN pg_attribute a ON a.attrelid = jt.oid AND a.attnum > 0 AND a.attidentity <> '' AND NOT a.attisdropped

-- R39
SELECT format_type(t.oid, NULL) AS object, format('%s in a schema of tenants: its number differs from schema to schema',
	CASE t.typtype WHEN 'e' THEN 'an enum' WHEN 'd' THEN 'a domain' ELSE 'a composite type' END) AS what, '' AS mend
FROM input, tenants JOIN pg_type t ON t.typnamespace = tenants.oid LEFT JOIN pg_class c ON c.oid = t.typrelid
WHERE (t.typtype IN ('e', 'd') OR t.typtype = 'c' AND c.relkind = 'c') AND (NOT input.touched OR age(t.xmin) <= 0)
