package catalog

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
)

// Finding is one fault.
type Finding struct {
	// Rule is the id of the rule that found it.
	Rule string `json:"rule"`
	// Severity is how bad it is.
	Severity Severity `json:"severity"`
	// Object is what is wrong, by its name in SQL; text of the database's.
	Object string `json:"object"`
	// Message says what is wrong with it.
	Message string `json:"message"`
	// Mend is the SQL that mends it, for its owner or a superuser; empty where
	// it takes more than a statement.
	Mend string `json:"mend,omitempty"`
	// Accepted says why the finding is a risk that was taken; empty when it was not.
	Accepted string `json:"accepted,omitempty"`
}

// String is the finding in one line.
func (f Finding) String() string { return f.Rule + " " + f.Object + ": " + f.Message }

// rank orders findings for readers: what must be mended first.
func (f Finding) rank() int {
	switch {
	case f.Accepted != "":
		return 3
	case f.Severity == Error:
		return 0
	case f.Severity == Warning:
		return 1
	default:
		return 2
	}
}

// Report is what an audit found.
type Report struct {
	// Database is the database's name, and Server the release of PostgreSQL.
	Database string `json:"database"`
	Server   string `json:"server"`
	// Rung is that on which the database stands by its functions; empty where cell.Init never was.
	Rung string `json:"rung,omitempty"`
	// Rules are those that were looked for.
	Rules []Rule `json:"-"`
	// Findings are what was found, worst first.
	Findings []Finding `json:"findings"`
}

// Errors returns the findings of severity error that nobody accepted: what a caller acts on.
func (r Report) Errors() []Finding {
	var errors []Finding
	for _, f := range r.Findings {
		if f.rank() == 0 {
			errors = append(errors, f)
		}
	}
	return errors
}

// Counts returns how many findings are errors, warnings, notes and accepted.
func (r Report) Counts() (errors, warnings, notes, accepted int) {
	var n [4]int
	for _, f := range r.Findings {
		n[f.rank()]++
	}
	return n[0], n[1], n[2], n[3]
}

// WriteText writes a table for people, the mends below their findings. What the database
// names is shown without control characters.
func (r Report) WriteText(w io.Writer) error {
	var b strings.Builder
	rung := "not set up"
	if r.Rung != "" {
		rung = "rung " + r.Rung
	}
	errors, warnings, notes, accepted := r.Counts()
	fmt.Fprintf(&b, "database %s, PostgreSQL %s, %s: %d errors, %d warnings, %d notes, %d accepted, by %d rules\n",
		plain(r.Database), r.Server, rung, errors, warnings, notes, accepted, len(r.Rules))
	wide := 0
	for _, f := range r.Findings {
		wide = max(wide, min(len([]rune(plain(f.Object))), 48))
	}
	for _, f := range r.Findings {
		what, says := string(f.Severity), plain(f.Message)
		if f.Accepted != "" {
			what, says = "accepted", says+" ("+f.Accepted+")"
		}
		fmt.Fprintf(&b, "%-8s  %s  %-*s  %s\n", what, f.Rule, wide, plain(f.Object), says)
		if f.Mend != "" && f.Accepted == "" {
			fmt.Fprintf(&b, "          mend: %s\n", plain(f.Mend))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteJSON writes the report as one JSON object.
func (r Report) WriteJSON(w io.Writer) error {
	errors, warnings, notes, accepted := r.Counts()
	if r.Findings == nil {
		r.Findings = []Finding{} // a list, not null
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(struct {
		Report
		Rules    int `json:"rules"`
		Errors   int `json:"errors"`
		Warnings int `json:"warnings"`
		Notes    int `json:"notes"`
		Accepted int `json:"accepted"`
	}{r, len(r.Rules), errors, warnings, notes, accepted})
}

// plain shows what could move a terminal's cursor, or turn its text, as an escape.
func plain(s string) string {
	unsafe := func(c rune) bool {
		return c == unicode.ReplacementChar || unicode.IsControl(c) || unicode.Is(unicode.Bidi_Control, c) || c == '\u2028' || c == '\u2029'
	}
	if !strings.ContainsFunc(s, unsafe) {
		return s
	}
	var b strings.Builder
	for _, c := range s {
		if unsafe(c) {
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(c), "'"))
		} else {
			b.WriteRune(c)
		}
	}
	return b.String()
}
