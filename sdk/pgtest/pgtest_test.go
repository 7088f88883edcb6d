package pgtest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
)

// envChild makes the test binary make one database and tell where, without the end that
// Main sees to.
const envChild = "PGTEST_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(envChild) != "" {
		os.Exit(m.Run()) // as a package without TestMain
	}
	os.Exit(pgtest.Main(m))
}

// recorder is a test that may fail without harm.
type recorder struct {
	testing.TB

	mu       sync.Mutex
	said     []string
	cleanups []func()
}

func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

// record runs f as a test of its own and returns what that one complained of.
func record(t *testing.T, f func(testing.TB)) string {
	t.Helper()
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			for _, cleanup := range slices.Backward(r.cleanups) {
				cleanup()
			}
		}()
		f(r)
	}()
	<-done
	return strings.Join(r.said, "\n")
}

func fill(sql string) func(context.Context, string) error {
	return func(ctx context.Context, dsn string) error {
		conn, err := pgx.Connect(ctx, dsn)
		if err != nil {
			return err
		}
		_, err = conn.Exec(ctx, sql)
		return errors.Join(err, conn.Close(ctx))
	}
}

// Each test has a copy of the template to itself, and the template is made once.
func TestDatabasesAreSeparateCopies(t *testing.T) {
	t.Parallel()
	var made atomic.Int32
	tmpl := pgtest.Template{Name: "copies", Setup: func(ctx context.Context, dsn string) error {
		made.Add(1)
		return fill("CREATE TABLE t (n int); INSERT INTO t VALUES (1)")(ctx, dsn)
	}}
	for range 8 {
		t.Run("copy", func(t *testing.T) {
			t.Parallel()
			pool := pgtest.New(t, tmpl).Superuser(t)
			var rows int
			err := pool.QueryRow(t.Context(), "WITH i AS (INSERT INTO t VALUES (2)) SELECT count(*) FROM t").Scan(&rows)
			if err != nil || rows != 1 {
				t.Errorf("%d rows, %v; want the template's one", rows, err)
			}
		})
	}
	t.Cleanup(func() {
		if n := made.Load(); n != 1 {
			t.Errorf("the template was made %d times", n)
		}
	})
}

// Two contents of one name are two templates.
func TestHashTellsTemplatesApart(t *testing.T) {
	t.Parallel()
	for _, word := range []string{"one", "two"} {
		tmpl := pgtest.Template{Name: "apart", Hash: t.Name() + word, Setup: fill("CREATE TABLE " + word + " ()")}
		var found bool
		query := pgtest.New(t, tmpl).Superuser(t).QueryRow(t.Context(), "SELECT to_regclass($1) IS NOT NULL", word)
		if err := query.Scan(&found); err != nil || !found {
			t.Errorf("%s: %t, %v", word, found, err)
		}
	}
}

// The roles of the template are what production's are, and rights and settings of the
// database itself are copied too.
func TestOwnerAndApp(t *testing.T) {
	t.Parallel()
	tmpl := pgtest.Template{Name: "roles", Owner: "pgtest_roles_owner", App: `pgtest "roles" app's`, Setup: fill(`
		CREATE SCHEMA app AUTHORIZATION pgtest_roles_owner;
		CREATE TABLE app.notes (mine boolean NOT NULL);
		INSERT INTO app.notes VALUES (true), (false);
		ALTER TABLE app.notes OWNER TO pgtest_roles_owner;
		ALTER TABLE app.notes ENABLE ROW LEVEL SECURITY;
		CREATE POLICY mine ON app.notes USING (mine);
		GRANT USAGE ON SCHEMA app TO "pgtest ""roles"" app's";
		GRANT SELECT ON app.notes TO "pgtest ""roles"" app's";
		DO $$ BEGIN
			EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
			EXECUTE format('GRANT CONNECT ON DATABASE %I TO "pgtest ""roles"" app''s"', current_database());
			EXECUTE format('ALTER DATABASE %I SET lock_timeout = ''3s''', current_database());
			EXECUTE format('ALTER ROLE pgtest_roles_owner IN DATABASE %I SET work_mem = ''7MB''', current_database());
		END $$`)}
	db := pgtest.New(t, tmpl)
	for role, want := range map[string]string{
		tmpl.Owner: "2 rows, path , owns true, temp true, bypass false, super false, 3s, 7MB",
		tmpl.App:   "1 rows, path , owns false, temp false, bypass false, super false, 3s, 4MB",
	} {
		pool := db.Owner(t)
		if role == tmpl.App {
			pool = db.App(t)
		}
		var got string
		const look = `SELECT format('%s rows, path %s, owns %s, temp %s, bypass %s, super %s, %s, %s',
			(SELECT count(*) FROM app.notes), current_setting('search_path'),
			(SELECT (datdba = r.oid)::text FROM pg_database WHERE datname = current_database()),
			has_database_privilege(current_database(), 'TEMP')::text, rolbypassrls::text, rolsuper::text,
			current_setting('lock_timeout'), current_setting('work_mem'))
			FROM pg_roles r WHERE rolname = current_user`
		err := pool.QueryRow(t.Context(), look).Scan(&got)
		got = strings.ReplaceAll(got, `path ""`, "path ")
		if err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", role, got, err, want)
		}
	}
}

