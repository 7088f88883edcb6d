package plan_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/internal/lint"
	"github.com/rowhouse-platform/rowhouse/internal/lint/driver"
	"github.com/rowhouse-platform/rowhouse/internal/lint/plan"
	"github.com/rowhouse-platform/rowhouse/internal/lint/sqlrule"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const schema = `
CREATE TYPE app.state AS ENUM ('open', 'done');
CREATE TABLE app.task (
    tenant_id uuid NOT NULL DEFAULT rowhouse.tenant_id(),
    id        uuid NOT NULL,
    list      bigint NOT NULL,
    title     text NOT NULL CHECK (title <> 'v7'),
    slug      varchar(4) NOT NULL,
    state     app.state NOT NULL,
    tags      text[] NOT NULL,
    doc       jsonb NOT NULL,
    price     numeric(4,2) NOT NULL,
    at        timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX task_by_time ON app.task (at);
CREATE INDEX task_by_list ON app.task (tenant_id, list);
CREATE TABLE app.heap (tenant_id uuid NOT NULL DEFAULT rowhouse.tenant_id(), id bigint NOT NULL);
CREATE TABLE app.log (tenant_id uuid NOT NULL DEFAULT rowhouse.tenant_id(), at timestamptz NOT NULL);
CREATE INDEX log_by_time ON app.log (at);
CREATE TABLE app.event (tenant_id uuid NOT NULL DEFAULT rowhouse.tenant_id(), at timestamptz NOT NULL, PRIMARY KEY (tenant_id, at))
    PARTITION BY RANGE (at);
CREATE TABLE app.event_all PARTITION OF app.event DEFAULT;
`

func TestPlans(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "0001_task.sql"), []byte(schema), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct{ sql, rule, says string }{
		"by key":         {`SELECT title FROM app.task WHERE id = $1`, "", ""},
		"by list":        {`SELECT id FROM app.task WHERE list = $1 AND title = $2 LIMIT $3`, "", ""},
		"all":            {`SELECT count(*) FROM app.task WHERE state = $1`, "", ""},
		"arrays":         {`SELECT count(*) FROM app.task WHERE id = ANY($1)`, "", ""},
		"insert":         {`INSERT INTO app.heap (id) VALUES ($1)`, "", ""},
		"update":         {`UPDATE app.task SET title = $2 WHERE id = $1 RETURNING title`, "", ""},
		"wrong index":    {`SELECT tenant_id FROM app.log WHERE at = $1`, "P1", "app.log is read by index log_by_time without the tenant"},
		"two indexes":    {`SELECT count(*) FROM app.task WHERE list = $1 OR id = $2`, "", ""},
		"no index":       {`SELECT id FROM app.heap WHERE id = $1`, "P2", "app.heap is read from begin to end (Seq Scan), filtered by"},
		"delete":         {`DELETE FROM app.heap WHERE id = $1`, "P2", "generic and custom plan"},
		"joined":         {`SELECT t.title FROM app.task t JOIN app.heap h ON h.id = t.list WHERE t.id = $1`, "P2", "app.heap"},
		"partitions":     {`SELECT at FROM app.event WHERE at > $1`, "", ""},
		"no such column": {`SELECT colour FROM app.task`, "P3", `column "colour" does not exist (42703)`},
		"no right":       {`SELECT tenant_id FROM rowhouse.placement`, "P3", "permission denied"},
	}
	var statements []driver.Statement
	for name, test := range tests {
		statements = append(statements, driver.Statement{SQL: test.sql, Name: name, File: "x.go", Line: 1, Migrations: []string{folder}})
	}
	statements = append(statements, driver.Statement{SQL: "SELECT 1", Name: "nowhere", File: "x.go", Line: 1})
	findings, err := plan.Run(t.Context(), pgtest.Server(t), statements)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range tests {
		var rules []string
		text := ""
		for _, f := range findings {
			if strings.HasPrefix(f.Message, name+": ") {
				rules, text = append(rules, f.Rule), text+f.Message
			}
		}
		if strings.Join(slices.Compact(rules), " ") != test.rule || !strings.Contains(text, test.says) {
			t.Errorf("%s: found %q, want %q: %s", name, rules, test.rule, text)
		}
	}
	if last := findings[slices.IndexFunc(findings, func(f lint.Finding) bool { return strings.HasPrefix(f.Message, "nowhere") })]; last.Rule != "P3" {
		t.Errorf("without migrations: %v", last)
	}
}

// TestExamplePlans plans every statement of the example app.
func TestExamplePlans(t *testing.T) {
	t.Parallel()
	r, err := driver.Run(t.Context(), driver.Options{Dir: "../../..", Patterns: []string{"./examples/notes"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Statements) < 5 {
		t.Fatalf("the example has %d statements", len(r.Statements))
	}
	findings, err := plan.Run(t.Context(), pgtest.Server(t), r.Statements)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		t.Errorf("%s:%d: %s: %s", f.File, f.Line, f.Rule, f.Text())
	}
}

// TestLeakproofTypes holds the linter's list against a server.
func TestLeakproofTypes(t *testing.T) {
	t.Parallel()
	conn, err := pgx.Connect(t.Context(), pgtest.Server(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	rows, err := conn.Query(t.Context(), `SELECT t.typname, bool_and(p.proleakproof) FROM pg_operator o JOIN pg_proc p ON p.oid = o.oprcode
		JOIN pg_type t ON t.oid = o.oprleft
		WHERE o.oprname IN ('=', '<', '>', '<=', '>=') AND o.oprleft = o.oprright AND t.typtype <> 'p' AND t.typname !~ 'vector$'
		GROUP BY t.typname HAVING count(*) = 5`)
	if err != nil {
		t.Fatal(err)
	}
	var name string
	var leakproof bool
	n := 0
	if _, err := pgx.ForEachRow(rows, []any{&name, &leakproof}, func() error {
		n++
		if rare := name == "circle" || name == "lseg"; !rare && sqlrule.Leakproof(name) != leakproof {
			t.Errorf("%s: leakproof is %t on the server", name, leakproof)
		}
		return nil
	}); err != nil || n < 20 {
		t.Errorf("%d types, error %v", n, err)
	}
}
