-- The files of brands, and drafts of brands.

-- What files hold, each once however many owners have it. Bytes are what we wrote, never what was uploaded.
CREATE TABLE settings.brand_content (
    sha256 bytea PRIMARY KEY CHECK (sha256 = sha256(bytes)),
    bytes  bytea NOT NULL CHECK (octet_length(bytes) BETWEEN 1 AND 5242880)
);

-- Who has which file. Whoever adds or removes one locks the namespace "brand" first, as those do who write brands.
CREATE TABLE settings.brand_asset (
    layer       text        NOT NULL CHECK (layer IN ('platform', 'plan', 'tenant')),
    layer_id    text        NOT NULL, -- as in settings.document
    sha256      bytea       NOT NULL REFERENCES settings.brand_content (sha256),
    extension   text        NOT NULL CHECK (extension IN ('png', 'jpg', 'gif', 'svg', 'ico', 'woff2', 'css')),
    icon        text        NOT NULL,
    size        integer     NOT NULL CHECK (size > 0),
    width       integer     NOT NULL,
    height      integer     NOT NULL,
    uses        text[]      NOT NULL, -- the assets that a style sheet loads
    author      text        NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (layer, layer_id, sha256),
    CHECK ((layer = 'platform') = (layer_id = ''))
);
CREATE INDEX brand_asset_content ON settings.brand_asset (sha256);

-- At most one draft for each owner, beside what is published.
CREATE TABLE settings.brand_draft (
    layer       text        NOT NULL CHECK (layer IN ('platform', 'plan', 'tenant')),
    layer_id    text        NOT NULL,
    content     text        NOT NULL CHECK (octet_length(content) <= 262144), -- canonical JSON
    base        bigint      NOT NULL, -- the revision of the document that it was made from, 0 for none
    author      text        NOT NULL,
    reason      text        NOT NULL,
    update_time timestamptz NOT NULL,
    revision    bigint      NOT NULL,
    PRIMARY KEY (layer, layer_id)
);

GRANT SELECT, INSERT, DELETE ON settings.brand_content, settings.brand_asset, settings.brand_draft TO {{service}};
GRANT UPDATE (content, base, author, reason, update_time, revision) ON settings.brand_draft TO {{service}};
