-- Rung L2b: enter() checks the seal once per transaction and leaves the tenant in a setting
-- that only a superuser, or a role with SET on that parameter, may change. The setting is
-- borrowed: backtrace_functions is inert unless a C function bears the name it holds.

CREATE OR REPLACE FUNCTION rowhouse.no_context() RETURNS uuid
LANGUAGE plpgsql STABLE PARALLEL SAFE
AS $body$
BEGIN
	RAISE EXCEPTION 'no tenant context' USING ERRCODE = '42501', SCHEMA = 'rowhouse';
END
$body$;

-- A parsed body: names are bound when the function is made, and the planner can inline it.
CREATE OR REPLACE FUNCTION rowhouse.tenant_id() RETURNS uuid
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE pg_catalog.current_setting('backtrace_functions')
	WHEN '' THEN rowhouse.no_context()
	ELSE pg_catalog.current_setting('backtrace_functions')::uuid
END;

GRANT EXECUTE ON FUNCTION rowhouse.no_context() TO rowhouse_app, {{owner}};
