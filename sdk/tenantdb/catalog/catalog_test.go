package catalog_test

import (
	"context"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/catalog"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/dbtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// reference is what an app may well have: tables, keys, a partitioned table, a global one, an invoker's view.
func reference() fstest.MapFS {
	return fstest.MapFS{"0001_reference.sql": {Data: []byte(`
CREATE TABLE app.note (
	tenant_id uuid NOT NULL DEFAULT rowhouse.tenant_id(), id uuid NOT NULL, title text NOT NULL, day date, PRIMARY KEY (tenant_id, id));
CREATE INDEX note_by_day ON app.note (tenant_id, day DESC);
CREATE INDEX note_words ON app.note USING brin (day);
CREATE TABLE app.tag (tenant_id uuid, note uuid, word text, PRIMARY KEY (tenant_id, note, word),
	FOREIGN KEY (tenant_id, note) REFERENCES app.note (tenant_id, id) ON DELETE CASCADE);
CREATE TABLE app.event (tenant_id uuid, id uuid, PRIMARY KEY (tenant_id, id)) PARTITION BY HASH (tenant_id);
CREATE TABLE app.event_0 PARTITION OF app.event FOR VALUES WITH (MODULUS 1, REMAINDER 0);
CREATE TABLE app.currency (code text PRIMARY KEY);
COMMENT ON TABLE app.currency IS 'tenancy:global currencies';
GRANT SELECT ON app.currency TO rowhouse_app;
CREATE VIEW app.titles WITH (security_invoker = on) AS SELECT title FROM app.note;
GRANT SELECT ON app.titles TO rowhouse_app;
CREATE FUNCTION app.shout(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN upper($1);
GRANT EXECUTE ON FUNCTION app.shout(text) TO rowhouse_app;
`)}}
}

// asOwner makes what a migration would make.
const asOwner = "SET LOCAL ROLE rowhouse_owner_test; "

// tenantSchema is a tenant's own.
const tenantSchema = `CREATE SCHEMA t_00000000000070008000000000000001; GRANT USAGE ON SCHEMA t_00000000000070008000000000000001 TO rowhouse_app;
	CREATE TABLE t_00000000000070008000000000000001.x (tenant_id uuid PRIMARY KEY, n int);
	SELECT rowhouse.secure('t_00000000000070008000000000000001.x'); `

// fault is a planted fault and all that must be found then, and nothing else. {db} is the database's name.
type fault struct {
	sql   string
	found []string
	edit  func(*catalog.Config)
}

// faults are those that a transaction can plant, by the rule that must find them.
func faults() map[string][]fault {
	one := func(sql string, found ...string) fault { return fault{sql: sql, found: found} }
	tenant := "CREATE POLICY tenant ON app.note AS RESTRICTIVE "
	all := faultsOfReach(one)
	for rule, list := range map[string][]fault{
		"R01": {one("ALTER TABLE app.note DISABLE ROW LEVEL SECURITY", "R01 app.note"),
			one(asOwner+"CREATE TABLE app.event_1 (tenant_id uuid, id uuid, PRIMARY KEY (tenant_id, id)); SELECT rowhouse.secure('app.event_1'); "+
				"REVOKE ALL ON app.event_1 FROM rowhouse_app; ALTER TABLE app.event_1 DISABLE ROW LEVEL SECURITY", "R01 app.event_1")},
		"R02": {one("ALTER TABLE app.note NO FORCE ROW LEVEL SECURITY", "R02 app.note")},
		"R03": {
			one("DROP POLICY tenant ON app.note; DROP POLICY base ON app.note; "+
				"CREATE POLICY tenant ON app.note USING (tenant_id = (SELECT rowhouse.tenant_id()))", "R03 app.note"),
			one("DROP POLICY tenant ON app.note; "+tenant+"USING (true OR tenant_id = (SELECT rowhouse.tenant_id()))",
				"R03 app.note", "R05 app.note policy base"),
			one("DROP POLICY tenant ON app.note; "+tenant+"USING (tenant_id = coalesce((SELECT rowhouse.tenant_id()), tenant_id))",
				"R03 app.note", "R05 app.note policy base"),
			one("ALTER POLICY tenant ON app.note TO rowhouse_migrator_test", "R03 app.note", "R05 app.note policy base"),
			one("DROP POLICY tenant ON app.note; "+tenant+"FOR SELECT USING (tenant_id = (SELECT rowhouse.tenant_id()))",
				"R03 app.note", "R05 app.note policy base"),
		},
		"R04": {
			one("ALTER POLICY tenant ON app.note WITH CHECK (true)", "R04 app.note policy tenant"),
			one("DROP POLICY tenant ON app.note; "+tenant+"USING (tenant_id = (SELECT rowhouse.tenant_id()))", "R04 app.note policy tenant"),
		},
		"R05": {one("DROP POLICY tenant ON app.note", "R03 app.note", "R05 app.note policy base")},
		"R10": {
			one("CREATE UNIQUE INDEX u ON app.note (title)", "R10 app.note index app.u"),
			one("CREATE UNIQUE INDEX u ON app.note (title) INCLUDE (tenant_id)", "R10 app.note index app.u"),
			one("CREATE UNIQUE INDEX u ON app.note (id)", "note R10 app.note index app.u"),
			one("ALTER TABLE app.note ADD EXCLUDE USING btree (title WITH =)", "R10 app.note index app.note_title_excl"),
		},
		"R11": {one(asOwner+`CREATE TABLE app.x (tenant_id uuid, other uuid, id uuid, PRIMARY KEY (tenant_id, id),
			CONSTRAINT far FOREIGN KEY (other, id) REFERENCES app.note (tenant_id, id)); SELECT rowhouse.secure('app.x')`, "R11 app.x constraint far")},
		"R12": {
			one("CREATE INDEX i ON app.note (day)", "R12 app.note index app.i"),
			one("CREATE UNIQUE INDEX i ON app.note (title, tenant_id)", "R12 app.note index app.i"),
		},
		"R23": {one(asOwner+"CREATE TABLE app.x (tenant_id uuid, id int); SELECT rowhouse.secure('app.x'); "+
			"ALTER TABLE app.x REPLICA IDENTITY FULL; ALTER TABLE app.x ALTER tenant_id DROP NOT NULL", "R23 app.x")},
		"R28": {
			one("CREATE PUBLICATION b FOR TABLE app.note", "R28 publication b"),
			one("CREATE PUBLICATION b FOR ALL TABLES", "R28 publication b"),
			one("CREATE PUBLICATION b FOR TABLES IN SCHEMA app", "R28 publication b"),
			one("CREATE PUBLICATION b FOR TABLE app.note WHERE (tenant_id = '00000000-0000-7000-8000-000000000001')"),
		},
		"R29": {
			one("ALTER TABLE app.note REPLICA IDENTITY NOTHING", "R29 app.note"),
			one(asOwner+"CREATE TABLE app.x (tenant_id uuid); SELECT rowhouse.secure('app.x')", "R29 app.x"),
		},
		"R30": {
			one("ALTER TABLE app.note ADD price numeric; CREATE INDEX i ON app.note (tenant_id, price)", "R30 app.note index app.i"),
			one("ALTER TABLE app.note ADD doc jsonb; CREATE INDEX i ON app.note USING gin (doc)", "R30 app.note index app.i"),
		},
		"R33": {one("ALTER TABLE app.note ADD n bigint GENERATED ALWAYS AS IDENTITY", "R33 app.note.n")},
		"R34": {one("DROP POLICY tenant ON app.note; "+tenant+"USING (tenant_id = rowhouse.tenant_id()) WITH CHECK (tenant_id = rowhouse.tenant_id())",
			"R34 app.note policy tenant")},
		"R39": {
			one("CREATE TYPE app.color AS ENUM ('red')", "R39 app.color"),
			one("CREATE DOMAIN app.name AS text", "R39 app.name"), one("CREATE TYPE app.pair AS (a int, b int)", "R39 app.pair"),
			one("CREATE SCHEMA other; CREATE TYPE other.color AS ENUM ('red')"),
		},
		"R41": {
			one(asOwner + tenantSchema),
			one(asOwner+tenantSchema+"ALTER TABLE t_00000000000070008000000000000001.x DROP CONSTRAINT tenant_home",
				"R41 t_00000000000070008000000000000001.x"),
			one(asOwner+tenantSchema+"ALTER SCHEMA t_00000000000070008000000000000001 RENAME TO t_00000000000070008000000000000002",
				"R41 t_00000000000070008000000000000002.x"),
			one(asOwner+tenantSchema+"ALTER TABLE t_00000000000070008000000000000001.x NO FORCE ROW LEVEL SECURITY",
				"R02 t_00000000000070008000000000000001.x"),
			one(asOwner+tenantSchema+"CREATE UNIQUE INDEX ON t_00000000000070008000000000000001.x (n)",
				"R10 t_00000000000070008000000000000001.x index t_00000000000070008000000000000001.x_n_idx"),
		},
	} {
		all[rule] = append(all[rule], list...)
	}
	return all
}

// faultsOfReach are those of what the app reaches, of roles, the database and the server.
func faultsOfReach(one func(string, ...string) fault) map[string][]fault {
	return map[string][]fault{
		"R06": {
			one("ALTER FUNCTION rowhouse.tenant_id() IMMUTABLE", "R06 rowhouse.tenant_id"),
			one("ALTER FUNCTION rowhouse.tenant_id() VOLATILE", "R06 rowhouse.tenant_id"),
		},
		"R07": {
			one("ALTER ROLE rowhouse_app_test CREATEDB", "R07 role rowhouse_app_test"),
			one("ALTER ROLE rowhouse_app SUPERUSER BYPASSRLS", "R07 role rowhouse_app"),
			one("CREATE ROLE r_{db} CREATEROLE; GRANT r_{db} TO rowhouse_app_test", "R07 role r_{db}"),
		},
		"R08": {
			one("GRANT pg_read_all_data TO rowhouse_app_test", "R08 role pg_read_all_data"),
			one("CREATE ROLE r_{db}; GRANT pg_monitor TO r_{db}; GRANT r_{db} TO rowhouse_app; ALTER ROLE rowhouse_app_test NOINHERIT",
				"R08 role pg_monitor", "R08 role pg_read_all_settings", "R08 role pg_read_all_stats", "R08 role pg_stat_scan_tables"),
		},
		"R09": {
			one("ALTER TABLE app.note OWNER TO rowhouse_app", "R09 app.note"),
			one("ALTER VIEW app.titles OWNER TO postgres", "R09 app.titles"),
			one("GRANT rowhouse_owner_test TO rowhouse_app_test", "R09 role rowhouse_owner_test"),
		},
		"R13": {
			one(asOwner+"CREATE VIEW app.v AS SELECT * FROM app.note; GRANT SELECT ON app.v TO rowhouse_app", "R13 app.v"),
			one(asOwner+"CREATE VIEW app.v AS SELECT * FROM app.note; GRANT SELECT (title) ON app.v TO PUBLIC", "R13 app.v"),
			one(asOwner+"CREATE VIEW app.below AS SELECT * FROM app.note; CREATE VIEW app.v WITH (security_invoker) AS SELECT * FROM app.below; "+
				"GRANT SELECT ON app.v TO rowhouse_app", "R13 app.below"),
			one("ALTER VIEW app.titles SET (security_invoker = off)", "R13 app.titles"),
			one(asOwner + "CREATE VIEW app.v AS SELECT * FROM app.note"),
		},
		"R14": {one(asOwner+"CREATE MATERIALIZED VIEW app.m AS SELECT * FROM app.note WITH NO DATA; GRANT SELECT ON app.m TO rowhouse_app", "R14 app.m")},
		"R15": {
			one(asOwner+"CREATE FUNCTION app.f() RETURNS int LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'SELECT 1'; "+
				"GRANT EXECUTE ON FUNCTION app.f() TO rowhouse_app", "R15 app.f()"),
			one("CREATE FUNCTION public.f(app.note) RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'", "R15 public.f(app.note)"),
			{asOwner + "CREATE FUNCTION app.f() RETURNS int LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'SELECT 1'; " +
				"GRANT EXECUTE ON FUNCTION app.f() TO rowhouse_app", nil, func(c *catalog.Config) { c.Definers = []string{"app.f()"} }},
			{asOwner + "CREATE FUNCTION app.f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'; " +
				"GRANT EXECUTE ON FUNCTION app.f() TO rowhouse_app", []string{"R15 app.f()"}, func(c *catalog.Config) { c.Definers = []string{"app.f()"} }},
		},
		"R16": {
			one("GRANT SELECT ON app.event_0 TO rowhouse_app", "R16 app.event_0"),
			one(asOwner+`CREATE TABLE app.old (id uuid); COMMENT ON TABLE app.old IS 'tenancy:global'; GRANT SELECT ON app.old TO rowhouse_app;
				CREATE TABLE app.young (tenant_id uuid PRIMARY KEY) INHERITS (app.old); SELECT rowhouse.secure('app.young')`, "R16 app.old"),
		},
		"R17": {
			one("GRANT TRUNCATE, TRIGGER ON app.note TO rowhouse_app", "R17 app.note"),
			one("GRANT REFERENCES (id) ON app.note TO PUBLIC", "R17 app.note"),
		},
		"R18": {
			one("GRANT CREATE ON SCHEMA app TO rowhouse_app_test", "R18 schema app"),
			one("GRANT CREATE ON SCHEMA public TO PUBLIC", "R18 schema public"),
			one("GRANT CREATE ON DATABASE {db} TO rowhouse_app", "R18 database {db}"),
		},
		"R19": {one("GRANT TEMP ON DATABASE {db} TO rowhouse_app", "R19 database {db}")},
		"R20": {one("GRANT USAGE ON LANGUAGE plpgsql TO rowhouse_app", "R20 language plpgsql")},
		"R21": {
			one("GRANT EXECUTE ON FUNCTION set_config(text, text, bool) TO PUBLIC", "R21 set_config(text,text,boolean)"),
			one("GRANT EXECUTE ON FUNCTION pg_database_size(oid), pg_stat_get_live_tuples(oid) TO PUBLIC", "R21 counters and sizes"),
			one("GRANT EXECUTE ON FUNCTION pg_blocking_pids(int), pg_get_replication_slots() TO PUBLIC", "R21 counters and sizes"),
			one("GRANT EXECUTE ON FUNCTION pg_stat_get_backend_activity(int) TO PUBLIC", "R21 pg_stat_get_backend_activity(integer)"),
			one("GRANT EXECUTE ON FUNCTION pg_advisory_lock(bigint), lo_create(oid) TO rowhouse_app_test", "R21 lo_create(oid)", "R21 pg_advisory_lock(bigint)"),
		},
		"R22": {one("CREATE VIEW public.pg_stat_statements AS SELECT 1; GRANT SELECT ON public.pg_stat_statements TO PUBLIC", "R22 public.pg_stat_statements")},
		"R24": {one(asOwner+"CREATE SEQUENCE app.s; GRANT USAGE ON SEQUENCE app.s TO rowhouse_app", "R24 app.s")},
		"R25": {
			one(asOwner+"CREATE TABLE app.x (id int); GRANT SELECT ON app.x TO rowhouse_app", "R25 app.x"),
			one(asOwner+"CREATE TABLE app.x (id int); GRANT INSERT (id) ON app.x TO rowhouse_app", "R25 app.x"),
			one("COMMENT ON TABLE app.currency IS 'tenancy:globally'", "R25 app.currency"),
			one(asOwner+"CREATE MATERIALIZED VIEW app.m AS SELECT 1 AS one; GRANT SELECT ON app.m TO rowhouse_app", "R25 app.m"),
		},
		"R26": {
			one("ALTER ROLE rowhouse_app_test SET row_security = off", "R26 role rowhouse_app_test setting row_security"),
			one("ALTER DATABASE {db} SET search_path = public", "R26 database {db} setting search_path"),
			one("ALTER ROLE rowhouse_app_test IN DATABASE {db} SET rowhouse.seal = 'x'", "R26 role rowhouse_app_test in database {db} setting rowhouse.seal"),
			one("ALTER ROLE rowhouse_owner_test SET search_path = app"),
			one("ALTER ROLE rowhouse_app_test SET cpu_tuple_cost = 0.02", "R26 role rowhouse_app_test setting cpu_tuple_cost"),
			one("ALTER ROLE rowhouse_app_test SET cpu_operator_cost = 0.0025", "R26 role rowhouse_app_test setting cpu_operator_cost"),
			one("ALTER ROLE rowhouse_app_test IN DATABASE {db} SET default_transaction_read_only = on",
				"R26 role rowhouse_app_test in database {db} setting default_transaction_read_only"),
			one("ALTER ROLE rowhouse_app_test IN DATABASE {db} SET statement_timeout = 0",
				"R26 role rowhouse_app_test in database {db} setting statement_timeout"),
			one("ALTER ROLE rowhouse_app_test IN DATABASE {db} SET client_connection_check_interval = 0",
				"R26 role rowhouse_app_test in database {db} setting client_connection_check_interval"),
			one("ALTER ROLE rowhouse_app_test IN DATABASE {db} RESET lock_timeout",
				"R26 role rowhouse_app_test in database {db} setting lock_timeout"),
		},
		"R27": {one(`CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE app.far (tenant_id uuid) SERVER s;
			GRANT SELECT ON app.far TO rowhouse_app`, "R27 app.far")},
		"R31": {one(asOwner+"CREATE FUNCTION app.f() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp "+
			"AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER g BEFORE INSERT ON app.note FOR EACH ROW EXECUTE FUNCTION app.f()", "R31 app.note trigger g")},
		"R32": {
			{"", []string{"R32 server"}, func(c *catalog.Config) { c.Floors = map[int]int{15: 99, 16: 99, 17: 99, 18: 99} }},
			{"", []string{"R32 server"}, func(c *catalog.Config) { c.Floors = map[int]int{14: 1} }},
			one(`SET LOCAL allow_system_table_mods = on; DO $$ BEGIN EXECUTE 'CREATE OR REPLACE VIEW pg_catalog.pg_stats_ext AS '
				|| replace(pg_get_viewdef('pg_stats_ext'::regclass), 'pg_has_role(c.relowner, ''USAGE''::text)', 'true'); END $$`, "R32 pg_catalog.pg_stats_ext"),
		},
		"R35": {
			one("GRANT TEMP ON DATABASE {db} TO PUBLIC", "R35 database {db}"),
			one("GRANT CONNECT ON DATABASE {db} TO PUBLIC", "R35 database {db}"),
		},
		"R36": {
			one("GRANT SET ON PARAMETER backtrace_functions TO rowhouse_app", "R36 parameter backtrace_functions"),
			one("GRANT SET ON PARAMETER backtrace_functions TO PUBLIC", "R36 parameter backtrace_functions"),
			one("SET LOCAL rowhouse.seal = 'x'", "R36 parameter rowhouse.seal"),
		},
		"R37": {
			one("GRANT SELECT ON rowhouse.mac_key TO rowhouse_app", "R37 rowhouse.mac_key"),
			one("GRANT USAGE ON SCHEMA rowhouse TO PUBLIC", "R37 schema rowhouse"),
			one("ALTER TABLE rowhouse.placement OWNER TO rowhouse_owner_test", "R37 rowhouse.placement"),
			one("ALTER FUNCTION rowhouse.enter(bytea) OWNER TO postgres", "R37 rowhouse.enter(bytea)"),
			one("ALTER FUNCTION rowhouse.enter(bytea) RESET search_path", "R37 rowhouse.enter(bytea)"),
			one("ALTER FUNCTION rowhouse.genuine(bytea, timestamptz) SECURITY DEFINER", "R37 rowhouse.genuine(bytea,timestamp with time zone)"),
			one("GRANT EXECUTE ON FUNCTION rowhouse.limit_time(uuid) TO PUBLIC", "R37 rowhouse.limit_time(uuid)"),
			one("CREATE OR REPLACE FUNCTION rowhouse.genuine(seal bytea, at timestamptz) RETURNS boolean LANGUAGE sql RETURN true",
				"R37 rowhouse.genuine(bytea,timestamp with time zone)"),
			one("CREATE OR REPLACE FUNCTION rowhouse.expiry(seal bytea) RETURNS float8 LANGUAGE sql IMMUTABLE RETURN 1", "R37 rowhouse.expiry(bytea)"),
			one("CREATE FUNCTION rowhouse.expiry() RETURNS int LANGUAGE sql RETURN 1; ALTER FUNCTION rowhouse.expiry() OWNER TO rowhouse_sec",
				"R37 rowhouse.expiry()"),
			one("DROP FUNCTION rowhouse.limit_time(uuid)", "R37 rowhouse.limit_time"),
			one("DROP TABLE rowhouse.migration", "R37 rowhouse.migration"),
			one("CREATE TABLE rowhouse.loot ()", "R37 rowhouse.loot"),
		},
		"R42": {
			one("ALTER FUNCTION pg_catalog.uuid_eq(uuid, uuid) COST 1", "R42 uuid_eq(uuid,uuid)"),
			one("DO $$ BEGIN EXECUTE format('ALTER ROLE rowhouse_app_test IN DATABASE %I RESET cpu_operator_cost', current_database()); END $$",
				"R42 role rowhouse_app_test"),
		},
		"R38": {
			one("ALTER FUNCTION textlike(text, text) LEAKPROOF", "R38 textlike(text,text)"),
			one("CREATE FUNCTION app.f(text) RETURNS bool LANGUAGE sql IMMUTABLE LEAKPROOF RETURN true", "R38 app.f(text)"),
			{"ALTER FUNCTION textlike(text, text) LEAKPROOF", nil, func(c *catalog.Config) { c.Dedicated = true }},
		},
	}
}

// audit returns what is found and not accepted, as a fault names it. Every finding must be told once.
func audit(t *testing.T, conn catalog.Conn, edits ...func(*catalog.Config)) []string {
	t.Helper()
	_, found := report(t, conn, edits...)
	return found
}

func report(t *testing.T, conn catalog.Conn, edits ...func(*catalog.Config)) (catalog.Report, []string) {
	t.Helper()
	config := catalog.Config{Accept: []string{"R40"}} // servers for tests forget
	for _, edit := range edits {
		if edit != nil {
			edit(&config)
		}
	}
	report, err := cell.Audit(t.Context(), conn, config)
	if err != nil {
		t.Fatal(err)
	}
	found := []string{}
	for _, f := range report.Findings {
		line := f.Rule + " " + f.Object
		switch {
		case f.Accepted != "":
			continue
		case f.Severity == catalog.Note:
			line = "note " + line
		}
		if slices.Contains(found, line) {
			t.Errorf("told twice: %s", f)
		}
		if rule, _ := catalog.RuleOf(f.Rule); f.Severity != rule.Severity && f.Severity != catalog.Note || f.Message == "" {
			t.Errorf("%+v is of severity %s", f, rule.Severity)
		}
		found = append(found, line)
	}
	slices.Sort(found)
	return report, found
}

func rungs(t *testing.T, run func(t *testing.T, d *dbtest.Database)) {
	t.Helper()
	for _, rung := range []cell.Rung{cell.L2a, cell.L2b} {
		t.Run(string(rung), func(t *testing.T) {
			t.Parallel()
			run(t, dbtest.New(t, dbtest.Rung(rung), dbtest.Migrations(reference())))
		})
	}
}

// rolledBack runs fn in a transaction that does not happen.
func rolledBack(t *testing.T, d *dbtest.Database, fn func(pgx.Tx)) {
	t.Helper()
	tx, err := d.Admin.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := tx.Rollback(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	fn(tx)
}

// Each planted fault is found by its rule, with nothing else, and what the mend mends is gone. Faults of one database
// come one after the other: an audit opens tables, so two of them could wait for each other's faults.
func TestEachRuleFindsItsFault(t *testing.T) {
	t.Parallel()
	all := faults()
	for _, r := range catalog.Rules() {
		if len(all[r.ID]) == 0 && r.ID != "R40" { // TestDurabilityAndClones has it
			t.Errorf("%s has no planted fault", r.ID)
		}
	}
	rungs(t, func(t *testing.T, d *dbtest.Database) {
		var db string
		if err := d.Admin.QueryRow(t.Context(), "SELECT current_database()").Scan(&db); err != nil {
			t.Fatal(err)
		}
		if found := audit(t, d.Admin); len(found) > 0 {
			t.Fatalf("the reference has findings: %q", found)
		}
		for rule, list := range all {
			if strings.HasSuffix(t.Name(), "/L2a") {
				list = list[:1] // the rules are the same
			}
			for _, f := range list {
				rolledBack(t, d, func(tx pgx.Tx) { f.check(t, tx, rule, db) })
			}
		}
		if found := audit(t, d.Admin); len(found) > 0 {
			t.Errorf("a fault stayed: %q", found)
		}
	})
}

func (f fault) check(t *testing.T, tx pgx.Tx, rule, db string) {
	t.Helper()
	sql := strings.ReplaceAll(f.sql, "{db}", db) + "; RESET ROLE"
	if _, err := tx.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatalf("%s: %s: %v", rule, sql, err)
	}
	want := []string{}
	for _, w := range f.found {
		want = append(want, strings.ReplaceAll(w, "{db}", db))
	}
	report, found := report(t, tx, f.edit)
	if diff := cmp.Diff(want, found); diff != "" {
		t.Errorf("%s: %s\n%s", rule, sql, diff)
	}
	f.mend(t, tx, report)
}

// mend runs the mends, in the order of the report, and looks again.
func (f fault) mend(t *testing.T, tx pgx.Tx, report catalog.Report) {
	t.Helper()
	var mends, left []string
	for _, finding := range report.Findings {
		switch {
		case finding.Accepted != "":
		case finding.Mend == "":
			left = append(left, finding.Rule)
		default:
			mends = append(mends, finding.Mend)
		}
	}
	if len(mends) == 0 {
		return
	}
	sql := strings.Join(mends, " ")
	if _, err := tx.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatalf("the mends %s: %v", sql, err)
	}
	for _, found := range audit(t, tx, f.edit) {
		if id := regexp.MustCompile(`R\d\d`).FindString(found); !slices.Contains(left, id) {
			t.Errorf("%s: after %s there is still %s", f.sql, sql, found)
		}
	}
}

