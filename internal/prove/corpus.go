package prove

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/sqlattack"
)

// enoughLeaks is on how many attacks the usual recipe must fall, or the corpus has no teeth.
const enoughLeaks = 10

// Servers returns where to attack. It is asked by each check that runs, and not at all when
// none does.
type Servers func(context.Context) (Server, error)

// CorpusCheck attacks scratch databases with SQL, and beside them the recipes that everybody
// ships.
func CorpusCheck(of Servers, missing string) Check {
	return Check{About: aboutCorpus, Missing: missing, Run: func(ctx context.Context) (o Outcome, err error) {
		server, err := of(ctx)
		if err != nil {
			return o, err
		}
		var reports []sqlattack.Report
		err = server.inRungs(ctx, "corpus", sqlattack.Migrations(), func(c *scratch) error {
			// The other recipes take a superuser to make, and are the same on every rung.
			r, err := c.corpus(ctx, server.super() && len(reports) == 0)
			reports = append(reports, r)
			return err
		})
		return corpusOutcome(sqlattack.Merge(reports...), server), err
	}}
}

// corpus attacks one scratch cell in all models.
func (c *scratch) corpus(ctx context.Context, recipes bool) (r sqlattack.Report, err error) {
	t := sqlattack.Target{App: c.app, Key: c.Key(), Models: models(), Baselines: recipes}
	if t.Admin, err = c.admin(); err != nil {
		return r, err
	}
	if t.Login, err = c.login(); err != nil {
		return r, err
	}
	return sqlattack.Run(ctx, t)
}

// place is a level in a model.
type place struct {
	level sqlattack.Level
	model string
}

func (p place) String() string {
	switch p.level {
	case sqlattack.L0:
		return "usual recipe"
	case sqlattack.L1:
		return "recipe with a function"
	default:
		return string(p.level) + " " + strings.ToLower(p.model)
	}
}

// places are the columns of the report: the recipes in the shared model, then our rungs.
func places() []place {
	shared := tenant.ModelShared.String()
	all := []place{{sqlattack.L0, shared}, {sqlattack.L1, shared}}
	for _, level := range []sqlattack.Level{sqlattack.L2a, sqlattack.L2b} {
		for _, model := range models() {
			all = append(all, place{level, model.String()})
		}
	}
	return all
}

// corpusOutcome judges each place that the server has; one without results did not run.
func corpusOutcome(r sqlattack.Report, server Server) (o Outcome) {
	repeat := server.Repeat(aboutCorpus.ID)
	byPlace := map[place][]sqlattack.Result{}
	for _, result := range r.Results {
		p := place{result.Level, result.Model}
		byPlace[p] = append(byPlace[p], result)
	}
	for _, p := range places() {
		if slices.Contains(server.Rungs, cell.Rung(p.level)) {
			o.Lines = append(o.Lines, ourLine(p, byPlace[p], repeat))
		}
	}
	if results := byPlace[places()[0]]; server.super() {
		leaks, l := r.Leaks(sqlattack.L0, tenant.ModelShared.String()), Line{Name: "control: the usual recipe", Status: Pass, Repeat: repeat}
		l.Result = fmt.Sprintf("falls to %d of %d attacks: they are real", leaks, len(results))
		switch {
		case len(results) == 0:
			l.Status, l.Result = NotRun, "was not attacked"
		case leaks < enoughLeaks:
			l.Status, l.Result = Fail, fmt.Sprintf("falls to %d of %d attacks only: they show nothing", leaks, len(results))
		}
		o.Lines = append(o.Lines, l)
	}
	if len(r.Results) > 0 {
		o.Tables = append(o.Tables, outcomes(), sideBySide(r, byPlace))
	}
	return o
}

