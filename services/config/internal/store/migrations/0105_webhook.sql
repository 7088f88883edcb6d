-- Who is told of changes, and what is on its way to them. Everything belongs to {{owner}}; the service may do what the
-- grants at the end say.

CREATE SCHEMA webhook;
REVOKE ALL ON SCHEMA webhook FROM PUBLIC;

-- An endpoint is the unit of the queue: whoever takes deliveries of it locks its row, so that replicas share the work
-- and no more are under way than may be.
CREATE TABLE webhook.endpoint (
    uid            uuid        PRIMARY KEY,
    tenant_uid     text        NOT NULL, -- '' for the platform
    id             text        NOT NULL CHECK (id ~ '^[a-z](-?[a-z0-9])*$' AND length(id) <= 63),
    url            text        NOT NULL CHECK (octet_length(url) <= 2048),
    event_types    text[]      NOT NULL,
    description    text        NOT NULL,
    signing        smallint    NOT NULL CHECK (signing IN (1, 2)),
    disabled       boolean     NOT NULL,
    disabled_cause text        NOT NULL DEFAULT '',
    failures       integer     NOT NULL DEFAULT 0,
    fast           boolean     NOT NULL DEFAULT false, -- the last answer was a good one and came soon
    pause_until    timestamptz NOT NULL DEFAULT '-infinity', -- it asked for that, or is too slow
    due_time       timestamptz NOT NULL DEFAULT 'infinity', -- when to look at it again; too early does no harm
    served_time    timestamptz NOT NULL DEFAULT '-infinity',
    create_time    timestamptz NOT NULL,
    update_time    timestamptz NOT NULL,
    revision       bigint      NOT NULL,
    UNIQUE (tenant_uid, id)
);
CREATE INDEX endpoint_due ON webhook.endpoint (due_time) WHERE NOT disabled;

-- Keys that sign, sealed under a key that is not in the database.
CREATE TABLE webhook.key (
    endpoint_uid uuid        NOT NULL REFERENCES webhook.endpoint (uid) ON DELETE CASCADE,
    version      integer     NOT NULL CHECK (version > 0),
    sealed       bytea       NOT NULL,
    public       bytea,      -- of Ed25519
    expire_time  timestamptz NOT NULL DEFAULT 'infinity',
    PRIMARY KEY (endpoint_uid, version)
);

-- What happened and has not become deliveries yet.
CREATE TABLE webhook.event (
    source     text        NOT NULL,
    revision   bigint      NOT NULL,
    key        text        NOT NULL,
    type       text        NOT NULL DEFAULT '', -- '': follows from the key and removed
    removed    boolean     NOT NULL DEFAULT false,
    event_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, revision, key)
);

CREATE TABLE webhook.delivery (
    uid          uuid        PRIMARY KEY,
    endpoint_uid uuid        NOT NULL REFERENCES webhook.endpoint (uid) ON DELETE CASCADE,
    source       text        NOT NULL,
    revision     bigint      NOT NULL,
    key          text        NOT NULL,
    type         text        NOT NULL,
    body         text        NOT NULL CHECK (octet_length(body) <= 20480),
    state        text        NOT NULL CHECK (state IN ('PENDING', 'DELIVERED', 'DEAD')),
    attempts     integer     NOT NULL DEFAULT 0,
    fence        integer     NOT NULL DEFAULT 0, -- +1 for each that takes it, in the WHERE of what follows
    next_time    timestamptz NOT NULL,
    lease_until  timestamptz, -- somebody sends it until then
    last_time    timestamptz,
    last_status  integer     NOT NULL DEFAULT 0,
    last_failure text        NOT NULL DEFAULT '',
    create_time  timestamptz NOT NULL DEFAULT now(),
    -- What happened once is told once, whoever finds out about it and however often.
    UNIQUE (source, revision, key, endpoint_uid)
);
CREATE INDEX delivery_next ON webhook.delivery (endpoint_uid, next_time) WHERE state = 'PENDING';
CREATE INDEX delivery_leased ON webhook.delivery (endpoint_uid, lease_until) WHERE lease_until IS NOT NULL;
CREATE INDEX delivery_listed ON webhook.delivery (endpoint_uid, create_time DESC, uid DESC);
CREATE INDEX delivery_old ON webhook.delivery (create_time) WHERE state <> 'PENDING';

-- Every change of settings becomes an event in the transaction that makes the change, so none is lost however long
-- nobody delivers. Without anybody who listens there is nothing to keep.
CREATE FUNCTION webhook.capture() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM webhook.endpoint WHERE NOT disabled) THEN
        INSERT INTO webhook.event (source, revision, key, removed) VALUES ('config', NEW.revision, NEW.key, NEW.value IS NULL)
            ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION webhook.capture() FROM PUBLIC;
CREATE TRIGGER webhook_capture AFTER INSERT ON kernel.change_log
    FOR EACH ROW WHEN (NEW.feed = 'settings') EXECUTE FUNCTION webhook.capture();

GRANT USAGE ON SCHEMA webhook TO {{service}};
GRANT SELECT, INSERT, DELETE ON webhook.endpoint, webhook.key, webhook.event, webhook.delivery TO {{service}};
GRANT UPDATE (url, event_types, description, disabled, disabled_cause, failures, fast, pause_until, due_time, served_time,
    update_time, revision)
    ON webhook.endpoint TO {{service}};
GRANT UPDATE (expire_time) ON webhook.key TO {{service}};
GRANT UPDATE (removed) ON webhook.event TO {{service}}; -- to lock rows, which asks for a right to update
GRANT UPDATE (state, attempts, fence, next_time, lease_until, last_time, last_status, last_failure)
    ON webhook.delivery TO {{service}};
