package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
)

// The way of an operator: set a database up, audit it, plant a fault, see it in each output, mend it.
func TestCellsInitAndAudit(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, pgtest.Template{})
	file := dsnFile(t, db.DSN(pgserver.Superuser))
	for range 2 { // the second time there is nothing to do
		code, said := rowhouse(t, "cell", "init", "--dsn-file", file, "--app", "cli-cell")
		if code != 0 || !strings.Contains(said, "trying rung L2b: the login is a superuser\nstands on rung L2b, for app cli-cell, which logs in as rowhouse_app_cli_cell\n") {
			t.Fatalf("exit status %d: %s", code, said)
		}
	}
	// The server is for tests: it may lose what it acknowledged.
	audit := func(args ...string) (int, string) {
		return rowhouse(t, append([]string{"cell", "audit", "--dsn-file", file, "--accept", "R40"}, args...)...)
	}
	if code, said := audit(); code != 0 || !strings.Contains(said, ", rung L2b: 0 errors, 0 warnings, 0 notes,") {
		t.Errorf("exit status %d: %s", code, said)
	}
	admin := db.Conn(t, pgserver.Superuser)
	plant := "SET ROLE rowhouse_owner_cli_cell; CREATE TABLE app.note (tenant_id uuid PRIMARY KEY); SELECT rowhouse.secure('app.note'); " +
		"ALTER TABLE app.note NO FORCE ROW LEVEL SECURITY; CREATE SEQUENCE app.s; GRANT USAGE ON SEQUENCE app.s TO rowhouse_app"
	if _, err := admin.Exec(t.Context(), plant, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	mend := "ALTER TABLE app.note FORCE ROW LEVEL SECURITY;"
	code, said := audit()
	for _, want := range []string{"1 errors, 1 warnings", "error     R02  app.note", "mend: " + mend, "warning   R24  app.s", "rowhouse: 1 errors in database"} {
		if code != 1 || !strings.Contains(said, want) {
			t.Errorf("exit status %d, no %q in: %s", code, want, said)
		}
	}
	for _, format := range []string{"json", "sarif"} {
		code, said := audit("-o", format)
		said, _, _ = strings.Cut(said, "\nrowhouse: ")
		if code != 1 || !json.Valid([]byte(said)) || !strings.Contains(said, "R02") {
			t.Errorf("exit status %d: %s", code, said)
		}
	}
	if code, said := audit("--accept", "R02"); code != 0 || !strings.Contains(said, "accepted  R02") {
		t.Errorf("an accepted risk: exit status %d: %s", code, said)
	}
	if _, err := admin.Exec(t.Context(), mend); err != nil {
		t.Fatal(err)
	}
	if code, said := audit(); code != 0 { // a warning is none
		t.Errorf("exit status %d: %s", code, said)
	}
}

// A PostgreSQL that is not ours: the login owns a database and may make roles, no more.
func TestCellsInitOnManagedPostgreSQL(t *testing.T) {
	t.Parallel()
	server := pgtest.StartServer(t, pgserver.Options{})
	super, err := pgx.Connect(t.Context(), server.DSN(pgserver.Login{}))
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"CREATE ROLE managed LOGIN CREATEROLE", "CREATE DATABASE notes OWNER managed"} {
		if _, err := super.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if err := super.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	file := dsnFile(t, server.DSN(pgserver.Login{User: "managed", Database: "notes"}))
	if code, said := rowhouse(t, "cells", "init", "--dsn-file", file, "--app", "notes", "--rung", "L2b"); code != exitFailed || !strings.Contains(said, "rung not reached") {
		t.Errorf("a rung too high: exit status %d: %s", code, said)
	}
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		code, said := rowhouse(t, "cells", "init", "--dsn-file", file, "--app", "notes", "--password-file", password)
		if code != 0 || !strings.Contains(said, "trying rung L2a: the login is no superuser\nstands on rung L2a, for app notes") || strings.Contains(said, "hunter2") {
			t.Fatalf("exit status %d: %s", code, said)
		}
	}
	// PostgreSQL's own rights are not ours to take there, and said to be accepted.
	code, said := rowhouse(t, "cells", "audit", "--dsn-file", file, "--accept", "R40")
	if code != 0 || !strings.Contains(said, "accepted  R20  language plpgsql") || !strings.Contains(said, "accepted  R21  set_config(text,text,boolean)") {
		t.Errorf("exit status %d: %s", code, said)
	}
}

func TestCellsRefuse(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, pgtest.Template{})
	good := dsnFile(t, db.DSN(pgserver.Superuser))
	nobody := dsnFile(t, "postgres://u:hunter2@127.0.0.1:1/x")
	for name, test := range map[string]struct {
		args []string
		code int
		says string
	}{
		"no file named":          {[]string{"audit"}, 2, "--dsn-file"},
		"no file":                {[]string{"audit", "--dsn-file", good + ".not"}, 2, "could not audit: read the connection string"},
		"no DSN":                 {[]string{"audit", "--dsn-file", dsnFile(t, "postgres://u:hunter2@h:port/")}, 2, "cannot be parsed"},
		"nobody listens":         {[]string{"audit", "--dsn-file", nobody}, 2, "could not audit: connect"},
		"unknown output":         {[]string{"audit", "--dsn-file", good, "-o", "yaml"}, 2, "no output"},
		"unknown rule":           {[]string{"audit", "--dsn-file", good, "--accept", "R99"}, 2, "no rule"},
		"a bad expression":       {[]string{"audit", "--dsn-file", good, "--schemas", "("}, 2, "could not audit"},
		"a DSN as argument":      {[]string{"audit", "postgres://u:hunter3@h/x"}, 2, "unknown command"},
		"never set up":           {[]string{"audit", "--dsn-file", good}, 1, "schema rowhouse"},
		"init without an app":    {[]string{"init", "--dsn-file", good}, 2, "app"},
		"init with a bad app":    {[]string{"init", "--dsn-file", good, "--app", "No"}, 1, "label"},
		"init with a bad rung":   {[]string{"init", "--dsn-file", good, "--app", "a", "--rung", "L0"}, 1, "L2a"},
		"init without password":  {[]string{"init", "--dsn-file", good, "--app", "a", "--password-file", good + ".not"}, 1, "read the password"},
		"init and nobody listen": {[]string{"init", "--dsn-file", nobody, "--app", "a"}, 1, "connect"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, said := rowhouse(t, append([]string{"cells"}, test.args...)...)
			if code != test.code || !strings.Contains(said, test.says) {
				t.Errorf("exit status %d, want %d with %q: %s", code, test.code, test.says, said)
			}
			if strings.Contains(said, "hunter2") {
				t.Errorf("the password is shown: %s", said)
			}
		})
	}
}

// The environment may hold the connection string in a file's place.
func TestCellsByEnvironment(t *testing.T) {
	db := pgtest.New(t, pgtest.Template{})
	t.Setenv("ROWHOUSE_CELL_DSN", db.DSN(pgserver.Superuser))
	if code, said := rowhouse(t, "cells", "audit"); code != 1 || !strings.Contains(said, "not set up") {
		t.Errorf("exit status %d: %s", code, said)
	}
}
