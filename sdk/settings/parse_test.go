package settings_test

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// TestParseAgreesWithEncodingJSON reads texts that are nearly JSON by both. What is no JSON there is none here, values are the same,
// and what we refuse beyond that is refused for a reason of ours, not as broken.
func TestParseAgreesWithEncodingJSON(t *testing.T) {
	t.Parallel()
	parts := []string{
		`{`, `}`, `[`, `]`, `:`, `,`, `"`, `\`, ` `, "\t", "\n", "\r", "\f", "\v", "\u00a0", "\x1f", "\x7f", `null`, `nul`, `true`, `false`, `0`, `-`, `-0`,
		`01`, `1.`, `.5`, `1e`, `1E+2`, `1e-2`, `+1`, `1.5e300`, `9007199254740991`, `9007199254740993`, `1e-400`, `0e-400`, `"a"`, `"a":1`, `"\n\/\b\\"`,
		`"\u00e9"`, `"\ud83d\ude00"`, `"\ud83d"`, `"\u12"`, `"\x"`, `"\u000a"`, `"é😀"`, `{"a":[]}`, `{"":{}}`, `[1,"x",null]`, `/*x*/`, `NaN`, `'a'`, "\ufeff",
	}
	agree := func(text string) {
		t.Helper()
		v, err := settings.ParseValue([]byte(text))
		var want any
		wantErr := json.Unmarshal([]byte(text), &want)
		switch {
		case !utf8.ValidString(text):
		case err == nil && wantErr != nil:
			t.Errorf("%q is taken, and encoding/json says %v", text, wantErr)
		case err == nil && !reflect.DeepEqual(v, want):
			t.Errorf("%q is %#v, and encoding/json reads %#v", text, v, want)
		case err != nil && wantErr == nil && (strings.Contains(err.Error(), "broken") || strings.Contains(err.Error(), "follows")):
			t.Errorf("%q is refused as %v, and encoding/json reads %#v", text, err, want)
		}
	}
	r := rand.New(rand.NewPCG(4, 45))
	for range 200_000 {
		text := `{"page":3,"theme":{"dark":true,"sizes":[1,2.5e1,-3]},"name":"Ac\u006de"}`
		if r.IntN(2) == 0 {
			text = ""
		}
		for range 1 + r.IntN(5) {
			at := r.IntN(len(text) + 1)
			text = text[:at] + parts[r.IntN(len(parts))] + text[min(len(text), at+r.IntN(3)):]
		}
		agree(text)
	}
	for _, depth := range []int{settings.MaxDepth, settings.MaxDepth + 1} {
		_, err := settings.ParseValue([]byte(strings.Repeat("[", depth) + strings.Repeat("]", depth)))
		if (err != nil) != (depth > settings.MaxDepth) {
			t.Errorf("depth %d: %v", depth, err)
		}
	}
}

// TestRefusedCharactersHaveAPlace names the value that a character is in, and what is wrong before it.
func TestRefusedCharactersHaveAPlace(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][2]string{
		`{"a":{"b":[1,"x\u0000"]}}`:           {"/a/b/1", "a NUL at line 1, column 16"},
		"{\n\"a/b\":\"\x00\"}":                {"/a~1b", "a NUL at line 2, column 8"},
		`{"a":"\\\ud83d"}`:                    {"/a", "a lone surrogate at line 1, column 9"},
		`{"a":"\ud83d\u0041"}`:                {"/a", "a lone surrogate at line 1, column 7"},
		`{"a":{"b\u0000":1}}`:                 {"/a", "a NUL at line 1, column 9"},
		`{"\udc00":1}`:                        {"", "a lone surrogate at line 1, column 3"},
		"{\"a\":\x00}":                        {"/a", "a NUL at line 1, column 6"},
		"{\"a\":1}\x00":                       {"", "a NUL at line 1, column 8"},
		"\x00":                                {"", "a NUL at line 1, column 1"},
		`{"a" "b":"\u0000"}`:                  {"/a", "broken JSON at line 1, column 6"},
		`{"a":1,"a":"\u0000"}`:                {"/a", "a member stands twice"},
		`{"a":1e999,"b":"\u0000"}`:            {"/a", "a number beyond 2^53-1"},
		`{"a":[{"b":"\u12"}]}`:                {"/a/0/b", "broken JSON at line 1, column 12"},
		`{"a":"\u0000","b":"` + "\x00" + `"}`: {"/a", "a NUL at line 1, column 7"},
	} {
		_, err := settings.Parse([]byte(text))
		if settings.Place(err) != want[0] || !strings.HasSuffix(err.Error(), want[1]) {
			t.Errorf("%q: %v, at %q", text, err, settings.Place(err))
		}
	}
}
