package system

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
)

// What is in each tenant's rows of the attacked house, and must never come back to the other.
const (
	ownCanary     = "canary-of-the-attacker-1b2c"
	foreignCanary = "canary-of-the-victim-9f3e"
)

// injection is what an attacker writes for a title. Each string is one query of the same
// transaction: SELECT title FROM app.note WHERE title = '{string}'. {victim} stands for
// the victim's uid, {hex} for its digits alone, {set} for the setting that carries the tenant.
type injection struct {
	name   string
	titles []string
	naive  bool // it must succeed against the usual recipe
	own    bool // it gives the attacker's own rows and no error
}

// again reads everything there is to see, after an attack.
const again = `' OR true --`

var injections = []injection{
	{name: "always true", titles: []string{again}, own: true},
	{name: "union", titles: []string{`' UNION ALL SELECT title FROM app.note --`}, own: true},
	{name: "union for the victim", titles: []string{`' UNION ALL SELECT title FROM app.note WHERE tenant_id = '{victim}' --`}},
	{name: "leaky function before the policy", titles: []string{`' OR (title || body) LIKE '%canary%' --`}, own: true},
	{name: "error that tells a value", titles: []string{`' OR (title || 'x')::int = 1 --`}},
	{name: "set_config", titles: []string{`' OR set_config('{set}', '{victim}', true) IS NOT NULL --`}, naive: true},
	{name: "set_config, then read", titles: []string{`' AND set_config('{set}', '{victim}', true) <> '' --`,
		`' UNION ALL SELECT set_config('{set}', '{victim}', true) --`, again}, naive: true},
	{name: "set_config of the session", titles: []string{`' UNION ALL SELECT set_config('{set}', '{victim}', false) --`, again}, naive: true},
	{name: "set_config in a CTE", titles: []string{
		`' UNION ALL (WITH x AS (SELECT set_config('{set}', '{victim}', true) s) SELECT title FROM x, app.note WHERE s <> '') --`}},
	{name: "set_config in a materialized CTE", titles: []string{
		`' UNION ALL (WITH x AS MATERIALIZED (SELECT set_config('{set}', '{victim}', true) s) SELECT title FROM x, app.note WHERE s <> '') --`}, naive: true},
	{name: "set_config in query_to_xml", titles: []string{
		`' UNION ALL SELECT query_to_xml('SELECT set_config(''{set}'', ''{victim}'', true)', true, false, '')::text --`, again}, naive: true},
	{name: "SET in query_to_xml", titles: []string{`' UNION ALL SELECT query_to_xml('SET {set} = ''{victim}''', true, false, '')::text --`, again}},
	{name: "rows by query_to_xml", titles: []string{`' UNION ALL SELECT query_to_xml('SELECT * FROM app.note', true, false, '')::text --`}, own: true},
	{name: "rows by table_to_xml", titles: []string{`' UNION ALL SELECT table_to_xml('app.note', true, false, '')::text --`}, own: true},
	{name: "rows by database_to_xml", titles: []string{`' UNION ALL SELECT database_to_xml(true, false, '')::text --`}},
	{name: "second statement", titles: []string{`'; SELECT title FROM app.note --`}},
	{name: "second statement SET", titles: []string{`'; SET {set} = '{victim}' --`, again}},
	{name: "second statement SET LOCAL", titles: []string{`'; SET LOCAL {set} = '{victim}' --`, again}},
	{name: "SET ROLE superuser", titles: []string{`'; SET ROLE postgres --`, again}},
	{name: "SET ROLE owner", titles: []string{`'; SET ROLE rowhouse_owner_notes --`, again}},
	{name: "SET ROLE by set_config", titles: []string{`' UNION ALL SELECT set_config('role', 'rowhouse_owner_notes', true) --`, again}},
	{name: "SESSION AUTHORIZATION", titles: []string{`'; SET SESSION AUTHORIZATION postgres --`, again}},
	{name: "RESET", titles: []string{`'; RESET {set} --`, again}},
	{name: "RESET ALL", titles: []string{`'; RESET ALL --`, again}},
	{name: "RESET ROLE", titles: []string{`'; RESET ROLE --`, again}},
	{name: "DISCARD ALL", titles: []string{`'; DISCARD ALL --`, again}},
	{name: "row_security off", titles: []string{`' UNION ALL SELECT set_config('row_security', 'off', true) --`, again}},
	{name: "DO", titles: []string{`'; DO $$ BEGIN PERFORM set_config('{set}', '{victim}', true); END $$ --`, again}},
	{name: "write pg_settings", titles: []string{
		`' OR EXISTS (WITH u AS (UPDATE pg_settings SET setting = '{hex}' WHERE name = 'backtrace_functions' RETURNING 1) SELECT FROM u) --`, again}},
	{name: "enter again", titles: []string{`' UNION ALL SELECT rowhouse.enter('\x00')::text --`, again}},
	{name: "keys", titles: []string{`' UNION ALL SELECT encode(ipad, 'hex') FROM rowhouse.mac_key --`}},
	{name: "placements", titles: []string{`' UNION ALL SELECT tenant_id::text FROM rowhouse.placement --`}},
	{name: "statistics", titles: []string{`' UNION ALL SELECT most_common_vals::text FROM pg_stats --`}},
	{name: "statements of others", titles: []string{`' UNION ALL SELECT query FROM pg_stat_activity --`}},
	{name: "read a file", titles: []string{`' UNION ALL SELECT pg_read_file('PG_VERSION') --`}},
	{name: "read a binary file", titles: []string{`' UNION ALL SELECT pg_read_binary_file('global/pg_control')::text --`}},
	{name: "list a folder", titles: []string{`' UNION ALL SELECT pg_ls_dir('base') --`}},
	{name: "COPY TO", titles: []string{`'; COPY app.note TO STDOUT --`}},
	{name: "COPY PROGRAM", titles: []string{`'; COPY app.note TO PROGRAM 'cat' --`}},
	{name: "large object", titles: []string{`' UNION ALL SELECT lo_import('/etc/hostname')::text --`}},
	{name: "another database", titles: []string{`' UNION ALL SELECT * FROM dblink('dbname=postgres', 'SELECT 1') AS t(x text) --`}},
	{name: "prepare", titles: []string{`'; PREPARE p AS SELECT title FROM app.note --`}},
	{name: "cursor that is held", titles: []string{`'; DECLARE c CURSOR WITH HOLD FOR SELECT title FROM app.note --`}},
	{name: "write for the victim", titles: []string{
		`' UNION ALL (WITH w AS (INSERT INTO app.note (tenant_id, id, title) VALUES ('{victim}', gen_random_uuid(), 'planted') RETURNING title) SELECT title FROM w) --`}},
	{name: "take over the victim's rows", titles: []string{
		`' UNION ALL (WITH w AS (UPDATE app.note SET body = 'planted' WHERE tenant_id = '{victim}' RETURNING title) SELECT title FROM w) --`}},
	{name: "delete all", titles: []string{
		`' UNION ALL (WITH w AS (DELETE FROM app.note WHERE tenant_id = '{victim}' RETURNING title) SELECT title FROM w) --`}},
}

