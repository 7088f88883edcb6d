CREATE TABLE app.visit (
	tenant_id uuid NOT NULL DEFAULT rowhouse.tenant_id(),
	place     int  NOT NULL,
	owner     int  NOT NULL,
	times     int  NOT NULL,
	PRIMARY KEY (tenant_id, place)
);
