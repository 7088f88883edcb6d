package mail

import (
	"errors"
	"fmt"
	"html/template"
	"maps"
	"slices"
	"strings"
	texttemplate "text/template"
	"text/template/parse"
	"unicode/utf8"
)

// Template is a mail of a kind in one language, as its author wrote it.
type Template struct {
	// Subject is one line; Text is the whole mail for who reads no HTML.
	Subject, Text string
	// HTML is what stands between the frame's head and foot. Without it HTML is made of the text.
	HTML string
}

// A Problem says what of a template is refused.
type Problem struct {
	// Part is "subject", "text" or "html".
	Part string
	// Rule is a short stable name of what it breaks: "template", "variable", "required", "element", …
	Rule string
	// Text is a sentence for people.
	Text string
}

// part is one of a template's texts.
type part struct {
	name, source string
	most         int
}

func (t Template) parts() []part {
	all := []part{{"subject", t.Subject, MaxSubject}, {"text", t.Text, MaxText}, {"html", t.HTML, MaxHTML}}
	if t.HTML == "" {
		return all[:2]
	}
	return all
}

// Check says what of a template is refused for a kind. Only a template without problems renders.
func (t Template) Check(k Kind) (found []Problem) {
	for _, p := range t.parts() {
		if _, err := k.tree(p); err != nil {
			var refused *refusal
			if !errors.As(err, &refused) {
				refused = &refusal{rule: "template", text: err.Error()}
			}
			found = append(found, Problem{p.name, refused.rule, refused.text})
		}
	}
	if len(found) > 0 {
		return found
	}
	// What can be seen only when it runs: once with everything, once with no more than there must be.
	full := k.Sample()
	bare := Vars{Values: make(map[string]string)}
	for _, name := range append([]string{BrandVariable}, k.required()...) {
		bare.Values[name] = full.Values[name]
	}
	for _, v := range []Vars{full, bare} {
		for _, p := range t.parts() {
			if _, err := k.run(p, v); err != nil {
				found = append(found, Problem{p.name, "template", fmt.Sprintf("%.200s", err.Error())})
			}
		}
	}
	return slices.Compact(found)
}

type refusal struct{ rule, text string }

func (r *refusal) Error() string { return r.text }

func refusef(rule, format string, args ...any) error {
	return &refusal{rule, fmt.Sprintf(format, args...)}
}

// tree parses a part and refuses what is not of our part of the language.
func (k Kind) tree(p part) (*parse.Tree, error) {
	switch {
	case strings.TrimSpace(p.source) == "":
		return nil, refusef("missing", "is missing")
	case len(p.source) > p.most:
		return nil, refusef("size", "has more than %d bytes", p.most)
	case !utf8.ValidString(p.source) || strings.ContainsFunc(p.source, func(r rune) bool {
		return Unseen(r) && (p.name == "subject" || (r != '\n' && r != '\t'))
	}):
		return nil, refusef("character", "holds a character that is not seen, or more than one line")
	}
	trees := make(map[string]*parse.Tree)
	// Without functions: even "and" and "printf" are unknown.
	tree, err := parse.New(p.name).Parse(p.source, "", "", trees, map[string]any{})
	if err != nil {
		return nil, refusef("template", "%.200s", strings.TrimPrefix(err.Error(), "template: "))
	}
	if len(trees) > 1 {
		return nil, refusef("template", "defines templates of its own")
	}
	w := walker{kind: k, variables: k.All()}
	shown, err := w.list(tree.Root, 0)
	if err != nil {
		return nil, err
	}
	for _, name := range k.required() {
		if p.name != "subject" && !shown[name] {
			return nil, refusef("required", "does not show %q whatever else holds", name)
		}
	}
	if p.name == "html" {
		return tree, w.checkHTML(tree.Root)
	}
	return tree, nil
}

// maxNested bounds how deep "if" and "range" may stand in each other.
const maxNested = 8

// walker goes through a template's tree.
type walker struct {
	kind      Kind
	variables map[string]Type
	// item are the parts of a list's items, inside of "range"; else nil.
	item map[string]Type
}

// list walks nodes and returns the variables that are shown whatever else holds.
func (w *walker) list(l *parse.ListNode, depth int) (shown map[string]bool, err error) {
	shown = make(map[string]bool)
	if l == nil {
		return shown, nil
	}
	if depth > maxNested {
		return nil, refusef("depth", "has more than %d levels", maxNested)
	}
	for _, n := range l.Nodes {
		var below map[string]bool
		switch n := n.(type) {
		case *parse.TextNode:
		case *parse.ActionNode:
			name, _, err := w.variable(n.Pipe, n.Line)
			if err != nil {
				return nil, err
			}
			below = map[string]bool{name: w.item == nil || name[0] == '$'}
		case *parse.IfNode:
			below, err = w.branch(n, depth)
		case *parse.RangeNode:
			err = w.loop(n, depth)
		default:
			return nil, refusef("template", "has %.40q: only variables, if and range are allowed", n.String())
		}
		if err != nil {
			return nil, err
		}
		for name, always := range below {
			if always {
				shown[strings.TrimPrefix(name, "$")] = true
			}
		}
	}
	return shown, nil
}

