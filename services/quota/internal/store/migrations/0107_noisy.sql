-- What tenants take of what is shared, as gateways and apps report it: minutes, kept for some hours. It is a report and no
-- record: after a crash of the server it begins anew, and writing it costs the log nothing.

CREATE SCHEMA noisy;
REVOKE ALL ON SCHEMA noisy FROM PUBLIC;

-- What a tenant took in a minute, as the processes of one identity tell it.
CREATE UNLOGGED TABLE noisy.share (
    tenant_uid  uuid        NOT NULL,
    reporter    text        NOT NULL,
    resource    smallint    NOT NULL CHECK (resource > 0),
    minute      timestamptz NOT NULL,
    amount      bigint      NOT NULL CHECK (amount >= 0),
    uncertain   bigint      NOT NULL CHECK (uncertain >= 0),
    PRIMARY KEY (tenant_uid, minute, reporter, resource)
) WITH (fillfactor = 80);
CREATE INDEX share_minute ON noisy.share (minute);

-- What all tenants took together, named above or not.
CREATE UNLOGGED TABLE noisy.total (
    reporter text        NOT NULL,
    resource smallint    NOT NULL CHECK (resource > 0),
    minute   timestamptz NOT NULL,
    amount   bigint      NOT NULL CHECK (amount >= 0),
    PRIMARY KEY (minute, reporter, resource)
) WITH (fillfactor = 80);

-- What the last context of a tenant said of it.
CREATE UNLOGGED TABLE noisy.tenant (
    tenant_uid uuid        PRIMARY KEY,
    plan       text        NOT NULL,
    model      smallint    NOT NULL,
    seen_time  timestamptz NOT NULL
);

-- The last report of each process, so that a repeat is not counted again.
CREATE UNLOGGED TABLE noisy.reporter (
    identity  text        NOT NULL,
    replica   text        NOT NULL,
    run       uuid        NOT NULL,
    sequence  bigint      NOT NULL,
    seen_time timestamptz NOT NULL,
    PRIMARY KEY (identity, replica)
);

GRANT USAGE ON SCHEMA noisy TO {{service}};
GRANT SELECT, INSERT, DELETE ON ALL TABLES IN SCHEMA noisy TO {{service}};
GRANT UPDATE (amount, uncertain) ON noisy.share TO {{service}};
GRANT UPDATE (amount) ON noisy.total TO {{service}};
GRANT UPDATE (plan, model, seen_time) ON noisy.tenant TO {{service}};
GRANT UPDATE (run, sequence, seen_time) ON noisy.reporter TO {{service}};
