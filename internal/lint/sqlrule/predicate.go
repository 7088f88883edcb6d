package sqlrule

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/rowhouse-platform/rowhouse/internal/lint/schema"
	"github.com/rowhouse-platform/rowhouse/internal/lint/sqltext"
)

func keyOf(t *schema.Table, name string) *schema.Index {
	if t == nil {
		return nil
	}
	for i := range t.Indexes {
		if t.Indexes[i].Name == name {
			return &t.Indexes[i]
		}
	}
	return nil
}

// tenantColumn says whether a reference is the tenant column of a tenant table.
func (f *frame) tenantColumn(ref *pg.ColumnRef) bool {
	if sqltext.Last(ref.GetFields()) != schema.TenantColumn {
		return false
	}
	r := f.resolve(ref)
	return r != nil && r.tenants
}

// resolve finds the relation of a column, in this statement or those around it. Of a column
// without a table's name it is the one that has it, or the only one there is.
func (f *frame) resolve(ref *pg.ColumnRef) *relation {
	words := sqltext.Strings(ref.GetFields())
	if len(words) == 0 {
		return nil
	}
	column := words[len(words)-1]
	for at := f; at != nil; at = at.parent {
		for i := range at.from {
			r := &at.from[i]
			switch {
			case len(words) > 1 && words[len(words)-2] == r.alias:
				return r
			case len(words) > 1:
			case r.table != nil && r.table.Columns[column] != "":
				return r
			case r.table == nil && len(at.from) == 1:
				return r
			case r.table == nil && r.tenants && column == schema.TenantColumn:
				return r
			}
		}
	}
	return nil
}

// predicates judges the conditions of a statement.
func (c *checker) predicates(f *frame) {
	for _, n := range f.conditions {
		c.condition(f, n)
	}
	if c.source != Raw && c.source != Control || c.pinned(f) {
		return
	}
	for _, r := range f.from {
		if r.tenants && !f.fixes(r) {
			c.rewritef("Q1", r.rv.GetLocation(), "it through tenantdb, or add "+r.alias+"."+schema.TenantColumn+" = $n",
				"%s is read or changed without %s, and outside tenantdb nothing adds it", name(r.rv), schema.TenantColumn)
		}
	}
}

// condition judges one condition with what is inside of it, without deeper statements.
func (c *checker) condition(f *frame, n *pg.Node) {
	sqltext.Walk(n, func(m proto.Message) bool {
		switch e := m.(type) {
		case *pg.SelectStmt:
			return false
		case *pg.A_Expr:
			c.spans(f, e)
			if c.source == Sealed {
				c.leak(f, e)
			}
		}
		return true
	})
}

// spans finds conditions that let several tenants through.
func (c *checker) spans(f *frame, e *pg.A_Expr) {
	ref := e.GetLexpr().GetColumnRef()
	if ref == nil || !f.tenantColumn(ref) {
		return
	}
	op := sqltext.Last(e.GetName())
	several := false
	switch e.GetKind() {
	case pg.A_Expr_Kind_AEXPR_IN:
		several = op != "=" || !slices.ContainsFunc(e.GetRexpr().GetList().GetItems(), constant)
	case pg.A_Expr_Kind_AEXPR_OP_ANY, pg.A_Expr_Kind_AEXPR_OP_ALL, pg.A_Expr_Kind_AEXPR_BETWEEN, pg.A_Expr_Kind_AEXPR_DISTINCT:
		several = true
	case pg.A_Expr_Kind_AEXPR_OP:
		several = op != "="
	default:
	}
	if several {
		c.reportf("Q10", e.GetLocation(), "the condition lets several tenants through; say why in -- tenancy:admin <reason>")
	}
}

// pinned says whether every tenant table of the statement is held to one tenant, and there is one.
func (c *checker) pinned(f *frame) bool {
	tenants, held := 0, 0
	for _, r := range f.from {
		if r.tenants {
			tenants++
			if f.fixes(r) {
				held++
			}
		}
	}
	return tenants > 0 && tenants == held
}

// fixes says whether a condition holds the relation's tenant to one value: of a parameter,
// a statement around it, or a table that is held itself.
func (f *frame) fixes(r relation) bool { return f.fixed(r, map[string]bool{}) }

