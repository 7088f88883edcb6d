-- A change may begin a rollout instead of writing its document, and what was approved so is completed without asking again.

ALTER TABLE settings.change
    ADD COLUMN rollout         bytea NOT NULL DEFAULT '', -- a rowhouse.config.v1.ChangeRollout; empty for none
    ADD COLUMN started_rollout text  NOT NULL DEFAULT ''; -- its name
GRANT UPDATE (rollout, started_rollout) ON settings.change TO {{service}};

ALTER TABLE settings.rollout ADD COLUMN approvals smallint NOT NULL DEFAULT 0; -- how many had approved it when it began
