package prove_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/internal/prove"
	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const table = `CREATE TABLE app.note (tenant_id uuid NOT NULL DEFAULT rowhouse.tenant_id(), id uuid NOT NULL, PRIMARY KEY (tenant_id, id));
SELECT rowhouse.secure('app.note')`

// prepared returns the superuser's connection to a database of a cell, and a login that may
// do nothing but connect.
func prepared(t *testing.T) (admin *pgx.Conn, reader *pgx.ConnConfig) {
	t.Helper()
	db := pgtest.New(t, pgtest.Template{})
	admin = db.Conn(t, pgserver.Superuser)
	if err := cell.Init(t.Context(), admin, cell.Config{App: "prove-reader"}); err != nil {
		t.Fatal(err)
	}
	if err := pgtest.EnsureRole(t.Context(), admin, pgtest.Role{Name: "prove_auditor"}); err != nil {
		t.Fatal(err)
	}
	run(t, admin, "SET ROLE rowhouse_owner_prove_reader; "+table+"; RESET ROLE; GRANT CONNECT ON DATABASE "+db.Name()+" TO prove_auditor")
	reader, err := pgx.ParseConfig(db.DSN("prove_auditor"))
	if err != nil {
		t.Fatal(err)
	}
	return admin, reader
}

func run(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
}

func proveDatabase(t *testing.T, config *pgx.ConnConfig) *prove.Report {
	t.Helper()
	db := &prove.Database{Name: "notes.dsn", Config: config, Repeat: func(section string) string { return "again " + section }}
	db.Audit.Accept = []string{"R40"} // a server for tests may forget
	r, err := prove.Run(t.Context(), prove.Options{Checks: prove.DatabaseChecks(prove.Only(db))})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func statuses(r *prove.Report) string {
	var all []string
	for _, s := range r.Sections {
		all = append(all, s.ID+" "+string(s.Status))
	}
	return strings.Join(all, ", ")
}

// Any login may prove a sound database; each planted fault turns the section that it belongs
// to, and the verdict, red.
func TestDatabase(t *testing.T) {
	t.Parallel()
	admin, reader := prepared(t)
	if got := statuses(proveDatabase(t, reader)); got != "rung pass, catalog pass, grants pass, versions pass" {
		t.Fatalf("a sound database: %s", got)
	}
	for name, test := range map[string]struct{ plant, mend, red, rule string }{
		"no FORCE": {
			"ALTER TABLE app.note NO FORCE ROW LEVEL SECURITY", "ALTER TABLE app.note FORCE ROW LEVEL SECURITY", "catalog", "R02",
		},
		"PUBLIC connects": {
			"GRANT TEMP ON DATABASE " + reader.Database + " TO PUBLIC", "REVOKE TEMP ON DATABASE " + reader.Database + " FROM PUBLIC", "grants", "R35",
		},
	} {
		run(t, admin, test.plant)
		r := proveDatabase(t, reader)
		run(t, admin, test.mend)
		i := slices.IndexFunc(r.Sections, func(s prove.Section) bool { return s.ID == test.red })
		if r.Verdict != prove.Fail || r.Sections[i].Status != prove.Fail {
			t.Errorf("%s: verdict %s, %s", name, r.Verdict, statuses(r))
			continue
		}
		line := r.Sections[i].Lines[0]
		if !slices.ContainsFunc(line.Findings, func(f prove.Finding) bool { return f.Rule == test.rule && f.Severity == "error" && f.Mend != "" }) {
			t.Errorf("%s: no %s in %+v", name, test.rule, line.Findings)
		}
		if line.Repeat != "again "+test.red {
			t.Errorf("%s: repeat %q", name, line.Repeat)
		}
	}
	if got := statuses(proveDatabase(t, reader)); got != "rung pass, catalog pass, grants pass, versions pass" {
		t.Errorf("mended: %s", got)
	}
}

// A database that was never set up verifies nothing, and one that cannot be reached shows nothing.
func TestDatabaseWithoutCell(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, pgtest.Template{})
	bare, err := pgx.ParseConfig(db.DSN(pgserver.Superuser))
	if err != nil {
		t.Fatal(err)
	}
	if r := proveDatabase(t, bare); r.Verdict != prove.Fail || r.Sections[0].Status != prove.Fail {
		t.Errorf("never set up: verdict %s, %s", r.Verdict, statuses(r))
	}
	gone := bare.Copy()
	gone.Database = "nowhere"
	if r := proveDatabase(t, gone); r.Verdict != prove.Incomplete || statuses(r) != "rung not_run, catalog not_run, grants not_run, versions not_run" {
		t.Errorf("nobody there: verdict %s, %s", r.Verdict, statuses(r))
	}
}

// The tables of the report say who may do what.
func TestGrantsAreListed(t *testing.T) {
	t.Parallel()
	_, reader := prepared(t)
	r := proveDatabase(t, reader)
	text := render(t, r)["report.txt"]
	for _, want := range []string{
		"rowhouse_app_prove_reader       logs in         none                 rowhouse_app",
		"app.note       tenants'  forced        DELETE, INSERT, SELECT, UPDATE      1",
		"CVE-2024-10976", "closed",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
}
