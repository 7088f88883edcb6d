package gorule

import (
	"go/ast"
	"go/token"
	"go/types"
	"slices"
	"strings"
)

// background is G4: a context that holds no tenant reaches tenantdb, directly or through
// functions of the same package.
func background(p *pass) {
	if p.Pkg.Path() == tenantdb {
		return
	}
	f := &contexts{pass: p, values: map[types.Object][]ast.Expr{}, params: map[types.Object]parameter{}, needs: map[parameter]bool{}}
	f.collect()
	if len(f.calls) == 0 {
		return
	}
	for f.spread() { // until no function more is found that hands its context on
	}
	for _, call := range f.calls {
		for _, arg := range f.needed(call) {
			if empty, _ := f.origin(arg, nil); empty {
				p.reportf("G4", arg.Pos(), "this context comes from context.Background and holds no tenant; hand the caller's on")
			}
		}
	}
}

type parameter struct {
	of    *types.Func
	index int
}

type contexts struct {
	*pass

	values map[types.Object][]ast.Expr // what variables of contexts were given
	params map[types.Object]parameter
	needs  map[parameter]bool // parameters that reach tenantdb
	calls  []*ast.CallExpr
}

func (c *contexts) collect() {
	give := func(left, right ast.Expr) {
		if id, ok := left.(*ast.Ident); ok && isContext(c.TypesInfo.TypeOf(id)) {
			o := c.TypesInfo.ObjectOf(id)
			c.values[o] = append(c.values[o], right)
		}
	}
	c.inspect(func(n ast.Node, _ []ast.Node) {
		switch n := n.(type) {
		case *ast.FuncDecl:
			f, _ := c.TypesInfo.Defs[n.Name].(*types.Func)
			if f == nil {
				return
			}
			for i := range f.Signature().Params().Len() {
				c.params[f.Signature().Params().At(i)] = parameter{f, i}
			}
		case *ast.AssignStmt:
			for i, left := range n.Lhs {
				give(left, n.Rhs[min(i, len(n.Rhs)-1)])
			}
		case *ast.ValueSpec:
			for i, name := range n.Names {
				if len(n.Values) > 0 {
					give(name, n.Values[min(i, len(n.Values)-1)])
				}
			}
		case *ast.CallExpr:
			c.calls = append(c.calls, n)
		}
	})
}

// needed returns the arguments of a call that must hold a tenant.
func (c *contexts) needed(call *ast.CallExpr) []ast.Expr {
	f := c.callee(call)
	if f == nil {
		return nil
	}
	if in(f) == tenantdb {
		params := f.Signature().Params()
		ping := f.Name() == "Ping" || f.Name() == "Open"
		if ping || f.Signature().Recv() == nil || params.Len() == 0 || !isContext(params.At(0).Type()) || len(call.Args) == 0 {
			return nil
		}
		return call.Args[:1]
	}
	var out []ast.Expr
	for i, arg := range call.Args {
		if c.needs[parameter{f.Origin(), i}] {
			out = append(out, arg)
		}
	}
	return out
}

// spread notes the parameters that reach what needs a tenant; it says whether one was new.
func (c *contexts) spread() (more bool) {
	for _, call := range c.calls {
		for _, arg := range c.needed(call) {
			_, from := c.origin(arg, nil)
			for _, p := range from {
				if !c.needs[p] {
					c.needs[p], more = true, true
				}
			}
		}
	}
	return more
}

// origin says whether a context is an empty one, and from which parameters it may come.
func (c *contexts) origin(e ast.Expr, seen []types.Object) (empty bool, from []parameter) {
	switch e := ast.Unparen(e).(type) {
	case *ast.CallExpr:
		f := c.callee(e)
		if in(f) == "context" && (f.Name() == "Background" || f.Name() == "TODO") {
			return true, nil
		}
		if derives(f) && len(e.Args) > 0 {
			return c.origin(e.Args[0], seen)
		}
	case *ast.Ident:
		return c.variable(c.TypesInfo.ObjectOf(e), seen)
	}
	return false, nil
}

func (c *contexts) variable(o types.Object, seen []types.Object) (empty bool, from []parameter) {
	if o == nil || slices.Contains(seen, o) {
		return false, nil
	}
	seen = append(seen, o)
	p, isParam := c.params[o]
	if isParam {
		from = append(from, p)
	}
	all, counted := true, 0
	for _, value := range c.values[o] {
		if c.mentions(value, o) {
			continue // ctx = context.WithValue(ctx, …) leaves it what it was
		}
		blank, more := c.origin(value, seen)
		from = append(from, more...)
		all = all && blank
		counted++
	}
	return all && counted > 0, from
}

func (c *contexts) mentions(e ast.Expr, o types.Object) (found bool) {
	ast.Inspect(e, func(n ast.Node) bool {
		id, ok := n.(*ast.Ident)
		found = found || ok && c.TypesInfo.Uses[id] == o
		return !found
	})
	return found
}

// derives says whether a function returns its first argument, a context, with more in it.
func derives(f *types.Func) bool {
	switch in(f) {
	case "context":
		return strings.HasPrefix(f.Name(), "With")
	case "os/signal":
		return f.Name() == "NotifyContext"
	case "golang.org/x/sync/errgroup":
		return f.Name() == "WithContext"
	}
	return false
}