// carriers are the settings that could carry the tenant: ours, the portable rung's, and
// everybody's.
var carriers = []string{"backtrace_functions", "rowhouse.seal", "app.tenant_id"}

func (a injection) fill(set, victim string) []string {
	if set == "backtrace_functions" {
		victim = strings.ReplaceAll(victim, "-", "")
	}
	r := strings.NewReplacer("{set}", set, "{victim}", victim, "{hex}", strings.ReplaceAll(victim, "-", ""))
	filled := make([]string, len(a.titles))
	for i, title := range a.titles {
		filled[i] = r.Replace(title)
	}
	return filled
}

// Through the gateway, into an app with a hole, no injection brings back a byte of
// another tenant's rows, and none changes one, wherever the two live. In schemas of their
// own each is tried again with the name of the victim's.
func TestInjectionReachesNobodyElse(t *testing.T) {
	t.Parallel()
	h := hijacked(t)
	eachModel(t, func(t *testing.T, model tenancyv1.IsolationModel, name string) {
		attacker, victimHost := h.tenantIn(t, "attacker-"+name, model), h.tenantIn(t, "victim-"+name, model)
		h.write(t, attacker, ownCanary)
		h.write(t, victimHost, foreignCanary)
		victim := h.lodging(t, "victim-"+name)
		for _, a := range injections {
			if model == inSchema && strings.Contains(a.name, "_to_xml") {
				a.own = false // names in a string are not the attacker's tables
			}
			h.inject(t, attacker, a, victim.uid)
			if model == inSchema {
				h.inject(t, attacker, a.at(victim.schema), victim.uid)
			}
		}
		var title, body string
		if err := h.superuser(t, victim.database).QueryRow(t.Context(), "SELECT string_agg(title, ','), string_agg(body, ',') FROM "+victim.schema+
			".note WHERE tenant_id = $1::text::uuid", victim.uid).Scan(&title, &body); err != nil || title != foreignCanary || body != "" {
			t.Errorf("the victim's rows are now %q %q %v", title, body, err)
		}
		if a := h.visit(t, visit{host: victimHost, path: "/notes"}); !strings.Contains(a.body, foreignCanary) || strings.Contains(a.body, ownCanary) {
			t.Errorf("the victim sees %s", a.body)
		}
	})
}

