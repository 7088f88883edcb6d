-- Rung L2a: the carrier is a setting that anybody may write, so it holds the whole seal and
-- tenant_id() checks it again wherever a policy asks. Behind the seal stands when the transaction
-- began: what an earlier one left on the session, or somebody set for all of it, is void.

CREATE OR REPLACE FUNCTION rowhouse.tenant_id() RETURNS uuid
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
	carrier text := current_setting('rowhouse.seal', true);
	seal    bytea;
	left_s  float8;
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
	seal := decode(left(carrier, 104), 'hex');
	IF rowhouse.genuine(seal, transaction_timestamp()) IS NOT TRUE THEN
		RAISE EXCEPTION 'seal refused' USING ERRCODE = 'RH003';
	END IF;
	left_s := rowhouse.expiry(seal) - date_part('epoch', transaction_timestamp());
	IF left_s <= 0 OR left_s > 120 THEN
		RAISE EXCEPTION 'seal expired' USING ERRCODE = 'RH005';
	END IF;
	RETURN encode(substr(seal, 17, 16), 'hex')::uuid;
END
$body$;
