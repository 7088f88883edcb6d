-- Meters, and what tenants used. tenant_uid leads every key of tenants' rows; row security binds everybody, the owner too,
-- to the tenant that the transaction names in rowhouse.tenant_uid; '*' means all of them, for the platform's own work.

CREATE SCHEMA usage;
REVOKE ALL ON SCHEMA usage FROM PUBLIC;

CREATE TABLE usage.meter (
    id           text        PRIMARY KEY CHECK (id ~ '^[a-z](-?[a-z0-9])*$' AND length(id) <= 63),
    uid          uuid        NOT NULL UNIQUE,
    display_name text        NOT NULL DEFAULT '' CHECK (length(display_name) <= 63),
    aggregation  integer     NOT NULL CHECK (aggregation BETWEEN 1 AND 5),
    unit         text        NOT NULL DEFAULT '' CHECK (length(unit) <= 63),
    dimensions   text[]      NOT NULL DEFAULT '{}' CHECK (cardinality(dimensions) <= 4),
    create_time  timestamptz NOT NULL,
    update_time  timestamptz NOT NULL,
    revision     bigint      NOT NULL DEFAULT 0
);

-- A combination of a meter and values of its dimensions. The id is a hash of both.
CREATE TABLE usage.series (
    tenant_uid uuid  NOT NULL,
    id         uuid  NOT NULL,
    meter_uid  uuid  NOT NULL,
    dimensions jsonb NOT NULL,
    PRIMARY KEY (tenant_uid, id)
);
CREATE INDEX series_meter ON usage.series (tenant_uid, meter_uid);
CREATE INDEX series_of_meter ON usage.series (meter_uid);

-- What was counted, so that it is never counted again. The id begins with its time, and a partition is a day of ids: one is
-- dropped only when no id of its day is accepted any more. There is no default partition: an id without a partition is refused.
CREATE TABLE usage.event (
    tenant_uid uuid        NOT NULL,
    id         uuid        NOT NULL,
    series     uuid        NOT NULL,
    quantity   bigint      NOT NULL,
    time       timestamptz NOT NULL,
    PRIMARY KEY (tenant_uid, id)
) PARTITION BY RANGE (id);

-- Sums by minute, hour and day. A stripe is what one writer adds to; readers add stripes up. "last" is the latest time, id
-- and quantity in one text, so that the greatest is the latest.
CREATE TABLE usage.rollup (
    tenant_uid uuid        NOT NULL,
    series     uuid        NOT NULL,
    grain      text        NOT NULL,
    bucket     timestamptz NOT NULL,
    stripe     smallint    NOT NULL,
    sum        numeric     NOT NULL,
    count      bigint      NOT NULL,
    max        bigint      NOT NULL,
    last       text        COLLATE "C",
    PRIMARY KEY (tenant_uid, series, grain, bucket, stripe)
) PARTITION BY LIST (grain);
CREATE TABLE usage.rollup_minute PARTITION OF usage.rollup FOR VALUES IN ('minute') PARTITION BY RANGE (bucket);
CREATE TABLE usage.rollup_hour PARTITION OF usage.rollup FOR VALUES IN ('hour') WITH (fillfactor = 80);
CREATE TABLE usage.rollup_day PARTITION OF usage.rollup FOR VALUES IN ('day') WITH (fillfactor = 80);

-- What came when its bucket was closed: booked in the minute in which it came.
CREATE TABLE usage.adjustment (
    tenant_uid uuid        NOT NULL,
    series     uuid        NOT NULL,
    bucket     timestamptz NOT NULL,
    original   timestamptz NOT NULL, -- the hour in which it happened
    stripe     smallint    NOT NULL,
    sum        numeric     NOT NULL,
    count      bigint      NOT NULL,
    max        bigint      NOT NULL,
    last       text        COLLATE "C",
    PRIMARY KEY (tenant_uid, series, bucket, original, stripe)
);

-- The different values of UNIQUE meters. The original of what came in time is the bucket itself; what came late has the
-- grain 'late', the minute in which it came, and the hour in which it happened.
CREATE TABLE usage.sketch (
    tenant_uid uuid        NOT NULL,
    series     uuid        NOT NULL,
    grain      text        NOT NULL CHECK (grain IN ('minute', 'hour', 'day', 'late')),
    bucket     timestamptz NOT NULL,
    original   timestamptz NOT NULL,
    stripe     smallint    NOT NULL,
    seen       bytea       NOT NULL DEFAULT '',
    PRIMARY KEY (tenant_uid, series, grain, bucket, original, stripe)
);

