package prove

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// lintConfig is the name of rowlint's configuration, beside go.mod.
const lintConfig = "rowlint.yaml"

// Source is source code that rowlint reads. It runs as a program of its own, so that this one
// does not carry PostgreSQL's grammar.
type Source struct {
	// Dir is the folder of go.mod.
	Dir string
	// Config is a configuration in the place of the module's rowlint.yaml; may be empty.
	Config string
	// Packages are patterns as for go build; empty means all.
	Packages []string
	// Rowlint is the program's file; a relative name starts where this program runs, not in Dir.
	Rowlint string
	// Repeat is the command that makes the lines of a section again.
	Repeat func(section string) string
}

// FindRowlint returns rowlint's file: beside the running program, else on PATH. It is empty
// when there is none.
func FindRowlint() string {
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "rowlint")
		if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() {
			return beside
		}
	}
	path, err := exec.LookPath("rowlint")
	if err != nil {
		return ""
	}
	return path
}

// LintChecks returns the checks that read source: sql-lint and plan-lint. A non-empty missing
// says why there is none.
func LintChecks(s Source, missing string) []Check {
	if missing == "" && s.Rowlint == "" {
		missing = "rowlint is neither beside rowhouse nor on PATH; make rowlint builds it"
	}
	if len(s.Packages) == 0 {
		s.Packages = []string{"./..."}
	}
	check := func(about About, command ...string) Check {
		return Check{About: about, Missing: missing, Run: func(ctx context.Context) (Outcome, error) {
			return s.check(ctx, about.ID, command...)
		}}
	}
	return []Check{check(aboutSQLLint), check(aboutPlanLint, "plan")}
}

// check runs rowlint, or one of its commands, for a section.
func (s Source) check(ctx context.Context, section string, command ...string) (o Outcome, err error) {
	if o.Inputs, err = s.inputs(); err != nil {
		return o, err
	}
	// A relative name would be run from Dir, while its sum is read from here.
	if s.Rowlint, err = filepath.Abs(s.Rowlint); err != nil {
		return o, fmt.Errorf("find rowlint: %w", err)
	}
	if o.Programs, err = s.program(ctx); err != nil {
		return o, err
	}
	args := slices.Concat(command, s.arguments())
	line := Line{Name: "the source in " + s.Dir, Status: NotRun, Repeat: s.Repeat(section)}
	var out, said bytes.Buffer
	cmd := exec.CommandContext(ctx, s.Rowlint, append(args, "-o", "json")...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.Dir, &out, &said
	failed := cmd.Run()
	exit, _ := errors.AsType[*exec.ExitError](failed)
	const findings = 1 // the exit status of rowlint that has something to say
	if failed != nil && (exit == nil || exit.ExitCode() != findings) {
		line.Result = "could not look: " + firstLine(said.String(), failed)
		o.Lines = []Line{line}
		return o, nil
	}
	if err := line.lint(out.Bytes()); err != nil {
		return o, err
	}
	if failed != nil && line.Status == Pass {
		line.Status, line.Result = NotRun, "could not look: it failed, and said nothing of what it found"
	}
	if told := strings.TrimSpace(said.String()); told != "" {
		line.Result = told + " " + line.Result
	}
	o.Lines = []Line{line}
	return o, nil
}

// lint takes rowlint's findings into the line; each is an error.
func (l *Line) lint(out []byte) error {
	var found []struct {
		Rule, File, Message, Rewrite string
		Line, Column                 int
	}
	if err := json.Unmarshal(out, &found); err != nil {
		return fmt.Errorf("rowlint answered what is no list of findings: %w", err)
	}
	l.Status, l.Result = Pass, "no findings"
	if len(found) > 0 {
		l.Status, l.Result = Fail, fmt.Sprintf("%d findings", len(found))
	}
	for _, f := range found {
		l.Findings = append(l.Findings, Finding{
			Rule: f.Rule, Severity: "error", Object: fmt.Sprintf("%s:%d:%d", f.File, f.Line, f.Column), Message: f.Message, Mend: f.Rewrite,
		})
	}
	return nil
}

func (s Source) arguments() []string {
	args := slices.Clone(s.Packages)
	if s.Config != "" {
		args = append(args, "--config", s.Config)
	}
	return args
}

func firstLine(said string, err error) string {
	line, _, _ := strings.Cut(strings.TrimSpace(said), "\n")
	if line == "" {
		return err.Error()
	}
	return line
}

// quoteWord quotes a word for a shell where it needs it.
func quoteWord(s string) string {
	const safe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./=:,@%+"
	if s != "" && strings.Trim(s, safe) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// Quote returns a command line as a shell takes it.
func Quote(words ...string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quoteWord(w)
	}
	return strings.Join(quoted, " ")
}

// program describes rowlint by its file, and by what it says that it is.
func (s Source) program(ctx context.Context) ([]Program, error) {
	sum, err := sumFile(s.Rowlint)
	if err != nil {
		return nil, fmt.Errorf("read rowlint: %w", err)
	}
	said, _ := exec.CommandContext(ctx, s.Rowlint, "--version").Output() // what does not say it has no version
	line, _, _ := strings.Cut(string(said), "\n")
	version, is := strings.CutPrefix(line, "rowlint version ")
	if !is {
		version = "of unknown version"
	}
	return []Program{{Name: "rowlint", Version: version, SHA256: sum}}, nil
}

// inputs are the configuration, the migrations, and one sum over all source.
func (s Source) inputs() ([]Input, error) {
	config := s.Config
	if config == "" {
		config = lintConfig
	}
	if !filepath.IsAbs(config) {
		config = filepath.Join(s.Dir, config)
	}
	var all []Input
	if sum, err := sumFile(config); err == nil {
		all = append(all, Input{filepath.Base(config), sum})
	}
	tree, n := sha256.New(), 0
	err := filepath.WalkDir(s.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != s.Dir && skipped(d.Name()) {
			return filepath.SkipDir
		}
		if ext := filepath.Ext(path); !d.Type().IsRegular() || ext != ".go" && ext != ".sql" && d.Name() != "go.mod" {
			return nil
		}
		name, err := filepath.Rel(s.Dir, path)
		if err != nil {
			return err
		}
		sum, err := sumFile(path)
		if err != nil {
			return err
		}
		n++
		_, _ = io.WriteString(tree, sum+"  "+filepath.ToSlash(name)+"\n") // a hash takes everything
		if filepath.Ext(path) == ".sql" && filepath.Base(filepath.Dir(path)) == "migrations" {
			all = append(all, Input{filepath.ToSlash(name), sum})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the source: %w", err)
	}
	return append(all, Input{fmt.Sprintf("source: the sums of %d *.go, *.sql and go.mod files", n), hex.EncodeToString(tree.Sum(nil))}), nil
}

// skipped are folders that go build does not look into.
func skipped(folder string) bool {
	return slices.Contains([]string{"vendor", "testdata", "node_modules"}, folder) || folder[0] == '.' || folder[0] == '_'
}
