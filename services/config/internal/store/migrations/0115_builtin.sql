-- Which release's schema a built-in namespace has, so that a later release can bring its own and an earlier one cannot.

ALTER TABLE settings.namespace
    ADD COLUMN builtin_version integer NOT NULL DEFAULT 0,   -- 0: not built in, or made before this was noted
    ADD COLUMN builtin_schema  text    NOT NULL DEFAULT '';  -- as the release wrote it; another schema is an owner's
GRANT UPDATE (builtin_version, builtin_schema) ON settings.namespace TO {{service}};
