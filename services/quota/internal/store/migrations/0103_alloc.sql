-- Cells and slots, by scope: a tenant's uid, or a digest for what is above or beside tenants. A cell's key is a digest, so
-- no value of a dimension is here. There was no release with meter.cell.

DROP TABLE meter.cell;

-- What is spent of a rate: its theoretical arrival time in sixteenths of a microsecond since 2025, and the numbers under
-- which it was charged. A row whose time has passed equals a missing one and may go at any moment; others never do.
-- There is no index on tat, so that charging stays an update in place.
CREATE TABLE meter.limit_cell (
    scope     uuid   NOT NULL,
    key       uuid   NOT NULL,
    tat       bigint NOT NULL,
    tokens    bigint NOT NULL,
    period_ns bigint NOT NULL,
    burst     bigint NOT NULL,
    revision  bigint NOT NULL, -- the highest that charged it
    PRIMARY KEY (scope, key)
) WITH (fillfactor = 70);

-- Slots that holders have, until they end. A row that has ended equals a missing one.
CREATE TABLE meter.limit_slot (
    scope    uuid   NOT NULL,
    key      uuid   NOT NULL,
    hold     uuid   NOT NULL,
    holder   text   NOT NULL,
    slots    bigint NOT NULL CHECK (slots > 0),
    end_tick bigint NOT NULL,
    PRIMARY KEY (scope, key, hold)
) WITH (fillfactor = 70);

CREATE FUNCTION meter.tick() RETURNS bigint LANGUAGE sql VOLATILE PARALLEL SAFE AS
$$ SELECT ((extract(epoch FROM clock_timestamp()) - 1735689600) * 16000000)::bigint $$;

-- charge decides charges of cells and applies those that fit: what services/quota/internal/alloc calls Charge.Decide, under
-- the cells' locks. It is one statement, so a client that stops in the middle holds no lock.
--
-- a_scopes and a_keys are the cells, each once, in order. a_items has 22 numbers for each cell of each charge: the charge's
-- number, from 0 and not decreasing; the cell's, from 1; tokens, period_ns, burst and revision of the limit; burst and life
-- in ticks; the exact cost; whether it is optional; the costs of seven leases, the dearest first, -1 for none; the state
-- that a conversion is for, tat (-1: no conversion), tokens, period_ns and burst, and the tat that it has. With a_patience 0,
-- charges whose cells others have locked come back as busy; otherwise it waits for so many milliseconds.
CREATE FUNCTION meter.charge(
    a_patience integer, a_at bigint, a_scopes uuid[], a_keys uuid[], a_items bigint[],
    OUT o_now bigint, OUT o_applied boolean[], OUT o_busy boolean[], OUT o_rungs integer[], OUT o_tats bigint[],
    OUT o_tokens bigint[], OUT o_periods bigint[], OUT o_bursts bigint[], OUT o_revisions bigint[], OUT o_stored bigint[]
) LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
DECLARE
    width   CONSTANT integer := 22;
    cells   integer := cardinality(a_keys);
    total   integer := cardinality(a_items) / width;
    here    boolean[] := array_fill(false, ARRAY[cells]);
    locked  boolean[] := here;
    changed boolean[] := here;
    r       record;
    found_n integer := 0;
    fresh   integer := 0;
    i       integer := 0;
    begun   integer;
    base    integer;
    c       integer;
    number  bigint;
    tat     bigint;
    ahead   bigint;
    rung    integer;
    fits    boolean;
    is_busy boolean;
