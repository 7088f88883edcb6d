package cell

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Roles of the whole server. Of owner and migrator each app has its own, named after it: what one
// app's migrator can become must own nothing of another app.
const (
	roleOwner    = "rowhouse_owner"    // owns the app's schemas
	roleSecurity = "rowhouse_sec"      // owns schema rowhouse
	roleApp      = "rowhouse_app"      // holds the grants on tenants' tables
	roleMigrator = "rowhouse_migrator" // logs in to migrate, may become the owner
)

// AppRole returns the name of the role as which app logs in.
func AppRole(app string) string { return roleOf(roleApp, app) }

// MigratorRole returns the name of the role as which app's migrations log in.
func MigratorRole(app string) string { return roleOf(roleMigrator, app) }

// OwnerRole returns the name of the role that owns app's tables. Nobody logs in as it.
func OwnerRole(app string) string { return roleOf(roleOwner, app) }

func roleOf(kind, app string) string { return kind + "_" + strings.ReplaceAll(app, "-", "_") }

// setUpCluster makes the roles. Roles belong to the server, advisory locks to a database;
// a lock on the shared catalog is the one that all inits of a server meet at. It does not
// hold up logins or other changes of roles.
func setUpCluster(ctx context.Context, t pgx.Tx, config *Config, super bool) error {
	if super {
		if _, err := t.Exec(ctx, "LOCK TABLE pg_catalog.pg_authid IN SHARE UPDATE EXCLUSIVE MODE"); err != nil {
			return fmt.Errorf("wait for other inits: %w", err)
		}
	}
	limit := config.Connections
	if config.unlimited {
		limit = -1
	}
	app, owner, migrator := AppRole(config.App), OwnerRole(config.App), MigratorRole(config.App)
	for _, role := range []struct{ name, attributes string }{
		{owner, "NOLOGIN"},
		{roleSecurity, "NOLOGIN"},
		{roleApp, "NOLOGIN"},
		{migrator, "LOGIN NOINHERIT"},
		{app, fmt.Sprintf("LOGIN INHERIT CONNECTION LIMIT %d", limit)},
	} {
		if err := ensureRole(ctx, t, role.name, role.attributes, super); err != nil {
			return err
		}
	}
	for role, password := range map[string]string{app: config.Password, migrator: config.MigratorPassword} {
		if err := setPassword(ctx, t, role, password); err != nil {
			return err
		}
	}
	for member, group := range map[string]string{app: roleApp, migrator: owner} {
		if err := ensureMember(ctx, t, member, group); err != nil {
			return err
		}
	}
	if err := confine(ctx, t, config.App); err != nil {
		return err
	}
	if err := unsetEverywhere(ctx, t, app); err != nil {
		return err
	}
	if super {
		if err := closeCommon(ctx, t); err != nil {
			return err
		}
		return grantCarrier(ctx, t)
	}
	for _, group := range []string{owner, roleSecurity, roleApp, app} {
		if err := ensureMember(ctx, t, "", group); err != nil {
			return err
		}
	}
	return nil
}

// ensureRole makes the role, or takes from an existing one what it must not have.
func ensureRole(ctx context.Context, t pgx.Tx, name, attributes string, super bool) error {
	const plain = " NOCREATEDB NOCREATEROLE"
	const weak = plain + " NOSUPERUSER NOREPLICATION NOBYPASSRLS"
	var exists, same bool
	err := t.QueryRow(ctx, `
SELECT true, NOT (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)
	AND rolcanlogin = ($2 NOT LIKE 'NOLOGIN%')
	AND rolconnlimit = coalesce(substring($2 FROM 'LIMIT ([0-9]+)')::int, -1)
FROM pg_catalog.pg_roles WHERE rolname = $1`, name, attributes).Scan(&exists, &same)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("look for role %s: %w", name, err)
	}
	verb := "ALTER"
	switch {
	case exists && same:
		return nil
	case !exists:
		verb = "CREATE"
	}
	rest := plain
	if super {
		rest = weak
	}
	if _, err := t.Exec(ctx, verb+" ROLE "+quote(name)+" "+attributes+rest); err != nil {
		return fmt.Errorf("role %s: %w", name, err)
	}
	return nil
}

// ensureMember makes member, or with "" the current login, a member of group.
func ensureMember(ctx context.Context, t pgx.Tx, member, group string) error {
	var is bool
	var who string
	err := t.QueryRow(ctx, `SELECT coalesce(nullif($1, ''), current_user::text),
	pg_catalog.pg_has_role(coalesce(nullif($1, ''), current_user::text)::name, $2::name, 'MEMBER')`, member, group).Scan(&who, &is)
	if err != nil {
		return fmt.Errorf("look for member %s of %s: %w", member, group, err)
	}
	if is {
		return nil
	}
	if _, err := t.Exec(ctx, "GRANT "+quote(group)+" TO "+quote(who)); err != nil {
		return fmt.Errorf("make %s a member of %s: %w", who, group, err)
	}
	return nil
}

func setPassword(ctx context.Context, t pgx.Tx, role, password string) error {
	if password == "" {
		return nil
	}
	verifier, err := scramVerifier(password)
	if err != nil {
		return fmt.Errorf("password of %s: %w", role, err)
	}
	if _, err := t.Exec(ctx, "ALTER ROLE "+quote(role)+" PASSWORD '"+verifier+"'"); err != nil {
		return fmt.Errorf("password of %s: SQLSTATE %s", role, sqlState(err)) // not the statement's text
	}
	return nil
}

