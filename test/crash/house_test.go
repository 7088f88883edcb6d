package crash

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// long asks for more rounds.
func long() bool { return os.Getenv("ROWHOUSE_TEST_LONG") != "" }

const app = "ledger"

var ledger = fstest.MapFS{"0001_entry.sql": {Data: []byte(`CREATE TABLE app.entry (
	tenant_id uuid NOT NULL DEFAULT rowhouse.tenant_id(), writer int NOT NULL, n int NOT NULL, PRIMARY KEY (tenant_id, writer, n));`)}}

var (
	enterRow = tenantdb.Stmt(`INSERT INTO app.entry (writer, n) VALUES ($1, $2)`)
	readRows = tenantdb.Stmt(`SELECT writer, n FROM app.entry`)
)

// house is a PostgreSQL that can be killed and started again, with a cell in it.
type house struct {
	options pgserver.Options
	server  *pgserver.Server
	issuer  *tenanttest.Issuer
}

// build starts the server and prepares the cell, with a tenant in each of the models.
func build(t *testing.T, models ...tenant.Model) *house {
	t.Helper()
	dir, err := os.MkdirTemp("", "rowhouse-crash-") //nolint:usetesting // a socket wants a short path, and its user a way in
	must(t, err)
	must(t, os.Chmod(dir, 0o711)) // PostgreSQL may run as another user
	h := &house{issuer: tenanttest.NewIssuer(t, nil), options: pgserver.Options{
		Dir: filepath.Join(dir, "pg"), MaxConnections: 50,
		// What the profile of tests gives away is what this is about.
		Settings: map[string]string{"synchronous_commit": "on", "full_page_writes": "on"},
	}}
	h.server, err = pgserver.Start(t.Context(), h.options)
	must(t, err)
	t.Cleanup(func() {
		must(t, h.server.Stop(context.WithoutCancel(t.Context())))
		must(t, os.RemoveAll(dir))
	})
	admin := h.admin(t, "")
	config := cell.Config{App: app, Connections: 40}
	_, err = admin.Exec(t.Context(), "CREATE DATABASE "+app)
	must(t, err)
	must(t, cell.Init(t.Context(), h.admin(t, app), config))
	h.installKey(t, h.admin(t, app))
	must(t, cell.Migrate(t.Context(), h.admin(t, app), ledger))
	for _, model := range models {
		h.place(t, admin, config, model)
	}
	return h
}

// place makes the tenant that is called after its model.
func (h *house) place(t *testing.T, admin *pgx.Conn, config cell.Config, model tenant.Model) {
	t.Helper()
	ctx, id := t.Context(), tenantOf(model)
	h.issuer.SetModel(model, id)
	uid := h.issuer.Tenant(t, id).UID
	conn := h.admin(t, app)
	switch model {
	case tenant.ModelSchema:
		must(t, cell.CreateSchema(ctx, conn, uid))
		must(t, cell.MigrateSchema(ctx, conn, uid, ledger))
	case tenant.ModelDatabase:
		must(t, cell.CreateDatabase(ctx, admin, config, uid))
		conn = h.admin(t, cell.DatabaseName(app, uid))
		h.installKey(t, conn)
		must(t, cell.Migrate(ctx, conn, ledger))
	}
	must(t, cell.SetPlacement(ctx, conn, cell.Placement{UID: uid, State: cell.Active, Generation: 1}))
}

func tenantOf(model tenant.Model) string {
	return map[tenant.Model]string{
		tenant.ModelShared: "acme", tenant.ModelSchema: "globex", tenant.ModelDatabase: "initech",
	}[model]
}

func (h *house) installKey(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	must(t, cell.InstallKey(t.Context(), conn, cell.Key{
		ID: tenanttest.SealKID, Cell: tenanttest.CellNumber, Secret: h.issuer.SealKey(), NotAfter: time.Now().Add(time.Hour),
	}))
}

// admin logs in as superuser.
func (h *house) admin(t *testing.T, database string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), h.server.DSN(pgserver.Login{Database: database}))
	must(t, err)
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) }) // it may have been killed
	return conn
}

// open opens the cell as the app.
func open(t *testing.T, dsn string) *tenantdb.DB {
	t.Helper()
	db, err := tenantdb.Open(t.Context(), tenantdb.Config{
		App: app, Cells: map[string]tenantdb.Cell{tenanttest.Cell: {DSN: dsn, MaxConns: 8}},
	})
	must(t, err)
	t.Cleanup(db.Close)
	return db
}

func (h *house) dsn() string {
	return h.server.DSN(pgserver.Login{User: cell.AppRole(app), Database: app})
}

// restart starts the server again, once the last process of the killed one is gone.
func (h *house) restart(t *testing.T) {
	t.Helper()
	<-h.server.Done()
	_ = h.server.Stop(t.Context()) // lets go of the folder; that it was killed is no news
	retry := time.NewTicker(10 * time.Millisecond)
	defer retry.Stop()
	for end := time.Now().Add(time.Minute); ; <-retry.C {
		server, err := pgserver.Start(t.Context(), h.options)
		if err == nil {
			h.server = server
			return
		}
		told := errors.Is(err, pgserver.ErrRunning) || errors.Is(err, pgserver.ErrStart)
		if !told || time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
