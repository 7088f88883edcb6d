package tenantdb_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
)

var importMigrations = fstest.MapFS{"0001_item.sql": {Data: []byte(`
CREATE TABLE app.item (
	tenant_id uuid NOT NULL DEFAULT rowhouse.tenant_id(), id int NOT NULL, name text, labels text[], sizes integer[], doc jsonb,
	made timestamptz, raw bytea, price numeric(10,2), PRIMARY KEY (tenant_id, id)
);`)}}

var (
	items = tenantdb.Into("app.item", "id integer", "name text", "labels text[]", "sizes integer[]", "doc jsonb",
		"made timestamptz", "raw bytea", "price numeric(10,2)")
	countItems = tenantdb.Stmt(`SELECT count(*)::int FROM app.item`)
	readItem   = tenantdb.Stmt(`SELECT name, labels, sizes, doc::text, made, raw, price::text FROM app.item WHERE id = $1`)
)

func numbered(n int, row func(i int) []any) iter.Seq[[]any] {
	return func(yield func([]any) bool) {
		for i := range n {
			if !yield(row(i)) {
				return
			}
		}
	}
}

func TestInsertRows(t *testing.T) {
	t.Parallel()
	d := dbtest.New(t, dbtest.Migrations(importMigrations))
	acme := d.In(t, "acme")
	made := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	const n = 12_345
	got, err := d.DB.InsertRows(acme, items, numbered(n, func(i int) []any {
		if i == 1 {
			return []any{i, nil, nil, nil, nil, nil, nil, nil}
		}
		return []any{i, fmt.Sprint("item ", i), []string{"a, b", `"c"`, "NULL", ""}, []int32{1, -2}, map[string]int{"n": i}, made, []byte{0, 255}, "1.50"}
	}))
	if err != nil || got != n {
		t.Fatalf("inserted %d: %v", got, err)
	}
	for who, want := range map[string]int{"acme": n, "globex": 0} {
		var count int
		if err := d.DB.QueryRow(d.In(t, who), countItems).Scan(&count); err != nil || count != want {
			t.Errorf("%s has %d items, want %d: %v", who, count, want, err)
		}
	}
	var (
		name, doc, price *string
		labels           []string
		sizes            []int32
		at               *time.Time
		raw              []byte
	)
	if err := d.DB.QueryRow(acme, readItem, 9999).Scan(&name, &labels, &sizes, &doc, &at, &raw, &price); err != nil {
		t.Fatal(err)
	}
	if *name != "item 9999" || !slices.Equal(labels, []string{"a, b", `"c"`, "NULL", ""}) || !slices.Equal(sizes, []int32{1, -2}) ||
		*doc != `{"n": 9999}` || !at.Equal(made) || string(raw) != "\x00\xff" || *price != "1.50" {
		t.Errorf("read %v %q %v %v %v %x %v", *name, labels, sizes, *doc, at, raw, *price)
	}
	if err := d.DB.QueryRow(acme, readItem, 1).Scan(&name, &labels, &sizes, &doc, &at, &raw, &price); err != nil {
		t.Fatal(err)
	}
	if name != nil || labels != nil || sizes != nil || doc != nil || at != nil || raw != nil || price != nil {
		t.Error("NULL did not stay NULL")
	}
}

