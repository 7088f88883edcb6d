-- await_lsn returns when this server has what its primary had at that position of the log (bytes
-- since its beginning) on that timeline, and raises RH006 when it has it not within so many
-- milliseconds, at most a second. A READ COMMITTED statement that follows sees it. The caller
-- learns no more than pg_last_wal_replay_lsn() tells everyone.
--
-- What a standby says of its timeline is from its control file, which knows of a newer one by
-- the next restartpoint at the latest: until then this refuses, and never too little.
CREATE OR REPLACE FUNCTION rowhouse.await_lsn(timeline int, lsn bigint, ms int) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
	target  pg_lsn := '0/0'::pg_lsn + lsn;
	patient timestamptz;
	here    int;
BEGIN
	IF NOT pg_is_in_recovery() THEN -- a standby that was promoted
		IF pg_current_wal_flush_lsn() >= target THEN
			here := ('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8))::bit(32)::int;
		END IF;
	ELSE
		WHILE (pg_last_wal_replay_lsn() >= target) IS NOT TRUE LOOP
			patient := coalesce(patient, clock_timestamp() + least(ms, 1000) * interval '1 ms');
			IF clock_timestamp() >= patient THEN
				RAISE EXCEPTION 'replica is behind' USING ERRCODE = 'RH006';
			END IF;
			PERFORM pg_sleep(0.0005);
		END LOOP;
		here := greatest((pg_control_checkpoint()).timeline_id, (pg_control_recovery()).min_recovery_end_timeline);
	END IF;
	IF here IS DISTINCT FROM timeline THEN
		RAISE EXCEPTION 'replica is on another timeline' USING ERRCODE = 'RH006';
	END IF;
END
$body$;

GRANT EXECUTE ON FUNCTION rowhouse.await_lsn(int, bigint, int) TO rowhouse_app;
