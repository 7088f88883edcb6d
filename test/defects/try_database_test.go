package defects

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/catalog"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/sqlattack"
)

// unsafe says that a home could not be migrated, for the audit of its migrations cried.
const unsafe = "unsafe"

func databases() []database { return slices.Concat(tables(), rights(), seals()) }

// sample are the rows that every run tries, one of each kind.
func sample() []string {
	return []string{"RESTRICTIVE", "no prepared statements of the session", "MAC, quick"}
}

// Without any one of the defences in PostgreSQL an attack or a rule of the audit cries.
func TestDatabaseDefects(t *testing.T) {
	t.Parallel()
	var rows []string
	for _, d := range databases() {
		if !long() && !slices.Contains(sample(), d.defence) {
			continue
		}
		cried := false
		t.Run(d.defence, func(t *testing.T) {
			red := d.try(t)
			rows = append(rows, fmt.Sprintf("%-40s %s", d.defence, strings.Join(red, " ")))
			if cried = slices.Contains(red, d.red); !cried {
				t.Errorf("%s does not cry; what does: %v", d.red, red)
			}
		})
	}
	t.Logf("%d defences taken away\n%s", len(rows), strings.Join(rows, "\n"))
}

// try takes the defence away and returns what cries.
func (d *database) try(t *testing.T) []string {
	t.Helper()
	db := dbtest.New(t, dbtest.Rung(cmp.Or(d.rung, cell.L2b)), dbtest.Migrations(sqlattack.Migrations()))
	before := audit(t, db)
	if err := d.take(t, db); err != nil {
		t.Fatal(err)
	}
	if d.undo != "" {
		defer func() {
			if _, err := db.Admin.Exec(t.Context(), d.undo); err != nil {
				t.Error(err)
			}
		}()
	}
	red := slices.DeleteFunc(audit(t, db), func(rule string) bool { return slices.Contains(before, rule) })
	report, err := sqlattack.Run(t.Context(), sqlattack.Target{
		Admin: db.Admin.Config().ConnString(), Login: db.Config.Cells[tenanttest.Cell].DSN, App: dbtest.App,
		Key:    cell.Key{ID: tenanttest.SealKID, Cell: tenanttest.CellNumber, Secret: db.SealKey(), NotAfter: time.Now().Add(time.Hour)},
		Models: []tenant.Model{cmp.Or(d.model, tenant.ModelShared)},
	})
	switch {
	case errors.Is(err, cell.ErrUnsafe):
		red = append(red, unsafe)
	case err != nil:
		red = append(red, "corpus: "+err.Error())
	}
	for _, f := range report.Failures() {
		red = append(red, f.Attack)
	}
	return red
}

// take takes the defence away.
func (d *database) take(t *testing.T, db *dbtest.Database) error {
	t.Helper()
	return pgx.BeginFunc(t.Context(), db.Admin, func(tx pgx.Tx) error {
		if err := d.edit(t, tx); err != nil || d.sql == "" {
			return err
		}
		_, err := tx.Exec(t.Context(), d.sql, pgx.QueryExecModeSimpleProtocol)
		return err
	})
}

// edit changes functions. Text that is not there, or not once, is an error: the function changed
// since the row was written.
func (d *database) edit(t *testing.T, tx pgx.Tx) error {
	t.Helper()
	for _, e := range d.edits {
		var text string
		if err := tx.QueryRow(t.Context(), "SELECT pg_get_functiondef($1::text::regprocedure)", e.function).Scan(&text); err != nil {
			return err
		}
		if n := strings.Count(text, e.from); n != 1 {
			return fmt.Errorf("%s: %q is there %d times, want once, in\n%s", e.function, e.from, n, text)
		}
		if _, err := tx.Exec(t.Context(), strings.Replace(text, e.from, e.to, 1)); err != nil {
			return fmt.Errorf("%s: %w", e.function, err)
		}
	}
	return nil
}

// audit returns the rules of the catalog audit that cry with an error.
func audit(t *testing.T, db *dbtest.Database) []string {
	t.Helper()
	report, err := cell.Audit(t.Context(), db.Admin, catalog.Config{})
	if err != nil {
		t.Fatal(err)
	}
	rules := map[string]bool{}
	for _, f := range report.Errors() {
		rules[f.Rule] = true
	}
	return slices.Sorted(maps.Keys(rules))
}

// Every row can be tried: its functions have the text that it takes away, its SQL runs, and the
// check that is to cry exists.
func TestRowsFit(t *testing.T) {
	t.Parallel()
	databasesOf := map[cell.Rung]*dbtest.Database{}
	for _, rung := range []cell.Rung{cell.L2a, cell.L2b} {
		databasesOf[rung] = dbtest.New(t, dbtest.Rung(rung), dbtest.Migrations(sqlattack.Migrations()))
	}
	known := map[string]bool{unsafe: true}
	for _, a := range sqlattack.Attacks() {
		known[a.ID] = true
	}
	for _, r := range catalog.Rules() {
		known[r.ID] = true
	}
	seen := map[string]bool{}
	for _, d := range databases() {
		tx, err := databasesOf[cmp.Or(d.rung, cell.L2b)].Admin.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := d.edit(t, tx); err != nil {
			t.Errorf("%s: %v", d.defence, err)
		}
		_ = tx.Rollback(t.Context())
		if !known[d.red] || seen[d.defence] || d.sql == "" && d.edits == nil {
			t.Errorf("row %q: there is no check %q, or the row is there twice, or takes nothing", d.defence, d.red)
		}
		seen[d.defence] = true
	}
}
