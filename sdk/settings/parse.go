package settings

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
)

var errBroken = errors.New("broken JSON")

// parser reads JSON (RFC 8259) and counts. Its text is UTF-8 without NUL, and what follows each \u in it was checked. It
// is our own because every follower reads every change, and a decoder for any type takes five times as long.
type parser struct {
	text   string
	at     int
	leaves int
}

// peek passes over blanks and returns the byte that follows, 0 at the end.
func (p *parser) peek() byte {
	for ; p.at < len(p.text); p.at++ {
		switch c := p.text[p.at]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

// value reads a value that depth containers hold, at the end of a path of so many bytes.
func (p *parser) value(depth, path int) (any, error) {
	c := p.peek()
	switch c {
	case '{', '[':
		if depth >= MaxDepth {
			return nil, fmt.Errorf("deeper than %d", MaxDepth)
		}
		p.at++
		if c == '{' {
			return p.object(depth, path)
		}
		return p.array(depth, path)
	case '"':
		s, err := p.string()
		if err != nil {
			return nil, err
		}
		return s, p.leaf()
	case 't':
		return p.literal("true", true)
	case 'f':
		return p.literal("false", false)
	case 'n':
		return p.literal("null", nil)
	default:
		return p.number()
	}
}

func (p *parser) literal(word string, v any) (any, error) {
	if !strings.HasPrefix(p.text[p.at:], word) {
		return nil, errBroken
	}
	p.at += len(word)
	return v, p.leaf()
}

func (p *parser) leaf() error {
	if p.leaves++; p.leaves > MaxLeaves {
		return fmt.Errorf("more than %d values", MaxLeaves)
	}
	return nil
}

// next goes on behind an element: true when another follows, false at the end of the container.
func (p *parser) next(end byte) (bool, error) {
	c := p.peek()
	if c != ',' && c != end {
		return false, errBroken
	}
	p.at++
	return c == ',', nil
}

func (p *parser) object(depth, path int) (any, error) {
	o := make(Object)
	if p.peek() == '}' {
		p.at++
		return o, p.leaf()
	}
	for {
		if p.peek() != '"' {
			return nil, errBroken
		}
		name, err := p.string()
		if err != nil {
			return nil, err
		}
		if _, twice := o[name]; twice {
			return nil, below(name, errors.New("a member stands twice"))
		}
		path := path + 1 + len(name)
		if path > MaxPath {
			return nil, fmt.Errorf("a path of more than %d bytes", MaxPath)
		}
		if p.peek() != ':' {
			return nil, below(name, errBroken)
		}
		p.at++
		if o[name], err = p.value(depth+1, path); err != nil {
			return nil, below(name, err)
		}
		if more, err := p.next('}'); err != nil || !more {
			return o, err
		}
	}
}

func (p *parser) array(depth, path int) (any, error) {
	a := []any{}
	if p.peek() == ']' {
		p.at++
		return a, p.leaf()
	}
	for {
		v, err := p.value(depth+1, path)
		if err != nil {
			return nil, below(strconv.Itoa(len(a)), err)
		}
		a = append(a, v)
		if more, err := p.next(']'); err != nil || !more {
			return a, err
		}
	}
}

// string reads a text, from its opening quotation mark on.
func (p *parser) string() (string, error) {
	start := p.at + 1
	for i := start; i < len(p.text); i++ {
		switch c := p.text[i]; {
		case c == '"':
			p.at = i + 1
			return p.text[start:i], nil
		case c == '\\':
			return p.escaped(start, i)
		case c < ' ':
			return "", errBroken
		}
	}
	return "", errBroken
}

// escaped reads on in a text whose first backslash is at i.
func (p *parser) escaped(start, i int) (string, error) {
	out := append(make([]byte, 0, 2*(i-start)+32), p.text[start:i]...)
	for ; i < len(p.text); i++ {
		switch c := p.text[i]; {
		case c == '"':
			p.at = i + 1
			return string(out), nil
		case c < ' ':
			return "", errBroken
		case c != '\\':
			out = append(out, c)
		default:
			var err error
			if out, i, err = p.escape(out, i+1); err != nil {
				return "", err
			}
		}
	}
	return "", errBroken
}

// escape reads what a backslash before i begins, and returns the place of its last byte.
func (p *parser) escape(out []byte, i int) ([]byte, int, error) {
	if i >= len(p.text) {
		return nil, i, errBroken
	}
	c := p.text[i]
	if at := strings.IndexByte(`"\/bfnrt`, c); at >= 0 {
		return append(out, "\"\\/\b\f\n\r\t"[at]), i, nil
	}
	if c != 'u' {
		return nil, i, errBroken
	}
	r, ok := hexRune(p.text, i+1)
	if !ok {
		return nil, i, errBroken
	}
	i += 4
	if utf16.IsSurrogate(r) { // the other half follows: checkEscapes has looked
		low, ok := hexRune(p.text, i+3)
		if !ok {
			return nil, i, errBroken
		}
		r, i = utf16.DecodeRune(r, low), i+6
	}
	return append(out, string(r)...), i, nil
}

// number reads a number.
func (p *parser) number() (any, error) {
	start := p.at
	digits := func() bool {
		from := p.at
		for p.at < len(p.text) && p.text[p.at] >= '0' && p.text[p.at] <= '9' {
			p.at++
		}
		return p.at > from
	}
	is := func(of string) bool {
		ok := p.at < len(p.text) && strings.IndexByte(of, p.text[p.at]) >= 0
		if ok {
			p.at++
		}
		return ok
	}
	is("-")
	if !is("0") && !digits() || is(".") && !digits() {
		return nil, errBroken
	}
	if is("eE") {
		is("+-")
		if !digits() {
			return nil, errBroken
		}
	}
	f, err := number(p.text[start:p.at])
	return f, errors.Join(err, p.leaf())
}
