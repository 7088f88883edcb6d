package cells_test

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/cells"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/worker"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const goodTable = `CREATE TABLE app.note (tenant_id uuid NOT NULL DEFAULT rowhouse.tenant_id(), id uuid NOT NULL, PRIMARY KEY (tenant_id, id))`

// bench is a cell with the database of one app.
type bench struct {
	t     *testing.T
	cells *cells.Databases
	super *pgx.Conn // in the app's database
	app   string
}

// newBench makes the app's database, empty where it is not to be prepared.
func newBench(t *testing.T, prepare bool) *bench {
	t.Helper()
	random := make([]byte, 6)
	_, _ = rand.Read(random) // never fails
	b := &bench{t: t, app: "cells-" + hex.EncodeToString(random)}
	database, _ := cell.Place(b.app, tenant.ModelShared, tenant.UID{})
	source := pgtest.New(t, pgtest.Template{Name: "empty", Hash: "1", Setup: func(context.Context, string) error { return nil }})
	admin := source.Pool(t, "postgres")
	_, err := admin.Exec(t.Context(), "CREATE DATABASE "+database)
	b.must(err)
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		rows, err := admin.Query(ctx, "SELECT datname FROM pg_database WHERE starts_with(datname, $1)", database)
		b.must(err)
		names, err := pgx.CollectRows(rows, pgx.RowTo[string])
		b.must(err)
		for _, name := range names {
			_, err := admin.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)")
			b.must(err)
		}
		for _, role := range []string{cell.AppRole(b.app), cell.MigratorRole(b.app), cell.OwnerRole(b.app)} {
			_, err := admin.Exec(ctx, "DROP ROLE IF EXISTS "+role)
			b.must(err)
		}
	})
	dsn := strings.ReplaceAll(source.DSN("postgres"), source.Name(), database)
	b.super, err = pgx.Connect(t.Context(), dsn)
	b.must(err)
	t.Cleanup(func() { _ = b.super.Close(context.WithoutCancel(t.Context())) })
	if prepare {
		b.must(cell.Init(t.Context(), b.super, cell.Config{App: b.app}))
	}
	b.cells = open(t, dsn)
	return b
}

// open returns access to a cell, "x".
func open(t *testing.T, dsn string) *cells.Databases {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "x"), []byte(dsn), 0o600); err != nil {
		t.Fatal(err)
	}
	databases, err := cells.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(databases.Close)
	return databases
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) home(model tenant.Model) store.Home {
	h := store.Home{App: b.app, Model: model, Cell: "cell-1", CredentialsRef: "secret://file/x"}
	_, _ = rand.Read(h.UID[:]) // never fails
	h.UID[6], h.UID[8] = 0x70, 0x80
	return h
}

func (b *bench) place(h store.Home) error {
	return b.cells.Place(b.t.Context(), store.Debt{
		UID: h.UID, App: h.App, Model: h.Model, Cell: h.Cell, CredentialsRef: h.CredentialsRef, State: registry.StateActive, Generation: 1, Revision: 1,
	})
}

func (b *bench) make(h store.Home) error {
	return b.cells.Make(b.t.Context(), h, func(context.Context) error { return nil })
}

func (b *bench) migrate(h store.Home, all ...string) error {
	migrations := []registry.Migration{registry.NewMigration("0001_notes", goodTable)}
	for _, sql := range all {
		migrations = append(migrations, registry.NewMigration("0002_more", sql))
	}
	return b.cells.Migrate(b.t.Context(), h, migrations)
}

// is says which of the two errors that are told apart an error is.
func is(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, worker.ErrNoDatabase):
		return "no database"
	case errors.Is(err, worker.ErrNoHome):
		return "no home"
	}
	return "error"
}

