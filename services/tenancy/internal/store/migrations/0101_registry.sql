-- The registry of tenants. It belongs to {{owner}}; the service may do what the grants at the end say and nothing else:
-- uids and creation times are fixed by them, not by good intentions.

CREATE SCHEMA registry;
REVOKE ALL ON SCHEMA registry FROM PUBLIC;

-- Numbers that are never given twice. Sequences would leave holes when a call only validates.
CREATE TABLE registry.counter (
    name text PRIMARY KEY,
    last integer NOT NULL
);
INSERT INTO registry.counter (name, last) VALUES ('cell', 0);

CREATE TABLE registry.plan (
    id            text        PRIMARY KEY CHECK (id ~ '^[a-z](-?[a-z0-9])*$' AND length(id) <= 20),
    uid           uuid        NOT NULL UNIQUE,
    display_name  text        NOT NULL,
    models        integer[]   NOT NULL CHECK (cardinality(models) > 0),
    default_model integer     NOT NULL CHECK (default_model = ANY (models)),
    statement_ms  integer     NOT NULL CHECK (statement_ms BETWEEN 1 AND 600000),
    lock_ms       integer     NOT NULL CHECK (lock_ms BETWEEN 1 AND 600000),
    idle_ms       integer     NOT NULL CHECK (idle_ms BETWEEN 1 AND 600000),
    retention_s   bigint      NOT NULL CHECK (retention_s BETWEEN 3600 AND 31536000),
    loss          integer     NOT NULL CHECK (loss IN (1, 2)),
    create_time   timestamptz NOT NULL,
    update_time   timestamptz NOT NULL,
    revision bigint NOT NULL DEFAULT 0
);

CREATE TABLE registry.cell (
    id              text        PRIMARY KEY CHECK (id ~ '^[a-z](-?[a-z0-9])*$' AND length(id) <= 20),
    uid             uuid        NOT NULL UNIQUE,
    number          integer     NOT NULL UNIQUE CHECK (number > 0),
    region          text        NOT NULL,
    credentials_ref text        NOT NULL,
    models          integer[]   NOT NULL CHECK (cardinality(models) > 0),
    capacity        integer     NOT NULL CHECK (capacity > 0),
    used            integer     NOT NULL DEFAULT 0 CHECK (used >= 0),
    state           integer     NOT NULL CHECK (state IN (1, 2)),
    create_time     timestamptz NOT NULL,
    update_time     timestamptz NOT NULL,
    revision bigint NOT NULL DEFAULT 0
);

-- Keys for database seals. A key is used once it is in every database of its cell.
CREATE TABLE registry.seal_key (
    cell        text        NOT NULL REFERENCES registry.cell,
    kid         integer     NOT NULL CHECK (kid BETWEEN 1 AND 255),
    sealed      bytea       NOT NULL, -- AES-256-GCM under the KEK; the cell and the kid are authenticated with it
    not_after   timestamptz NOT NULL,
    create_time timestamptz NOT NULL,
    use_time    timestamptz,          -- since when gateways seal with it; NULL while it is being installed
    PRIMARY KEY (cell, kid)
);

CREATE TABLE registry.app (
    id            text        PRIMARY KEY CHECK (id ~ '^[a-z](-?[a-z0-9])*$' AND length(id) <= 40),
    uid           uuid        NOT NULL UNIQUE,
    display_name  text        NOT NULL,
    grpc_services text[]      NOT NULL,
    create_time   timestamptz NOT NULL,
    update_time   timestamptz NOT NULL,
    revision bigint NOT NULL DEFAULT 0
);

-- The bits of a context's audience. A freed one rests until no context that names it can live.
CREATE TABLE registry.audience_bit (
    bit       integer     PRIMARY KEY CHECK (bit BETWEEN 16 AND 63),
    app       text        UNIQUE REFERENCES registry.app,
    free_time timestamptz
);
INSERT INTO registry.audience_bit (bit) SELECT generate_series(16, 63);

CREATE TABLE registry.app_upstream (
    app          text    NOT NULL REFERENCES registry.app,
    cell         text    NOT NULL REFERENCES registry.cell,
    position     integer NOT NULL,
    grpc_address text    NOT NULL,
    http_address text    NOT NULL,
    spiffe_id    text    NOT NULL,
    PRIMARY KEY (app, cell)
);

-- A shared host leads to one app.
CREATE TABLE registry.app_shared_host (
    host     text    PRIMARY KEY,
    app      text    NOT NULL REFERENCES registry.app,
    position integer NOT NULL
);

-- What an app's tables consist of, in the order of the versions. Rows are only added.
CREATE TABLE registry.app_migration (
    app         text        NOT NULL REFERENCES registry.app,
    version     text COLLATE "C" NOT NULL CHECK (version ~ '^[0-9]{4}_[a-z0-9_]+$' AND length(version) <= 100),
    sha256      bytea       NOT NULL CHECK (length(sha256) = 32),
    statements  text        NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (app, version)
);

