package sqlattack

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Level is how far the database is trusted with the tenant: a baseline or a rung.
type Level string

// The levels.
const (
	// L0 is a setting that policies trust.
	L0 Level = "L0"
	// L1 is L0 with set_config taken away, and a function that enters a tenant once.
	L1 Level = "L1"
	// L2a and L2b are the rungs of package cell.
	L2a Level = "L2a"
	L2b Level = "L2b"
)

// Ours reports whether attacks must fail on the level.
func (l Level) Ours() bool { return l == L2a || l == L2b }

// Result is one attack in one place.
type Result struct {
	Attack  string  `json:"attack"`
	Family  Family  `json:"family"`
	Vector  Vector  `json:"vector"`
	Tries   string  `json:"tries"`
	Model   string  `json:"model"`
	Level   Level   `json:"level"`
	Outcome Outcome `json:"outcome"`
	// Detail is the SQLSTATE or the word that refused it, or what came back. It never holds a
	// secret of the database.
	Detail string `json:"detail,omitempty"`
}

// Report is what the attacks came to.
type Report struct {
	// Server is PostgreSQL's version, Rung that of the database.
	Server string `json:"server"`
	Rung   string `json:"rung"`
	// Guest says that no superuser prepared the database.
	Guest   bool     `json:"guest"`
	Results []Result `json:"results"`
}

// Failures returns the results on our rungs that are not as they must be.
func (r *Report) Failures() []Result {
	var all []Result
	for _, x := range r.Results {
		if x.Level.Ours() && !x.Outcome.Held() {
			all = append(all, x)
		}
	}
	return all
}

// Leaks counts the attacks that got what they were for on a level in a model.
func (r *Report) Leaks(level Level, model string) (n int) {
	for _, x := range r.Results {
		if x.Level == level && x.Model == model && x.Outcome.Leak() {
			n++
		}
	}
	return n
}

// column is where a table shows a model and a level.
type column struct {
	model string
	level Level
}

func (r *Report) columns() []column {
	var all []column
	for _, x := range r.Results {
		if c := (column{x.Model, x.Level}); !slices.Contains(all, c) {
			all = append(all, c)
		}
	}
	return all
}

// Merge returns one report of several, such as of both rungs.
func Merge(reports ...Report) Report {
	var all Report
	for i, r := range reports {
		if i == 0 {
			all = Report{Server: r.Server, Rung: r.Rung, Guest: r.Guest}
		} else if r.Rung != all.Rung {
			all.Rung += ", " + r.Rung
		}
		all.Results = append(all.Results, r.Results...)
	}
	models, levels := []string{"SHARED", "SCHEMA", "DATABASE"}, []Level{L0, L1, L2a, L2b}
	slices.SortStableFunc(all.Results, func(a, b Result) int {
		return cmp.Or(slices.Index(models, a.Model)-slices.Index(models, b.Model), slices.Index(levels, a.Level)-slices.Index(levels, b.Level))
	})
	return all
}

// WriteText writes the results side by side: a line for each attack, a column for each level
// in each model, and sums.
func (r *Report) WriteText(w io.Writer) error {
	out := bufio.NewWriter(w)
	columns := r.columns()
	at := map[string]Outcome{}
	for _, x := range r.Results {
		at[x.Attack+" "+x.Model+" "+string(x.Level)] = x.Outcome
	}
	const cell = 10
	fmt.Fprintf(out, "PostgreSQL %s, rung %s\n", r.Server, r.Rung)
	heading := func(of func(column) string) {
		fmt.Fprintf(out, "%-32s", "")
		for _, c := range columns {
			fmt.Fprintf(out, "%-*s", cell, of(c))
		}
		fmt.Fprintln(out)
	}
	heading(func(c column) string { return c.model })
	heading(func(c column) string { return string(c.level) })
	var family Family
	for _, a := range Attacks() {
		if a.Family != family {
			family = a.Family
			fmt.Fprintf(out, "\n%s\n", family)
		}
		fmt.Fprintf(out, "  %-30s", a.ID)
		for _, c := range columns {
			outcome := at[a.ID+" "+c.model+" "+string(c.level)]
			word := cmp.Or(string(outcome), "-")
			if outcome != "" && outcome.Leak() {
				word = strings.ToUpper(word)
			}
			fmt.Fprintf(out, "%-*s", cell, word)
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintln(out)
	fmt.Fprintf(out, "%-32s", "leaks")
	for _, c := range columns {
		fmt.Fprintf(out, "%-*d", cell, r.Leaks(c.level, c.model))
	}
	fmt.Fprintln(out)
	for _, x := range r.Results {
		if x.Outcome == Accepted {
			fmt.Fprintf(out, "accepted %s on %s %s: %s\n", x.Attack, x.Model, x.Level, x.Detail)
		}
	}
	for _, x := range r.Failures() {
		fmt.Fprintf(out, "FAILED %s on %s %s: %s: %s\n", x.Attack, x.Model, x.Level, x.Outcome, x.Detail)
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}
