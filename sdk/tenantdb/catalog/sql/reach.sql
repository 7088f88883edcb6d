-- What the app can reach beside rows behind a policy.

-- R09
SELECT rel.name AS object, format('it belongs to %I, not to %I', r.rolname, input.owner) AS what,
	format('ALTER TABLE %s OWNER TO %I;', rel.name, input.owner) AS mend
FROM input, rel JOIN pg_roles r ON r.oid = rel.relowner
WHERE rel.oid IN (SELECT oid FROM judged) AND (rel.oid IN (SELECT oid FROM tt) OR rel.oid IN (SELECT oid FROM over)) AND r.rolname <> input.owner
UNION ALL
SELECT format('role %I', r.rolname), format('the app can become %I, which owns what it must not', r.rolname),
	format('REVOKE %I FROM %s;', r.rolname, string_agg(quote_ident(pg_get_userbyid(m.member)), ', '))
FROM input, becomes JOIN pg_roles r USING (oid) JOIN pg_auth_members m ON m.roleid = r.oid AND m.member IN (SELECT oid FROM becomes)
WHERE r.rolname IN (input.owner, input.security) AND NOT input.touched GROUP BY r.rolname

-- R13
SELECT rel.name AS object, 'the view reads tenants'' rows with its owner''s rights, and the app reaches it' AS what,
	format('ALTER VIEW %s SET (security_invoker = true);', rel.name) AS mend
FROM rel WHERE rel.relkind = 'v' AND rel.oid IN (SELECT oid FROM over) AND rel.oid IN (SELECT oid FROM shown) AND rel.oid IN (SELECT oid FROM judged)
	AND NOT EXISTS (SELECT FROM pg_options_to_table(rel.reloptions) o WHERE o.option_name = 'security_invoker' AND o.option_value::boolean)

-- R14
SELECT rel.name AS object, 'a materialized view holds tenants'' rows without row security, and the app reaches it' AS what,
	coalesce((SELECT mend FROM reached WHERE reached.oid = rel.oid), '') AS mend
FROM rel WHERE rel.relkind = 'm' AND rel.oid IN (SELECT oid FROM over) AND rel.oid IN (SELECT oid FROM shown) AND rel.oid IN (SELECT oid FROM judged)

-- R15
SELECT p.oid::regprocedure::text AS object, concat_ws(' and ',
		CASE WHEN NOT allowed.is THEN 'the app may call a function that runs with its owner''s rights and is not on the list' END,
		CASE WHEN NOT pinned.is THEN 'a function that runs with its owner''s rights has no search_path of its own' END) AS what,
	concat_ws(' ', CASE WHEN NOT allowed.is THEN format('REVOKE EXECUTE ON FUNCTION %s FROM %s;', p.oid::regprocedure, string_agg(who.name, ', ')) END,
		CASE WHEN NOT pinned.is THEN format('ALTER FUNCTION %s SET search_path = pg_catalog, pg_temp;', p.oid::regprocedure) END) AS mend
FROM input, ns JOIN pg_proc p ON p.pronamespace = ns.oid, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) x
JOIN who ON who.oid = x.grantee,
	LATERAL (SELECT p.oid::regprocedure::text = ANY ((SELECT definers FROM input)::text[]) AS is) allowed,
	LATERAL (SELECT EXISTS (SELECT FROM unnest(p.proconfig) c WHERE starts_with(c, 'search_path=')) AS is) pinned
WHERE p.prosecdef AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
	AND (NOT input.touched OR age(p.xmin) <= 0) AND NOT (allowed.is AND pinned.is)
GROUP BY p.oid, allowed.is, pinned.is

-- R16
SELECT jt.name AS object, 'the app reaches a partition directly; its rows are reached through the parent' AS what, reached.mend AS mend
FROM jt JOIN reached USING (oid) WHERE EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = jt.oid)
UNION ALL
SELECT rel.name, format('the app reads rows of the table %s below it, whose policies do not bind here', jt.name), reached.mend
FROM jt JOIN pg_inherits i ON i.inhrelid = jt.oid JOIN rel ON rel.oid = i.inhparent AND rel.tenant IS NULL JOIN reached ON reached.oid = rel.oid

-- R17
SELECT rel.name AS object, format('the app has %s, which row security does not bind', string_agg(DISTINCT g.privilege, ', ')) AS what,
	format('REVOKE %s ON %s FROM %s;', string_agg(DISTINCT g.privilege, ', '), rel.name, string_agg(DISTINCT g.to, ', ')) AS mend
