package defects

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
)

// root is the repository.
const root = "../.."

// quick is the row that every run tries: its tests are built in no time.
const quick = "names of homes hold the whole uid"

// Without any one of the defences in Go a test fails.
func TestCodeDefects(t *testing.T) {
	t.Parallel()
	var rows []string
	for _, c := range codes() {
		if !long() && c.defence != quick {
			continue
		}
		t.Run(c.defence, func(t *testing.T) {
			red, err := c.try(t)
			rows = append(rows, fmt.Sprintf("%-52s %s", c.defence, strings.Join(red, " ")))
			if err != nil {
				t.Error(err)
			}
		})
	}
	t.Logf("%d defences taken away\n%s", len(rows), strings.Join(rows, "\n"))
}

// try runs the tests with the file changed, and returns those that fail.
func (c *code) try(t *testing.T) ([]string, error) {
	t.Helper()
	file, err := filepath.Abs(filepath.Join(root, c.file))
	if err != nil {
		return nil, err
	}
	text, err := c.changed()
	if err != nil {
		return nil, err
	}
	dir := t.TempDir()
	changed, overlay := filepath.Join(dir, "changed.go"), filepath.Join(dir, "overlay.json")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {file: changed}})
	if err == nil {
		err = errors.Join(os.WriteFile(changed, []byte(text), 0o600), os.WriteFile(overlay, replace, 0o600))
	}
	if err != nil {
		return nil, err
	}
	patience := "3m"
	if c.hangs {
		patience = "20s"
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-overlay", overlay, "-vet=off", "-count=1", "-v", "-timeout", patience,
		"-run", c.tests, "./"+c.folder())
	cmd.Dir = root
	// The tests that every run has are enough; their server is their own, for it is the server's rights that the other
	// half of this package takes away.
	cmd.Env = append(os.Environ(), "ROWHOUSE_TEST_LONG=", pgtest.EnvServer+"=", "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	red := failed(string(out))
	if c.hangs && strings.Contains(string(out), "panic: test timed out") && begun(string(out), c.tests) {
		red = append(red, "time out")
	}
	switch {
	case strings.Contains(string(out), "no tests to run"):
		return nil, fmt.Errorf("%s names no test", c.tests)
	case err == nil:
		return nil, errors.New("all tests pass without it")
	case len(red) == 0:
		return nil, fmt.Errorf("no test failed, but: %w\n%s", err, out)
	}
	return red, nil
}

func (c *code) folder() string {
	if c.pkg != "" {
		return c.pkg
	}
	return path.Dir(c.file)
}

// changed returns the file without the defence. Text that is not there, or not once, is an
// error: the file changed since the row was written.
func (c *code) changed() (string, error) {
	b, err := os.ReadFile(filepath.Join(root, c.file))
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(b), c.from); n != 1 {
		return "", fmt.Errorf("%s: %q is there %d times, want once", c.file, c.from, n)
	}
	return strings.Replace(string(b), c.from, c.to, 1), nil
}

// failed returns the names of the tests at the top that failed.
func failed(output string) []string {
	var all []string
	for _, m := range regexp.MustCompile(`(?m)^--- FAIL: (Test\w+)`).FindAllStringSubmatch(output, -1) {
		all = append(all, m[1])
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// begun reports whether a test that -run names to the last element had begun: what timed out
// before, say while its server started, did not meet the defect.
func begun(output, run string) bool {
	elements := strings.Split(run, "/")
	for _, m := range regexp.MustCompile(`(?m)^=== RUN +(\S+)$`).FindAllStringSubmatch(output, -1) {
		names := strings.Split(m[1], "/")
		if len(names) < len(elements) {
			continue
		}
		all := true
		for i, element := range elements {
			all = all && regexp.MustCompile(element).MatchString(names[i])
		}
		if all {
			return true
		}
	}
	return false
}

func TestBegun(t *testing.T) {
	t.Parallel()
	const run = "^TestA$/^SHARED$/^misuse"
	for output, want := range map[string]bool{
		"=== RUN   TestA\n=== RUN   TestA/SHARED\npanic: test timed out":                                false,
		"=== RUN   TestA\n=== RUN   TestA/SCHEMA/misuse\npanic: test timed out":                         false,
		"=== RUN   TestA\n=== RUN   TestA/SHARED/misuse_of_a_transaction\npanic: test timed out":        true,
		"=== RUN   TestA\n=== RUN   TestA/SHARED/misuse_of_a_transaction/nested\npanic: test timed out": true,
	} {
		if got := begun(output, run); got != want {
			t.Errorf("%t for %q", got, output)
		}
	}
}

// Every row can be tried: its file has the text that it takes away, and its tests are there.
func TestCodeRowsFit(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, c := range codes() {
		if _, err := c.changed(); err != nil {
			t.Errorf("%s: %v", c.defence, err)
		}
		if missing, err := c.missing(); err != nil || len(missing) > 0 {
			t.Errorf("%s: no test %v in %s, %v", c.defence, missing, c.folder(), err)
		}
		if seen[c.defence] {
			t.Errorf("%s is there twice", c.defence)
		}
		seen[c.defence] = true
	}
}

// missing returns the tests of the row that are not there.
func (c *code) missing() (all []string, err error) {
	files, err := filepath.Glob(filepath.Join(root, c.folder(), "*_test.go"))
	if err != nil {
		return nil, err
	}
	var text strings.Builder
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		text.Write(b)
	}
	for name := range strings.SplitSeq(c.tests, "|") {
		name, _, _ = strings.Cut(strings.Trim(name, "^$"), "$/")
		if !strings.Contains(text.String(), "\nfunc "+name) {
			all = append(all, name)
		}
	}
	return all, nil
}
