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

// ddl judges one statement of a migration.
func (c *checker) ddl(n *pg.Node) {
	switch {
	case n.GetCreateStmt() != nil:
		c.createTable(n.GetCreateStmt())
	case n.GetCreateTableAsStmt() != nil:
		c.createAs(n.GetCreateTableAsStmt())
	case n.GetAlterTableStmt() != nil:
		c.alterTable(n.GetAlterTableStmt())
	case n.GetIndexStmt() != nil:
		c.createIndex(n.GetIndexStmt())
	case n.GetViewStmt() != nil:
		c.view(n.GetViewStmt())
	case n.GetGrantStmt() != nil:
		c.grant(n.GetGrantStmt())
	case n.GetAlterDefaultPrivilegesStmt() != nil:
		c.grant(n.GetAlterDefaultPrivilegesStmt().GetAction())
	case n.GetCreatePolicyStmt() != nil, n.GetAlterPolicyStmt() != nil,
		n.GetDropStmt() != nil && n.GetDropStmt().GetRemoveType() == pg.ObjectType_OBJECT_POLICY:
		c.rewritef("Q1", 0, "SELECT rowhouse.secure('<table>')", "a policy written by hand can widen what rowhouse.secure allows")
	case n.GetCreateFunctionStmt() != nil:
		c.function(n.GetCreateFunctionStmt().GetFuncname(), n.GetCreateFunctionStmt().GetOptions())
	case n.GetAlterFunctionStmt() != nil:
		c.function(n.GetAlterFunctionStmt().GetFunc().GetObjname(), n.GetAlterFunctionStmt().GetActions())
	case n.GetGrantRoleStmt() != nil:
		c.grantRole(n.GetGrantRoleStmt())
	case n.GetTruncateStmt() != nil:
		for _, r := range n.GetTruncateStmt().GetRelations() {
			if tenants, _ := c.table(r.GetRangeVar()); tenants {
				c.reportf("Q10", r.GetRangeVar().GetLocation(), "a migration removes every tenant's rows of %s", name(r.GetRangeVar()))
			}
		}
	case n.GetCreateRoleStmt() != nil:
		c.role(n.GetCreateRoleStmt().GetOptions())
	case n.GetAlterRoleStmt() != nil:
		c.role(n.GetAlterRoleStmt().GetOptions())
	case n.GetCopyStmt() != nil:
		c.copyFrom(n.GetCopyStmt())
	}
	c.literals(n)
}

// literals finds tenant ids in CHECKs, views and partial indexes.
func (c *checker) literals(n *pg.Node) {
	sqltext.Walk(n, func(m proto.Message) bool {
		switch e := m.(type) {
		case *pg.A_Expr:
			c.literal(e)
		case *pg.FuncCall, *pg.TypeCast:
			c.nameInString(e)
		case *pg.ColumnDef:
			for _, k := range e.GetConstraints() {
				preset := k.GetConstraint().GetContype() == pg.ConstrType_CONSTR_DEFAULT && constant(k.GetConstraint().GetRawExpr())
				if preset && e.GetColname() == schema.TenantColumn {
					c.literalAt(e.GetLocation())
				}
			}
		}
		return true
	})
}

func (c *checker) createTable(s *pg.CreateStmt) {
	r := s.GetRelation()
	if r.GetRelpersistence() == "t" {
		c.reportf("Q4", r.GetLocation(), "temporary tables stay in the session and shadow names for the next tenant")
		return
	}
	if r.GetSchemaname() == "" {
		c.rewritef("Q8", r.GetLocation(), schema.AppSchema+"."+r.GetRelname(), "table %s without its schema", r.GetRelname())
	}
	if s.GetPartbound() != nil {
		c.partition(s)
		return
	}
	var tenant *pg.ColumnDef
	for _, e := range s.GetTableElts() {
		if d := e.GetColumnDef(); d.GetColname() == schema.TenantColumn {
			tenant = d
		}
	}
	_, known := c.table(r)
	if tenant == nil {
		if (known == nil || !known.Global && !known.Tenant()) && len(s.GetInhRelations()) == 0 {
			c.rewritef("Q10", r.GetLocation(), "COMMENT ON TABLE "+name(r)+" IS 'tenancy:global <reason>'",
				"%s has no %s, so all tenants share its rows", name(r), schema.TenantColumn)
		}
		return
	}
	if known == nil || !known.Secured {
		c.rewritef("Q1", r.GetLocation(), "SELECT rowhouse.secure('"+name(r)+"')", "%s holds tenants' rows and is not secured", name(r))
	}
	c.tableKeys(s, tenant)
}

