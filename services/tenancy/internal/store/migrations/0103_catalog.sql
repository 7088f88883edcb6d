-- The feed "tenants" tells of plans, and of the regions of cells. What is here already is owed, and so is what a replica of
-- the release before adds: it does not tell, and leaves the default.

ALTER TABLE registry.plan ADD COLUMN publish_owed boolean NOT NULL DEFAULT true;
ALTER TABLE registry.cell ADD COLUMN publish_owed boolean NOT NULL DEFAULT true;
GRANT UPDATE (publish_owed) ON registry.plan TO {{service}};
GRANT UPDATE (publish_owed) ON registry.cell TO {{service}};
