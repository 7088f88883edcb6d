package cells_test

import (
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/cells"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
)

// recipe is the operator guide's SQL for a login of tenancy with less than a superuser's rights.
func recipe(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../../../../docs/guides/operator.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("(?s)```sql\n(CREATE ROLE tenancy_cell.*?)```").FindSubmatch(page)
	if found == nil {
		t.Fatal("the operator guide makes no role tenancy_cell")
	}
	return string(found[1])
}

// TestTenancyWithLess has a person prepare a database of rung L2b and give tenancy the login of the operator guide: tenants
// in shared tables need no more. Schemas, databases of that rung and migrations do.
func TestTenancyWithLess(t *testing.T) {
	t.Parallel()
	server := pgtest.StartServer(t, pgserver.Options{})
	ctx := t.Context()
	connect := func(login pgserver.Login) *pgx.Conn {
		t.Helper()
		conn, err := pgx.Connect(ctx, server.DSN(login))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(ctx)) })
		return conn
	}
	do := func(conn *pgx.Conn, sql string) {
		t.Helper()
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	do(connect(pgserver.Login{}), "CREATE DATABASE notes")
	person := connect(pgserver.Login{Database: "notes"})
	if err := cell.Init(ctx, person, cell.Config{App: "notes", Rung: cell.L2b}); err != nil {
		t.Fatal(err)
	}
	do(person, recipe(t))
	dir, login := t.TempDir(), pgserver.Login{User: "tenancy_cell", Database: "notes"}
	if err := os.WriteFile(filepath.Join(dir, "cell-1"), []byte(server.DSN(login)), 0o600); err != nil {
		t.Fatal(err)
	}
	databases, err := cells.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer databases.Close()
	const ref = "secret://file/cell-1"
	migrations := []registry.Migration{registry.NewMigration("0001_note", "CREATE TABLE app.note (tenant_id uuid, id int, PRIMARY KEY (tenant_id, id))")}
	home := func(model tenant.Model) (h store.Home) {
		h = store.Home{App: "notes", Model: model, Cell: "cell-1", CredentialsRef: ref}
		_, _ = rand.Read(h.UID[:])
		return h
	}
	place := func(h store.Home) error {
		return databases.Place(ctx, store.Debt{
			UID: h.UID, App: h.App, Model: h.Model, CredentialsRef: ref, State: registry.StateActive, Generation: 1, Revision: 1,
		})
	}
	wanted := func(context.Context) error { return nil }
	key := store.Install{App: "notes", CellNumber: 1, CredentialsRef: ref}
	key.Key.KID, key.Key.NotAfter = 1, time.Now().Add(time.Hour)
	shared, schema, database := home(tenant.ModelShared), home(tenant.ModelSchema), home(tenant.ModelDatabase)
	for _, err := range []error{
		databases.Install(ctx, key, tenant.SealKey{1}), place(shared),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	// A login that reads the keys must not run files of the app, also when somebody gave it the app's roles.
	do(person, "GRANT rowhouse_migrator_notes, rowhouse_owner_notes TO tenancy_cell")
	for _, err := range []error{
		databases.Make(ctx, schema, wanted), databases.Make(ctx, database, wanted), databases.Try(ctx, ref, "notes", migrations),
	} {
		if err == nil || !strings.Contains(err.Error(), "42501") {
			t.Errorf("a home of its own: %v", err)
		}
	}
	// The keys that it installs are arguments of its statements, which a superuser's session keeps out of the log by itself.
	for setting, want := range map[string]string{
		"log_statement": "none", "log_min_duration_statement": "-1", "log_parameter_max_length": "0", "log_parameter_max_length_on_error": "0",
		"log_min_duration_sample": "-1", "log_transaction_sample_rate": "0", "is_superuser": "off",
	} {
		var got string
		if err := connect(login).QueryRow(ctx, "SELECT current_setting($1)", setting).Scan(&got); err != nil || strings.TrimSuffix(got, "B") != want {
			t.Errorf("%s is %s, %v", setting, got, err)
		}
	}
}
