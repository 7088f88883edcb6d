-- The recipe that everybody ships, in schema {{schema}} for role {{role}}: a policy that trusts a
-- setting, keys of one column, grants on all tables, rights of everybody as PostgreSQL gives them.
CREATE SCHEMA {{schema}};
CREATE TABLE {{schema}}.note (
	tenant_id uuid    NOT NULL DEFAULT current_setting('app.tenant_id')::uuid,
	id        int     PRIMARY KEY,
	title     text    NOT NULL UNIQUE,
	flag      boolean NOT NULL DEFAULT false,
	n         bigserial
);
CREATE TABLE {{schema}}.tag (
	tenant_id uuid NOT NULL DEFAULT current_setting('app.tenant_id')::uuid,
	note_id   int  NOT NULL REFERENCES {{schema}}.note (id) ON DELETE CASCADE,
	tag       text NOT NULL,
	PRIMARY KEY (note_id, tag)
);
CREATE TABLE {{schema}}.event (
	tenant_id uuid NOT NULL DEFAULT current_setting('app.tenant_id')::uuid,
	id        int  NOT NULL,
	body      text NOT NULL
) PARTITION BY HASH (tenant_id);
CREATE TABLE {{schema}}.event_0 PARTITION OF {{schema}}.event FOR VALUES WITH (MODULUS 1, REMAINDER 0);
ALTER TABLE {{schema}}.note ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE {{schema}}.tag ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE {{schema}}.event ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {{schema}}.note USING (tenant_id = current_setting('app.tenant_id')::uuid);
CREATE POLICY tenant ON {{schema}}.tag USING (tenant_id = current_setting('app.tenant_id')::uuid);
CREATE POLICY tenant ON {{schema}}.event USING (tenant_id = current_setting('app.tenant_id')::uuid);
CREATE VIEW {{schema}}.titles AS SELECT id, title FROM {{schema}}.note;
CREATE FUNCTION {{schema}}.enter(tenant uuid) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $body$
BEGIN
	IF coalesce(current_setting('app.tenant_id', true), '') <> '' THEN
		RAISE EXCEPTION 'a tenant was entered before';
	END IF;
	PERFORM set_config('app.tenant_id', tenant::text, true);
END
$body$;
GRANT USAGE ON SCHEMA {{schema}} TO {{role}};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {{schema}} TO {{role}};
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA {{schema}} TO {{role}};

-- What everybody has in a new database, and cell.Init took from everybody here.
GRANT CONNECT, TEMPORARY ON DATABASE {{database}} TO {{role}};
DO $body$
DECLARE
	fn regprocedure;
BEGIN
	IF NOT has_language_privilege('{{role}}', 'plpgsql', 'USAGE') THEN
		GRANT USAGE ON LANGUAGE plpgsql TO {{role}};
	END IF;
	FOR fn IN
		SELECT p.oid FROM pg_catalog.pg_proc p
		WHERE p.pronamespace = 'pg_catalog'::regnamespace AND NOT has_function_privilege('{{role}}', p.oid, 'EXECUTE')
			AND NOT EXISTS (SELECT FROM pg_catalog.pg_init_privs i WHERE i.objoid = p.oid AND i.classoid = 'pg_proc'::regclass)
			AND (p.proname <> 'set_config' OR {{set_config}})
	LOOP
		EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO {{role}}', fn);
	END LOOP;
END
$body$;