FROM rel JOIN granted g USING (oid)
WHERE g.privilege IN ('TRUNCATE', 'REFERENCES', 'TRIGGER', 'MAINTAIN') AND rel.oid IN (SELECT oid FROM judged) GROUP BY rel.name

-- R18
SELECT format('schema %I', ns.nspname) AS object, 'the app may create objects in the schema' AS what,
	format('REVOKE CREATE ON SCHEMA %I FROM %s;', ns.nspname, string_agg(who.name, ', ')) AS mend
FROM ns, aclexplode(ns.acl) x JOIN who ON who.oid = x.grantee WHERE x.privilege_type = 'CREATE' AND ns.judged GROUP BY ns.nspname
UNION ALL
SELECT format('database %I', d.datname), 'the app may create schemas in the database',
	format('REVOKE CREATE ON DATABASE %I FROM %s;', d.datname, string_agg(who.name, ', '))
FROM input, pg_database d, aclexplode(d.datacl) x JOIN who ON who.oid = x.grantee
WHERE d.datname = current_database() AND x.privilege_type = 'CREATE' AND x.grantee <> 0 AND NOT input.touched GROUP BY d.datname

-- R24
SELECT rel.name AS object, 'the app may use a sequence, which counts other tenants'' rows, too' AS what,
	format('REVOKE ALL ON SEQUENCE %s FROM %s;', rel.name, string_agg(DISTINCT g.to, ', ')) AS mend
FROM rel JOIN granted g USING (oid) WHERE rel.relkind = 'S' AND rel.oid IN (SELECT oid FROM judged) GROUP BY rel.name

-- R25
SELECT rel.name AS object, format('the app reaches rows without column %s, and no comment says that they are for all: tenancy:global', rel.col) AS what,
	reached.mend AS mend
FROM rel JOIN reached USING (oid)
WHERE rel.tenant IS NULL AND (rel.relkind IN ('r', 'p', 'f') OR rel.relkind = 'm' AND rel.oid NOT IN (SELECT oid FROM over))
	AND rel.oid IN (SELECT oid FROM judged) AND coalesce(obj_description(rel.oid, 'pg_class'), '') !~ '^tenancy:global\M'

-- R27
SELECT rel.name AS object, 'the app reaches a foreign table with tenants'' rows, which has no row security' AS what, reached.mend AS mend
FROM rel JOIN reached USING (oid) WHERE rel.relkind = 'f' AND rel.tenant IS NOT NULL AND rel.oid IN (SELECT oid FROM judged)

-- R28
SELECT format('publication %I', b.pubname) AS object, format('it publishes every tenant''s rows of %s', jt.name) AS what,
	format('ALTER PUBLICATION %I DROP TABLE %s;', b.pubname, jt.name) AS mend
FROM jt JOIN pg_publication_rel r ON r.prrelid = jt.oid AND r.prqual IS NULL JOIN pg_publication b ON b.oid = r.prpubid
UNION ALL
SELECT format('publication %I', b.pubname), format('it publishes every tenant''s rows in schema %I', ns.nspname),
	format('ALTER PUBLICATION %I DROP TABLES IN SCHEMA %I;', b.pubname, ns.nspname)
FROM input, ns JOIN pg_publication_namespace s ON s.pnnspid = ns.oid JOIN pg_publication b ON b.oid = s.pnpubid
WHERE ns.oid IN (SELECT oid FROM tenants) AND (NOT input.touched OR age(s.xmin) <= 0)
UNION ALL
SELECT format('publication %I', b.pubname), 'it publishes every tenant''s rows', format('DROP PUBLICATION %I;', b.pubname)
FROM pg_publication b, input WHERE b.puballtables AND (NOT input.touched OR age(b.xmin) <= 0)

-- R31
SELECT format('%s trigger %I', tt.name, t.tgname) AS object, format('it runs %s with its owner''s rights', p.oid::regprocedure) AS what,
	format('ALTER FUNCTION %s SECURITY INVOKER;', p.oid::regprocedure) AS mend
FROM input, tt JOIN pg_trigger t ON t.tgrelid = tt.oid AND NOT t.tgisinternal AND t.tgparentid = 0 JOIN pg_proc p ON p.oid = t.tgfoid
WHERE p.prosecdef AND (tt.oid IN (SELECT oid FROM judged) OR age(p.xmin) <= 0 AND input.touched)
