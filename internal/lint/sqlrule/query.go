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

// frame is one SELECT, INSERT, UPDATE, DELETE or MERGE with the relations that it names.
type frame struct {
	parent *frame
	from   []relation
	ctes   map[string]bool
	// conditions are what WHERE and ON demand, all of it.
	conditions []*pg.Node
	// paired are relations whose tenants USING or NATURAL makes equal.
	paired [][]relation
}

type relation struct {
	alias   string
	rv      *pg.RangeVar
	tenants bool
	table   *schema.Table // nil when its columns are not known
}

// query checks one statement and those inside of it.
func (c *checker) query(m proto.Message, parent *frame) {
	f := &frame{parent: parent, ctes: map[string]bool{}}
	for p := parent; p != nil; p = p.parent {
		for cte := range p.ctes {
			f.ctes[cte] = true
		}
	}
	switch s := m.(type) {
	case *pg.SelectStmt:
		c.with(f, s.GetWithClause())
		c.from(f, s.GetFromClause()...)
		f.demand(s.GetWhereClause())
		c.stars(f, s.GetTargetList(), "SELECT")
		c.page(f, s)
		c.grouped(f, s)
	case *pg.InsertStmt:
		c.with(f, s.GetWithClause())
		c.target(f, s.GetRelation())
		c.inserted(s)
		c.conflict(f, s.GetOnConflictClause())
		c.stars(f, s.GetReturningList(), "RETURNING")
	case *pg.UpdateStmt:
		c.with(f, s.GetWithClause())
		c.target(f, s.GetRelation())
		c.from(f, s.GetFromClause()...)
		f.demand(s.GetWhereClause())
		c.stars(f, s.GetReturningList(), "RETURNING")
		c.updated(s.GetTargetList())
	case *pg.DeleteStmt:
		c.with(f, s.GetWithClause())
		c.target(f, s.GetRelation())
		c.from(f, s.GetUsingClause()...)
		f.demand(s.GetWhereClause())
		c.stars(f, s.GetReturningList(), "RETURNING")
	case *pg.MergeStmt:
		c.with(f, s.GetWithClause())
		c.target(f, s.GetRelation())
		c.from(f, s.GetSourceRelation())
		f.demand(s.GetJoinCondition())
		c.stars(f, s.GetReturningList(), "RETURNING")
	}
	if _, insert := m.(*pg.InsertStmt); !insert {
		c.predicates(f)
	}
	c.inside(m, f)
}

func (c *checker) with(f *frame, w *pg.WithClause) {
	for _, n := range w.GetCtes() {
		f.ctes[n.GetCommonTableExpr().GetCtename()] = true
	}
}

func (c *checker) target(f *frame, r *pg.RangeVar) {
	c.from(f, &pg.Node{Node: &pg.Node_RangeVar{RangeVar: r}})
}

// from adds the relations of a FROM clause.
func (c *checker) from(f *frame, nodes ...*pg.Node) {
	for _, n := range nodes {
		if j := n.GetJoinExpr(); j != nil {
			first := len(f.from)
			c.from(f, j.GetLarg(), j.GetRarg())
			f.demand(j.GetQuals())
			if j.GetIsNatural() || slices.Contains(sqltext.Strings(j.GetUsingClause()), schema.TenantColumn) {
				f.paired = append(f.paired, slices.Clone(f.from[first:]))
			}
			continue
		}
		r := n.GetRangeVar()
		if r == nil || r.GetSchemaname() == "" && f.ctes[r.GetRelname()] {
			continue
		}
		tenants, t := c.table(r)
		alias := r.GetAlias().GetAliasname()
		if alias == "" {
			alias = r.GetRelname()
		}
		f.from = append(f.from, relation{alias, r, tenants, t})
	}
}

// demand adds the parts of a condition that are joined by AND.
func (f *frame) demand(n *pg.Node) {
	if n == nil {
		return
	}
	if b := n.GetBoolExpr(); b != nil && b.GetBoolop() == pg.BoolExprType_AND_EXPR {
		for _, arg := range b.GetArgs() {
			f.demand(arg)
		}
		return
	}
	f.conditions = append(f.conditions, n)
}

