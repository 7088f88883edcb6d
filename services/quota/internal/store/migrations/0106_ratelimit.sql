-- What Envoys are answered by: files of envoyproxy/ratelimit, one domain each. What is spent of their limits is in cells,
-- as of all limits. Everything belongs to {{owner}}; the service may do what the grants at the end say.

CREATE SCHEMA ratelimit;
REVOKE ALL ON SCHEMA ratelimit FROM PUBLIC;

CREATE TABLE ratelimit.domain (
    domain      text        PRIMARY KEY CHECK (octet_length(domain) BETWEEN 1 AND 256),
    uid         uuid        NOT NULL UNIQUE,
    file        text        NOT NULL,
    yaml        text        NOT NULL CHECK (octet_length(yaml) <= 900000),
    limits      integer     NOT NULL CHECK (limits >= 0),
    salt        bytea       NOT NULL CHECK (octet_length(salt) = 16), -- of its cells, for as long as the domain is there
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    revision    bigint      NOT NULL DEFAULT 0
);

GRANT USAGE ON SCHEMA ratelimit TO {{service}};
GRANT SELECT, INSERT, DELETE ON ratelimit.domain TO {{service}};
GRANT UPDATE (file, yaml, limits, update_time, revision) ON ratelimit.domain TO {{service}};
