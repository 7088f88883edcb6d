package tenantdb_test

import (
	"context"
	"fmt"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
)

// A handler's work: the tenant is in ctx, put there by the interceptor.
func Example() {
	handler := func(ctx context.Context, db *tenantdb.DB) error {
		rows, err := db.Query(ctx, tenantdb.Stmt(`SELECT title FROM app.note ORDER BY title`))
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var title string
			if err := rows.Scan(&title); err != nil {
				return err
			}
		}
		return rows.Err()
	}
	db, err := tenantdb.Open(context.Background(), tenantdb.Config{
		App:   "notes",
		Cells: map[string]tenantdb.Cell{"cell-1": {DSN: "host=localhost user=rowhouse_app_notes dbname=notes"}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()
	fmt.Println(fault.ReasonOf(handler(context.Background(), db))) // nobody's context
	// Output: CONTEXT_MISSING
}

// Several statements, all or nothing, run again when another transaction was in the way.
func ExampleDB_Tx() {
	move := func(ctx context.Context, db *tenantdb.DB, from, to int64) error {
		return db.Tx(ctx, func(tx *tenantdb.Tx) error {
			_, err := tx.Exec(ctx, tenantdb.Stmt(`UPDATE app.note SET folder = $2 WHERE folder = $1`), from, to)
			if err != nil {
				return err
			}
			_, err = tx.Exec(ctx, tenantdb.Stmt(`DELETE FROM app.folder WHERE id = $1`), from)
			return err
		}, tenantdb.Isolate(tenantdb.Serializable), tenantdb.Retry(3))
	}
	_ = move // call it with a handler's context
	// Output:
}
