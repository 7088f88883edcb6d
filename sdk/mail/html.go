package mail

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"text/template/parse"

	"golang.org/x/net/html"
)

// Stand-ins for what of a template is not text, while its HTML is read. Authors cannot write them: characters for private use are
// refused in sources, and each has to be met exactly once, so that none can come from a character reference.
const (
	markIf   = '\ue000'
	markElse = '\ue001'
	markEnd  = '\ue002'
	// markVariable and those behind it are variables, in their order.
	markVariable = '\U000f0000'
	maxMarks     = 4000
)

// flat is a template as one text, with each branch in it.
type flat struct {
	text  strings.Builder
	types []Type // of the variables
	marks int    // all stand-ins
}

func (f *flat) mark(r rune) { f.text.WriteRune(r); f.marks++ }

func (f *flat) list(w *walker, l *parse.ListNode) {
	if l == nil {
		return
	}
	branch := func(yes, no *walker, list, other *parse.ListNode) {
		f.mark(markIf)
		f.list(yes, list)
		f.mark(markElse)
		f.list(no, other)
		f.mark(markEnd)
	}
	for _, n := range l.Nodes {
		switch n := n.(type) {
		case *parse.TextNode:
			f.text.Write(n.Text)
		case *parse.ActionNode:
			_, t, _ := w.variable(n.Pipe, n.Line)     // walked before
			f.mark(markVariable + rune(len(f.types))) //nolint:gosec // as many as fit 32 KiB
			f.types = append(f.types, t)
		case *parse.IfNode:
			branch(w, w, n.List, n.ElseList)
		case *parse.RangeNode:
			name, _, _ := w.named(n.Pipe, n.Line)
			inside := *w
			inside.item = w.kind.Lists[name]
			branch(&inside, w, n.List, n.ElseList)
		}
	}
}

// checkHTML reads the HTML of a template with all its branches, and refuses what [rewrite] would.
func (w *walker) checkHTML(root *parse.ListNode) error {
	var f flat
	f.list(w, root)
	if f.marks > maxMarks {
		return refusef("size", "has more than %d variables and branches", maxMarks)
	}
	r := &reader{template: true, types: f.types}
	if err := r.read(f.text.String()); err != nil {
		return err
	}
	if r.marks != f.marks {
		return refusef("place", "has a variable or a branch where none may stand")
	}
	return nil
}

// Elements and what may stand in them. With these rules a browser reads what we write as we wrote it.
const (
	inline  = "strong em b i u span code br a"
	blocks  = "p h1 h2 h3 ul ol blockquote pre div table hr"
	classes = "button muted center"
)

// within lists what may stand in an element, "" at the top; text says whether text may.
func within(parent string) (elements string, text bool) {
	switch parent {
	case "", "div", "blockquote", "td", "th", "li":
		return inline + " " + blocks, true
	case "p", "h1", "h2", "h3", "pre", "strong", "em", "b", "i", "u", "span", "code", "a":
		return inline, true
	case "ul", "ol":
		return "li", false
	case "table":
		return "thead tbody", false
	case "thead", "tbody":
		return "tr", false
	case "tr":
		return "th td", false
	default:
		return "", false
	}
}

func isVoid(element string) bool { return element == "br" || element == "hr" }

var (
	languagePattern = regexp.MustCompile(`^[A-Za-z0-9-]{2,35}$`)
	spanPattern     = regexp.MustCompile(`^[1-9]$`)
)

// attribute reports whether an element may have an attribute with a value that is no address.
func attribute(element, name, value string) bool {
	switch {
	case name == "lang":
		return languagePattern.MatchString(value)
	case name == "dir":
		return slices.Contains([]string{"ltr", "rtl", "auto"}, value)
	case name == "class":
		return slices.Contains(strings.Fields(classes), value)
	case name == "colspan":
		return (element == "td" || element == "th") && spanPattern.MatchString(value)
	default:
		return false
	}
}

// reader reads HTML of the elements on the list, and writes it anew where out is set.
type reader struct {
	template bool   // that it reads one, with stand-ins
	types    []Type // of the variables that may stand in it
	marks    int
	open     []string
	// branches are how many elements were open where each branch began that has not ended.
	branches []int
	out      *strings.Builder
	// style is what an element of a class looks like.
	style func(element, class string) string
}

func (r *reader) top() string {
	if len(r.open) == 0 {
		return ""
	}
	return r.open[len(r.open)-1]
}

// read reads all of a fragment.
func (r *reader) read(source string) error {
	z, seen := html.NewTokenizer(strings.NewReader(source)), 0
	for {
		kind := z.Next()
		if kind == html.ErrorToken {
			break
		}
		seen += len(z.Raw())
		raw := string(z.Raw())
		if err := r.take(z.Token(), raw); err != nil {
			return err
		}
	}
	if seen != len(source) {
		return refusef("html", "ends inside of a tag")
	}
	if len(r.open) > 0 {
		return refusef("html", "does not close <%s>", r.top())
	}
	return nil
}

