// Package icu reads texts with places in them, in a small part of ICU's MessageFormat, and fills the places in: {name},
// {name, number}, {name, plural, …} with =n, offset and #, and {name, select, …}. Plurals are chosen by CLDR's rules for
// the reader's language, and numbers are written as that language writes them; both come from golang.org/x/text.
//
// Tenants write such texts, so reading one is bounded, and whatever else MessageFormat has is refused rather than shown as
// it stands. Apostrophes are ICU's: two are one, and one quotes what follows only before a brace or, in a plural, before #.
// The package judges no characters; package settings does. Start with [Parse].
package icu

import (
	"fmt"
	"iter"
	"maps"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/language"
)

// Type is what a place takes.
type Type string

// The types of places.
const (
	Text   Type = "text"   // a string
	Number Type = "number" // an int, an int64 or a float64
)

// Known reports whether there is such a type.
func (t Type) Known() bool { return t == Text || t == Number }

// Places say which places a text may have, and of which type.
type Places interface {
	// Place returns the type of the place of a name; ok is false where there is none.
	Place(name string) (t Type, ok bool)
}

// Arguments are the places that a text may have.
type Arguments map[string]Type

// Place implements [Places].
func (a Arguments) Place(name string) (Type, bool) {
	t, ok := a[name]
	return t, ok
}

// Bounds of a text.
const (
	MaxPattern = 8000 // bytes
	MaxDepth   = 4    // of plurals and selects within each other
	MaxChoices = 50   // of one of them
	MaxOutput  = 16 << 10
)

// Error says what is wrong with a text.
type Error struct {
	// Rule is short and stable: "syntax", "argument", "other", "depth" or "length".
	Rule string
	// At is the place in the text, in characters from 1.
	At int
	// Text is one sentence for people, which holds nothing of the text but names.
	Text string
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("at character %d %s", e.At, e.Text) }

// Message is a text that was read. It is immutable and safe for concurrent use.
type Message struct {
	parts []part
	names map[string]bool
}

// Uses reports whether the text has a place of a name.
func (m *Message) Uses(name string) bool { return m.names[name] }

// Names are the names of the text's places, in no order.
func (m *Message) Names() iter.Seq[string] { return maps.Keys(m.names) }

// kind is what a part of a text is.
type kind int

const (
	literal kind = iota
	value
	count // the number of the plural around it
	plural
	choose
)

// part is a part of a text; text is what a literal says, and the name of the place in all others.
type part struct {
	kind    kind
	text    string
	offset  float64
	choices []choice
}

// choice is what a plural or a select may say; its key is a word, or "=" with a number.
type choice struct {
	key   string
	parts []part
}

// Parse reads a text, which may use the given places and no others. Errors are of type *Error.
func Parse(pattern string, may Places) (*Message, error) {
	if may == nil {
		may = Arguments(nil)
	}
	if len(pattern) > MaxPattern {
		return nil, &Error{"length", 1, fmt.Sprintf("it is longer than %d bytes", MaxPattern)}
	}
	p := &parser{in: pattern, may: may, names: make(map[string]bool)}
	parts, err := p.parts(0, false)
	if err != nil {
		return nil, err
	}
	return &Message{parts, p.names}, nil
}

type parser struct {
	in    string
	at    int
	may   Places
	names map[string]bool // that were read
}

func (p *parser) fail(at int, rule, text string, values ...any) error {
	return &Error{rule, utf8.RuneCountInString(p.in[:at]) + 1, fmt.Sprintf(text, values...)}
}

// parts reads to the end, or, within braces, to the closing one, which stays. within says that they are a plural's.
func (p *parser) parts(depth int, within bool) (out []part, err error) {
	var text strings.Builder
	flush := func() {
		if text.Len() > 0 {
			out = append(out, part{kind: literal, text: text.String()})
			text.Reset()
		}
	}
	begin := p.at
	for p.at < len(p.in) {
		switch c := p.in[p.at]; {
		case c == '}' && depth == 0:
			return nil, p.fail(p.at, "syntax", "a closing brace has no opening one")
		case c == '}':
			flush()
			return out, nil
		case c == '{':
			flush()
			place, err := p.place(depth)
			if err != nil {
				return nil, err
			}
			out = append(out, place)
		case c == '#' && within:
			flush()
			out = append(out, part{kind: count})
			p.at++
		case c == '\'':
			if err := p.apostrophe(&text, within); err != nil {
				return nil, err
			}
		default:
			text.WriteByte(c)
			p.at++
		}
	}
	if depth > 0 {
		return nil, p.fail(begin, "syntax", "a brace is not closed")
	}
	flush()
	return out, nil
}

// apostrophe reads one, with what it quotes.
func (p *parser) apostrophe(into *strings.Builder, within bool) error {
	begin := p.at
	p.at++
	rest := p.in[p.at:]
	switch {
	case strings.HasPrefix(rest, "'"):
		into.WriteByte('\'')
		p.at++
		return nil
	case !strings.HasPrefix(rest, "{") && !strings.HasPrefix(rest, "}") && (!within || !strings.HasPrefix(rest, "#")):
		into.WriteByte('\'')
		return nil
	}
	for p.at < len(p.in) {
		c := p.in[p.at]
		p.at++
		if c == '\'' {
			if !strings.HasPrefix(p.in[p.at:], "'") {
				return nil
			}
			p.at++
		}
		into.WriteByte(c)
	}
	return p.fail(begin, "syntax", "what an apostrophe quotes does not end")
}

