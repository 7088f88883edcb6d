package prove

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// WriteJSON writes the report as one indented JSON object: the bytes that are signed.
func (r *Report) WriteJSON(w io.Writer) error {
	b, err := r.JSON()
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

// JSON returns what WriteJSON writes.
func (r *Report) JSON() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(r); err != nil {
		return nil, fmt.Errorf("report as JSON: %w", err)
	}
	return b.Bytes(), nil
}

// lineWidth is how wide running text is made.
const lineWidth = 100

// WriteText writes the report for a terminal or a log. Text of databases and files is shown
// without control characters.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	r.head(&b)
	for _, s := range r.Sections {
		if !s.LeftOut {
			s.text(&b)
		}
	}
	r.foot(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) head(b *strings.Builder) {
	fmt.Fprintf(b, "rowhouse prove: %s\n\n", strings.ToUpper(string(r.Verdict)))
	facts := [][2]string{
		{"subject", r.Subject}, {"time", r.Time.Format(time.RFC3339)}, {"command", r.Command}, {"challenge", r.Challenge},
	}
	for _, p := range r.Programs {
		facts = append(facts, [2]string{"program", p.Name + " " + p.Version + short(p.SHA256)})
	}
	for _, f := range facts {
		if f[1] != "" {
			fmt.Fprintf(b, "  %-9s  %s\n", f[0], plain(f[1]))
		}
	}
	b.WriteString("\n")
	for _, s := range r.Sections {
		fmt.Fprintf(b, "  %-7s  %-9s  %s\n", s.Status.Words(), s.ID, plain(s.Summary()))
	}
	b.WriteString("\n")
}

// short shows the beginning of a hash.
func short(sum string) string {
	const shown = 16
	if len(sum) < shown {
		return ""
	}
	return " sha256:" + sum[:shown] + "…"
}

// Summary is the section in one line: its claim, or why it has no other status.
func (s Section) Summary() string {
	if s.Status == Pass {
		return s.Title + " (" + s.Reason + ")"
	}
	return s.Title + ": " + s.Reason
}

// Words is the status as people read it.
func (s Status) Words() string { return strings.ReplaceAll(string(s), "_", " ") }

func (s Section) text(b *strings.Builder) {
	title := s.ID + ": " + s.Title
	fmt.Fprintf(b, "%s\n%s\n", title, strings.Repeat("-", utf8.RuneCountInString(title)))
	if s.Shows != "" {
		b.WriteString(wrap("Shows: "+s.Shows) + wrap("Does not show: "+s.Limits))
	}
	if len(s.Threats) > 0 {
		fmt.Fprintf(b, "About: %s\n", strings.Join(s.Threats, ", "))
	}
	if s.Status == NotRun {
		b.WriteString(wrap("Not run: " + plain(s.Reason)))
	}
	b.WriteString("\n")
	for _, l := range s.Lines {
		l.text(b)
	}
	for _, t := range s.Tables {
		t.text(b)
	}
}

func (l Line) text(b *strings.Builder) {
	fmt.Fprintf(b, "  %-7s  %s: %s\n", l.Status.Words(), plain(l.Name), plain(l.Result))
	for _, f := range l.Findings {
		fmt.Fprintf(b, "           %s %s %s: %s\n", f.Severity, plain(f.Rule), plain(f.Object), plain(f.Message))
		if f.Mend != "" {
			fmt.Fprintf(b, "             mend: %s\n", plain(f.Mend))
		}
	}
	if l.Repeat != "" {
		fmt.Fprintf(b, "           repeat: %s\n", plain(l.Repeat))
	}
	b.WriteString("\n")
}

func (t Table) text(b *strings.Builder) {
	fmt.Fprintf(b, "  %s\n\n", plain(t.Title))
	rows := append([][]Cell{Cells(t.Head...)}, t.Rows...)
	widths := make([]int, len(t.Head))
	for _, row := range rows {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(plain(c.Text)))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, c := range row {
			text := plain(c.Text)
			line.WriteString("  " + text + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text)))
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	b.WriteString("\n")
}

func (r *Report) foot(b *strings.Builder) {
	b.WriteString("the words\n---------\n")
	for _, w := range words() {
		b.WriteString(wrap(w.Word + ": " + w.Means))
	}
	b.WriteString("\n")
	if len(r.Inputs) > 0 {
		b.WriteString("inputs, by SHA-256\n------------------\n")
		for _, in := range r.Inputs {
			fmt.Fprintf(b, "  %s  %s\n", in.SHA256, plain(in.Name))
		}
		b.WriteString("\n")
	}
	b.WriteString("verdict\n-------\n" + wrap(r.Says()))
}

// Says is the verdict in a sentence or two.
func (r *Report) Says() string {
	passed, failed, notRun := r.Counts()
	counts := fmt.Sprintf("Of %d sections %d passed, %d failed, %d did not run.", len(r.Sections), passed, failed, notRun)
	switch r.Verdict {
	case Fail:
		return "FAIL: at least one defence does not hold, or could be passed. " + counts
	case Incomplete:
		return "INCOMPLETE: nothing failed, but what did not run shows nothing: " + strings.Join(r.Missing, ", ") + ". " + counts
	default:
		risks := 0
		for _, s := range r.Sections {
			risks += s.accepted()
		}
		if risks > 0 {
			counts += fmt.Sprintf(" Accepted risks: %d.", risks)
		}
		return "PASS: the required sections ran and held: " + strings.Join(r.Required, ", ") + ". " + counts
	}
}

// wrap breaks running text at spaces.
func wrap(text string) string {
	var b strings.Builder
	col := 0
	for word := range strings.FieldsSeq(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case col == 0:
		case col+1+n > lineWidth:
			b.WriteString("\n")
			col = 0
		default:
			b.WriteString(" ")
			col++
		}
		b.WriteString(word)
		col += n
	}
	return b.String() + "\n"
}

// plain shows what could move a terminal's cursor, or turn its text, as an escape.
func plain(s string) string {
	var b strings.Builder
	for _, c := range s {
		switch {
		case c == '\n':
			b.WriteString("\\n")
		case unicode.IsControl(c), unicode.Is(unicode.Bidi_Control, c), c == unicode.ReplacementChar, c == '\u2028', c == '\u2029':
			fmt.Fprintf(&b, "\\u%04x", c)
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}
