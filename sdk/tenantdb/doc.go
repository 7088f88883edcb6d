// Package tenantdb is how a product service reaches its tenants' rows in PostgreSQL.
//
// The tenant comes from the context and from nowhere else: each call sends the seal of
// the verified [tenant.Context] ahead of its SQL, in the same network flush, and
// PostgreSQL checks it before it shows or takes a row. A statement that forgets its WHERE
// touches the tenant's own rows only; without a tenant there is an error, never an empty
// result. SQL text is constant; see [Stmt].
//
//	var notes = tenantdb.Stmt(`SELECT id, title FROM app.note ORDER BY created_at DESC LIMIT $1`)
//
//	rows, err := db.Query(ctx, notes, 50)
//
// Start at [Open], then [DB.Query] and [DB.Exec] for one statement, [DB.Tx] for several.
// The database is prepared by package cell; tests find one in package dbtest. The package
// is not for tables without tenants, nor for a service's own control database.
//
// # Errors
//
// What stands between a call and its tenant is a [fault.Error] with a stable reason, ready
// to be returned from a handler; it also matches one of the Err variables with errors.Is.
// Errors of the SQL itself, such as a unique key's, are returned as pgx returns them,
// except the one for a row of another tenant, which is [ErrForeignRow].
package tenantdb
