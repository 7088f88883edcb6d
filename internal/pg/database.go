package pg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Database is a service's database: its name, its roles and how it came to look as it does.
//
// The roles are Owner, which owns everything and cannot log in; Migrator, which may become Owner while it migrates;
// and Service, which serves requests, owns nothing and has the rights that the migrations grant it.
type Database struct {
	// Name is the database, and the prefix of its roles: "rowhouse_tenancy".
	Name string
	// Migrations are folders of *.sql files, merged and applied in the order of file names; no name may come twice.
	// A file is one transaction, run by Owner. It writes {{owner}}, {{migrate}}, {{service}} and {{database}} for the
	// names, quoted. Once applied a file never changes.
	Migrations []fs.FS
	// ServicePassword and MigratePassword let the two roles log in by password. Empty leaves what there is.
	ServicePassword, MigratePassword string
}

// Owner returns the role that owns the database.
func (d Database) Owner() string { return d.Name + "_owner" }

// Migrator returns the role that may become Owner.
func (d Database) Migrator() string { return d.Name + "_migrate" }

// Service returns the role that serves requests.
func (d Database) Service() string { return d.Name + "_service" }

// Provision makes whatever is missing of the database, its roles and its tables, by way of a superuser's connection
// string to any database of the server. It may run again, and at the same time as others. Production prepares
// database and roles by other means and uses [Migrate] alone.
func Provision(ctx context.Context, superuserDSN string, db Database) error {
	super, err := pgx.ParseConfig(superuserDSN)
	if err != nil {
		return errors.New("the superuser's DSN cannot be parsed") // its own error quotes the DSN
	}
	err = withConn(ctx, super, func(conn *pgx.Conn) error {
		return withLock(ctx, conn, func() error {
			return errors.Join(CreateRoles(ctx, conn, db), createDatabase(ctx, conn, db))
		})
	})
	if err != nil {
		return fmt.Errorf("create database %s: %w", db.Name, err)
	}
	own := super.Copy()
	own.Database = db.Name
	return withConn(ctx, own, func(conn *pgx.Conn) error {
		return withLock(ctx, conn, func() error { // Migrate takes it again, which a session may
			if err := Seclude(ctx, conn, db); err != nil {
				return err
			}
			return Migrate(ctx, conn, db)
		})
	})
}

// CreateRoles makes the database's roles where they are missing and sets the given passwords. It needs a superuser,
// and is safe beside others that do the same.
func CreateRoles(ctx context.Context, conn *pgx.Conn, db Database) error {
	if err := checkName(db.Name); err != nil {
		return err
	}
	roles := []struct{ name, options, password string }{
		{db.Owner(), "nologin", ""},
		{db.Migrator(), "login noinherit", db.MigratePassword},
		{db.Service(), "login noinherit", db.ServicePassword},
	}
	for _, role := range roles {
		if err := createRole(ctx, conn, role.name, role.options); err != nil {
			return err
		}
		if role.password == "" {
			continue
		}
		if err := setPassword(ctx, conn, role.name, role.password); err != nil {
			return err
		}
	}
	_, err := conn.Exec(ctx, "grant "+quote(db.Owner())+" to "+quote(db.Migrator()))
	if isDuplicate(err) { // granted twice at once
		return nil
	}
	return err
}

// createRole attempts and looks at the error, because another session may make the role at the same time.
func createRole(ctx context.Context, conn *pgx.Conn, name, options string) error {
	var exists bool
	const look = "select exists (select from pg_catalog.pg_roles where rolname = $1)"
	if err := conn.QueryRow(ctx, look, name).Scan(&exists); err != nil || exists {
		return err
	}
	_, err := conn.Exec(ctx, "create role "+quote(name)+
		" nosuperuser nocreatedb nocreaterole noreplication nobypassrls "+options)
	if isDuplicate(err) {
		return nil
	}
	return err
}

// setPassword has PostgreSQL quote, because ALTER ROLE takes no parameters.
func setPassword(ctx context.Context, conn *pgx.Conn, role, password string) error {
	var statement string
	const format = "select pg_catalog.format('alter role %I password %L', $1::text, $2::text)"
	if err := conn.QueryRow(ctx, format, role, password).Scan(&statement); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, statement); err != nil {
		// The database's error would quote the statement.
		return fmt.Errorf("set the password of %s: SQLSTATE %s", role, Code(err))
	}
	return nil
}

func createDatabase(ctx context.Context, conn *pgx.Conn, db Database) error {
	var exists bool
	const look = "select exists (select from pg_catalog.pg_database where datname = $1)"
	if err := conn.QueryRow(ctx, look, db.Name).Scan(&exists); err != nil || exists {
		return err
	}
	_, err := conn.Exec(ctx, "create database "+quote(db.Name)+" owner "+quote(db.Owner()))
	return err
}

// Seclude takes everything on the connection's database from PUBLIC and lets the database's own roles connect. It
// needs a superuser. The database may have another name than db says, as those of tests have.
func Seclude(ctx context.Context, conn *pgx.Conn, db Database) error {
	var current string
	if err := conn.QueryRow(ctx, "select current_database()").Scan(&current); err != nil {
		return err
	}
	owner := quote(db.Owner())
	roles := quote(db.Migrator()) + ", " + quote(db.Service())
	statements := []string{
		"revoke all on database " + quote(current) + " from public",
		"grant connect on database " + quote(current) + " to " + owner + ", " + roles,
		"grant create on database " + quote(current) + " to " + owner,
		"revoke all on schema public from public",
		"alter schema public owner to " + owner,
		"grant usage on schema public to " + quote(db.Service()),
		"alter default privileges for role " + owner + " revoke execute on functions from public",
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	for _, statement := range statements {
		if _, err := tx.Exec(ctx, statement); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", statement, err), tx.Rollback(ctx))
		}
	}
	return tx.Commit(ctx)
}

func withConn(ctx context.Context, cfg *pgx.ConnConfig, fn func(*pgx.Conn) error) error {
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return err
	}
	return errors.Join(fn(conn), conn.Close(ctx))
}

func isDuplicate(err error) bool {
	return slices.Contains([]string{"42710", CodeUniqueViolation, "XX000"}, Code(err)) &&
		(Code(err) != "XX000" || strings.Contains(err.Error(), "concurrently updated"))
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

// checkName keeps names so plain that they need no quoting and leave room for the roles' suffixes.
func checkName(name string) error {
	if !regexp.MustCompile(`^[a-z][a-z0-9_]{0,53}$`).MatchString(name) {
		return fmt.Errorf("%q is no database name", name)
	}
	return nil
}