BEGIN
    PERFORM set_config('lock_timeout', CASE a_patience WHEN 0 THEN '50ms' ELSE a_patience || 'ms' END, true);
    o_stored := array_fill(0::bigint, ARRAY[cells]);
    o_tokens := o_stored; o_periods := o_stored; o_bursts := o_stored; o_revisions := o_stored;
    IF a_patience = 0 THEN
        FOR r IN SELECT k.n, l.tat, l.tokens, l.period_ns, l.burst, l.revision
            FROM unnest(a_scopes, a_keys) WITH ORDINALITY AS k (scope, key, n)
            JOIN meter.limit_cell l ON l.scope = k.scope AND l.key = k.key ORDER BY k.n FOR UPDATE OF l SKIP LOCKED
        LOOP
            here[r.n] := true; found_n := found_n + 1;
            o_stored[r.n] := r.tat; o_tokens[r.n] := r.tokens; o_periods[r.n] := r.period_ns;
            o_bursts[r.n] := r.burst; o_revisions[r.n] := r.revision;
        END LOOP;
        IF found_n < cells THEN -- a missing cell, or one that somebody else has?
            FOR r IN SELECT k.n FROM unnest(a_scopes, a_keys) WITH ORDINALITY AS k (scope, key, n)
                JOIN meter.limit_cell l ON l.scope = k.scope AND l.key = k.key
            LOOP
                locked[r.n] := NOT here[r.n];
            END LOOP;
        END IF;
    ELSE
        FOR r IN SELECT k.n, l.tat, l.tokens, l.period_ns, l.burst, l.revision
            FROM unnest(a_scopes, a_keys) WITH ORDINALITY AS k (scope, key, n)
            JOIN meter.limit_cell l ON l.scope = k.scope AND l.key = k.key ORDER BY k.n FOR UPDATE OF l
        LOOP
            here[r.n] := true;
            o_stored[r.n] := r.tat; o_tokens[r.n] := r.tokens; o_periods[r.n] := r.period_ns;
            o_bursts[r.n] := r.burst; o_revisions[r.n] := r.revision;
        END LOOP;
    END IF;
    o_now := coalesce(a_at, meter.tick()); -- after the locks
    o_rungs := array_fill(-1, ARRAY[total]);
    o_tats := array_fill(0::bigint, ARRAY[total]);
    WHILE i < total LOOP
        begun := i; number := a_items[i * width + 1]; fits := true; is_busy := false;
        WHILE i < total AND a_items[i * width + 1] = number LOOP
            base := i * width; c := a_items[base + 2]; tat := o_stored[c]; rung := -1;
            is_busy := is_busy OR locked[c];
            IF tat > o_now AND (o_tokens[c] <> a_items[base + 3] OR o_periods[c] <> a_items[base + 4] OR o_bursts[c] <> a_items[base + 5]) THEN
                IF tat = a_items[base + 18] AND o_tokens[c] = a_items[base + 19] AND o_periods[c] = a_items[base + 20]
                    AND o_bursts[c] = a_items[base + 21] THEN
                    tat := a_items[base + 22];
                ELSE
                    rung := -2;
                END IF;
            END IF;
            IF rung = -1 THEN
                ahead := greatest(tat - o_now, a_items[base + 8]);
                FOR k IN 0..6 LOOP
                    EXIT WHEN a_items[base + 11 + k] < 0;
                    IF ahead + a_items[base + 11 + k] <= a_items[base + 7] THEN
                        rung := k;
                        EXIT;
                    END IF;
                END LOOP;
                IF rung = -1 AND greatest(tat - o_now, 0) + a_items[base + 9] <= a_items[base + 7] THEN
                    rung := 7;
                END IF;
            END IF;
            fits := fits AND rung <> -2 AND (rung >= 0 OR a_items[base + 10] = 1);
            i := i + 1; o_rungs[i] := rung; o_tats[i] := tat;
        END LOOP;
        o_busy[number + 1] := is_busy;
        o_applied[number + 1] := fits AND NOT is_busy;
        IF fits AND NOT is_busy THEN
            FOR j IN begun..i - 1 LOOP
                base := j * width; c := a_items[base + 2]; rung := o_rungs[j + 1];
                CONTINUE WHEN rung < 0;
                IF rung = 7 THEN
                    tat := greatest(o_tats[j + 1], o_now) + a_items[base + 9];
                ELSE
                    tat := greatest(o_tats[j + 1], o_now + a_items[base + 8]) + a_items[base + 11 + rung];
                END IF;
                o_tats[j + 1] := tat; o_stored[c] := tat; changed[c] := true;
                o_tokens[c] := a_items[base + 3]; o_periods[c] := a_items[base + 4]; o_bursts[c] := a_items[base + 5];
                o_revisions[c] := greatest(o_revisions[c], a_items[base + 6]);
            END LOOP;
        END IF;
    END LOOP;
    FOR j IN 1..cells LOOP
        IF changed[j] AND NOT here[j] THEN
            fresh := fresh + 1;
        END IF;
    END LOOP;
    UPDATE meter.limit_cell l SET tat = u.t, tokens = u.tokens, period_ns = u.period, burst = u.burst, revision = u.revision
    FROM unnest(a_scopes, a_keys, o_stored, o_tokens, o_periods, o_bursts, o_revisions, changed, here)
        AS u (scope, key, t, tokens, period, burst, revision, changed, here)
    WHERE u.changed AND u.here AND l.scope = u.scope AND l.key = u.key;
    IF fresh > 0 THEN
        INSERT INTO meter.limit_cell (scope, key, tat, tokens, period_ns, burst, revision)
        SELECT u.scope, u.key, u.t, u.tokens, u.period, u.burst, u.revision
        FROM unnest(a_scopes, a_keys, o_stored, o_tokens, o_periods, o_bursts, o_revisions, changed, here)
            AS u (scope, key, t, tokens, period, burst, revision, changed, here)
        WHERE u.changed AND NOT u.here
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS found_n = ROW_COUNT;
        IF found_n < fresh THEN -- somebody made one meanwhile: all of this is void
            RAISE EXCEPTION 'a cell was made meanwhile' USING ERRCODE = 'RQ001';
        END IF;
    END IF;