// A database that cell.Init never saw, and which has no role of ours, can be audited.
func TestAuditOfABareDatabase(t *testing.T) {
	t.Parallel()
	server := pgtest.StartServer(t, pgserver.Options{})
	conn := connect(t, server.DSN(pgserver.Login{}))
	report, err := cell.Audit(t.Context(), conn, catalog.Config{})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, f := range report.Findings {
		if f.Rule == "R40" { // servers for tests lose all
			f.Rule += " " + f.Object
		}
		if !slices.Contains(ids, f.Rule) {
			ids = append(ids, f.Rule)
		}
	}
	slices.Sort(ids)
	if diff := cmp.Diff([]string{"R20", "R21", "R35", "R37", "R40 setting fsync", "R40 setting synchronous_commit", "R42"}, ids); diff != "" || report.Rung != "" {
		t.Errorf("rung %q, %s", report.Rung, diff)
	}
}

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

// A durable server has no finding, a setting for one database is one, and a clone has not the rights of its template.
func TestDurabilityAndClones(t *testing.T) {
	t.Parallel()
	server := pgtest.StartServer(t, pgserver.Options{Settings: map[string]string{"fsync": "on", "synchronous_commit": "on"}})
	admin := connect(t, server.DSN(pgserver.Login{}))
	exec := func(sql string) {
		t.Helper()
		if _, err := admin.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec("CREATE DATABASE first")
	first := connect(t, server.DSN(pgserver.Login{Database: "first"}))
	config := cell.Config{App: dbtest.App}
	if err := errors.Join(cell.Init(t.Context(), first, config), cell.Migrate(t.Context(), first, reference())); err != nil {
		t.Fatal(err)
	}
	strict := func(c *catalog.Config) { c.Accept = nil }
	check := func(conn *pgx.Conn, want ...string) {
		t.Helper()
		if diff := cmp.Diff(append([]string{}, want...), audit(t, conn, strict)); diff != "" {
			t.Error(diff)
		}
	}
	check(first)
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	exec("CREATE DATABASE clone TEMPLATE first")
	clone := connect(t, server.DSN(pgserver.Login{Database: "clone"}))
	const login = "R26 role rowhouse_app_test in database clone setting "
	check(clone, login+"client_connection_check_interval", login+"idle_in_transaction_session_timeout", login+"lock_timeout",
		login+"statement_timeout", "R35 database clone", "R42 role rowhouse_app_test")
	if err := cell.Init(t.Context(), clone, config); err != nil {
		t.Fatal(err)
	}
	check(clone)
	exec("ALTER DATABASE first SET synchronous_commit = off")
	check(connect(t, server.DSN(pgserver.Login{Database: "first"})), "R40 setting synchronous_commit")
	exec("ALTER DATABASE first RESET synchronous_commit")
	// The auditor's own session does not have it.
	for _, set := range []struct{ where, what string }{{"", ""}, {" IN DATABASE first", " in database first"}} {
		exec("ALTER ROLE rowhouse_app_test" + set.where + " SET synchronous_commit = 'OFF'")
		check(connect(t, server.DSN(pgserver.Login{Database: "first"})), "R26 role rowhouse_app_test"+set.what+" setting synchronous_commit")
		exec("ALTER ROLE rowhouse_app_test" + set.where + " RESET synchronous_commit")
	}
}
