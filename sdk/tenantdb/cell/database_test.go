package cell_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/catalog"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
)

// databaseFor is CreateDatabase for the tests' app, and drops it at the test's end.
func databaseFor(t *testing.T, server *pgx.Conn, uid tenant.UID) error {
	t.Helper()
	t.Cleanup(func() {
		if err := cell.DropDatabase(context.WithoutCancel(t.Context()), server, app, uid, cell.EndSessions); err != nil {
			t.Error(err)
		}
	})
	return cell.CreateDatabase(t.Context(), server, cell.Config{App: app}, uid)
}

func inDatabase(t *testing.T, server *pgx.Conn, uid tenant.UID) *pgx.Conn {
	t.Helper()
	conn, err := cell.ConnectDatabase(t.Context(), server, app, uid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

// What is there already, whole or not, is no obstacle: the next call finishes.
func TestCreateDatabaseFinishesWhatIsHalfMade(t *testing.T) {
	t.Parallel()
	db, _ := ready(t, "")
	for name, half := range map[string]string{
		"nothing":      "SELECT 1",
		"closed":       "CREATE DATABASE {name} TEMPLATE template0 ALLOW_CONNECTIONS false",
		"open to all":  "CREATE DATABASE {name} TEMPLATE template0",
		"half dropped": "UPDATE pg_database SET datconnlimit = -2 WHERE datname = '{name}'",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, uid := db.Conn(t, pgserver.Superuser), newUID()
			if name == "half dropped" {
				if err := databaseFor(t, server, uid); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := server.Exec(t.Context(), strings.ReplaceAll(half, "{name}", cell.DatabaseName(app, uid))); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := databaseFor(t, server, uid); err != nil {
					t.Fatal(err)
				}
			}
			conn := inDatabase(t, server, uid)
			if err := migrate(t, conn, goodTable); err != nil {
				t.Error(err)
			}
			report, err := cell.Audit(t.Context(), conn, catalog.Config{Accept: []string{"R40"}})
			if err != nil || len(report.Errors()) > 0 || report.Rung != string(cell.L2b) {
				t.Errorf("the audit of rung %s found %v, %v", report.Rung, report.Errors(), err)
			}
			var rights string
			err = conn.QueryRow(t.Context(), `SELECT string_agg(coalesce(r.rolname, 'PUBLIC') || ' ' || x.privilege_type, ', ' ORDER BY r.rolname)
FROM pg_database d, aclexplode(d.datacl) x LEFT JOIN pg_roles r ON r.oid = x.grantee
WHERE d.datname = current_database() AND x.grantee <> d.datdba`).Scan(&rights)
			want := "rowhouse_app_cell_test CONNECT, rowhouse_migrator_cell_test CONNECT, rowhouse_owner_cell_test CREATE"
			if rights != want || err != nil {
				t.Errorf("rights %s, want %s, %v", rights, want, err)
			}
		})
	}
}

// The limit on connections is the role's, over all databases: nobody who says nothing of it changes it.
func TestCreateDatabaseKeepsTheLimit(t *testing.T) {
	t.Parallel()
	db, admin := empty(t)
	const limited = "cell-limited"
	if err := cell.Init(t.Context(), admin, cell.Config{App: limited, Connections: 77}); err != nil {
		t.Fatal(err)
	}
	server, uid := db.Conn(t, pgserver.Superuser), newUID()
	defer func() {
		if err := cell.DropDatabase(context.WithoutCancel(t.Context()), server, limited, uid); err != nil {
			t.Error(err)
		}
	}()
	if err := cell.CreateDatabase(t.Context(), server, cell.Config{App: limited}, uid); err != nil {
		t.Fatal(err)
	}
	var limit int
	err := admin.QueryRow(t.Context(), "SELECT rolconnlimit FROM pg_roles WHERE rolname = $1", cell.AppRole(limited)).Scan(&limit)
	if limit != 77 || err != nil {
		t.Errorf("the app's limit is %d, %v", limit, err)
	}
	if _, err := admin.Exec(t.Context(), "ALTER ROLE "+pgx.Identifier{cell.AppRole(limited)}.Sanitize()+" CONNECTION LIMIT -1"); err != nil {
		t.Fatal(err)
	}
	if err := cell.CreateDatabase(t.Context(), server, cell.Config{App: limited}, uid); err != nil {
		t.Fatal(err)
	}
	err = admin.QueryRow(t.Context(), "SELECT rolconnlimit FROM pg_roles WHERE rolname = $1", cell.AppRole(limited)).Scan(&limit)
	if limit != -1 || err != nil {
		t.Errorf("no limit became %d, %v", limit, err)
	}
}