func TestTemplateWithoutRolesHasNoApp(t *testing.T) {
	t.Parallel()
	said := record(t, func(tb testing.TB) { pgtest.New(tb, pgtest.Template{}).App(tb) })
	if !strings.Contains(said, "names no App") {
		t.Errorf("said %q", said)
	}
}

// Databases are gone after their test, with whoever is still connected.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	var name string
	said := record(t, func(tb testing.TB) {
		db := pgtest.New(tb, pgtest.Template{})
		name = db.Name()
		if _, err := pgx.Connect(t.Context(), db.DSN(pgserver.Superuser)); err != nil { // and not closed
			t.Error(err)
		}
	})
	conn := connect(t, pgtest.Server(t))
	var n int
	err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_database WHERE datname = $1", name).Scan(&n)
	if err != nil || n != 0 || said != "" || !strings.HasPrefix(name, "test_nothingisleft_") {
		t.Errorf("%d databases %s, %v, said %q", n, name, err, said)
	}
}

// A connection that is not given back fails the test, and does not stop it.
func TestLeakedConnection(t *testing.T) {
	t.Parallel()
	said := record(t, func(tb testing.TB) {
		db := pgtest.New(tb, pgtest.Template{})
		conn, err := db.Superuser(tb).Acquire(t.Context())
		if err == nil {
			_, err = conn.Exec(t.Context(), "SELECT 'the guilty one'")
		}
		if err != nil {
			t.Error(err)
		}
	})
	for _, want := range []string{"1 connections as postgres were not given back", "idle: SELECT 'the guilty one'"} {
		if !strings.Contains(said, want) {
			t.Errorf("said %q, not %q", said, want)
		}
	}
}

// A failing setup is told to every test of the template in its own words, and leaves no
// draft behind.
func TestFailingSetup(t *testing.T) {
	t.Parallel()
	tmpl := pgtest.Template{Name: "failing", Setup: fill("CREATE TABLE broken (")}
	for range 2 {
		said := record(t, func(tb testing.TB) { pgtest.New(tb, tmpl) })
		if !strings.Contains(said, "template failing") || !strings.Contains(said, "syntax error") {
			t.Errorf("said %q", said)
		}
	}
	var drafts int
	conn := connect(t, pgtest.Server(t))
	err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_database WHERE datname ~ '(draft|tmpl)_.*failing'").Scan(&drafts)
	if err != nil || drafts != 0 {
		t.Errorf("%d drafts, %v", drafts, err)
	}
}

// Many at once want the same roles.
func TestEnsureRoleRaces(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, pgtest.Template{})
	group, member := pgtest.Role{Name: "pgtest_race_group", NoLogin: true}, pgtest.Role{Name: "pgtest_race_member"}
	member.MemberOf = []string{group.Name}
	t.Cleanup(func() {
		conn := connect(t, pgtest.Server(t))
		if _, err := conn.Exec(context.Background(), "DROP ROLE pgtest_race_member, pgtest_race_group"); err != nil {
			t.Error(err)
		}
	})
	var together sync.WaitGroup
	for i := range 16 {
		conn := db.Conn(t, pgserver.Superuser)
		role := member
		role.BypassRLS = i%2 == 0 // and they do not even agree
		together.Go(func() {
			if err := pgtest.EnsureRole(t.Context(), conn, group); err != nil {
				t.Error(err)
			}
			if err := pgtest.EnsureRole(t.Context(), conn, role); err != nil {
				t.Error(err)
			}
		})
	}
	together.Wait()
	if err := pgtest.EnsureRole(t.Context(), db.Superuser(t), member); err != nil {
		t.Fatal(err)
	}
	var ok bool
	err := db.Superuser(t).QueryRow(t.Context(), `SELECT rolcanlogin AND NOT rolbypassrls
		AND pg_has_role(oid, 'pgtest_race_group', 'member') FROM pg_roles WHERE rolname = $1`, member.Name).Scan(&ok)
	if err != nil || !ok {
		t.Errorf("%t, %v", ok, err)
	}
	_, err = db.Conn(t, member.Name).Exec(t.Context(), "CREATE ROLE another")
	if denied, is := errors.AsType[*pgconn.PgError](err); !is || denied.Code != "42501" {
		t.Errorf("the member makes roles: %v", err)
	}
}

