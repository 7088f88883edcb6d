-- The tenant column fills itself in, leads every key, and is enforced by the policies
-- that rowhouse.secure makes: no query of the app has to name it.
CREATE TABLE app.note (
    tenant_id   uuid        NOT NULL DEFAULT rowhouse.tenant_id(),
    id          uuid        NOT NULL,
    title       text        NOT NULL CHECK (length(title) BETWEEN 1 AND 200),
    body        text        NOT NULL DEFAULT '' CHECK (length(body) <= 10000),
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX note_by_time ON app.note (tenant_id, create_time DESC, id);
SELECT rowhouse.secure('app.note');
