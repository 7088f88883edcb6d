-- genuine says whether the bytes were sealed for this cell by the key they name, and the
-- key is in force at that time: a seal, of 52 bytes, or what enter carries on rung L2a, whose
-- tag covers 8 more that follow it. Tags are compared by their digests, so that the time of the
-- comparison tells nothing about the right tag.
CREATE OR REPLACE FUNCTION rowhouse.genuine(seal bytea, at timestamptz) RETURNS boolean
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
	verdict boolean;
BEGIN
	IF seal IS NULL OR length(seal) NOT IN (52, 60) OR get_byte(seal, 0) <> 1
		OR get_byte(seal, 2) <> 0 OR get_byte(seal, 3) > 1 THEN
		RETURN false;
	END IF;
	SELECT sha256(substr(seal, 37, 16)) = sha256(substr(sha256(k.opad || sha256(k.ipad || substr(seal, 1, 36) || substr(seal, 53))), 1, 16))
		AND substr(int8send(k.cell), 5, 4) = substr(seal, 5, 4) AND k.not_after > at
	INTO verdict FROM rowhouse.mac_key k WHERE k.kid = get_byte(seal, 1);
	RETURN coalesce(verdict, false);
END
$body$;

-- expiry is the second, since 1970, from which the seal is void.
CREATE OR REPLACE FUNCTION rowhouse.expiry(seal bytea) RETURNS float8
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (('x' || encode(substr(seal, 33, 4), 'hex'))::bit(32)::bigint)::float8;

-- limit_time puts the plan's timeouts over those of the login role, for this transaction.
CREATE OR REPLACE FUNCTION rowhouse.limit_time(tenant uuid) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $body$
BEGIN
	PERFORM
		CASE WHEN p.statement_ms IS NOT NULL THEN set_config('statement_timeout', p.statement_ms::text, true) END,
		CASE WHEN p.lock_ms IS NOT NULL THEN set_config('lock_timeout', p.lock_ms::text, true) END,
		CASE WHEN p.idle_ms IS NOT NULL THEN
			set_config('idle_in_transaction_session_timeout', p.idle_ms::text, true) END
	FROM rowhouse.placement p WHERE p.tenant_id = tenant AND p.timed;
END
$body$;

-- enter_checked is enter() in full, one check after the other, each with its own error.
CREATE OR REPLACE FUNCTION rowhouse.enter_checked(seal bytea) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
	left_s  float8;
	tenant  uuid;
	door    bigint;
	waited  text;
	reading boolean;
	place   record;
BEGIN
	IF {{carrier}} <> '' THEN
		RAISE EXCEPTION 'a tenant was entered before' USING ERRCODE = 'RH004';
	END IF;
	IF length(seal) <> 52 OR NOT rowhouse.genuine(seal, clock_timestamp()) THEN
		RAISE EXCEPTION 'seal refused' USING ERRCODE = 'RH003';
	END IF;
	left_s := rowhouse.expiry(seal) - date_part('epoch', clock_timestamp());
	IF left_s <= 0 OR left_s > 120 THEN
		RAISE EXCEPTION 'seal expired' USING ERRCODE = 'RH005';
	END IF;

	tenant := encode(substr(seal, 17, 16), 'hex')::uuid;
	door := ('x' || encode(substr(seal, 25, 8), 'hex'))::bit(64)::bigint;
	IF NOT pg_is_in_recovery() AND NOT pg_try_advisory_xact_lock_shared(door) THEN
		waited := current_setting('lock_timeout');
		PERFORM set_config('lock_timeout', '500', true);
		PERFORM pg_advisory_xact_lock_shared(door);
		PERFORM set_config('lock_timeout', waited, true);
	END IF;

	-- A snapshot older than a fence would pass the lock and write after it. FOR SHARE makes
	-- PostgreSQL refuse it; READ COMMITTED sees the fence, and a reader does no harm.
	reading := get_byte(seal, 3) = 1 OR current_setting('transaction_read_only') = 'on';
	IF reading OR current_setting('transaction_isolation') = 'read committed' THEN
		SELECT p.state, p.generation INTO place FROM rowhouse.placement p WHERE p.tenant_id = tenant;
	ELSE
		SELECT p.state, p.generation INTO place FROM rowhouse.placement p WHERE p.tenant_id = tenant FOR SHARE;
	END IF;
	IF place.state = 'fenced' THEN
		RAISE EXCEPTION 'tenant is being moved' USING ERRCODE = 'RH002';
	ELSIF place.state = 'suspended' THEN
		RAISE EXCEPTION 'tenant is suspended' USING ERRCODE = 'RH007';
	ELSIF place.state IS DISTINCT FROM 'active' OR int8send(place.generation) <> substr(seal, 9, 8) THEN
		RAISE EXCEPTION 'tenant is not placed here' USING ERRCODE = 'RH001';
	END IF;

	PERFORM {{carry}} FROM rowhouse.mac_key k WHERE k.kid = get_byte(seal, 1);
	IF NOT FOUND THEN -- it went meanwhile
		RAISE EXCEPTION 'seal refused' USING ERRCODE = 'RH003';
	END IF;
	PERFORM rowhouse.limit_time(tenant);
	IF get_byte(seal, 3) = 1 THEN
		PERFORM set_config('transaction_read_only', 'on', true);
	END IF;
END
$body$;

-- enter opens the transaction to the seal's tenant. It tries the usual case first, in one
-- expression and one query because each costs microseconds: nothing entered, READ COMMITTED,
-- the tenant not locked, a seal without flags, everything in order. The lock comes before
-- the query's snapshot. Whatever is not so goes to enter_checked, which allows no less and
-- says what is wrong. A seal of another length fails in the comparison of the tags.
CREATE OR REPLACE FUNCTION rowhouse.enter(seal bytea) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
	carried text;
	timed   boolean; -- null when the query found nothing
BEGIN
	IF {{carrier}} || current_setting('transaction_isolation') = 'read committed'
		AND pg_try_advisory_xact_lock_shared(('x' || encode(substr(seal, 25, 8), 'hex'))::bit(64)::bigint) THEN
		SELECT {{carry}}, p.timed INTO carried, timed
		FROM rowhouse.mac_key k, rowhouse.placement p
		WHERE k.prefix = substr(seal, 1, 8) AND k.not_after > clock_timestamp()
			AND p.home = substr(seal, 9, 24)
			AND width_bucket(date_part('epoch', clock_timestamp()) - rowhouse.expiry(seal), -120, 0, 1) = 1
			AND sha256(substr(seal, 37)) = sha256(substr(sha256(k.opad || sha256(k.ipad || substr(seal, 1, 36))), 1, 16));
		IF NOT timed THEN
			RETURN;
		ELSIF timed THEN
			PERFORM rowhouse.limit_time(encode(substr(seal, 17, 16), 'hex')::uuid);
			RETURN;
		END IF;
	END IF;
	PERFORM rowhouse.enter_checked(seal);
END
$body$;

GRANT EXECUTE ON FUNCTION rowhouse.enter(bytea) TO rowhouse_app;
GRANT EXECUTE ON FUNCTION rowhouse.tenant_id() TO rowhouse_app, {{owner}};
