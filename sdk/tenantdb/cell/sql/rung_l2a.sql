-- Rung L2a: the carrier is a setting that anybody may write, so tenant_id() checks it wherever a
-- policy asks. It holds the seal, when the transaction began, and in place of the seal's tag one over both,
-- which only enter can make: what an earlier transaction left on the session, or somebody set, is void.
-- What enter looked at (expiry, placement, lock, flags) need not be asked again.

CREATE OR REPLACE FUNCTION rowhouse.tenant_id() RETURNS uuid
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
	carrier text := current_setting('rowhouse.seal', true);
	seal    bytea;
BEGIN
	IF coalesce(carrier, '') = '' THEN
		RAISE EXCEPTION 'no tenant context' USING ERRCODE = '42501', SCHEMA = 'rowhouse';
	END IF;
	IF carrier !~ '^[0-9a-f]{120}$' THEN
		RAISE EXCEPTION 'seal refused' USING ERRCODE = 'RH003';
	END IF;
	IF right(carrier, 16) <> encode(timestamptz_send(transaction_timestamp()), 'hex') THEN
		RAISE EXCEPTION 'no tenant context' USING ERRCODE = '42501', SCHEMA = 'rowhouse';
	END IF;
	seal := decode(carrier, 'hex');
	IF rowhouse.genuine(seal, transaction_timestamp()) IS NOT TRUE THEN
		RAISE EXCEPTION 'seal refused' USING ERRCODE = 'RH003';
	END IF;
	RETURN encode(substr(seal, 17, 16), 'hex')::uuid;
END
$body$;
