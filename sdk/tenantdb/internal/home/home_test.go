package home_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/internal/home"
)

func uid(t *testing.T) tenant.UID {
	t.Helper()
	uid, err := tenant.ParseUID("01890000-0000-7000-8000-00000000000a")
	if err != nil {
		t.Fatal(err)
	}
	return uid
}

func TestNames(t *testing.T) {
	t.Parallel()
	id := uid(t)
	const hex = "0189000000007000800000000000000a"
	long := strings.Repeat("abcdefghi-", 4)
	for got, want := range map[string]string{
		home.Schema(id):                                     "t_" + hex,
		home.Database("notes", id):                          "notes_" + hex,
		home.Database("a-b", id):                            "a_b_" + hex,
		home.Database("abcdefghi-abcdefghi-abcdefghij", id): "abcdefghi_abcdefghi_abcdefghij_" + hex,
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	one, other := home.Database(long+"x", id), home.Database(long+"y", id)
	if len(one) != 63 || one == other || !strings.HasSuffix(one, "_"+hex) {
		t.Errorf("long names: %s and %s", one, other)
	}
}

var queries = []struct{ sql, want string }{
	{`SELECT 1`, `SELECT 1`},
	{`SELECT title FROM app.note`, `SELECT title FROM T.note`},
	{`SELECT app.note.title FROM APP.note, "app"."note"`, `SELECT T.note.title FROM T.note, "T"."note"`},
	{`SELECT app FROM app . note`, `SELECT app FROM T . note`},
	{`SELECT n.app, n.app.b FROM app/* x */.note n`, `SELECT n.app, n.app.b FROM T/* x */.note n`},
	{`SELECT 'app.note', E'\'app.note', 'it''s app.note' FROM app.note`, `SELECT 'app.note', E'\'app.note', 'it''s app.note' FROM T.note`},
	{`SELECT $$app.note$$, $a$app.note$$app.x$a$, $1, app.f($2)`, `SELECT $$app.note$$, $a$app.note$$app.x$a$, $1, T.f($2)`},
	{"SELECT 1 -- app.note\nFROM app.note /* app.x /* app.y */ app.z */, app.w", "SELECT 1 -- app.note\nFROM T.note /* app.x /* app.y */ app.z */, T.w"},
	{`SELECT "App".x, "app.note", my_app.note, app1.note, app$.x, äapp.note`, `SELECT "App".x, "app.note", my_app.note, app1.note, app$.x, äapp.note`},
	{`SELECT '\' || app.f()`, `SELECT '\' || T.f()`},
	{`SELECT e.app.x, 'a'`, `SELECT e.app.x, 'a'`},
	{`SELECT"app"."b"`, `SELECT"T"."b"`},
	{`SELECT 'app.x`, `SELECT 'app.x`},
	{"SELECT E'a'\n'b\\'app.x' || app.f()", "SELECT E'a'\n'b\\'app.x' || T.f()"},
	{"SELECT E'a' -- 'app.x\n '\\'' , app.f(), '\\'", "SELECT E'a' -- 'app.x\n '\\'' , T.f(), '\\'"},
	{"SELECT E'a' '\\', app.f()", "SELECT E'a' '\\', T.f()"},
	{"SELECT 'a'\n'\\', app.f()", "SELECT 'a'\n'\\', T.f()"},
	{`SELECT $a$app.x`, `SELECT $a$app.x`},
}

func TestQuery(t *testing.T) {
	t.Parallel()
	for _, q := range queries {
		if got := home.Parse(q.sql).In("T"); got != q.want {
			t.Errorf("%s:\n got %s\nwant %s", q.sql, got, q.want)
		}
		if got := home.Parse(q.sql).In("app"); !strings.EqualFold(strings.ReplaceAll(q.sql, `"app"`, "app"), strings.ReplaceAll(got, `"app"`, "app")) {
			t.Errorf("in the shared schema %s became %s", q.sql, got)
		}
	}
}

var scripts = []struct{ sql, want string }{
	{`CREATE FUNCTION app.f() RETURNS int LANGUAGE sql AS $body$ SELECT n FROM app.note WHERE s = 'app.x' -- app.y
$body$; COMMENT ON TABLE app.note IS 'app.note';`, `CREATE FUNCTION T.f() RETURNS int LANGUAGE sql AS $body$ SELECT n FROM T.note WHERE s = 'app.x' -- app.y
$body$; COMMENT ON TABLE T.note IS 'app.note';`},
	{`CREATE FUNCTION app.f() RETURNS text AS 'SELECT ''app.x'' FROM app.note' LANGUAGE sql`,
		`CREATE FUNCTION T.f() RETURNS text AS 'SELECT ''app.x'' FROM T.note' LANGUAGE sql`},
	{`CREATE FUNCTION app.f() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM app.note; END`,
		`CREATE FUNCTION T.f() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM T.note; END`},
	{`GRANT USAGE ON SCHEMA app TO x; GRANT SELECT ON ALL TABLES IN SCHEMA other, app, "app" TO app`,
		`GRANT USAGE ON SCHEMA T TO x; GRANT SELECT ON ALL TABLES IN SCHEMA other, T, "T" TO app`},
	{`CREATE SCHEMA IF NOT EXISTS app; ALTER TABLE x SET SCHEMA APP`, `CREATE SCHEMA IF NOT EXISTS T; ALTER TABLE x SET SCHEMA T`},
	{`SELECT schema, app FROM app.s WHERE schema = 'app' AND x.schema app`, `SELECT schema, app FROM T.s WHERE schema = 'app' AND x.schema app`},
	{`CREATE FUNCTION app.f() SET search_path = pg_catalog, app, 'app' AS $$app.x$$`, `CREATE FUNCTION T.f() SET search_path = pg_catalog, T, 'T' AS $$T.x$$`},
	{`SET LOCAL search_path TO app; SET x = app`, `SET LOCAL search_path TO T; SET x = app`},
	{`SELECT rowhouse.secure('app.note'), nextval('app.s'::regclass), to_regclass('app."S"'), f('app.note')`,
		`SELECT rowhouse.secure('T.note'), nextval('T.s'::regclass), to_regclass('T."S"'), f('app.note')`},
	{`SELECT 'app.note' :: regclass, CAST('app.f(app.t)' AS regprocedure), regclass 'app.note', 'app.x'::pg_catalog.regtype, 'app.x'::text`,
		`SELECT 'T.note' :: regclass, CAST('T.f(T.t)' AS regprocedure), regclass 'T.note', 'T.x'::pg_catalog.regtype, 'app.x'::text`},
	{`SELECT 'app'::regnamespace, 'app'::text, E'app.x'::regclass, U&'app.x'::regclass`,
		`SELECT 'T'::regnamespace, 'app'::text, E'app.x'::regclass, U&'app.x'::regclass`},
	{`DO $$ BEGIN EXECUTE format('CREATE TABLE app.p_%s PARTITION OF ' || 'app.p', 1); PERFORM f('app.x'); END $$`,
		`DO $$ BEGIN EXECUTE format('CREATE TABLE T.p_%s PARTITION OF ' || 'T.p', 1); PERFORM f('app.x'); END $$`},
	{`DO LANGUAGE plpgsql $a$ BEGIN EXECUTE $b$ COMMENT ON TABLE app.x IS 'app.y' $b$; END $a$`,
		`DO LANGUAGE plpgsql $a$ BEGIN EXECUTE $b$ COMMENT ON TABLE T.x IS 'app.y' $b$; END $a$`},
	{`CREATE TRIGGER t AFTER INSERT ON app.x FOR EACH ROW EXECUTE FUNCTION app.f('app.y'); GRANT EXECUTE ON FUNCTION app.f() TO app`,
		`CREATE TRIGGER t AFTER INSERT ON T.x FOR EACH ROW EXECUTE FUNCTION T.f('app.y'); GRANT EXECUTE ON FUNCTION T.f() TO app`},
	{`CREATE TABLE app.t (schema text, app text, search_path text); INSERT INTO app.t (id, schema) VALUES (1, 'app')`,
		`CREATE TABLE T.t (schema text, app text, search_path text); INSERT INTO T.t (id, schema) VALUES (1, 'app')`},
	{`SELECT schema app, search_path app FROM app.t WHERE schema IN ('app')`, `SELECT schema app, search_path app FROM T.t WHERE schema IN ('app')`},
	{`CREATE TABLE app.t (search_path text, app text)`, `CREATE TABLE T.t (search_path text, app text)`},
	{`COMMENT ON SCHEMA app IS 'app'; DROP SCHEMA IF EXISTS x, app; ALTER SCHEMA app RENAME TO app`,
		`COMMENT ON SCHEMA T IS 'app'; DROP SCHEMA IF EXISTS x, T; ALTER SCHEMA T RENAME TO app`},
	{`ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO app`, `ALTER DEFAULT PRIVILEGES IN SCHEMA T GRANT SELECT ON TABLES TO app`},
	{`SELECT to_tsvector('app.german'::regconfig, body), 'app.d'::regdictionary, 'app.c'::regcollation, rowhouse.secure(target => 'app.note')`,
		`SELECT to_tsvector('T.german'::regconfig, body), 'T.d'::regdictionary, 'T.c'::regcollation, rowhouse.secure(target => 'T.note')`},
	{`INSERT INTO app.s VALUES ($$app.x$$, 'SCHEMA app')`, `INSERT INTO T.s VALUES ($$app.x$$, 'SCHEMA app')`},
	{`DO $$ app.x`, `DO $$ app.x`},
	{`DO 'app.x`, `DO 'app.x`},
}

func TestScript(t *testing.T) {
	t.Parallel()
	for _, s := range append(slices.Clone(queries), scripts...) {
		if got := home.Script(s.sql, "T"); got != s.want {
			t.Errorf("%s:\n got %s\nwant %s", s.sql, got, s.want)
		}
		if got := home.Script(s.sql, "app"); got != s.sql {
			t.Errorf("in the shared schema: %s", got)
		}
	}
}

func TestUnread(t *testing.T) {
	t.Parallel()
	for sql, want := range map[string]string{
		`INSERT INTO U&"\0061pp".note (id) VALUES (1)`:                      `U&"\0061pp"`,
		`SELECT nextval('app.n')`:                                           `'app.n'`,
		`SELECT nextval(E'\x61pp.n')`:                                       `E'\x61pp.n'`,
		`SELECT setval($$app.n$$, 1)`:                                       `$$app.n$$`,
		`SELECT 'app.n'::regclass`:                                          `'app.n'`,
		`SELECT CAST('"app".n' AS regclass)`:                                `'"app".n'`,
		`SELECT nextval('other.n'), u & "x", U&'\0061pp.n', 'app.n'::text`:  "",
		`SELECT id FROM app.note WHERE title IN ('app.x', $1) -- U&"app".n`: "",
	} {
		if got := home.Unread(sql); got != want {
			t.Errorf("%s: got %q, want %q", sql, got, want)
		}
	}
}

func FuzzQueryKeepsTheRest(f *testing.F) {
	for _, q := range queries {
		f.Add(q.sql)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		got := home.Parse(sql).In("app")
		if !strings.EqualFold(strings.ReplaceAll(got, `"`, ""), strings.ReplaceAll(sql, `"`, "")) {
			t.Errorf("%q became %q", sql, got)
		}
	})
}
