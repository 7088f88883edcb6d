package sqlattack_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/sqlattack"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

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

func TestCorpus(t *testing.T) {
	t.Parallel()
	for _, rung := range []cell.Rung{cell.L2a, cell.L2b} {
		for _, model := range []tenant.Model{tenant.ModelShared} {
			t.Run(string(rung)+" "+model.String(), func(t *testing.T) {
				t.Parallel()
				target := target(t, rung)
				target.Models = []tenant.Model{model}
				target.Baselines = true
				report, err := sqlattack.Run(t.Context(), target)
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range report.Failures() {
					t.Errorf("%s: %s: %s", f.Attack, f.Outcome, f.Detail)
				}
				var text strings.Builder
				if err := report.WriteText(&text); err != nil {
					t.Fatal(err)
				}
				t.Log("\n" + text.String())
			})
		}
	}
}
