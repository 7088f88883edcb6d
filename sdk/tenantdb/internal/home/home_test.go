package home_test

import (
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
	{`SELECT app.note.title FROM APP.note, "app"."note"`, `SELECT T.note.title FROM T.note, T."note"`},
	{`SELECT app FROM app . note`, `SELECT app FROM T . note`},
	{`SELECT n.app, n.app.b FROM app/* x */.note n`, `SELECT n.app, n.app.b FROM T/* x */.note n`},
	{`SELECT 'app.note', E'\'app.note', 'it''s app.note' FROM app.note`, `SELECT 'app.note', E'\'app.note', 'it''s app.note' FROM T.note`},
	{`SELECT $$app.note$$, $a$app.note$$app.x$a$, $1, app.f($2)`, `SELECT $$app.note$$, $a$app.note$$app.x$a$, $1, T.f($2)`},
	{"SELECT 1 -- app.note\nFROM app.note /* app.x /* app.y */ app.z */, app.w", "SELECT 1 -- app.note\nFROM T.note /* app.x /* app.y */ app.z */, T.w"},
	{`SELECT "App".x, "app.note", my_app.note, app1.note, app$.x, äapp.note`, `SELECT "App".x, "app.note", my_app.note, app1.note, app$.x, äapp.note`},
	{`SELECT '\' || app.f()`, `SELECT '\' || T.f()`},
	{`SELECT e.app.x, 'a'`, `SELECT e.app.x, 'a'`},
	{`SELECT 'app.x`, `SELECT 'app.x`},
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

func TestScript(t *testing.T) {
	t.Parallel()
	const sql = `CREATE FUNCTION app.f() RETURNS int LANGUAGE sql AS $body$ SELECT n FROM app.note WHERE s = 'app.x' $body$;
GRANT USAGE ON SCHEMA app TO x; COMMENT ON TABLE app.note IS 'app.note';`
	const want = `CREATE FUNCTION t_1.f() RETURNS int LANGUAGE sql AS $body$ SELECT n FROM t_1.note WHERE s = 'app.x' $body$;
GRANT USAGE ON SCHEMA t_1 TO x; COMMENT ON TABLE t_1.note IS 'app.note';`
	if got := home.Script(sql, "t_1"); got != want {
		t.Errorf("got %s", got)
	}
	if got := home.Script(sql, "app"); got != sql {
		t.Errorf("in the shared schema: %s", got)
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