CREATE TABLE registry.tenant (
    uid               uuid        PRIMARY KEY,
    id                text        NOT NULL CONSTRAINT tenant_id_taken UNIQUE
                                  CHECK (id ~ '^[a-z](-?[a-z0-9])*$' AND length(id) BETWEEN 3 AND 63),
    display_name      text        NOT NULL,
    plan              text        NOT NULL REFERENCES registry.plan,
    state             integer     NOT NULL CHECK (state BETWEEN 1 AND 5),
    generation        bigint      NOT NULL CHECK (generation > 0),
    labels            jsonb       NOT NULL,
    external_id       text        CONSTRAINT tenant_external_id_taken UNIQUE,
    delete_protection boolean     NOT NULL,
    loss              integer     NOT NULL CHECK (loss BETWEEN 0 AND 2),
    create_time       timestamptz NOT NULL,
    update_time       timestamptz NOT NULL,
    revision bigint NOT NULL DEFAULT 0,
    delete_time       timestamptz,
    purge_time        timestamptz,
    publish_owed      boolean     NOT NULL DEFAULT false, -- the feeds must be told anew, since the plan changed
    CHECK ((state = 4) = (delete_time IS NOT NULL AND purge_time IS NOT NULL))
);
CREATE INDEX tenant_plan ON registry.tenant (plan);
CREATE INDEX tenant_publish_owed ON registry.tenant (uid) WHERE publish_owed;
CREATE INDEX tenant_create_time ON registry.tenant (create_time, id);

CREATE TABLE registry.suspension (
    tenant_uid uuid        NOT NULL REFERENCES registry.tenant,
    cause      integer     NOT NULL CHECK (cause BETWEEN 1 AND 4),
    actor      text        NOT NULL,
    time       timestamptz NOT NULL,
    note       text        NOT NULL,
    PRIMARY KEY (tenant_uid, cause)
);

-- One home per tenant.
CREATE TABLE registry.placement (
    tenant_uid uuid    PRIMARY KEY REFERENCES registry.tenant,
    model      integer NOT NULL CHECK (model BETWEEN 1 AND 3),
    cell       text    NOT NULL REFERENCES registry.cell,
    generation bigint  NOT NULL CHECK (generation > 0),
    revision   bigint  NOT NULL CHECK (revision > 0) -- +1 with each change that the cell's databases must learn
);
CREATE INDEX placement_cell ON registry.placement (cell);

-- What each app's database in the cell has been told. Whatever lags behind placement.revision is owed.
CREATE TABLE registry.placement_app (
    tenant_uid uuid        NOT NULL REFERENCES registry.placement,
    app        text        NOT NULL REFERENCES registry.app,
    revision   bigint      NOT NULL DEFAULT 0, -- told and committed there
    owed       boolean     NOT NULL DEFAULT true,
    state      text        NOT NULL DEFAULT '',
    attempt    integer     NOT NULL DEFAULT 0,
    next_time  timestamptz NOT NULL DEFAULT now(),
    write_time timestamptz,
    PRIMARY KEY (tenant_uid, app)
);
CREATE INDEX placement_app_owed ON registry.placement_app (next_time) WHERE owed;
CREATE INDEX placement_app_app ON registry.placement_app (app);

-- The schemas and databases that SCHEMA and DATABASE tenants have for themselves, one per app. A row is there before
-- what it speaks of is made, and goes after that is dropped. A placement is told to the home once it is ready.
CREATE TABLE registry.home (
    tenant_uid uuid        NOT NULL REFERENCES registry.placement,
    app        text        NOT NULL REFERENCES registry.app,
    version    text COLLATE "C" NOT NULL DEFAULT '', -- the newest of app_migration that ran there
    begun      text COLLATE "C" NOT NULL DEFAULT '', -- the newest that may have run there: nobody knows how that ended
    ready      boolean     NOT NULL DEFAULT false, -- it was made, and brought to the newest version once
    gone       boolean     NOT NULL DEFAULT false, -- it is to be dropped
    owed       boolean     NOT NULL DEFAULT true,  -- it is to be made, migrated or dropped
    attempt    integer     NOT NULL DEFAULT 0,
    next_time  timestamptz NOT NULL DEFAULT now(),
    lease_until timestamptz,                       -- until when a worker holds it; NULL when none does
    fence      bigint      NOT NULL DEFAULT 0,     -- +1 per taking, in the WHERE of every write of the holder
    error      bytea,                              -- google.rpc.Status of the last try
    PRIMARY KEY (tenant_uid, app)
);
CREATE INDEX home_owed ON registry.home (next_time) WHERE owed;
CREATE INDEX home_app ON registry.home (app);

-- Which keys each database has: those that an app's tenants share, with no tenant, and those of DATABASE tenants.
CREATE TABLE registry.seal_install (
    cell         text        NOT NULL,
    kid          integer     NOT NULL,
    app          text        NOT NULL REFERENCES registry.app,
    tenant_uid   uuid,
    install_time timestamptz NOT NULL,
    UNIQUE NULLS NOT DISTINCT (cell, kid, app, tenant_uid),
    FOREIGN KEY (cell, kid) REFERENCES registry.seal_key,
    FOREIGN KEY (tenant_uid, app) REFERENCES registry.home ON DELETE CASCADE
);
CREATE INDEX seal_install_home ON registry.seal_install (tenant_uid, app);

