package prove_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/rowhouse-platform/rowhouse/internal/prove"
)

// Who reads a report requires what they need, whatever its maker did.
func TestReadersJudge(t *testing.T) {
	t.Parallel()
	r, err := prove.Run(t.Context(), prove.Options{
		Checks: []prove.Check{check("a", nil, prove.Pass), check("b", nil, prove.Pass), check("c", nil, prove.Fail)},
		Only:   []string{"a"},
	})
	if err != nil || r.Verdict != prove.Pass {
		t.Fatalf("%v: %s", err, r.Verdict)
	}
	for _, test := range []struct {
		require []string
		want    prove.Status
		missing int
	}{
		{[]string{"a"}, prove.Pass, 0}, {[]string{"a", "b"}, prove.Incomplete, 1}, {[]string{"a", "z"}, prove.Incomplete, 1},
		{nil, prove.Incomplete, len(prove.Sections())},
	} {
		judged, err := r.Judge(test.require)
		if err != nil || judged.Verdict != test.want || len(judged.Missing) != test.missing {
			t.Errorf("%q required: %v, %s without %q", test.require, err, judged.Verdict, judged.Missing)
		}
	}
	if r.Verdict != prove.Pass || !slices.Equal(r.Required, []string{"a"}) {
		t.Errorf("the report itself was changed: %s by %q", r.Verdict, r.Required)
	}
}

// A report that claims more than its lines show is refused, whoever signed it.
func TestContradictionsAreRefused(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*prove.Report)
		says   string
	}{
		"a verdict":           {func(r *prove.Report) { r.Sections[1].Status, r.Sections[1].Lines[0].Status = prove.Fail, prove.Fail }, "verdict"},
		"a section":           {func(r *prove.Report) { r.Sections[0].Lines[0].Status = prove.Fail }, `section "a"`},
		"nothing in it":       {func(r *prove.Report) { r.Sections[0].Lines = nil }, `section "a"`},
		"a line did not run":  {func(r *prove.Report) { r.Sections[0].Lines[0].Status = prove.NotRun }, `section "a"`},
		"a failed line":       {func(r *prove.Report) { r.Sections[0].Status, r.Sections[0].Lines[0].Status = prove.NotRun, prove.Fail }, `section "a"`},
		"an error in a line":  {func(r *prove.Report) { r.Sections[0].Lines[0].Findings = []prove.Finding{{Severity: "error"}} }, "with an error"},
		"a section, twice":    {func(r *prove.Report) { r.Sections = append(r.Sections, r.Sections[0]) }, "two sections"},
		"a status of its own": {func(r *prove.Report) { r.Sections[0].Status = "fine" }, `status "fine"`},
		"a missing section":   {func(r *prove.Report) { r.Sections = r.Sections[1:] }, "verdict"},
	} {
		r, err := prove.Run(t.Context(), prove.Options{Checks: []prove.Check{check("a", nil, prove.Pass), check("b", nil, prove.Pass)}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Judge([]string{"b"}); err != nil {
			t.Fatalf("a sound report: %v", err)
		}
		test.change(r)
		if _, err := r.Judge([]string{"b"}); !errors.Is(err, prove.ErrContradiction) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