// No other tenant is placed in a tenant's database, and no other app may connect.
func TestDatabaseIsItsTenantsOnly(t *testing.T) {
	t.Parallel()
	db, _ := ready(t, "")
	server, uid := db.Conn(t, pgserver.Superuser), newUID()
	if err := databaseFor(t, server, uid); err != nil {
		t.Fatal(err)
	}
	admin := inDatabase(t, server, uid)
	err := errors.Join(
		migrate(t, admin, goodTable),
		cell.InstallKey(t.Context(), admin, cell.Key{ID: 1, Cell: 1, Secret: tenant.SealKey{1}, NotAfter: time.Now().Add(time.Hour)}),
		cell.SetPlacement(t.Context(), admin, cell.Placement{UID: uid, State: cell.Active, Generation: 1}))
	if err != nil {
		t.Fatal(err)
	}
	login := func(role string) (*pgx.Conn, error) {
		config := server.Config()
		config.User, config.Database = role, cell.DatabaseName(app, uid)
		return pgx.ConnectConfig(t.Context(), config)
	}
	conn, err := login(cell.AppRole(app))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	for who, want := range map[tenant.UID]string{uid: "", newUID(): "RH001"} {
		seal := sealFor(who)
		err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), "SELECT rowhouse.enter($1)", seal[:]); err != nil {
				return err
			}
			_, err := tx.Exec(t.Context(), "INSERT INTO app.good (id) VALUES (1)")
			return err
		})
		if state(err) != want {
			t.Errorf("tenant %s in the database of %s: %v, want SQLSTATE %q", who, uid, err, want)
		}
	}
	other := pgtest.New(t, pgtest.Template{}).Pool(t, pgserver.Superuser)
	if err := cell.Init(t.Context(), other, cell.Config{App: "cell-neighbour"}); err != nil {
		t.Fatal(err)
	}
	if conn, err := login(cell.AppRole("cell-neighbour")); state(err) != "42501" {
		if err == nil {
			_ = conn.Close(t.Context())
		}
		t.Errorf("another app's login: %v, want SQLSTATE 42501", err)
	}
	if err := cell.DropDatabase(t.Context(), server, app, newUID()); err != nil {
		t.Errorf("one that is not there: %v", err)
	}
}

// Managed PostgreSQL: without CREATEDB the error says so, and with it rung L2a is reached.
func TestCreateDatabaseWithoutSuperuser(t *testing.T) {
	t.Parallel()
	db, admin := ready(t, "")
	owner := "managed_" + db.Name()
	exec := func(ctx context.Context, sql string) {
		t.Helper()
		if _, err := admin.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	exec(t.Context(), "CREATE ROLE "+owner+" LOGIN CREATEROLE")
	exec(t.Context(), "GRANT CONNECT ON DATABASE "+db.Name()+" TO "+owner)
	t.Cleanup(func() {
		for _, sql := range []string{"DROP OWNED BY " + owner, "DROP ROLE " + owner} {
			exec(context.WithoutCancel(t.Context()), sql)
		}
	})
	server, uid := db.Conn(t, owner), newUID()
	err := cell.CreateDatabase(t.Context(), server, cell.Config{App: app}, uid)
	if state(err) != "42501" || !strings.Contains(err.Error(), "CREATEDB") {
		t.Errorf("without CREATEDB: %v", err)
	}
	exec(t.Context(), "ALTER ROLE "+owner+" CREATEDB")
	if err := databaseFor(t, server, uid); err != nil {
		t.Fatal(err)
	}
	conn := inDatabase(t, server, uid)
	if rung, err := cell.InstalledRung(t.Context(), conn); rung != cell.L2a || err != nil {
		t.Errorf("stands on %q, %v, want L2a", rung, err)
	}
}
