package dbtest_test

import (
	"os"
	"slices"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/catalog"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

var words = fstest.MapFS{"0001_word.sql": {Data: []byte(
	`CREATE TABLE app.word (tenant_id uuid NOT NULL DEFAULT rowhouse.tenant_id(), word text, PRIMARY KEY (tenant_id, word))`)}}

var (
	addWord  = tenantdb.Stmt(`INSERT INTO app.word (word) VALUES ($1)`)
	allWords = tenantdb.Stmt(`SELECT word FROM app.word`)
)

// Tenants are where the option says, each sees its own row, and the catalogs of all homes are sound.
func TestEachHome(t *testing.T) {
	t.Parallel()
	dbtest.EachHome(t, func(t *testing.T, options ...dbtest.Option) {
		d := dbtest.New(t, append(options, dbtest.Migrations(words))...)
		want := d.Model("acme")
		var wg sync.WaitGroup
		for _, id := range []string{"acme", "globex", "acme"} {
			wg.Go(func() { d.Home(t, id) })
		}
		wg.Wait()
		for _, id := range []string{"acme", "globex"} {
			ctx := d.In(t, id)
			if tc, err := tenant.FromContext(ctx); err != nil || tc.Model() != want {
				t.Errorf("the context says %s, %v", tc.Model(), err)
			}
			if _, err := d.DB.Exec(ctx, addWord, id); err != nil {
				t.Fatal(err)
			}
			rows, err := d.DB.Query(ctx, allWords)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := pgx.CollectRows(rows, pgx.RowTo[string]); err != nil || !slices.Equal(got, []string{id}) {
				t.Errorf("%s reads %q, %v", id, got, err)
			}
			h := d.Home(t, id)
			admin := h.Admin(t)
			var there, shared int
			if err := admin.QueryRow(t.Context(), h.SQL(`SELECT count(*) FROM app.word`)).Scan(&there); err != nil || there == 0 {
				t.Errorf("%s has %d words at home, %v", id, there, err)
			}
			if err := d.Admin.QueryRow(t.Context(), `SELECT count(*) FROM app.word`).Scan(&shared); err != nil || (shared > 0) != (want == tenant.ModelShared) {
				t.Errorf("%d words are shared, %v", shared, err)
			}
			report, err := cell.Audit(t.Context(), admin, catalog.Config{Accept: []string{"R40"}})
			if err != nil || len(report.Errors()) > 0 {
				t.Errorf("%v, %v", report.Errors(), err)
			}
		}
		d.Migrate(t, "acme", fstest.MapFS{"0001_word.sql": words["0001_word.sql"], "0002_more.sql": {Data: []byte(`ALTER TABLE app.word ADD n int`)}})
		if _, err := d.DB.Exec(d.In(t, "acme"), tenantdb.Stmt(`UPDATE app.word SET n = 1`)); err != nil {
			t.Error(err)
		}
	})
}

// Tenants of one test may live apart.
func TestModelOfOneTenant(t *testing.T) {
	t.Parallel()
	d := dbtest.New(t, dbtest.Migrations(words))
	d.SetModel(tenant.ModelSchema, "globex")
	d.SetModel(tenant.ModelDatabase, "initech")
	for id, want := range map[string]tenant.Model{
		"acme": tenant.ModelShared, "globex": tenant.ModelSchema, "initech": tenant.ModelDatabase,
	} {
		if _, err := d.DB.Exec(d.In(t, id), addWord, id); err != nil {
			t.Errorf("%s: %v", id, err)
		}
		if h := d.Home(t, id); h.Model != want {
			t.Errorf("%s lives in %s, want %s", id, h.Model, want)
		}
	}
}
