package prove

import (
	"strings"
	"testing"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/catalog"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/apiattack"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/crossing"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/sqlattack"
)

// corpusOf is a report of one attack on our homes in each model and some on the usual recipe, of which some leaked.
func corpusOf(ours sqlattack.Outcome, recipe, leaked int) sqlattack.Report {
	var r sqlattack.Report
	for _, model := range models() {
		r.Results = append(r.Results, sqlattack.Result{Attack: "one", Tries: "try it", Model: model.String(), Level: sqlattack.L2b, Outcome: ours})
	}
	for i := range recipe {
		outcome := sqlattack.Refused
		if i < leaked {
			outcome = sqlattack.Read
		}
		r.Results = append(r.Results, sqlattack.Result{Attack: "one", Model: "SHARED", Level: sqlattack.L0, Outcome: outcome})
	}
	return r
}

func TestCorpusIsJudged(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		report sqlattack.Report
		want   []Status // ours in each model, then the control
	}{
		"held":                      {corpusOf(sqlattack.Refused, 20, 15), []Status{Pass, Pass, Pass, Pass}},
		"harmless":                  {corpusOf(sqlattack.Harmless, 20, 15), []Status{Pass, Pass, Pass, Pass}},
		"a row came back":           {corpusOf(sqlattack.Read, 20, 15), []Status{Fail, Fail, Fail, Pass}},
		"it ran and should not":     {corpusOf(sqlattack.Ran, 20, 15), []Status{Fail, Fail, Fail, Pass}},
		"it failed for another why": {corpusOf(sqlattack.Astray, 20, 15), []Status{Fail, Fail, Fail, Pass}},
		"the recipe leaks too few":  {corpusOf(sqlattack.Refused, 20, enoughLeaks-1), []Status{Pass, Pass, Pass, Fail}},
		"without the recipe":        {corpusOf(sqlattack.Refused, 0, 0), []Status{Pass, Pass, Pass, NotRun}},
		"nothing ran":               {sqlattack.Report{}, []Status{NotRun, NotRun, NotRun, NotRun}},
	} {
		o := corpusOutcome(test.report, Server{Rungs: []cell.Rung{cell.L2b}, Repeat: func(string) string { return "again" }})
		if len(o.Lines) != len(test.want) {
			t.Errorf("%s: %d lines, want %d", name, len(o.Lines), len(test.want))
			continue
		}
		for i, want := range test.want {
			if o.Lines[i].Status != want {
				t.Errorf("%s: %s: %s, want %s", name, o.Lines[i].Name, o.Lines[i].Status, want)
			}
		}
		if failed := len(test.want) > 0 && test.want[0] == Fail; failed != (len(o.Lines) > 0 && len(o.Lines[0].Findings) > 0) {
			t.Errorf("%s: the findings are %+v", name, o.Lines[0].Findings)
		}
	}
}

func TestAPIIsJudged(t *testing.T) {
	t.Parallel()
	held := apiattack.Result{Method: "/s/M", Attack: apiattack.ForeignID, Verdict: apiattack.Held}
	leaked := apiattack.Result{Method: "/s/M", Attack: apiattack.ForeignID, Verdict: apiattack.Leaked, Evidence: "a row"}
	tested := apiattack.Method{Name: "/s/M", Verdict: apiattack.Held}
	for name, test := range map[string]struct {
		report apiattack.Report
		want   Status
	}{
		"held":              {apiattack.Report{Methods: []apiattack.Method{tested}, Results: []apiattack.Result{held}}, Pass},
		"leaked":            {apiattack.Report{Methods: []apiattack.Method{tested}, Results: []apiattack.Result{held, leaked}}, Fail},
		"a method untested": {apiattack.Report{Methods: []apiattack.Method{{Name: "/s/N", Verdict: apiattack.Untested}}, Results: []apiattack.Result{held}}, NotRun},
		"attacks left out":  {apiattack.Report{Methods: []apiattack.Method{{Verdict: apiattack.Held, Dropped: 1}}, Results: []apiattack.Result{held}}, NotRun},
		"nothing ran":       {apiattack.Report{}, NotRun},
	} {
		if l := apiLine("here", "again", test.report); l.Status != test.want {
			t.Errorf("%s: %s, want %s", name, l.Status, test.want)
		}
	}
}

// Of a release that the table is not about nothing is known, which is not good news.
func TestAdvisoriesAreJudged(t *testing.T) {
	t.Parallel()
	hole := catalog.Advisory{Fixed: map[int]int{15: 4, 16: 2}}
	for server, want := range map[string]Cell{
		"15.3": {"open", Broken}, "15.4": {"closed", Held}, "16.2 (Debian 16.2-1)": {"closed", Held}, "17.0": {"never had it", Held},
		"14.20": {Text: "unknown for this major"}, "99.1": {Text: "unknown for this major"}, "19beta1": {Text: "unknown release"},
	} {
		if got := exposed(server, hole); got != want {
			t.Errorf("%s: %+v, want %+v", server, got, want)
		}
	}
}

