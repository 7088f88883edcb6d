package cell_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
)

// late is a function of a migration that tries to get to the rights of the session's login
// and leaves a role when it did.
const late = `CREATE FUNCTION app.late() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
	RESET SESSION AUTHORIZATION; RESET ROLE; CREATE ROLE escaped SUPERUSER; RETURN 1;
EXCEPTION WHEN OTHERS THEN RETURN 0; END $$;
CREATE TABLE app.g (n int); COMMENT ON TABLE app.g IS 'tenancy:global';
`

// What a file leaves to run after it, when our own statements or the commit come, has no
// more rights than the file had.
func TestNothingOfAMigrationRunsWithOtherRights(t *testing.T) {
	t.Parallel()
	server := pgtest.StartServer(t, pgserver.Options{}) // roles are the whole server's
	ctx := t.Context()
	admin := superuser(t, server, "")
	if _, err := admin.Exec(ctx, "CREATE DATABASE notes"); err != nil {
		t.Fatal(err)
	}
	admin = superuser(t, server, "notes")
	if err := cell.Init(ctx, admin, cell.Config{App: "notes"}); err != nil {
		t.Fatal(err)
	}
	uid, err := tenant.NewUID(time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := cell.CreateSchema(ctx, admin, uid); err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		runs bool // else it may fail: at the commit app is closed to the migrator
		file string
	}{
		{true, "SELECT app.late();"},
		{true, "DECLARE later CURSOR WITH HOLD FOR SELECT app.late();"},
		{false, `CREATE FUNCTION app.again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			SET CONSTRAINTS ALL DEFERRED; PERFORM app.late();
			IF NEW.n < 5 THEN INSERT INTO app.g VALUES (NEW.n + 1); END IF; RETURN NULL; END $$;
		CREATE CONSTRAINT TRIGGER again AFTER INSERT ON app.g DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION app.again();
		INSERT INTO app.g VALUES (1);`},
		// The names of a statement cache can be foreseen, so all that a session could have are taken.
		{true, "DEALLOCATE ALL; PREPARE stmtcache_1 AS SELECT app.late();"},
	} {
		file := c.file
		drop := fmt.Sprintf("%04d_drop.sql", 2*i+2)
		files := fstest.MapFS{fmt.Sprintf("%04d_late.sql", 2*i+1): {Data: []byte(late + file)}}
		undo := fstest.MapFS{drop: {Data: []byte("DROP TABLE app.g CASCADE; DROP FUNCTION app.late; DROP FUNCTION IF EXISTS app.again")}}
		for name, run := range map[string]func(fstest.MapFS) error{
			"Migrate":       func(files fstest.MapFS) error { return cell.Migrate(ctx, admin, files) },
			"MigrateSchema": func(files fstest.MapFS) error { return cell.MigrateSchema(ctx, admin, uid, files) },
			"TryMigrations": func(files fstest.MapFS) error { return cell.TryMigrations(ctx, admin, files) },
		} {
			err := run(files)
			if err != nil && c.runs {
				t.Errorf("%s of %q: %v", name, file, err) // it would show nothing
			}
			if name != "TryMigrations" && err == nil {
				if err := run(undo); err != nil {
					t.Fatal(err)
				}
			}
			if got := roles(t, admin, "^escaped$"); got > 0 {
				t.Fatalf("%s of %q made a superuser", name, file)
			}
		}
	}
	if got := roles(t, admin, "^rowhouse_run_"); got > 0 {
		t.Errorf("%d logins of runs are left", got)
	}
}

// A file that catches its cancellation ends all the same, with its locks.
func TestMigrationsEndWithTheirCaller(t *testing.T) {
	t.Parallel()
	server := pgtest.StartServer(t, pgserver.Options{})
	admin := superuser(t, server, "")
	if _, err := admin.Exec(t.Context(), "CREATE DATABASE notes"); err != nil {
		t.Fatal(err)
	}
	admin = superuser(t, server, "notes")
	if err := cell.Init(t.Context(), admin, cell.Config{App: "notes"}); err != nil {
		t.Fatal(err)
	}
	file := `SET LOCAL client_connection_check_interval = 0;
DO $$ BEGIN LOOP BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$;`
	watch := superuser(t, server, "notes")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- cell.TryMigrations(ctx, admin, fstest.MapFS{"0001_undying.sql": {Data: []byte(file)}})
	}()
	sessions := func() (n int) {
		const sql = "SELECT count(*) FROM pg_stat_activity WHERE usename ~ '^rowhouse_run_' AND wait_event = 'PgSleep'"
		if err := watch.QueryRow(t.Context(), sql).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for deadline := time.Now().Add(time.Minute); sessions() == 0; {
		if time.Now().After(deadline) {
			t.Fatal("the file does not run")
		}
	}
	cancel()
	if err := <-ended; err == nil {
		t.Error("the trial went well")
	}
	if n := sessions(); n > 0 {
		t.Error("the file runs on")
	}
	if got := roles(t, watch, "^rowhouse_run_"); got > 0 {
		t.Errorf("%d logins of runs are left", got)
	}
}

// What a crash left of a run, here or in another database, stops no later run.
func TestRunsSweepUp(t *testing.T) {
	t.Parallel()
	server := pgtest.StartServer(t, pgserver.Options{})
	for _, database := range []string{"notes", "other"} {
		if _, err := superuser(t, server, "").Exec(t.Context(), "CREATE DATABASE "+database); err != nil {
			t.Fatal(err)
		}
	}
	admin := superuser(t, server, "notes")
	if err := cell.Init(t.Context(), admin, cell.Config{App: "notes"}); err != nil {
		t.Fatal(err)
	}
	here, there := "rowhouse_run_"+strings.Repeat("a", 32), "rowhouse_run_"+strings.Repeat("b", 32)
	for role, in := range map[string]*pgx.Conn{here: admin, there: superuser(t, server, "other")} {
		for _, sql := range []string{
			"CREATE ROLE " + role + " LOGIN VALID UNTIL '2020-01-01'", "ALTER DEFAULT PRIVILEGES FOR ROLE " + role + " GRANT SELECT ON TABLES TO PUBLIC",
		} {
			if _, err := in.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cell.TryMigrations(t.Context(), admin, fstest.MapFS{"0001_one.sql": {Data: []byte("SELECT 1")}}); err != nil {
		t.Errorf("a run after a crash: %v", err)
	}
	if roles(t, admin, "^"+here+"$") != 0 || roles(t, admin, "^rowhouse_run_") != 1 {
		t.Error("the role that a crash left is left")
	}
}

func superuser(t *testing.T, server *pgserver.Server, database string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), server.DSN(pgserver.Login{Database: database}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

func roles(t *testing.T, conn *pgx.Conn, pattern string) (n int) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_roles WHERE rolname ~ $1", pattern).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
