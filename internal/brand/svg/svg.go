// Package svg makes an uploaded SVG safe to serve from a tenant's own domain: it reads the file strictly into a small
// tree, in which each element, attribute and value is one that this package knows, and writes that tree with a writer of
// its own. Nothing of the input's text survives as text. What it does not know it refuses, with line, column and rule.
//
// It is not a validator of SVG, and its output is for <img> and for a file of its own: nobody inlines it in HTML. (It
// would do no harm there either: the tests load it that way.) Start with Sanitise.
package svg

import (
	"bytes"

	"github.com/rowhouse-platform/rowhouse/internal/brand"
)

// The limits of a file, read and written.
const (
	MaxBytes    = 64 << 10
	MaxNodes    = 10_000  // with each <use>, gradient, mask and pattern counted wherever it is referred to
	MaxExpanded = 4 << 20 // bytes of attributes and text, counted likewise: a long path drawn often is a bomb of few nodes
	MaxDepth    = 64
)

// namespace and xlink are the only ones that a file may name.
const (
	namespace = "http://www.w3.org/2000/svg"
	xlink     = "http://www.w3.org/1999/xlink"
)

// Sanitise returns the file in its one canonical form: elements and attributes of the lists in grammar.go, no prefix,
// sorted attributes, style attributes as presentation attributes. Comments, the XML declaration, xml:space and
// white space between elements are dropped, for they mean nothing in a picture. Everything else that is not on the lists is an
// error of type *brand.Refusal. Sanitising the result again returns the same bytes.
func Sanitise(upload []byte) ([]byte, error) {
	upload = bytes.TrimPrefix(upload, []byte("\ufeff"))
	if err := brand.CheckText(upload, MaxBytes); err != nil {
		return nil, err
	}
	root, err := parse(upload)
	if err != nil {
		return nil, err
	}
	if err := checkReferences(root); err != nil {
		return nil, err
	}
	out := write(nil, root)
	if len(out) > MaxBytes { // escapes make it longer, and what is written must be good to read
		return nil, &brand.Refusal{Rule: "size", Text: "too long when written out"}
	}
	return out, nil
}

// An element is a node of the tree.
type element struct {
	name         string
	attributes   []attribute // sorted by name, each name once
	children     []*element
	text         string // of text, tspan, title and desc; of a "#text" child it is all there is
	line, column int
}

// An attribute is a name and a value in the one form that we write.
type attribute struct{ name, value string }

func (e *element) attribute(name string) string {
	for _, a := range e.attributes {
		if a.name == name {
			return a.value
		}
	}
	return ""
}

func (e *element) refuse(rule, text string) error {
	return &brand.Refusal{Rule: rule, Text: text, Line: e.line, Column: e.column}
}

// write appends an element and what is below it.
func write(out []byte, e *element) []byte {
	if e.name == textNode {
		return escape(out, e.text)
	}
	out = append(append(out, '<'), e.name...)
	if e.name == "svg" {
		out = append(out, ` xmlns="`+namespace+`"`...)
	}
	for _, a := range e.attributes {
		out = append(append(append(out, ' '), a.name...), `="`...)
		out = append(escape(out, a.value), '"')
	}
	if len(e.children) == 0 {
		return append(out, "/>"...)
	}
	out = append(out, '>')
	for _, child := range e.children {
		out = write(out, child)
	}
	return append(append(append(out, "</"...), e.name...), '>')
}

// escape appends text so that it is text wherever a parser of XML or HTML may find it.
func escape(out []byte, text string) []byte {
	for _, r := range text {
		switch r {
		case '<':
			out = append(out, "&lt;"...)
		case '>':
			out = append(out, "&gt;"...)
		case '&':
			out = append(out, "&amp;"...)
		case '"':
			out = append(out, "&#34;"...)
		case '\'':
			out = append(out, "&#39;"...)
		case '`': // a quote to old browsers
			out = append(out, "&#96;"...)
		default:
			out = append(out, string(r)...)
		}
	}
	return out
}
