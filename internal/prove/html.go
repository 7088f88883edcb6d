package prove

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"time"
)

//go:embed report.html
var page string

// WriteHTML writes the report as one page that needs nothing else: no script, no picture, no
// network. It reads in light and dark, and prints.
func (r *Report) WriteHTML(w io.Writer) error {
	t, err := template.New("report").Funcs(template.FuncMap{
		"plain": plain, "words": words,
		"time": func(t time.Time) string { return t.Format(time.RFC3339) },
	}).Parse(page)
	if err != nil {
		return fmt.Errorf("report as HTML: %w", err)
	}
	if err := t.Execute(w, r); err != nil {
		return fmt.Errorf("report as HTML: %w", err)
	}
	return nil
}
