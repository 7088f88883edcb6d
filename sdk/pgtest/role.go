package pgtest

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Role describes a role. The zero attributes are those of an app: it may log in, is
// not superuser, is bound by row security and may make neither databases nor roles.
type Role struct {
	Name      string
	NoLogin   bool
	BypassRLS bool
	// MemberOf are roles that exist already, and that this one is to be a member of.
	MemberOf []string
}

// Execer is a connection, a pool or a transaction.
type Execer interface {
	// Exec runs a statement, as pgx does.
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// roleTries bounds the races that EnsureRole loses in a row.
const roleTries = 10

// EnsureRole makes the role, or gives an existing one of that name these attributes
// and memberships. Roles are the server's, so other processes may do the same at this
// moment; that does no harm. It wants a superuser, outside of a transaction, because
// the loser of a race tries again.
func EnsureRole(ctx context.Context, conn Execer, role Role) error {
	sql := role.sql()
	for try := 1; ; try++ {
		_, err := conn.Exec(ctx, sql)
		if err == nil {
			return nil
		}
		if try == roleTries || !lostRace(err) {
			return fmt.Errorf("role %s: %w", role.Name, err)
		}
	}
}

func lostRace(err error) bool {
	told, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return false
	}
	switch told.Code {
	case "42710", "23505": // duplicate_object, unique_violation
		return true
	}
	return strings.Contains(told.Message, "concurrently updated")
}

// sql changes nothing where nothing is to change, so that the usual case takes no
// lock and loses no race.
func (r Role) sql() string {
	name, quoted := pgx.Identifier{r.Name}.Sanitize(), literal(r.Name)
	var b strings.Builder
	fmt.Fprintf(&b, `DO $pgtest$ BEGIN
		IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = %[2]s) THEN
			CREATE ROLE %[1]s %[3]s;
		ELSIF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = %[2]s AND rolcanlogin = %[4]t AND rolbypassrls = %[5]t
			AND NOT (rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication)) THEN
			ALTER ROLE %[1]s %[3]s;
		END IF;`, name, quoted, r.attributes(), !r.NoLogin, r.BypassRLS)
	for _, group := range r.MemberOf {
		fmt.Fprintf(&b, `
		IF NOT EXISTS (SELECT FROM pg_auth_members WHERE roleid = %s::regrole AND member = %s::regrole) THEN
			GRANT %s TO %s;
		END IF;`, literal(pgx.Identifier{group}.Sanitize()), literal(name), pgx.Identifier{group}.Sanitize(), name)
	}
	b.WriteString(" END $pgtest$")
	return b.String()
}

func (r Role) attributes() string {
	login, bypass := "LOGIN", "NOBYPASSRLS"
	if r.NoLogin {
		login = "NOLOGIN"
	}
	if r.BypassRLS {
		bypass = "BYPASSRLS"
	}
	return login + " " + bypass + " NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION"
}

func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