// escapes is G5.
func escapes(p *pass) {
	if p.Pkg.Path() == tenantdb {
		return
	}
	p.inspect(func(n ast.Node, stack []ast.Node) {
		switch n := n.(type) {
		case *ast.GoStmt:
			p.carried(n.Call, n)
		case *ast.CallExpr:
			if f := p.callee(n); f != nil && f.Name() == "Go" && (in(f) == "sync" || in(f) == "golang.org/x/sync/errgroup") {
				p.carried(n, n)
			}
		case *ast.FuncDecl:
			if n.Body != nil && p.takesTx(n.Type) {
				p.kept(n.Body)
			}
		case *ast.FuncLit:
			if p.takesTx(n.Type) {
				p.kept(n.Body)
			}
		}
	})
}

// bound says whether a type belongs to one transaction and one goroutine.
func bound(t types.Type) bool {
	path, name := named(t)
	return path == tenantdb && (name == "Tx" || name == "ReadTx" || name == "Rows" || name == "Row")
}

func (p *pass) takesTx(t *ast.FuncType) bool {
	return slices.ContainsFunc(t.Params.List, func(f *ast.Field) bool {
		path, name := named(p.TypesInfo.TypeOf(f.Type))
		return path == tenantdb && (name == "Tx" || name == "ReadTx")
	})
}

// carried reports what a new goroutine takes with it.
func (p *pass) carried(call *ast.CallExpr, scope ast.Node) {
	done := map[types.Object]bool{}
	ast.Inspect(call, func(n ast.Node) bool {
		id, ok := n.(*ast.Ident)
		if !ok {
			return true
		}
		o := p.TypesInfo.Uses[id]
		v, ok := o.(*types.Var)
		if !ok || v.IsField() || done[o] || !bound(o.Type()) || scope.Pos() <= o.Pos() && o.Pos() < scope.End() {
			return true
		}
		done[o] = true
		p.reportf("G5", id.Pos(), "%s enters a goroutine; it is for one goroutine, and ends with its function", id.Name)
		return true
	})
}

// kept reports what a function with a transaction leaves behind.
func (p *pass) kept(body *ast.BlockStmt) {
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			if n.Tok == token.DEFINE {
				return true
			}
			for i, left := range n.Lhs {
				right := n.Rhs[min(i, len(n.Rhs)-1)]
				if p.outlives(left, body) && (bound(p.TypesInfo.TypeOf(left)) || len(n.Lhs) == len(n.Rhs) && p.holds(right)) {
					p.reportf("G5", left.Pos(), "the transaction or its rows outlive the function that they are for")
				}
			}
		case *ast.SendStmt:
			if p.holds(n.Value) {
				p.reportf("G5", n.Value.Pos(), "the transaction or its rows are sent to another goroutine")
			}
		}
		return true
	})
}

// outlives says whether a place exists after the function's body.
func (p *pass) outlives(e ast.Expr, body *ast.BlockStmt) bool {
	deep := false
	for {
		switch x := ast.Unparen(e).(type) {
		case *ast.SelectorExpr:
			e, deep = x.X, true
			continue
		case *ast.IndexExpr:
			e, deep = x.X, true
			continue
		case *ast.StarExpr:
			e, deep = x.X, true
			continue
		case *ast.Ident:
			o := p.TypesInfo.ObjectOf(x)
			if o == nil || x.Name == "_" {
				return false
			}
			inside := body.Pos() <= o.Pos() && o.Pos() < body.End()
			own := bound(o.Type()) && !deep && o.Pos() < body.Pos() && p.isParam(o, body)
			return !inside && !own
		}
		return deep
	}
}

// isParam says whether an object is a parameter of the function that has the body.
func (p *pass) isParam(o types.Object, body *ast.BlockStmt) (found bool) {
	p.inspect(func(n ast.Node, _ []ast.Node) {
		var t *ast.FuncType
		switch f := n.(type) {
		case *ast.FuncDecl:
			if f.Body == body {
				t = f.Type
			}
		case *ast.FuncLit:
			if f.Body == body {
				t = f.Type
			}
		}
		found = found || t != nil && t.Pos() <= o.Pos() && o.Pos() < t.End()
	})
	return found
}

// holds says whether a value is a transaction or rows, or has one in it.
func (p *pass) holds(e ast.Expr) (found bool) {
	if bound(p.TypesInfo.TypeOf(e)) {
		return true
	}
	e = ast.Unparen(e)
	if u, ok := e.(*ast.UnaryExpr); ok {
		e = u.X
	}
	switch e := e.(type) {
	case *ast.CompositeLit, *ast.FuncLit:
	case *ast.CallExpr:
		b, ok := p.object(e.Fun).(*types.Builtin)
		return ok && b.Name() == "append" && slices.ContainsFunc(e.Args, p.holds)
	default:
		return false
	}
	ast.Inspect(e, func(n ast.Node) bool {
		id, ok := n.(*ast.Ident)
		if ok {
			v, ok := p.TypesInfo.Uses[id].(*types.Var)
			outside := v != nil && (v.Pos() < e.Pos() || v.Pos() >= e.End())
			found = found || ok && !v.IsField() && outside && bound(v.Type())
		}
		return !found
	})
	return found
}
