package catalog_test

import (
	"context"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/catalog"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
)

// A test of an app's migrations may audit what they made; package cell knows the rest.
func Example() {
	check := func(ctx context.Context, conn *pgx.Conn) error {
		report, err := cell.Audit(ctx, conn, catalog.Config{Accept: []string{"R40"}})
		if err != nil {
			return err
		}
		if found := report.Errors(); len(found) > 0 {
			return fmt.Errorf("%d errors, the first: %s", len(found), found[0])
		}
		return report.WriteText(os.Stdout)
	}
	_ = check
	// Output:
}