func TestInsertRowsIsAllOrNothing(t *testing.T) {
	t.Parallel()
	d := dbtest.New(t, dbtest.Migrations(importMigrations))
	acme := d.In(t, "acme")
	short := tenantdb.Into("app.item", "id integer", "name text")
	foreign := tenantdb.Into("app.item", "tenant_id uuid", "id integer")
	twice := func(i int) []any { return []any{i % 6000, strings.Repeat("x", 10)} }
	if n, err := d.DB.InsertRows(acme, short, numbered(6001, twice)); !tenantdb.IsUniqueViolation(err) || n != 0 {
		t.Errorf("a key twice: %d, %v", n, err)
	}
	if _, err := d.DB.InsertRows(acme, short, numbered(6000, func(i int) []any {
		if i == 5500 {
			return []any{i}
		}
		return twice(i)
	})); !errors.Is(err, tenantdb.ErrArgument) {
		t.Errorf("a row that is too short: %v", err)
	}
	globex := d.Tenant(t, "globex").UID.String()
	if _, err := d.DB.InsertRows(acme, foreign, numbered(1, func(i int) []any { return []any{globex, i} })); !errors.Is(err, tenantdb.ErrForeignRow) {
		t.Errorf("a row of another tenant: %v", err)
	}
	ctx, cancel := context.WithCancel(acme)
	if _, err := d.DB.InsertRows(ctx, short, numbered(6000, func(i int) []any {
		if i == 5500 {
			cancel()
		}
		return twice(i)
	})); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller who left: %v", err)
	}
	var count int
	if err := d.DB.QueryRow(acme, countItems).Scan(&count); err != nil || count != 0 {
		t.Errorf("%d rows were left: %v", count, err)
	}
}

