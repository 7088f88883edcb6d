-- secure puts a tenant table behind row-level security. Migrations call it as the table's
-- owner; it may be called again. Partitions are secured with their parent and get no grants:
-- rows are reached through the parent. A table in a tenant's own schema takes that tenant's
-- rows only: the policies would let another one keep rows of its own there.
CREATE OR REPLACE FUNCTION rowhouse.secure(target regclass) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
	tenant pg_attribute;
	child  regclass;
	own    text := 'tenant_id = (SELECT rowhouse.tenant_id())';
	home   text; -- the tenant to whom the table's schema belongs
	kept   text;
BEGIN
	SELECT a.* INTO tenant FROM pg_attribute a
	WHERE a.attrelid = target AND a.attname = 'tenant_id' AND NOT a.attisdropped;
	IF NOT FOUND OR tenant.atttypid <> 'uuid'::regtype THEN
		RAISE EXCEPTION 'table % has no column tenant_id of type uuid', target USING ERRCODE = '42P16';
	END IF;
	IF NOT tenant.attnotnull THEN
		EXECUTE format('ALTER TABLE %s ALTER COLUMN tenant_id SET NOT NULL', target);
	END IF;
	IF NOT tenant.atthasdef THEN
		EXECUTE format('ALTER TABLE %s ALTER COLUMN tenant_id SET DEFAULT rowhouse.tenant_id()', target);
	END IF;
	EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', target);
	EXECUTE format('DROP POLICY IF EXISTS base ON %s', target);
	EXECUTE format('DROP POLICY IF EXISTS tenant ON %s', target);
	EXECUTE format('CREATE POLICY base ON %s USING (true) WITH CHECK (true)', target);
	EXECUTE format('CREATE POLICY tenant ON %s AS RESTRICTIVE USING (%s) WITH CHECK (%s)', target, own, own);
	SELECT format('CHECK ((tenant_id = %L::uuid))', substring(n.nspname FROM '^t_([0-9a-f]{32})$')::uuid), pg_get_constraintdef(k.oid)
	INTO home, kept FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
	LEFT JOIN pg_constraint k ON k.conrelid = c.oid AND k.conname = 'tenant_home'
	WHERE c.oid = target AND n.nspname ~ '^t_[0-9a-f]{32}$';
	IF home <> kept THEN
		EXECUTE format('ALTER TABLE %s DROP CONSTRAINT tenant_home', target);
	END IF;
	IF home IS DISTINCT FROM kept THEN
		EXECUTE format('ALTER TABLE %s ADD CONSTRAINT tenant_home %s', target, home);
	END IF;
	IF NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = target) THEN
		EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO rowhouse_app', target);
	END IF;
	FOR child IN SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = target LOOP
		PERFORM rowhouse.secure(child);
	END LOOP;
END
$body$;
GRANT EXECUTE ON FUNCTION rowhouse.secure(regclass) TO {{owner}};
