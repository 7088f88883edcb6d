-- Rows that wait to become notes, as they came: a message notes.v1.ImportPart in each part.
CREATE TABLE app.import_part (
    tenant_id   uuid        NOT NULL DEFAULT rowhouse.tenant_id(),
    import      uuid        NOT NULL,
    number      integer     NOT NULL,
    rows        integer     NOT NULL CHECK (rows > 0),
    data        bytea       NOT NULL,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, import, number)
);
SELECT rowhouse.secure('app.import_part');
