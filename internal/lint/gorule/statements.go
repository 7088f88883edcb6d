package gorule

import (
	"errors"
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"reflect"
	"slices"
	"strings"

	"golang.org/x/tools/go/analysis"

	"github.com/rowhouse-platform/rowhouse/internal/lint"
	"github.com/rowhouse-platform/rowhouse/internal/lint/schema"
	"github.com/rowhouse-platform/rowhouse/internal/lint/sqlrule"
)

// Statement is SQL text in Go code.
type Statement struct {
	// SQL is the whole text.
	SQL string
	// Name is the package-level variable that holds it, or "".
	Name string
	// Pos is where it is written. A byte of the text stands Offset bytes behind Pos when
	// Exact, because the text is one literal without escapes.
	Pos    token.Pos
	Exact  bool
	Source sqlrule.Source
	// Registered says that it is a tenantdb statement of package level.
	Registered bool
}

// at returns where a byte of the text is written.
func (s Statement) at(offset int) token.Pos {
	if !s.Exact {
		return s.Pos
	}
	return s.Pos + token.Pos(offset)
}

// SQL is what the analyzer of SQL text returns.
type SQL struct {
	Findings   []lint.Finding
	Statements []Statement
}

// collected is what the statement analyzer returns.
type collected struct {
	statements []Statement
	faults     []fault // what G2 tells
}

type fault struct {
	at      token.Pos
	message string
}

func statementAnalyzer(scope *analysis.Analyzer) *analysis.Analyzer {
	return &analysis.Analyzer{
		Name: "statements", Doc: "collect SQL text", Requires: []*analysis.Analyzer{scope}, ResultType: reflect.TypeFor[*collected](),
		Run: func(p *analysis.Pass) (any, error) {
			s, err := scopeOf(p, scope)
			if err != nil {
				return nil, err
			}
			c := &collector{pass: &pass{Pass: p, scope: s}, out: &collected{}}
			if p.Pkg.Path() != tenantdb {
				c.definitions()
				c.inspect(c.visit)
			}
			return c.out, nil
		},
	}
}

// sqlAnalyzer runs the rules for SQL over what was collected. It asks for the tables, and so
// pays for the parser, only where there is SQL.
func sqlAnalyzer(house *lint.House, scope, statements *analysis.Analyzer) *analysis.Analyzer {
	return &analysis.Analyzer{
		Name: "sql", Doc: "check SQL text in Go code: rules Q0 to Q10", Requires: []*analysis.Analyzer{scope, statements},
		ResultType: reflect.TypeFor[*SQL](),
		Run: func(p *analysis.Pass) (any, error) {
			s, err := scopeOf(p, scope)
			if err != nil {
				return nil, err
			}
			c, ok := p.ResultOf[statements].(*collected)
			if !ok {
				return nil, errors.New("no statements were collected")
			}
			out := &SQL{Statements: c.statements}
			if len(c.statements) == 0 {
				return out, nil
			}
			var tables *schema.Schema
			if s.place.Kind == lint.Product {
				if tables, err = house.Schema(s.place); err != nil {
					return nil, err
				}
			}
			at := &pass{Pass: p, scope: s}
			for _, statement := range c.statements {
				for _, f := range sqlrule.Check(statement.SQL, statement.Source, tables) {
					at.add(statement.at(f.Offset), lint.Finding{Rule: f.Rule, Message: f.Message, Rewrite: f.Rewrite})
				}
			}
			out.Findings = at.found
			return out, nil
		},
	}
}

// constantAnalyzer is G2.
func constantAnalyzer(scope, statements *analysis.Analyzer) *analysis.Analyzer {
	a := goAnalyzer("g2", scope, func(p *pass) {
		if c, ok := p.ResultOf[statements].(*collected); ok {
			for _, f := range c.faults {
				p.reportf("G2", f.at, "%s", f.message)
			}
		}
	})
	a.Requires = append(a.Requires, statements)
	return a
}

// collector finds the statements of one package.
type collector struct {
	*pass

	out  *collected
	defs map[types.Object]ast.Expr // what variables are defined as; nil when by more than one
}

