package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// rowhouse runs a command line and returns its exit status and all that it printed.
func rowhouse(t *testing.T, args ...string) (code int, said string) {
	t.Helper()
	var out bytes.Buffer
	code = execute(t.Context(), args, strings.NewReader(""), &out, &out)
	return code, out.String()
}

// dsnFile writes a connection string as a secret would bring it.
func dsnFile(t *testing.T, dsn string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dsn")
	if err := os.WriteFile(path, []byte(dsn+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// prepared returns a database as an operator hands it over: roles and rights, no table.
func prepared(t *testing.T, database pg.Database) *pgtest.DB {
	t.Helper()
	db := pgtest.New(t, pgtest.Template{})
	super := db.Conn(t, pgserver.Superuser)
	if err := pg.CreateRoles(t.Context(), super, database); err != nil {
		t.Fatal(err)
	}
	if err := pg.Seclude(t.Context(), super, database); err != nil {
		t.Fatal(err)
	}
	return db
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	for _, service := range []string{"tenancy", "config", "quota", "gateway"} {
		t.Run(service, func(t *testing.T) {
			t.Parallel()
			database, ok := serviceDatabase(service)
			if !ok {
				t.Fatal("there is no such service")
			}
			db := prepared(t, database)
			file := dsnFile(t, db.DSN(database.Migrator()))
			for range 2 { // the second time there is nothing to do
				if code, said := rowhouse(t, "migrate", service, "--dsn-file", file); code != 0 {
					t.Fatalf("exit status %d: %s", code, said)
				}
			}
			if err := pg.Verify(t.Context(), db.Pool(t, database.Service()), database); err != nil {
				t.Errorf("the service would not start: %v", err)
			}
		})
	}
}

func TestMigrateRefuses(t *testing.T) {
	t.Parallel()
	database, _ := serviceDatabase("quota")
	db := prepared(t, database)
	good := dsnFile(t, db.DSN(database.Migrator()))
	tests := map[string]struct {
		args []string
		code int
		says string
	}{
		"unknown service":     {[]string{"migrate", "billing", "--dsn-file", good}, exitUsage, "there is no service"},
		"no file named":       {[]string{"migrate", "quota"}, exitUsage, "dsn-file"},
		"no file":             {[]string{"migrate", "quota", "--dsn-file", good + ".not"}, exitFailed, "connection string"},
		"no DSN":              {[]string{"migrate", "quota", "--dsn-file", dsnFile(t, "postgres://u:hunter2@h:port/")}, exitFailed, "cannot be parsed"},
		"as the service":      {[]string{"migrate", "quota", "--dsn-file", dsnFile(t, db.DSN(database.Service()))}, exitFailed, "become"},
		"nobody listens":      {[]string{"migrate", "quota", "--dsn-file", dsnFile(t, "postgres://u:hunter2@127.0.0.1:1/x")}, exitFailed, "connect"},
		"two services at all": {[]string{"migrate", "quota", "config", "--dsn-file", good}, exitUsage, "accepts 1 arg"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			code, said := rowhouse(t, test.args...)
			if code != test.code || !strings.Contains(said, test.says) {
				t.Errorf("exit status %d, want %d with %q: %s", code, test.code, test.says, said)
			}
			if strings.Contains(said, "hunter2") {
				t.Errorf("the password is shown: %s", said)
			}
		})
	}
	if err := pg.Verify(t.Context(), db.Pool(t, database.Service()), database); err == nil {
		t.Error("something has migrated the database")
	}
}
