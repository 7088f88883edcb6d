-- Whose turn it is. Nothing here is a tenant's: a job's arguments, rows and progress are in the tenant's own tables. What is lost
-- here is asked for again by whoever retries the job.

-- A resource class, and its virtual time: the start of the last turn that began.
CREATE TABLE class (
    class text   PRIMARY KEY,
    vnow  bigint NOT NULL DEFAULT 0
);

-- A tenant's place in a class. It has one turn at a time.
CREATE TABLE turn (
    tenant_uid  uuid        NOT NULL,
    class       text        NOT NULL REFERENCES class,
    state       text        NOT NULL CHECK (state IN ('idle', 'ready', 'running')),
    vstart      bigint      NOT NULL, -- when it begins, in virtual time
    finish      bigint      NOT NULL DEFAULT 0, -- when its last one ended
    weight      integer     NOT NULL DEFAULT 1 CHECK (weight BETWEEN 1 AND 1000),
    fence       bigint      NOT NULL DEFAULT 0, -- grows with each turn: a worker that overslept its lease settles nothing
    lease_until timestamptz,
    job         uuid, -- that runs
    PRIMARY KEY (tenant_uid, class)
);
CREATE INDEX turn_ready ON turn (class, vstart, tenant_uid) WHERE state = 'ready';
CREATE INDEX turn_running ON turn (lease_until) WHERE state = 'running';

-- A job that has to go on.
CREATE TABLE entry (
    tenant_uid  uuid        NOT NULL,
    job         uuid        NOT NULL,
    class       text        NOT NULL REFERENCES class,
    kind        text        NOT NULL,
    origin      bytea       NOT NULL,
    announced   boolean     NOT NULL, -- before its own transaction is known to be committed
    due         timestamptz NOT NULL,
    ran         timestamptz NOT NULL DEFAULT '-infinity', -- a tenant's jobs take turns among themselves
    sequence    bigint      GENERATED ALWAYS AS IDENTITY,
    rows        integer     NOT NULL DEFAULT 0, -- that a step did last, to begin with
    tries       integer     NOT NULL DEFAULT 0, -- in vain, in a row
    taken       integer     NOT NULL DEFAULT 0, -- and not settled, in a row
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_uid, job)
);
CREATE INDEX entry_due ON entry (due);
CREATE INDEX entry_next ON entry (tenant_uid, class, ran, sequence);
CREATE INDEX entry_age ON entry (create_time);
