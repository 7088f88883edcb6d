package cell_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
)

// refusedLogin says whether the server lets the role into no database of that name.
func refusedLogin(t *testing.T, db *pgtest.DB, role string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), db.DSN(role))
	if err == nil {
		_ = conn.Close(t.Context())
	}
	if state(err) != "42501" {
		t.Errorf("login of %s: %v, want SQLSTATE 42501", role, err)
	}
}

// The migrator of one app is nothing in the database of another, nor can it become who owns
// tables there, whatever database it logs in to.
func TestMigratorReachesItsAppOnly(t *testing.T) {
	t.Parallel()
	home, neighbour := empty(t)
	if err := cell.Init(t.Context(), neighbour, cell.Config{App: "cell-neighbour"}); err != nil {
		t.Fatal(err)
	}
	db, admin := ready(t, "")
	if err := migrate(t, admin, goodTable); err != nil {
		t.Fatal(err)
	}
	migrator := cell.MigratorRole("cell-neighbour")
	refusedLogin(t, db, migrator)
	var owner string
	err := admin.QueryRow(t.Context(), "SELECT relowner::regrole::text FROM pg_class WHERE oid = 'app.good'::regclass").Scan(&owner)
	if err != nil || owner != cell.OwnerRole(app) {
		t.Errorf("the table belongs to %s, %v", owner, err)
	}
	if _, err := home.Conn(t, migrator).Exec(t.Context(), "SET ROLE "+owner); state(err) != "42501" {
		t.Errorf("a neighbour's migrator becomes %s: %v, want SQLSTATE 42501", owner, err)
	}
}

// What somebody gave the migrator or the owner beyond their app is taken back.
func TestInitTakesRightsOfTheMigrator(t *testing.T) {
	t.Parallel()
	db, admin := ready(t, "")
	config := cell.Config{App: "cell-wide"}
	_, own := empty(t)
	if err := cell.Init(t.Context(), own, config); err != nil {
		t.Fatal(err)
	}
	for _, member := range []string{cell.MigratorRole(config.App), cell.OwnerRole(config.App)} {
		if err := locked(t.Context(), admin, "GRANT "+cell.OwnerRole(app)+" TO "+member); err != nil {
			t.Fatal(err)
		}
	}
	if err := cell.Init(t.Context(), own, config); err != nil {
		t.Fatal(err)
	}
	var can bool
	err := db.Conn(t, cell.MigratorRole(app)).QueryRow(t.Context(), "SELECT pg_has_role($1::name, $2::name, 'MEMBER')",
		cell.MigratorRole(config.App), cell.OwnerRole(app)).Scan(&can)
	if err != nil || can {
		t.Errorf("another app's migrator may become the owner: %t, %v", can, err)
	}
}

// A database of the time when all apps shared an owner and a migrator becomes its app's.
func TestInitAdoptsADatabaseOfSharedRoles(t *testing.T) {
	t.Parallel()
	db, admin := empty(t)
	config := cell.Config{App: "cell-older"}
	if err := cell.Init(t.Context(), admin, config); err != nil {
		t.Fatal(err)
	}
	if err := migrate(t, admin, goodTable); err != nil {
		t.Fatal(err)
	}
	if err := locked(t.Context(), admin, `CREATE ROLE rowhouse_owner; CREATE ROLE rowhouse_migrator LOGIN NOINHERIT;
GRANT rowhouse_owner TO rowhouse_migrator; REASSIGN OWNED BY rowhouse_owner_cell_older TO rowhouse_owner;
GRANT CONNECT ON DATABASE `+db.Name()+` TO rowhouse_migrator`); err != nil {
		t.Fatal(err)
	}
	if err := cell.Init(t.Context(), admin, config); err != nil {
		t.Fatal(err)
	}
	refusedLogin(t, db, "rowhouse_migrator")
	if err := migrate(t, db.Conn(t, cell.MigratorRole(config.App)), goodTable, `ALTER TABLE app.good ADD note text;`); err != nil {
		t.Errorf("a migration of what was adopted: %v", err)
	}
}

// In databases that every server has, nothing was taken from the functions.
func TestAppsEnterNoCommonDatabase(t *testing.T) {
	t.Parallel()
	db, _ := ready(t, "")
	for _, role := range []string{cell.AppRole(app), cell.MigratorRole(app)} {
		for _, name := range []string{"postgres", "template1"} {
			config, err := pgx.ParseConfig(db.DSN(role))
			if err != nil {
				t.Fatal(err)
			}
			config.Database = name
			conn, err := pgx.ConnectConfig(t.Context(), config)
			if err == nil {
				_ = conn.Close(t.Context())
			}
			if state(err) != "42501" {
				t.Errorf("%s enters %s: %v, want SQLSTATE 42501", role, name, err)
			}
		}
	}
}

// A prepared transaction would keep a tenant's lock after its session ended.
func TestInitRefusesPreparedTransactions(t *testing.T) {
	t.Parallel()
	server, err := pgserver.Start(t.Context(), pgserver.Options{Settings: map[string]string{"max_prepared_transactions": "1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	conn, err := pgx.Connect(t.Context(), server.DSN(pgserver.Login{}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	if err := cell.Init(t.Context(), conn, cell.Config{App: app}); !errors.Is(err, cell.ErrServer) {
		t.Errorf("%v, want ErrServer", err)
	}
}
