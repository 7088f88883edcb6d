-- Limits and what of them is spent. Everything belongs to {{owner}}; the service may do what the grants at the end say.

CREATE SCHEMA meter;
REVOKE ALL ON SCHEMA meter FROM PUBLIC;

CREATE TABLE meter.rate_limit (
    layer       text        NOT NULL CHECK (layer IN ('platform', 'plan', 'tenant')),
    layer_id    text        NOT NULL, -- '' for the platform, a plan's id, a tenant's uid
    id          text        NOT NULL CHECK (id ~ '^[a-z](-?[a-z0-9])*$' AND length(id) <= 63),
    uid         uuid        NOT NULL UNIQUE,
    tokens      bigint      NOT NULL CHECK (tokens BETWEEN 0 AND 1099511627776),
    period_ns   bigint      NOT NULL CHECK (period_ns > 0),
    burst       bigint      NOT NULL CHECK (burst BETWEEN 1 AND 1099511627776),
    on_loss     integer     NOT NULL CHECK (on_loss BETWEEN 1 AND 3),
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    revision    bigint      NOT NULL DEFAULT 0,
    PRIMARY KEY (layer, layer_id, id),
    CHECK ((layer = 'platform') = (layer_id = ''))
);

-- The state of a tenant's limit: its theoretical arrival time and the numbers under which it was charged. A row whose
-- time has passed equals a missing one, so the oldest can be deleted without loss; live ones never are. There is no
-- index on tat, so that charging stays an update in place.
CREATE TABLE meter.cell (
    tenant_uid uuid   NOT NULL,
    id         text   NOT NULL,
    tat        bigint NOT NULL,
    tokens     bigint NOT NULL,
    period_ns  bigint NOT NULL,
    burst      bigint NOT NULL,
    PRIMARY KEY (tenant_uid, id)
) WITH (fillfactor = 70);

-- Processes that hold leases; they share the rate when quota is lost.
CREATE UNLOGGED TABLE meter.holder (
    name      text        PRIMARY KEY,
    seen_time timestamptz NOT NULL
);

GRANT USAGE ON SCHEMA meter TO {{service}};
GRANT SELECT, DELETE ON meter.rate_limit, meter.cell, meter.holder TO {{service}};
GRANT INSERT ON meter.rate_limit, meter.cell, meter.holder TO {{service}};
GRANT UPDATE (tokens, period_ns, burst, on_loss, update_time, revision) ON meter.rate_limit TO {{service}};
GRANT UPDATE (tat, tokens, period_ns, burst) ON meter.cell TO {{service}};
GRANT UPDATE (seen_time) ON meter.holder TO {{service}};