func TestInsertionsAreConstantTables(t *testing.T) {
	t.Parallel()
	d := dbtest.New(t, dbtest.Migrations(importMigrations))
	for name, into := range map[string]tenantdb.Insertion{
		"zero":          {},
		"no schema":     tenantdb.Into("item", "id int"),
		"other schema":  tenantdb.Into("rowhouse.mac_key", "kid int"),
		"no columns":    tenantdb.Into("app.item"),
		"no type":       tenantdb.Into("app.item", "id"),
		"more than one": tenantdb.Into("app.item", "id int, name text"),
		"an expression": tenantdb.Into("app.item", "id int[]) --"),
	} {
		if _, err := d.DB.InsertRows(d.In(t, "acme"), into, numbered(1, func(int) []any { return []any{1} })); !errors.Is(err, tenantdb.ErrVerb) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// On L2a the tenant's default checks the seal each time, which took most of an insertion's time.
func TestInsertRowsChecksTheSealOnceAChunk(t *testing.T) {
	t.Parallel()
	d := dbtest.New(t, dbtest.Rung(cell.L2a), dbtest.Migrations(importMigrations))
	database := pgx.Identifier{d.Admin.Config().ConnConfig.Database}.Sanitize()
	if _, err := d.Admin.Exec(t.Context(), "ALTER DATABASE "+database+" SET track_functions = 'all'"); err != nil {
		t.Fatal(err)
	}
	db := d.Open(t, d.Config)
	plain := tenantdb.Into("app.item", "id integer")
	if _, err := db.InsertRows(d.In(t, "acme"), plain, numbered(1000, func(i int) []any { return []any{i} })); err != nil {
		t.Fatal(err)
	}
	db.Close() // a backend tells its counts at its end
	var calls int
	const sql = `SELECT coalesce(sum(calls), 0)::int FROM pg_stat_user_functions WHERE schemaname = 'rowhouse' AND funcname = 'tenant_id'`
	if err := d.Admin.QueryRow(t.Context(), sql).Scan(&calls); err != nil {
		t.Fatal(err)
	}
	if calls == 0 || calls > 10 {
		t.Errorf("1000 rows took %d checks of the seal, want a few", calls)
	}
}

// Each value is what Exec makes of it.
func TestInsertRowsTakesWhatExecTakes(t *testing.T) {
	t.Parallel()
	d := dbtest.New(t, dbtest.Migrations(importMigrations))
	acme := d.In(t, "acme")
	const array = `{"a": 1}`
	doc := array
	for i, value := range []any{
		nil, (*string)(nil), []byte(nil), json.RawMessage(nil), (*map[string]int)(nil), array, &doc, []byte(array), json.RawMessage(array),
		map[string]int{"a": 1}, []int{1}, pgtype.Text{}, pgtype.Text{String: array, Valid: true}, sql.NullString{}, 7, true, "no JSON",
	} {
		_, want := d.DB.Exec(acme, tenantdb.Stmt(`INSERT INTO app.item (id, doc) VALUES ($1, $2)`), 2*i, value)
		_, err := d.DB.InsertRows(acme, tenantdb.Into("app.item", "id int", "doc jsonb"), numbered(1, func(int) []any { return []any{2*i + 1, value} }))
		if (want == nil) != (err == nil) {
			t.Errorf("%T %v: %v, but Exec: %v", value, value, err, want)
		}
		var same bool
		if err := d.DB.QueryRow(acme, tenantdb.Stmt(`SELECT count(DISTINCT coalesce(doc::text, 'NULL')) < 2 FROM app.item WHERE id / 2 = $1`), i).Scan(&same); err != nil || !same {
			t.Errorf("%T %v is not what Exec makes of it: %v", value, value, err)
		}
	}
}

func TestInsertRowsCopiesBytesAndFailsItsTransaction(t *testing.T) {
	t.Parallel()
	d := dbtest.New(t, dbtest.Migrations(importMigrations))
	acme := d.In(t, "acme")
	into := tenantdb.Into("app.item", "id int", "raw bytea")
	buffer := []byte{0}
	if _, err := d.DB.InsertRows(acme, into, numbered(3, func(i int) []any { buffer[0] = byte(i); return []any{i, buffer} })); err != nil {
		t.Fatal(err)
	}
	var distinct int
	if err := d.DB.QueryRow(acme, tenantdb.Stmt(`SELECT count(DISTINCT raw)::int FROM app.item`)).Scan(&distinct); err != nil || distinct != 3 {
		t.Errorf("a buffer used thrice left %d values, %v", distinct, err)
	}
	err := d.DB.Tx(acme, func(tx *tenantdb.Tx) error {
		if _, err := tx.Exec(acme, tenantdb.Stmt(`DELETE FROM app.item`)); err != nil {
			return err
		}
		_, _ = tx.InsertRows(acme, into, numbered(1, func(int) []any { return []any{1} }))
		return nil
	})
	if err == nil {
		t.Error("a transaction committed after a row was refused")
	}
}

// While an answer is withheld the next rows are asked for.
func TestInsertRowsCollectsWhileTheServerInserts(t *testing.T) {
	t.Parallel()
	h := &holdup{}
	d := dbtest.New(t, dbtest.Migrations(importMigrations), dbtest.Configure(oneConnection), dbtest.Configure(func(c *tenantdb.Config) {
		for name, to := range c.Cells {
			to.Dial = h.dial
			c.Cells[name] = to
		}
	}))
	acme, leave := context.WithTimeout(d.In(t, "acme"), 20*time.Second)
	defer leave()
	stop := context.AfterFunc(acme, h.open)
	into := tenantdb.Into("app.item", "id int")
	number := func(i int) []any { return []any{i} }
	if _, err := d.DB.InsertRows(acme, into, numbered(1, number)); err != nil { // prepares
		t.Fatal(err)
	}
	for from, to := range map[int]int{0: 2400, 2600: 6200} { // behind the first chunk is room for one, then for four
		err := d.DB.Tx(acme, func(tx *tenantdb.Tx) error {
			if _, err := tx.Exec(acme, tenantdb.Stmt(`DELETE FROM app.item`)); err != nil {
				return err
			}
			_, err := tx.InsertRows(acme, into, numbered(7000, func(i int) []any {
				switch {
				case i == from:
					h.close() // from here on no answer comes
				case i == to && acme.Err() == nil:
					h.open()
				}
				return number(i)
			}))
			return err
		})
		if err != nil {
			t.Errorf("rows %d to %d were not asked for before an answer: %v", from, to, err)
		}
	}
	stop()
}

// An iterator may use the transaction in which its rows go.
func TestInsertRowsFromItsOwnTransaction(t *testing.T) {
	t.Parallel()
	d := dbtest.New(t, dbtest.Migrations(importMigrations))
	acme := d.In(t, "acme")
	into := tenantdb.Into("app.item", "id int")
	const n, twice, looksAt = 12_000, 3, 5500 // behind four chunks
	insert := func(row func(tx *tenantdb.Tx, i int) int) (got int64, err error) {
		err = d.DB.Tx(acme, func(tx *tenantdb.Tx) error {
			got, err = tx.InsertRows(acme, into, numbered(n, func(i int) []any { return []any{row(tx, i)} }))
			return err
		})
		return got, err
	}
	got, err := insert(func(tx *tenantdb.Tx, i int) int {
		if i == looksAt {
			var there int
			if err := tx.QueryRow(acme, countItems).Scan(&there); err != nil || there != 5000 {
				t.Errorf("between two chunks: %d rows, %v", there, err)
			}
		}
		return i + n
	})
	if err != nil || got != n {
		t.Errorf("inserted %d: %v", got, err)
	}
	// The error of a chunk is also that of InsertRows when another call is the first to be told of it.
	got, err = insert(func(tx *tenantdb.Tx, i int) int {
		if i == looksAt {
			if err := tx.QueryRow(acme, countItems).Scan(new(int)); !tenantdb.IsUniqueViolation(err) {
				t.Errorf("behind a chunk with a key twice: %v", err)
			}
		}
		return max(i, twice)
	})
	if !tenantdb.IsUniqueViolation(err) || got != 0 {
		t.Errorf("a key twice in the first chunk: %d, %v", got, err)
	}
	// Of the chunks under way the first that fails says why: those behind it find an aborted transaction.
	for _, again := range []int{3, 1300, 2600, n - 1} {
		got, err = insert(func(_ *tenantdb.Tx, i int) int {
			if i == again {
				return n // is there already
			}
			return -i - 1
		})
		if !tenantdb.IsUniqueViolation(err) || got > int64(again) {
			t.Errorf("a key twice at row %d: %d, %v", again, got, err)
		}
	}
	var count int
	if err := d.DB.QueryRow(acme, countItems).Scan(&count); err != nil || count != n {
		t.Errorf("%d rows, %v", count, err)
	}
}

// What was inserted when the iterator panicked does not commit, also if the function hides the
// panic and goes on.
func TestInsertRowsWhoseIteratorPanics(t *testing.T) {
	t.Parallel()
	d := dbtest.New(t, dbtest.Migrations(importMigrations), dbtest.Configure(oneConnection))
	acme := d.In(t, "acme")
	number := func(i int) []any { return []any{i} }
	into := tenantdb.Into("app.item", "id int")
	for name, next := range map[string]func(*tenantdb.Tx) error{
		"nothing":   func(*tenantdb.Tx) error { return nil },
		"statement": func(tx *tenantdb.Tx) error { return tx.QueryRow(acme, countItems).Scan(new(int)) },
		"batch":     func(tx *tenantdb.Tx) error { return tx.Batch(acme, new(tenantdb.Batch)) },
		"insertion": func(tx *tenantdb.Tx) error {
			_, err := tx.InsertRows(acme, into, numbered(1, func(int) []any { return []any{-1} }))
			return err
		},
	} {
		for _, at := range []int{10, 1500, 5500} { // before anything was sent, and with one chunk and more on their way
			err := d.DB.Tx(acme, func(tx *tenantdb.Tx) error {
				func() {
					defer func() { _ = recover() }()
					_, _ = tx.InsertRows(acme, into, numbered(6000, func(i int) []any {
						if i == at {
							panic("an iterator's defect")
						}
						return number(i)
					}))
				}()
				_ = next(tx)
				return nil
			})
			if !errors.Is(err, pgx.ErrTxCommitRollback) {
				t.Errorf("%s behind a panic at row %d: Tx = %v", name, at, err)
			}
			var count int
			if err := d.DB.QueryRow(acme, countItems).Scan(&count); err != nil || count != 0 {
				t.Errorf("%s behind a panic at row %d: %d rows were left: %v", name, at, count, err)
			}
		}
	}
}
