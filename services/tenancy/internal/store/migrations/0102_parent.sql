-- Families of tenants, of one level: a parent has no parent. What keeps that are row locks, taken by whoever sets a parent,
-- deletes one or restores a child.

ALTER TABLE registry.tenant ADD COLUMN parent_uid uuid REFERENCES registry.tenant CHECK (parent_uid <> uid);
CREATE INDEX tenant_parent ON registry.tenant (parent_uid) WHERE parent_uid IS NOT NULL;
GRANT UPDATE (parent_uid) ON registry.tenant TO {{service}};

-- The feeds tell the region from now on.
UPDATE registry.tenant SET publish_owed = true;
