-- The order in which a tenant's notes appear. A clock does not give it: of two notes the
-- one with the earlier time may be committed later, and a watch that has seen the other
-- would never show it. A number that is taken under a lock until the end of the
-- transaction does: when a number can be seen, so can all lower ones. The price is that a
-- tenant's writers take turns. Transaction ids would be free, but mean nothing once the
-- rows are moved to another cluster.
CREATE TABLE app.note_count (
    tenant_id uuid   NOT NULL DEFAULT rowhouse.tenant_id(),
    last      bigint NOT NULL,
    PRIMARY KEY (tenant_id)
);
SELECT rowhouse.secure('app.note_count');
-- Notes of before come first. A replica that is older than this writes more of them; a
-- watch that is open shows those when it is opened again.
ALTER TABLE app.note ADD COLUMN number bigint NOT NULL DEFAULT 0;
CREATE INDEX note_by_number ON app.note (tenant_id, number, id);
