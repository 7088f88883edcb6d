-- Which jobs of apps get contexts. The release before this one knows neither table and deletes apps without asking them.

CREATE TABLE registry.job_policy (
    app               text        NOT NULL REFERENCES registry.app ON DELETE CASCADE,
    kind              text        NOT NULL,
    uid               uuid        NOT NULL UNIQUE,
    scopes            bigint      NOT NULL, -- a bit set
    contexts_minute   integer     NOT NULL CHECK (contexts_minute BETWEEN 1 AND 600),
    tenants_minute    integer     NOT NULL CHECK (tenants_minute BETWEEN 1 AND 100000),
    max_origin_age_s  bigint      NOT NULL CHECK (max_origin_age_s BETWEEN 60 AND 604800),
    create_time       timestamptz NOT NULL,
    update_time       timestamptz NOT NULL,
    revision          bigint      NOT NULL CHECK (revision > 0),
    PRIMARY KEY (app, kind)
);

-- What was spent of the budgets: when all contexts that a tenant's jobs of a kind got are repaid, and when the last was made.
-- A row says nothing a minute later, and goes after an hour.
CREATE TABLE registry.job_mint (
    tenant_uid uuid        NOT NULL REFERENCES registry.tenant ON DELETE CASCADE,
    app        text        NOT NULL,
    kind       text        NOT NULL,
    repaid     timestamptz NOT NULL,
    mint_time  timestamptz NOT NULL,
    PRIMARY KEY (tenant_uid, app, kind),
    FOREIGN KEY (app, kind) REFERENCES registry.job_policy ON DELETE CASCADE
);
CREATE INDEX job_mint_by_kind ON registry.job_mint (app, kind, mint_time);
CREATE INDEX job_mint_by_time ON registry.job_mint (mint_time);

GRANT SELECT, INSERT, DELETE, UPDATE (scopes, contexts_minute, tenants_minute, max_origin_age_s, update_time, revision)
    ON registry.job_policy TO {{service}};
GRANT SELECT, INSERT, DELETE, UPDATE (repaid, mint_time) ON registry.job_mint TO {{service}};
