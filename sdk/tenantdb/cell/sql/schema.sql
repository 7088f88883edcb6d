-- What the database needs in order to verify a tenant by itself. Everything in schema
-- rowhouse belongs to rowhouse_sec, and no other role holds a right on the keys or the
-- placements: applications reach them through enter() and tenant_id() only.

CREATE SCHEMA IF NOT EXISTS rowhouse AUTHORIZATION rowhouse_sec;
CREATE SCHEMA IF NOT EXISTS app AUTHORIZATION {{owner}};

REVOKE ALL ON SCHEMA rowhouse, app FROM PUBLIC;
GRANT USAGE ON SCHEMA rowhouse TO {{owner}}, rowhouse_app, {{migrator}};
GRANT USAGE ON SCHEMA app TO rowhouse_app;

-- Functions are executable by everyone unless somebody says otherwise.
ALTER DEFAULT PRIVILEGES FOR ROLE {{owner}} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE rowhouse_sec REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

SET LOCAL ROLE rowhouse_sec;

-- mac_key holds the cell's keys in the form that HMAC needs: padded to a block, so that a
-- check costs two digests. prefix is how a seal under the key begins when it has no flags.
CREATE TABLE IF NOT EXISTS rowhouse.mac_key (
	kid       int         PRIMARY KEY CHECK (kid BETWEEN 0 AND 255),
	cell      bigint      NOT NULL CHECK (cell BETWEEN 0 AND 4294967295),
	ipad      bytea       NOT NULL CHECK (pg_catalog.length(ipad) = 64),
	opad      bytea       NOT NULL CHECK (pg_catalog.length(opad) = 64),
	not_after timestamptz NOT NULL,
	prefix    bytea       NOT NULL UNIQUE GENERATED ALWAYS AS (
		'\x01'::bytea || pg_catalog.substr(pg_catalog.int4send(kid), 4, 1) || '\x0000'::bytea
		|| pg_catalog.substr(pg_catalog.int8send(cell), 5, 4)) STORED
);

-- placement says which tenants live here. A null timeout is the login role's default and
-- spares enter() the work of setting it. home is what a seal of an active tenant says of
-- generation and tenant.
CREATE TABLE IF NOT EXISTS rowhouse.placement (
	tenant_id    uuid    PRIMARY KEY,
	state        text    NOT NULL CHECK (state IN ('active', 'fenced', 'suspended', 'moved')),
	generation   bigint  NOT NULL CHECK (generation >= 0),
	fence        bigint  NOT NULL DEFAULT 0,
	revision     bigint  NOT NULL DEFAULT 0,
	statement_ms int     CHECK (statement_ms > 0),
	lock_ms      int     CHECK (lock_ms > 0),
	idle_ms      int     CHECK (idle_ms > 0),
	timed        boolean NOT NULL GENERATED ALWAYS AS (
		statement_ms IS NOT NULL OR lock_ms IS NOT NULL OR idle_ms IS NOT NULL) STORED,
	home         bytea   UNIQUE GENERATED ALWAYS AS (CASE WHEN state = 'active'
		THEN pg_catalog.int8send(generation) || pg_catalog.uuid_send(tenant_id) END) STORED
);

-- migration is the fact: what ran in this database, written in the transaction that ran it.
CREATE TABLE IF NOT EXISTS rowhouse.migration (
	schema     text        NOT NULL,
	version    text        NOT NULL,
	sha256     bytea       NOT NULL CHECK (pg_catalog.length(sha256) = 32),
	applied_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
	PRIMARY KEY (schema, version)
);
GRANT SELECT, INSERT ON rowhouse.migration TO {{migrator}};

-- installed has one row: the rung on which this database stands, and for which app.
CREATE TABLE IF NOT EXISTS rowhouse.installed (
	one  boolean PRIMARY KEY DEFAULT true CHECK (one),
	rung text    NOT NULL CHECK (rung IN ('L2a', 'L2b')),
	app  text    NOT NULL
);

RESET ROLE;