// partition judges PARTITION OF: a bound that is one tenant's id is a literal.
func (c *checker) partition(s *pg.CreateStmt) {
	_, parent := c.table(s.GetInhRelations()[0].GetRangeVar())
	bound := s.GetPartbound()
	if parent == nil || bound.GetStrategy() != "l" || !slices.ContainsFunc(bound.GetListdatums(), isUUID) {
		return
	}
	c.literalAt(bound.GetLocation())
}

// isUUID says whether a constant looks like an id.
func isUUID(n *pg.Node) bool {
	if cast := n.GetTypeCast(); cast != nil {
		n = cast.GetArg()
	}
	s := n.GetAConst().GetSval().GetSval()
	return len(s) == 36 && strings.Count(s, "-") == 4
}

// tableKeys judges the keys of a new tenant table.
func (c *checker) tableKeys(s *pg.CreateStmt, tenant *pg.ColumnDef) {
	notNull := hasConstraint(tenant, pg.ConstrType_CONSTR_NOTNULL) || hasConstraint(tenant, pg.ConstrType_CONSTR_PRIMARY)
	for _, e := range s.GetTableElts() {
		if d := e.GetColumnDef(); d != nil {
			c.columnKeys(d)
		}
		if k := e.GetConstraint(); k != nil {
			c.key(k)
			primary := k.GetContype() == pg.ConstrType_CONSTR_PRIMARY
			notNull = notNull || primary && slices.Contains(sqltext.Strings(k.GetKeys()), schema.TenantColumn)
		}
	}
	if !notNull {
		c.rewritef("Q1", tenant.GetLocation(), schema.TenantColumn+" uuid NOT NULL DEFAULT rowhouse.tenant_id()",
			"%s may be null: such a row is nobody's", schema.TenantColumn)
	}
}

func hasConstraint(d *pg.ColumnDef, of pg.ConstrType) bool {
	return slices.ContainsFunc(d.GetConstraints(), func(n *pg.Node) bool { return n.GetConstraint().GetContype() == of })
}

// columnKeys judges keys that are written beside one column.
func (c *checker) columnKeys(d *pg.ColumnDef) {
	for _, n := range d.GetConstraints() {
		switch k := n.GetConstraint(); k.GetContype() {
		case pg.ConstrType_CONSTR_PRIMARY, pg.ConstrType_CONSTR_UNIQUE:
			if d.GetColname() != schema.TenantColumn {
				c.keyAt(k, []string{d.GetColname()})
			}
		case pg.ConstrType_CONSTR_FOREIGN:
			c.foreign(k, []string{d.GetColname()})
		default:
		}
	}
}

// key judges a constraint of a table.
func (c *checker) key(k *pg.Constraint) {
	switch k.GetContype() {
	case pg.ConstrType_CONSTR_PRIMARY, pg.ConstrType_CONSTR_UNIQUE:
		columns := sqltext.Strings(k.GetKeys())
		if len(columns) > 0 && columns[0] != schema.TenantColumn {
			c.keyAt(k, columns)
		}
	case pg.ConstrType_CONSTR_EXCLUSION:
		list := k.GetExclusions()
		if len(list) > 0 && list[0].GetList().GetItems()[0].GetIndexElem().GetName() != schema.TenantColumn {
			c.reportf("Q7", k.GetLocation(), "an exclusion that does not begin with %s meets rows of other tenants", schema.TenantColumn)
		}
	case pg.ConstrType_CONSTR_FOREIGN:
		c.foreign(k, sqltext.Strings(k.GetFkAttrs()))
	default:
	}
}

