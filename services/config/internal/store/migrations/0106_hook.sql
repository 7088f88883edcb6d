-- Who is asked before steps of the admin plane, and how far the events of other services are known.

-- Up to which revision the events of a source have become rows of webhook.event.
CREATE TABLE webhook.cursor (
    source   text   PRIMARY KEY,
    revision bigint NOT NULL
);

-- What a message says of an event of another service, as JSON. Events of config follow from their keys.
ALTER TABLE webhook.event ADD COLUMN data text NOT NULL DEFAULT '' CHECK (octet_length(data) <= 16384);

-- Dead messages are counted for a metric, and sent again all at once.
CREATE INDEX delivery_dead ON webhook.delivery (endpoint_uid) WHERE state = 'DEAD';

CREATE SCHEMA hook;
REVOKE ALL ON SCHEMA hook FROM PUBLIC;

CREATE TABLE hook.hook (
    uid         uuid        PRIMARY KEY,
    id          text        NOT NULL UNIQUE CHECK (id ~ '^[a-z](-?[a-z0-9])*$' AND length(id) <= 63),
    url         text        NOT NULL CHECK (octet_length(url) <= 2048),
    steps       integer[]   NOT NULL CHECK (cardinality(steps) > 0), -- rowhouse.config.v1.HookStep
    failure     smallint    NOT NULL CHECK (failure IN (1, 2)),      -- rowhouse.config.v1.HookFailure
    timeout     interval    NOT NULL,
    description text        NOT NULL,
    signing     smallint    NOT NULL CHECK (signing IN (1, 2)),
    disabled    boolean     NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    revision    bigint      NOT NULL
);

-- Keys that sign, sealed under a key that is not in the database.
CREATE TABLE hook.key (
    hook_uid    uuid        NOT NULL REFERENCES hook.hook (uid) ON DELETE CASCADE,
    version     integer     NOT NULL CHECK (version > 0),
    sealed      bytea       NOT NULL,
    public      bytea,      -- of Ed25519
    expire_time timestamptz NOT NULL DEFAULT 'infinity',
    PRIMARY KEY (hook_uid, version)
);

GRANT SELECT, INSERT ON webhook.cursor TO {{service}};
GRANT UPDATE (revision) ON webhook.cursor TO {{service}};
GRANT USAGE ON SCHEMA hook TO {{service}};
GRANT SELECT, INSERT, DELETE ON hook.hook, hook.key TO {{service}};
GRANT UPDATE (url, steps, failure, timeout, description, disabled, update_time, revision) ON hook.hook TO {{service}};
GRANT UPDATE (expire_time) ON hook.key TO {{service}};