// More tests at once than the server has room for all get their turn. Each uses all
// connections that it may.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	tmpl := pgtest.Template{Name: "many", Owner: "pgtest_many_owner", App: "pgtest_many_app", Setup: fill("CREATE TABLE t ()")}
	var together sync.WaitGroup
	for range 120 {
		together.Go(func() {
			said := record(t, func(tb testing.TB) {
				db := pgtest.New(tb, tmpl)
				for _, dsn := range []string{db.DSN(tmpl.Owner), db.DSN(tmpl.App)} {
					for range 2 {
						conn, err := pgx.Connect(t.Context(), dsn)
						if err != nil {
							t.Error(err)
							return
						}
						defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
					}
				}
			})
			if said != "" {
				t.Error(said)
			}
		})
	}
	together.Wait()
}

// Several processes share a server: one makes the template, all use it, and the command's
// status is told on.
func TestSharedServer(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "pgtestserver")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./pgtestserver")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const script = `for i in 1 2 3; do "$0" -test.run='^TestChild$' -test.v & pids="$pids $!"; done
		for pid in $pids; do wait $pid || exit 1; done; exit 7`
	cmd := exec.CommandContext(t.Context(), program, "--", "sh", "-c", script, os.Args[0])
	cmd.Env = append(os.Environ(), envChild+"=shared")
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 7 {
		t.Fatalf("%v: %s", err, out)
	}
	if n := strings.Count(string(out), "setup ran"); n != 1 {
		t.Errorf("the setup ran %d times: %s", n, out)
	}
	_, rest, _ := strings.Cut(string(out), "server in ")
	dir, _, _ := strings.Cut(rest, "\n")
	if _, err := os.Stat(dir); dir == "" || !os.IsNotExist(err) {
		t.Errorf("the folder %q stayed: %v", dir, err)
	}
}

// A process that has no Main leaves no server and no folder either.
func TestWithoutMain(t *testing.T) {
	t.Parallel()
	out := runChild(t, envChild+"=alone", pgtest.EnvServer+"=")
	_, rest, _ := strings.Cut(out, "server in ")
	dir, _, found := strings.Cut(rest, "\n")
	if !found {
		t.Fatalf("no folder in %s", out)
	}
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for {
		if _, err := os.Stat(dir); os.IsNotExist(err) {
			return
		}
		select {
		case <-limit.C:
			t.Fatalf("%s stayed", dir)
		case <-look.C:
		}
	}
}

// Without PostgreSQL a test fails, and names the mend.
func TestWithoutPostgreSQL(t *testing.T) {
	t.Parallel()
	for env, want := range map[string]string{
		pgserver.EnvBin + "=" + t.TempDir():         "apt-get install -y postgresql-15",
		pgtest.EnvServer + "=host=/tmp password=xy": pgtest.EnvServer + " must be a URL",
	} {
		var out bytes.Buffer
		cmd := childCommand(t, envChild+"=fails", pgtest.EnvServer+"=", env)
		cmd.Stdout = &out
		if err := cmd.Run(); err == nil || !strings.Contains(out.String(), want) || strings.Contains(out.String(), "xy") {
			t.Errorf("%v: %s does not say %q", err, out.String(), want)
		}
	}
}

func childCommand(t *testing.T, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChild$", "-test.v")
	cmd.Env = append(os.Environ(), env...)
	return cmd
}

func runChild(t *testing.T, env ...string) string {
	t.Helper()
	out, err := childCommand(t, env...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// TestChild is what other processes run; in this one it is a plain test.
func TestChild(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, pgtest.Template{Name: "child", Hash: "1", Setup: func(ctx context.Context, dsn string) error {
		t.Log("setup ran")
		return fill("CREATE TABLE t ()")(ctx, dsn)
	}})
	var dir string
	if err := db.Superuser(t).QueryRow(t.Context(), "TABLE t").Scan(); !errors.Is(err, pgx.ErrNoRows) {
		t.Error(err)
	}
	if err := db.Superuser(t).QueryRow(t.Context(), "SELECT current_setting('data_directory')").Scan(&dir); err != nil {
		t.Fatal(err)
	}
	t.Log("server in " + filepath.Dir(dir))
}

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	ctx := context.WithoutCancel(t.Context()) // for what tests do at their end
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(ctx) })
	return conn
}

// BenchmarkNew measures what a database costs a test, from New to the end of Cleanup.
func BenchmarkNew(b *testing.B) {
	tmpl := pgtest.Template{Name: "bench", Setup: fill(`DO $$ BEGIN
		FOR i IN 1..40 LOOP EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, word text)', i); END LOOP;
	END $$`)}
	pgtest.New(b, tmpl)
	for b.Loop() {
		r := &recorder{TB: b}
		pgtest.New(r, tmpl)
		for _, cleanup := range slices.Backward(r.cleanups) {
			cleanup()
		}
	}
}
