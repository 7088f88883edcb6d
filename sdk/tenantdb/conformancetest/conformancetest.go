// Package conformancetest is what package tenantdb promises, as one suite for every way in
// which a tenant's rows can be kept and reached: each model of isolation, each rung, direct
// or through a pooler.
//
// It is for tests of sdk/tenantdb and of what stands between it and PostgreSQL. It is not
// where attacks are (sdk/tenanttest) and measures nothing. Start at [Run].
package conformancetest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
)

// Run runs the suite as subtests, one after the other, on one database, which open makes
// with dbtest.New. open must pass the options on, behind its own if it has any: Model and
// Rung say what is tested, Configure may put a pooler in between. Tests may run it in
// parallel with others. without names the subtests that what stands in between cannot pass.
//
//	dbtest.EachHome(t, func(t *testing.T, options ...dbtest.Option) {
//		conformancetest.Run(t, func(t *testing.T, own ...dbtest.Option) *dbtest.Database {
//			return dbtest.New(t, append(options, own...)...)
//		})
//	})
func Run(t *testing.T, open func(t *testing.T, options ...dbtest.Option) *dbtest.Database, without ...string) {
	t.Helper()
	s := &subject{open(t, dbtest.Migrations(migrations()))}
	for _, c := range cases() {
		if slices.Contains(without, c.name) {
			continue
		}
		s.reset(t)
		if !t.Run(c.name, func(t *testing.T) { c.run(t, s) }) && t.Failed() && c.fatal {
			return
		}
	}
}

type conformance struct {
	name  string
	run   func(*testing.T, *subject)
	fatal bool // the others would only fail in the same way
}

func cases() []conformance {
	return []conformance{
		{name: "rows are the tenant's", run: ownRows, fatal: true},
		{name: "no tenant is an error", run: noTenant},
		{name: "foreign rows are refused", run: foreignRows},
		{name: "keys are per tenant", run: keysPerTenant},
		{name: "conflicts are within the tenant", run: conflicts},
		{name: "what migrations made is the tenant's", run: madeByMigrations},
		{name: "values come back", run: valuesComeBack},
		{name: "many rows are inserted", run: manyRows},
		{name: "rows and errors", run: rowsAndErrors},
		{name: "a transaction is all or nothing", run: allOrNothing},
		{name: "a panic rolls back", run: panicRollsBack},
		{name: "a cancelled statement rolls back", run: cancelRollsBack},
		{name: "a read cannot write", run: readCannotWrite},
		{name: "a batch is one transaction", run: batchIsOne},
		{name: "misuse is refused", run: misuse},
		{name: "serialization failures are tried again", run: retries},
		{name: "seals and times are checked", run: sealsAndTimes},
		{name: "the placement is obeyed", run: placementObeyed},
		{name: "a fence is waited for", run: fence},
		{name: "plans bound time", run: planTimeouts},
		{name: "a migration changes tables under prepared statements", run: migrationUnderStatements},
	}
}

// migrations are the app's: notes with tags, and one of each thing that DDL makes.
func migrations() fstest.MapFS {
	return fstest.MapFS{"0001_notes.sql": {Data: []byte(notesDDL)}, "0002_things.sql": {Data: []byte(thingsDDL)}}
}

const notesDDL = `
CREATE TABLE app.note (
	tenant_id uuid NOT NULL DEFAULT rowhouse.tenant_id(),
	id        int  NOT NULL,
	title     text NOT NULL,
	PRIMARY KEY (tenant_id, id),
	UNIQUE (tenant_id, title)
);
CREATE TABLE app.tag (
	tenant_id uuid NOT NULL DEFAULT rowhouse.tenant_id(),
	note_id   int  NOT NULL,
	tag       text NOT NULL,
	PRIMARY KEY (tenant_id, note_id, tag),
	FOREIGN KEY (tenant_id, note_id) REFERENCES app.note (tenant_id, id) ON DELETE CASCADE
);
SELECT rowhouse.secure('app.note');
`