// inside checks what stands inside of a statement, deeper statements as such.
func (c *checker) inside(m proto.Message, f *frame) {
	sqltext.Children(m, func(child proto.Message) {
		switch n := child.(type) {
		case *pg.SelectStmt, *pg.InsertStmt, *pg.UpdateStmt, *pg.DeleteStmt, *pg.MergeStmt:
			c.query(n, f)
			return
		case *pg.SubLink:
			if n.GetSubLinkType() == pg.SubLinkType_EXISTS_SUBLINK {
				dropStar(n)
			}
		case *pg.RangeVar:
			c.named(n, f)
		case *pg.Alias:
			c.alias(n.GetAliasname())
		case *pg.CommonTableExpr:
			c.alias(n.GetCtename())
		case *pg.FuncCall:
			c.call(n)
			c.nameInString(n)
		case *pg.TypeCast:
			c.nameInString(n)
		case *pg.A_Expr:
			c.literal(n)
		case *pg.CaseExpr:
			c.cased(n)
		}
		c.inside(child, f)
	})
}

// alias judges a name that a statement gives to rows.
func (c *checker) alias(name string) {
	if name == schema.AppSchema && c.source == Sealed {
		c.reportf("Q8", 0, "the name %[1]s for rows is taken for the schema %[1]s, in whose place a tenant's own is put", name)
	}
}

// dropStar takes the list of EXISTS (SELECT * …) away: nothing is selected there.
func dropStar(s *pg.SubLink) {
	if q := s.GetSubselect().GetSelectStmt(); q != nil {
		q.TargetList = nil
	}
}

// named judges a relation by its name.
func (c *checker) named(r *pg.RangeVar, f *frame) {
	at := r.GetLocation()
	relation := r.GetRelname()
	switch in := r.GetSchemaname(); {
	case c.source == Sealed && at >= 0 && strings.HasPrefix(strings.ToLower(c.text[at:]), `u&"`):
		c.rewritef("Q8", at, schema.AppSchema+"."+relation, "a name with Unicode escapes is not found as that of a schema")
	case r.GetRelpersistence() == "t" || in == "pg_temp":
		c.reportf("Q4", at, "temporary tables stay in the session and shadow names for the next tenant")
	case in == "pg_catalog", in == "information_schema", in == "" && strings.HasPrefix(relation, "pg_"):
		if c.source != Migration {
			c.reportf("Q6", at, "%s describes all tenants, not one", relation)
		}
	case in == "rowhouse":
		if c.source == Sealed {
			c.reportf("Q10", at, "%s.%s is about all tenants", in, relation)
		}
	case in == "" && !f.ctes[relation]:
		if tenants, _ := c.table(r); tenants || c.source == Sealed && !c.global(r) {
			c.rewritef("Q8", at, schema.AppSchema+"."+relation, "table %s without its schema is not found in a schema of its own", relation)
		}
	}
}

func (c *checker) global(r *pg.RangeVar) bool {
	t := c.tables.Find(r.GetSchemaname(), r.GetRelname())
	return t != nil && t.Schema == ""
}

// call judges a function by its name.
func (c *checker) call(n *pg.FuncCall) {
	f := strings.ToLower(sqltext.Last(n.GetFuncname()))
	at := n.GetLocation()
	switch {
	case f == "set_config":
		c.reportf("Q3", at, "set_config changes the session; the tenant is set by tenantdb alone")
	case strings.HasPrefix(f, "pg_advisory"), strings.HasPrefix(f, "pg_try_advisory"):
		c.reportf("Q4", at, "advisory locks have one space for all tenants; one tenant can stop the others")
	case f == "pg_notify":
		c.reportf("Q4", at, "NOTIFY reaches every session of the database, of any tenant")
	case strings.HasPrefix(f, "lo_"), f == "loread", f == "lowrite":
		c.reportf("Q4", at, "large objects are not under row security")
	case c.source != Migration && (strings.HasPrefix(f, "pg_stat") || strings.HasPrefix(f, "pg_") && strings.HasSuffix(f, "_size")):
		c.reportf("Q6", at, "%s counts every tenant's rows", f)
	}
}

// stars finds SELECT * and RETURNING * over a tenant table.
func (c *checker) stars(f *frame, list []*pg.Node, verb string) {
	for _, n := range list {
		ref := n.GetResTarget().GetVal().GetColumnRef()
		fields := ref.GetFields()
		if len(fields) == 0 || fields[len(fields)-1].GetAStar() == nil {
			continue
		}
		for _, r := range f.from {
			named := len(fields) == 1 || fields[len(fields)-2].GetString_().GetSval() == r.alias
			if r.tenants && named {
				c.rewritef("Q8", ref.GetLocation(), columnList(r.table), "%s * of %s changes its meaning with the next migration", verb, name(r.rv))
				break
			}
		}
	}
}

func columnList(t *schema.Table) string {
	if t == nil {
		return ""
	}
	var columns []string
	for column := range t.Columns {
		if column != schema.TenantColumn {
			columns = append(columns, column)
		}
	}
	slices.Sort(columns)
	return strings.Join(columns, ", ")
}

