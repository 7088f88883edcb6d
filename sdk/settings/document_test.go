package settings_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	deep := func(n int) string { return `{"a":` + strings.Repeat("[", n-1) + "1" + strings.Repeat("]", n-1) + "}" }
	many := func(n int) string { return `{"a":[` + strings.Repeat("0,", n-1) + "0]}" }
	empties := func(n int) string { return `{"a":[` + strings.Repeat("{},", n-1) + "[]]}" }
	path := func(n int) string { return `{"` + strings.Repeat("n", n-1) + `":1}` }
	padded := func(n int) string { return `{"a":"` + strings.Repeat("x", n-len(`{"a":""}`)) + `"}` }
	for name, c := range map[string]struct {
		text string
		ok   bool
	}{
		"empty object":            {`{}`, true},
		"white space":             {" {\n} ", true},
		"nothing":                 {``, false},
		"array":                   {`[]`, false},
		"null":                    {`null`, false},
		"string":                  {`"x"`, false},
		"two objects":             {`{}{}`, false},
		"open":                    {`{"a":1`, false},
		"comma at the end":        {`{"a":1,}`, false},
		"comma in an array":       {`{"a":[1,]}`, false},
		"no comma":                {`{"a":1 "b":2}`, false},
		"no colon":                {`{"a" 1}`, false},
		"wrong closer":            {`{"a":[1}}`, false},
		"single quotes":           {`{'a':1}`, false},
		"a name that is none":     {`{1:1}`, false},
		"comment":                 {`{} // x`, false},
		"byte order mark":         {"\ufeff{}", false},
		"member twice":            {`{"a":1,"a":1}`, false},
		"member twice, escaped":   {`{"a":1,"\u0061":1}`, false},
		"member twice, below":     {`{"b":{"a":1,"a":2}}`, false},
		"NUL":                     {"{\"a\":\"\x00\"}", false},
		"NUL, escaped":            {`{"a":"\u0000"}`, false},
		"NUL in a name":           {`{"\u0000":1}`, false},
		"a backslash before u000": {`{"a":"\\u0000"}`, true},
		"pair":                    {`{"a":"\ud83d\ude00"}`, true},
		"lone high surrogate":     {`{"a":"\ud83d"}`, false},
		"lone low surrogate":      {`{"a":"\ude00"}`, false},
		"high before a letter":    {`{"a":"\ud83dx"}`, false},
		"high before a high":      {`{"a":"\ud83d\ud83d"}`, false},
		"low before high":         {`{"a":"\ude00\ud83d"}`, false},
		"high at the end":         {`{"a":"\ud83d`, false},
		"not UTF-8":               {"{\"a\":\"\xff\"}", false},
		"surrogate in UTF-8":      {"{\"a\":\"\xed\xa0\x80\"}", false},
		"largest integer":         {`{"a":9007199254740991,"b":-9007199254740991}`, true},
		"2^53":                    {`{"a":9007199254740992}`, false},
		"-2^53":                   {`{"a":-9007199254740992}`, false},
		"2^53, with a point":      {`{"a":9007199254740992.0}`, false},
		"1e20":                    {`{"a":1e20}`, false},
		"1e400":                   {`{"a":1e400}`, false},
		"1e-400":                  {`{"a":1e-400}`, false},
		"0e-400":                  {`{"a":0e-400}`, true},
		"leading zero":            {`{"a":01}`, false},
		"plus":                    {`{"a":+1}`, false},
		"NaN":                     {`{"a":NaN}`, false},
		"64 deep":                 {deep(settings.MaxDepth), true},
		"65 deep":                 {deep(settings.MaxDepth + 1), false},
		"10,000 values":           {many(settings.MaxLeaves), true},
		"10,001 values":           {many(settings.MaxLeaves + 1), false},
		"10,001 empty containers": {empties(settings.MaxLeaves + 1), false},
		"longest path":            {path(settings.MaxPath), true},
		"longer path":             {path(settings.MaxPath + 1), false},
		"largest":                 {padded(settings.MaxBytes), true},
		"larger":                  {padded(settings.MaxBytes + 1), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := settings.Parse([]byte(c.text))
			if ok := err == nil; ok != c.ok {
				t.Fatalf("error %v, want success %t", err, c.ok)
			}
			if err != nil && !errors.Is(err, settings.ErrDocument) {
				t.Errorf("%v is no ErrDocument", err)
			}
		})
	}
}

