-- What every service database has: the revision head and the change log that
-- watch streams are served from, the log of request ids, operations, and the
-- audit chains. All of it belongs to the database's owner; the service's role may
-- do what is granted at the end, and nothing else.

CREATE SCHEMA kernel;
CREATE SCHEMA audit;
REVOKE ALL ON SCHEMA kernel, audit FROM PUBLIC;

-- One row. Whoever holds its lock takes the next revision, so revisions follow
-- the order of commits; a sequence would not.
CREATE TABLE kernel.revision_head (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    revision bigint  NOT NULL CHECK (revision >= 0),
    -- Names this history. A resume token of another epoch is refused.
    epoch    uuid    NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO kernel.revision_head (revision) VALUES (0);

CREATE TABLE kernel.change_log (
    feed          text        NOT NULL CHECK (length(feed) BETWEEN 1 AND 63),
    revision      bigint      NOT NULL,
    key           text        NOT NULL CHECK (length(key) BETWEEN 1 AND 512),
    value         bytea,      -- NULL: the key is gone
    recorded_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (feed, revision, key)
);
CREATE INDEX change_log_recorded_time ON kernel.change_log (recorded_time);

-- Revisions up to this one may be missing from the change log.
CREATE TABLE kernel.change_floor (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    revision bigint  NOT NULL
);
INSERT INTO kernel.change_floor (revision) VALUES (0);

-- The last revision that touched each feed, deletions included.
CREATE TABLE kernel.feed_head (
    feed     text   PRIMARY KEY,
    revision bigint NOT NULL
);

CREATE TABLE kernel.feed_state (
    feed     text   NOT NULL,
    key      text   NOT NULL,
    value    bytea  NOT NULL,
    revision bigint NOT NULL,
    PRIMARY KEY (feed, key)
);

-- The first answers to calls that carried a request_id, kept 24 hours. A repetition is audited in the same chains and on
-- the same resources as the first call.
CREATE TABLE kernel.request_log (
    caller      text        NOT NULL,
    method      text        NOT NULL,
    request_id  uuid        NOT NULL,
    request     bytea       NOT NULL,
    response    bytea,      -- NULL only inside the transaction that is writing it
    chains      text[]      NOT NULL DEFAULT '{}',
    resources   text[]      NOT NULL DEFAULT '{}',
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (caller, method, request_id)
);
CREATE INDEX request_log_create_time ON kernel.request_log (create_time);

-- Seals page tokens, so that any replica can go on with another's list.
CREATE TABLE kernel.page_key (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    key      bytea   NOT NULL CHECK (length(key) = 32)
);
INSERT INTO kernel.page_key (key)
    VALUES (sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8')));

-- Long work whose steps survive a crash at any point.
CREATE TABLE kernel.operations (
    id          uuid        PRIMARY KEY,
    target      text        NOT NULL,
    verb        text        NOT NULL,
    phase       integer     NOT NULL,           -- rowhouse.api.v1.OperationPhase
    step        text        NOT NULL DEFAULT '',
    attempt     integer     NOT NULL DEFAULT 0,
    next_time   timestamptz NOT NULL DEFAULT now(),
    lease_until timestamptz,
    fence       bigint      NOT NULL DEFAULT 0, -- +1 per claim, in the WHERE of every write
    input       bytea       NOT NULL DEFAULT '',
    output      bytea,
    metadata    bytea       NOT NULL DEFAULT '', -- rowhouse.api.v1.OperationMetadata
    error       bytea,                           -- google.rpc.Status
    request_id  text        NOT NULL DEFAULT '',
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now(),
    end_time    timestamptz
);
CREATE UNIQUE INDEX operations_one_per_target ON kernel.operations (target) WHERE end_time IS NULL;
CREATE INDEX operations_due ON kernel.operations (next_time) WHERE end_time IS NULL;

-- Takes the next revision and records what it changes. The lock on the head is
-- held until the commit, so this is the last statement of its transaction.
CREATE FUNCTION kernel.publish(p_taken bigint, p_feeds text[], p_keys text[], p_values bytea[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r bigint;
BEGIN
    IF p_taken IS NULL THEN
        UPDATE kernel.revision_head SET revision = revision + 1 RETURNING revision INTO r;
    ELSE
        -- More of a revision that this transaction has taken: it holds the head's lock, so nobody took another since.
        SELECT revision INTO STRICT r FROM kernel.revision_head WHERE revision = p_taken FOR UPDATE;
    END IF;
    INSERT INTO kernel.change_log (feed, revision, key, value)
        SELECT u.f, r, u.k, u.v FROM unnest(p_feeds, p_keys, p_values) AS u(f, k, v);
    DELETE FROM kernel.feed_state s
        USING unnest(p_feeds, p_keys, p_values) AS u(f, k, v)
        WHERE s.feed = u.f AND s.key = u.k AND u.v IS NULL;
    INSERT INTO kernel.feed_state (feed, key, value, revision)
        SELECT u.f, u.k, u.v, r FROM unnest(p_feeds, p_keys, p_values) AS u(f, k, v) WHERE u.v IS NOT NULL
        ON CONFLICT (feed, key) DO UPDATE SET value = excluded.value, revision = excluded.revision;
    INSERT INTO kernel.feed_head (feed, revision)
        SELECT DISTINCT u.f, r FROM unnest(p_feeds) AS u(f)
        ON CONFLICT (feed) DO UPDATE SET revision = excluded.revision;
    RETURN r;
END $$;

-- Forgets changes older than p_keep, never younger than a minute.
CREATE FUNCTION kernel.trim_changes(p_keep interval) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    upto bigint;
BEGIN
    SELECT max(revision) INTO upto FROM kernel.change_log
        WHERE recorded_time < now() - greatest(p_keep, interval '1 minute');
    IF upto IS NULL THEN
        RETURN 0;
    END IF;
    UPDATE kernel.change_floor SET revision = greatest(revision, upto);
    DELETE FROM kernel.change_log WHERE revision <= upto;
    RETURN upto;
END $$;

-- The audit chains. The bytes that were hashed are kept as they were.
CREATE TABLE audit.head (
    chain text   PRIMARY KEY CHECK (chain ~ '^[a-z0-9-]{1,63}$'),
    seq   bigint NOT NULL,
    hash  bytea  NOT NULL CHECK (length(hash) = 32)
);

CREATE TABLE audit.event (
    chain text   NOT NULL,
    seq   bigint NOT NULL CHECK (seq > 0),
    event bytea  NOT NULL,
    hash  bytea  NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (chain, seq)
);

-- The only way to write an event. A caller that appends to several chains does so
-- in the order of their names, after all its other locks and before publish.
CREATE FUNCTION audit.append(p_chain text, p_event bytea) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    h audit.head%ROWTYPE;
BEGIN
    INSERT INTO audit.head (chain, seq, hash)
        VALUES (p_chain, 0, sha256(convert_to('rowhouse/audit/v1' || p_chain, 'UTF8')))
        ON CONFLICT (chain) DO NOTHING;
    SELECT * INTO STRICT h FROM audit.head WHERE chain = p_chain FOR UPDATE;
    h.seq := h.seq + 1;
    h.hash := sha256('\x01'::bytea || h.hash || int8send(h.seq) || sha256('\x00'::bytea || p_event));
    INSERT INTO audit.event (chain, seq, event, hash) VALUES (p_chain, h.seq, p_event, h.hash);
    UPDATE audit.head SET seq = h.seq, hash = h.hash WHERE chain = p_chain;
    RETURN h.seq;
END $$;

CREATE FUNCTION audit.refuse() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'audit events are never changed or removed' USING ERRCODE = 'insufficient_privilege';
END $$;

-- Row triggers bind the owner too; so does the statement trigger for TRUNCATE.
CREATE TRIGGER event_is_final BEFORE UPDATE OR DELETE ON audit.event
    FOR EACH ROW EXECUTE FUNCTION audit.refuse();
CREATE TRIGGER event_is_not_truncated BEFORE TRUNCATE ON audit.event
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse();
CREATE TRIGGER head_is_not_removed BEFORE DELETE ON audit.head
    FOR EACH ROW EXECUTE FUNCTION audit.refuse();
CREATE TRIGGER head_is_not_truncated BEFORE TRUNCATE ON audit.head
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse();

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA kernel, audit FROM PUBLIC;

GRANT USAGE ON SCHEMA kernel, audit TO {{service}};
GRANT SELECT ON kernel.revision_head, kernel.change_log, kernel.change_floor, kernel.feed_head, kernel.feed_state,
    kernel.page_key, audit.head, audit.event TO {{service}};
GRANT SELECT, INSERT, DELETE ON kernel.request_log TO {{service}};
GRANT UPDATE (request, response, chains, resources, create_time) ON kernel.request_log TO {{service}};
GRANT SELECT, INSERT, DELETE ON kernel.operations TO {{service}};
GRANT UPDATE (phase, step, attempt, next_time, lease_until, fence, output, metadata, error, update_time, end_time)
    ON kernel.operations TO {{service}};
GRANT EXECUTE ON FUNCTION kernel.publish(bigint, text[], text[], bytea[]), kernel.trim_changes(interval),
    audit.append(text, bytea) TO {{service}};
