package prove

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// serverWide says what cell.Init would change that belongs to the whole server, one line each:
// what setUpCluster of package cell makes, takes and grants beside the app's own roles. Only a
// superuser closes the common databases and has a say on the carrier.
const serverWide = `
WITH me AS (SELECT oid, rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)
SELECT format('make the role %s', want) FROM unnest(ARRAY['rowhouse_sec', 'rowhouse_app']) want
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = want)
UNION ALL
SELECT format('take attributes from the role %s', rolname) FROM pg_catalog.pg_roles
WHERE rolname IN ('rowhouse_sec', 'rowhouse_app')
	AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls OR rolcanlogin OR rolconnlimit <> -1)
UNION ALL
SELECT format('take the role %s from rowhouse_app', g.rolname) FROM pg_catalog.pg_auth_members m
JOIN pg_catalog.pg_roles g ON g.oid = m.roleid JOIN pg_catalog.pg_roles r ON r.oid = m.member
WHERE r.rolname = 'rowhouse_app'
UNION ALL
SELECT format('make the login a member of %s', r.rolname) FROM pg_catalog.pg_roles r, me
WHERE r.rolname IN ('rowhouse_sec', 'rowhouse_app') AND NOT pg_catalog.pg_has_role(me.oid, r.oid, 'MEMBER')
UNION ALL
SELECT DISTINCT format('take the rights of PUBLIC on the database %s', d.datname) FROM me, pg_catalog.pg_database d
CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) g
WHERE me.rolsuper AND d.datname IN ('postgres', 'template1') AND g.grantee = 0
UNION ALL
SELECT 'let rowhouse_sec set the parameter backtrace_functions' FROM pg_catalog.pg_roles r, me
WHERE me.rolsuper AND r.rolname = 'rowhouse_sec' AND NOT pg_catalog.has_parameter_privilege(r.oid, 'backtrace_functions', 'SET')
UNION ALL
SELECT DISTINCT format('take the parameter backtrace_functions from %s', coalesce(r.rolname, 'PUBLIC'))
FROM me, pg_catalog.pg_parameter_acl p
CROSS JOIN LATERAL pg_catalog.aclexplode(p.paracl) g LEFT JOIN pg_catalog.pg_roles r ON r.oid = g.grantee
WHERE me.rolsuper AND p.parname = 'backtrace_functions' AND g.grantee <> 10 AND r.rolname IS DISTINCT FROM 'rowhouse_sec'
ORDER BY 1`

// Undisturbed returns an error that says what attacks would change beyond the databases and
// roles that they make: a server that is set up as rowhouse cells init leaves it stays as it is.
func Undisturbed(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, serverWide)
	if err != nil {
		return fmt.Errorf("look at what belongs to the whole server: %w", err)
	}
	changes, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("look at what belongs to the whole server: %w", err)
	}
	if len(changes) > 0 {
		return fmt.Errorf("attacks would set up the server, and so %s; rowhouse cells init does that, and comes first",
			strings.Join(changes, ", "))
	}
	return nil
}