// ourLine judges one rung in one model.
func ourLine(p place, results []sqlattack.Result, repeat string) Line {
	l := Line{Name: p.String(), Status: Pass, Repeat: repeat}
	only := sqlattack.Report{Results: results}
	failures, accepted := only.Failures(), 0
	for _, r := range results {
		if r.Outcome == sqlattack.Accepted {
			accepted++
			l.Findings = append(l.Findings, Finding{
				Rule: r.Attack, Severity: "accepted", Object: p.String(), Message: r.Tries + detail(r),
			})
		}
	}
	for _, f := range failures {
		l.Findings = append(l.Findings, Finding{
			Rule: f.Attack, Severity: "error", Object: p.String(), Message: f.Tries + ": " + string(f.Outcome) + detail(f),
		})
	}
	l.Result = fmt.Sprintf("%d attacks, none got through", len(results))
	if accepted > 0 {
		l.Result = fmt.Sprintf("%d attacks, none got through; accepted risks, which are listed: %d", len(results)-accepted, accepted)
	}
	switch {
	case len(results) == 0:
		l.Status, l.Result = NotRun, "was not attacked"
	case len(failures) > 0:
		l.Status, l.Result = Fail, fmt.Sprintf("%d of %d attacks were not held as they should be", len(failures), len(results))
	}
	return l
}

func detail(r sqlattack.Result) string {
	if r.Detail == "" {
		return ""
	}
	return " (" + r.Detail + ")"
}

// outcomes explains the words of the table. In capitals is what an attacker won.
func outcomes() Table {
	t := Table{Title: "What can come of an attack", Head: []string{"word", "meaning"}}
	for _, o := range []struct {
		word    sqlattack.Outcome
		meaning string
	}{
		{sqlattack.Refused, "the SDK or PostgreSQL refused it, for the reason that was expected"},
		{sqlattack.Harmless, "it ran and showed nothing but the attacker's own, as it may"},
		{sqlattack.Accepted, "it went through, and nothing can be done: no superuser prepared the server, or it is a limit that is written down"},
		{sqlattack.Ran, "it ran where it is to be refused, and showed nothing but the attacker's own: a failure on our rungs"},
		{sqlattack.Astray, "it failed for another reason than it should, so it shows nothing: a failure on our rungs"},
		{sqlattack.Told, "it learnt whether another tenant has a value"},
		{sqlattack.Stopped, "it ended or held up another tenant's session"},
		{sqlattack.Wrote, "it changed another tenant's rows, or what guards them"},
		{sqlattack.Entered, "the session was in another tenant"},
		{sqlattack.Read, "bytes of another tenant came back"},
	} {
		word := string(o.word)
		if o.word.Leak() {
			word = strings.ToUpper(word)
		}
		t.Rows = append(t.Rows, Cells(word, o.meaning))
	}
	return t
}

// sideBySide is a row for each attack, a column for each place where any was made.
func sideBySide(r sqlattack.Report, byPlace map[place][]sqlattack.Result) Table {
	t := Table{Title: "Attacks side by side", Head: []string{"attack", "family", "the attacker has", "what it tries"}}
	var columns []place
	for _, p := range places() {
		if len(byPlace[p]) > 0 {
			columns, t.Head = append(columns, p), append(t.Head, p.String())
		}
	}
	seen := map[string]bool{}
	for _, attack := range r.Results {
		if seen[attack.Attack] {
			continue
		}
		seen[attack.Attack] = true
		row := Cells(attack.Attack, string(attack.Family), string(attack.Vector), attack.Tries)
		for _, p := range columns {
			row = append(row, outcomeCell(byPlace[p], attack.Attack))
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// outcomeCell is what came of an attack in one place.
func outcomeCell(results []sqlattack.Result, attack string) Cell {
	for _, r := range results {
		switch {
		case r.Attack != attack:
		case r.Level.Ours() && len((&sqlattack.Report{Results: []sqlattack.Result{r}}).Failures()) > 0:
			return Cell{strings.ToUpper(string(r.Outcome)), Broken}
		case !r.Level.Ours() && r.Outcome.Leak():
			return Cell{strings.ToUpper(string(r.Outcome)), Leaked}
		default:
			return Cell{string(r.Outcome), Held}
		}
	}
	return Cell{Text: "does not apply"}
}
