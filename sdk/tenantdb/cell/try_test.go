package cell_test

import (
	"errors"
	"testing"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
)

// TestTrialsJudgeAsMigrateSchema has files tried and then run for a new tenant: both take them, or both refuse them with the
// same error, for a superuser and for the app's migrator. A trial leaves nothing.
func TestTrialsJudgeAsMigrateSchema(t *testing.T) {
	t.Parallel()
	db, admin := ready(t, "")
	migrator := db.Conn(t, cell.MigratorRole(app))
	if err := migrate(t, admin, goodTable); err != nil {
		t.Fatal(err)
	}
	const left = `SELECT (SELECT count(*) FROM pg_namespace) + (SELECT count(*) FROM pg_class WHERE relnamespace = 'app'::regnamespace) + (SELECT count(*) FROM rowhouse.migration)`
	for _, test := range []struct {
		what  string
		files []string
		taken bool
	}{
		{"sound ones", []string{goodTable, `ALTER TABLE app.good ADD note text`}, true},
		// Outside the transaction that made the type a new value could not be used at once.
		{"a new value of an enum", []string{goodTable + `CREATE TYPE app.e AS ENUM ('a')`, `ALTER TYPE app.e ADD VALUE 'b'`,
			`ALTER TABLE app.good ADD e app.e DEFAULT 'b'`}, true},
		{"deferred keys", []string{goodTable + `ALTER TABLE app.good ADD up int,
			ADD FOREIGN KEY (tenant_id, up) REFERENCES app.good (tenant_id, id) DEFERRABLE INITIALLY DEFERRED`, `ALTER TABLE app.good ADD note text`}, true},
		{"settings left over", []string{goodTable, `SET statement_timeout = 1; SET search_path = app`, `SELECT rowhouse.secure('app.good')`}, true},
		{"an error like that of a new value", []string{goodTable, `DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '55P04'; END $$`}, false},
		{"no SQL", []string{goodTable, `CREATE TABEL app.x ()`}, false},
		{"no table", []string{`ALTER TABLE app.good ADD note text`}, false}, // that of the shared schema is another
		{"exposed rows", []string{goodTable, `ALTER TABLE app.good NO FORCE ROW LEVEL SECURITY`}, false},
		{"stray", []string{goodTable, `DO $$ BEGIN EXECUTE concat('ALTER TABLE ap', 'p.good ADD stray int'); END $$`}, false},
		{"a drop elsewhere", []string{goodTable, `SELECT 1`, `DO $$ BEGIN EXECUTE concat('DROP TABLE ap', 'p.good'); END $$`}, false},
		{"the end", []string{goodTable, `COMMIT`}, false},
		{"another role", []string{goodTable, `RESET SESSION AUTHORIZATION`}, false},
		{"a forged record", []string{goodTable, `DELETE FROM rowhouse.migration`}, false},
	} {
		for who, conn := range map[string]cell.Conn{"superuser": admin, "migrator": migrator} {
			var before, after int
			if err := admin.QueryRow(t.Context(), left).Scan(&before); err != nil {
				t.Fatal(err)
			}
			tried := cell.TryMigrations(t.Context(), conn, named(test.files))
			if err := admin.QueryRow(t.Context(), left).Scan(&after); err != nil || before != after {
				t.Errorf("%s by %s left something: %d, then %d, %v", test.what, who, before, after, err)
			}
			uid := newUID()
			if err := cell.CreateSchema(t.Context(), conn, uid); err != nil {
				t.Fatal(err)
			}
			ran := migrateSchema(t, conn, uid, test.files...)
			if (tried == nil) != test.taken || (ran == nil) != test.taken || state(tried) != state(ran) ||
				errors.Is(tried, cell.ErrUnsafe) != errors.Is(ran, cell.ErrUnsafe) || errors.Is(tried, cell.ErrStray) != errors.Is(ran, cell.ErrStray) {
				t.Errorf("%s by %s: tried %v, ran %v", test.what, who, tried, ran)
			}
			if failed, ok := errors.AsType[*cell.MigrationError](tried); tried != nil && (!ok || failed.Version == "") {
				t.Errorf("%s: %v names no migration", test.what, tried)
			}
		}
	}
}
