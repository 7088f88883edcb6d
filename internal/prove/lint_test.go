package prove_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rowhouse-platform/rowhouse/internal/prove"
)

// again is a command that repeats a section.
func again(section string) string { return "again " + section }

// What rowlint says, and how it ends, becomes the section's status. Not in parallel: a program
// that was just written cannot be run while another test's child still holds its file.
//
//nolint:paralleltest // see above
func TestLint(t *testing.T) {
	const finding = `[{"rule":"Q1","file":"x.go","line":3,"column":7,"message":"no tenant","rewrite":"add it"}]`
	for name, test := range map[string]struct {
		script string
		want   prove.Status
		says   string
	}{
		"nothing to say":           {`echo '[]'`, prove.Pass, "no findings"},
		"findings":                 {`echo '` + finding + `'; exit 1`, prove.Fail, "1 findings"},
		"could not look":           {`echo 'rowlint: no packages' >&2; exit 2`, prove.NotRun, "could not look: rowlint: no packages"},
		"was killed":               {`kill -9 $$`, prove.NotRun, "could not look: signal: killed"},
		"says no JSON":             {`echo fine`, prove.NotRun, ""},
		"plans told of":            {`echo '10 statements were planned.' >&2; echo '[]'`, prove.Pass, "10 statements were planned. no findings"},
		"finds nothing, yet fails": {`echo '[]'; exit 1`, prove.NotRun, "could not look: it failed"},
		"fails in silence":         {`exit 3`, prove.NotRun, "exit status 3"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write := func(file, text string, mode os.FileMode) string {
				path := filepath.Join(dir, file)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), mode); err != nil {
					t.Fatal(err)
				}
				return path
			}
			write("x.go", "package x\n", 0o600)
			write("migrations/0001_a.sql", "SELECT 1;\n", 0o600)
			write("testdata/y.go", "not looked at", 0o600)
			s := prove.Source{Dir: dir, Rowlint: write("rowlint", "#!/bin/sh\n[ \"$1\" = --version ] && echo rowlint version v7 && exit\n"+test.script+"\n", 0o700), Repeat: again}
			r, err := prove.Run(t.Context(), prove.Options{Checks: prove.LintChecks(s, "")})
			if err != nil {
				t.Fatal(err)
			}
			for _, section := range r.Sections {
				if section.Status != test.want {
					t.Errorf("%s: %s, want %s: %+v", section.ID, section.Status, test.want, section)
				}
				if test.says != "" && !strings.Contains(section.Lines[0].Result, test.says) {
					t.Errorf("%s: %q, want %q", section.ID, section.Lines[0].Result, test.says)
				}
			}
			if test.want == prove.Fail {
				if f := r.Sections[0].Lines[0].Findings[0]; f.Object != "x.go:3:7" || f.Rule != "Q1" || f.Mend != "add it" {
					t.Errorf("the finding is %+v", f)
				}
			}
			if !slices.ContainsFunc(r.Programs, func(p prove.Program) bool { return p.Name == "rowlint" && p.Version == "v7" && p.SHA256 != "" }) {
				t.Errorf("the programs are %+v", r.Programs)
			}
			names := make([]string, len(r.Inputs))
			for i, in := range r.Inputs {
				names[i] = in.Name
			}
			if want := []string{"migrations/0001_a.sql", "source: the sums of 2 *.go, *.sql and go.mod files"}; !slices.Equal(names, want) {
				t.Errorf("the inputs are %q", names)
			}
		})
	}
}

// A relative name of rowlint is the file of whoever typed it, never one that the source brings:
// what is run is what the report signs the sum of.
//
//nolint:paralleltest // it changes the folder, and see TestLint
func TestLintRunsWhatItSigns(t *testing.T) {
	here, source := t.TempDir(), t.TempDir()
	for dir, says := range map[string]string{here: `[{"rule":"Q1"}]`, source: `[]`} {
		script := "#!/bin/sh\necho '" + says + "'\n"
		if err := os.WriteFile(filepath.Join(dir, "rowlint"), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(here)
	r, err := prove.Run(t.Context(), prove.Options{
		Checks: prove.LintChecks(prove.Source{Dir: source, Rowlint: "./rowlint", Repeat: again}, ""),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range r.Sections {
		if s.Status != prove.Fail {
			t.Errorf("%s ran another program than the one that was named: %+v", s.ID, s.Lines)
		}
		if len(s.Lines) == 0 || s.Lines[0].Repeat != "again "+s.ID {
			t.Errorf("%s lacks what repeats it: %+v", s.ID, s.Lines)
		}
	}
}

func TestLintWithoutRowlint(t *testing.T) {
	t.Parallel()
	for _, checks := range [][]prove.Check{prove.LintChecks(prove.Source{Dir: "."}, ""), prove.LintChecks(prove.Source{}, "no source")} {
		r, err := prove.Run(t.Context(), prove.Options{Checks: checks})
		if err != nil || r.Verdict != prove.Incomplete || r.Sections[0].Reason == "" {
			t.Errorf("verdict %s, %v: %+v", r.Verdict, err, r.Sections)
		}
	}
}
