package css

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/rowhouse-platform/rowhouse/internal/brand"
)

// A list says which names may be declared in a block.
type list func(name string) bool

// declarationList reads "name: value; …" up to the closing bracket.
func (p *parser) declarationList(allowed list) error {
	for n := 0; ; {
		p.skipSpace()
		if p.peek().is("}") {
			return nil
		}
		if p.peek().is(";") {
			p.next()
			continue
		}
		name := p.next()
		lower := strings.ToLower(name.text)
		switch {
		case name.kind != ident:
			return p.refuse(name, "syntax", fmt.Sprintf("%.40q, want a property", name.text))
		case !allowed(lower):
			return p.refuse(name, "property", fmt.Sprintf("%.40s", name.text))
		}
		if p.declarations++; p.declarations > MaxDeclarations {
			return p.refuse(name, "declarations", fmt.Sprintf("more than %d", MaxDeclarations))
		}
		if err := p.want(punctuation, ":"); err != nil {
			return err
		}
		if n++; n > 1 {
			p.out = append(p.out, ';')
		}
		p.out = append(append(p.out, lower...), ':')
		if err := p.values(name); err != nil {
			return err
		}
	}
}

// values reads a declaration's value. One blank stands between any two components, and none behind an opening or before a
// closing bracket or a comma, so what is written falls into the same tokens when it is read again.
func (p *parser) values(name token) error {
	var open []string // functions, innermost last; "" for a bracket of calc()
	written := 0
	for glued := true; ; {
		p.skipSpace()
		t := p.peek()
		if t.kind == end || ((t.is(";") || t.is("}")) && len(open) == 0) {
			if written == 0 || len(open) > 0 {
				return p.refuse(t, "syntax", "the value of "+name.text+" does not end")
			}
			return nil
		}
		p.next()
		clean, rule := p.value(t, open)
		if rule == "" && isStill(strings.ToLower(name.text)) && mayBeNegative(t) {
			rule = "overlap"
		}
		if rule == "" && !slices.ContainsFunc(open, isColour) && tooFar(strings.ToLower(name.text), t) {
			rule = "overlap"
		}
		if rule != "" {
			return p.refuse(t, rule, fmt.Sprintf("%.80q in %s", t.text, name.text))
		}
		closing := t.is(")")
		if !glued && !closing && !t.is(",") {
			p.out = append(p.out, ' ')
		}
		p.out = append(p.out, clean...)
		glued = false
		switch {
		case t.kind == call, t.is("("):
			if open = append(open, strings.TrimSuffix(clean, "(")); len(open) > MaxDepth {
				return p.refuse(t, "depth", fmt.Sprintf("more than %d functions deep", MaxDepth))
			}
			glued = true
		case closing:
			open = open[:len(open)-1]
		case t.is(","):
			glued = true
		}
		written++
	}
}

func mayBeNegative(t token) bool {
	return (t.kind == numeric && t.text[0] == '-') || (t.kind == call && t.text != "var")
}

// tooFar reports whether what a property takes might paint further beyond its thing than it may. Arithmetic might.
func tooFar(property string, t token) bool {
	most, bounded := reach(property)
	switch {
	case !bounded:
		return false
	case t.kind == call:
		return t.text != "var" && !isColour(t.text)
	case t.kind != numeric:
		return false
	}
	unit := numberPattern.FindStringSubmatch(t.text)[1]
	n, err := strconv.ParseFloat(strings.TrimSuffix(t.text, unit), 64)
	limit, known := most[unit]
	return err != nil || !known || math.Abs(n) > limit
}

// value is one component as we write it, or the rule that forbids it.
func (p *parser) value(t token, open []string) (clean, rule string) {
	switch t.kind {
	case ident:
		if strings.HasPrefix(t.text, "--") {
			if !customPattern.MatchString(t.text) || len(open) == 0 || open[len(open)-1] != "var" {
				return "", "value"
			}
			return t.text, ""
		}
		if !wordPattern.MatchString(t.text) {
			return "", "value"
		}
		return t.text, ""
	case numeric:
		if !isNumber(t.text) {
			return "", "number"
		}
		return t.text, ""
	case hash:
		if !colourPattern.MatchString(t.text) {
			return "", "colour"
		}
		return t.text, ""
	case text:
		if !namePattern.MatchString(t.text) {
			return "", "string"
		}
		return `"` + t.text + `"`, ""
	case url:
		if !brand.IsAssetPath(t.text) || !p.own(t.text) {
			return "", "url"
		}
		return `url("` + t.text + `")`, ""
	case call:
		if !isFunction(t.text) {
			return "", "function"
		}
		return t.text + "(", ""
	case punctuation:
		return sign(t.text, len(open))
	default:
		return "", "value"
	}
}

// sign is a character between components: brackets and arithmetic only inside of functions.
func sign(s string, depth int) (clean, rule string) {
	switch s {
	case ",", "/":
		return s, ""
	case "!":
		return "", "important"
	case "(", ")", "+", "-", "*":
		if depth > 0 {
			return s, ""
		}
	}
	return "", "value"
}
