package cell_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/catalog"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
)

// A login that may do nothing but connect finds what a superuser finds.
func TestAnyLoginAudits(t *testing.T) {
	t.Parallel()
	db, admin := ready(t, "")
	if err := migrate(t, admin, goodTable); err != nil {
		t.Fatal(err)
	}
	const nobody = "cell_auditor"
	if err := pgtest.EnsureRole(t.Context(), admin, pgtest.Role{Name: nobody}); err != nil {
		t.Fatal(err)
	}
	plant := "GRANT CONNECT ON DATABASE " + db.Name() + " TO " + nobody + "; ALTER TABLE app.good NO FORCE ROW LEVEL SECURITY;" +
		"ALTER FUNCTION rowhouse.tenant_id() VOLATILE"
	if err := locked(t.Context(), admin, plant); err != nil {
		t.Fatal(err)
	}
	want, err := cell.Audit(t.Context(), admin, catalog.Config{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := cell.Audit(t.Context(), db.Conn(t, nobody), catalog.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what a login without rights finds differs from a superuser's (-want +got):\n%s", diff)
	}
	found := map[string]bool{}
	for _, f := range got.Findings {
		found[f.Rule] = true
	}
	if !found["R02"] || !found["R06"] {
		t.Errorf("the findings are %v, want R02 and R06 among them", got.Findings)
	}
}
