package sqlrule

import (
	"fmt"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/rowhouse-platform/rowhouse/internal/lint/schema"
	"github.com/rowhouse-platform/rowhouse/internal/lint/sqltext"
)

// Row security runs before any function that is not leakproof. Such a predicate cannot be
// the condition of an index: PostgreSQL reads all rows of the tenant and then filters.

// Leakproof says whether =, < and the like are leakproof on a type. A test compares with a server.
func Leakproof(typeName string) bool {
	switch typeName {
	case "bool", "bpchar", "bytea", "char", "date", "float4", "float8", "inet", "cidr", "int2", "int4", "int8", "interval",
		"macaddr", "macaddr8", "money", "name", "oid", "pg_lsn", "text", "varchar", "tid", "time", "timestamp",
		"timestamptz", "timetz", "uuid", "varbit", "bit", "xid8", "serial", "bigserial", "smallserial", "serial4", "serial8":
		return true
	}
	return false
}

// leak judges one predicate.
func (c *checker) leak(f *frame, e *pg.A_Expr) {
	switch op := sqltext.Last(e.GetName()); e.GetKind() {
	case pg.A_Expr_Kind_AEXPR_LIKE, pg.A_Expr_Kind_AEXPR_ILIKE:
		if !strings.HasPrefix(op, "!") {
			c.pattern(f, e)
		}
	case pg.A_Expr_Kind_AEXPR_OP, pg.A_Expr_Kind_AEXPR_IN, pg.A_Expr_Kind_AEXPR_OP_ANY, pg.A_Expr_Kind_AEXPR_BETWEEN:
		switch op {
		case "=", "<", ">", "<=", ">=", "BETWEEN":
			c.comparison(f, e)
		case "@>", "<@", "?", "?|", "?&", "@?", "@@", "&&", "<<", ">>", "-|-", "%", "<%", "~", "~*":
			c.operator(f, e, op)
		}
	default:
	}
}

// pattern judges LIKE and ILIKE.
func (c *checker) pattern(f *frame, e *pg.A_Expr) {
	column, r := f.columnIn(e.GetLexpr())
	if r == nil {
		return
	}
	prefix, anywhere := prefixOf(e.GetRexpr())
	if anywhere && !indexed(r.table, column, "gin", "gist") {
		return // no index could have served it
	}
	verb, instead := "LIKE", ""
	switch {
	case e.GetKind() == pg.A_Expr_Kind_AEXPR_ILIKE:
		verb = "ILIKE"
		instead = fmt.Sprintf("%[1]s_lower ^@ lower(%[2]s), with a column %[1]s_lower text GENERATED ALWAYS AS (lower(%[1]s)) STORED "+
			"and an index (%[3]s, %[1]s_lower text_pattern_ops)",
			column, prefix, schema.TenantColumn)
	case !anywhere:
		instead = fmt.Sprintf("%s ^@ %s for a prefix, with an index (%s, %s text_pattern_ops)", column, prefix, schema.TenantColumn, column)
	}
	c.rewritef("Q5", e.GetLocation(), instead, "%s is not leakproof, so that under row security no index on %s serves it", verb, column)
}

// prefixOf returns the prefix that a pattern begins with, as SQL, and whether it may match anywhere.
func prefixOf(n *pg.Node) (prefix string, anywhere bool) {
	if cast := n.GetTypeCast(); cast != nil {
		n = cast.GetArg()
	}
	switch {
	case n.GetAConst().GetSval() != nil:
		s := n.GetAConst().GetSval().GetSval()
		head := s
		if i := strings.IndexAny(s, "%_"); i >= 0 {
			head = s[:i]
		}
		return "'" + strings.ReplaceAll(head, "'", "''") + "'", head == "" && s != ""
	case n.GetParamRef() != nil:
		return fmt.Sprintf("$%d", n.GetParamRef().GetNumber()), false
	case n.GetAExpr() != nil && sqltext.Last(n.GetAExpr().GetName()) == "||":
		return prefixOf(n.GetAExpr().GetLexpr())
	}
	return "$n", false
}

// operator judges operators that are made for indexes which row security shuts out.
func (c *checker) operator(f *frame, e *pg.A_Expr, op string) {
	column, r := f.columnIn(e.GetLexpr())
	if r == nil {
		column, r = f.columnIn(e.GetRexpr())
	}
	if r == nil {
		return
	}
	of := ""
	if r.table != nil {
		of = r.table.Columns[column]
	}
	if (op == "~" || op == "~*" || op == "<<" || op == ">>" || op == "%") && !indexed(r.table, column, "gin", "gist") {
		return // arithmetic, or a search for which no index was made
	}
	c.rewritef("Q5", e.GetLocation(), remedy(op, column, of),
		"operator %s is not leakproof, so that under row security no index on %s serves it", op, column)
}