// branch walks an "if". What both sides show is shown; and what is shown if it is there at all.
func (w *walker) branch(n *parse.IfNode, depth int) (map[string]bool, error) {
	condition, err := w.condition(n.Pipe, n.Line)
	if err != nil {
		return nil, err
	}
	yes, err := w.list(n.List, depth+1)
	if err != nil {
		return nil, err
	}
	no, err := w.list(n.ElseList, depth+1)
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(yes, func(name string, _ bool) bool { return !no[name] && name != condition })
	return yes, nil
}

// loop walks a "range". A list may be empty, so nothing in it is sure to be shown.
func (w *walker) loop(n *parse.RangeNode, depth int) error {
	name, isList, err := w.named(n.Pipe, n.Line)
	if err != nil {
		return err
	}
	if !isList || w.item != nil {
		return refusef("template", "line %d ranges over %q, which is no list of this kind, or inside of another range", n.Line, name)
	}
	inside := *w
	inside.item = w.kind.Lists[name]
	if _, err := inside.list(n.List, depth+1); err != nil {
		return err
	}
	_, err = w.list(n.ElseList, depth+1)
	return err
}

// condition is what an "if" asks for: a variable or a list.
func (w *walker) condition(p *parse.PipeNode, line int) (string, error) {
	name, _, err := w.named(p, line)
	return name, err
}

// variable is what an action shows.
func (w *walker) variable(p *parse.PipeNode, line int) (string, Type, error) {
	name, isList, err := w.named(p, line)
	if err != nil {
		return "", "", err
	}
	if isList {
		return "", "", refusef("variable", "line %d shows the list %q as a whole", line, name)
	}
	return name, w.typeOf(name), nil
}

func (w *walker) typeOf(name string) Type {
	if root, is := strings.CutPrefix(name, "$"); is || w.item == nil {
		return w.variables[root]
	}
	return w.item[name]
}

// named reads a pipeline that is one declared name and nothing else: no function, method, argument, literal or declaration. A name
// of the mail itself inside of a range comes back as "$name".
func (w *walker) named(p *parse.PipeNode, line int) (name string, isList bool, err error) {
	refused := refusef("template", "line %d has %.60q: only names of declared variables are allowed", line, p.String())
	if p == nil || len(p.Decl) > 0 || len(p.Cmds) != 1 || len(p.Cmds[0].Args) != 1 {
		return "", false, refused
	}
	inside := w.item != nil
	switch n := p.Cmds[0].Args[0].(type) {
	case *parse.FieldNode:
		if len(n.Ident) != 1 {
			return "", false, refused
		}
		name = n.Ident[0]
	case *parse.VariableNode:
		if len(n.Ident) != 2 || n.Ident[0] != "$" {
			return "", false, refused
		}
		name, inside = n.Ident[1], false
	default:
		return "", false, refused
	}
	if inside {
		if _, ok := w.item[name]; !ok {
			return "", false, refusef("variable", "line %d names %.60q, which the list's items do not have", line, name)
		}
		return name, false, nil
	}
	_, isVariable := w.variables[name]
	if isList = w.kind.Lists[name] != nil; !isVariable && !isList {
		return "", false, refusef("variable", "line %d names %.60q, which this kind of mail does not have", line, name)
	}
	if w.item != nil {
		name = "$" + name
	}
	return name, isList, nil
}

// ErrTooLong is what a template made that is larger than [MaxOutput].
var ErrTooLong = errors.New("mail: more than 256 KiB")

// bounded keeps what is written up to a bound, and then ends the run.
type bounded struct{ strings.Builder }

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > MaxOutput {
		return 0, ErrTooLong
	}
	return b.Builder.Write(p)
}

// run runs a part.
func (k Kind) run(p part, v Vars) (string, error) {
	tree, err := k.tree(p)
	if err != nil {
		return "", err
	}
	var out bounded
	if p.name == "html" {
		t, err := template.New(p.name).Option("missingkey=error").AddParseTree(p.name, tree)
		if err != nil {
			return "", fmt.Errorf("html: %w", err)
		}
		err = t.Execute(&out, v.data(k))
		return out.String(), err
	}
	t, err := texttemplate.New(p.name).Option("missingkey=error").AddParseTree(p.name, tree)
	if err != nil {
		return "", fmt.Errorf("%s: %w", p.name, err)
	}
	err = t.Execute(&out, v.data(k))
	return out.String(), err
}
