// Package settings is what a process knows of its tenants' settings: it merges the
// six layers platform, plan, region, parent, tenant and environment in memory, tells
// where each value comes from, and reads brands.
//
// The config service validates with the same code that readers merge with, so a
// value that was accepted is the value that is read. Nothing here asks another
// service on the path of a request. Start at [Follow] and [Store.Effective]; product
// code reads its own namespace with [For].
package settings

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Bounds of a document.
const (
	// MaxBytes bounds the text of a document.
	MaxBytes = 256 << 10
	// MaxDepth bounds how many objects and arrays stand inside one another.
	MaxDepth = 64
	// MaxLeaves bounds its values; an empty object or array is one.
	MaxLeaves = 10_000
	// MaxPath bounds the names on the way to a value, in bytes. Without it one long name above many values would make
	// their pointers larger than all memory.
	MaxPath = 1024
	// maxNumber bounds numbers: beyond it a double skips integers, and readers disagree about what was written.
	maxNumber = 1<<53 - 1
)

// ErrDocument is wrapped by what [Parse] refuses.
var ErrDocument = errors.New("settings: not an acceptable JSON object")

// Object is a parsed JSON object: values are nil, bool, float64, string, []any and
// map[string]any. Treat it as immutable: stores share it.
type Object = map[string]any

// Parse reads a document strictly: one JSON object, no member twice, no NUL, no lone
// surrogate, no number beyond 2^53-1 or too small to tell from 0, within the bounds.
// The error wraps [ErrDocument] and says what is wrong, at which JSON pointer, and for
// what is no JSON or may not be in a text at which line and column, not the value;
// [Place] gives the pointer alone.
func Parse(text []byte) (Object, error) { return parse(string(text)) }

func parse(text string) (Object, error) {
	v, err := parseValue(text)
	if err != nil {
		return nil, err
	}
	o, ok := v.(Object)
	if !ok {
		return nil, fmt.Errorf("%w: not an object", ErrDocument)
	}
	return o, nil
}

// ParseValue is [Parse] for any value, such as a patch.
func ParseValue(text []byte) (any, error) { return parseValue(string(text)) }

// parseValue makes a value whose texts are parts of the text it was made from, so it keeps all of that.
func parseValue(text string) (any, error) {
	if len(text) > MaxBytes {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrDocument, MaxBytes)
	}
	if !utf8.ValidString(text) {
		return nil, fmt.Errorf("%w: not UTF-8", ErrDocument)
	}
	if at, why := checkEscapes(text); why != "" {
		return nil, fmt.Errorf("%w: %w", ErrDocument, refused(text, at, why))
	}
	p := &parser{text: text}
	v, err := p.value(0, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDocument, p.located(err))
	}
	if p.peek() != 0 {
		return nil, fmt.Errorf("%w: something follows the value", ErrDocument)
	}
	return v, nil
}

// located adds the place in the text to the error of what is no JSON.
func (p *parser) located(err error) error {
	if !errors.Is(err, errBroken) {
		return err
	}
	return fmt.Errorf("%w at %s", err, lineOf(p.text, p.at))
}

// lineOf is a place in a text as people count.
func lineOf(text string, at int) string {
	return fmt.Sprintf("line %d, column %d", 1+strings.Count(text[:at], "\n"), at-strings.LastIndexByte(text[:at], '\n'))
}

// refused is the error of a character that may not be where it is. A parser of what is before it breaks off in the value
// that it is in, and so knows the pointer. What is wrong before it comes first.
func refused(text string, at int, why string) error {
	p := &parser{text: text[:at]}
	_, err := p.value(0, 0)
	if err != nil && !(errors.Is(err, errBroken) && p.ends()) {
		return p.located(err)
	}
	found := fmt.Errorf("%s at %s", why, lineOf(text, at))
	if pointer := Place(err); pointer != "" {
		return &placed{pointer: pointer, why: found}
	}
	return found
}

// ends reports whether nothing is wrong where the parser broke off but that the text ends.
func (p *parser) ends() bool {
	if p.at == len(p.text) {
		return true
	}
	_, err := (&parser{text: p.text, at: p.at}).string()
	return p.text[p.at] == '"' && err != nil
}

// Place is the JSON pointer that an error of [Parse] has, "" where it is about the whole.
func Place(err error) string {
	if p := (*placed)(nil); errors.As(err, &p) {
		return p.pointer
	}
	return ""
}

// placed is an error at a JSON pointer.
type placed struct {
	pointer string
	why     error
}

// Error implements error.
func (p *placed) Error() string { return p.pointer + ": " + p.why.Error() }

// Unwrap returns the error without its place.
func (p *placed) Unwrap() error { return p.why }

