package gorule

import (
	"go/ast"
	"go/types"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/rowhouse-platform/rowhouse/internal/lint"
)

// isDriver says whether a package is a way to PostgreSQL other than tenantdb.
func isDriver(path string) bool {
	return path == "database/sql" || strings.HasPrefix(path, "github.com/jackc/pgx/") && !strings.HasSuffix(path, "/pgtype") ||
		path == "github.com/jackc/pgconn"
}

// mappers are packages that make or send SQL by themselves. Importing one is enough.
func mappers() []string {
	return []string{
		"gorm.io/gorm", "github.com/jmoiron/sqlx", "github.com/uptrace/bun", "entgo.io/ent", "github.com/lib/pq",
		"github.com/go-pg/pg", "github.com/volatiletech/sqlboiler", "xorm.io/xorm", "github.com/upper/db",
	}
}

// outside is G1: SQL that does not go through tenantdb. What pgx offers to read rows is no SQL.
func outside(p *pass) {
	if p.place.Kind != lint.Product {
		return
	}
	p.inspect(func(n ast.Node, _ []ast.Node) {
		switch n := n.(type) {
		case *ast.ImportSpec:
			path, err := strconv.Unquote(n.Path.Value)
			if err == nil && slices.ContainsFunc(mappers(), func(m string) bool { return path == m || strings.HasPrefix(path, m+"/") }) {
				p.reportf("G1", n.Pos(), "%s sends SQL by itself, past tenantdb", path)
			}
		case *ast.CallExpr:
			if f := p.callee(n); f != nil && reaches(f) {
				p.reportf("G1", n.Pos(), "%s reaches PostgreSQL past tenantdb, where the database is not told the tenant", shortName(f))
			}
		}
	})
}

func shortName(f *types.Func) string {
	if r := f.Signature().Recv(); r != nil {
		if _, name := named(r.Type()); name != "" {
			return f.Pkg().Name() + "." + name + "." + f.Name()
		}
	}
	return f.Pkg().Name() + "." + f.Name()
}

// reaches says whether a function opens a connection or sends something over one.
func reaches(f *types.Func) bool {
	if r := f.Signature().Recv(); r != nil {
		path, name := named(r.Type())
		if isDriver(path) {
			return slices.Contains([]string{"Conn", "Tx", "Pool", "PgConn", "DB", "Stmt", "BatchResults", "Pipeline"}, name) &&
				!slices.Contains([]string{"Close", "Stat", "Stats"}, f.Name())
		}
		return path != tenantdb && answersRows(f) && sqlParameter(f) >= 0
	}
	return isDriver(in(f)) && slices.Contains([]string{
		"Connect", "ConnectConfig", "ConnectWithOptions", "New", "NewWithConfig", "Open", "OpenDB", "BeginFunc", "BeginTxFunc",
	}, f.Name())
}

// tenantWord is how parameters with a tenant's id are called.
var tenantWord = regexp.MustCompile(`(?i)^tenant(_?(id|uid|uuid|key))$`)

// besideContext is G3.
func besideContext(p *pass) {
	if p.place.Kind != lint.Product {
		return
	}
	p.inspect(func(n ast.Node, stack []ast.Node) {
		t, ok := n.(*ast.FuncType)
		if !ok || t.Params == nil {
			return
		}
		if _, literal := stack[max(len(stack)-2, 0)].(*ast.FuncLit); literal {
			if _, defined := stack[max(len(stack)-3, 0)].(*ast.ValueSpec); !defined {
				return // its parameters are those of whoever calls it
			}
		}
		if !slices.ContainsFunc(t.Params.List, func(f *ast.Field) bool { return isContext(p.TypesInfo.TypeOf(f.Type)) }) {
			return
		}
		for _, field := range t.Params.List {
			of := p.TypesInfo.TypeOf(field.Type)
			for _, name := range field.Names {
				if tenantID(name.Name, of) {
					p.reportf("G3", name.Pos(), "%s names a tenant beside a context that holds one; take it from the context", name.Name)
				}
			}
			if len(field.Names) == 0 && tenantID("", of) {
				p.reportf("G3", field.Pos(), "a parameter names a tenant beside a context that holds one; take it from the context")
			}
		}
	})
}

// tenantID says whether a parameter is a tenant's id, by its type or by its name.
func tenantID(name string, of types.Type) bool {
	path, typeName := named(of)
	if path == tenantPath && (typeName == "ID" || typeName == "UID") || tenantWord.MatchString(typeName) {
		return true
	}
	if path == tenantPath {
		return false
	}
	if tenantWord.MatchString(name) {
		return true
	}
	if !strings.EqualFold(name, "tenant") {
		return false
	}
	switch u := of.Underlying().(type) {
	case *types.Basic:
		return u.Info()&(types.IsString|types.IsInteger) != 0
	case *types.Array:
		return u.Len() == 16
	}
	return false
}

// takenOut is G6.
func takenOut(p *pass) {
	if p.Pkg.Path() == tenantdb {
		return
	}
	p.inspect(func(n ast.Node, stack []ast.Node) {
		switch n := n.(type) {
		case *ast.CallExpr:
			p.opened(n)
		case *ast.SelectorExpr:
			path, name := named(p.TypesInfo.TypeOf(n.X))
			if path == tenantdb && name == "Cell" && n.Sel.Name == "DSN" && leaves(n, stack) {
				p.reportf("G6", n.Sel.Pos(), "the cell's DSN is taken out of tenantdb's configuration; what connects with it is not sealed")
			}
		case *ast.Comment:
			if strings.HasPrefix(n.Text, "//go:linkname") && strings.Contains(n.Text, tenantdb+".") {
				p.reportf("G6", n.Pos(), "linkname reaches into tenantdb")
			}
		}
	})
}

// opened finds calls that look behind tenantdb's types.
func (p *pass) opened(call *ast.CallExpr) {
	f := p.callee(call)
	if in(f) == tenantdb && f.Name() == "Conn" && f.Signature().Recv() != nil {
		p.reportf("G6", call.Pos(), "a connection is taken out of tenantdb; it is nil, so that nothing goes unsealed")
		return
	}
	reflects := in(f) == "reflect" && f.Name() == "ValueOf"
	if o := p.object(call.Fun); o != nil && in(o) == "unsafe" || o == types.Unsafe.Scope().Lookup("Pointer") {
		reflects = true
	}
	if !reflects || len(call.Args) != 1 {
		return
	}
	path, name := named(p.TypesInfo.TypeOf(call.Args[0]))
	if path == tenantdb && slices.Contains([]string{"DB", "Tx", "ReadTx", "Rows"}, name) {
		p.reportf("G6", call.Pos(), "tenantdb.%s is opened by reflection", name)
	}
}

// leaves says whether a DSN that is read goes anywhere but into a comparison or another cell.
func leaves(n ast.Expr, stack []ast.Node) bool {
	if len(stack) < 2 {
		return true
	}
	switch up := stack[len(stack)-2].(type) {
	case *ast.AssignStmt:
		return !slices.Contains(up.Lhs, n)
	case *ast.BinaryExpr:
		return false
	case *ast.KeyValueExpr:
		key, ok := up.Key.(*ast.Ident)
		return !ok || key.Name != "DSN"
	}
	return true
}
