-- Keys and indexes of tenants' tables.

-- R10
SELECT format('%s index %s', jt.name, i.indexrelid::regclass) AS object,
	CASE WHEN u.uuid THEN 'a unique index lacks the tenant column; it holds a UUID alone, which nobody guesses'
		ELSE 'a unique index lacks the tenant column: its conflicts tell of other tenants'' rows' END AS what,
	'' AS mend, coalesce(u.uuid, false) AS note
FROM jt JOIN pg_index i ON i.indrelid = jt.oid AND (i.indisunique OR i.indisexclusion)
LEFT JOIN LATERAL (SELECT a.atttypid = 'uuid'::regtype AS uuid FROM pg_attribute a
	WHERE a.attrelid = jt.oid AND a.attnum = i.indkey[0] AND i.indnkeyatts = 1 AND i.indisunique) u ON true
WHERE jt.tenant <> ALL ((i.indkey::int2[])[0:i.indnkeyatts - 1])

-- R11
SELECT format('%s constraint %I', jt.name, k.conname) AS object,
	format('a foreign key to %s does not pair the tenant columns: a row may refer to another tenant''s', f.name) AS what, '' AS mend
FROM jt JOIN pg_constraint k ON k.conrelid = jt.oid AND k.contype = 'f' AND k.conparentid = 0 JOIN tt f ON f.oid = k.confrelid
WHERE k.confkey[array_position(k.conkey, jt.tenant)] IS DISTINCT FROM f.tenant

-- R12
SELECT format('%s index %s', jt.name, i.indexrelid::regclass) AS object,
	'the index does not lead with the tenant column: each tenant''s query reads through everybody''s entries' AS what, '' AS mend
FROM jt JOIN pg_index i ON i.indrelid = jt.oid JOIN pg_class x ON x.oid = i.indexrelid AND NOT x.relispartition
JOIN pg_am m ON m.oid = x.relam AND m.amname = 'btree'
WHERE i.indkey[0] <> jt.tenant AND (NOT (i.indisunique OR i.indisexclusion) OR jt.tenant = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]))

-- R29
SELECT jt.name AS object, 'the replica identity lacks the tenant column: the table cannot be moved' AS what,
	format('ALTER TABLE %s REPLICA IDENTITY FULL;', jt.name) AS mend
FROM jt WHERE jt.relkind = 'r' AND jt.relreplident <> 'f' AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = jt.oid
	AND CASE jt.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END
	AND jt.tenant = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]))

-- R30
SELECT format('%s index %s', jt.name, i.indexrelid::regclass) AS object,
	format('no operator of class %s is leakproof: behind row security the planner cannot use the index for it', string_agg(DISTINCT o.opcname, ', ')) AS what,
	'' AS mend
FROM jt JOIN pg_index i ON i.indrelid = jt.oid JOIN pg_class x ON x.oid = i.indexrelid AND NOT x.relispartition,
	unnest(i.indclass::oid[]) c JOIN pg_opclass o ON o.oid = c
WHERE NOT EXISTS (SELECT FROM pg_amop a JOIN pg_operator p ON p.oid = a.amopopr JOIN pg_proc f ON f.oid = p.oprcode
	WHERE a.amopfamily = o.opcfamily AND a.amoppurpose = 's' AND a.amoplefttype = o.opcintype AND f.proleakproof)
GROUP BY jt.name, i.indexrelid
