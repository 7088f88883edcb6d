// Package lint is what the parts of rowlint share: the table of rules, a finding, how one is
// suppressed, and which packages and tables an app has. The rules themselves are in
// sqlrule, gorule and plan; driver runs them all. Start at [Rules] and [Finding].
package lint

import (
	"cmp"
	"slices"
)

// Rule is one thing that rowlint looks for.
type Rule struct {
	// ID is the name by which findings and suppressions call it: Q1.
	ID string
	// Title says what is found, Why what it would cost.
	Title, Why string
}

// Rules returns all rules: Q of SQL text, G of Go code, P of query plans, S of suppressions.
func Rules() []Rule {
	return []Rule{
		{"Q0", "SQL that PostgreSQL would not parse, or two statements in one", "what cannot be read cannot be checked"},
		{"Q1", "tenant table without tenant predicate where row security does not hold", "the statement sees every tenant's rows"},
		{"Q2", "literal tenant id", "one tenant's data in code that serves all"},
		{"Q3", "SET, RESET, set_config, SET ROLE, DISCARD", "session state survives in a pool and reaches the next tenant"},
		{"Q4", "cursors, LISTEN/NOTIFY, temporary tables, PREPARE, advisory locks, large objects", "none of them knows a tenant"},
		{"Q5", "predicate that is not leakproof, so that no index serves it", "row security filters first: a scan of all the tenant's rows"},
		{"Q6", "EXPLAIN, pg_stat_*, catalogs in app code", "statistics and catalogs count every tenant's rows"},
		{"Q7", "ON CONFLICT, key or foreign key without tenant_id", "it tells whether another tenant has the value"},
		{"Q8", "COPY FROM, SELECT *, tenant table without its schema, rows named app, the app's names in strings",
			"refused under row security, or breaks with the next column or model"},
		{"Q9", "ORDER BY … LIMIT, or an index, that does not lead with tenant_id", "it reads all tenants' rows to find one page"},
		{"Q10", "cross-tenant SQL without -- tenancy:admin <reason>", "who reads across tenants says why, where a reviewer sees it"},
		{"G1", "SQL outside tenantdb (pgx, database/sql)", "the database is not told the tenant"},
		{"G2", "SQL text not constant, or Stmt not package-level", "it can be injected, and plan lint cannot find it"},
		{"G3", "function takes a tenant id beside a context", "the two can disagree; the context is verified, the id is not"},
		{"G4", "context.Background reaches tenantdb", "it holds no tenant: the call always fails"},
		{"G5", "Tx or Rows escape their function or enter a goroutine", "they are used after the tenant's transaction, or by two at once"},
		{"G6", "raw pool or connection taken out of tenantdb", "what goes through it is not sealed"},
		{"P1", "plan: a scan of a tenant table lacks the tenant key in its index condition", "time grows with all tenants' rows"},
		{"P2", "plan: sequential scan of a tenant table, with the tenant only as a filter", "time grows with all tenants' rows"},
		{"P3", "statement that plan lint could not plan", "nobody knows how it will run"},
		{"S1", "suppression without a reason, or of an unknown rule", "the next reader cannot judge it"},
	}
}

// Known says whether there is a rule of that id.
func Known(id string) bool {
	return slices.ContainsFunc(Rules(), func(r Rule) bool { return r.ID == id })
}

// Finding is one place that breaks a rule.
type Finding struct {
	// Rule is the rule's id.
	Rule string `json:"rule"`
	// File, Line and Column say where; lines and columns count from 1, 0 is unknown.
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
	// Message says what is wrong there, and Rewrite what to write instead, "" when there
	// is no one answer.
	Message string `json:"message"`
	Rewrite string `json:"rewrite,omitempty"`
}

// Text returns the message with the rewrite.
func (f Finding) Text() string {
	if f.Rewrite == "" {
		return f.Message
	}
	return f.Message + "; write " + f.Rewrite
}

// Sort puts findings in the order of their places and drops those that are told twice.
func Sort(findings []Finding) []Finding {
	slices.SortFunc(findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(findings)
}
