package cell

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/internal/home"
)

// SchemaName returns the name of a tenant's schema in the SCHEMA model, t_<uid in hex>.
func SchemaName(uid tenant.UID) string { return home.Schema(uid) }

// DatabaseName returns the name of a tenant's database in the DATABASE model, <app>_<uid in
// hex>. The name of an app of more than 30 bytes is shortened in it.
func DatabaseName(app string, uid tenant.UID) string { return home.Database(app, uid) }

// Place returns the database, and the schema in it, that hold a tenant's tables of an app in
// a model.
func Place(app string, model tenant.Model, uid tenant.UID) (database, schema string) {
	database, schema = home.SharedDatabase(app), home.SharedSchema
	switch model {
	case tenant.ModelSchema:
		schema = home.Schema(uid)
	case tenant.ModelDatabase:
		database = home.Database(app, uid)
	}
	return database, schema
}

// CreateSchema makes the schema of a tenant in the SCHEMA model, in the database that the
// app's tenants share and where [Init] was. It belongs to the app's owner, and the app may
// use it; [MigrateSchema] fills it. It may be repeated. conn logs in as for Init, or as
// rowhouse_migrator_<app>.
func CreateSchema(ctx context.Context, conn Conn, uid tenant.UID) error {
	err := tx(ctx, conn, func(t pgx.Tx) error { return createSchema(ctx, t, home.Schema(uid)) })
	if err != nil {
		return fmt.Errorf("create schema of tenant %s: %w", uid, err)
	}
	return nil
}

func createSchema(ctx context.Context, t pgx.Tx, schema string) error {
	_, owner, err := ownerOf(ctx, t, home.SharedSchema)
	if err != nil {
		return err
	}
	if err := lockHome(ctx, t, schema); err != nil {
		return err
	}
	err = script(ctx, t, "create the schema", fmt.Sprintf(`SET LOCAL ROLE %[2]s;
CREATE SCHEMA IF NOT EXISTS %[1]s;
REVOKE ALL ON SCHEMA %[1]s FROM PUBLIC;
GRANT USAGE ON SCHEMA %[1]s TO %[3]s;
RESET ROLE;`, schema, quote(owner), roleApp))
	if err != nil {
		return err
	}
	_, is, err := ownerOf(ctx, t, schema)
	if err == nil && is != owner {
		err = fmt.Errorf("schema %s belongs to %s, not to %s", schema, is, owner)
	}
	return err
}

// tablesPerDrop bounds the locks that one transaction of DropSchema takes: a table has some
// five relations, and a server with PostgreSQL's defaults holds 6,400 locks in all.
const tablesPerDrop = 50

// DropSchema drops the schema of a tenant with the tenant's rows in it, and forgets what
// was migrated there. It takes a bounded number of locks at a time, so it is not one
// transaction: one that was interrupted is finished by the next call, and nothing but
// DropSchema should touch the schema until then. A schema that is not there is no error.
// Whether the tenant lives elsewhere now is the caller's to know.
func DropSchema(ctx context.Context, conn Conn, uid tenant.UID) error {
	schema := home.Schema(uid)
	// First of all: what is half gone must not look migrated.
	err := asSecurity(ctx, conn, func(t pgx.Tx) error {
		_, err := t.Exec(ctx, "DELETE FROM rowhouse.migration WHERE schema = $1", schema)
		return err
	})
	for left := true; left && err == nil; {
		err = tx(ctx, conn, func(t pgx.Tx) (err error) {
			left, err = dropSome(ctx, t, schema)
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("drop schema of tenant %s: %w", uid, err)
	}
	return nil
}

// dropSome drops some tables of the schema, or the schema when it has few, and reports
// whether there is more to drop.
func dropSome(ctx context.Context, t pgx.Tx, schema string) (left bool, err error) {
	if err := lockHome(ctx, t, schema); err != nil {
		return false, err
	}
	tables, err := names(ctx, t, `
SELECT pg_catalog.format('%I.%I', $1::text, c.relname) FROM pg_catalog.pg_class c
WHERE c.relnamespace = pg_catalog.to_regnamespace($1::text) AND c.relkind IN ('r', 'p', 'f') LIMIT $2`, schema, tablesPerDrop+1)
	if err != nil {
		return false, err
	}
	if left = len(tables) > tablesPerDrop; left {
		return true, script(ctx, t, "drop tables", "DROP TABLE "+strings.Join(tables[:tablesPerDrop], ", ")+" CASCADE")
	}
	return false, script(ctx, t, "drop", "DROP SCHEMA IF EXISTS "+schema+" CASCADE")
}

// ownerOf returns for which app's owner a schema of this database was made, and whether the
// login is a superuser.
func ownerOf(ctx context.Context, t pgx.Tx, schema string) (super bool, owner string, err error) {
	err = t.QueryRow(ctx, `SELECT pg_catalog.current_setting('is_superuser') = 'on', coalesce((
	SELECT r.rolname::text FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles r ON r.oid = n.nspowner
	WHERE n.nspname = $1), '')`, schema).Scan(&super, &owner)
	switch {
	case err != nil:
		return false, "", fmt.Errorf("look for the owner of schema %s: %w", schema, err)
	case strings.HasPrefix(owner, roleOwner+"_"):
		return super, owner, nil
	case schema == home.SharedSchema:
		return false, "", errors.New("schema app belongs to no app's owner: run Init")
	case owner == "":
		return false, "", fmt.Errorf("there is no schema %s", schema)
	}
	return false, "", fmt.Errorf("schema %s belongs to %s, which is no app's owner", schema, owner)
}