// at is the injection with another tenant's schema for the name app.
func (a injection) at(schema string) injection {
	there := injection{name: a.name + " in the victim's schema"}
	for _, title := range a.titles {
		there.titles = append(there.titles, strings.ReplaceAll(title, "app.note", schema+".note"))
	}
	return there
}

// inject tries an injection with each setting that could carry the tenant.
func (h *house) inject(t *testing.T, attacker string, a injection, victim string) {
	t.Helper()
	client := h.browser()
	for _, set := range carriers {
		query := url.Values{"title": a.fill(set, victim)}
		got, err := h.ask(t.Context(), client, visit{host: attacker, path: "/unsafe?" + query.Encode()})
		if err != nil || got.status != http.StatusOK {
			t.Fatalf("%s (%s): %d %s %v", a.name, set, got.status, got.body, err)
		}
		if strings.Contains(got.body, foreignCanary) || strings.Contains(got.body, "victim-9f3e") {
			t.Errorf("%s (%s) reached another tenant: %s", a.name, set, got.body)
		}
		if a.own && !strings.Contains(got.body, ownCanary) {
			t.Errorf("%s (%s) should show the attacker's own row, so it shows nothing here: %s", a.name, set, got.body)
		}
	}
}

// The usual recipe, in the same database server, falls to the same strings: otherwise
// the test above would show nothing.
func TestInjectionBreaksTheUsualRecipe(t *testing.T) {
	t.Parallel()
	h := hijacked(t)
	const (
		name   = "naive"
		own    = "00000000-0000-7000-8000-00000000000a"
		victim = "00000000-0000-7000-8000-00000000000b"
	)
	if _, err := h.superuser(t, "postgres").Exec(t.Context(), "CREATE DATABASE "+name+" TEMPLATE template0"); err != nil {
		t.Fatal(err)
	}
	admin := h.superuser(t, name)
	for _, sql := range []string{
		`CREATE SCHEMA app`,
		`CREATE TABLE app.note (tenant_id uuid NOT NULL DEFAULT current_setting('app.tenant_id')::uuid, id uuid NOT NULL, title text, body text DEFAULT '')`,
		`ALTER TABLE app.note ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY`,
		`CREATE POLICY tenant ON app.note USING (tenant_id = current_setting('app.tenant_id')::uuid)`,
		`CREATE ROLE naive_app`, `GRANT USAGE ON SCHEMA app TO naive_app`, `GRANT SELECT, INSERT, UPDATE, DELETE ON app.note TO naive_app`,
		`INSERT INTO app.note (tenant_id, id, title) VALUES ('` + own + `', gen_random_uuid(), '` + ownCanary + `'), ('` + victim + `', gen_random_uuid(), '` + foreignCanary + `')`,
		`SET ROLE naive_app`,
	} {
		if _, err := admin.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	leaks := 0
	for _, a := range injections {
		leaked := strings.Contains(naively(t, admin, own, a.fill("app.tenant_id", victim)), foreignCanary)
		if leaked {
			leaks++
		}
		if a.naive && !leaked {
			t.Errorf("%s does not break the usual recipe: it shows nothing about ours", a.name)
		}
	}
	t.Logf("%d of %d injections break the usual recipe", leaks, len(injections))
	if leaks < 5 {
		t.Errorf("only %d of %d injections break the usual recipe", leaks, len(injections))
	}
}

// naively does what the hole does, the usual way.
func naively(t *testing.T, conn *pgx.Conn, tenant string, all []string) string {
	t.Helper()
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = tx.Rollback(t.Context()) // of a transaction that may have failed
		if _, err := conn.Exec(t.Context(), "RESET app.tenant_id"); err != nil {
			t.Fatal(err)
		}
	}()
	if _, err := tx.Exec(t.Context(), "SELECT set_config('app.tenant_id', $1, true)", tenant); err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, title := range all {
		rows, err := tx.Query(t.Context(), "SELECT title FROM app.note WHERE title = '"+title+"'", pgx.QueryExecModeDescribeExec)
		if err != nil {
			fmt.Fprintln(&got, err)
			break
		}
		for rows.Next() {
			values, _ := rows.Values() // an attacker takes what there is
			fmt.Fprintln(&got, values...)
		}
		if err := rows.Err(); err != nil {
			fmt.Fprintln(&got, err)
			break
		}
	}
	return got.String()
}
