-- A rollout brings a new content of one document to growing shares of tenants. Everything belongs to {{owner}}; the
-- service may do what the grants at the end say.

CREATE TABLE settings.rollout (
    uid                uuid        PRIMARY KEY,
    namespace_uid      uuid        NOT NULL,
    namespace          text        NOT NULL,
    layer              text        NOT NULL CHECK (layer IN ('platform', 'plan', 'region', 'tenant')),
    layer_id           text        NOT NULL, -- as in settings.document
    document           text        NOT NULL, -- its name, as it was asked for
    content            text        NOT NULL CHECK (octet_length(content) <= 262144),
    base_revision      bigint      NOT NULL, -- of the document when it began, 0 without one
    revision           bigint      NOT NULL, -- that began it
    steps              integer[]   NOT NULL,
    canaries           text[]      NOT NULL, -- uids
    canary_names       text[]      NOT NULL,
    bake               interval    NOT NULL,
    error_permille     integer     NOT NULL,
    p99_percent        integer     NOT NULL,
    min_requests       bigint      NOT NULL,
    require_requests   boolean     NOT NULL,
    author             text        NOT NULL,
    reason             text        NOT NULL,
    create_time        timestamptz NOT NULL,
    state              text        NOT NULL CHECK (state IN ('RUNNING', 'HALTED', 'COMPLETED')),
    step               integer     NOT NULL CHECK (step >= 0 AND step <= cardinality(steps)),
    step_time          timestamptz NOT NULL,
    end_time           timestamptz,
    cause              text        NOT NULL DEFAULT '',
    detail             text        NOT NULL DEFAULT '',
    completed_revision bigint      NOT NULL DEFAULT 0,
    -- Requests without the new content, to judge steps by in which all tenants have it.
    baseline_requests  bigint      NOT NULL DEFAULT 0,
    baseline_errors    bigint      NOT NULL DEFAULT 0,
    baseline_latency   bigint[]    NOT NULL DEFAULT '{}',
    version            bigint      NOT NULL DEFAULT 1 -- +1 with each change, for etags
);
CREATE UNIQUE INDEX rollout_running ON settings.rollout (namespace_uid) WHERE state = 'RUNNING';
CREATE INDEX rollout_listed ON settings.rollout (namespace, uid DESC);

-- What each process last said of a rollout. A process reports every few seconds: of what is lost it says the sum again.
CREATE TABLE settings.rollout_report (
    rollout_uid      uuid        NOT NULL REFERENCES settings.rollout (uid) ON DELETE CASCADE,
    reporter         text        NOT NULL, -- identity and replica
    instance         text        NOT NULL,
    step             integer     NOT NULL,
    apply_time       timestamptz NOT NULL,
    report_time      timestamptz NOT NULL DEFAULT clock_timestamp(),
    left_in_order    boolean     NOT NULL,
    quarantined      text        NOT NULL,
    crashed          boolean     NOT NULL,
    next_requests    bigint      NOT NULL,
    next_errors      bigint      NOT NULL,
    next_latency     bigint[]    NOT NULL,
    current_requests bigint      NOT NULL,
    current_errors   bigint      NOT NULL,
    current_latency  bigint[]    NOT NULL,
    PRIMARY KEY (rollout_uid, reporter)
) WITH (fillfactor = 50);

GRANT SELECT, INSERT ON settings.rollout TO {{service}};
GRANT UPDATE (state, step, step_time, end_time, cause, detail, completed_revision, baseline_requests, baseline_errors,
    baseline_latency, version) ON settings.rollout TO {{service}};
GRANT SELECT, INSERT, DELETE ON settings.rollout_report TO {{service}};
GRANT UPDATE (instance, step, apply_time, report_time, left_in_order, quarantined, crashed, next_requests, next_errors,
    next_latency, current_requests, current_errors, current_latency) ON settings.rollout_report TO {{service}};
