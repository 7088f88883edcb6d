-- What a tenant's jobs are and how far they are: the truth about them, beside the tenant's other rows. The text is that of
-- jobs.Migration, of github.com/rowhouse-platform/rowhouse/sdk/jobs.
CREATE TABLE app.job (
    tenant_id   uuid        NOT NULL DEFAULT rowhouse.tenant_id(),
    id          uuid        NOT NULL,
    kind        text        NOT NULL CHECK (length(kind) BETWEEN 1 AND 40),
    args        jsonb       NOT NULL,
    origin      bytea       NOT NULL, -- the signed context in which the job was asked for: evidence, and no authority
    origin_time timestamptz NOT NULL,
    state       text        NOT NULL DEFAULT 'QUEUED' CHECK (state IN ('QUEUED', 'RUNNING', 'DONE', 'CANCELLED', 'DEAD')),
    cursor      bytea, -- where the last step ended that was committed
    rows_done   bigint      NOT NULL DEFAULT 0,
    rows_total  bigint      NOT NULL DEFAULT 0, -- 0 while nobody knows
    failures    integer     NOT NULL DEFAULT 0, -- in a row
    problem     text        NOT NULL DEFAULT '' CHECK (length(problem) <= 500),
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    start_time  timestamptz,
    update_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    end_time    timestamptz,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX job_by_time ON app.job (tenant_id, create_time DESC, id);
SELECT rowhouse.secure('app.job');
