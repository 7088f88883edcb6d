package cell

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/internal/home"
)

// CreateDatabase makes the database of a tenant in the DATABASE model, with the encoding and
// locale of the one to which server leads, and runs [Init] in it. It may be repeated: what a
// call left half-made, the next one finishes. Nobody but server's login and superusers can
// connect before Init let the app in. Keys, placement and tables are still to come
// ([InstallKey], [SetPlacement], [Migrate]), over a connection by [ConnectDatabase].
//
// server is a connection to any database of the server, in no transaction, which PostgreSQL
// demands; a pooler in between must not be. Its login is a superuser, or, on rung [L2a], has
// CREATEDB and CREATEROLE; then it owns the database.
//
// config is best the one with which Init made the app's shared database. The limit on the
// app role's connections counts over all databases of the server: zero keeps the one that
// the role has.
func CreateDatabase(ctx context.Context, server *pgx.Conn, config Config, uid tenant.UID) error {
	if err := createDatabase(ctx, server, config, uid); err != nil {
		return fmt.Errorf("create database of tenant %s: %w", uid, err)
	}
	return nil
}

// SQLSTATEs that CREATE DATABASE may end with.
const (
	duplicateDatabase = "42P04"
	notAllowed        = "42501"
)

func createDatabase(ctx context.Context, server *pgx.Conn, config Config, uid tenant.UID) (err error) {
	if err := config.keepLimit(ctx, server); err != nil {
		return err
	}
	if err := config.check(); err != nil {
		return err
	}
	if err := dropInvalid(ctx, server, home.Database(config.App, uid)); err != nil {
		return err
	}
	like, err := locale(ctx, server)
	if err != nil {
		return err
	}
	name := quote(home.Database(config.App, uid))
	// Closed at first: PUBLIC may connect to a new database.
	_, err = server.Exec(ctx, "CREATE DATABASE "+name+" TEMPLATE template0 STRATEGY wal_log ALLOW_CONNECTIONS false"+like)
	switch state := sqlState(err); {
	case state == notAllowed:
		return fmt.Errorf("the login needs CREATEDB: %w", err)
	case err != nil && state != duplicateDatabase:
		return err
	}
	for _, sql := range []string{"REVOKE ALL ON DATABASE " + name + " FROM PUBLIC", "ALTER DATABASE " + name + " ALLOW_CONNECTIONS true"} {
		if _, err := server.Exec(ctx, sql); err != nil {
			return fmt.Errorf("open it to ourselves: %w", err)
		}
	}
	conn, err := ConnectDatabase(ctx, server, config.App, uid)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	return Init(ctx, conn, config)
}

// keepLimit asks for the app role's limit that is in force, where none is asked for.
func (c *Config) keepLimit(ctx context.Context, conn *pgx.Conn) error {
	if c.Connections != 0 {
		return nil
	}
	var limit int // 0 when there is no role
	err := conn.QueryRow(ctx, "SELECT coalesce(max(rolconnlimit), 0) FROM pg_catalog.pg_roles WHERE rolname = $1", AppRole(c.App)).Scan(&limit)
	if err != nil {
		return fmt.Errorf("look for the limit on connections: %w", err)
	}
	c.Connections, c.unlimited = max(limit, 0), limit < 0
	return nil
}

// dropInvalid drops what an interrupted DROP DATABASE left, which PostgreSQL marks and lets
// nobody use.
func dropInvalid(ctx context.Context, server *pgx.Conn, name string) error {
	var invalid bool
	err := server.QueryRow(ctx, "SELECT coalesce(bool_or(datconnlimit = -2), false) FROM pg_catalog.pg_database WHERE datname = $1",
		name).Scan(&invalid)
	if err == nil && invalid {
		_, err = server.Exec(ctx, "DROP DATABASE "+quote(name))
	}
	if err != nil {
		return fmt.Errorf("look for a half-dropped one: %w", err)
	}
	return nil
}

// ConnectDatabase connects to the database of a tenant in the DATABASE model as server's
// login does to its own. The caller closes the connection.
func ConnectDatabase(ctx context.Context, server *pgx.Conn, app string, uid tenant.UID) (*pgx.Conn, error) {
	config := server.Config()
	config.Database = home.Database(app, uid)
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to the database of tenant %s: %w", uid, err)
	}
	return conn, nil
}

// DropOption changes how a database is dropped.
type DropOption uint8

// EndSessions ends the sessions in the database; without it they stop the drop.
const EndSessions DropOption = 1

// DropDatabase drops the database of a tenant in the DATABASE model. One that is not there
// is no error. Sessions in it are one, after the 5 s that PostgreSQL waits for their end:
// SQLSTATE 55006, unless [EndSessions] is given.
// server is as for [CreateDatabase].
func DropDatabase(ctx context.Context, server *pgx.Conn, app string, uid tenant.UID, options ...DropOption) error {
	sql := "DROP DATABASE IF EXISTS " + quote(home.Database(app, uid))
	if slices.Contains(options, EndSessions) {
		sql += " WITH (FORCE)"
	}
	if _, err := server.Exec(ctx, sql); err != nil {
		return fmt.Errorf("drop database of tenant %s: %w", uid, err)
	}
	return nil
}

// locale are the options of CREATE DATABASE for one that sorts and compares as that of conn
// does: rows come in one order, whatever the model.
func locale(ctx context.Context, conn *pgx.Conn) (options string, err error) {
	// Release 17 renamed the column with the locale of ICU, and has a provider of its own.
	err = conn.QueryRow(ctx, `
SELECT pg_catalog.format(' ENCODING %L LC_COLLATE %L LC_CTYPE %L LOCALE_PROVIDER %s', pg_catalog.pg_encoding_to_char(d.encoding),
	d.datcollate, d.datctype, CASE d.datlocprovider WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END)
	|| CASE WHEN d.datlocprovider IN ('i', 'b') THEN pg_catalog.format(' %s_LOCALE %L',
		CASE d.datlocprovider WHEN 'i' THEN 'ICU' ELSE 'BUILTIN' END, coalesce(j.d ->> 'datlocale', j.d ->> 'daticulocale')) ELSE '' END
FROM pg_catalog.pg_database d CROSS JOIN LATERAL (SELECT pg_catalog.to_jsonb(d) AS d) j
WHERE d.datname = pg_catalog.current_database()`).Scan(&options)
	if err != nil {
		return "", fmt.Errorf("look at the locale: %w", err)
	}
	return options, nil
}
