package svg

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/rowhouse-platform/rowhouse/internal/brand"
)

// textNode is the name of a node that is only text.
const textNode = "#text"

// A reader builds the tree from raw tokens: encoding/xml's own handling of names does not survive a second reading
// (CVE-2020-29509, -29510, -29511), so prefixes, nesting and repeated attributes are checked here.
type reader struct {
	decoder      *xml.Decoder
	open         []*element
	root         *element
	line, column int // of the token's first byte
	first        bool
}

func parse(upload []byte) (*element, error) {
	r := &reader{decoder: xml.NewDecoder(bytes.NewReader(upload)), first: true}
	for {
		r.line, r.column = r.decoder.InputPos()
		token, err := r.decoder.RawToken()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			rule := "syntax"
			if strings.Contains(err.Error(), "entity") {
				rule = "entity"
			}
			return nil, r.refuse(rule, strings.TrimPrefix(err.Error(), "XML "))
		}
		if err := r.take(token); err != nil {
			return nil, err
		}
		r.first = false
	}
	switch {
	case len(r.open) > 0:
		return nil, r.refuse("syntax", "<"+r.top().name+"> is not closed")
	case r.root == nil:
		return nil, r.refuse("syntax", "no element")
	}
	return r.root, nil
}

func (r *reader) refuse(rule, text string) error {
	return &brand.Refusal{Rule: rule, Text: text, Line: r.line, Column: r.column}
}

func (r *reader) top() *element { return r.open[len(r.open)-1] }

func (r *reader) take(token xml.Token) error {
	switch t := token.(type) {
	case xml.StartElement:
		return r.start(t)
	case xml.EndElement:
		if len(r.open) == 0 || t.Name.Space != "" || r.top().name != t.Name.Local {
			return r.refuse("syntax", "</"+t.Name.Local+"> closes nothing")
		}
		r.open = r.open[:len(r.open)-1]
	case xml.CharData:
		return r.text(string(t))
	case xml.ProcInst:
		if !r.first || t.Target != "xml" { // the decoder has seen that it says version 1.0 and UTF-8
			return r.refuse("processing-instruction", "<?"+t.Target)
		}
	case xml.Directive:
		return r.refuse("doctype", "<!"+string(t[:min(len(t), 16)]))
	}
	return nil // a comment
}

func (r *reader) start(t xml.StartElement) error {
	e := &element{name: t.Name.Local, line: r.line, column: r.column}
	if t.Name.Space != "" {
		return r.refuse("namespace", "<"+t.Name.Space+":"+t.Name.Local+">")
	}
	switch {
	case len(r.open) > 0 && !mayContain(r.top().name, e.name):
		return r.refuse("element", fmt.Sprintf("<%s> in <%s>", e.name, r.top().name))
	case len(r.open) > 0:
		r.top().children = append(r.top().children, e)
	case r.root != nil || e.name != "svg":
		return r.refuse("element", "<"+e.name+"> where only one <svg> may stand")
	case !slices.Contains(t.Attr, xml.Attr{Name: xml.Name{Local: "xmlns"}, Value: namespace}):
		return r.refuse("namespace", "xmlns is not "+namespace)
	default:
		r.root = e
	}
	if r.open = append(r.open, e); len(r.open) > MaxDepth {
		return r.refuse("depth", fmt.Sprintf("more than %d elements deep", MaxDepth))
	}
	return r.attributes(e, t.Attr)
}

// attributes fills in what the element says of itself. A declaration in style wins over the attribute, as in CSS.
func (r *reader) attributes(e *element, all []xml.Attr) error {
	seen := make(map[string]bool, len(all))
	var styles string
	for _, a := range all {
		name := a.Name.Local
		if a.Name.Space != "" {
			name = a.Name.Space + ":" + name
		}
		if seen[name] {
			return r.refuse("attribute", name+" stands twice")
		}
		seen[name] = true
		value := strings.Join(strings.Fields(a.Value), " ")
		switch {
		case name == "xmlns" || name == "xmlns:xlink":
			if (name == "xmlns" && value != namespace) || (name != "xmlns" && value != xlink) {
				return r.refuse("namespace", name+"="+value)
			}
			continue
		case name == "xml:space" && (value == "preserve" || value == "default"):
			continue
		case name == "xlink:href":
			name = "href"
		case strings.Contains(name, ":"):
			return r.refuse("namespace", name)
		case name == "style":
			styles = value
			continue
		}
		if err := r.attribute(e, name, value); err != nil {
			return err
		}
	}
	if err := r.style(e, styles); err != nil {
		return err
	}
	slices.SortFunc(e.attributes, func(a, b attribute) int { return cmp.Compare(a.name, b.name) })
	return nil
}

func (r *reader) attribute(e *element, name, value string) error {
	if e.attribute(name) != "" {
		return r.refuse("attribute", name+" stands twice")
	}
	check, known := attributeOf(e.name, name)
	if !known {
		return r.refuse("attribute", fmt.Sprintf("%s of <%s>", name, e.name))
	}
	clean, good := check(value)
	if !good {
		return r.refuse("value", fmt.Sprintf("%s=%.80q", name, value))
	}
	e.attributes = append(e.attributes, attribute{name, clean})
	return nil
}

// style takes the declarations of a style attribute as presentation attributes. Cutting at each ; and : is enough, for no
// value that we let through has one, nor an escape, quote or comment in which it could hide.
func (r *reader) style(e *element, styles string) error {
	for declaration := range strings.SplitSeq(styles, ";") {
		name, value, found := strings.Cut(declaration, ":")
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
		switch {
		case strings.TrimSpace(declaration) == "":
			continue
		case name == "enable-background": // of SVG 1.1, in no browser, in all files that Illustrator writes
			continue
		}
		check, known := presentation(name)
		if !found || !known {
			return r.refuse("style", fmt.Sprintf("%.40q", name))
		}
		clean, good := check(value)
		if !good {
			return r.refuse("value", fmt.Sprintf("%s:%.80q", name, value))
		}
		e.attributes = slices.DeleteFunc(e.attributes, func(a attribute) bool { return a.name == name })
		e.attributes = append(e.attributes, attribute{name, clean})
	}
	return nil
}

func (r *reader) text(text string) error {
	if text == "" || (strings.TrimSpace(text) == "" && (len(r.open) == 0 || !hasText(r.top().name))) {
		return nil
	}
	if len(r.open) == 0 || !hasText(r.top().name) {
		return r.refuse("text", "text outside of text, title and desc")
	}
	for _, c := range text { // what a character reference may have brought in
		if !brand.Printable(c) {
			return r.refuse("character", fmt.Sprintf("%U", c))
		}
	}
	text = strings.Map(func(c rune) rune { // white space is what it is in attributes
		if c == '\t' || c == '\n' || c == '\r' || c == '\f' {
			return ' '
		}
		return c
	}, text)
	top := r.top()
	if n := len(top.children); n > 0 && top.children[n-1].name == textNode { // around a comment or a CDATA section
		top.children[n-1].text += text
		return nil
	}
	top.children = append(top.children, &element{name: textNode, text: text, line: r.line, column: r.column})
	return nil
}