CREATE TABLE registry.domain (
    uid         uuid        PRIMARY KEY,
    tenant_uid  uuid        NOT NULL REFERENCES registry.tenant,
    host        text        NOT NULL CHECK (length(host) <= 253),
    app         text        NOT NULL REFERENCES registry.app,
    state       integer     NOT NULL CHECK (state IN (1, 2)),
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    revision bigint NOT NULL DEFAULT 0,
    verify_time timestamptz,
    CONSTRAINT domain_exists UNIQUE (tenant_uid, host),
    CHECK ((state = 2) = (verify_time IS NOT NULL))
);
-- A claim blocks nobody; a host that serves leads to one tenant.
CREATE UNIQUE INDEX domain_taken ON registry.domain (host) WHERE state = 2;
CREATE INDEX domain_app ON registry.domain (app);

CREATE TABLE registry.context_key (
    key_id      bytea       PRIMARY KEY CHECK (length(key_id) = 8),
    public_key  bytea       NOT NULL CHECK (length(public_key) = 32),
    minter      text        NOT NULL,
    spiffe_id   text        NOT NULL,
    cells       text[]      NOT NULL,
    certificate bytea       NOT NULL,
    not_before  timestamptz NOT NULL,
    not_after   timestamptz NOT NULL,
    revoke_time timestamptz,
    published   boolean     NOT NULL DEFAULT true
);
CREATE INDEX context_key_not_after ON registry.context_key (not_after) WHERE published;

-- The keys with which tenancy itself signs the contexts that it renews: the newest one, and those before it until their
-- certificates end. Replicas that make one at the same time want the same number, and one of them gets it.
CREATE TABLE registry.signing_key (
    number      bigint      PRIMARY KEY CHECK (number > 0),
    key_id      bytea       NOT NULL UNIQUE REFERENCES registry.context_key ON DELETE CASCADE,
    sealed      bytea       NOT NULL, -- AES-256-GCM under the KEK
    create_time timestamptz NOT NULL
);

-- Who follows our feeds and how far they are. Lost in a crash, and told again within a second.
CREATE UNLOGGED TABLE registry.consumer (
    feed        text        NOT NULL,
    identity    text        NOT NULL,
    replica     text        NOT NULL,
    revision    bigint      NOT NULL,
    quarantined text[]      NOT NULL,
    report_time timestamptz NOT NULL,
    PRIMARY KEY (feed, identity, replica)
);

GRANT USAGE ON SCHEMA registry TO {{service}};
GRANT SELECT ON ALL TABLES IN SCHEMA registry TO {{service}};
GRANT UPDATE (last) ON registry.counter TO {{service}};
GRANT INSERT, DELETE, UPDATE (display_name, models, default_model, statement_ms, lock_ms, idle_ms, retention_s, loss,
    update_time, revision) ON registry.plan TO {{service}};
GRANT INSERT, UPDATE (credentials_ref, models, capacity, used, state, update_time, revision) ON registry.cell TO {{service}};
GRANT INSERT, DELETE, UPDATE (not_after, use_time) ON registry.seal_key TO {{service}};
GRANT INSERT, DELETE, UPDATE (display_name, grpc_services, update_time, revision) ON registry.app TO {{service}};
GRANT UPDATE (app, free_time) ON registry.audience_bit TO {{service}};
GRANT INSERT, DELETE ON registry.app_upstream, registry.app_shared_host TO {{service}};
GRANT INSERT, DELETE ON registry.app_migration TO {{service}};
GRANT INSERT, DELETE, UPDATE (version, begun, ready, gone, owed, attempt, next_time, lease_until, fence, error) ON registry.home TO {{service}};
GRANT INSERT, DELETE ON registry.seal_install TO {{service}};
GRANT INSERT, DELETE, UPDATE (display_name, plan, state, generation, labels, external_id, delete_protection, loss,
    update_time, revision, delete_time, purge_time, publish_owed) ON registry.tenant TO {{service}};
GRANT INSERT, DELETE ON registry.suspension TO {{service}};
GRANT INSERT, DELETE, UPDATE (revision) ON registry.placement TO {{service}};
GRANT INSERT, DELETE, UPDATE (revision, owed, state, attempt, next_time, write_time) ON registry.placement_app TO {{service}};
GRANT INSERT, DELETE, UPDATE (app, state, update_time, revision, verify_time) ON registry.domain TO {{service}};
GRANT INSERT, DELETE, UPDATE (cells, certificate, not_before, not_after, revoke_time, published) ON registry.context_key TO {{service}};
GRANT INSERT ON registry.signing_key TO {{service}};
GRANT INSERT, DELETE, UPDATE (revision, quarantined, report_time) ON registry.consumer TO {{service}};
