-- Which try at making a scheduled change live is under way, and who asked for it.

ALTER TABLE settings.change
    ADD COLUMN scheduled_by text        NOT NULL DEFAULT '', -- '': a release scheduled it that did not write that down
    ADD COLUMN attempt      bigint      NOT NULL DEFAULT 0,  -- +1 when it is scheduled, and for each try in vain
    ADD COLUMN try_time     timestamptz;                     -- nobody begins a try before; NULL: at once
GRANT UPDATE (scheduled_by, attempt, try_time) ON settings.change TO {{service}};
