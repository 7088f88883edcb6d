-- The app that is attacked: as an app of ours should be.
CREATE TABLE app.note (
	tenant_id uuid    NOT NULL DEFAULT rowhouse.tenant_id(),
	id        int     NOT NULL,
	title     text    NOT NULL,
	flag      boolean NOT NULL DEFAULT false,
	PRIMARY KEY (tenant_id, id),
	UNIQUE (tenant_id, title)
);
CREATE TABLE app.tag (
	tenant_id uuid NOT NULL DEFAULT rowhouse.tenant_id(),
	note_id   int  NOT NULL,
	tag       text NOT NULL,
	PRIMARY KEY (tenant_id, note_id, tag),
	FOREIGN KEY (tenant_id, note_id) REFERENCES app.note (tenant_id, id) ON DELETE CASCADE
);
CREATE TABLE app.event (
	tenant_id uuid NOT NULL DEFAULT rowhouse.tenant_id(),
	id        int  NOT NULL,
	body      text NOT NULL,
	PRIMARY KEY (tenant_id, id)
) PARTITION BY HASH (tenant_id);
CREATE TABLE app.event_0 PARTITION OF app.event FOR VALUES WITH (MODULUS 1, REMAINDER 0);
CREATE VIEW app.titles WITH (security_invoker = on) AS SELECT id, title FROM app.note;
GRANT SELECT ON app.titles TO rowhouse_app;
