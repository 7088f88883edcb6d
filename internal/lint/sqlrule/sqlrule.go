// Package sqlrule holds the rules Q0 to Q10 for SQL text: statements of Go code and files of
// migrations. Start at [Check].
package sqlrule

import (
	"fmt"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/rowhouse-platform/rowhouse/internal/lint"
	"github.com/rowhouse-platform/rowhouse/internal/lint/schema"
	"github.com/rowhouse-platform/rowhouse/internal/lint/sqltext"
)

// Source says where a text comes from, which decides on the rules that hold.
type Source uint8

// The sources.
const (
	// Sealed is a tenantdb.Stmt: PostgreSQL adds the tenant to it.
	Sealed Source = iota
	// Raw is SQL that Go code sends past tenantdb.
	Raw
	// Control is Raw in a package of the control plane: only what it does to tenants' tables counts.
	Control
	// Migration is a file of DDL that the owner of the tables runs.
	Migration
)

// Finding is a finding in a text.
type Finding struct {
	// Rule is the rule's id.
	Rule string
	// Offset is the byte of the text at which it was found.
	Offset int
	// Message and Rewrite are as in [lint.Finding].
	Message, Rewrite string
}

// In places a finding in the file that has the text.
func (f Finding) In(file, text string) lint.Finding {
	line, column := sqltext.Position(text, f.Offset)
	return lint.Finding{Rule: f.Rule, File: file, Line: line, Column: column, Message: f.Message, Rewrite: f.Rewrite}
}

// Check returns what is wrong with a text. Suppressions in its comments are heeded. The
// tables may be nil: those in schema app then are taken for tenants', of unknown columns.
func Check(text string, source Source, tables *schema.Schema) []Finding {
	statements, err := sqltext.Parse(text)
	if err != nil {
		return []Finding{{Rule: "Q0", Message: err.Error()}}
	}
	var out []Finding
	if source == Sealed && len(statements) > 1 {
		out = append(out, Finding{Rule: "Q0", Offset: statements[1].Start, Message: "a second statement in one text is refused"})
	}
	for _, s := range statements {
		c := &checker{source: source, tables: tables, text: text, statement: s}
		c.top()
		out = append(out, c.settle()...)
	}
	return out
}

// checker checks one statement.
type checker struct {
	source    Source
	tables    *schema.Schema
	text      string
	statement sqltext.Statement
	findings  []Finding
}

func (c *checker) reportf(rule string, at int32, format string, args ...any) {
	c.rewritef(rule, at, "", format, args...)
}

func (c *checker) rewritef(rule string, at int32, instead, format string, args ...any) {
	offset := int(at)
	if offset <= 0 {
		offset = c.statement.Start
	}
	c.findings = append(c.findings, Finding{rule, offset, fmt.Sprintf(format, args...), instead})
}

// settle applies the statement's suppressions and its licence.
func (c *checker) settle() []Finding {
	var ignores []lint.Ignore
	licensed := false
	var out []Finding
	for _, comment := range c.statement.Comments {
		if i, ok := lint.ParseIgnore(comment.Text); ok {
			ignores = append(ignores, i)
			if i.Fault != "" {
				out = append(out, Finding{Rule: "S1", Offset: comment.Start, Message: i.Fault})
			}
		}
		if _, ok := lint.ParseAdmin(comment.Text); ok {
			licensed = true
		}
	}
	seen := map[string]bool{}
	spans := slices.ContainsFunc(c.findings, func(f Finding) bool { return f.Rule == "Q10" })
	for _, f := range c.findings {
		switch key := fmt.Sprint(f.Rule, f.Offset, f.Message); {
		case seen[key],
			licensed && (f.Rule == "Q1" || f.Rule == "Q10"),
			f.Rule == "Q1" && spans && c.source != Migration, // the same thought, told once
			c.source == Control && f.Rule != "Q1" && f.Rule != "Q10",
			slices.ContainsFunc(ignores, func(i lint.Ignore) bool { return i.Suppresses(f.Rule) }):
		default:
			seen[key] = true
			out = append(out, f)
		}
	}
	return out
}

