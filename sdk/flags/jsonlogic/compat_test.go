package jsonlogic_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"os"
	"testing"

	"github.com/rowhouse-platform/rowhouse/sdk/flags/jsonlogic"
)

// Tests of the published tables that we fail on purpose, see docs/flagd-differences.md: flags have to go on when a
// caller's attribute is absent or of another type.
var deliberate = map[string]string{
	`{"==":[null,0]}`:            `null equals nothing but null, as in flagd`,
	`{"!=":[null,0]}`:            `the same`,
	`{"==":[2023,"2024-01-01"]}`: `text that is no number equals no number, as in flagd`,
	`{"!=":[2023,"2024-01-01"]}`: `the same`,
	`{"==":[1,"A"]}`:             `the same`,
	`{"!=":[1,"A"]}`:             `the same`,
	`{"all":[{"var":"missing"},{">":[{"var":""},0]}]}`:  `a list that is absent has no elements, as in flagd`,
	`{"some":[{"var":"missing"},{">":[{"var":""},0]}]}`: `the same`,
	`{"none":[{"var":"missing"},{"<":[{"var":""},0]}]}`: `the same`,
}

// TestCompatTables runs the tables of json-logic/compat-tables, 48 suites with 1138 tests.
func TestCompatTables(t *testing.T) {
	t.Parallel()
	file, err := os.Open("testdata/compat-tables/suites.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	total, passed, refused := 0, 0, map[string]bool{}
	for lines := bufio.NewScanner(file); lines.Scan(); total++ {
		var test struct {
			Suite               string
			Rule                json.RawMessage
			Data, Result, Error any
		}
		if err := json.Unmarshal(lines.Bytes(), &test); err != nil {
			t.Fatal(err)
		}
		ok, got := passes(t, test.Rule, test.Data, test.Result, test.Error)
		_, meant := deliberate[string(test.Rule)]
		switch {
		case ok:
			passed++
		case meant:
			refused[string(test.Rule)] = true
		default:
			t.Errorf("%s: %s of %v is %v, want %v %v", test.Suite, test.Rule, test.Data, got, test.Result, test.Error)
		}
	}
	const most = 1138
	if total != most {
		t.Errorf("%d tests in the tables, want %d", total, most)
	}
	for rule := range deliberate {
		if !refused[rule] {
			t.Errorf("%s passes, or is not in the tables any more", rule)
		}
	}
	t.Logf("%d of %d tests of the tables pass", passed, total)
}

func passes(t *testing.T, text json.RawMessage, data, want, wantError any) (ok bool, got any) {
	t.Helper()
	var rule any
	if err := json.Unmarshal(text, &rule); err != nil {
		t.Fatal(err)
	}
	in, err := jsonlogic.Of(data)
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonlogic.NewLibrary(nil).Compile(rule).Eval(jsonlogic.Input{Data: in})
	var thrown *jsonlogic.Error
	switch {
	case errors.As(err, &thrown):
		kind, _ := thrown.Thrown.Member("type")
		expected, _ := wantError.(map[string]any)
		return expected != nil && kind.Any() == expected["type"], err
	case err != nil:
		t.Fatal(err)
	}
	return wantError == nil && near(v.Any(), want), v.Any()
}

// near compares with the tolerance that the tables ask for.
func near(got, want any) bool {
	if x, ok := got.(float64); ok {
		y, ok := want.(float64)
		return ok && math.Abs(x-y) < 1e-10
	}
	a, err := json.Marshal(got)
	b, err2 := json.Marshal(want)
	return err == nil && err2 == nil && bytes.Equal(a, b)
}
