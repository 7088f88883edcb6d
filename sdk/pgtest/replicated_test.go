package pgtest_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
)

func TestStandbyFollows(t *testing.T) {
	t.Parallel()
	pair := pgtest.Pair(t)
	db := pair.New(t, pgtest.Template{})
	if _, err := db.Superuser(t).Exec(t.Context(), "CREATE TABLE t AS SELECT 7 AS n"); err != nil {
		t.Fatal(err)
	}
	pair.CatchUp(t)
	var n int
	var recovering bool
	standby, err := pgx.Connect(t.Context(), pair.StandbyDSN(db, pgserver.Superuser))
	if err != nil {
		t.Fatal(err)
	}
	defer standby.Close(t.Context())
	if err := standby.QueryRow(t.Context(), "SELECT n, pg_is_in_recovery() FROM t").Scan(&n, &recovering); err != nil {
		t.Fatal(err)
	}
	if n != 7 || !recovering {
		t.Errorf("the standby has %d, recovering %t", n, recovering)
	}
}
