-- Changes: edits of documents on their way from a draft by approval and schedule to what is live. And which documents of
-- a namespace need approval.

ALTER TABLE settings.namespace
    ADD COLUMN approval_layers text[]   NOT NULL DEFAULT '{}',
    ADD COLUMN approval_count  smallint NOT NULL DEFAULT 0 CHECK (approval_count BETWEEN 0 AND 3),
    ADD CHECK ((approval_count = 0) = (approval_layers = '{}'));
GRANT UPDATE (approval_layers, approval_count) ON settings.namespace TO {{service}};

-- Whoever decides anything about a change locks its row first, and the namespaces of its edits after it.
CREATE TABLE settings.change (
    uid            uuid        PRIMARY KEY,
    id             text        NOT NULL UNIQUE CHECK (id ~ '^[a-z](-?[a-z0-9])*$' AND length(id) <= 63),
    state          text        NOT NULL CHECK (state IN
        ('DRAFT', 'SUBMITTED', 'APPROVED', 'SCHEDULED', 'LIVE', 'REJECTED', 'HALTED', 'CANCELLED')),
    reason         text        NOT NULL,
    authors        text[]      NOT NULL CHECK (authors <> '{}'),
    digest         bytea       NOT NULL CHECK (length(digest) = 32),
    not_before     timestamptz,
    refusal        bytea       NOT NULL DEFAULT '', -- a google.rpc.Status: why it is HALTED
    closing_reason text        NOT NULL DEFAULT '',
    create_time    timestamptz NOT NULL,
    update_time    timestamptz NOT NULL,
    version        bigint      NOT NULL, -- +1 with each change of the row
    CHECK (state <> 'SCHEDULED' OR not_before IS NOT NULL)
);
CREATE INDEX change_listed ON settings.change (create_time DESC, uid DESC);
CREATE INDEX change_due ON settings.change (not_before) WHERE state = 'SCHEDULED';

CREATE TABLE settings.change_edit (
    change_uid    uuid     NOT NULL REFERENCES settings.change (uid),
    position      smallint NOT NULL,
    name          text     NOT NULL, -- as it was given; what follows is what it meant
    namespace_uid uuid     NOT NULL,
    layer         text     NOT NULL, -- as in settings.document, or '' for the namespace itself
    layer_id      text     NOT NULL,
    base_revision bigint   NOT NULL, -- 0: there was none
    base          text,    -- canonical JSON; NULL: there was none
    content       text,    -- canonical JSON; NULL: the document is to be removed
    revision      bigint   NOT NULL DEFAULT 0, -- what it became
    PRIMARY KEY (change_uid, position),
    UNIQUE (change_uid, namespace_uid, layer, layer_id)
);
CREATE INDEX change_edit_place ON settings.change_edit (layer, layer_id);
CREATE INDEX change_edit_namespace ON settings.change_edit (namespace_uid, change_uid);

CREATE TABLE settings.change_approval (
    change_uid   uuid        NOT NULL REFERENCES settings.change (uid),
    approver     text        NOT NULL,
    digest       bytea       NOT NULL CHECK (length(digest) = 32), -- of what was approved
    comment      text        NOT NULL,
    approve_time timestamptz NOT NULL,
    PRIMARY KEY (change_uid, approver)
);

GRANT SELECT, INSERT ON settings.change TO {{service}};
GRANT UPDATE (state, reason, authors, digest, not_before, refusal, closing_reason, update_time, version) ON settings.change TO {{service}};
GRANT SELECT, INSERT, DELETE ON settings.change_edit, settings.change_approval TO {{service}};
GRANT UPDATE (revision) ON settings.change_edit TO {{service}};