-- Makes the partitions of the days around p_now, and drops those of events whose ids are refused by now and those of minutes
-- that nobody asks for any more. What is dropped follows from the database's clock alone. A table is made first and attached
-- then, which keeps no writer waiting; a drop that would have to wait is left to the next time.
CREATE FUNCTION usage.keep_partitions(p_now timestamptz, p_ahead integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    d       date;
    today   date := (p_now AT TIME ZONE 'UTC')::date;
    real    date := (clock_timestamp() AT TIME ZONE 'UTC')::date;
    made    integer := 0;
    old     text;
BEGIN
    IF p_ahead NOT BETWEEN 1 AND 30 THEN
        RAISE EXCEPTION 'partitions are made 1 to 30 days ahead';
    END IF;
    PERFORM pg_advisory_xact_lock(7308604758911742572);
    PERFORM set_config('lock_timeout', '2s', true);
    FOR d IN SELECT generate_series(today - 4, today + p_ahead, interval '1 day')::date LOOP
        IF to_regclass(format('usage.event_%s', to_char(d, 'YYYYMMDD'))) IS NULL THEN
            EXECUTE format('CREATE TABLE usage.event_%s (LIKE usage.event INCLUDING CONSTRAINTS)', to_char(d, 'YYYYMMDD'));
            EXECUTE format('ALTER TABLE usage.event ATTACH PARTITION usage.event_%s FOR VALUES FROM (%L) TO (%L)',
                to_char(d, 'YYYYMMDD'), usage.first_id(d), usage.first_id(d + 1));
            made := made + 1;
        END IF;
        IF to_regclass(format('usage.rollup_minute_%s', to_char(d, 'YYYYMMDD'))) IS NULL THEN
            EXECUTE format('CREATE TABLE usage.rollup_minute_%s (LIKE usage.rollup INCLUDING CONSTRAINTS) WITH (fillfactor = 80)',
                to_char(d, 'YYYYMMDD'));
            EXECUTE format('ALTER TABLE usage.rollup_minute ATTACH PARTITION usage.rollup_minute_%s FOR VALUES FROM (%L) TO (%L)',
                to_char(d, 'YYYYMMDD'), d::timestamp AT TIME ZONE 'UTC', (d + 1)::timestamp AT TIME ZONE 'UTC');
            made := made + 1;
        END IF;
    END LOOP;
    -- 72 hours are accepted, and a day of them more is kept.
    FOR old IN SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'usage.event'::regclass AND c.relname < 'event_' || to_char(real - 4, 'YYYYMMDD')
            OR i.inhparent = 'usage.rollup_minute'::regclass AND c.relname < 'rollup_minute_' || to_char(real - 9, 'YYYYMMDD') LOOP
        EXECUTE format('DROP TABLE usage.%I', old);
    END LOOP;
    RETURN made;
END $$;

-- The least UUID of a day: 48 bits of Unix milliseconds, then zeros.
CREATE FUNCTION usage.first_id(p_day date) RETURNS uuid
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT (lpad(to_hex((extract(epoch FROM p_day::timestamp) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

SELECT usage.keep_partitions(now(), 7);

DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['series', 'event', 'rollup', 'adjustment', 'sketch'] LOOP
        EXECUTE format('ALTER TABLE usage.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', t);
        EXECUTE format($p$CREATE POLICY tenant ON usage.%I
            USING ((SELECT current_setting('rowhouse.tenant_uid', true) = '*')
                OR tenant_uid = (SELECT nullif(nullif(current_setting('rowhouse.tenant_uid', true), ''), '*')::uuid))$p$, t);
    END LOOP;
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA usage FROM PUBLIC;
GRANT USAGE ON SCHEMA usage TO {{service}};
GRANT SELECT, INSERT, DELETE ON usage.meter, usage.series, usage.event, usage.rollup, usage.adjustment, usage.sketch TO {{service}};
GRANT UPDATE (display_name, dimensions, update_time, revision) ON usage.meter TO {{service}};
GRANT UPDATE (sum, count, max, last) ON usage.rollup, usage.adjustment TO {{service}};
GRANT UPDATE (seen) ON usage.sketch TO {{service}};
GRANT EXECUTE ON FUNCTION usage.keep_partitions(timestamptz, integer) TO {{service}};