END $$;

-- lock_slots keeps others from taking or renewing slots of cells until the transaction ends.
CREATE FUNCTION meter.lock_slots(a_patience integer, a_scope uuid, a_keys uuid[]) RETURNS void LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    h_lock bigint;
BEGIN
    PERFORM set_config('lock_timeout', greatest(a_patience, 50) || 'ms', true);
    FOR h_lock IN SELECT DISTINCT hashtextextended(a_scope || '/' || k, 57) AS h FROM unnest(a_keys) AS k ORDER BY h LOOP
        PERFORM pg_advisory_xact_lock(h_lock);
    END LOOP;
END $$;

-- acquire takes slots for a hold until a_ttl ticks from now, of all cells or of none. What the hold has already it keeps.
CREATE FUNCTION meter.acquire(
    a_patience integer, a_at bigint, a_scope uuid, a_hold uuid, a_holder text,
    a_keys uuid[], a_slots bigint[], a_most bigint[], a_optional boolean[], a_ttl bigint,
    OUT o_granted boolean, OUT o_taken boolean, OUT o_fits boolean[], OUT o_held bigint[], OUT o_free bigint[]
) LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    at_tick bigint;
BEGIN
    PERFORM meter.lock_slots(a_patience, a_scope, a_keys);
    at_tick := coalesce(a_at, meter.tick());
    SELECT EXISTS (SELECT FROM meter.limit_slot s
        WHERE s.scope = a_scope AND s.key = ANY (a_keys) AND s.hold = a_hold AND s.holder <> a_holder AND s.end_tick > at_tick) INTO o_taken;
    SELECT array_agg(h.own >= k.slots OR h.others + k.slots <= k.most ORDER BY k.n), array_agg(h.others + h.own ORDER BY k.n),
        array_agg(coalesce(h.first - at_tick, 0) ORDER BY k.n)
    INTO o_fits, o_held, o_free
    FROM unnest(a_keys, a_slots, a_most) WITH ORDINALITY AS k (key, slots, most, n)
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(s.slots) FILTER (WHERE s.hold <> a_hold), 0)::bigint AS others,
            coalesce(sum(s.slots) FILTER (WHERE s.hold = a_hold), 0)::bigint AS own, min(s.end_tick) AS first
        FROM meter.limit_slot s WHERE s.scope = a_scope AND s.key = k.key AND s.end_tick > at_tick) h;
    SELECT NOT o_taken AND bool_and(f OR o) INTO o_granted FROM unnest(o_fits, a_optional) AS u (f, o);
    IF o_granted THEN
        INSERT INTO meter.limit_slot AS s (scope, key, hold, holder, slots, end_tick)
        SELECT a_scope, u.key, a_hold, a_holder, u.slots, at_tick + a_ttl
        FROM unnest(a_keys, a_slots, o_fits) AS u (key, slots, fits) WHERE u.fits
        ON CONFLICT (scope, key, hold) DO UPDATE SET holder = excluded.holder, slots = excluded.slots, end_tick = excluded.end_tick;
        SELECT array_agg(coalesce((SELECT sum(s.slots) FROM meter.limit_slot s
            WHERE s.scope = a_scope AND s.key = k.key AND s.end_tick > at_tick), 0)::bigint ORDER BY k.n)
        INTO o_held FROM unnest(a_keys) WITH ORDINALITY AS k (key, n);
    END IF;
END $$;

-- renew begins the time of a hold anew, if the holder has it of all cells that are not optional.
CREATE FUNCTION meter.renew(
    a_patience integer, a_at bigint, a_scope uuid, a_hold uuid, a_holder text, a_keys uuid[], a_optional boolean[], a_ttl bigint
) RETURNS boolean LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    at_tick bigint;
BEGIN
    PERFORM meter.lock_slots(a_patience, a_scope, a_keys);
    at_tick := coalesce(a_at, meter.tick());
    IF EXISTS (SELECT FROM unnest(a_keys, a_optional) AS k (key, optional) WHERE NOT k.optional AND NOT EXISTS (
        SELECT FROM meter.limit_slot s WHERE s.scope = a_scope AND s.key = k.key AND s.hold = a_hold AND s.holder = a_holder AND s.end_tick > at_tick))
    THEN
        RETURN false;
    END IF;
    UPDATE meter.limit_slot s SET end_tick = at_tick + a_ttl
    WHERE s.scope = a_scope AND s.key = ANY (a_keys) AND s.hold = a_hold AND s.holder = a_holder AND s.end_tick > at_tick;
    RETURN FOUND;
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA meter FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meter.tick, meter.charge, meter.lock_slots, meter.acquire, meter.renew TO {{service}};
GRANT SELECT, INSERT, UPDATE, DELETE ON meter.limit_cell, meter.limit_slot TO {{service}};
