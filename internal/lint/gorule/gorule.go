// Package gorule holds the rules for Go code, G1 to G6, as analyzers of go/analysis, and the
// analyzer that hands SQL text in Go code to package sqlrule. Tests and generated files are
// not looked at. Start at [Analyzers].
package gorule

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"path/filepath"
	"reflect"
	"strings"

	"golang.org/x/tools/go/analysis"

	"github.com/rowhouse-platform/rowhouse/internal/lint"
)

const (
	sdk        = "github.com/rowhouse-platform/rowhouse/sdk/"
	tenantdb   = sdk + "tenantdb"
	tenantPath = sdk + "tenant"
)

// Analyzers returns one analyzer for each rule of Go code, one for SQL and one for
// suppressions. Each returns its findings, so that a driver need not parse its diagnostics.
func Analyzers(house *lint.House) []*analysis.Analyzer {
	scope := scopeAnalyzer(house)
	statements := statementAnalyzer(scope)
	return []*analysis.Analyzer{
		sqlAnalyzer(house, scope, statements),
		goAnalyzer("g1", scope, outside),
		constantAnalyzer(scope, statements),
		goAnalyzer("g3", scope, besideContext),
		goAnalyzer("g4", scope, background),
		goAnalyzer("g5", scope, escapes),
		goAnalyzer("g6", scope, takenOut),
		goAnalyzer("suppressions", scope, suppressions),
	}
}

// findings is what each analyzer returns.
type findings = []lint.Finding

// goAnalyzer makes an analyzer of a function over a package's scope.
func goAnalyzer(name string, scope *analysis.Analyzer, check func(*pass)) *analysis.Analyzer {
	return &analysis.Analyzer{
		Name: name, Doc: doc(name), Requires: []*analysis.Analyzer{scope}, ResultType: reflect.TypeFor[findings](),
		Run: func(p *analysis.Pass) (any, error) {
			s, err := scopeOf(p, scope)
			if err != nil {
				return nil, err
			}
			at := &pass{Pass: p, scope: s}
			check(at)
			return at.found, nil
		},
	}
}

func doc(name string) string {
	for _, r := range lint.Rules() {
		if strings.EqualFold(r.ID, name) {
			return r.Title + ": " + r.Why
		}
	}
	return "find suppressions without a reason"
}

// pass is one analyzer at work on one package.
type pass struct {
	*analysis.Pass
	*scope

	found findings
}

// reportf notes a finding unless the code suppresses it there.
func (p *pass) reportf(rule string, at token.Pos, format string, args ...any) {
	p.add(at, lint.Finding{Rule: rule, Message: fmt.Sprintf(format, args...)})
}

func (p *pass) add(at token.Pos, f lint.Finding) {
	where := p.Fset.Position(at)
	if p.suppressed(f.Rule, where) {
		return
	}
	f.File, f.Line, f.Column = where.Filename, where.Line, where.Column
	p.found = append(p.found, f)
	p.Report(analysis.Diagnostic{Pos: at, Category: f.Rule, Message: f.Rule + ": " + f.Text()})
}

// scope is what all rules know of a package.
type scope struct {
	place   lint.Place
	files   []*ast.File // neither tests nor generated
	ignores []ignore
}

// ignore is a suppression and the lines for which it holds.
type ignore struct {
	lint.Ignore

	at       token.Pos
	file     string
	from, to int
}

func (s *scope) suppressed(rule string, at token.Position) bool {
	for _, i := range s.ignores {
		if i.file == at.Filename && i.from <= at.Line && at.Line <= i.to && i.Suppresses(rule) {
			return true
		}
	}
	return false
}

func scopeAnalyzer(house *lint.House) *analysis.Analyzer {
	return &analysis.Analyzer{
		Name: "scope", Doc: "find out what the package is", ResultType: reflect.TypeFor[*scope](),
		Run: func(p *analysis.Pass) (any, error) {
			s := &scope{}
			for _, f := range p.Files {
				name := p.Fset.Position(f.FileStart).Filename
				if strings.HasSuffix(name, "_test.go") || !strings.HasSuffix(name, ".go") || ast.IsGenerated(f) {
					continue
				}
				s.files = append(s.files, f)
				s.ignores = append(s.ignores, readIgnores(p.Fset, f)...)
			}
			if len(s.files) == 0 {
				return s, nil
			}
			var err error
			s.place, err = house.Place(filepath.Dir(p.Fset.Position(s.files[0].FileStart).Filename))
			return s, err
		},
	}
}