func remedy(op, column, of string) string {
	switch {
	case op == "@@":
		return "a predicate beside it that is leakproof and narrows the rows; full text has no leakproof search"
	case op == "~" || op == "~*":
		return column + " ^@ 'prefix' where the expression only says how it begins"
	case strings.HasSuffix(of, "range"):
		return "two columns for its bounds, compared by <= and >"
	case strings.HasSuffix(of, "[]"):
		return fmt.Sprintf("a table with a row for each element, keyed (%s, …, element), and =", schema.TenantColumn)
	}
	return fmt.Sprintf("%[1]s_key = …, with a column %[1]s_key text GENERATED ALWAYS AS (%[1]s->>'key') STORED "+
		"and an index (%[2]s, %[1]s_key)",
		column, schema.TenantColumn)
}

// comparison judges =, <, IN and BETWEEN.
func (c *checker) comparison(f *frame, e *pg.A_Expr) {
	for _, side := range []*pg.Node{e.GetLexpr(), e.GetRexpr()} {
		switch {
		case side.GetColumnRef() != nil:
			c.plainColumn(f, e, side.GetColumnRef())
		case side.GetAExpr() != nil:
			c.extracted(f, e, side.GetAExpr())
		case side.GetFuncCall() != nil:
			c.computed(f, e, side.GetFuncCall())
		case side.GetTypeCast() != nil && namesTenant(side):
			c.rewritef("Q5", e.GetLocation(), schema.TenantColumn+" = $n", "a cast of %s keeps every index out", schema.TenantColumn)
		}
	}
}

// plainColumn judges a column by its type, when there is an index to lose.
func (c *checker) plainColumn(f *frame, e *pg.A_Expr, ref *pg.ColumnRef) {
	r := f.resolve(ref)
	if r == nil || !r.tenants || r.table == nil {
		return
	}
	column := sqltext.Last(ref.GetFields())
	of := r.table.Columns[column]
	if of == "" || Leakproof(of) || !indexed(r.table, column) {
		return
	}
	instead := "a column of a leakproof type beside it"
	switch {
	case of == "numeric" || of == "decimal":
		instead = "a bigint of the smallest unit"
	case c.tables.Enums[of]:
		instead = "a text column with a CHECK for its values"
	case of == "citext":
		instead = "a stored generated column lower(" + column + ") of type text"
	}
	c.rewritef("Q5", e.GetLocation(), instead,
		"comparisons of type %s are not leakproof, so that under row security no index on %s serves them", of, column)
}

// extracted judges doc->>'key' = ….
func (c *checker) extracted(f *frame, e, arrow *pg.A_Expr) {
	op := sqltext.Last(arrow.GetName())
	if op != "->" && op != "->>" && op != "#>" && op != "#>>" {
		return
	}
	column, r := f.columnIn(arrow.GetLexpr())
	if r == nil {
		return
	}
	key := "key"
	if s := arrow.GetRexpr().GetAConst().GetSval().GetSval(); s != "" {
		key = strings.Trim(s, "{}")
	}
	as := column + "_" + strings.ReplaceAll(key, ",", "_")
	c.rewritef("Q5", e.GetLocation(),
		fmt.Sprintf("%[1]s = …, with a column %[1]s text GENERATED ALWAYS AS (%[2]s %[3]s '%[4]s') STORED and an index (%[5]s, %[1]s)",
			as, column, op, key, schema.TenantColumn),
		"%s is not leakproof, so that under row security no index on it serves the comparison", op)
}

// computed judges lower(column) = …, when there is an index on that.
func (c *checker) computed(f *frame, e *pg.A_Expr, call *pg.FuncCall) {
	function := sqltext.Last(call.GetFuncname())
	for _, arg := range call.GetArgs() {
		column, r := f.columnIn(arg)
		if r == nil || r.table == nil {
			continue
		}
		for _, i := range r.table.Indexes {
			if slices.ContainsFunc(i.Columns, func(c schema.Column) bool { return c.Function == function && c.Of == column }) {
				c.rewritef("Q5", e.GetLocation(),
					fmt.Sprintf("%[1]s_%[2]s = …, with a column %[1]s_%[2]s text GENERATED ALWAYS AS (%[2]s(%[1]s)) STORED "+
						"and an index (%[3]s, %[1]s_%[2]s)",
						column, function, schema.TenantColumn),
					"%s() is not leakproof, so that under row security the index %s does not serve it", function, i.Name)
				return
			}
		}
	}
}

// columnIn returns the first column of a tenant table in an expression.
func (f *frame) columnIn(n *pg.Node) (column string, of *relation) {
	sqltext.Walk(n, func(m proto.Message) bool {
		if ref, ok := m.(*pg.ColumnRef); ok && of == nil {
			if r := f.resolve(ref); r != nil && r.tenants {
				column, of = sqltext.Last(ref.GetFields()), r
			}
		}
		_, deeper := m.(*pg.SelectStmt)
		return !deeper
	})
	return column, of
}

// indexed says whether an index has the column, of one of the methods if any are named.
func indexed(t *schema.Table, column string, methods ...string) bool {
	if t == nil {
		return false
	}
	return slices.ContainsFunc(t.Indexes, func(i schema.Index) bool {
		if len(methods) > 0 && !slices.Contains(methods, i.Method) {
			return false
		}
		return slices.ContainsFunc(i.Columns, func(c schema.Column) bool { return c.Name == column || c.Of == column && len(methods) > 0 })
	})
}
