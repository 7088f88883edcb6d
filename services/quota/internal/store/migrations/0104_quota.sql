-- Durable quotas, what tenants have used and hold of them, and entitlements. Everything belongs to {{owner}}; the service
-- may do what the grants at the end say. Row security binds the owner, too: a transaction says whose rows it means, see
-- tenant.go beside these migrations.

CREATE SCHEMA quota;
REVOKE ALL ON SCHEMA quota FROM PUBLIC;

-- Whether a row of a tenant may be seen. Without the settings there is none.
CREATE FUNCTION quota.of_tenant(uid uuid) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE current_setting('rowhouse.tenant_uid', true) WHEN '*' THEN true WHEN '' THEN false
    ELSE uid = current_setting('rowhouse.tenant_uid', true)::uuid END;

-- Whether it is of a tenant above that shares something with it.
CREATE FUNCTION quota.of_pool(uid uuid) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN uid::text = ANY (string_to_array(current_setting('rowhouse.pool_uids', true), ','));

CREATE TABLE quota.quota (
    layer            text        NOT NULL CHECK (layer IN ('platform', 'plan', 'tenant')),
    layer_id         text        NOT NULL, -- '' for the platform, a plan's id, a tenant's uid
    id               text        NOT NULL CHECK (id ~ '^[a-z](-?[a-z0-9])*$' AND length(id) <= 63),
    uid              uuid        NOT NULL UNIQUE,
    amount           bigint      NOT NULL CHECK (amount BETWEEN 0 AND 1125899906842624),
    period           smallint    NOT NULL CHECK (period BETWEEN 1 AND 3),
    anchor_day       smallint    NOT NULL CHECK (anchor_day BETWEEN 1 AND 31),
    anchor_hour      smallint    NOT NULL CHECK (anchor_hour BETWEEN 0 AND 23),
    overage          smallint    NOT NULL CHECK (overage BETWEEN 1 AND 4),
    grace_percent    integer     NOT NULL,
    grace_ns         bigint      NOT NULL,
    throttle_amount  bigint      NOT NULL,
    throttle_ns      bigint      NOT NULL,
    late_commit      smallint    NOT NULL CHECK (late_commit BETWEEN 1 AND 2),
    on_change        smallint    NOT NULL CHECK (on_change BETWEEN 1 AND 3),
    thresholds       integer[]   NOT NULL,
    meter            text        NOT NULL DEFAULT '',
    shared           boolean     NOT NULL, -- with the tenant's children
    create_time      timestamptz NOT NULL,
    update_time      timestamptz NOT NULL,
    revision         bigint      NOT NULL DEFAULT 0,
    PRIMARY KEY (layer, layer_id, id),
    CHECK ((layer = 'platform') = (layer_id = ''))
);

CREATE TABLE quota.entitlement (
    layer       text        NOT NULL CHECK (layer IN ('platform', 'plan', 'tenant')),
    layer_id    text        NOT NULL,
    id          text        NOT NULL CHECK (id ~ '^[a-z](-?[a-z0-9])*$' AND length(id) <= 63),
    uid         uuid        NOT NULL UNIQUE,
    kind        smallint    NOT NULL CHECK (kind BETWEEN 1 AND 3),
    enabled     boolean     NOT NULL,
    value       text        NOT NULL CHECK (octet_length(value) <= 16384),
    quota       text        NOT NULL,
    expire_time timestamptz,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    revision    bigint      NOT NULL DEFAULT 0,
    PRIMARY KEY (layer, layer_id, id),
    CHECK ((layer = 'platform') = (layer_id = ''))
);

-- What a tenant used of a quota in one period. Whoever moves it holds its lock; several are locked in the order of the key.
CREATE TABLE quota.counter (
    tenant_uid   uuid        NOT NULL,
    quota        text        NOT NULL,
    period_start timestamptz NOT NULL, -- 1970 without a period
    used         bigint      NOT NULL DEFAULT 0 CHECK (used >= 0),
    held         bigint      NOT NULL DEFAULT 0 CHECK (held >= 0),
    lim          bigint      NOT NULL CHECK (lim >= 0), -- of the quota, prorated
    adjustment   bigint      NOT NULL DEFAULT 0,
    amount       bigint      NOT NULL, -- of the quota as it was when lim was made of it
    source       text        NOT NULL, -- its uid and revision
    seen         text[]      NOT NULL DEFAULT '{}', -- all that it was in this period, for RESET
    grace_until  timestamptz,
    throttle_tat bigint      NOT NULL DEFAULT 0,
    version      bigint      NOT NULL DEFAULT 0, -- +1 with each change but of held, for its etag
    PRIMARY KEY (tenant_uid, quota, period_start)
) WITH (fillfactor = 70);
CREATE INDEX counter_old ON quota.counter (period_start) WHERE period_start > 'epoch';

