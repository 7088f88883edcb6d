package dbtest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io/fs"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/internal/home"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// EachHome runs a test in all three models on both rungs, in parallel, as subtests SHARED/L2a
// and so on. The options are for [New].
func EachHome(t *testing.T, test func(t *testing.T, options ...Option)) {
	t.Helper()
	for _, model := range []tenant.Model{tenant.ModelShared, tenant.ModelSchema, tenant.ModelDatabase} {
		for _, rung := range []cell.Rung{cell.L2a, cell.L2b} {
			t.Run(fmt.Sprintf("%s/%s", model, rung), func(t *testing.T) {
				t.Parallel()
				test(t, Model(model), Rung(rung))
			})
		}
	}
}

// Home is where a tenant's tables are, for tests that go around the SDK.
type Home struct {
	// Model is the tenant's.
	Model tenant.Model
	// Schema is app, or the tenant's own.
	Schema string

	database *pgtest.DB
}

// SQL returns a statement that says app for the schema of the tenant's tables.
func (h Home) SQL(sql string) string { return home.Parse(sql).In(h.Schema) }

// Login opens a plain connection to the tenant's database as the app's role.
func (h Home) Login(tb testing.TB) *pgx.Conn {
	tb.Helper()
	return login(tb, h.database.DSN(cell.AppRole(App)))
}

// Admin opens a plain connection to the tenant's database as superuser.
func (h Home) Admin(tb testing.TB) *pgx.Conn {
	tb.Helper()
	return login(tb, h.database.DSN(pgserver.Superuser))
}

func login(tb testing.TB, dsn string) *pgx.Conn {
	tb.Helper()
	//rowlint:ignore G6 tests attack the database with what a thief would have
	conn, err := pgx.Connect(tb.Context(), dsn)
	must(tb, err)
	tb.Cleanup(func() { _ = conn.Close(context.WithoutCancel(tb.Context())) })
	return conn
}

// In returns the test's context with the tenant id in it, which is placed here when it is
// new. Edits change the context's claims.
func (d *Database) In(tb testing.TB, id string, edits ...func(*tenant.Claims)) context.Context {
	tb.Helper()
	d.Home(tb, id)
	return d.Issuer.In(tb.Context(), tb, id, edits...)
}

// Home returns where the tenant id lives, which is placed here when it is new.
func (d *Database) Home(tb testing.TB, id string) Home {
	tb.Helper()
	d.mu.Lock()
	h, known := d.homes[id]
	d.mu.Unlock()
	if !known {
		d.Place(tb, id)
		d.mu.Lock()
		h = d.homes[id]
		d.mu.Unlock()
	}
	return h
}

// Place places the tenant id here, or changes its placement: ACTIVE and of the issuer's
// generation, unless an edit says otherwise. A new one gets its home.
func (d *Database) Place(tb testing.TB, id string, edits ...func(*cell.Placement)) {
	tb.Helper()
	state := d.Tenant(tb, id)
	p := cell.Placement{UID: state.UID, State: cell.Active, Generation: state.PlacementGeneration}
	for _, edit := range edits {
		edit(&p)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	h, known := d.homes[id]
	if !known {
		h = d.build(tb, id, state.UID)
	}
	must(tb, h.administer(tb.Context(), d, func(conn cell.Conn) error { return cell.SetPlacement(tb.Context(), conn, p) }))
	d.homes[id] = h
}

// Unplace forgets the tenant's placement. Its home stays.
func (d *Database) Unplace(tb testing.TB, id string) {
	tb.Helper()
	h, uid := d.Home(tb, id), d.Tenant(tb, id).UID
	must(tb, h.administer(tb.Context(), d, func(conn cell.Conn) error { return cell.RemovePlacement(tb.Context(), conn, uid) }))
}

// Migrate runs the app's later migrations where the tenant id lives.
func (d *Database) Migrate(tb testing.TB, id string, files fs.FS) {
	tb.Helper()
	h, uid := d.Home(tb, id), d.Tenant(tb, id).UID
	must(tb, h.administer(tb.Context(), d, func(conn cell.Conn) error { return h.migrate(tb.Context(), conn, uid, files) }))
}

func (h Home) migrate(ctx context.Context, conn cell.Conn, uid tenant.UID, files fs.FS) error {
	if h.Model == tenant.ModelSchema {
		return cell.MigrateSchema(ctx, conn, uid, files)
	}
	return cell.Migrate(ctx, conn, files)
}

// build makes the home of a new tenant. A database is a copy of the one that others share,
// with its rights, so that it costs no Init.
func (d *Database) build(tb testing.TB, id string, uid tenant.UID) Home {
	tb.Helper()
	ctx := tb.Context()
	h := Home{Model: d.Model(id), Schema: home.SharedSchema, database: d.shared}
	switch h.Model {
	case tenant.ModelSchema:
		h.Schema = home.Schema(uid)
		must(tb, cell.CreateSchema(ctx, d.Admin, uid))
		for _, files := range d.files {
			must(tb, cell.MigrateSchema(ctx, d.Admin, uid, files))
		}
	case tenant.ModelDatabase:
		h.database = d.shared.Beside(d.tb, home.Database(d.Config.App, uid))
		must(tb, h.administer(ctx, d, func(conn cell.Conn) error { return d.installKey(ctx, conn) }))
	}
	return h
}

// administer runs fn with the superuser's rights in the tenant's database, and keeps no
// connection to one of its own: there may be many.
func (h Home) administer(ctx context.Context, d *Database, fn func(cell.Conn) error) error {
	if h.database == d.shared {
		return fn(d.Admin)
	}
	//rowlint:ignore G6 tenancy administers, not the app
	conn, err := pgx.Connect(ctx, h.database.DSN(pgserver.Superuser))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return fn(conn)
}

func (d *Database) installKey(ctx context.Context, conn cell.Conn) error {
	return cell.InstallKey(ctx, conn, cell.Key{
		ID: tenanttest.SealKID, Cell: tenanttest.CellNumber, Secret: d.SealKey(), NotAfter: time.Now().Add(time.Hour),
	})
}

// uniqueApp names the app for the SDK, which calls tenants' databases after it and the
// tenant: both are the same in many tests, and the server is one.
func uniqueApp() string {
	var word [4]byte
	_, _ = rand.Read(word[:]) // never fails
	return App + "-" + hex.EncodeToString(word[:])
}
