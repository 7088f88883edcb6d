package pgserver_test

import (
	"os"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
)

// Many clients share the backends, one transaction after the other.
func TestBouncerSharesBackends(t *testing.T) {
	t.Parallel()
	server := start(t, pgserver.Options{})
	direct := server.DSN(pgserver.Login{})
	bouncer, err := pgserver.StartBouncer(t.Context(), pgserver.BouncerOptions{Server: direct, Backends: 1})
	if err != nil {
		t.Fatal(err)
	}
	dsn, err := bouncer.DSN(direct)
	if err != nil {
		t.Fatal(err)
	}
	pids := map[int]bool{}
	for range 3 {
		conn, err := pgx.Connect(t.Context(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close(t.Context()) }()
		var pid int
		if err := conn.QueryRow(t.Context(), "SELECT pg_backend_pid()", pgx.QueryExecModeExec).Scan(&pid); err != nil {
			t.Fatal(err)
		}
		pids[pid] = true
	}
	if len(pids) != 1 {
		t.Errorf("3 clients at once had %d backends, want 1", len(pids))
	}
	socket, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := bouncer.Stop(); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(socket.Host); !os.IsNotExist(err) {
		t.Errorf("the folder %s is left: %v", socket.Host, err)
	}
}

func TestBouncerRefusesOptions(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]pgserver.BouncerOptions{
		"no server":   {Backends: 1},
		"no backends": {Server: "postgres://postgres@/postgres?host=/tmp"},
	} {
		if _, err := pgserver.StartBouncer(t.Context(), o); err == nil {
			t.Errorf("%s: started", name)
		}
	}
}
