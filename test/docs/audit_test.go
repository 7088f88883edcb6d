package docs

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/catalog"
)

// auditPage is what docs/catalog-audit.md must be.
func auditPage() string {
	var b strings.Builder
	b.WriteString(`# The audit of a cell's database

<!-- Made of the rules in the code. Write it anew with: go test ./test/docs -run TestAuditPage -write -->

` + "`rowhouse cells audit`" + ` reads PostgreSQL's catalogs and finds what would let an app reach another tenant's rows, whatever
put it there. Any login will do. It changes nothing and reads no tenant's row.

` + "```" + `
rowhouse cells audit --dsn-file notes.dsn
rowhouse cells audit --dsn-file notes.dsn -o sarif > audit.sarif
` + "```" + `

A connection string is a secret: it comes from a file, or from ` + "`ROWHOUSE_CELL_DSN`" + `, and is no argument. Exit status: 0 no
error was found, 1 errors were found, 2 the database could not be audited. Warnings and notes do not fail. Each finding
names the object and, where one statement mends it, that statement.

| it runs | on | an error |
|---|---|---|
| at the end of ` + "`cell.Init`" + ` and ` + "`rowhouse cells init`" + ` | the area platform | fails the call, after its work is done |
| in each migration of ` + "`cell.Migrate`" + `, before its commit | the area tables, for what the migration touched | undoes the migration |
| as ` + "`rowhouse cells audit`" + `, or ` + "`cell.Audit`" + ` in Go | everything | is reported |

**Accepted risks.** ` + "`--accept R40`" + ` reports a rule's findings as accepted. On rung L2a without a superuser R20 and R21 are
accepted by themselves: PostgreSQL's own functions are not ours there, and the seal is checked again in every policy.

**Words.** A tenant table has the column tenant_id. Other tables that the app reaches say that they are for all by a comment
that begins with tenancy:global. The app is the role rowhouse_app and the logins rowhouse_app_<app> that may connect to the
database.

## Rules

| rule | severity | area | fault | what is right, and why |
|---|---|---|---|---|
`)
	for _, r := range catalog.Rules() {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", r.ID, r.Severity, r.Area, r.Title, r.Description)
	}
	b.WriteString("\n## Floors of R32\n\nThese hold for `cell.Init`, too. They are raised with each release of Rowhouse.\n\n| major | first sound release |\n|---|---|\n")
	floors := catalog.Floors()
	for _, major := range slices.Sorted(maps.Keys(floors)) {
		fmt.Fprintf(&b, "| %d | %d.%d |\n", major, major, floors[major])
	}
	b.WriteString("\n| hole | what was wrong | fixed in |\n|---|---|---|\n")
	for _, a := range catalog.Advisories() {
		var fixed []string
		for _, major := range slices.Sorted(maps.Keys(a.Fixed)) {
			fixed = append(fixed, fmt.Sprintf("%d.%d", major, a.Fixed[major]))
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", a.CVE, a.Title, strings.Join(fixed, ", "))
	}
	return b.String()
}

func TestAuditPage(t *testing.T) {
	t.Parallel()
	file, want := filepath.Join(root, "docs/catalog-audit.md"), auditPage()
	if *write {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != want {
		t.Errorf("docs/catalog-audit.md is not what the code says (%v); run go test ./test/docs -run TestAuditPage -write", err)
	}
}