// definitions notes what each variable is defined as.
func (c *collector) definitions() {
	c.defs = map[types.Object]ast.Expr{}
	define := func(name ast.Expr, value ast.Expr) {
		id, ok := ast.Unparen(name).(*ast.Ident)
		if !ok {
			return
		}
		o := c.TypesInfo.ObjectOf(id)
		if _, twice := c.defs[o]; twice {
			value = nil
		}
		c.defs[o] = value
	}
	c.inspect(func(n ast.Node, _ []ast.Node) {
		switch n := n.(type) {
		case *ast.ValueSpec:
			for i, name := range n.Names {
				if len(n.Values) == len(n.Names) {
					define(name, n.Values[i])
				}
			}
		case *ast.AssignStmt:
			for i, left := range n.Lhs {
				if len(n.Lhs) == len(n.Rhs) {
					define(left, n.Rhs[i])
				} else {
					define(left, nil)
				}
			}
		}
	})
}

func (c *collector) visit(n ast.Node, stack []ast.Node) {
	switch n := n.(type) {
	case *ast.Ident:
		if o := c.TypesInfo.Uses[n]; in(o) == tenantdb && o.Name() == "Stmt" && isFunc(o) && !called(stack) {
			c.fault(n.Pos(), "Stmt is passed on as a value, by which any text becomes a statement")
		}
	case *ast.CallExpr:
		f := c.callee(n)
		switch {
		case in(f) == tenantdb && f.Signature().Recv() == nil && (f.Name() == "Stmt" || f.Name() == "Concat"):
			c.statement(n, f.Name(), stack)
		case c.sends(f):
			c.raw(n, f)
		}
	}
}

func (c *collector) fault(at token.Pos, message string) {
	c.out.faults = append(c.out.faults, fault{at, message})
}

func isFunc(o types.Object) bool {
	_, ok := o.(*types.Func)
	return ok
}

// called says whether the identifier at the stack's end is what a call calls.
func called(stack []ast.Node) bool {
	i := len(stack) - 1
	for i > 0 {
		switch up := stack[i-1].(type) {
		case *ast.SelectorExpr, *ast.ParenExpr, *ast.IndexExpr:
			i--
		case *ast.CallExpr:
			return up.Fun == stack[i]
		default:
			return false
		}
	}
	return false
}

// statement takes Stmt or Concat, unless it is a part of a Concat.
func (c *collector) statement(call *ast.CallExpr, function string, stack []ast.Node) {
	name, inside := holder(stack)
	if inside {
		c.fault(call.Pos(), function+" inside of a function: keep statements in package-level variables, where plan lint finds them")
	}
	if c.isPart(name, stack) {
		return
	}
	s := Statement{Pos: call.Pos(), Name: nameOf(name), Source: sqlrule.Sealed, Registered: !inside}
	if function == "Stmt" && len(call.Args) == 1 {
		s.Pos, s.Exact = exact(call.Args[0])
	}
	var ok bool
	if s.SQL, ok = c.text(call, 0); !ok {
		c.fault(call.Pos(), "a part of the statement is not a constant of this package, so that its text is unknown here")
		return
	}
	c.out.statements = append(c.out.statements, s)
}

// holder returns the variable that a call at the stack's end defines, and whether it is inside of a function.
func holder(stack []ast.Node) (name *ast.Ident, inside bool) {
	for i := len(stack) - 1; i > 0; i-- {
		switch n := stack[i].(type) {
		case *ast.FuncDecl, *ast.FuncLit:
			return name, true
		case *ast.ValueSpec:
			for j, value := range n.Values {
				if value == stack[min(i+1, len(stack)-1)] && j < len(n.Names) {
					name = n.Names[j]
				}
			}
		case *ast.AssignStmt:
			for j, value := range n.Rhs {
				if value == stack[min(i+1, len(stack)-1)] && len(n.Lhs) == len(n.Rhs) && name == nil {
					name, _ = n.Lhs[j].(*ast.Ident)
				}
			}
		}
	}
	return name, false
}

func nameOf(id *ast.Ident) string {
	if id == nil {
		return ""
	}
	return id.Name
}