// conflict judges ON CONFLICT.
func (c *checker) conflict(f *frame, on *pg.OnConflictClause) {
	target := f.from[len(f.from)-1]
	if on == nil || on.GetInfer() == nil || !target.tenants {
		return
	}
	var columns []string
	for _, e := range on.GetInfer().GetIndexElems() {
		columns = append(columns, e.GetIndexElem().GetName())
	}
	if constraint := on.GetInfer().GetConname(); constraint != "" {
		key := keyOf(target.table, constraint)
		if key == nil || key.Has(schema.TenantColumn) {
			return
		}
	} else if slices.Contains(columns, schema.TenantColumn) {
		return
	}
	instead := ""
	if len(columns) > 0 {
		instead = fmt.Sprintf("ON CONFLICT (%s, %s)", schema.TenantColumn, strings.Join(columns, ", "))
	}
	c.rewritef("Q7", on.GetLocation(), instead,
		"ON CONFLICT on %s without %s meets rows of other tenants", name(target.rv), schema.TenantColumn)
}

// grouped finds queries that tell tenants apart.
func (c *checker) grouped(f *frame, s *pg.SelectStmt) {
	lists := slices.Concat(s.GetGroupClause(), s.GetDistinctClause())
	for _, sort := range s.GetSortClause() {
		lists = append(lists, sort.GetSortBy().GetNode())
	}
	distinct := len(s.GetDistinctClause()) > 0
	for _, n := range s.GetTargetList() {
		if distinct || c.source == Raw || c.source == Control {
			lists = append(lists, n.GetResTarget().GetVal())
		}
	}
	if c.source != Sealed && c.pinned(f) {
		return
	}
	for _, n := range lists {
		if ref := n.GetColumnRef(); ref != nil && f.tenantColumn(ref) {
			c.reportf("Q10", ref.GetLocation(),
				"%s in the result, GROUP BY or ORDER BY: the statement is about several tenants; say why in -- tenancy:admin <reason>",
				schema.TenantColumn)
			return
		}
	}
}

// page judges ORDER BY … LIMIT on one tenant table.
func (c *checker) page(f *frame, s *pg.SelectStmt) {
	if c.source != Sealed || s.GetLimitCount() == nil || len(s.GetSortClause()) == 0 ||
		len(f.from) != 1 || len(s.GetFromClause()) != 1 || len(s.GetGroupClause()) > 0 || len(s.GetDistinctClause()) > 0 {
		return
	}
	t := f.from[0].table
	if !t.Tenant() {
		return
	}
	bound := f.bound()
	var order []string
	var at int32
	for _, n := range s.GetSortClause() {
		ref := n.GetSortBy().GetNode().GetColumnRef()
		column := sqltext.Last(ref.GetFields())
		if ref == nil || t.Columns[column] == "" {
			break // an expression, or a name of the result: plan lint will tell
		}
		if !slices.Contains(bound, column) {
			order = append(order, column)
			at = max(at, ref.GetLocation())
		}
	}
	if len(order) == 0 || slices.ContainsFunc(t.Indexes, func(i schema.Index) bool { return serves(i, bound, order[0]) }) {
		return
	}
	at = s.GetSortClause()[0].GetSortBy().GetNode().GetColumnRef().GetLocation()
	c.rewritef("Q9", at,
		fmt.Sprintf("an index: CREATE INDEX ON %s (%s, %s)", t.QualifiedName(), schema.TenantColumn, strings.Join(order, ", ")),
		"no index of %s leads with %s and goes on in the order of %s", t.QualifiedName(), schema.TenantColumn, strings.Join(order, ", "))
}

// bound returns the columns that the conditions fix to one value.
func (f *frame) bound() []string {
	var out []string
	for _, n := range f.conditions {
		e := n.GetAExpr()
		if e.GetKind() != pg.A_Expr_Kind_AEXPR_OP || sqltext.Last(e.GetName()) != "=" {
			continue
		}
		for _, side := range []*pg.Node{e.GetLexpr(), e.GetRexpr()} {
			if ref := side.GetColumnRef(); ref != nil {
				out = append(out, sqltext.Last(ref.GetFields()))
			}
		}
	}
	return out
}

// serves says whether the index gives the tenant's rows in the order of a column, or at
// most one row.
func serves(i schema.Index, bound []string, order string) bool {
	if !i.Leads() || i.Method != "btree" && i.Method != "" {
		return false
	}
	for _, column := range i.Columns[1:] {
		if column.Name == order {
			return true
		}
		if !slices.Contains(bound, column.Name) {
			return false
		}
	}
	return i.Unique
}
