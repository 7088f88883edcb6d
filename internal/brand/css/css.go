// Package css makes a tenant's style sheet safe to serve beside the platform's own: it may colour, space and set in type
// the parts that the platform has named for it, and can neither reach another part of the page, nor cover anything, nor
// load anything but the tenant's own assets, nor read what a user typed.
//
// The sheet is cut into tokens by github.com/tdewolff/parse, read into a small tree in which each escape is decoded
// before it is compared, and written from that tree: no backslash, no comment and no byte of the input is copied. What is
// not on the lists in grammar.go is refused with line and column. Start with Sanitise.
package css

import (
	"fmt"
	"regexp"

	"github.com/rowhouse-platform/rowhouse/internal/brand"
)

// The limits of a sheet, read and written.
const (
	MaxBytes        = 64 << 10
	MaxDeclarations = 2_000
	MaxDepth        = 8 // functions in functions
)

// Root is the class of the element below which all of a tenant's rules apply, and Layer the cascade layer that they are in:
// the platform's sheet orders it, so that what it does not layer wins over all that a tenant writes.
const (
	Root  = "rh-brand"
	Layer = "rh-tenant"
)

// Sanitise returns the sheet in its one canonical form. The caller says by own which asset paths are the tenant's; a path
// that does not look like an asset's is refused without asking. Errors are of type *brand.Refusal. Sanitising
// the result again returns the same bytes.
func Sanitise(upload []byte, own func(asset string) bool) ([]byte, error) {
	if err := brand.CheckText(upload, MaxBytes); err != nil {
		return nil, err
	}
	all, err := scan(upload)
	if err != nil {
		return nil, err
	}
	p := &parser{upload: upload, tokens: all, own: own, out: []byte("@layer " + Layer + "{")}
	if err := p.sheet(); err != nil {
		return nil, err
	}
	p.out = append(p.out, "}\n"...)
	if len(p.out) > MaxBytes { // prefixes make it longer, and what is written must be good to read
		return nil, &brand.Refusal{Rule: "size", Text: "too long when written out"}
	}
	return p.out, nil
}

// A parser goes over the tokens once and writes each construct when it has seen that it is good.
type parser struct {
	upload       []byte
	tokens       []token // without comments
	at           int
	own          func(string) bool
	out          []byte
	declarations int
	layer        bool // inside of @layer rh-tenant, which what we write has
	media        bool // inside of @media
}

func (p *parser) refuse(t token, rule, text string) error {
	return brand.At(p.upload, t.offset, rule, text)
}

func (p *parser) peek() token { return p.tokens[p.at] } // the last is always of kind end

func (p *parser) next() token {
	t := p.tokens[p.at]
	if t.kind != end {
		p.at++
	}
	return t
}

func (p *parser) skipSpace() {
	for p.peek().kind == space {
		p.at++
	}
}

// want takes the one token that may stand here.
func (p *parser) want(k kind, text string) error {
	p.skipSpace()
	if t := p.next(); t.kind != k || t.text != text {
		return p.refuse(t, "syntax", fmt.Sprintf("%.40q, want %q", t.text, text))
	}
	return nil
}

// sheet reads rules up to the end of the sheet, or of the block that it is called for.
func (p *parser) sheet() error {
	for {
		p.skipSpace()
		t := p.peek()
		switch {
		case t.kind == end && !p.layer && !p.media, t.is("}") && (p.layer || p.media):
			return nil
		case t.kind == at:
			if err := p.atRule(); err != nil {
				return err
			}
		default:
			if err := p.rule(); err != nil {
				return err
			}
		}
	}
}

func (p *parser) atRule() error {
	t := p.next()
	switch {
	case t.text == "layer" && !p.layer && !p.media:
		p.layer = true
		defer func() { p.layer = false }()
		if err := p.want(ident, Layer); err != nil {
			return p.refuse(t, "at-rule", "@layer other than "+Layer)
		}
		return p.block(p.sheet)
	case t.text == "media" && !p.media:
		p.media = true
		defer func() { p.media = false }()
		p.out = append(p.out, "@media "...)
		if err := p.query(); err != nil {
			return err
		}
		p.out = append(p.out, '{')
		if err := p.block(p.sheet); err != nil {
			return err
		}
		p.out = append(p.out, '}')
		return nil
	case t.text == "font-face" && !p.media:
		p.out = append(p.out, "@font-face{"...)
		if err := p.block(func() error { return p.declarationList(descriptor) }); err != nil {
			return err
		}
		p.out = append(p.out, '}')
		return nil
	}
	return p.refuse(t, "at-rule", "@"+t.text)
}

