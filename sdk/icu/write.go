package icu

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	forms "golang.org/x/text/feature/plural"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
	"golang.org/x/text/number"
)

// ErrValue is wrapped where a value is missing, not of its type, or no number that can be shown; the error names the place
// and never holds the value.
var ErrValue = errors.New("icu: not the value of this place")

// ErrTooLong is wrapped where what would be made is longer than MaxOutput.
var ErrTooLong = errors.New("icu: the text would be too long")

// maxNumber is how far from zero a number may be: float64 holds all whole numbers up to there.
const maxNumber = 1e15

// writer fills the places of one text in.
type writer struct {
	in     language.Tag
	values map[string]any
	out    strings.Builder
	// printer is made for the first number and kept, as is the last number's text: a plural may say its number often, and
	// neither is cheap to make.
	printer *message.Printer
	last    float64
	said    string
}

// write writes parts; n is the number of the plural around them.
func (w *writer) write(parts []part, n float64) error {
	for _, p := range parts {
		text, chosen, of := p.text, []part(nil), n
		var err error
		switch p.kind {
		case literal:
		case count:
			text = w.shown(n)
		case value:
			text, err = w.valueOf(p.text)
		case plural:
			text = ""
			if of, err = w.number(p.text); err == nil {
				chosen, of = w.ofNumber(p, of)
			}
		case choose:
			var s string
			s, err = w.text(p.text)
			text, chosen = "", find(p.choices, s)
		}
		switch {
		case err != nil:
			return err
		case w.out.Len()+len(text) > MaxOutput:
			return fmt.Errorf("%w: more than %d bytes", ErrTooLong, MaxOutput)
		}
		w.out.WriteString(text)
		if err := w.write(chosen, of); err != nil {
			return err
		}
	}
	return nil
}

// find returns the parts of a choice, or of the one for all others.
func find(choices []choice, key string) []part {
	var rest []part
	for _, c := range choices {
		if c.key == key {
			return c.parts
		}
		if c.key == other {
			rest = c.parts
		}
	}
	return rest
}

// ofNumber chooses by a number: what names it, or else what its plural is once the offset is taken away.
func (w *writer) ofNumber(p part, n float64) (chosen []part, less float64) {
	less = rounded(n - p.offset)
	named := "=" + strconv.FormatFloat(n, 'f', -1, 64)
	for _, c := range p.choices {
		if c.key == named {
			return c.parts, less
		}
	}
	return find(p.choices, form(w.in, less)), less
}

func (w *writer) valueOf(name string) (string, error) {
	if s, ok := w.values[name].(string); ok {
		return s, nil
	}
	n, err := w.number(name)
	if err != nil {
		return "", err
	}
	return w.shown(n), nil
}

func (w *writer) text(name string) (string, error) {
	if s, ok := w.values[name].(string); ok {
		return s, nil
	}
	return "", fmt.Errorf("%w: %.40q", ErrValue, name)
}

func (w *writer) number(name string) (float64, error) {
	n, ok := numberOf(w.values[name])
	if !ok {
		return 0, fmt.Errorf("%w: %.40q", ErrValue, name)
	}
	return n, nil
}

// Takes reports whether a value is of a type, and can be shown.
func (t Type) Takes(v any) bool {
	if t == Text {
		_, ok := v.(string)
		return ok
	}
	_, ok := numberOf(v)
	return ok && t == Number
}

func numberOf(v any) (float64, bool) {
	var n float64
	switch v := v.(type) {
	case int:
		n = float64(v)
	case int64:
		n = float64(v)
	case float64:
		n = v
	default:
		return 0, false
	}
	return rounded(n), math.Abs(n) <= maxNumber // which no NaN is
}

// rounded leaves three digits behind the point, as many as are shown.
func rounded(n float64) float64 {
	const digits = 3
	r, err := strconv.ParseFloat(strconv.FormatFloat(n, 'f', digits, 64), 64)
	if err != nil || r == 0 { // no minus before a zero
		return 0
	}
	return r
}

// shown is a number as the language writes it.
func (w *writer) shown(n float64) string {
	if w.printer == nil {
		w.printer = message.NewPrinter(w.in)
	} else if n == w.last {
		return w.said
	}
	w.last, w.said = n, w.printer.Sprint(number.Decimal(n))
	return w.said
}

// category reports whether a word is one of CLDR's for plurals.
func category(word string) bool {
	return slices.Contains([]string{"zero", "one", "two", "few", "many", other}, word)
}

// form is the plural of a number that was rounded.
func form(in language.Tag, n float64) string {
	whole, fraction, _ := strings.Cut(strconv.FormatFloat(math.Abs(n), 'f', -1, 64), ".")
	i, err := strconv.ParseInt(whole, 10, 64)
	f, err2 := strconv.Atoi("0" + fraction)
	if err != nil || err2 != nil {
		return other // a number that is shown has digits
	}
	const differ = 1_000_000 // the rules look at the end of larger ones
	if i >= differ {
		i = i%differ + differ
	}
	switch forms.Cardinal.MatchPlural(in, int(i), len(fraction), len(fraction), f, f) {
	case forms.Zero:
		return "zero"
	case forms.One:
		return "one"
	case forms.Two:
		return "two"
	case forms.Few:
		return "few"
	case forms.Many:
		return "many"
	default:
		return other
	}
}