// The vectors are those of RFC 8785, sections 3.2.2 to 3.2.4 and appendix B, as far as our numbers go.
func TestCanonical(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, want string }{
		{
			`{"numbers":[333333333.33333329, 4.50, 2e-3, 0.000000000000000000000000001],` +
				`"string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}`,
			`{"literals":[null,true,false],"numbers":[333333333.3333333,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}`,
		},
		{
			`{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh","1":"One",` +
				`"\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis"}`,
			`{"\r":"Carriage Return","1":"One","` + "\u0080" + `":"Control","ö":"Latin Small Letter O With Diaeresis",` +
				`"€":"Euro Sign","😀":"Emoji: Grinning Face","` + "\ufb33" + `":"Hebrew Letter Dalet With Dagesh"}`,
		},
		{`{"a":"\b\t\n\f\r\u0001\u001f\u007f"}`, "{\"a\":\"\\b\\t\\n\\f\\r\\u0001\\u001f\u007f\"}"},
		{
			`{"a":[-0, 0.0, 1e0, 1E5, -1.50, 1e-6, 1e-7, 5e-324, 1e15]}`,
			`{"a":[0,0,1,100000,-1.5,0.000001,1e-7,5e-324,1000000000000000]}`,
		},
		{`{"b":{},"a":[]}`, `{"a":[],"b":{}}`},
		{`{"aa":1,"a":2}`, `{"a":2,"aa":1}`},
	} {
		o, err := settings.Parse([]byte(c.in))
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		if diff := cmp.Diff(c.want, string(settings.Canonical(o))); diff != "" {
			t.Errorf("%s (-want +got)\n%s", c.in, diff)
		}
	}
}

// Numbers that no document may hold are written as ECMAScript does too.
func TestCanonicalNumbers(t *testing.T) {
	t.Parallel()
	for f, want := range map[float64]string{
		1e30: "1e+30", 1e21: "1e+21", 1e20: "100000000000000000000", 295147905179352830000: "295147905179352830000",
		1.7976931348623157e308: "1.7976931348623157e+308", -1e-7: "-1e-7", 1.5e-10: "1.5e-10", 999999999999999900000: "999999999999999900000",
		0.000001: "0.000001", 9007199254740992: "9007199254740992", 1e23: "1e+23", 9.999999999999997e22: "9.999999999999997e+22",
	} {
		if got := string(settings.Canonical(f)); got != want {
			t.Errorf("%v is %s, want %s", f, got, want)
		}
	}
}

func TestParseSaysWhere(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"a":{"b/c":[1,{"~":1e400}]}}`: "/a/b~1c/1/~0: a number beyond 2^53-1",
		`{"a":{"b":1,"b":2}}`:           "/a/b: a member stands twice",
		`{"a":[[],[tru]]}`:              "/a/1/0: broken JSON at line 1, column 11",
		"{\"a\":1,\n \"b\":2":           "broken JSON at line 2, column 7",
		`{"targetingKey":"ann"`:         "broken JSON at line 1, column 22",
		`{"a":1,}`:                      "broken JSON at line 1, column 8",
		`{"a":"\u0000"}`:                "/a: a NUL at line 1, column 7",
		`{"a":"x\ud83d"}`:               "/a: a lone surrogate at line 1, column 8",
	} {
		_, err := settings.Parse([]byte(text))
		if !errors.Is(err, settings.ErrDocument) || !strings.HasSuffix(err.Error(), "object: "+want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}