// below puts an error of a member, or of an element, in its place.
func below(name string, err error) error {
	if err == nil {
		return nil
	}
	pointer := "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
	if inner := (*placed)(nil); errors.As(err, &inner) {
		return &placed{pointer: pointer + inner.pointer, why: inner.why}
	}
	return &placed{pointer: pointer, why: err}
}

// number refuses what another reader could take for another number.
func number(n string) (float64, error) {
	f, err := strconv.ParseFloat(n, 64)
	if err != nil || math.Abs(f) > maxNumber {
		return 0, errors.New("a number beyond 2^53-1")
	}
	mantissa, _, _ := strings.Cut(strings.ToLower(n), "e")
	if f == 0 && strings.ContainsAny(mantissa, "123456789") {
		return 0, errors.New("a number too small to tell from 0")
	}
	return f, nil
}

// checkEscapes finds \u0000 and surrogates that are not a pair, which a decoder would
// replace in silence. It stops at an escape that is none, as the parser will.
func checkEscapes(text string) (at int, why string) {
	const nul, lone = "a NUL", "a lone surrogate"
	if strings.IndexByte(text, '\\') < 0 && strings.IndexByte(text, 0) < 0 {
		return 0, ""
	}
	for i := 0; i < len(text); i++ {
		if text[i] == 0 {
			return i, nul
		}
		if text[i] != '\\' || i+1 >= len(text) {
			continue
		}
		i++
		if text[i] != 'u' {
			continue
		}
		r, ok := hexRune(text, i+1)
		if !ok {
			return 0, ""
		}
		i += 4
		switch {
		case r == 0:
			return i - 5, nul
		case utf16.IsSurrogate(r):
			low, ok := rune(0), false
			if i+2 < len(text) && text[i+1] == '\\' && text[i+2] == 'u' {
				low, ok = hexRune(text, i+3)
			}
			if !ok || utf16.DecodeRune(r, low) == utf8.RuneError {
				return i - 5, lone
			}
			i += 6
		}
	}
	return 0, ""
}

func hexRune(text string, at int) (rune, bool) {
	if at+4 > len(text) {
		return 0, false
	}
	n, err := strconv.ParseUint(text[at:at+4], 16, 16)
	return rune(n), err == nil
}

// Canonical writes a value in its one form (RFC 8785): members sorted by UTF-16 code
// units, no white space, numbers in the shortest form that reads back the same.
func Canonical(v any) []byte { return appendValue(nil, v) }

func appendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case Object:
		b = append(b, '{')
		for i, name := range sortedNames(v) {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendString(b, name)
			b = append(b, ':')
			b = appendValue(b, v[name])
		}
		return append(b, '}')
	case []any:
		b = append(b, '[')
		for i, e := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendValue(b, e)
		}
		return append(b, ']')
	case string:
		return appendString(b, v)
	case float64:
		return appendNumber(b, v)
	case bool:
		return strconv.AppendBool(b, v)
	default:
		return append(b, "null"...)
	}
}

func sortedNames(o Object) []string {
	return slices.SortedFunc(maps.Keys(o), compareUTF16)
}

// compareUTF16 orders strings by their UTF-16 code units, which differs from the
// order of their runes where one begins with a surrogate.
func compareUTF16(a, b string) int {
	for a != "" && b != "" {
		r, n := utf8.DecodeRuneInString(a)
		s, m := utf8.DecodeRuneInString(b)
		if r != s {
			return cmp.Compare(firstUnit(r, s), firstUnit(s, r))
		}
		a, b = a[n:], b[m:]
	}
	return cmp.Compare(len(a), len(b))
}

// firstUnit is the code unit that decides between r and another rune.
func firstUnit(r, other rune) rune {
	const first, beyond = 0xD800, 0x10000
	if r >= beyond && other < beyond {
		return first // of the surrogates, all of which are in one place among the units
	}
	return r
}

// appendNumber writes a number as ECMAScript does.
func appendNumber(b []byte, f float64) []byte {
	if f == 0 {
		return append(b, '0')
	}
	if a := math.Abs(f); a >= 1e21 || a < 1e-6 {
		s := strconv.AppendFloat(nil, f, 'e', -1, 64)
		// ECMAScript writes exponents without leading zeros
		mantissa, exponent, _ := bytes.Cut(s, []byte("e"))
		sign, digits := exponent[:1], bytes.TrimLeft(exponent[1:], "0")
		b = append(append(b, mantissa...), 'e')
		return append(append(b, sign...), digits...)
	}
	return strconv.AppendFloat(b, f, 'f', -1, 64)
}

func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for _, r := range s {
		switch r {
		case '"', '\\':
			b = append(b, '\\', byte(r))
		case '\b':
			b = append(b, '\\', 'b')
		case '\f':
			b = append(b, '\\', 'f')
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			if r < ' ' {
				b = append(b, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
			} else {
				b = utf8.AppendRune(b, r)
			}
		}
	}
	return append(b, '"')
}
