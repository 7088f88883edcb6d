package cell_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
)

// locked runs sql while no Init runs on the server: rights of roles are the whole server's.
func locked(ctx context.Context, admin *pgxpool.Pool, sql string) error {
	return pgx.BeginFunc(ctx, admin, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "LOCK TABLE pg_catalog.pg_authid IN SHARE UPDATE EXCLUSIVE MODE"); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, sql)
		return err
	})
}

// What somebody gave the login role, and not rowhouse_app, is as good for the app.
func TestInitTakesRightsOfTheLoginRole(t *testing.T) {
	t.Parallel()
	// Parameters are of the whole server, where other tests' Init would find the grant.
	server := pgtest.StartServer(t, pgserver.Options{})
	for name, hole := range map[string]struct{ grant, use string }{
		"carrier": {
			"GRANT SET ON PARAMETER backtrace_functions TO rowhouse_app_cell_carrier",
			"SET backtrace_functions = '0190000000007000800000000000000a'",
		},
		"security": {"GRANT rowhouse_sec TO rowhouse_app_cell_security", "SELECT ipad FROM rowhouse.mac_key"},
		"predefined": {
			"GRANT pg_read_all_data TO rowhouse_app_cell_predefined", "SELECT ipad FROM rowhouse.mac_key",
		},
	} {
		t.Run(name, func(t *testing.T) {
			login := func(user, database string) *pgxpool.Pool {
				t.Helper()
				pool, err := pgxpool.New(t.Context(), server.DSN(pgserver.Login{User: user, Database: database}))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(pool.Close)
				return pool
			}
			if _, err := login(pgserver.Superuser, "").Exec(t.Context(), "CREATE DATABASE "+name); err != nil {
				t.Fatal(err)
			}
			admin := login(pgserver.Superuser, name)
			config := cell.Config{App: "cell-" + name, Rung: cell.L2b}
			if err := cell.Init(t.Context(), admin, config); err != nil {
				t.Fatal(err)
			}
			if err := locked(t.Context(), admin, hole.grant); err != nil {
				t.Fatal(err)
			}
			if err := cell.Init(t.Context(), admin, config); err != nil {
				t.Errorf("Init over the hole: %v", err)
			}
			if _, err := login(cell.AppRole(config.App), name).Exec(t.Context(), hole.use); state(err) != "42501" {
				t.Errorf("%s: %v, want SQLSTATE 42501", hole.use, err)
			}
		})
	}
}

// What Init does not take back, its trial finds, also when the login role alone has it.
func TestInitTriesTheLoginRole(t *testing.T) {
	t.Parallel()
	for name, hole := range map[string]string{
		"keys":     "GRANT SELECT ON rowhouse.mac_key TO rowhouse_app_cell_test; GRANT USAGE ON SCHEMA rowhouse TO rowhouse_app_cell_test",
		"language": "GRANT USAGE ON LANGUAGE plpgsql TO rowhouse_app_cell_test",
	} {
		_, admin := ready(t, cell.L2b)
		if _, err := admin.Exec(t.Context(), hole); err != nil {
			t.Fatal(err)
		}
		if err := cell.Init(t.Context(), admin, cell.Config{App: app}); !errors.Is(err, cell.ErrRung) {
			t.Errorf("%s: %v, want ErrRung", name, err)
		}
	}
}

// A login may make settings for itself in any database, and so may who stole its password. The next Init removes all that
// are not its own, whatever they are, and a login has the same after each.
func TestInitRemovesSettingsOfTheLoginRole(t *testing.T) {
	t.Parallel()
	config := cell.Config{App: "cell-thief"}
	db, admin := empty(t)
	if err := cell.Init(t.Context(), admin, config); err != nil {
		t.Fatal(err)
	}
	settings := func() (all []string) {
		t.Helper()
		rows, err := admin.Query(t.Context(), `SELECT e FROM pg_db_role_setting s, unnest(s.setconfig) e
WHERE s.setrole = $1::text::regrole AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())) ORDER BY 1`,
			cell.AppRole(config.App))
		if err == nil {
			all, err = pgx.CollectRows(rows, pgx.RowTo[string])
		}
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	honest := settings()
	thief := db.Conn(t, cell.AppRole(config.App))
	for _, where := range []string{"", " IN DATABASE " + db.Name()} {
		for _, set := range []string{
			"row_security = off", "search_path = public", "cpu_operator_cost = 0.0025", "default_transaction_read_only = on", "synchronous_commit = off",
			"statement_timeout = 1", "client_connection_check_interval = 0", "cpu_tuple_cost = 0.02",
		} {
			if _, err := thief.Exec(t.Context(), "ALTER ROLE CURRENT_USER"+where+" SET "+set); err != nil {
				t.Errorf("%s: %v; nothing was shown", set, err)
			}
		}
	}
	if len(settings()) <= len(honest) {
		t.Fatal("the thief left nothing")
	}
	for range 2 {
		if err := cell.Init(t.Context(), admin, config); err != nil {
			t.Error(err)
		}
		if left := settings(); !slices.Equal(left, honest) {
			t.Errorf("the login has %q, want %q", left, honest)
		}
	}
}