func scopeOf(p *analysis.Pass, a *analysis.Analyzer) (*scope, error) {
	s, ok := p.ResultOf[a].(*scope)
	if !ok {
		return nil, fmt.Errorf("%T is no scope", p.ResultOf[a])
	}
	return s, nil
}

// readIgnores finds a file's suppressions and what they stand at: their own line, and the
// declaration, statement or field that begins under them or ends before them.
func readIgnores(set *token.FileSet, f *ast.File) []ignore {
	var out []ignore
	line := func(p token.Pos) int { return set.Position(p).Line }
	for _, group := range f.Comments {
		for _, c := range group.List {
			parsed, ok := lint.ParseIgnore(strings.TrimPrefix(c.Text, "//"))
			if !ok || !strings.HasPrefix(c.Text, "//") {
				continue
			}
			here := line(c.Pos())
			i := ignore{Ignore: parsed, at: c.Pos(), file: set.Position(c.Pos()).Filename, from: here, to: here}
			below := line(group.End()) + 1
			ast.Inspect(f, func(n ast.Node) bool {
				if n == nil || !suppressible(n) {
					return n != nil
				}
				from, to := line(n.Pos()), line(n.End())
				if from == below || to == here && n.End() <= c.Pos() && simple(n) {
					i.from, i.to = min(i.from, from), max(i.to, to)
				}
				return true
			})
			out = append(out, i)
		}
	}
	return out
}

func suppressible(n ast.Node) bool {
	switch n.(type) {
	case ast.Decl, ast.Spec, ast.Stmt, *ast.Field, *ast.KeyValueExpr:
		return true
	}
	return false
}

// simple says whether a comment behind the node's last line is about the node.
func simple(n ast.Node) bool {
	switch n.(type) {
	case *ast.ValueSpec, *ast.ImportSpec, *ast.AssignStmt, *ast.ExprStmt, *ast.ReturnStmt, *ast.Field, *ast.KeyValueExpr:
		return true
	}
	return false
}

// suppressions reports those that suppress nothing.
func suppressions(p *pass) {
	for _, i := range p.ignores {
		if i.Fault != "" {
			p.reportf("S1", i.at, "%s", i.Fault)
		}
	}
}

// inspect visits the nodes of all files with those around them, the node itself last.
func (p *pass) inspect(visit func(n ast.Node, stack []ast.Node)) {
	for _, f := range p.files {
		inspectStack(f, visit)
	}
}

func inspectStack(root ast.Node, visit func(n ast.Node, stack []ast.Node)) {
	var stack []ast.Node
	ast.Inspect(root, func(n ast.Node) bool {
		if n == nil {
			stack = stack[:len(stack)-1]
			return true
		}
		stack = append(stack, n)
		visit(n, stack)
		return true
	})
}

// callee returns the function or method that a call names, nil for a function value.
func (p *pass) callee(call *ast.CallExpr) *types.Func {
	f, _ := p.object(call.Fun).(*types.Func)
	return f
}

// object returns what an expression names.
func (p *pass) object(e ast.Expr) types.Object {
	switch e := ast.Unparen(e).(type) {
	case *ast.Ident:
		return p.TypesInfo.ObjectOf(e)
	case *ast.SelectorExpr:
		return p.TypesInfo.ObjectOf(e.Sel)
	case *ast.IndexExpr:
		return p.object(e.X)
	case *ast.IndexListExpr:
		return p.object(e.X)
	}
	return nil
}

// in returns the path of an object's package.
func in(o types.Object) string {
	if f, ok := o.(*types.Func); o == nil || ok && f == nil || o.Pkg() == nil {
		return ""
	}
	return o.Pkg().Path()
}

// named returns the package and the name of a type, behind pointers.
func named(t types.Type) (path, name string) {
	if t == nil {
		return "", ""
	}
	if pointer, ok := types.Unalias(t).(*types.Pointer); ok {
		t = pointer.Elem()
	}
	n, ok := types.Unalias(t).(*types.Named)
	if !ok {
		return "", ""
	}
	return in(n.Obj()), n.Obj().Name()
}

func isContext(t types.Type) bool {
	path, name := named(t)
	return path == "context" && name == "Context"
}
