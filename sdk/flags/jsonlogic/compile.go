package jsonlogic

import (
	"fmt"
	"slices"
	"strconv"
)

// Problem is something in a rule that cannot work. The rule compiles all the same and throws when it comes to that
// place, as flagd's does; who publishes rules should refuse it.
type Problem struct {
	Pointer string // JSON pointer
	Text    string
}

// evaluators is where flagd's documents hold shared rules, for pointers.
const evaluators = "$evaluators"

// mostProblems bounds what is told of one library: nobody reads more.
const mostProblems = 100

// Library compiles rules that may refer to shared ones by {"$ref": name}. A shared rule is compiled once, however often
// it is referred to: references cost neither memory nor time. It is not safe for concurrent use; its rules are.
type Library struct {
	source   map[string]any
	compiled map[string]node
	open     map[string]bool // being compiled: who refers to it here goes in a circle
	problems []Problem

	conditions Conditions // nil for none
}

// NewLibrary returns a library of shared rules, which are what [Of] takes. It keeps the map.
func NewLibrary(shared map[string]any) *Library {
	return &Library{source: shared, compiled: make(map[string]node), open: make(map[string]bool)}
}

// Problems returns what was found wrong in the rules compiled so far, the shared ones among them that were referred to.
func (l *Library) Problems() []Problem { return slices.Clone(l.problems) }

// CompileShared compiles the shared rules that no rule refers to, for their problems.
func (l *Library) CompileShared() {
	for name := range l.source {
		l.shared(name)
	}
}

// Compile compiles a rule, as encoding/json decodes it. The pointer says where it stands, for problems.
func (l *Library) Compile(rule any, pointer ...string) *Rule {
	return &Rule{node: l.compile(rule, pointer)}
}

func (l *Library) compile(rule any, pointer []string) node {
	c := &compiler{library: l, path: slices.Clone(pointer), folding: MaxSteps}
	n := c.compile(rule)
	n.depth = c.deepest
	if n.depth > MaxDepth {
		c.problemf("is nested deeper than %d", MaxDepth)
		n = node{eval: exhausted, depth: 1} // and so is not counted again where it is referred to
	}
	return n
}

// shared returns a shared rule, compiled.
func (l *Library) shared(name string) node {
	if n, ok := l.compiled[name]; ok {
		return n
	}
	l.open[name] = true
	n := l.compile(l.source[name], []string{evaluators, name})
	delete(l.open, name)
	l.compiled[name] = n
	return n
}

// expr is a compiled expression. After the frame has failed it may return anything.
type expr func(*frame) Value

// node is an expression with what is known of it before it is evaluated.
type node struct {
	eval  expr
	value Value // of every evaluation, if known
	known bool
	depth int    // of nesting
	cost  int    // steps of evaluating it once, what it refers to and walks over not counted
	parts []node // what a cat joins
}

func constant(v Value) node {
	return node{eval: func(*frame) Value { return v }, value: v, known: true, cost: 1}
}

// compiler compiles one rule.
type compiler struct {
	library *Library
	path    []string // to what is being compiled
	level   int      // of nesting
	deepest int
	folding int // steps left for computing what is constant
}

func (c *compiler) problemf(format string, args ...any) {
	if len(c.library.problems) >= mostProblems {
		return
	}
	c.library.problems = append(c.library.problems, Problem{Pointer: Pointer(c.path...), Text: fmt.Sprintf(format, args...)})
}

// below compiles what stands under a name.
func (c *compiler) below(name string, rule any) node {
	c.path = append(c.path, name)
	n := c.compile(rule)
	c.path = c.path[:len(c.path)-1]
	return n
}

func (c *compiler) compile(rule any) node {
	switch rule := rule.(type) {
	case []any:
		defer c.descend()()
		if c.level > MaxDepth {
			return node{eval: exhausted}
		}
		return list(c.each(rule))
	case map[string]any:
		defer c.descend()()
		if c.level > MaxDepth {
			return node{eval: exhausted}
		}
		if len(rule) == 1 {
			for name, args := range rule {
				return c.operation(name, args)
			}
		}
		return c.literal(rule) // {}, or more names than an operation has: a value, as in flagd
	default:
		return c.literal(rule)
	}
}