const thingsDDL = `
CREATE TABLE app.thing (
	tenant_id uuid NOT NULL DEFAULT rowhouse.tenant_id(), id int NOT NULL,
	words text[], numbers bigint[], doc jsonb, key uuid, made timestamptz, day date, raw bytea, price numeric(12,3),
	real float8, yes boolean, nothing text, host inet,
	PRIMARY KEY (tenant_id, id)
);
CREATE TABLE app.import (
	tenant_id uuid NOT NULL DEFAULT rowhouse.tenant_id(), id int NOT NULL, words text[], doc jsonb, nothing text, PRIMARY KEY (tenant_id, id)
);
CREATE TABLE app.event (tenant_id uuid NOT NULL DEFAULT rowhouse.tenant_id(), id int NOT NULL, note text, PRIMARY KEY (tenant_id, id))
	PARTITION BY HASH (tenant_id);
DO $$
BEGIN
	FOR i IN 0..1 LOOP
		EXECUTE format('CREATE TABLE app.event_%s PARTITION OF app.event FOR VALUES WITH (MODULUS 2, REMAINDER %s)', i, i);
	END LOOP;
END
$$;
CREATE TABLE app.currency (code text PRIMARY KEY);
COMMENT ON TABLE app.currency IS 'tenancy:global currencies';
GRANT SELECT ON app.currency TO rowhouse_app;
INSERT INTO app.currency VALUES ('app.currency');
CREATE VIEW app.titles WITH (security_invoker = true) AS SELECT title FROM app.note;
GRANT SELECT ON app.titles TO rowhouse_app;
CREATE FUNCTION app.longest() RETURNS int LANGUAGE sql STABLE AS $$ SELECT max(length(title)) FROM app.note $$;
GRANT EXECUTE ON FUNCTION app.longest() TO rowhouse_app;
CREATE FUNCTION app.log() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, app AS $$
BEGIN
	INSERT INTO app.event (id, note) VALUES (NEW.id, TG_TABLE_NAME) ON CONFLICT DO NOTHING;
	RETURN NEW;
END
$$;
GRANT EXECUTE ON FUNCTION app.log() TO rowhouse_app;
CREATE TRIGGER log AFTER INSERT ON app.thing FOR EACH ROW EXECUTE FUNCTION app.log();
`

// The statements of the suite; an app's would be such variables, too.
//
//nolint:gochecknoglobals // statements are constants
var (
	addNote    = tenantdb.Stmt(`INSERT INTO app.note (id, title) VALUES ($1, $2)`)
	addTag     = tenantdb.Stmt(`INSERT INTO app.tag (note_id, tag) VALUES ($1, $2)`)
	getNote    = tenantdb.Stmt(`SELECT title FROM app.note WHERE id = $1`)
	allNotes   = tenantdb.Stmt(`SELECT title FROM app.note ORDER BY title`)
	countNotes = tenantdb.Stmt(`SELECT count(*) FROM app.note`)
	dropNote   = tenantdb.Stmt(`DELETE FROM app.note WHERE id = $1`)
	dropNotes  = tenantdb.Stmt(`DELETE FROM app.note`)
	dropThings = tenantdb.Stmt(`DELETE FROM app.thing`)
	dropEvents = tenantdb.Stmt(`DELETE FROM app.event`)
	renameAll  = tenantdb.Stmt(`UPDATE app.note SET title = title || '!'`)
	sleep      = tenantdb.Stmt(`SELECT pg_sleep(30)::text`)
)

// subject is a database under test. Its tenants are acme, with notes 1 and 2, and globex, with note 1.
type subject struct{ *dbtest.Database }

// reset gives the tenants the rows and the placement with which each case begins.
func (s *subject) reset(t *testing.T) {
	t.Helper()
	for id, notes := range map[string][]string{"acme": {"acme one", "acme two"}, "globex": {"globex one"}} {
		s.Unplace(t, id)
		s.Place(t, id)
		var b tenantdb.Batch
		b.Exec(dropNotes) // and their tags
		b.Exec(dropThings)
		b.Exec(dropEvents)
		for i, title := range notes {
			b.Exec(addNote, i+1, title)
		}
		if err := s.DB.Batch(s.In(t, id), &b); err != nil {
			t.Fatalf("reset %s: %v", id, err)
		}
	}
}

func titles(ctx context.Context, db *tenantdb.DB) ([]string, error) {
	rows, err := db.Query(ctx, allNotes)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

func wantTitles(ctx context.Context, t *testing.T, db *tenantdb.DB, want ...string) {
	t.Helper()
	got, err := titles(ctx, db)
	if err != nil {
		t.Error(err)
		return
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("titles (-want +got):\n%s", diff)
	}
}

func count(ctx context.Context, t *testing.T, db *tenantdb.DB) (n int) {
	t.Helper()
	if err := db.QueryRow(ctx, countNotes).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func wantRefusal(t *testing.T, err, sentinel error, kind fault.Kind, reason string) {
	t.Helper()
	if !errors.Is(err, sentinel) || fault.KindOf(err) != kind || fault.ReasonOf(err) != reason {
		t.Errorf("error %v (%s %s), want %v, %s %s", err, fault.KindOf(err), fault.ReasonOf(err), sentinel, kind, reason)
	}
}

func state(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code
	}
	return ""
}