func (p *parser) block(inside func() error) error {
	if err := p.want(punctuation, "{"); err != nil {
		return err
	}
	if err := inside(); err != nil {
		return err
	}
	return p.want(punctuation, "}")
}

// query reads the condition of @media: features of the list, joined by "and".
func (p *parser) query() error {
	for n := 0; ; n++ {
		p.skipSpace()
		if n > 0 {
			if p.peek().is("{") {
				return nil
			}
			if err := p.want(ident, "and"); err != nil {
				return err
			}
			p.out = append(p.out, " and "...)
		}
		if err := p.want(punctuation, "("); err != nil {
			return err
		}
		p.skipSpace()
		feature := p.next()
		if feature.kind != ident || !isFeature(feature.text) {
			return p.refuse(feature, "media", fmt.Sprintf("%.40q", feature.text))
		}
		if err := p.want(punctuation, ":"); err != nil {
			return err
		}
		p.skipSpace()
		v := p.next()
		if (v.kind != ident || !wordPattern.MatchString(v.text)) && (v.kind != numeric || !isNumber(v.text)) {
			return p.refuse(v, "media", fmt.Sprintf("%.40q", v.text))
		}
		if err := p.want(punctuation, ")"); err != nil {
			return err
		}
		p.out = append(p.out, '(')
		p.out = append(append(append(p.out, feature.text...), ':'), v.text...)
		p.out = append(p.out, ')')
	}
}

func (p *parser) rule() error {
	if err := p.selectors(); err != nil {
		return err
	}
	p.out = append(p.out, '{')
	if err := p.block(func() error { return p.declarationList(property) }); err != nil {
		return err
	}
	p.out = append(p.out, '}')
	return nil
}

var (
	classPattern = regexp.MustCompile(`^rh-[a-z0-9]+(?:-[a-z0-9]+)*$`)
	partPattern  = regexp.MustCompile(`^[a-z][a-z0-9]*(?:-[a-z0-9]+)*$`)
)

// selectors reads a list of ".rh-a .rh-b > .rh-c::part(d)" and writes each below the root. There are no siblings: "+" and "~"
// after the root would leave it. Attribute selectors read what a user typed, :visited where they have been, so
// no attribute and no pseudo-class is here.
func (p *parser) selectors() error {
	for {
		if err := p.selector(); err != nil {
			return err
		}
		p.skipSpace()
		if !p.peek().is(",") {
			return nil
		}
		p.next()
		p.out = append(p.out, ',')
	}
}

func (p *parser) selector() error {
	p.skipSpace()
	p.out = append(p.out, "."+Root...)
	for n, between := 0, " "; ; n++ {
		dot, class := p.next(), p.next()
		if !dot.is(".") {
			return p.refuse(dot, "selector", fmt.Sprintf("%.40q, want a class of ours", dot.text))
		}
		if class.kind != ident || !classPattern.MatchString(class.text) {
			return p.refuse(class, "selector", fmt.Sprintf(".%.40s is no class of ours", class.text))
		}
		if n > 0 || class.text != Root { // the root may stand first, as it does in what we write
			p.out = append(append(append(p.out, between...), '.'), class.text...)
		}
		if p.peek().is(":") {
			return p.part()
		}
		between = ""
		if p.peek().kind == space {
			p.skipSpace()
			between = " "
		}
		if p.peek().is(">") {
			p.next()
			p.skipSpace()
			between = ">"
		} else if p.peek().is(",") || p.peek().is("{") {
			return nil
		}
	}
}

// part reads "::part(name)", which ends a selector.
func (p *parser) part() error {
	first, second, function := p.next(), p.next(), p.next()
	if !first.is(":") || !second.is(":") || function.kind != call || function.text != "part" {
		return p.refuse(first, "selector", "only ::part() may follow a class")
	}
	p.skipSpace()
	name := p.next()
	if name.kind != ident || !partPattern.MatchString(name.text) {
		return p.refuse(name, "selector", fmt.Sprintf("%.40q is no name of a part", name.text))
	}
	if err := p.want(punctuation, ")"); err != nil {
		return err
	}
	p.out = append(append(append(p.out, "::part("...), name.text...), ')')
	return nil
}