CREATE TABLE quota.reservation (
    tenant_uid  uuid        NOT NULL,
    id          uuid        NOT NULL,
    request_id  uuid        NOT NULL,
    digest      bytea       NOT NULL, -- SHA-256 of the request without its id
    state       smallint    NOT NULL CHECK (state BETWEEN 1 AND 4),
    create_time timestamptz NOT NULL,
    expire_time timestamptz NOT NULL,
    end_time    timestamptz,
    first       bytea       NOT NULL, -- rowhouse.quota.v1.Reservation as it was made: what a repeat is answered
    last        bytea,                -- as it ended
    ended       bytea,                -- SHA-256 of what it was committed with
    PRIMARY KEY (tenant_uid, id),
    UNIQUE (tenant_uid, request_id)
) WITH (fillfactor = 70);
CREATE INDEX reservation_due ON quota.reservation (expire_time) WHERE state = 1;
CREATE INDEX reservation_open ON quota.reservation (tenant_uid) WHERE state = 1;
CREATE INDEX reservation_old ON quota.reservation (create_time) WHERE state <> 1;

-- What a reservation holds of one counter. It goes with the reservation's end, or when it has run out, by whoever next
-- needs the counter. The owner of the counter is the tenant or one above it. held of a counter is the sum of its holds.
CREATE TABLE quota.hold (
    tenant_uid     uuid        NOT NULL,
    reservation_id uuid        NOT NULL,
    owner_uid      uuid        NOT NULL,
    quota          text        NOT NULL,
    period_start   timestamptz NOT NULL,
    amount         bigint      NOT NULL CHECK (amount > 0),
    expire_time    timestamptz NOT NULL,
    PRIMARY KEY (tenant_uid, reservation_id, owner_uid, quota)
);
CREATE INDEX hold_due ON quota.hold (owner_uid, quota, period_start, expire_time);
CREATE INDEX hold_late ON quota.hold (expire_time);

-- What a tenant's children used of what it shares, so that it can be given back when one is erased.
CREATE TABLE quota.share (
    tenant_uid   uuid        NOT NULL, -- the child
    owner_uid    uuid        NOT NULL,
    quota        text        NOT NULL,
    period_start timestamptz NOT NULL,
    used         bigint      NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_uid, owner_uid, quota, period_start)
) WITH (fillfactor = 70);
CREATE INDEX share_owner ON quota.share (owner_uid);

-- The notices that were given.
CREATE TABLE quota.notice (
    tenant_uid   uuid        NOT NULL,
    about        text        NOT NULL, -- "quotas/seats"
    type         text        NOT NULL,
    period_start timestamptz NOT NULL,
    percent      integer     NOT NULL,
    notice_time  timestamptz NOT NULL,
    PRIMARY KEY (tenant_uid, about, type, period_start, percent)
);
CREATE INDEX notice_old ON quota.notice (notice_time);

ALTER TABLE quota.quota ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE quota.entitlement ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE quota.counter ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE quota.reservation ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE quota.hold ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE quota.share ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE quota.notice ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY layers ON quota.quota USING (CASE WHEN layer <> 'tenant' THEN true
    ELSE quota.of_tenant(layer_id::uuid) OR coalesce(quota.of_pool(layer_id::uuid), false) END);
CREATE POLICY layers ON quota.entitlement USING (CASE WHEN layer <> 'tenant' THEN true ELSE quota.of_tenant(layer_id::uuid) END);
CREATE POLICY own ON quota.counter USING (quota.of_tenant(tenant_uid) OR quota.of_pool(tenant_uid));
CREATE POLICY own ON quota.reservation USING (quota.of_tenant(tenant_uid));
-- What others hold of a shared quota can be seen when it has run out, to be given back: nothing but a number.
CREATE POLICY own ON quota.hold USING (quota.of_tenant(tenant_uid) OR quota.of_tenant(owner_uid) OR quota.of_pool(owner_uid))
    WITH CHECK (quota.of_tenant(tenant_uid));
CREATE POLICY own ON quota.share USING (quota.of_tenant(tenant_uid));
CREATE POLICY own ON quota.notice USING (quota.of_tenant(tenant_uid) OR quota.of_pool(tenant_uid));

REVOKE ALL ON FUNCTION quota.of_tenant(uuid), quota.of_pool(uuid) FROM PUBLIC;
GRANT USAGE ON SCHEMA quota TO {{service}};
GRANT EXECUTE ON FUNCTION quota.of_tenant(uuid), quota.of_pool(uuid) TO {{service}};
GRANT SELECT, INSERT, DELETE ON quota.quota, quota.entitlement, quota.counter, quota.reservation, quota.hold, quota.share,
    quota.notice TO {{service}};
GRANT UPDATE (amount, period, anchor_day, anchor_hour, overage, grace_percent, grace_ns, throttle_amount, throttle_ns,
    late_commit, on_change, thresholds, meter, shared, update_time, revision) ON quota.quota TO {{service}};
GRANT UPDATE (kind, enabled, value, quota, expire_time, update_time, revision) ON quota.entitlement TO {{service}};
GRANT UPDATE (used, held, lim, adjustment, amount, source, seen, grace_until, throttle_tat, version)
    ON quota.counter TO {{service}};
GRANT UPDATE (state, end_time, last, ended) ON quota.reservation TO {{service}};
GRANT UPDATE (used) ON quota.share TO {{service}};
GRANT UPDATE (notice_time) ON quota.notice TO {{service}};