func (r *reader) take(t html.Token, raw string) error {
	switch t.Type {
	case html.TextToken:
		if strings.ContainsRune(raw, '<') { // which begins no element
			return refusef("html", "has < that begins no element")
		}
		return r.text(t.Data)
	case html.StartTagToken, html.SelfClosingTagToken:
		return r.start(t, raw)
	case html.EndTagToken:
		if r.top() != t.Data || len(t.Attr) > 0 {
			return refusef("html", "has </%.40s> where it closes nothing", t.Data)
		}
		if n := len(r.branches); n > 0 && len(r.open) <= r.branches[n-1] {
			return refusef("html", "closes <%.40s> in another branch than it opens it", t.Data)
		}
		r.open = r.open[:len(r.open)-1]
		r.write("</" + t.Data + ">")
		return nil
	default:
		return refusef("html", "has a comment or a declaration")
	}
}

func (r *reader) write(s string) {
	if r.out != nil {
		r.out.WriteString(s)
	}
}

func (r *reader) start(t html.Token, raw string) error {
	elements, _ := within(r.top())
	const maxDepth = 20
	if !slices.Contains(strings.Fields(elements), t.Data) || len(r.open) >= maxDepth {
		return refusef("element", "has <%.40s> in <%s>", t.Data, r.top())
	}
	if t.Data == "a" && slices.Contains(r.open, "a") {
		return refusef("element", "has a link in a link")
	}
	if t.Type == html.SelfClosingTagToken && !isVoid(t.Data) {
		return refusef("element", "closes <%.40s> in itself", t.Data)
	}
	if strings.ContainsRune(raw[1:], '<') {
		return refusef("html", "has < inside of <%.40s>", t.Data)
	}
	class, address, rest := "", "", ""
	for _, a := range t.Attr { // each once: the first counts, as in browsers
		switch {
		case a.Key == "href" && t.Data == "a":
			if err := r.address(a.Val); err != nil {
				return err
			}
			address = a.Val
		case !attribute(t.Data, a.Key, a.Val):
			return refusef("attribute", "has %.40q in <%s>, or a value that it may not have", a.Key, t.Data)
		case a.Key == "class":
			class = a.Val
		default:
			rest += fmt.Sprintf(` %s="%s"`, a.Key, html.EscapeString(a.Val))
		}
	}
	if t.Data == "a" {
		if address == "" {
			return refusef("attribute", "has a link without an address")
		}
		rest += fmt.Sprintf(` href="%s"`, html.EscapeString(address))
	}
	if r.style != nil {
		if style := r.style(t.Data, class); style != "" {
			rest += fmt.Sprintf(` style="%s"`, html.EscapeString(style))
		}
	}
	r.write("<" + t.Data + rest + ">")
	if !isVoid(t.Data) {
		r.open = append(r.open, t.Data)
	}
	return nil
}

// address takes an https address, or one variable that is one.
func (r *reader) address(value string) error {
	runes := []rune(value)
	if len(runes) == 1 && r.template && runes[0] >= markVariable {
		i := int(runes[0] - markVariable)
		if i < len(r.types) && r.types[i] == URL {
			r.marks++
			return nil
		}
	}
	if CheckLink(value) != nil || len(value) > maxURL {
		return refusef("link", "has a link that is neither an https address nor one variable of type %q", URL)
	}
	return nil
}

// text takes text, with stand-ins in it where a template is read.
func (r *reader) text(s string) error {
	_, allowed := within(r.top())
	for _, c := range s {
		blank := c == ' ' || c == '\n' || c == '\t'
		switch n := len(r.branches); {
		case !r.template && Unseen(c) && !blank:
			return refusef("character", "holds a character that is not seen")
		case c == markIf:
			r.branches = append(r.branches, len(r.open))
			r.marks++
		case c == markElse || c == markEnd:
			if n == 0 || r.branches[n-1] != len(r.open) {
				return refusef("html", "opens an element in another branch than it closes it")
			}
			if r.marks++; c == markEnd {
				r.branches = r.branches[:n-1]
			}
		case c >= markVariable:
			if r.marks++; !allowed {
				return refusef("text", "has a variable in <%s>", r.top())
			}
		case !blank && !allowed:
			return refusef("text", "has text in <%s>", r.top())
		case Unseen(c) && !blank:
			return refusef("character", "holds a character that is not seen")
		}
	}
	r.write(html.EscapeString(s))
	return nil
}

// rewrite writes what a template made anew, in the looks of a brand. What is not on the lists is an error, and there is none for
// a template that was checked: this is the second lock on the same door.
func rewrite(fragment string, style func(element, class string) string) (string, error) {
	var out strings.Builder
	r := &reader{out: &out, style: style}
	if err := r.read(fragment); err != nil {
		return "", fmt.Errorf("mail: what the template made %w", err)
	}
	return out.String(), nil
}
