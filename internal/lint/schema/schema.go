// Package schema knows an app's tables as its migrations describe them: which hold rows of
// tenants, their columns' types, their keys and indexes. It reads DDL and asks no database.
// Start at [Read].
package schema

import (
	"maps"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/rowhouse-platform/rowhouse/internal/lint/sqltext"
)

// TenantColumn is the column that makes a table one of tenants.
const TenantColumn = "tenant_id"

// AppSchema is where an app's tables are.
const AppSchema = "app"

// Schema is a set of tables. The zero Schema has none.
type Schema struct {
	// Tables are the tables by "schema.name".
	Tables map[string]*Table
	// Enums are the names of enumerated types.
	Enums map[string]bool
}

// Table is one table.
type Table struct {
	// Schema and Name are as written; Schema may be empty.
	Schema, Name string
	// Columns are the types by column, in lower case without modifiers; an array ends in [].
	Columns map[string]string
	// Indexes are its keys and indexes.
	Indexes []Index
	// Secured says that a migration called rowhouse.secure for it.
	Secured bool
	// Global says that its comment begins with tenancy:global.
	Global bool
}

// Index is a key or an index.
type Index struct {
	// Name is its name, "" where PostgreSQL would choose it.
	Name string
	// Columns are its key columns in order; an expression is "" here.
	Columns []Column
	// Method is btree unless it was said otherwise.
	Method string
	// Unique and Primary say whether it is a key.
	Unique, Primary bool
}

// Column is a part of an index.
type Column struct {
	// Name is the column, "" for an expression.
	Name string
	// Function and Of are the function and the column of an expression like lower(title).
	Function, Of string
	// Desc says that it runs downwards.
	Desc bool
}

// Tenant says whether the table holds rows of tenants.
func (t *Table) Tenant() bool { return t != nil && t.Columns[TenantColumn] != "" }

// QualifiedName returns schema.name.
func (t *Table) QualifiedName() string { return qualified(t.Schema, t.Name) }

// Leads says whether the index begins with the tenant.
func (i Index) Leads() bool { return len(i.Columns) > 0 && i.Columns[0].Name == TenantColumn }

// Has says whether the column is one of the index's own columns.
func (i Index) Has(column string) bool {
	return slices.ContainsFunc(i.Columns, func(c Column) bool { return c.Name == column })
}

func qualified(schema, name string) string {
	if schema == "" {
		return name
	}
	return schema + "." + name
}

// Find returns a table by the name that a statement uses, nil when it is not known. A name
// without a schema finds the app's table.
func (s *Schema) Find(schema, name string) *Table {
	if s == nil {
		return nil
	}
	if t := s.Tables[qualified(schema, name)]; t != nil || schema != "" {
		return t
	}
	return s.Tables[qualified(AppSchema, name)]
}

// Known says whether any migration was read.
func (s *Schema) Known() bool { return s != nil && len(s.Tables) > 0 }

// Read adds what the statements of one migration do. Files are read in the order in which they run.
func (s *Schema) Read(statements []sqltext.Statement) {
	if s.Tables == nil {
		s.Tables, s.Enums = map[string]*Table{}, map[string]bool{}
	}
	for _, statement := range statements {
		s.apply(statement.Node)
	}
}

func (s *Schema) apply(n *pg.Node) {
	switch {
	case n.GetCreateStmt() != nil:
		s.create(n.GetCreateStmt())
	case n.GetCreateTableAsStmt() != nil:
		r := n.GetCreateTableAsStmt().GetInto().GetRel()
		s.Tables[qualified(r.GetSchemaname(), r.GetRelname())] = &Table{
			Schema: r.GetSchemaname(), Name: r.GetRelname(), Columns: map[string]string{},
		}
	case n.GetAlterTableStmt() != nil:
		s.alter(n.GetAlterTableStmt())
	case n.GetIndexStmt() != nil:
		if t := s.relation(n.GetIndexStmt().GetRelation()); t != nil {
			t.Indexes = append(t.Indexes, index(n.GetIndexStmt()))
		}
	case n.GetCreateEnumStmt() != nil:
		s.Enums[sqltext.Last(n.GetCreateEnumStmt().GetTypeName())] = true
	case n.GetCommentStmt() != nil:
		s.comment(n.GetCommentStmt())
	case n.GetDropStmt() != nil:
		s.drop(n.GetDropStmt())
	case n.GetRenameStmt() != nil:
		s.rename(n.GetRenameStmt())
	case n.GetSelectStmt() != nil:
		for _, name := range Secured(n) {
			schema, table, ok := strings.Cut(name, ".")
			if !ok {
				schema, table = "", name
			}
			if t := s.Find(schema, table); t != nil {
				t.Secured = true
			}
		}
	}
}

func (s *Schema) relation(r *pg.RangeVar) *Table { return s.Find(r.GetSchemaname(), r.GetRelname()) }

// Secured returns the tables for which a SELECT calls rowhouse.secure.
func Secured(n *pg.Node) []string {
	var names []string
	for _, target := range n.GetSelectStmt().GetTargetList() {
		call := target.GetResTarget().GetVal().GetFuncCall()
		if call == nil || strings.Join(sqltext.Strings(call.GetFuncname()), ".") != "rowhouse.secure" || len(call.GetArgs()) == 0 {
			continue
		}
		arg := call.GetArgs()[0]
		if cast := arg.GetTypeCast(); cast != nil {
			arg = cast.GetArg()
		}
		names = append(names, strings.ReplaceAll(arg.GetAConst().GetSval().GetSval(), `"`, ""))
	}
	return names
}

