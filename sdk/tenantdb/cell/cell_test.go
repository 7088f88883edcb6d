package cell_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const app = "cell-test"

func empty(t *testing.T) (*pgtest.DB, *pgxpool.Pool) {
	t.Helper()
	db := pgtest.New(t, pgtest.Template{})
	return db, db.Pool(t, pgserver.Superuser)
}

func ready(t *testing.T, rung cell.Rung) (*pgtest.DB, *pgxpool.Pool) {
	t.Helper()
	db, admin := empty(t)
	if err := cell.Init(t.Context(), admin, cell.Config{App: app, Rung: rung}); err != nil {
		t.Fatal(err)
	}
	return db, admin
}

func state(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code
	}
	return ""
}

func TestInitRepeatsAndKeepsItsRung(t *testing.T) {
	t.Parallel()
	_, admin := ready(t, "")
	for _, test := range []struct{ asked, refused cell.Rung }{{asked: cell.L2b}, {asked: ""}, {refused: cell.L2a}} {
		err := cell.Init(t.Context(), admin, cell.Config{App: app, Rung: test.asked + test.refused})
		if test.refused == "" && err != nil || test.refused != "" && !errors.Is(err, cell.ErrRung) {
			t.Errorf("rung %q: %v", test.asked+test.refused, err)
		}
		if rung, err := cell.InstalledRung(t.Context(), admin); rung != cell.L2b || err != nil {
			t.Errorf("stands on %q, %v", rung, err)
		}
	}
	if err := cell.Init(t.Context(), admin, cell.Config{App: "other"}); err == nil {
		t.Error("the database was given to a second app")
	}
}