// closeCommon takes the databases that every server has from everybody: nothing was taken from
// the functions there, and a login of an app would find all that Init takes in the app's own.
func closeCommon(ctx context.Context, t pgx.Tx) error {
	open, err := names(ctx, t, `
SELECT d.datname::text FROM pg_catalog.pg_database d
CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) g
WHERE d.datname IN ('postgres', 'template1') AND g.grantee = 0 GROUP BY d.datname`)
	if err != nil {
		return err
	}
	for _, name := range open {
		if _, err := t.Exec(ctx, "REVOKE ALL ON DATABASE "+quote(name)+" FROM PUBLIC"); err != nil {
			return fmt.Errorf("close database %s: %w", name, err)
		}
	}
	return nil
}

// grantCarrier lets rowhouse_sec, and nobody else, set the carrier of rung L2b.
func grantCarrier(ctx context.Context, t pgx.Tx) error {
	var granted bool
	err := t.QueryRow(ctx, "SELECT pg_catalog.has_parameter_privilege($1::name, 'backtrace_functions', 'SET')",
		roleSecurity).Scan(&granted)
	if err != nil {
		return fmt.Errorf("look for the carrier's grant: %w", err)
	}
	if !granted {
		if _, err := t.Exec(ctx, "GRANT SET ON PARAMETER backtrace_functions TO "+roleSecurity); err != nil {
			return fmt.Errorf("grant the carrier: %w", err)
		}
	}
	others, err := carrierHolders(ctx, t)
	if err != nil || len(others) == 0 {
		return err
	}
	for _, role := range others {
		if role != "PUBLIC" {
			role = quote(role)
		}
		if _, err := t.Exec(ctx, "REVOKE ALL ON PARAMETER backtrace_functions FROM "+role+" CASCADE"); err != nil {
			return fmt.Errorf("take the carrier from %s: %w", role, err)
		}
	}
	// A grant that another role made is not ours to revoke; PostgreSQL then only warns.
	if others, err = carrierHolders(ctx, t); err == nil && len(others) > 0 {
		err = fmt.Errorf("%w: %q may set the carrier", ErrRung, others)
	}
	return err
}

// carrierHolders returns who beside rowhouse_sec has rights on the carrier's setting.
func carrierHolders(ctx context.Context, t pgx.Tx) ([]string, error) {
	return names(ctx, t, `
SELECT DISTINCT coalesce(r.rolname::text, 'PUBLIC') FROM pg_catalog.pg_parameter_acl p
CROSS JOIN LATERAL pg_catalog.aclexplode(p.paracl) g LEFT JOIN pg_catalog.pg_roles r ON r.oid = g.grantee
JOIN pg_catalog.pg_roles boot ON boot.oid = 10
WHERE p.parname = 'backtrace_functions' AND g.grantee NOT IN (boot.oid, $1::text::regrole)`, roleSecurity)
}

// confine takes from the app's login role, from rowhouse_app, which every app's login is in,
// and from the app's migrator and owner the memberships that somebody gave them: the login is
// in rowhouse_app, the migrator in the app's owner, the others in nothing.
func confine(ctx context.Context, t pgx.Tx, app string) error {
	for member, group := range map[string]string{
		AppRole(app): roleApp, roleApp: "", MigratorRole(app): OwnerRole(app), OwnerRole(app): "",
	} {
		extra, err := names(ctx, t, `
SELECT g.rolname::text FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
WHERE m.member = $1::text::regrole AND g.rolname <> $2`, member, group)
		if err != nil {
			return err
		}
		for _, group := range extra {
			if _, err := t.Exec(ctx, "REVOKE "+quote(group)+" FROM "+quote(member)); err != nil {
				return fmt.Errorf("take %s from %s: %w", group, member, err)
			}
		}
	}
	return nil
}

// unsetEverywhere removes the settings that the app's login role has in all databases: none is
// ours. Where there is none nothing is written, so that concurrent inits do not meet there.
func unsetEverywhere(ctx context.Context, t pgx.Tx, role string) error {
	set, err := names(ctx, t, `
SELECT 'set' FROM pg_catalog.pg_db_role_setting s WHERE s.setrole = $1::text::regrole AND s.setdatabase = 0`, role)
	if err != nil || len(set) == 0 {
		return err
	}
	if _, err := t.Exec(ctx, "ALTER ROLE "+quote(role)+" RESET ALL"); err != nil {
		return fmt.Errorf("remove settings of %s: %w", role, err)
	}
	return nil
}

// checkConfined refuses an app that is more, or can become more, than its login role and
// rowhouse_app: SET ROLE goes along all memberships, whether they are inherited or not
// (rules R07 and R08 of the catalog audit).
func checkConfined(ctx context.Context, t pgx.Tx, app string) error {
	extra, err := names(ctx, t, `
WITH RECURSIVE closure(oid) AS (
	SELECT $1::text::regrole::oid
	UNION SELECT m.roleid FROM closure JOIN pg_catalog.pg_auth_members m ON m.member = closure.oid
)
SELECT r.rolname::text FROM closure JOIN pg_catalog.pg_roles r ON r.oid = closure.oid
WHERE r.rolname NOT IN ($1, $2)
	OR r.rolsuper OR r.rolbypassrls OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication`, AppRole(app), roleApp)
	if err == nil && len(extra) > 0 {
		err = fmt.Errorf("the app can become %q", extra)
	}
	return err
}

// names runs a query for names of roles.
func names(ctx context.Context, t pgx.Tx, sql string, args ...any) ([]string, error) {
	rows, err := t.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("look at the roles' rights: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("look at the roles' rights: %w", err)
	}
	return list, nil
}