// TestWhatIsMissing holds that an app's database that is not there or not prepared, a tenant's that is not there, and one that
// is broken are told apart.
func TestWhatIsMissing(t *testing.T) {
	t.Parallel()
	check := func(t *testing.T, b *bench, place, made, migrate string) {
		t.Helper()
		for _, model := range []tenant.Model{tenant.ModelSchema, tenant.ModelDatabase} {
			h := b.home(model)
			want := place
			if model == tenant.ModelDatabase {
				want = "no home"
			}
			if got := is(b.place(h)); got != want {
				t.Errorf("%s: placing: %q, want %q", model, got, want)
			}
			if got := is(b.migrate(h)); got != migrate {
				t.Errorf("%s: migrating: %q, want %q", model, got, migrate)
			}
			if got := is(b.make(h)); got != made {
				t.Errorf("%s: making: %q, want %q", model, got, made)
			}
			if got := is(b.cells.Drop(t.Context(), h)); (got == "") != (made != "error") {
				t.Errorf("%s: dropping: %q", model, got)
			}
		}
	}
	t.Run("not prepared", func(t *testing.T) {
		t.Parallel()
		b := newBench(t, false)
		check(t, b, "no database", "no database", "no database")
		b.app += "-none"
		check(t, b, "no database", "no database", "no database")
	})
	t.Run("an orphan", func(t *testing.T) {
		t.Parallel()
		b := newBench(t, false)
		h := b.home(tenant.ModelDatabase)
		_, err := b.super.Exec(t.Context(), "CREATE DATABASE "+cell.DatabaseName(b.app, h.UID))
		b.must(err)
		if err := b.cells.Drop(t.Context(), h); fault.ReasonOf(err) != registry.ReasonCellUnreachable {
			t.Errorf("dropping a database whose app has none: %v", err)
		}
	})
	t.Run("prepared", func(t *testing.T) {
		t.Parallel()
		b := newBench(t, true)
		check(t, b, "", "", "no home")
		lost := b.home(tenant.ModelDatabase)
		b.must(errors.Join(b.make(lost), b.migrate(lost), b.place(lost)))
		_, err := b.super.Exec(t.Context(), "DROP DATABASE "+cell.DatabaseName(b.app, lost.UID))
		b.must(err)
		lost.Ready = true
		if got := is(b.place(lost)) + ", " + is(b.migrate(lost)); got != "no home, no home" {
			t.Errorf("a database that was dropped: %s", got)
		}
		_, err = b.super.Exec(t.Context(), `ALTER TABLE rowhouse.placement RENAME TO elsewhere`)
		b.must(err)
		if got := is(b.place(b.home(tenant.ModelSchema))); got != "error" {
			t.Errorf("a broken database: %q", got)
		}
	})
}

// TestOthersInTheWay holds that whoever waits for another at a home gives up in time, and that neither a home nor a migration
// is to blame for it.
func TestOthersInTheWay(t *testing.T) {
	t.Parallel()
	b := newBench(t, true)
	ctx := t.Context()
	h := b.home(tenant.ModelSchema)
	b.must(errors.Join(b.make(h), b.migrate(h)))
	tx, err := b.super.Begin(ctx)
	b.must(err)
	_, err = tx.Exec(ctx, "LOCK TABLE "+cell.SchemaName(h.UID)+".note")
	b.must(err)
	_, err = tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1::int, $2::int)", 0x5274, int32(binary.BigEndian.Uint32(h.UID[12:])))
	b.must(err)
	var all sync.WaitGroup
	for what, try := range map[string]func() error{
		"making":    func() error { return b.make(h) },
		"dropping":  func() error { return b.cells.Drop(ctx, h) },
		"migrating": func() error { return b.migrate(h, `ALTER TABLE app.note ADD more text`) },
	} {
		all.Go(func() {
			err := try()
			if fault.KindOf(err) != fault.Unavailable || fault.ReasonOf(err) != registry.ReasonCellUnreachable ||
				!strings.Contains(err.Error(), "55P03") {
				t.Errorf("%s: %v", what, err)
			}
		})
	}
	all.Wait()
	b.must(tx.Rollback(ctx))
	b.must(errors.Join(b.make(h), b.migrate(h, `ALTER TABLE app.note ADD more text`)))
}

