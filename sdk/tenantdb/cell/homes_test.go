package cell_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/catalog"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
)

// newUID returns a uid that no other test has: databases are the server's.
func newUID() (uid tenant.UID) {
	_, _ = rand.Read(uid[:]) // never fails
	uid[6], uid[8] = 0x70, 0x80
	return uid
}

// home makes the schema of a new tenant.
func home(t *testing.T, conn cell.Conn, files ...string) (tenant.UID, string) {
	t.Helper()
	uid := newUID()
	if err := errors.Join(cell.CreateSchema(t.Context(), conn, uid), migrateSchema(t, conn, uid, files...)); err != nil {
		t.Fatal(err)
	}
	return uid, cell.SchemaName(uid)
}

func migrateSchema(t *testing.T, conn cell.Conn, uid tenant.UID, files ...string) error {
	t.Helper()
	return cell.MigrateSchema(t.Context(), conn, uid, named(files))
}

// named are files with the names of migrations.
func named(files []string) fstest.MapFS {
	all := fstest.MapFS{}
	for i, text := range files {
		all[fmt.Sprintf("%04d_m.sql", i+1)] = &fstest.MapFile{Data: []byte(text)}
	}
	return all
}

func TestCreateSchemaRepeats(t *testing.T) {
	t.Parallel()
	db, admin := ready(t, "")
	migrator := db.Conn(t, cell.MigratorRole(app))
	uid, schema := home(t, migrator, goodTable)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if err := errors.Join(cell.CreateSchema(t.Context(), admin, uid), migrateSchema(t, admin, uid, goodTable)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	var rights string
	err := admin.QueryRow(t.Context(), "SELECT nspowner::regrole || ' ' || nspacl::text FROM pg_namespace WHERE nspname = $1", schema).Scan(&rights)
	if want := "rowhouse_owner_cell_test {rowhouse_owner_cell_test=UC/rowhouse_owner_cell_test,rowhouse_app=U/rowhouse_owner_cell_test}"; rights != want {
		t.Errorf("rights %s, want %s, %v", rights, want, err)
	}
	other := newUID()
	if _, err := admin.Exec(t.Context(), "CREATE SCHEMA "+cell.SchemaName(other)); err != nil {
		t.Fatal(err)
	}
	if err := cell.CreateSchema(t.Context(), admin, other); err == nil {
		t.Error("a schema of somebody else was taken over")
	}
	if err := migrateSchema(t, admin, newUID(), goodTable); err == nil || !strings.Contains(err.Error(), "there is no schema") {
		t.Errorf("without CreateSchema: %v", err)
	}
}

func TestMigrateSchema(t *testing.T) {
	t.Parallel()
	db, admin := ready(t, "")
	files := []string{goodTable + `
CREATE FUNCTION app.count_good() RETURNS bigint LANGUAGE sql AS $$ SELECT count(*) FROM app.good $$;
CREATE TYPE app.colour AS ENUM ('red'); CREATE DOMAIN app.natural AS int;
SELECT rowhouse.secure('app.good');`, `ALTER TABLE app.good ADD note text;`}
	if err := migrate(t, admin, files[0]); err != nil {
		t.Fatal(err)
	}
	migrator := db.Conn(t, cell.MigratorRole(app))
	uid, schema := home(t, migrator, files...)
	var columns int
	if err := admin.QueryRow(t.Context(), "SELECT count(note) FROM "+schema+".good, "+schema+".count_good()").Scan(&columns); state(err) != "42501" && err != nil {
		t.Error(err)
	}
	if err := admin.QueryRow(t.Context(), "SELECT note FROM app.good").Scan(nil); state(err) != "42703" {
		t.Errorf("the shared table was changed, too: %v", err)
	}
	// The record is of the file, not of what was made of it.
	var same bool
	err := admin.QueryRow(t.Context(), `SELECT count(DISTINCT sha256) = 1 AND count(*) = 2 FROM rowhouse.migration WHERE version = '0001_m'`).Scan(&same)
	if err != nil || !same {
		t.Errorf("the record differs from that of the shared schema, %v", err)
	}
	if err := migrateSchema(t, migrator, uid, files[0]+" "); !errors.Is(err, cell.ErrDrift) {
		t.Errorf("a changed file: %v", err)
	}
	late := fstest.MapFS{"0000_a.sql": {Data: []byte("SELECT 1")}}
	if err := cell.MigrateSchema(t.Context(), migrator, uid, late); !errors.Is(err, cell.ErrOrder) {
		t.Errorf("a file before the applied ones: %v", err)
	}
	for _, test := range []struct{ name, sql, want string }{
		{"unsafe", `ALTER TABLE app.good NO FORCE ROW LEVEL SECURITY`, "R02"},
		{"takes others' rows", `ALTER TABLE app.good DROP CONSTRAINT tenant_home`, "R41"},
		{"stray DDL", `DO $$ BEGIN PERFORM 1; EXECUTE concat('ALTER TABLE ap', 'p.good ADD stray int'); END $$`, "app.good"},
		{"stray function", `DO $$ BEGIN PERFORM 1; EXECUTE concat('CREATE FUNCTION ap', 'p.evil() RETURNS int LANGUAGE sql AS ''SELECT 1'''); END $$`, "app.evil()"},
		{"stray type", `DO $$ BEGIN EXECUTE concat('CREATE TYPE ap', 'p.mood AS ENUM ()'); EXCEPTION WHEN unique_violation THEN NULL; END $$`, "app.mood"},
		{"stray value", `DO $$ BEGIN EXECUTE concat('ALTER TYPE ap', 'p.colour ADD VALUE ''blue'''); END $$`, "app.colour"},
		{"stray name of a value", `DO $$ BEGIN EXECUTE concat('ALTER TYPE ap', 'p.colour RENAME VALUE ''red'' TO ''blue'''); END $$`, "app.colour"},
		{"stray check", `DO $$ BEGIN EXECUTE concat('ALTER DOMAIN ap', 'p.natural ADD CONSTRAINT positive CHECK (VALUE > 0)'); END $$`, "positive"},
		{"stray statistics", `DO $$ BEGIN EXECUTE concat('CREATE STATISTICS ap', 'p.both ON tenant_id, id FROM ap', 'p.good'); END $$`, "both"},
		{"stray right on a schema", `DO $$ BEGIN EXECUTE concat('GRANT CREATE ON SCHEMA ap', 'p TO rowhouse_app'); END $$`, "schema app"},
		{"stray right on a table", `DO $$ BEGIN EXECUTE concat('GRANT TRUNCATE ON ap', 'p.good TO rowhouse_app'); END $$`, "app.good"},
		{"stray right on a column", `DO $$ BEGIN EXECUTE concat('GRANT REFERENCES (id) ON ap', 'p.good TO rowhouse_app'); END $$`, "app.good"},
		{"stray right on what comes", `ALTER DEFAULT PRIVILEGES GRANT TRUNCATE ON TABLES TO rowhouse_app`, "default privileges"},
		{"stray write", `CREATE FUNCTION app.w() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
			EXECUTE concat('DELETE FROM ap', 'p.good WHERE false'); EXCEPTION WHEN OTHERS THEN NULL; END $$;
			CREATE TABLE app.other (id int); DO $$ BEGIN EXECUTE concat('CREATE TABLE ap', 'p.stray ()'); END $$`, "app.stray"},
	} {
		err := migrateSchema(t, migrator, uid, append(files, test.sql)...)
		if !errors.Is(err, cell.ErrUnsafe) && !errors.Is(err, cell.ErrStray) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want a word of %s", test.name, err, test.want)
		}
	}
	for _, sql := range []string{`CREATE TABLE ` + schema + `.x (id int)`, `DROP TABLE ` + schema + `.good CASCADE`} {
		if err = migrate(t, admin, files[0], sql); !errors.Is(err, cell.ErrStray) {
			t.Errorf("a migration of the shared schema that changes a tenant's: %v", err)
		}
	}
}

