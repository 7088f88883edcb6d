-- Secrets that settings refer to, sealed in envelopes. Everything belongs to {{owner}}; the service may do what the grants
-- at the end say.

CREATE SCHEMA secret;
REVOKE ALL ON SCHEMA secret FROM PUBLIC;

-- The keys that seal values, wrapped under a key-encryption key that is not in the database. Without its owner's keys no
-- value of an owner opens.
CREATE TABLE secret.data_key (
    uid         uuid        PRIMARY KEY,
    owner       text        NOT NULL, -- a tenant's uid; 'platform', 'plans/{plan}', 'regions/{region}'
    kek         text        NOT NULL, -- names the key-encryption key
    wrapped     bytea       NOT NULL,
    uses        bigint      NOT NULL DEFAULT 0,
    create_time timestamptz NOT NULL
);
CREATE INDEX data_key_owner ON secret.data_key (owner, create_time DESC, uid DESC);
CREATE INDEX data_key_kek ON secret.data_key (kek);

-- Whoever adds, destroys or removes one locks the namespace first, as those do who write documents. A deleted one stays
-- without its versions, so that their numbers never mean another value.
CREATE TABLE secret.secret (
    uid           uuid        PRIMARY KEY,
    namespace_uid uuid        NOT NULL REFERENCES settings.namespace (uid),
    layer         text        NOT NULL CHECK (layer IN ('platform', 'plan', 'region', 'tenant', 'environment')),
    layer_id      text        NOT NULL, -- as in settings.document
    id            text        NOT NULL CHECK (id ~ '^[a-z](-?[a-z0-9])*$' AND length(id) <= 63),
    last_version  integer     NOT NULL DEFAULT 0,
    create_time   timestamptz NOT NULL,
    update_time   timestamptz NOT NULL,
    delete_time   timestamptz,
    UNIQUE (namespace_uid, layer, layer_id, id)
);
CREATE INDEX secret_layer ON secret.secret (layer, layer_id); -- for whoever erases a tenant

CREATE TABLE secret.version (
    secret_uid   uuid        NOT NULL REFERENCES secret.secret (uid) ON DELETE CASCADE,
    version      integer     NOT NULL CHECK (version > 0),
    data_key_uid uuid        REFERENCES secret.data_key (uid),
    sealed       bytea,      -- nonce and ciphertext
    author       text        NOT NULL,
    create_time  timestamptz NOT NULL,
    destroy_time timestamptz,
    PRIMARY KEY (secret_uid, version),
    CHECK ((sealed IS NULL) = (destroy_time IS NOT NULL)),
    CHECK ((data_key_uid IS NULL) = (destroy_time IS NOT NULL))
);
CREATE INDEX version_data_key ON secret.version (data_key_uid);

-- Which key-encryption key sealed the key of a webhook or a hook; '': not known.
ALTER TABLE webhook.key ADD COLUMN kek text NOT NULL DEFAULT '';
CREATE INDEX key_kek ON webhook.key (kek);
ALTER TABLE hook.key ADD COLUMN kek text NOT NULL DEFAULT '';

GRANT USAGE ON SCHEMA secret TO {{service}};
GRANT SELECT, INSERT, DELETE ON secret.data_key, secret.secret, secret.version TO {{service}};
GRANT UPDATE (kek, wrapped, uses) ON secret.data_key TO {{service}};
GRANT UPDATE (last_version, create_time, update_time, delete_time) ON secret.secret TO {{service}};
GRANT UPDATE (data_key_uid, sealed, destroy_time) ON secret.version TO {{service}};
GRANT UPDATE (sealed, kek) ON webhook.key, hook.key TO {{service}};
