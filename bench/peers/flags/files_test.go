package flags_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/sdk/flags/flagset"
)

// mistakes are how many problems flagd's own files have: a version "2.0.0.0", and variants "fail" that do not exist.
var mistakes = map[string]int{"full.json": 3}

// TestFlagdsOwnFiles loads the valid documents that flagd's schema is tested with, unchanged, and compares the answers.
func TestFlagdsOwnFiles(t *testing.T) {
	t.Parallel()
	dir, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/open-feature/flagd-schemas").Output()
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, pattern := range []string{"examples/*.json", "test/flags/positive/*.json", "test/flagd/positive/*.json"} {
		found, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "json", pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %v, %v", pattern, found, err)
		}
		files = append(files, found...)
	}
	flagd, g := newFlagd(t), newGenerator(1)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		document := decode(text).(object)
		set := load(t, flagd, text)
		if problems, err := flagset.Validate(document); err != nil || len(problems) != mistakes[filepath.Base(file)] {
			t.Errorf("%s: %v, %v", file, problems, err)
		}
		for range 20 {
			attributes := g.context()
			c, err := flagset.NewContext(flagset.Identity{}, attributes)
			if err != nil {
				t.Fatal(err)
			}
			for _, key := range set.Keys() {
				if diff := cmp.Diff(flagdAnswer(t.Context(), flagd, key, attributes), ourAnswer(set, key, c)); diff != "" {
					t.Errorf("%s: %s (-flagd +ours)\n%s", filepath.Base(file), key, diff)
				}
			}
		}
	}
	t.Logf("%d files", len(files))
}