func (s *Schema) create(c *pg.CreateStmt) {
	r := c.GetRelation()
	key := qualified(r.GetSchemaname(), r.GetRelname())
	if c.GetIfNotExists() && s.Tables[key] != nil {
		return
	}
	t := &Table{Schema: r.GetSchemaname(), Name: r.GetRelname(), Columns: map[string]string{}}
	for _, parent := range c.GetInhRelations() { // a partition has its parent's columns
		if p := s.relation(parent.GetRangeVar()); p != nil {
			maps.Copy(t.Columns, p.Columns)
			t.Indexes, t.Secured = append(t.Indexes, p.Indexes...), t.Secured || p.Secured
		}
	}
	for _, element := range c.GetTableElts() {
		if d := element.GetColumnDef(); d != nil {
			t.addColumn(d)
		}
		if k := element.GetConstraint(); k != nil {
			t.addKey(k)
		}
	}
	s.Tables[key] = t
}

func (t *Table) addColumn(d *pg.ColumnDef) {
	t.Columns[d.GetColname()] = TypeName(d.GetTypeName())
	for _, c := range d.GetConstraints() {
		k := c.GetConstraint()
		if k.GetContype() == pg.ConstrType_CONSTR_PRIMARY || k.GetContype() == pg.ConstrType_CONSTR_UNIQUE {
			t.Indexes = append(t.Indexes, Index{
				Name: k.GetConname(), Columns: []Column{{Name: d.GetColname()}}, Method: "btree",
				Unique: true, Primary: k.GetContype() == pg.ConstrType_CONSTR_PRIMARY,
			})
		}
	}
}

func (t *Table) addKey(k *pg.Constraint) {
	primary := k.GetContype() == pg.ConstrType_CONSTR_PRIMARY
	if !primary && k.GetContype() != pg.ConstrType_CONSTR_UNIQUE {
		return
	}
	key := Index{Name: k.GetConname(), Method: "btree", Unique: true, Primary: primary}
	for _, name := range sqltext.Strings(k.GetKeys()) {
		key.Columns = append(key.Columns, Column{Name: name})
	}
	if key.Name == "" && primary {
		key.Name = t.Name + "_pkey"
	}
	t.Indexes = append(t.Indexes, key)
}

func index(i *pg.IndexStmt) Index {
	out := Index{Name: i.GetIdxname(), Method: i.GetAccessMethod(), Unique: i.GetUnique()}
	for _, p := range i.GetIndexParams() {
		e := p.GetIndexElem()
		c := Column{Name: e.GetName(), Desc: e.GetOrdering() == pg.SortByDir_SORTBY_DESC}
		if call := e.GetExpr().GetFuncCall(); call != nil {
			c.Function = sqltext.Last(call.GetFuncname())
			for _, arg := range call.GetArgs() {
				if ref := arg.GetColumnRef(); ref != nil {
					c.Of = sqltext.Last(ref.GetFields())
				}
			}
		}
		out.Columns = append(out.Columns, c)
	}
	return out
}

func (s *Schema) alter(a *pg.AlterTableStmt) {
	t := s.relation(a.GetRelation())
	if t == nil {
		return
	}
	for _, n := range a.GetCmds() {
		c := n.GetAlterTableCmd()
		switch c.GetSubtype() {
		case pg.AlterTableType_AT_AddColumn:
			t.addColumn(c.GetDef().GetColumnDef())
		case pg.AlterTableType_AT_DropColumn:
			delete(t.Columns, c.GetName())
		case pg.AlterTableType_AT_AlterColumnType:
			t.Columns[c.GetName()] = TypeName(c.GetDef().GetColumnDef().GetTypeName())
		case pg.AlterTableType_AT_AddConstraint:
			t.addKey(c.GetDef().GetConstraint())
		case pg.AlterTableType_AT_DropConstraint:
			t.dropIndex(c.GetName())
		default:
		}
	}
}

func (t *Table) dropIndex(name string) {
	t.Indexes = slices.DeleteFunc(t.Indexes, func(i Index) bool { return i.Name == name })
}

func (s *Schema) comment(c *pg.CommentStmt) {
	if c.GetObjtype() != pg.ObjectType_OBJECT_TABLE {
		return
	}
	name := sqltext.Strings(c.GetObject().GetList().GetItems())
	if t := s.named(name); t != nil {
		t.Global = strings.HasPrefix(c.GetComment(), "tenancy:global")
	}
}

func (s *Schema) named(name []string) *Table {
	switch len(name) {
	case 1:
		return s.Find("", name[0])
	case 2:
		return s.Find(name[0], name[1])
	}
	return nil
}

func (s *Schema) drop(d *pg.DropStmt) {
	for _, o := range d.GetObjects() {
		name := sqltext.Strings(o.GetList().GetItems())
		switch d.GetRemoveType() {
		case pg.ObjectType_OBJECT_TABLE:
			if t := s.named(name); t != nil {
				delete(s.Tables, t.QualifiedName())
			}
		case pg.ObjectType_OBJECT_INDEX:
			for _, t := range s.Tables {
				t.dropIndex(name[len(name)-1])
			}
		default:
		}
	}
}

func (s *Schema) rename(r *pg.RenameStmt) {
	t := s.relation(r.GetRelation())
	if t == nil {
		return
	}
	switch r.GetRenameType() {
	case pg.ObjectType_OBJECT_TABLE:
		delete(s.Tables, t.QualifiedName())
		t.Name = r.GetNewname()
		s.Tables[t.QualifiedName()] = t
	case pg.ObjectType_OBJECT_COLUMN:
		t.Columns[r.GetNewname()] = t.Columns[r.GetSubname()]
		delete(t.Columns, r.GetSubname())
	default:
	}
}

// TypeName returns a type without schema and modifiers; an array ends in [].
func TypeName(t *pg.TypeName) string {
	name := sqltext.Last(t.GetNames())
	if len(t.GetArrayBounds()) > 0 {
		name += "[]"
	}
	return name
}