// place reads a place, from its opening brace to behind the closing one.
func (p *parser) place(depth int) (part, error) {
	begin := p.at
	p.at++
	name := p.word()
	t, known := p.may.Place(name)
	p.names[name] = true
	switch {
	case name == "":
		return part{}, p.fail(begin, "syntax", "a brace is not followed by a name; '{' in apostrophes is a brace")
	case strings.HasPrefix(p.in[p.at:], "-"):
		return part{}, p.fail(begin, "syntax", "%.40q has a hyphen, which names in ICU's messages do not have; give the term another name",
			name+p.run(func(c byte) bool { return c == '-' || letter(c) }))
	case !known:
		return part{}, p.fail(begin, "argument", "%.40q is not declared, nor a term of the brand", name)
	case p.take('}'):
		return part{kind: value, text: name}, nil
	case !p.take(','):
		return part{}, p.fail(p.at, "syntax", "%.40q is followed by neither a closing brace nor a comma", name)
	}
	format := p.word()
	switch want := map[string]Type{"number": Number, "plural": Number, "select": Text}[format]; {
	case want == "":
		return part{}, p.fail(begin, "syntax", "%.40q has a format that is none of number, plural and select", name)
	case want != t:
		return part{}, p.fail(begin, "argument", "%.40q is declared as %q, and %s takes another type", name, t, format)
	case format == "number" && p.take('}'):
		return part{kind: value, text: name}, nil
	case format == "number" || !p.take(','):
		return part{}, p.fail(p.at, "syntax", "%s of %.40q is not followed by what belongs there", format, name)
	case depth == MaxDepth:
		return part{}, p.fail(begin, "depth", "more than %d plurals and selects are within each other", MaxDepth)
	}
	out := part{kind: choose, text: name}
	if format == "plural" {
		out.kind = plural
	}
	return out, p.choices(&out, begin, depth)
}

// choices reads what a plural or a select may say, to behind the brace that closes it.
func (p *parser) choices(of *part, begin, depth int) error {
	if of.kind == plural {
		if err := p.offset(of); err != nil {
			return err
		}
	}
	seen := make(map[string]bool)
	for !p.take('}') {
		at := p.at
		key, err := p.key(of.kind)
		switch {
		case err != nil:
			return err
		case seen[key]:
			return p.fail(at, "syntax", "the choice %.40q of %.40q is there twice", key, of.text)
		case len(seen) == MaxChoices:
			return p.fail(at, "length", "%.40q has more than %d choices", of.text, MaxChoices)
		case !p.take('{'):
			return p.fail(p.at, "syntax", "the choice %.40q of %.40q has no opening brace", key, of.text)
		}
		seen[key] = true
		parts, err := p.parts(depth+1, of.kind == plural)
		if err != nil {
			return err
		}
		p.at++ // the closing brace
		of.choices = append(of.choices, choice{key, parts})
	}
	if !seen[other] {
		return p.fail(begin, "other", `%.40q has no choice "other"`, of.text)
	}
	return nil
}

// offset reads the number that is taken away before a plural is chosen, where there is one.
func (p *parser) offset(of *part) error {
	p.space()
	begin := p.at
	if p.word() != "offset" || !p.take(':') {
		p.at = begin
		return nil
	}
	p.space()
	digits := p.run(digit)
	n, err := strconv.ParseUint(digits, 10, maxDigits)
	if err != nil {
		return p.fail(begin, "syntax", "the offset of %.40q is not a whole number below %d", of.text, 1<<maxDigits)
	}
	of.offset = float64(n)
	return nil
}

// maxDigits is of how many bits the numbers in a text are at most.
const maxDigits = 31

// other is the choice that there always is.
const other = "other"

// key reads the key of a choice.
func (p *parser) key(k kind) (string, error) {
	p.space()
	begin := p.at
	if k == plural && p.take('=') {
		n, err := strconv.ParseUint(p.run(digit), 10, maxDigits)
		if err != nil {
			return "", p.fail(begin, "syntax", "an = is not followed by a whole number below %d", 1<<maxDigits)
		}
		return "=" + strconv.FormatUint(n, 10), nil
	}
	word := p.word()
	switch {
	case word == "" && p.at == len(p.in):
		return "", p.fail(begin, "syntax", "a brace is not closed")
	case word == "":
		return "", p.fail(begin, "syntax", "the key of a choice is missing")
	case k == plural && !category(word):
		return "", p.fail(begin, "syntax", "%.40q is no plural: zero, one, two, few, many, other, or = with a number", word)
	}
	return word, nil
}

func (p *parser) space() { p.run(func(c byte) bool { return strings.IndexByte(" \t\r\n", c) >= 0 }) }

// word reads a name, with the space before it; "" where there is none.
func (p *parser) word() string {
	p.space()
	return p.run(letter)
}

// letter is what names consist of.
func letter(c byte) bool { return c == '_' || digit(c) || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

func digit(c byte) bool { return c >= '0' && c <= '9' }

func (p *parser) run(of func(byte) bool) string {
	begin := p.at
	for p.at < len(p.in) && of(p.in[p.at]) {
		p.at++
	}
	return p.in[begin:p.at]
}

// take reads a character, with the space before it, if it is the next.
func (p *parser) take(c byte) bool {
	p.space()
	if p.at < len(p.in) && p.in[p.at] == c {
		p.at++
		return true
	}
	return false
}

// Format fills the places in. Plurals and numbers are those of a language, which should be the text's own or a region's of
// it. Each value that the text comes to must be there and of its type; numbers are finite and at most 10^15 from zero, and
// are rounded to three digits behind the point. Errors wrap [ErrValue] or [ErrTooLong].
func (m *Message) Format(in language.Tag, values map[string]any) (string, error) {
	w := writer{in: in, values: values}
	if err := w.write(m.parts, 0); err != nil {
		return "", err
	}
	return w.out.String(), nil
}
