-- Keys by which clients ask for a tenant's flags. The secret is not here, only its digest.
CREATE TABLE settings.client_key (
    sha256      bytea       PRIMARY KEY CHECK (length(sha256) = 32),
    tenant_uid  uuid        NOT NULL,
    id          text        NOT NULL CHECK (id = 'k' || left(encode(sha256, 'hex'), 16)),
    kind        text        NOT NULL CHECK (kind IN ('browser', 'server')),
    environment text        NOT NULL,
    origins     text[]      NOT NULL CHECK (kind = 'browser' OR origins = '{}'),
    author      text        NOT NULL,
    create_time timestamptz NOT NULL,
    expire_time timestamptz,
    UNIQUE (tenant_uid, id)
);

GRANT SELECT, INSERT, DELETE ON settings.client_key TO {{service}};
