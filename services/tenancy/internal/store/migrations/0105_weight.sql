-- Plans have a weight, and the feed "routes" tells of plans too: all of them are owed again. A replica of the release before
-- neither sets the weight nor tells of it: what it adds has the default, which gateways take for a plan that they do not know.

ALTER TABLE registry.plan ADD COLUMN weight integer NOT NULL DEFAULT 100 CHECK (weight BETWEEN 1 AND 1000);
UPDATE registry.plan SET publish_owed = true;
GRANT UPDATE (weight) ON registry.plan TO {{service}};