// A kind of attack that was made on the sound server, and each intruder, must catch the leaky one.
func TestControlIsJudged(t *testing.T) {
	t.Parallel()
	result := func(kind apiattack.Kind, where string, v apiattack.Verdict) apiattack.Result {
		return apiattack.Result{Method: "/s/M", Attack: kind, Where: where, Verdict: v}
	}
	sound := []apiattack.Report{{Results: []apiattack.Result{
		result(apiattack.ForeignID, "note.name", apiattack.Held), result(apiattack.Intrusion, "no context", apiattack.Held),
		result(apiattack.Intrusion, "expired context", apiattack.Held), result(apiattack.Timing, "", apiattack.Untested),
	}}}
	leaks := []apiattack.Result{
		result(apiattack.ForeignID, "name", apiattack.Leaked), result(apiattack.ForeignID, "note.name", apiattack.Leaked),
		result(apiattack.Intrusion, "no context", apiattack.Leaked), result(apiattack.Intrusion, "expired context", apiattack.Leaked),
	}
	for name, test := range map[string]struct {
		sound []apiattack.Report
		open  []apiattack.Result
		want  Status
		says  string
	}{
		"all caught":          {sound, leaks, Pass, "foreign-id ×2, intrusion (no context) ×1, intrusion (expired context) ×1"},
		"one kind is blind":   {sound, leaks[2:], Fail, "not caught, though it is open: foreign-id;"},
		"an intruder is let":  {sound, leaks[:3], Fail, "not caught, though it is open: intrusion (expired context);"},
		"nothing is caught":   {sound, nil, Fail, "foreign-id, intrusion (no context), intrusion (expired context);"},
		"nothing was tried":   {nil, leaks, NotRun, "nothing was tried"},
		"only one leak, held": {sound, append([]apiattack.Result{result(apiattack.ForeignID, "x", apiattack.Held)}, leaks[1:]...), Pass, "foreign-id ×1"},
	} {
		l := controlLine(test.sound, apiattack.Report{Results: test.open})
		if l.Status != test.want || !strings.Contains(l.Result, test.says) {
			t.Errorf("%s: %s %q, want %s %q", name, l.Status, l.Result, test.want, test.says)
		}
		if f := l.Findings; len(f) != 1 || !strings.Contains(f[0].Message, "timing") || f[0].Severity != "note" {
			t.Errorf("%s: the findings are %+v", name, f)
		}
	}
}

// A reader finds each kind of attack explained.
func TestKindsAreExplained(t *testing.T) {
	t.Parallel()
	rows := kindTable().Rows
	for i, kind := range apiattack.Kinds() {
		if i >= len(rows) || rows[i][0].Text != string(kind) || rows[i][1].Text == "" {
			t.Errorf("%s is not explained in %+v", kind, rows)
		}
	}
}

// What was not tested is neither green nor hidden.
func TestUntestedIsNotHeld(t *testing.T) {
	t.Parallel()
	r := apiattack.Report{
		Methods: []apiattack.Method{{Verdict: apiattack.Held}, {Verdict: apiattack.Untested}, {Verdict: apiattack.Leaked}},
		Results: []apiattack.Result{{Method: "/s/M", Attack: apiattack.ForeignEtag, Verdict: apiattack.Untested, Evidence: "no etag"}},
	}
	for i, want := range []Mark{Held, "", Broken} {
		if got := methodTable("here", r).Rows[i][1]; got.Mark != want {
			t.Errorf("%s is marked %q, want %q", got.Text, got.Mark, want)
		}
	}
	if f := apiLine("here", "again", r).Findings; len(f) != 2 || f[1].Message != "no etag" || f[1].Severity != "note" {
		t.Errorf("the findings are %+v", f)
	}
}

func TestCrossingsAreJudged(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		report crossing.Report
		want   Status
	}{
		"sound":         {crossing.Report{Transactions: poolTransactions, Seen: 10}, Pass},
		"crossed":       {crossing.Report{Transactions: poolTransactions, Seen: 10, Crossed: 1}, Fail},
		"poisoned":      {crossing.Report{Transactions: poolTransactions, Seen: 10, Poisoned: 1}, Fail},
		"overloaded":    {crossing.Report{Transactions: poolTransactions, Seen: 10, Overloaded: 1}, NotRun},
		"not entered":   {crossing.Report{Transactions: poolTransactions, Seen: 10, Unentered: 1}, NotRun},
		"a handful":     {crossing.Report{Transactions: 10, Seen: 10}, NotRun},
		"saw nothing":   {crossing.Report{}, NotRun},
		"both, but red": {crossing.Report{Crossed: 1, Overloaded: 1}, Fail},
	} {
		if l := crossingLine("here", "again", test.report); l.Status != test.want {
			t.Errorf("%s: %s, want %s", name, l.Status, test.want)
		}
	}
}
