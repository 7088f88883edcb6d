package icu_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/text/language"

	"github.com/rowhouse-platform/rowhouse/sdk/icu"
)

// may are the places of all tests.
func may() icu.Arguments {
	return icu.Arguments{"n": icu.Number, "m": icu.Number, "name": icu.Text, "role": icu.Text, "workspace": icu.Text}
}

func values(n any) map[string]any {
	return map[string]any{"n": n, "m": 2, "name": "Ann", "role": "admin", "workspace": "Projekt"}
}

const (
	files   = "{n, plural, =0 {no files} one {# file} other {# files}}"
	fajle   = "{n, plural, one {# plik} few {# pliki} many {# plików} other {# pliku}}"
	guests  = "{n, plural, offset:1 =0 {nobody} =1 {{name}} one {{name} and # more} other {{name} and # others}}"
	letters = "{role, select, admin {{n, plural, one {# key} other {# keys}}} other {none, {n}}}"
)

func TestFormat(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in, pattern string
		n           any
		want        string
	}{
		{"en", "", 0, ""},
		{"en", "Hello { name }!", 0, "Hello Ann!"},
		{"en", files, 0, "no files"},
		{"en", files, 1, "1 file"},
		{"en", files, int64(2), "2 files"},
		{"en", files, 1.5, "1.5 files"},
		{"en", files, 1.0004, "1 file"}, // what is shown is what counts
		{"en", files, -1, "-1 file"},
		{"en", files, -0.0001, "no files"},
		{"en", files, 1234567, "1,234,567 files"},
		{"de", "{n, number} {n}", 1234.5, "1.234,5 1.234,5"},
		{"de-CH", "{n}", 1234567, "1’234’567"},
		{"fr", "{n, plural, one {# jour} other {# jours}}", 0, "0 jour"},
		{"fr", "{n, plural, one {# jour} other {# jours}}", 1.9, "1,9 jour"},
		{"pl", fajle, 1, "1 plik"},
		{"pl", fajle, 22, "22 pliki"},
		{"pl", fajle, 12, "12 plików"},
		{"pl", fajle, 2.5, "2,5 pliku"},
		{"ru", "{n, plural, one {день} few {дня} many {дней} other {?}}", 1000001, "день"},
		{"ru", "{n, plural, one {день} few {дня} many {дней} other {?}}", 10000011, "дней"},
		{"en", "{n, plural, one {one} other {other}}", 10000001, "other"},
		{"ar", "{n, plural, zero {z} one {o} two {t} few {f} many {m} other {x}}", 0, "z"},
		{"ar", "{n, plural, zero {z} one {o} two {t} few {f} many {m} other {x}}", 103, "f"},
		{"ar", "{n, plural, zero {z} one {o} two {t} few {f} many {m} other {x}}", 11, "m"},
		{"ja", files, 1, "1 files"}, // a plural that the language does not have is not chosen
		{"en", guests, 0, "nobody"},
		{"en", guests, 1, "Ann"},
		{"en", guests, 2, "Ann and 1 more"},
		{"en", guests, 1001, "Ann and 1,000 others"},
		{"en", letters, 1, "1 key"},
		{"en", "{role, select, user {u} other {o}}", 0, "o"},
		{"en", "{n, plural, other {{role, select, other {# of #}}}} #", 3, "# of # #"}, // as in ICU, a select hides the plural
		{"en", "{n, plural, other {# in {m, plural, other {#}}, #}}", 3, "3 in 2, 3"},
		{"en", "don't, ''{name}'', '{name}', '{''}', it's '#'", 0, "don't, 'Ann', {name}, {'}, it's '#'"},
		{"en", "{n, plural, other {'#' '' 'x}}", 3, "# ' 'x"},
		{"xx-unknown", files, 2, "2 files"},
		{"en", "{n, plural, =2{}other{x}}", 2, ""},
		{"en", "{n, plural,\n\tone {a} other {b }\n}", 2, "b "},
	} {
		m, err := icu.Parse(c.pattern, may())
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
			continue
		}
		if got, err := m.Format(language.Make(c.in), values(c.n)); err != nil || got != c.want {
			t.Errorf("%s of %v in %s: %q %v, want %q", c.pattern, c.n, c.in, got, err, c.want)
		}
	}
}

func nested(levels int) string {
	return strings.Repeat("{n, plural, other {", levels) + "x" + strings.Repeat("}}", levels)
}

