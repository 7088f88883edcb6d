package system

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
)

var everything = tenantdb.Stmt(`SELECT title FROM app.note`)

// The example app forgets every WHERE tenant_id, on purpose: what its tests show about
// isolation is PostgreSQL's work.
func TestAppNamesNoTenantInSQL(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join("..", "..", "examples", "notes", "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	statement := regexp.MustCompile("(?s)tenantdb\\.Stmt\\(`([^`]*)`\\)")
	found := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range statement.FindAllStringSubmatch(string(text), -1) {
			found++
			// A key may name the column; a condition may not.
			sql := regexp.MustCompile(`ON CONFLICT \(tenant_id(, \w+)*\)`).ReplaceAllString(m[1], "")
			if strings.Contains(sql, "tenant") {
				t.Errorf("%s: a statement names the tenant: %s", filepath.Base(file), m[1])
			}
		}
	}
	if found < 5 {
		t.Errorf("only %d statements were found", found)
	}
}

// Outside of a tenant's context the database answers with an error and never with an
// empty list: through the SDK, and with the app's own password too.
func TestOutsideOfATenantIsAnError(t *testing.T) {
	t.Parallel()
	h := shared(t)
	dsn, err := os.ReadFile(h.path("secrets", app+".dsn"))
	if err != nil {
		t.Fatal(err)
	}
	db, err := tenantdb.Open(t.Context(), tenantdb.Config{
		App: app, Cells: map[string]tenantdb.Cell{cellID: {DSN: strings.TrimSpace(string(dsn))}}, Clock: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Query(t.Context(), everything); fault.ReasonOf(err) != fault.ReasonContextMissing {
		t.Errorf("through the SDK: %v, want %s", err, fault.ReasonContextMissing)
	}
	if _, err := tenant.FromContext(t.Context()); fault.ReasonOf(err) != fault.ReasonContextMissing {
		t.Errorf("the reader of the context says %v", err)
	}
	conn := connect(t, h.path("secrets", app+".dsn"), app)
	for _, sql := range []string{
		`SELECT title FROM app.note`, `SELECT count(*) FROM app.note`, `INSERT INTO app.note (id, title) VALUES (gen_random_uuid(), 'x')`,
		`UPDATE app.note SET title = 'x'`, `DELETE FROM app.note`, `SELECT rowhouse.tenant_id()`,
	} {
		if tag, err := conn.Exec(t.Context(), sql); err == nil || !strings.Contains(err.Error(), "42501") {
			t.Errorf("%s: %v, %v; want SQLSTATE 42501", sql, tag, err)
		}
	}
}