// What a migration drops is its own, or it is undone, and what it drops of what guards its tables is
// found. Dropping own things is its business.
func TestMigrationsThatDrop(t *testing.T) {
	t.Parallel()
	db, admin := ready(t, "")
	const shared = goodTable + `
CREATE TABLE app.more (tenant_id uuid, id int, PRIMARY KEY (tenant_id, id));
CREATE VIEW app.seen WITH (security_invoker) AS SELECT id FROM app.good;
CREATE FUNCTION app.one() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE TYPE app.pair AS (a int, b int);
CREATE COLLATION app.plain (locale = 'C');`
	if err := migrate(t, admin, shared, `CREATE SCHEMA spare`); err != nil {
		t.Fatal(err)
	}
	migrator := db.Conn(t, cell.MigratorRole(app))
	uid, schema := home(t, migrator, shared)
	stray := func(kind, name string) string { // the renderer does not find the name
		return `DO $$ BEGIN EXECUTE concat('DROP ` + kind + ` ap', 'p.` + name + `'); END $$`
	}
	for _, test := range []struct{ sql, want string }{
		{stray("TABLE", "more"), "app.more"},
		{stray("TABLE", "good CASCADE"), "app.good"},
		{stray("VIEW", "seen"), "app.seen"},
		{stray("FUNCTION", "one()"), "app.one"},
		{stray("TYPE", "pair"), "app.pair"},
		{stray("COLLATION", "plain"), "app.plain"},
		{`DO $$ BEGIN EXECUTE concat('DROP POLICY tenant ON ap', 'p.good'); END $$`, "app.good"},
		{`DO $$ BEGIN EXECUTE concat('ALTER TABLE ap', 'p.good DROP CONSTRAINT good_pkey'); END $$`, "app.good"},
		{`DROP SCHEMA spare`, "schema spare"},
		{stray("TABLE", "more") + `; CLOSE ALL`, "cursor"},
		{`DROP POLICY tenant ON app.good`, "R03"},
		{`DROP POLICY tenant ON app.good; DROP POLICY base ON app.good`, "R03"},
		{`ALTER TABLE app.good DROP COLUMN tenant_id CASCADE`, "R25"},
		{`ALTER TABLE app.good DROP CONSTRAINT good_pkey, ADD PRIMARY KEY (id)`, "R10"},
		{`DROP SCHEMA app CASCADE`, schema},
	} {
		err := migrateSchema(t, migrator, uid, shared, test.sql)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want a word of %s", test.sql, err, test.want)
		}
	}
	err := migrateSchema(t, migrator, uid, shared, `CREATE TABLE app.work AS SELECT 1 AS one; DROP TABLE app.work; DROP VIEW app.seen;
		ALTER TABLE app.good ALTER id TYPE bigint USING id + 1; DROP TABLE app.more; DROP FUNCTION app.one(); DROP TYPE app.pair`)
	if err != nil {
		t.Errorf("it dropped its own: %v", err)
	}
	var left int
	err = admin.QueryRow(t.Context(), `SELECT count(*) FROM pg_class WHERE oid IN ('app.good'::regclass, 'app.more'::regclass, 'app.seen'::regclass)`).Scan(&left)
	if err != nil || left != 3 {
		t.Errorf("%d of 3 tables of the shared schema are left, %v", left, err)
	}
}