func (c *checker) keyAt(k *pg.Constraint, columns []string) {
	columns = slices.DeleteFunc(slices.Clone(columns), func(s string) bool { return s == schema.TenantColumn })
	word := "UNIQUE"
	if k.GetContype() == pg.ConstrType_CONSTR_PRIMARY {
		word = "PRIMARY KEY"
	}
	c.rewritef("Q7", k.GetLocation(), word+" ("+schema.TenantColumn+", "+strings.Join(columns, ", ")+")",
		"a key that does not begin with %s tells whether another tenant has the value", schema.TenantColumn)
}

// foreign judges a foreign key to a tenant table.
func (c *checker) foreign(k *pg.Constraint, columns []string) {
	tenants, _ := c.table(k.GetPktable())
	if !tenants {
		return
	}
	mine := slices.Index(columns, schema.TenantColumn)
	theirs := sqltext.Strings(k.GetPkAttrs())
	paired := mine >= 0 && (len(theirs) == 0 || mine < len(theirs) && theirs[mine] == schema.TenantColumn)
	if !paired {
		c.rewritef("Q7", k.GetLocation(),
			fmt.Sprintf("FOREIGN KEY (%[1]s, …) REFERENCES %[2]s (%[1]s, …)", schema.TenantColumn, name(k.GetPktable())),
			"a foreign key that does not pair %s lets a row belong to another tenant's parent", schema.TenantColumn)
	}
}

// createAs judges CREATE TABLE AS and materialized views.
func (c *checker) createAs(s *pg.CreateTableAsStmt) {
	r := s.GetInto().GetRel()
	if r.GetRelpersistence() == "t" {
		c.reportf("Q4", r.GetLocation(), "temporary tables stay in the session and shadow names for the next tenant")
		return
	}
	if from := c.readsTenants(s.GetQuery()); from != "" {
		c.reportf("Q1", r.GetLocation(), "%s keeps a copy of %s, over which there is no row security", name(r), from)
	}
}

// readsTenants returns a tenant table that a query reads.
func (c *checker) readsTenants(n *pg.Node) (found string) {
	sqltext.Walk(n, func(m proto.Message) bool {
		if r, ok := m.(*pg.RangeVar); ok && found == "" {
			if tenants, _ := c.table(r); tenants {
				found = name(r)
			}
		}
		return true
	})
	return found
}

func (c *checker) view(s *pg.ViewStmt) {
	from := c.readsTenants(s.GetQuery())
	invoker := slices.ContainsFunc(s.GetOptions(), func(n *pg.Node) bool {
		d := n.GetDefElem()
		value := strings.ToLower(d.GetArg().GetString_().GetSval())
		return d.GetDefname() == "security_invoker" && value != "false" && value != "off" && value != "0"
	})
	if from != "" && !invoker {
		c.rewritef("Q1", s.GetView().GetLocation(), "CREATE VIEW "+name(s.GetView())+" WITH (security_invoker = true) AS …",
			"the view reads %s with its owner's rights", from)
	}
}

func (c *checker) alterTable(s *pg.AlterTableStmt) {
	tenants, t := c.table(s.GetRelation())
	if !tenants {
		return
	}
	for _, n := range s.GetCmds() {
		cmd := n.GetAlterTableCmd()
		switch cmd.GetSubtype() {
		case pg.AlterTableType_AT_DisableRowSecurity, pg.AlterTableType_AT_NoForceRowSecurity:
			c.reportf("Q1", s.GetRelation().GetLocation(), "row security of %s is taken away", name(s.GetRelation()))
		case pg.AlterTableType_AT_ChangeOwner:
			if owner := cmd.GetNewowner().GetRolename(); owner != "rowhouse_owner" {
				c.rewritef("Q1", s.GetRelation().GetLocation(), "OWNER TO rowhouse_owner", "an owner may switch row security off")
			}
		case pg.AlterTableType_AT_AddConstraint:
			c.key(cmd.GetDef().GetConstraint())
		case pg.AlterTableType_AT_AddColumn:
			if d := cmd.GetDef().GetColumnDef(); d.GetColname() != schema.TenantColumn {
				c.columnKeys(d)
			} else if t != nil && !t.Secured {
				c.rewritef("Q1", s.GetRelation().GetLocation(), "SELECT rowhouse.secure('"+name(s.GetRelation())+"')",
					"%s holds tenants' rows and is not secured", name(s.GetRelation()))
			}
		case pg.AlterTableType_AT_DropNotNull:
			if cmd.GetName() == schema.TenantColumn {
				c.reportf("Q1", s.GetRelation().GetLocation(), "%s may be null: such a row is nobody's", schema.TenantColumn)
			}
		default:
		}
	}
}