func (f *frame) fixed(r relation, seen map[string]bool) bool {
	seen[r.alias] = true
	for _, n := range f.conditions {
		e := n.GetAExpr()
		if e.GetKind() != pg.A_Expr_Kind_AEXPR_OP || sqltext.Last(e.GetName()) != "=" {
			continue
		}
		mine, other := e.GetLexpr(), e.GetRexpr()
		if !f.isTenantOf(mine, r) {
			mine, other = other, mine
		}
		if !f.isTenantOf(mine, r) {
			continue
		}
		ref := other.GetColumnRef()
		if ref == nil {
			return true
		}
		of := f.resolve(ref)
		if of == nil || !f.holds(of) {
			return true // a column of a statement around it
		}
		if of.tenants && !seen[of.alias] && f.fixed(*of, seen) {
			return true
		}
	}
	for _, group := range f.paired {
		if slices.ContainsFunc(group, func(of relation) bool { return of.rv == r.rv }) &&
			slices.ContainsFunc(group, func(of relation) bool { return of.tenants && !seen[of.alias] && f.fixed(of, seen) }) {
			return true
		}
	}
	return false
}

func (f *frame) holds(r *relation) bool {
	return slices.ContainsFunc(f.from, func(own relation) bool { return own.rv == r.rv })
}

func (f *frame) isTenantOf(n *pg.Node, r relation) bool {
	ref := n.GetColumnRef()
	if ref == nil || sqltext.Last(ref.GetFields()) != schema.TenantColumn {
		return false
	}
	of := f.resolve(ref)
	return of != nil && of.rv == r.rv
}

// literal finds a comparison of the tenant column with a constant.
func (c *checker) literal(e *pg.A_Expr) {
	left, right := e.GetLexpr(), e.GetRexpr()
	if l, r := left.GetRowExpr(), right.GetRowExpr(); l != nil && r != nil {
		for i, n := range l.GetArgs() {
			if i < len(r.GetArgs()) && namesTenant(n) && constant(r.GetArgs()[i]) {
				c.literalAt(e.GetLocation())
			}
		}
		return
	}
	if namesTenant(right) {
		left, right = right, left
	}
	if namesTenant(left) && (constant(right) || slices.ContainsFunc(right.GetList().GetItems(), constant)) {
		c.literalAt(e.GetLocation())
	}
}

func (c *checker) literalAt(at int32) {
	c.reportf("Q2", at, "a tenant's id is written into the code; every other tenant runs this code too")
}

// cased finds CASE tenant_id WHEN 'constant'.
func (c *checker) cased(e *pg.CaseExpr) {
	if !namesTenant(e.GetArg()) {
		return
	}
	for _, when := range e.GetArgs() {
		if constant(when.GetCaseWhen().GetExpr()) {
			c.literalAt(e.GetLocation())
			return
		}
	}
}

// inserted finds constants for the tenant column in an INSERT.
func (c *checker) inserted(s *pg.InsertStmt) {
	at := slices.IndexFunc(s.GetCols(), func(n *pg.Node) bool { return n.GetResTarget().GetName() == schema.TenantColumn })
	if at < 0 {
		return
	}
	query := s.GetSelectStmt().GetSelectStmt()
	for _, row := range query.GetValuesLists() {
		if items := row.GetList().GetItems(); at < len(items) && constant(items[at]) {
			c.literalAt(s.GetCols()[at].GetResTarget().GetLocation())
		}
	}
	if list := query.GetTargetList(); at < len(list) && constant(list[at].GetResTarget().GetVal()) {
		c.literalAt(s.GetCols()[at].GetResTarget().GetLocation())
	}
}

// updated finds SET tenant_id = 'constant'.
func (c *checker) updated(list []*pg.Node) {
	for _, n := range list {
		if t := n.GetResTarget(); t.GetName() == schema.TenantColumn && constant(t.GetVal()) {
			c.literalAt(t.GetLocation())
		}
	}
}

// namesTenant says whether an expression is the tenant column, cast or not.
func namesTenant(n *pg.Node) bool {
	if cast := n.GetTypeCast(); cast != nil {
		n = cast.GetArg()
	}
	return n.GetColumnRef() != nil && sqltext.Last(n.GetColumnRef().GetFields()) == schema.TenantColumn
}

// constant says whether an expression is a constant string, cast or not.
func constant(n *pg.Node) bool {
	if cast := n.GetTypeCast(); cast != nil {
		n = cast.GetArg()
	}
	return n.GetAConst().GetSval() != nil
}