// Whoever holds one tenant's schema holds up nobody else.
func TestSchemasMigrateSideBySide(t *testing.T) {
	t.Parallel()
	db, admin := ready(t, "")
	wide := db.Pool(t, pgserver.Superuser, func(c *pgxpool.Config) { c.MaxConns = 9 })
	held, heldSchema := home(t, admin, goodTable)
	more := `ALTER TABLE app.good ADD note text`
	holder, err := wide.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = holder.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := holder.Exec(t.Context(), "LOCK TABLE "+heldSchema+".good IN ACCESS SHARE MODE"); err != nil {
		t.Fatal(err)
	}
	waits := begins{make(chan struct{}, 1)}
	waiting := db.Pool(t, pgserver.Superuser, func(c *pgxpool.Config) { c.MaxConns, c.ConnConfig.Tracer = 1, waits })
	done := make(chan error, 1)
	go func() { done <- migrateSchema(t, waiting, held, goodTable, more) }()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { home(t, wide, goodTable, more) })
	}
	wg.Wait()
	if err := migrate(t, wide, goodTable, more); err != nil {
		t.Error(err)
	}
	for range 3 { // to look, to try, and, for the lock was not to be had, to try again
		select {
		case <-waits.begun:
		case err := <-done:
			t.Fatalf("it gave up: %v", err)
		}
	}
	if err := holder.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	go func() {
		for range waits.begun { // of tries to come
		}
	}()
	defer close(waits.begun)
	if err := <-done; err != nil {
		t.Errorf("after the table was free: %v", err)
	}
}

