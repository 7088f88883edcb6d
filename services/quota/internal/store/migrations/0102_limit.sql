-- What a limit says beyond its rate. Rows from before say what they always meant: a rate of the tenant's, for every call,
-- of the resource that is named like it.

ALTER TABLE meter.rate_limit
    ADD COLUMN kind        integer     NOT NULL DEFAULT 1 CHECK (kind IN (1, 2)),        -- RATE, CONCURRENCY
    ADD COLUMN resource    text        CHECK (resource ~ '^[a-z](-?[a-z0-9])*$' AND length(resource) <= 63), -- NULL: the id
    ADD COLUMN scope       integer     NOT NULL DEFAULT 1 CHECK (scope IN (1, 2, 3)),    -- TENANT, PLAN, PLATFORM
    ADD COLUMN dimensions  text[]      NOT NULL DEFAULT '{}' CHECK (cardinality(dimensions) <= 3),
    ADD COLUMN rules       bytea,                                                        -- match and costs: a Limit with nothing else
    ADD COLUMN mode        integer     NOT NULL DEFAULT 1 CHECK (mode IN (1, 2)),        -- ENFORCE, SHADOW
    ADD COLUMN on_change   integer     NOT NULL DEFAULT 1 CHECK (on_change IN (1, 2)),   -- KEEP_USED, RESET
    ADD COLUMN expire_time timestamptz,                                                  -- from then on the layer above holds
    ADD COLUMN max_cells   bigint      NOT NULL DEFAULT 100000 CHECK (max_cells BETWEEN 1 AND 10000000),
    ADD CHECK (layer <> 'tenant' OR scope = 1),
    ADD CHECK (layer <> 'plan' OR scope <> 3);

-- How many limits a resource has is counted at each new one.
CREATE INDEX ON meter.rate_limit (coalesce(resource, id), id);

GRANT UPDATE (resource, scope, dimensions, rules, mode, on_change, expire_time, max_cells) ON meter.rate_limit TO {{service}};
