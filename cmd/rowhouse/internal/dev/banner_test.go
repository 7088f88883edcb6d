package dev

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestQuoted(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/var/lib/rowhouse-dev", "/srv/a b/it's $HOME", "/x;y", "/Ünï"} {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", "printf %s "+quoted(path)).Output()
		if err != nil || string(out) != path {
			t.Errorf("a shell reads %s as %q, %v", quoted(path), out, err)
		}
	}
}

// The name alone is said only where it leads to this very binary.
func TestOurName(t *testing.T) { //nolint:paralleltest // it sets PATH
	dir, other := t.TempDir(), t.TempDir()
	for _, d := range []string{dir, other} {
		if err := os.WriteFile(filepath.Join(d, "rowhouse"), nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	self := filepath.Join(dir, "rowhouse")
	for path, want := range map[string]string{dir: "rowhouse", other: self, t.TempDir(): self} {
		t.Setenv("PATH", path)
		if got := ourName(self); got != want {
			t.Errorf("with PATH %s: %s, want %s", path, got, want)
		}
	}
}