// begins is a tracer that tells of transactions.
type begins struct{ begun chan struct{} }

func (b begins) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if data.SQL == "begin" {
		select {
		case b.begun <- struct{}{}:
		case <-ctx.Done():
		}
	}
	return ctx
}
func (b begins) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// The policies let a tenant keep rows of its own anywhere; another tenant's schema refuses them.
func TestSchemaTakesItsTenantsRowsOnly(t *testing.T) {
	t.Parallel()
	for _, rung := range []cell.Rung{cell.L2a, cell.L2b} {
		db, admin := ready(t, rung)
		partitioned := goodTable + `CREATE TABLE app.p (tenant_id uuid, id int, PRIMARY KEY (tenant_id, id)) PARTITION BY HASH (tenant_id);
			CREATE TABLE app.p0 PARTITION OF app.p FOR VALUES WITH (MODULUS 1, REMAINDER 0);`
		_, own := home(t, admin, partitioned)
		_, other := home(t, admin, partitioned)
		conn := db.Conn(t, cell.AppRole(app))
		for schema, want := range map[string]string{own: "", other: "23514"} {
			for _, table := range []string{"good", "p"} {
				err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
					if err := enter(t, admin, tx, own); err != nil {
						return err
					}
					_, err := tx.Exec(t.Context(), "INSERT INTO "+schema+"."+table+" (id) VALUES (1)")
					return err
				})
				if state(err) != want {
					t.Errorf("%s: a row for %s.%s: %v, want SQLSTATE %q", rung, schema, table, err, want)
				}
			}
		}
		// Neither may a superuser's copy, as a move makes.
		_, err := admin.Exec(t.Context(), "INSERT INTO "+other+".good SELECT * FROM "+own+".good")
		if state(err) != "23514" {
			t.Errorf("%s: a copy into another tenant's schema: %v", rung, err)
		}
	}
}

// enter opens the transaction to the tenant of a schema, which it places with a key of its own.
func enter(t *testing.T, admin cell.Conn, tx pgx.Tx, schema string) error {
	t.Helper()
	uid, err := tenant.ParseUID(fmt.Sprintf("%s-%s-%s-%s-%s", schema[2:10], schema[10:14], schema[14:18], schema[18:22], schema[22:]))
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		cell.InstallKey(t.Context(), admin, cell.Key{ID: 1, Cell: 1, Secret: tenant.SealKey{1}, NotAfter: time.Now().Add(time.Hour)}),
		cell.SetPlacement(t.Context(), admin, cell.Placement{UID: uid, State: cell.Active, Generation: 1}))
	if err != nil {
		t.Fatal(err)
	}
	seal := sealFor(uid)
	_, err = tx.Exec(t.Context(), "SELECT rowhouse.enter($1)", seal[:])
	return err
}

// sealFor seals for a tenant under the key that enter installs.
func sealFor(uid tenant.UID) (seal tenant.Seal) {
	claims := tenant.Claims{TenantUID: uid, CellNumber: 1, PlacementGeneration: 1, ExpireTime: time.Now().Add(time.Minute)}
	claims = claims.WithSeal(&tenant.SealKey{1}, 1)
	body := claims.SealBody()
	copy(seal[:], body[:])
	copy(seal[len(body):], claims.DBSeal[1:])
	return seal
}