func (c *checker) createIndex(s *pg.IndexStmt) {
	tenants, _ := c.table(s.GetRelation())
	if !tenants || len(s.GetIndexParams()) == 0 || s.GetIndexParams()[0].GetIndexElem().GetName() == schema.TenantColumn {
		return
	}
	rule, why := "Q9", "an index that does not lead with %s walks through all tenants' rows"
	if s.GetUnique() {
		rule, why = "Q7", "a unique index that does not lead with %s tells whether another tenant has the value"
	}
	c.rewritef(rule, s.GetRelation().GetLocation(), "("+schema.TenantColumn+", …)", why, schema.TenantColumn)
}

// grant judges rights that row security does not bound.
func (c *checker) grant(s *pg.GrantStmt) {
	if !s.GetIsGrant() {
		return
	}
	for _, n := range s.GetGrantees() {
		if n.GetRoleSpec().GetRoletype() == pg.RoleSpecType_ROLESPEC_PUBLIC {
			c.reportf("Q1", 0, "a right for PUBLIC is one for every role of the server")
			return
		}
	}
	var rights []string
	for _, n := range s.GetPrivileges() {
		rights = append(rights, strings.ToUpper(n.GetAccessPriv().GetPrivName()))
	}
	wide := []string{"TRUNCATE", "REFERENCES", "TRIGGER"}
	switch s.GetObjtype() {
	case pg.ObjectType_OBJECT_TABLE:
		if len(rights) == 0 {
			c.rewritef("Q1", 0, "SELECT rowhouse.secure('<table>'), which grants what an app needs",
				"ALL holds TRUNCATE, which row security does not bound")
			return
		}
	case pg.ObjectType_OBJECT_SCHEMA, pg.ObjectType_OBJECT_DATABASE:
		wide = []string{"CREATE", "TEMP", "TEMPORARY"}
		if len(rights) == 0 {
			c.reportf("Q1", 0, "ALL holds CREATE: who makes objects here can shadow those of tenants")
			return
		}
	default:
		return
	}
	for _, right := range rights {
		if slices.Contains(wide, right) {
			c.reportf("Q1", 0, "row security does not bound %s", right)
		}
	}
}

// grantRole judges membership in PostgreSQL's own roles, such as pg_read_all_data.
func (c *checker) grantRole(s *pg.GrantRoleStmt) {
	for _, n := range s.GetGrantedRoles() {
		if role := n.GetAccessPriv().GetPrivName(); s.GetIsGrant() && strings.HasPrefix(role, "pg_") {
			c.reportf("Q1", 0, "%s is a right over all tables, or over the server", role)
		}
	}
}

func (c *checker) function(of, options []*pg.Node) {
	for _, n := range options {
		if d := n.GetDefElem(); d.GetDefname() == "security" && d.GetArg().GetBoolean().GetBoolval() {
			c.rewritef("Q1", 0, "SECURITY INVOKER", "%s runs with its owner's rights, whoever calls it", strings.Join(sqltext.Strings(of), "."))
		}
	}
}

func (c *checker) role(options []*pg.Node) {
	for _, n := range options {
		d := n.GetDefElem()
		name := d.GetDefname()
		if (name == "bypassrls" || name == "superuser") && d.GetArg().GetBoolean().GetBoolval() {
			c.reportf("Q1", 0, "row security does not hold for a role with %s", strings.ToUpper(name))
		}
	}
}