// descend counts a level of nesting, until the function that it returns is called.
func (c *compiler) descend() func() {
	c.level++
	c.deepest = max(c.deepest, c.level)
	return func() { c.level-- }
}

// literal is a value that is not evaluated.
func (c *compiler) literal(x any) node {
	v, err := Of(x)
	if err != nil {
		c.problemf("%v", err)
		return thrower(invalidArgs)
	}
	return constant(v)
}

func (c *compiler) each(rules []any) []node {
	nodes := make([]node, len(rules))
	for i, rule := range rules {
		nodes[i] = c.below(strconv.Itoa(i), rule)
	}
	return nodes
}

// list is a list of expressions as an expression.
func list(nodes []node) node {
	if values, known := values(nodes); known {
		return constant(OfList(values))
	}
	cost := 1
	for _, n := range nodes {
		cost += n.cost
	}
	return node{cost: cost, eval: func(f *frame) Value {
		items := make([]Value, len(nodes))
		for i, n := range nodes {
			items[i] = n.eval(f)
		}
		return OfList(items)
	}}
}

// values returns the values of nodes that are all known.
func values(nodes []node) (values []Value, known bool) {
	values = make([]Value, len(nodes))
	for i, n := range nodes {
		if !n.known {
			return nil, false
		}
		values[i] = n.value
	}
	return values, true
}

// operation compiles an operator with its arguments.
func (c *compiler) operation(name string, raw any) node {
	switch name {
	case "$ref":
		return c.reference(raw)
	case "preserve":
		return c.literal(raw)
	case conditionOperator:
		return c.condition(raw)
	}
	op, ok := operators[name]
	if !ok {
		c.problemf("the operator %q does not exist", name)
		return thrower(unknownOperator)
	}
	c.path = append(c.path, name)
	defer func() { c.path = c.path[:len(c.path)-1] }()
	var a args
	if rules, literal := raw.([]any); literal {
		a = args{list: c.each(rules), literal: true}
	} else {
		a = args{list: []node{c.compile(raw)}}
	}
	if op.lazy && !a.literal || a.literal && len(a.list) < op.least {
		c.problemf("%q takes a list of arguments, at least %d", name, op.least)
		return thrower(invalidArgs)
	}
	if op.check != nil {
		if what := op.check(a); what != "" {
			c.problemf("%s", what)
		}
	}
	n := node{eval: op.build(a), cost: 1}
	for _, arg := range a.list {
		n.cost += arg.cost
	}
	if name == "cat" && a.literal {
		n.parts = a.list
	}
	if _, known := values(a.list); known && !op.reads {
		n = c.fold(n)
	}
	return n
}

// fold evaluates what is constant now, unless that throws or is too much.
func (c *compiler) fold(n node) node {
	f := &frame{steps: c.folding}
	v := n.eval(f)
	c.folding = f.steps
	if f.failed {
		return n
	}
	return constant(v)
}

// reference is a shared rule in the place of {"$ref": name}.
func (c *compiler) reference(raw any) node {
	name, ok := raw.(string)
	if _, exists := c.library.source[name]; !ok || !exists {
		c.problemf("there is no evaluator %q", fmt.Sprint(raw))
		return thrower(unknownOperator)
	}
	if c.library.open[name] {
		c.problemf("the evaluator %q refers to itself", name)
		return thrower(unknownOperator)
	}
	n := c.library.shared(name)
	c.deepest = max(c.deepest, c.level+n.depth)
	if n.known {
		return n
	}
	return node{cost: 1, eval: func(f *frame) Value {
		if !f.spend(n.cost) {
			return Value{}
		}
		return n.eval(f)
	}}
}

func thrower(what string) node {
	return node{eval: func(f *frame) Value { return f.throw(what) }}
}

// exhausted is in the place of what is nested too deep.
func exhausted(f *frame) Value {
	f.failed, f.spent = true, true
	return Value{}
}