func TestDropSchema(t *testing.T) {
	t.Parallel()
	_, admin := ready(t, "")
	var many strings.Builder
	many.WriteString(goodTable)
	for i := range 60 {
		fmt.Fprintf(&many, "CREATE TABLE app.t%d (tenant_id uuid, id int, PRIMARY KEY (tenant_id, id), FOREIGN KEY (tenant_id, id) REFERENCES app.good);", i)
	}
	uid, schema := home(t, admin, many.String())
	keep, kept := home(t, admin, goodTable)
	for range 2 {
		if err := cell.DropSchema(t.Context(), admin, uid); err != nil {
			t.Fatal(err)
		}
	}
	var left int
	err := admin.QueryRow(t.Context(), "SELECT count(*) FROM pg_namespace n, rowhouse.migration m WHERE n.nspname = $1 OR m.schema = $1", schema).Scan(&left)
	if err != nil || left != 0 {
		t.Errorf("%d things are left, %v", left, err)
	}
	if err := errors.Join(cell.CreateSchema(t.Context(), admin, uid), migrateSchema(t, admin, uid, many.String())); err != nil {
		t.Errorf("made again: %v", err)
	}
	if _, err := admin.Exec(t.Context(), "SELECT FROM "+kept+".good"); err != nil {
		t.Errorf("the schema of %s: %v", keep, err)
	}
	report, err := cell.Audit(t.Context(), admin, catalog.Config{Accept: []string{"R40"}})
	if err != nil || len(report.Errors()) > 0 {
		t.Errorf("the audit found %v, %v", report.Errors(), err)
	}
}

// Two hundred tenants' schemas of 20 tables: made and migrated by eight at once, and audited in a moment, with what is
// wrong in one of them.
func TestManySchemas(t *testing.T) {
	t.Parallel()
	const workers = 8
	schemas := 10
	if os.Getenv("ROWHOUSE_TEST_LONG") != "" {
		schemas = 200
	}
	db, admin := ready(t, "")
	wide := db.Pool(t, pgserver.Superuser, func(c *pgxpool.Config) { c.MaxConns = workers })
	var tables strings.Builder
	for i := range 20 {
		fmt.Fprintf(&tables, "CREATE TABLE app.t%[1]d (tenant_id uuid, id int, at timestamptz, PRIMARY KEY (tenant_id, id)); "+
			"CREATE INDEX ON app.t%[1]d (tenant_id, at);\n", i)
	}
	uids := make([]tenant.UID, schemas)
	for i := range uids {
		uids[i] = newUID()
	}
	each := func(what string, do func(tenant.UID) error) {
		start := time.Now()
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				for i := w; i < schemas; i += workers {
					if err := do(uids[i]); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		t.Logf("%s: %v", what, time.Since(start))
	}
	const more = "ALTER TABLE app.t1 ADD a int; ALTER TABLE app.t2 ADD a int; ALTER TABLE app.t3 ADD a int"
	each("create", func(uid tenant.UID) error { return cell.CreateSchema(t.Context(), wide, uid) })
	each("20 tables", func(uid tenant.UID) error { return migrateSchema(t, wide, uid, tables.String()) })
	each("3 statements", func(uid tenant.UID) error { return migrateSchema(t, wide, uid, tables.String(), more) })
	each("nothing to do", func(uid tenant.UID) error { return migrateSchema(t, wide, uid, tables.String(), more) })
	bad := cell.SchemaName(uids[schemas/2]) + ".t7"
	if _, err := admin.Exec(t.Context(), "ALTER TABLE "+bad+" NO FORCE ROW LEVEL SECURITY"); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	report, err := cell.Audit(t.Context(), admin, catalog.Config{Accept: []string{"R40"}})
	took := time.Since(start)
	t.Logf("audit: %v", took)
	if found := report.Errors(); err != nil || len(found) != 1 || found[0].Rule != "R02" || found[0].Object != bad || took > 30*time.Second {
		t.Errorf("the audit found %v in %v, %v", found, took, err)
	}
}

func TestPlace(t *testing.T) {
	t.Parallel()
	uid := newUID()
	for model, want := range map[tenant.Model]string{
		tenant.ModelShared: "my_app.app", tenant.ModelSchema: "my_app." + cell.SchemaName(uid), tenant.ModelDatabase: cell.DatabaseName("my-app", uid) + ".app",
	} {
		if database, schema := cell.Place("my-app", model, uid); database+"."+schema != want {
			t.Errorf("%s: %s.%s, want %s", model, database, schema, want)
		}
	}
}