// top looks at what kind of statement it is.
func (c *checker) top() {
	n := c.statement.Node
	switch {
	case isQuery(n):
		c.query(inner(n), nil)
		if c.source == Migration {
			c.backfill(n)
		}
	case c.session(n):
	case c.source == Migration:
		c.ddl(n)
	case n.GetCopyStmt() != nil:
		c.copyFrom(n.GetCopyStmt())
	case n.GetExplainStmt() != nil:
		c.reportf("Q6", 0, "EXPLAIN tells how many rows other tenants have")
	case c.source == Sealed:
		c.reportf("Q0", 0, "tenantdb takes SELECT, INSERT, UPDATE, DELETE, MERGE and VALUES only")
	}
}

func isQuery(n *pg.Node) bool {
	return n.GetSelectStmt() != nil || n.GetInsertStmt() != nil || n.GetUpdateStmt() != nil ||
		n.GetDeleteStmt() != nil || n.GetMergeStmt() != nil
}

// inner returns the message that a node wraps.
func inner(n *pg.Node) (m proto.Message) {
	sqltext.Children(n, func(child proto.Message) { m = child })
	return m
}

func (c *checker) copyFrom(s *pg.CopyStmt) {
	if s.GetIsFrom() {
		c.reportf("Q8", 0, "COPY FROM is refused under row security; insert with tenantdb")
	}
}

// session finds statements that change or use the state of a session.
func (c *checker) session(n *pg.Node) bool {
	switch {
	case n.GetVariableSetStmt() != nil:
		c.set(n.GetVariableSetStmt())
	case n.GetDiscardStmt() != nil:
		c.reportf("Q3", 0, "DISCARD changes the session, which the next tenant gets")
	case n.GetAlterRoleSetStmt() != nil, n.GetAlterDatabaseSetStmt() != nil:
		c.reportf("Q3", 0, "a setting of a role or database presets what each session begins with")
	case n.GetDeclareCursorStmt() != nil, n.GetFetchStmt() != nil, n.GetClosePortalStmt() != nil:
		c.reportf("Q4", 0, "a cursor of the session can outlive the tenant's transaction")
	case n.GetListenStmt() != nil, n.GetNotifyStmt() != nil, n.GetUnlistenStmt() != nil:
		c.reportf("Q4", 0, "LISTEN and NOTIFY reach every session of the database, of any tenant")
	case n.GetPrepareStmt() != nil, n.GetExecuteStmt() != nil, n.GetDeallocateStmt() != nil:
		c.reportf("Q4", 0, "a prepared statement of the session is lost or foreign behind a pooler; pgx prepares by itself")
	default:
		return false
	}
	return true
}

// set judges SET and RESET. A migration may set timeouts and memory for its own transaction.
func (c *checker) set(s *pg.VariableSetStmt) {
	name := s.GetName()
	dangerous := slices.Contains([]string{"role", "session_authorization", "row_security", "search_path",
		"session_replication_role", "backtrace_functions"}, name) || strings.Contains(name, ".")
	if c.source == Migration && s.GetIsLocal() && !dangerous {
		return
	}
	if c.source == Migration && !dangerous && name != "" {
		c.rewritef("Q3", 0, "SET LOCAL "+name, "SET outlives the migration on its connection")
		return
	}
	c.reportf("Q3", 0, "SET and RESET of %s change whom or what the session works for", orAll(name))
}

func orAll(name string) string {
	if name == "" {
		return "everything"
	}
	return name
}

// backfill judges a migration that changes tenants' rows.
func (c *checker) backfill(n *pg.Node) {
	var r *pg.RangeVar
	switch {
	case n.GetUpdateStmt() != nil:
		r = n.GetUpdateStmt().GetRelation()
	case n.GetDeleteStmt() != nil:
		r = n.GetDeleteStmt().GetRelation()
	case n.GetInsertStmt() != nil:
		r = n.GetInsertStmt().GetRelation()
	case n.GetMergeStmt() != nil:
		r = n.GetMergeStmt().GetRelation()
	default:
		return
	}
	if tenants, _ := c.table(r); tenants {
		c.reportf("Q10", r.GetLocation(), "a migration changes rows of %s: under forced row security the owner touches no tenant's", name(r))
	}
}

// table says whether a relation holds tenants' rows, and what is known of it.
func (c *checker) table(r *pg.RangeVar) (tenants bool, t *schema.Table) {
	t = c.tables.Find(r.GetSchemaname(), r.GetRelname())
	if t != nil {
		return t.Tenant(), t
	}
	return r.GetSchemaname() == schema.AppSchema, nil
}

func name(r *pg.RangeVar) string {
	if r.GetSchemaname() == "" {
		return r.GetRelname()
	}
	return r.GetSchemaname() + "." + r.GetRelname()
}
