-- What only a superuser may take away. Each of these lets an application reach past its own
-- rows: change a setting from inside a statement, stop other sessions or read their
-- statements, store objects that no policy covers, or hold the locks that moves depend on.
-- A pooled session serves one tenant after the other: what it remembers of their statements
-- (pg_prepared_statements, pg_cursors) and the seed of random() are of that kind too, and
-- pg_locks tells which tenants are at work. Counters and sizes tell how much other tenants write
-- and hold, and who waits for whom or follows the log is no app's business either. The length of the
-- log stays open, for reads from replicas ask for it as the app; who watches the server is a member of pg_read_all_stats (pg_monitor is).

REVOKE ALL ON SCHEMA public FROM PUBLIC;

-- Without a procedural language DO does not run.
REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC;
GRANT USAGE ON LANGUAGE plpgsql TO {{owner}}, rowhouse_sec;

DO $body$
DECLARE
	fn regprocedure;
BEGIN
	FOR fn IN
		SELECT p.oid::regprocedure FROM pg_catalog.pg_proc p
		WHERE p.pronamespace = 'pg_catalog'::regnamespace AND (p.proname IN (
			'set_config', 'pg_cancel_backend', 'pg_terminate_backend', 'pg_notify',
			'pg_logical_emit_message', 'pg_export_snapshot', 'currtid2', 'loread', 'lowrite',
			'pg_prepared_statement', 'pg_cursor', 'pg_lock_status', 'setseed')
			OR p.proname LIKE 'lo\_%' OR p.proname LIKE 'pg\_%advisory%')
			AND (p.proacl IS NULL OR pg_catalog.has_function_privilege('rowhouse_app', p.oid, 'EXECUTE'))
	LOOP
		EXECUTE pg_catalog.format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', fn);
	END LOOP;
	FOR fn IN
		SELECT p.oid::regprocedure FROM pg_catalog.pg_proc p
		WHERE p.pronamespace = 'pg_catalog'::regnamespace AND (p.proname LIKE 'pg\_stat\_get\_%' OR p.proname IN (
			'pg_database_size', 'pg_tablespace_size', 'pg_relation_size', 'pg_table_size', 'pg_indexes_size',
			'pg_total_relation_size', 'pg_relation_filepath', 'pg_relation_filenode', 'pg_filenode_relation',
			'pg_blocking_pids', 'pg_safe_snapshot_blocking_pids', 'pg_isolation_test_session_is_blocked',
			'pg_get_replication_slots', 'pg_notification_queue_usage'))
			AND (p.proacl IS NULL OR pg_catalog.has_function_privilege('rowhouse_app', p.oid, 'EXECUTE')
				OR NOT pg_catalog.has_function_privilege('pg_read_all_stats', p.oid, 'EXECUTE'))
	LOOP
		EXECUTE pg_catalog.format('REVOKE EXECUTE ON FUNCTION %1$s FROM PUBLIC; GRANT EXECUTE ON FUNCTION %1$s TO pg_read_all_stats', fn);
	END LOOP;
END
$body$;

GRANT EXECUTE ON FUNCTION
	pg_catalog.set_config(text, text, boolean),
	pg_catalog.pg_try_advisory_xact_lock_shared(bigint),
	pg_catalog.pg_advisory_xact_lock_shared(bigint)
TO rowhouse_sec;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_advisory_xact_lock(int, int) TO {{migrator}};
-- A migration's audit asks which relations its transaction has locked.
GRANT EXECUTE ON FUNCTION pg_catalog.pg_lock_status() TO {{owner}}, {{migrator}};

-- Of clauses that leak nothing the planner tries the cheapest first, whether a policy's or a
-- query's, and a sub-select that fails or sleeps counts as free: behind a comparison it would
-- tell of rows that the policy has yet to hide. So the policy's comparison is the cheapest.
ALTER FUNCTION pg_catalog.uuid_eq(uuid, uuid) COST 0.0001;
