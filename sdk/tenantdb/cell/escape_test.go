package cell_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
)

// Migrations come from apps and are run by a superuser's session: none of them gets to its
// rights, neither at once nor when the transaction ends.
func TestMigrationsStayTheOwners(t *testing.T) {
	t.Parallel()
	d := dbtest.New(t)
	d.SetModel(tenant.ModelSchema, "globex")
	d.Home(t, "globex")
	uid := d.Tenant(t, "globex").UID
	const deed = `CREATE ROLE %s SUPERUSER`
	for _, test := range []struct{ name, file string }{
		{"plain", `{deed};`},
		{"reset role", `RESET ROLE; {deed};`},
		{"reset authorization", `RESET SESSION AUTHORIZATION; {deed};`},
		{"default authorization", `SET SESSION AUTHORIZATION DEFAULT; {deed};`},
		{"reset all", `RESET ALL; {deed};`},
		{"discard all", `DISCARD ALL; {deed};`},
		{"set role", `SET LOCAL ROLE postgres; {deed};`},
		{"set_config", `SELECT set_config('role', 'none', true), set_config('session_authorization', 'postgres', true); {deed};`},
		{"block", `DO $$ BEGIN RESET ROLE; {deed}; END $$;`},
		{"end of the quotes", `SELECT 1 $rowhouse0$; END$rowhouse1$; RESET SESSION AUTHORIZATION; {deed}; --`},
		{"commit", `COMMIT; RESET SESSION AUTHORIZATION; {deed};`},
		{"at the commit", `CREATE FUNCTION app.late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RESET SESSION AUTHORIZATION; {deed}; RETURN NULL; END $$;
			CREATE TABLE app.t (tenant_id uuid NOT NULL, PRIMARY KEY (tenant_id)); INSERT INTO app.t VALUES (gen_random_uuid());
			CREATE TABLE app.g (n int); COMMENT ON TABLE app.g IS 'tenancy:global';
			CREATE CONSTRAINT TRIGGER late AFTER INSERT ON app.g DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION app.late();
			INSERT INTO app.g VALUES (1);`},
		{"by an operator of ours", `CREATE FUNCTION app.same(name, text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RESET SESSION AUTHORIZATION; {deed}; RETURN true; END $$;
			CREATE OPERATOR app.= (LEFTARG = name, RIGHTARG = text, FUNCTION = app.same);
			CREATE OPERATOR app.<> (LEFTARG = name, RIGHTARG = text, FUNCTION = app.same); SET search_path = app, pg_catalog;`},
	} {
		name, file := test.name, test.file
		t.Run(name, func(t *testing.T) {
			role := "escaped_" + strings.ReplaceAll(strings.ToLower(d.Config.App), "-", "_") + "_" + strings.ReplaceAll(name, " ", "_")
			text := strings.ReplaceAll(file, "{deed}", fmt.Sprintf(deed, role))
			version := "0008_"
			if name == "by an operator of ours" { // it runs, and does no harm
				version = "0009_"
			}
			files := fstest.MapFS{version + strings.ReplaceAll(name, " ", "_") + ".sql": {Data: []byte(text)}}
			for _, run := range []func() error{
				func() error { return cell.Migrate(t.Context(), d.Admin, files) },
				func() error { return cell.MigrateSchema(t.Context(), d.Admin, uid, files) },
			} {
				err := run()
				if (err == nil) != (version == "0009_") || errors.Is(err, cell.ErrOrder) {
					t.Errorf("it ended with %v", err)
				}
				var escaped bool
				if err := d.Admin.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)`, role).Scan(&escaped); err != nil {
					t.Fatal(err)
				}
				if escaped {
					t.Errorf("it made a superuser: %v", err)
					if _, err := d.Admin.Exec(t.Context(), "DROP ROLE "+role); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
}

// A file's settings would meet the queries of whoever uses the session next.
func TestMigrationsLeaveNoSettings(t *testing.T) {
	t.Parallel()
	d := dbtest.New(t)
	conn, err := d.Admin.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	settings := func() (all string) {
		const sql = `SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_settings WHERE source = 'session' AND setting <> reset_val`
		if err := conn.QueryRow(t.Context(), "SELECT coalesce(("+sql+"), '')").Scan(&all); err != nil {
			t.Fatal(err)
		}
		return all
	}
	before := settings()
	file := `SET search_path = app, pg_catalog; SET check_function_bodies = off; SET my.own = '1'; CREATE TABLE app.t (tenant_id uuid PRIMARY KEY)`
	if err := cell.Migrate(t.Context(), conn, fstest.MapFS{"0001_t.sql": {Data: []byte(file)}}); err != nil {
		t.Fatal(err)
	}
	if after := settings(); after != before {
		t.Errorf("the session has %q, had %q", after, before)
	}
}