// isPart says whether a statement is used as a part of others only.
func (c *collector) isPart(name *ast.Ident, stack []ast.Node) bool {
	for _, n := range stack[:len(stack)-1] {
		if call, ok := n.(*ast.CallExpr); ok {
			if f := c.callee(call); in(f) == tenantdb && f.Name() == "Concat" {
				return true
			}
		}
	}
	if name == nil {
		return false
	}
	o := c.TypesInfo.ObjectOf(name)
	parts, others := 0, 0
	c.inspect(func(n ast.Node, stack []ast.Node) {
		id, ok := n.(*ast.Ident)
		if !ok || c.TypesInfo.Uses[id] != o {
			return
		}
		call, ok := stack[max(len(stack)-2, 0)].(*ast.CallExpr)
		if ok && in(c.callee(call)) == tenantdb && c.callee(call).Name() == "Concat" {
			parts++
		} else {
			others++
		}
	})
	return parts > 0 && others == 0
}

// text returns the text of a statement; ok is false when it is not known.
func (c *collector) text(e ast.Expr, depth int) (string, bool) {
	const deepest = 20
	switch e := ast.Unparen(e).(type) {
	case *ast.Ident:
		def := c.defs[c.TypesInfo.ObjectOf(e)]
		if def == nil || depth > deepest {
			return "", false
		}
		return c.text(def, depth+1)
	case *ast.CallExpr:
		f := c.callee(e)
		if in(f) != tenantdb || e.Ellipsis.IsValid() {
			return "", false
		}
		if f.Name() == "Stmt" && len(e.Args) == 1 {
			return c.constant(e.Args[0])
		}
		var b strings.Builder
		for _, arg := range e.Args {
			part, ok := c.text(arg, depth+1)
			if !ok {
				return "", false
			}
			b.WriteString(part)
		}
		return b.String(), f.Name() == "Concat"
	}
	return "", false
}

// constant returns the value of a constant string.
func (c *collector) constant(e ast.Expr) (string, bool) {
	v := c.TypesInfo.Types[e].Value
	if v == nil || v.Kind() != constant.String {
		return "", false
	}
	return constant.StringVal(v), true
}

// exact returns where the text of a literal begins, when it stands there byte for byte.
func exact(e ast.Expr) (token.Pos, bool) {
	l, ok := ast.Unparen(e).(*ast.BasicLit)
	if !ok || l.Kind != token.STRING || strings.ContainsAny(l.Value, "\\\r") {
		return e.Pos(), false
	}
	return l.Pos() + 1, true
}

// sends says whether a function of pgx or database/sql takes SQL, or a method that looks like theirs.
func (c *collector) sends(f *types.Func) bool {
	return f != nil && sqlParameter(f) >= 0 && (isDriver(in(f)) || answersRows(f))
}

// sqlParameter returns which parameter is SQL text, or -1.
func sqlParameter(f *types.Func) int {
	params := f.Signature().Params()
	for i := range params.Len() {
		v := params.At(i)
		basic, ok := v.Type().Underlying().(*types.Basic)
		if ok && basic.Kind() == types.String && slices.Contains([]string{"sql", "query", "stmt"}, strings.ToLower(v.Name())) {
			return i
		}
	}
	return -1
}

// answersRows says whether a method returns what pgx or database/sql return of a statement.
func answersRows(f *types.Func) bool {
	results := f.Signature().Results()
	for v := range results.Variables() {
		path, name := named(v.Type())
		if isDriver(path) && slices.Contains([]string{"Rows", "Row", "CommandTag", "Result"}, name) {
			return true
		}
	}
	return false
}

// raw takes SQL that is sent past tenantdb.
func (c *collector) raw(call *ast.CallExpr, f *types.Func) {
	i := sqlParameter(f)
	if i >= len(call.Args) {
		return
	}
	source := sqlrule.Raw
	if c.place.Kind == lint.ControlPlane {
		source = sqlrule.Control
	}
	text, ok := c.constant(call.Args[i])
	if !ok {
		if source == sqlrule.Raw {
			c.fault(call.Args[i].Pos(), "the SQL is put together at run time; it can be injected")
		}
		return
	}
	s := Statement{SQL: text, Source: source}
	s.Pos, s.Exact = exact(call.Args[i])
	c.out.statements = append(c.out.statements, s)
}
