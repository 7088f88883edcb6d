package cell

import (
	"strings"
	"testing"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
)

// Rights that came after Init took the others back: of a role in a role, and of its own.
func TestCheckConfined(t *testing.T) {
	t.Parallel()
	admin := pgtest.New(t, pgtest.Template{}).Pool(t, pgserver.Superuser)
	if err := Init(t.Context(), admin, Config{App: "cell-confined"}); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ sql, want string }{
		"as it should be":  {"SELECT 1", ""},
		"role in a role":   {"CREATE ROLE cell_step; GRANT pg_monitor TO cell_step; GRANT cell_step TO rowhouse_app_cell_confined", "pg_monitor"},
		"its own strength": {"ALTER ROLE rowhouse_app_cell_confined BYPASSRLS", "rowhouse_app_cell_confined"},
	} {
		tx, err := admin.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), test.sql); err != nil {
			t.Fatal(err)
		}
		err = checkConfined(t.Context(), tx, "cell-confined")
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want a word of %q", name, err, test.want)
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
