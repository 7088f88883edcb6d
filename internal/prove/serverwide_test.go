package prove_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/internal/prove"
	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
)

// Before it attacks, prove sees all that its scratch cells would change of the whole server. It
// takes a server of its own: other tests set up theirs at the same time.
func TestUndisturbed(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	server, err := pgserver.Start(ctx, pgserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(ctx); err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	})
	conn, err := pgx.Connect(ctx, server.DSN(pgserver.Login{}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	refused := func(when string, want ...string) {
		t.Helper()
		err := prove.Undisturbed(ctx, conn)
		for _, part := range want {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %v, want %q", when, err, part)
			}
		}
	}
	refused("a new server", "make the role rowhouse_sec", "PUBLIC on the database postgres", "PUBLIC on the database template1")

	for _, database := range []string{"first", "second"} {
		if _, err := conn.Exec(ctx, "CREATE DATABASE "+database); err != nil {
			t.Fatal(err)
		}
	}
	initialize := func(database string) {
		t.Helper()
		config := conn.Config().Copy()
		config.Database = database
		own, err := pgx.ConnectConfig(ctx, config)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = own.Close(ctx) }()
		if err := cell.Init(ctx, own, cell.Config{App: database, Rung: cell.L2b}); err != nil {
			t.Fatal(err)
		}
	}
	initialize("first")
	if err := prove.Undisturbed(ctx, conn); err != nil {
		t.Errorf("a server that is set up: %v", err)
	}
	for _, change := range []struct{ sql, want string }{
		{"GRANT CONNECT ON DATABASE postgres TO PUBLIC", "PUBLIC on the database postgres"},
		{"GRANT SET ON PARAMETER backtrace_functions TO pg_monitor", "backtrace_functions from pg_monitor"},
		{"REVOKE SET ON PARAMETER backtrace_functions FROM rowhouse_sec", "let rowhouse_sec set"},
		{"GRANT pg_monitor TO rowhouse_app", "take the role pg_monitor from rowhouse_app"},
		{"ALTER ROLE rowhouse_sec LOGIN", "take attributes from the role rowhouse_sec"},
	} {
		if _, err := conn.Exec(ctx, change.sql); err != nil {
			t.Fatal(err)
		}
		refused(change.sql, change.want)
	}
	initialize("second")
	if err := prove.Undisturbed(ctx, conn); err != nil {
		t.Errorf("what it names is not what Init changes: %v", err)
	}
}
