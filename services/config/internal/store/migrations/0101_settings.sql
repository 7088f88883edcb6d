-- Namespaces, and what each layer sets in them. Everything belongs to {{owner}}; the service may do what the grants at
-- the end say.

CREATE SCHEMA settings;
REVOKE ALL ON SCHEMA settings FROM PUBLIC;

-- Numbers the changes of settings. A writer takes it last, so numbers follow commits.
CREATE TABLE settings.clock (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    revision bigint  NOT NULL CHECK (revision >= 0)
);
INSERT INTO settings.clock (revision) VALUES (0);

-- Whoever writes in a namespace locks its row first: what one write was checked against cannot change before it is
-- committed.
CREATE TABLE settings.namespace (
    uid         uuid        PRIMARY KEY,
    id          text        NOT NULL UNIQUE CHECK (id ~ '^[a-z](-?[a-z0-9])*$' AND length(id) <= 63),
    schema      text        NOT NULL CHECK (length(schema) <= 262144), -- canonical; numbers may be longer than they came
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    revision    bigint      NOT NULL
);

CREATE TABLE settings.document (
    namespace_uid uuid        NOT NULL REFERENCES settings.namespace (uid),
    layer         text        NOT NULL CHECK (layer IN ('platform', 'plan', 'tenant')),
    layer_id      text        NOT NULL, -- '' for the platform, a plan's id, a tenant's uid
    content       text        NOT NULL CHECK (octet_length(content) <= 262144), -- canonical JSON
    author        text        NOT NULL,
    reason        text        NOT NULL,
    revision_time timestamptz NOT NULL,
    revision      bigint      NOT NULL,
    PRIMARY KEY (namespace_uid, layer, layer_id),
    CHECK ((layer = 'platform') = (layer_id = ''))
);
CREATE INDEX document_layer ON settings.document (layer, layer_id);

-- Every state that a document ever had; the service can only add. It outlives the namespace.
CREATE TABLE settings.document_revision (
    namespace_uid uuid        NOT NULL,
    layer         text        NOT NULL,
    layer_id      text        NOT NULL,
    revision      bigint      NOT NULL,
    content       text,       -- NULL: the document was deleted
    author        text        NOT NULL,
    reason        text        NOT NULL,
    revision_time timestamptz NOT NULL,
    PRIMARY KEY (namespace_uid, layer, layer_id, revision)
);

GRANT USAGE ON SCHEMA settings TO {{service}};
GRANT SELECT, UPDATE (revision) ON settings.clock TO {{service}};
GRANT SELECT, INSERT, DELETE ON settings.namespace, settings.document TO {{service}};
GRANT UPDATE (schema, update_time, revision) ON settings.namespace TO {{service}};
GRANT UPDATE (content, author, reason, revision_time, revision) ON settings.document TO {{service}};
GRANT SELECT, INSERT ON settings.document_revision TO {{service}};