func choices(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "=%d{}", i)
	}
	return "{n, plural, " + b.String() + "other{}}"
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for pattern, want := range map[string]string{
		"{":                                   "syntax 1",
		"}":                                   "syntax 1",
		"ä {}":                                "syntax 3",
		"ä {stranger}":                        "argument 3",
		"{name":                               "syntax 6",
		"{name x}":                            "syntax 7",
		"{name-x}":                            "syntax 1",
		"a {my-name, plural, other {}}":       "syntax 3",
		"{name,}":                             "syntax 1",
		"{name, number}":                      "argument 1",
		"{name, plural, other {}}":            "argument 1",
		"{n, select, other {}}":               "argument 1",
		"{n, number, percent}":                "syntax 11",
		"{n, date}":                           "syntax 1",
		"{n, selectordinal, other {}}":        "syntax 1",
		"{n, choice, 0#x}":                    "syntax 1",
		"{n, plural}":                         "syntax 11",
		"{n, plural, }":                       "other 1",
		"{n, plural, one {x}}":                "other 1",
		"{role, select, admin {x}}":           "other 1",
		"{n, plural, other {x} other {y}}":    "syntax 23",
		"{n, plural, =1 {x} =01 {y}":          "syntax 20",
		"{n, plural, lots {x} other {}}":      "syntax 13",
		"{n, plural, = {x} other {}}":         "syntax 13",
		"{n, plural, =9999999999 {} other{}}": "syntax 13",
		"{n, plural, other x}":                "syntax 19",
		"{n, plural, other {x}":               "syntax 22",
		"{n, plural, other {x":                "syntax 20",
		"{n, plural, offset:x other {}}":      "syntax 13",
		"{n, plural, offset other {}}":        "syntax 13",
		"{n, plural, {x}}":                    "syntax 13",
		"{role, select, ä {x} other {}}":      "syntax 16",
		"a '{ b":                              "syntax 3",
		"{n, plural, other {'#}}":             "syntax 20",
		nested(5):                             "depth 77",
		choices(50):                           "length 253",
		strings.Repeat("x", 8001):             "length 1",
	} {
		_, err := icu.Parse(pattern, may())
		wrong := (*icu.Error)(nil)
		if !errors.As(err, &wrong) || fmt.Sprintf("%s %d", wrong.Rule, wrong.At) != want || !strings.HasPrefix(err.Error(), "at character") {
			t.Errorf("%.60s: %v %+v, want %s", pattern, err, wrong, want)
		}
	}
	for _, pattern := range []string{nested(4), choices(49), strings.Repeat("x", 8000)} {
		if _, err := icu.Parse(pattern, may()); err != nil {
			t.Errorf("%.60s: %v", pattern, err)
		}
	}
}

func TestFormatRefuses(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 1000)
	for _, c := range []struct {
		pattern string
		values  map[string]any
		want    error
	}{
		{"{n}", nil, icu.ErrValue},
		{"{n}", map[string]any{"n": "1"}, nil}, // text is shown as it is; whose type it has to be says the caller
		{files, map[string]any{"n": "1"}, icu.ErrValue},
		{files, map[string]any{"n": math.NaN()}, icu.ErrValue},
		{files, map[string]any{"n": math.Inf(1)}, icu.ErrValue},
		{files, map[string]any{"n": 1e16}, icu.ErrValue},
		{files, map[string]any{"n": int64(math.MinInt64)}, icu.ErrValue},
		{files, map[string]any{"n": 1e15}, nil},
		{files, map[string]any{"n": uint8(1)}, icu.ErrValue},
		{"{role, select, other {x}}", map[string]any{"role": 1}, icu.ErrValue},
		{"{name}", map[string]any{"name": nil}, icu.ErrValue},
		{strings.Repeat("{name}", 16), map[string]any{"name": long}, nil},
		{strings.Repeat("{name}", 17), map[string]any{"name": long}, icu.ErrTooLong},
	} {
		m, err := icu.Parse(c.pattern, may())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Format(language.English, c.values); !errors.Is(err, c.want) || err == nil != (c.want == nil) {
			t.Errorf("%.40s of %.40v: %v, want %v", c.pattern, c.values, err, c.want)
		}
	}
}

// A plural that says its number often writes it once.
func TestNumbersAreWrittenOnce(t *testing.T) { //nolint:paralleltest // it counts allocations
	m, err := icu.Parse("{n, plural, other {"+strings.Repeat("#", 7900)+"}}", may())
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(10, func() {
		if s, err := m.Format(language.German, map[string]any{"n": 7}); len(s) != 7900 || err != nil {
			t.Fatal(len(s), err)
		}
	}); n > 200 {
		t.Errorf("7,900 times a number allocates %v times", n)
	}
}

// quoted writes a text so that it stands for itself.
func quoted(s string) string {
	plain := strings.NewReplacer("'", "''")
	brace := strings.IndexAny(s, "{}")
	if brace < 0 {
		return plain.Replace(s)
	}
	return plain.Replace(s[:brace]) + "'" + plain.Replace(s[brace:]) + "'"
}

// FuzzParse reads what nobody should write. Whatever can be read can be filled in, within bounds, and twice alike; and every
// text can be written so that it stands for itself.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{files, fajle, guests, letters, nested(4), nested(5), "'{'", "it's {name} '", "{n, plural, other {'#'}}", "{n,plural,offset:9 =1{#}other{}}"} {
		f.Add(seed, "Ann", 1.5)
	}
	f.Fuzz(func(t *testing.T, pattern, name string, n float64) {
		if own, err := icu.Parse(quoted(pattern), nil); err == nil {
			if got, err := own.Format(language.German, nil); err != nil || got != pattern {
				t.Fatalf("%q became %q: %v", pattern, got, err)
			}
		} else if len(quoted(pattern)) <= icu.MaxPattern {
			t.Fatalf("%q: %v", pattern, err)
		}
		m, err := icu.Parse(pattern, may())
		if err != nil {
			if wrong := (*icu.Error)(nil); !errors.As(err, &wrong) || wrong.At < 1 || wrong.At > utf8.RuneCountInString(pattern)+1 {
				t.Fatalf("%q: %v", pattern, err)
			}
			return
		}
		for _, in := range []language.Tag{language.English, language.Arabic, language.Polish, language.Und} {
			of := map[string]any{"n": n, "m": 1, "name": name, "role": name, "workspace": ""}
			got, err := m.Format(in, of)
			if err != nil && !errors.Is(err, icu.ErrTooLong) && (!errors.Is(err, icu.ErrValue) || math.Abs(n) <= 1e15) || len(got) > icu.MaxOutput {
				t.Fatalf("%q of %v: %v, %d bytes", pattern, n, err, len(got))
			}
			if again, err2 := m.Format(in, of); again != got || (err2 == nil) != (err == nil) {
				t.Fatalf("%q of %v: %q, then %q", pattern, n, got, again)
			}
		}
	})
}