func TestInitInManyDatabasesAtOnce(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	for range 4 {
		_, admin := empty(t)
		wg.Go(func() {
			for range 2 {
				if err := cell.Init(t.Context(), admin, cell.Config{App: app}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestInitRefusesBadConfig(t *testing.T) {
	t.Parallel()
	_, admin := empty(t)
	for _, config := range []cell.Config{
		{}, {App: "No"}, {App: "a_b"}, {App: strings.Repeat("a", 41)}, {App: "a", Rung: "L0"}, {App: "a", Connections: -1},
		{App: "a", Password: "ü"},
	} {
		if err := cell.Init(t.Context(), admin, config); err == nil {
			t.Errorf("%+v was taken", config)
		}
	}
}

// A rung is only as good as the server: what the trial finds open stops Init.
func TestInitTriesItsRung(t *testing.T) {
	t.Parallel()
	for name, hole := range map[string]string{
		"placements":      "GRANT SELECT ON rowhouse.placement TO rowhouse_app",
		"keys":            "GRANT SELECT ON rowhouse.mac_key TO rowhouse_app",
		"temporary table": "GRANT TEMP ON DATABASE %s TO rowhouse_app",
		"language":        "GRANT USAGE ON LANGUAGE plpgsql TO rowhouse_app",
	} {
		db, admin := ready(t, cell.L2b)
		if strings.Contains(hole, "%s") {
			hole = fmt.Sprintf(hole, db.Name())
		}
		if _, err := admin.Exec(t.Context(), hole); err != nil {
			t.Fatal(err)
		}
		if err := cell.Init(t.Context(), admin, cell.Config{App: app}); !errors.Is(err, cell.ErrRung) {
			t.Errorf("%s: %v, want ErrRung", name, err)
		}
	}
}

func TestPasswordIsStoredAsVerifierOnly(t *testing.T) {
	t.Parallel()
	_, admin := empty(t)
	config := cell.Config{App: "cell-password", Password: "correct horse"}
	if err := cell.Init(t.Context(), admin, config); err != nil {
		t.Fatal(err)
	}
	var stored string
	err := admin.QueryRow(t.Context(), "SELECT rolpassword FROM pg_authid WHERE rolname = $1", cell.AppRole(config.App)).Scan(&stored)
	if err != nil || !strings.HasPrefix(stored, "SCRAM-SHA-256$4096:") {
		t.Errorf("stored %q, %v", stored, err)
	}
}

func TestRolesOwnNothingAndReachNothingElse(t *testing.T) {
	t.Parallel()
	for _, rung := range []cell.Rung{cell.L2a, cell.L2b} {
		db, _ := ready(t, rung)
		conn := db.Conn(t, cell.AppRole(app))
		for _, sql := range []string{
			"SELECT * FROM rowhouse.mac_key", "SELECT * FROM rowhouse.placement", "SELECT * FROM rowhouse.migration",
			"SELECT * FROM rowhouse.installed", "SELECT rowhouse.secure('pg_class')", "SELECT rowhouse.limit_time(NULL)",
			"CREATE TABLE app.t ()", "CREATE TABLE public.t ()", "CREATE SCHEMA s", "CREATE TEMP TABLE t ()",
			"DO 'BEGIN END'", "SET ROLE rowhouse_owner_cell_test", "SET ROLE rowhouse_migrator_cell_test", "SELECT set_config('a.b', '', true)",
			"SELECT pg_try_advisory_lock(1)", "SELECT lo_creat(0)", "SELECT pg_notify('a', '')", "SELECT * FROM pg_stat_activity",
			"SELECT pg_cancel_backend(1)", "SELECT rolpassword FROM pg_authid", "SELECT rowhouse.enter_checked(NULL)",
		} {
			if _, err := conn.Exec(t.Context(), sql); state(err) != "42501" {
				t.Errorf("%s: %s: %v, want SQLSTATE 42501", rung, sql, err)
			}
		}
		var weak bool
		err := conn.QueryRow(t.Context(), `SELECT NOT bool_or(rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication)
FROM pg_roles WHERE rolname LIKE 'rowhouse%'`).Scan(&weak)
		if err != nil || !weak {
			t.Errorf("%s: a role has rights beyond its tables (%v)", rung, err)
		}
	}
}

func TestOtherAppsCannotConnect(t *testing.T) {
	t.Parallel()
	_, admin := empty(t)
	if err := cell.Init(t.Context(), admin, cell.Config{App: "cell-neighbour"}); err != nil {
		t.Fatal(err)
	}
	db, _ := ready(t, "")
	conn, err := pgx.Connect(t.Context(), db.DSN(cell.AppRole("cell-neighbour")))
	if state(err) != "42501" {
		if err == nil {
			_ = conn.Close(t.Context())
		}
		t.Errorf("a neighbour's login: %v, want SQLSTATE 42501", err)
	}
}

func TestInstallKey(t *testing.T) {
	t.Parallel()
	_, admin := ready(t, "")
	hour := time.Now().Add(time.Hour)
	key := cell.Key{ID: 1, Cell: 1, Secret: tenant.SealKey{1, 2, 3}, NotAfter: hour}
	other := cell.Key{ID: 1, Cell: 1, Secret: tenant.SealKey{9}, NotAfter: hour}
	install := func(k cell.Key) error { return cell.InstallKey(t.Context(), admin, k) }
	if err := errors.Join(install(key), install(key)); err != nil {
		t.Errorf("the same key twice: %v", err)
	}
	if err := install(other); !errors.Is(err, cell.ErrKeyID) {
		t.Errorf("another key under the id: %v", err)
	}
	key.NotAfter = time.Now().Add(-time.Minute)
	if err := errors.Join(install(key), install(other)); err != nil {
		t.Errorf("another key under the id of one that ended: %v", err)
	}
}

func TestSetPlacementKeepsTheLatest(t *testing.T) {
	t.Parallel()
	_, admin := ready(t, "")
	uid := tenant.UID{1}
	for _, test := range []struct {
		generation, revision uint64
		state                cell.State
		stale                bool
	}{
		{2, 5, cell.Active, false}, {2, 5, cell.Active, false}, {2, 6, cell.Suspended, false}, {2, 5, cell.Active, true},
		{1, 9, cell.Active, true}, {2, 0, cell.Fenced, false}, {2, 5, cell.Active, true}, {3, 1, cell.Active, false},
	} {
		err := cell.SetPlacement(t.Context(), admin,
			cell.Placement{UID: uid, State: test.state, Generation: test.generation, Revision: test.revision})
		if test.stale != errors.Is(err, cell.ErrStale) || !test.stale && err != nil {
			t.Errorf("%+v: %v", test, err)
		}
	}
	if err := cell.SetPlacement(t.Context(), admin, cell.Placement{UID: uid, State: "odd", Generation: 9}); err == nil {
		t.Error("an unknown state was stored")
	}
}

func migrate(t *testing.T, conn cell.Conn, files ...string) error {
	t.Helper()
	all := fstest.MapFS{}
	for i, text := range files {
		all[fmt.Sprintf("%04d_m.sql", i+1)] = &fstest.MapFile{Data: []byte(text)}
	}
	return cell.Migrate(t.Context(), conn, all)
}

const goodTable = `CREATE TABLE app.good (tenant_id uuid, id int, PRIMARY KEY (tenant_id, id));`

func TestMigrate(t *testing.T) {
	t.Parallel()
	db, admin := ready(t, "")
	migrator := db.Conn(t, cell.MigratorRole(app))
	if err := migrate(t, migrator, goodTable); err != nil {
		t.Fatal(err)
	}
	if err := migrate(t, admin, goodTable, `ALTER TABLE app.good ADD note text;`); err != nil {
		t.Fatal(err)
	}
	if err := migrate(t, migrator, goodTable); err != nil {
		t.Errorf("an older binary: %v", err)
	}
	if err := migrate(t, migrator, goodTable+" -- changed"); !errors.Is(err, cell.ErrDrift) {
		t.Errorf("a changed file: %v", err)
	}
	late := fstest.MapFS{"0001_a.sql": {Data: []byte("SELECT 1")}}
	if err := cell.Migrate(t.Context(), migrator, late); !errors.Is(err, cell.ErrOrder) {
		t.Errorf("a file before the applied ones: %v", err)
	}
	if err := cell.Migrate(t.Context(), migrator, fstest.MapFS{"x.sql": {}}); err == nil {
		t.Error("a file without a number was taken")
	}
	// The owner's files cannot forge the record of what ran.
	if err := migrate(t, migrator, goodTable, `ALTER TABLE app.good ADD note text;`,
		`DELETE FROM rowhouse.migration`); state(err) != "42501" {
		t.Errorf("a file that deletes records: %v", err)
	}
}

func TestMigrateAtOnce(t *testing.T) {
	t.Parallel()
	_, admin := ready(t, "")
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if err := migrate(t, admin, goodTable, `ALTER TABLE app.good ADD note text;`); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// Each of these alone would let tenants see each other; each must undo its file.
func TestUnsafeMigrationsAreUndone(t *testing.T) {
	t.Parallel()
	_, admin := ready(t, "")
	for _, test := range []struct{ rule, sql string }{
		{"R01", `ALTER TABLE app.good DISABLE ROW LEVEL SECURITY`},
		{"R02", `ALTER TABLE app.good NO FORCE ROW LEVEL SECURITY`},
		{"R03", `DROP POLICY tenant ON app.good`},
		{"R03", `DROP POLICY tenant ON app.good; CREATE POLICY tenant ON app.good USING (tenant_id = (SELECT rowhouse.tenant_id()))`},
		{"R03", `DROP POLICY tenant ON app.good;
			CREATE POLICY tenant ON app.good AS RESTRICTIVE USING (true OR tenant_id = (SELECT rowhouse.tenant_id()))`},
		{"R03", `DROP POLICY tenant ON app.good;
			CREATE POLICY tenant ON app.good AS RESTRICTIVE FOR SELECT USING (tenant_id = (SELECT rowhouse.tenant_id()))`},
		{"R04", `ALTER POLICY tenant ON app.good WITH CHECK (true)`},
		{"R10", `CREATE UNIQUE INDEX ON app.good (id)`},
		{"R10", `CREATE TABLE app.bad (tenant_id uuid, id int PRIMARY KEY)`},
		{"R11", `CREATE TABLE app.crossed (tenant_id uuid, other uuid, id int, PRIMARY KEY (tenant_id, id),
			FOREIGN KEY (other, id) REFERENCES app.good (tenant_id, id))`},
		{"R13", `CREATE VIEW app.v AS SELECT * FROM app.good; GRANT SELECT ON app.v TO rowhouse_app`},
		{"R14", `CREATE MATERIALIZED VIEW app.v AS SELECT * FROM app.good WITH NO DATA; GRANT SELECT ON app.v TO rowhouse_app`},
		{"R25", `CREATE MATERIALIZED VIEW app.v AS SELECT 1 AS one; GRANT SELECT ON app.v TO rowhouse_app`},
		{"R15", `CREATE FUNCTION app.f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';
			GRANT EXECUTE ON FUNCTION app.f() TO rowhouse_app`},
		{"R17", `GRANT TRUNCATE ON app.good TO rowhouse_app`},
		{"R18", `GRANT CREATE ON SCHEMA app TO rowhouse_app`},
		{"R23", `CREATE TABLE app.n (tenant_id uuid, id int); SELECT rowhouse.secure('app.n'); ALTER TABLE app.n ALTER tenant_id DROP NOT NULL`},
		{"R25", `CREATE TABLE app.g (id int); GRANT SELECT ON app.g TO rowhouse_app`},
	} {
		if err := migrate(t, admin, goodTable, test.sql); !errors.Is(err, cell.ErrUnsafe) || !strings.Contains(err.Error(), test.rule) {
			t.Errorf("%s: %s: %v", test.rule, test.sql, err)
		}
	}
	if err := migrate(t, admin, goodTable, `
CREATE TABLE app.g (id int); COMMENT ON TABLE app.g IS 'tenancy:global currencies'; GRANT SELECT ON app.g TO rowhouse_app;
CREATE VIEW app.v WITH (security_invoker = true) AS SELECT * FROM app.good; GRANT SELECT ON app.v TO rowhouse_app;
CREATE TABLE app.p (tenant_id uuid, id int, PRIMARY KEY (tenant_id, id)) PARTITION BY HASH (tenant_id);
CREATE TABLE app.p0 PARTITION OF app.p FOR VALUES WITH (MODULUS 1, REMAINDER 0);`); err != nil {
		t.Errorf("a sound migration after all that: %v", err)
	}
}

// Faults that were there before do not stop a migration, until it touches what has them.
func TestMigrationsAreJudgedByWhatTheyTouch(t *testing.T) {
	t.Parallel()
	_, admin := ready(t, "")
	files := []string{goodTable, `
CREATE TABLE app.p (tenant_id uuid, id int, PRIMARY KEY (tenant_id, id)) PARTITION BY HASH (tenant_id);
CREATE TABLE app.p0 PARTITION OF app.p FOR VALUES WITH (MODULUS 1, REMAINDER 0);
CREATE TABLE app.g (id int); COMMENT ON TABLE app.g IS 'tenancy:global currencies'; GRANT SELECT ON app.g TO rowhouse_app;
CREATE VIEW app.below AS SELECT * FROM app.good; CREATE VIEW app.v WITH (security_invoker) AS SELECT * FROM app.below;
CREATE FUNCTION app.f() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER f BEFORE INSERT ON app.good FOR EACH ROW EXECUTE FUNCTION app.f();`}
	if err := migrate(t, admin, files...); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Exec(t.Context(), "ALTER TABLE app.p NO FORCE ROW LEVEL SECURITY"); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ rule, sql string }{
		{"R02", `ALTER TABLE app.p ADD note text`},
		{"R16", `GRANT SELECT (id) ON app.p0 TO rowhouse_app`},
		{"R25", `COMMENT ON TABLE app.g IS NULL`},
		{"R13", `GRANT SELECT ON app.v TO rowhouse_app`},
		{"R31", `ALTER FUNCTION app.f() SECURITY DEFINER`},
		{"R17", `DO $$ BEGIN GRANT TRUNCATE ON app.good TO rowhouse_app; EXCEPTION WHEN division_by_zero THEN NULL; END $$`},
	} {
		if err := migrate(t, admin, append(files, test.sql)...); !errors.Is(err, cell.ErrUnsafe) || !strings.Contains(err.Error(), test.rule+" ") {
			t.Errorf("%s: %s: %v", test.rule, test.sql, err)
		}
	}
	err := migrate(t, admin, append(files, `ALTER TABLE app.good ADD note text; CREATE TABLE app.new (tenant_id uuid PRIMARY KEY)`,
		`ALTER TABLE app.p FORCE ROW LEVEL SECURITY`)...)
	if err != nil {
		t.Errorf("migrations that touch no fault, and one that mends it: %v", err)
	}
}

// What Init sets up and somebody else keeps open is told, after the rest is done.
func TestInitAuditsWhatItSetUp(t *testing.T) {
	t.Parallel()
	db, admin := ready(t, "")
	if _, err := admin.Exec(t.Context(), "ALTER DATABASE "+db.Name()+" SET row_security = off"); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Exec(t.Context(), "GRANT CONNECT ON DATABASE "+db.Name()+" TO PUBLIC"); err != nil {
		t.Fatal(err)
	}
	err := cell.Init(t.Context(), admin, cell.Config{App: app})
	if !errors.Is(err, cell.ErrUnsafe) || !strings.Contains(err.Error(), "R26") || strings.Contains(err.Error(), "R35") {
		t.Errorf("%v, want R26 alone", err)
	}
}

func TestMigrationsThatEndTheirTransaction(t *testing.T) {
	t.Parallel()
	_, admin := ready(t, "")
	if err := migrate(t, admin, `CREATE TABLE app.t (id int); COMMIT; BEGIN;`); err == nil {
		t.Error("COMMIT in a file was taken")
	}
	err := migrate(t, admin, "SELECT 1;\nSELECT * FROM app.nothing")
	if state(err) != "42P01" || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("an error in line 2: %v", err)
	}
}

// Managed PostgreSQL: the login owns the database and may make roles, no more.
func TestInitWithoutSuperuser(t *testing.T) {
	t.Parallel()
	db, admin := empty(t)
	// The roles may be there already, made by the superuser for another database.
	ready(t, "")
	owner := "managed_" + db.Name()
	for _, sql := range []string{"CREATE ROLE " + owner + " LOGIN CREATEROLE", "ALTER DATABASE " + db.Name() + " OWNER TO " + owner} {
		if _, err := admin.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		for _, sql := range []string{"REASSIGN OWNED BY " + owner + " TO postgres", "DROP OWNED BY " + owner, "DROP ROLE " + owner} {
			if _, err := admin.Exec(ctx, sql); err != nil {
				t.Error(err)
			}
		}
	})
	conn := db.Conn(t, owner)
	if err := cell.Init(t.Context(), conn, cell.Config{App: app, Rung: cell.L2b}); !errors.Is(err, cell.ErrRung) {
		t.Errorf("L2b without a superuser: %v, want ErrRung", err)
	}
	for range 2 {
		if err := cell.Init(t.Context(), conn, cell.Config{App: app}); err != nil {
			t.Fatal(err)
		}
	}
	if rung, err := cell.InstalledRung(t.Context(), conn); rung != cell.L2a || err != nil {
		t.Errorf("stands on %q, %v, want L2a", rung, err)
	}
	err := errors.Join(
		cell.InstallKey(t.Context(), conn, cell.Key{ID: 1, Cell: 1, NotAfter: time.Now().Add(time.Hour)}),
		cell.SetPlacement(t.Context(), conn, cell.Placement{UID: tenant.UID{1}, State: cell.Active, Generation: 1}))
	if err != nil {
		t.Error(err)
	}
	if err := migrate(t, db.Conn(t, cell.MigratorRole(app)), goodTable); err != nil {
		t.Error(err)
	}
}
