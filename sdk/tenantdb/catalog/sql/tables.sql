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
FROM jt WHERE NOT EXISTS (SELECT FROM pol JOIN own ON own.qual = pol.qual
	WHERE pol.polrelid = jt.oid AND NOT pol.polpermissive AND pol.polcmd = '*' AND pol.polroles = '{0}')

-- R04
SELECT format('%s policy %I', jt.name, pol.polname) AS object, 'the policy on the tenant does not check new rows as it checks old ones' AS what,
	format('SELECT %I.secure(%L);', (SELECT own_schema FROM input), jt.name) AS mend
FROM jt JOIN pol ON pol.polrelid = jt.oid AND NOT pol.polpermissive
WHERE (pol.polcmd IN ('*', 'w') AND EXISTS (SELECT FROM own WHERE own.qual = pol.qual)
		OR pol.polcmd = 'a' AND position((SELECT context[1] FROM input) IN coalesce(pol.chk, '')) > 0)
	AND NOT EXISTS (SELECT FROM own WHERE own.qual = pol.chk)

-- R05
SELECT format('%s policy %I', jt.name, pol.polname) AS object, 'a permissive policy ignores the tenant, and no restrictive one binds it' AS what,
	format('SELECT %I.secure(%L);', (SELECT own_schema FROM input), jt.name) AS mend
FROM jt JOIN pol ON pol.polrelid = jt.oid AND pol.polpermissive
WHERE NOT EXISTS (SELECT FROM input, unnest(input.context) fn WHERE position(fn || '(' IN coalesce(pol.qual, pol.chk, '')) > 0)
	AND NOT EXISTS (SELECT FROM pol r JOIN own ON own.qual = coalesce(r.qual, r.chk)
		WHERE r.polrelid = jt.oid AND NOT r.polpermissive AND r.polroles = '{0}' AND r.polcmd IN ('*', pol.polcmd))

-- R34
SELECT format('%s policy %I', jt.name, pol.polname) AS object, 'the policy asks for the context once per row: call it in a scalar sub-select' AS what,
	format('SELECT %I.secure(%L);', (SELECT own_schema FROM input), jt.name) AS mend
FROM jt JOIN pol ON pol.polrelid = jt.oid
WHERE EXISTS (SELECT FROM input, unnest(input.context) fn
	WHERE position(fn || '(' IN replace(concat(pol.qual, ' ', pol.chk), '( SELECT ' || fn || '(', '')) > 0)

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
FROM ns JOIN pg_type t ON t.typnamespace = ns.oid, input
WHERE (t.typtype IN ('e', 'd') OR t.typtype = 'c' AND EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c'))
	AND EXISTS (SELECT FROM tt WHERE tt.relnamespace = ns.oid) AND (NOT input.touched OR age(t.xmin) <= 0)
