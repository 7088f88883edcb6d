package sqltext_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/internal/lint/sqltext"
)

func TestComments(t *testing.T) {
	t.Parallel()
	tests := map[string][]string{
		"SELECT 1 -- one\n -- two":   {"one", "two"},
		"/* a /* b */ c */ SELECT":   {"a /* b */ c"},
		"SELECT '-- no', \"-- no\"":  nil,
		"SELECT 'it''s -- no' --yes": {"yes"},
		`SELECT E'\' -- no' -- yes`:  {"yes"},
		"SELECT $$ -- no $$ -- yes":  {"yes"},
		"SELECT $a$ $$ -- no $a$":    nil,
		"SELECT $1 -- yes":           {"yes"},
		"SELECT a$b -- yes":          {"yes"},
		"SELECT 'open -- no":         nil,
		"/* open":                    {"open"},
	}
	for text, want := range tests {
		var got []string
		for _, c := range sqltext.Comments(text) {
			got = append(got, c.Text)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
	}
}

func TestStatements(t *testing.T) {
	t.Parallel()
	const text = "-- first\nSELECT 1; -- behind\n-- in front\n\nSELECT 2 -- inside\n+ 3;\n"
	statements, err := sqltext.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	var got [][]string
	for _, s := range statements {
		part := []string{text[s.Start:s.End]}
		for _, c := range s.Comments {
			part = append(part, c.Text)
		}
		got = append(got, part)
	}
	want := [][]string{{"SELECT 1", "first", "behind"}, {"SELECT 2 -- inside\n+ 3", "in front", "inside"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if line, column := sqltext.Position(text, statements[1].Start); line != 5 || column != 1 {
		t.Errorf("the second statement is at %d:%d", line, column)
	}
}

func FuzzComments(f *testing.F) {
	f.Add("SELECT $a$ -- $a$ /* x */ 'y' \"z\" -- w")
	f.Fuzz(func(t *testing.T, text string) {
		end := 0
		for _, c := range sqltext.Comments(text) {
			if c.Start < end || c.End <= c.Start || c.End > len(text) {
				t.Fatalf("comment at %d to %d, after one to %d", c.Start, c.End, end)
			}
			end = c.End
		}
	})
}