// TestOnlyWhoRegistersReadsWords has migrations put a row's value where they can: who reads placements learns the version, the
// SQLSTATE and the line, who registers also the words.
func TestOnlyWhoRegistersReadsWords(t *testing.T) {
	t.Parallel()
	b := newBench(t, true)
	h := b.home(tenant.ModelSchema)
	b.must(errors.Join(b.make(h), b.migrate(h)))
	h.Version = "0001_notes"
	for sql, want := range map[string]string{
		"DO $$BEGIN\nRAISE EXCEPTION 'script 0002_more: line 7: secret' USING ERRCODE = '42000'; END$$": "migration 0002_more fails: SQLSTATE 42000",
		"DO $$BEGIN RAISE EXCEPTION 'secret' USING ERRCODE = '55P03'; END$$":                            "others were in the way of migration 0002_more: SQLSTATE 55P03",
		"SELECT 1;\nSELECT secret": "migration 0002_more fails: SQLSTATE 42703 at line 2",
		"CREATE TABLE app.secret (); GRANT SELECT ON app.secret TO rowhouse_app": "migration 0002_more fails: " + cell.ErrUnsafe.Error(),
	} {
		told, ok := fault.As(b.migrate(h, sql))
		if !ok || told.Message != want {
			t.Errorf("of a home, %s: %+v, want %q", sql, told, want)
		}
		more := registry.NewMigration("0002_more", sql)
		told, ok = fault.As(b.cells.Try(t.Context(), h.CredentialsRef, b.app, []registry.Migration{registry.NewMigration("0001_notes", goodTable), more}))
		if !ok || !strings.HasPrefix(told.Message, want) || !strings.Contains(told.Message, "secret") {
			t.Errorf("of a trial, %s: %+v, want %q and words", sql, told, want)
		}
	}
}

// TestTrialsHoldUpNoHomes has more trials that do not end than a cell takes of anything: homes are made and migrated beside
// them, one more trial does not get its turn, and none of them counts as a failure of what it tried.
func TestTrialsHoldUpNoHomes(t *testing.T) {
	t.Parallel()
	b := newBench(t, true)
	b.cells.TrialTime = time.Minute
	ctx, end := context.WithTimeout(t.Context(), 30*time.Second) // below a trial's
	defer end()
	sleeper := []registry.Migration{registry.NewMigration("0001_sleeper", "SELECT pg_sleep(600)")}
	h := b.home(tenant.ModelSchema)
	try := func(ctx context.Context, said string) {
		err := b.cells.Try(ctx, h.CredentialsRef, b.app, sleeper)
		if fault.ReasonOf(err) != registry.ReasonMigrationsUntried || !strings.Contains(err.Error(), said) {
			t.Errorf("a trial whose time is over: %v, want %q", err, said)
		}
	}
	var all sync.WaitGroup
	defer all.Wait()
	trials, stop := context.WithCancel(ctx)
	defer stop()
	for range 20 {
		all.Go(func() { try(trials, "its time was over") })
	}
	for asleep := 0; asleep < 2; {
		b.must(b.super.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'`).
			Scan(&asleep))
	}
	err := b.cells.Make(ctx, h, func(context.Context) error { return nil })
	b.must(errors.Join(err, b.cells.Migrate(ctx, h, []registry.Migration{registry.NewMigration("0001_notes", goodTable)})))
	late, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	try(late, "before the first one began")
}

// TestConnectionsAreCounted fills a cell that accepts connections and then says nothing with calls: another one waits, work on
// a home does not. A round that took nearly as long as the calls last says nothing, and is repeated.
func TestConnectionsAreCounted(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	b := &bench{t: t, app: "notes", cells: open(t, "postgres://u:p@"+listener.Addr().String()+"/x?sslmode=disable")}
	for range 10 {
		began := time.Now()
		err := b.oneCallMore(listener)
		if time.Since(began) > 4*time.Second {
			continue
		}
		if !errors.Is(err, worker.ErrBusy) {
			t.Errorf("one call more: %v", err)
		}
		return
	}
	t.Error("the machine is too busy")
}

// oneCallMore fills the cell with calls and returns what comes of another one. Work on a home begins beside them.
func (b *bench) oneCallMore(listener net.Listener) error {
	b.t.Helper()
	const calls = 16
	var all sync.WaitGroup
	var there []net.Conn
	accept := func() {
		b.t.Helper()
		conn, err := listener.Accept()
		b.must(err)
		there = append(there, conn)
	}
	for range calls {
		all.Go(func() { _ = b.place(b.home(tenant.ModelDatabase)) })
		accept()
	}
	ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Millisecond)
	defer cancel()
	h := b.home(tenant.ModelDatabase)
	err := b.cells.Place(ctx, store.Debt{UID: h.UID, App: h.App, Model: h.Model, CredentialsRef: h.CredentialsRef})
	all.Go(func() { _ = b.make(h) })
	accept()
	for _, conn := range there {
		_ = conn.Close()
	}
	all.Wait()
	return err
}
