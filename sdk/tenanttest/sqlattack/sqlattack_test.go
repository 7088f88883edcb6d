package sqlattack_test

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/sqlattack"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// long asks for the baselines in all models, too.
func long() bool { return os.Getenv("ROWHOUSE_TEST_LONG") != "" }

func target(tb testing.TB, rung cell.Rung) sqlattack.Target {
	tb.Helper()
	d := dbtest.New(tb, dbtest.Rung(rung), dbtest.Migrations(sqlattack.Migrations()))
	return sqlattack.Target{
		Admin: d.Admin.Config().ConnString(),
		Login: d.Config.Cells[tenanttest.Cell].DSN,
		App:   dbtest.App,
		Key:   cell.Key{ID: tenanttest.SealKID, Cell: tenanttest.CellNumber, Secret: d.SealKey(), NotAfter: time.Now().Add(time.Hour)},
	}
}

// limits are the attacks that go through on our rungs, as docs/threat-model.md says.
func limits(model tenant.Model) map[string]bool {
	return map[string]bool{
		"free-at-own-cost": model == tenant.ModelShared, "row-counts": true, "explain-estimates": true, "lock-table": true,
	}
}

// No attack reaches another tenant on our rungs, and most of them reach it by the usual recipe.
func TestCorpus(t *testing.T) {
	t.Parallel()
	for _, rung := range []cell.Rung{cell.L2a, cell.L2b} {
		for _, model := range []tenant.Model{tenant.ModelShared, tenant.ModelSchema, tenant.ModelDatabase} {
			t.Run(string(rung)+" "+model.String(), func(t *testing.T) {
				t.Parallel()
				target := target(t, rung)
				target.Models = []tenant.Model{model}
				target.Baselines = long() || rung == cell.L2b && model == tenant.ModelShared
				report, err := sqlattack.Run(t.Context(), target)
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range report.Failures() {
					t.Errorf("%s: %s: %s", f.Attack, f.Outcome, f.Detail)
				}
				ours := 0
				for _, r := range report.Results {
					if r.Level.Ours() {
						ours++
					}
					if is := r.Outcome == sqlattack.Accepted; is && !limits(model)[r.Attack] {
						t.Errorf("%s is accepted: %s", r.Attack, r.Detail)
					} else if !is && r.Level.Ours() && limits(model)[r.Attack] {
						t.Errorf("%s ends as %s: is it a limit no more?", r.Attack, r.Outcome)
					}
				}
				if ours < 100 {
					t.Errorf("%d attacks ran, want 100 or more", ours)
				}
				for _, level := range []sqlattack.Level{sqlattack.L0, sqlattack.L1} {
					if n := report.Leaks(level, model.String()); target.Baselines && n < 10 {
						t.Errorf("%s leaks on %d attacks: they show little", level, n)
					}
				}
				var text bytes.Buffer
				if err := report.WriteText(&text); err != nil {
					t.Fatal(err)
				}
				t.Logf("\n%s", &text)
			})
		}
	}
}

// The corpus is what it says: families of enough attacks, each told apart and explained.
func TestAttacks(t *testing.T) {
	t.Parallel()
	least := map[sqlattack.Family]int{
		sqlattack.Inline: 8, sqlattack.Stacked: 8, sqlattack.Seals: 8, sqlattack.Context: 5, sqlattack.Residue: 6, sqlattack.Oracles: 7,
		sqlattack.Writes: 5, sqlattack.Objects: 8, sqlattack.Roles: 6, sqlattack.Plans: 4, sqlattack.Catalogs: 4, sqlattack.Channels: 3,
		sqlattack.Backfills: 2, sqlattack.Fences: 4, sqlattack.Homes: 8,
	}
	seen := map[string]bool{}
	count := map[sqlattack.Family]int{}
	for _, a := range sqlattack.Attacks() {
		if seen[a.ID] || a.ID == "" || a.Tries == "" || a.Vector == "" || !a.Success.Leak() {
			t.Errorf("attack %q is not unlike others, or not explained: %+v", a.ID, a)
		}
		seen[a.ID] = true
		count[a.Family]++
	}
	for _, f := range sqlattack.Families() {
		if count[f] < least[f] || least[f] == 0 {
			t.Errorf("%s: %d attacks, want %d", f, count[f], least[f])
		}
	}
}

// A report shows no secret of the target, and says where it failed.
func TestReport(t *testing.T) {
	t.Parallel()
	r := sqlattack.Report{Server: "15.18", Rung: "L2b", Results: []sqlattack.Result{
		{Attack: "always-true", Model: "SHARED", Level: sqlattack.L0, Outcome: sqlattack.Read},
		{Attack: "always-true", Model: "SHARED", Level: sqlattack.L2b, Outcome: sqlattack.Ran, Detail: "it ran"},
	}}
	var text strings.Builder
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"always-true                   READ      ran", "FAILED always-true on SHARED L2b: ran: it ran"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is not in\n%s", want, &text)
		}
	}
	if n := len(r.Failures()); n != 1 {
		t.Errorf("%d failures, want 1", n)
	}
}

// Where no superuser prepared the database, what only one can take away is an accepted risk, and
// all else holds.
func TestGuest(t *testing.T) {
	t.Parallel()
	dbtest.New(t) // makes the server's roles, as another database of it would have
	db := pgtest.New(t, pgtest.Template{})
	super := db.Pool(t, pgserver.Superuser)
	guest := "guest_" + db.Name()
	for _, sql := range []string{"CREATE ROLE " + guest + " LOGIN CREATEROLE CREATEDB", "ALTER DATABASE " + db.Name() + " OWNER TO " + guest} {
		if _, err := super.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		for _, sql := range []string{"REASSIGN OWNED BY " + guest + " TO postgres", "DROP OWNED BY " + guest, "DROP ROLE " + guest} {
			if _, err := super.Exec(ctx, sql); err != nil {
				t.Error(err)
			}
		}
	})
	conn := db.Conn(t, guest)
	key := cell.Key{ID: 7, Cell: 7, Secret: tenant.SealKey{7}, NotAfter: time.Now().Add(time.Hour)}
	err := cell.Init(t.Context(), conn, cell.Config{App: dbtest.App, Connections: 500})
	if err == nil {
		err = cell.Migrate(t.Context(), db.Conn(t, cell.MigratorRole(dbtest.App)), sqlattack.Migrations())
	}
	if err == nil {
		err = cell.InstallKey(t.Context(), conn, key)
	}
	if err != nil {
		t.Fatal(err)
	}
	target := sqlattack.Target{
		Admin: db.DSN(guest), Login: db.DSN(cell.AppRole(dbtest.App)), App: dbtest.App, Key: key, Models: []tenant.Model{tenant.ModelShared},
	}
	report, err := sqlattack.Run(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	target.Baselines = true
	if _, err := sqlattack.Run(t.Context(), target); err == nil || !strings.Contains(err.Error(), "take a superuser") {
		t.Errorf("baselines, which a guest could not drop: %v", err)
	}
	accepted := 0
	for _, r := range report.Results {
		if r.Outcome == sqlattack.Accepted {
			accepted++
		}
	}
	for _, f := range report.Failures() {
		t.Errorf("%s: %s: %s", f.Attack, f.Outcome, f.Detail)
	}
	if !report.Guest || accepted == 0 {
		t.Errorf("guest is %t, %d risks were accepted: want some", report.Guest, accepted)
	}
}

func TestTargetIsChecked(t *testing.T) {
	t.Parallel()
	if _, err := sqlattack.Run(t.Context(), sqlattack.Target{}); err == nil {
		t.Error("an empty target was attacked")
	}
}
