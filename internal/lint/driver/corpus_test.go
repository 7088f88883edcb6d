package driver_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/rowhouse-platform/rowhouse/internal/lint"
	"github.com/rowhouse-platform/rowhouse/internal/lint/driver"
)

// root is the root of our module.
const root = "../../.."

// place is where a rule is broken, or should be.
type place struct {
	file string
	line int
	rule string
}

func (p place) String() string { return fmt.Sprintf("%s:%d: %s", p.file, p.line, p.rule) }

// TestCorpus runs rowlint over small programs as a product team would, each file of testdata
// as a module of its own, and compares with what the programs say of themselves.
func TestCorpus(t *testing.T) {
	t.Parallel()
	const leastPrograms, leastRecall = 60, 0.95
	wanted, found, programs := map[place]wish{}, map[place]string{}, 0
	for _, name := range []string{"sql", "go", "migrations", "hard"} {
		dir, n := unpack(t, name, wanted)
		programs += n
		for _, f := range lintModule(t, dir) {
			found[place{name + "/" + f.File, f.Line, f.Rule}] = f.Text()
		}
	}
	var hits int
	for p, wish := range wanted {
		switch _, ok := found[p]; {
		case ok:
			hits++
		case wish == missed:
			t.Logf("missed, as is known: %s", p)
		default:
			t.Errorf("missed: %s", p)
		}
	}
	for p, text := range found {
		if wanted[p] == 0 {
			t.Errorf("found what is not there: %s: %s", p, text)
		}
	}
	recall, precision := float64(hits)/float64(len(wanted)), float64(hits)/float64(len(found))
	t.Logf("%d programs, %d seeded faults: recall %.1f %%, precision %.1f %%", programs, len(wanted), 100*recall, 100*precision)
	if programs < leastPrograms || recall < leastRecall {
		t.Errorf("want %d programs and a recall of %.0f %%", leastPrograms, 100*leastRecall)
	}
	everyRule(t, wanted)
}

// everyRule holds the corpus against the table of rules.
func everyRule(t *testing.T, wanted map[place]wish) {
	t.Helper()
	seeded := map[string]bool{}
	for p := range wanted {
		seeded[p.rule] = true
	}
	for _, r := range lint.Rules() {
		if !seeded[r.ID] && !strings.HasPrefix(r.ID, "P") { // plans need a database: package plan
			t.Errorf("no program breaks %s", r.ID)
		}
	}
}

// unpack writes a file of the corpus as a module, notes what is wanted of it, and counts its programs.
func unpack(t *testing.T, name string, wanted map[place]wish) (dir string, programs int) {
	t.Helper()
	archive, err := txtar.ParseFile(filepath.Join("testdata", name+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	write(t, dir, "go.mod", moduleFile(t))
	sum, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "go.sum", string(sum))
	write(t, dir, "rowlint.yaml", "control: [{path: control, reason: it has a database of its own}]\n")
	folders := map[string]bool{}
	for _, file := range archive.Files {
		write(t, dir, file.Name, string(file.Data))
		if program := strings.TrimSuffix(filepath.Dir(file.Name), "/migrations"); program != "migrations" {
			folders[program] = true
		}
		maps.Copy(wanted, wants(name+"/"+file.Name, string(file.Data)))
	}
	return dir, len(folders)
}

// wish is whether rowlint finds what a program has.
type wish uint8

const (
	want   wish = iota + 1
	missed      // it should, and is known not to
)

// wants reads the places that a program names: "want Q5" on the line, "want+1 Q5" before it,
// "want? Q5" for what is known to be missed.
func wants(file, text string) map[place]wish {
	out := map[place]wish{}
	mark := regexp.MustCompile(`(?://|--) want(\?)?(?:\+(\d))? ((?:[A-Z]\d+ ?)+)\s*$`)
	for i, line := range strings.Split(text, "\n") {
		m := mark.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		at := i + 1
		if m[2] != "" {
			at += int(m[2][0] - '0')
		}
		as := want
		if m[1] != "" {
			as = missed
		}
		for rule := range strings.FieldsSeq(m[3]) {
			out[place{file, at, rule}] = as
		}
	}
	return out
}

func lintModule(t *testing.T, dir string) []lint.Finding {
	t.Helper()
	o := driver.Options{Dir: dir}
	goFiles, err := filepath.Glob(filepath.Join(dir, "*", "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	if len(goFiles) > 0 {
		o.Patterns = []string{"./..."}
	}
	if o.SQL, err = filepath.Glob(filepath.Join(dir, "*", "migrations")); err != nil {
		t.Fatal(err)
	}
	r, err := driver.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r.Findings
}

// moduleFile is a go.mod that requires what ours does, and ours.
func moduleFile(t *testing.T) string {
	t.Helper()
	ours, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	abs, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	const module = "github.com/rowhouse-platform/rowhouse"
	return strings.Replace(string(ours), "module "+module, "module example.com/corpus", 1) +
		"\nrequire " + module + " v0.0.0\nreplace " + module + " => " + abs + "\n"
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestOurOwn runs rowlint over the example, our services and our SDK: what it rightly found
// there is mended, or suppressed with a reason.
func TestOurOwn(t *testing.T) {
	t.Parallel()
	r, err := driver.Run(t.Context(), driver.Options{Dir: root, Patterns: []string{"./examples/...", "./services/...", "./sdk/...", "./internal/prove"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Findings {
		t.Errorf("%s:%d:%d: %s: %s", f.File, f.Line, f.Column, f.Rule, f.Text())
	}
	if slices.ContainsFunc(r.Statements, func(s driver.Statement) bool { return strings.HasPrefix(s.File, "internal/") }) {
		t.Error("statements of a folder without tenants' tables would be planned")
	}
	notes := slices.DeleteFunc(slices.Clone(r.Statements), func(s driver.Statement) bool { return !strings.HasPrefix(s.File, "examples/notes/") })
	names := map[string]bool{}
	for _, s := range notes {
		names[s.Name] = true
		if len(s.Migrations) != 1 || filepath.Base(filepath.Dir(s.Migrations[0])) != "notes" {
			t.Errorf("%s: its migrations are in %q", s.Name, s.Migrations)
		}
	}
	if !names["listNotes"] || !names["createNote"] {
		t.Errorf("the example's statements are %v", slices.Sorted(maps.Keys(names)))
	}
}
