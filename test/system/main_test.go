package system

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Where TestMain puts what all tests use. They are written before the first test runs.
var (
	binaries string // rowhouse and notes
	hostile  string // rowhouse, and notes with a hole
	rooms    string // the houses' state folders
)

// long asks for the full length of tests under load.
func long() bool { return os.Getenv("ROWHOUSE_TEST_LONG") != "" }

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (code int) {
	temp, err := os.MkdirTemp("", "rowhouse-system-")
	if err == nil {
		defer os.RemoveAll(temp)
		err = prepare(temp)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "system:", err)
		return 1
	}
	defer func() {
		if err := closeShared(); err != nil {
			fmt.Fprintln(os.Stderr, "system:", err)
			code = 1
		}
	}()
	return m.Run()
}

// prepare builds the binaries and makes the folders.
func prepare(temp string) error {
	rooms, hostile, binaries = filepath.Join(temp, "houses"), filepath.Join(temp, "hostile"), os.Getenv("ROWHOUSE_BIN")
	for _, dir := range []string{temp, rooms, hostile} { // PostgreSQL may run as another user
		if err := errors.Join(os.MkdirAll(dir, 0o711), os.Chmod(dir, 0o711)); err != nil {
			return err
		}
	}
	if binaries == "" {
		binaries = filepath.Join(temp, "bin")
		for out, pkg := range map[string]string{"rowhouse": "./cmd/rowhouse", "notes": "./examples/notes/cmd/notes"} {
			if err := build(filepath.Join(binaries, out), pkg); err != nil {
				return err
			}
		}
	}
	if err := os.Link(filepath.Join(binaries, "rowhouse"), filepath.Join(hostile, "rowhouse")); err != nil {
		return err
	}
	return build(filepath.Join(hostile, "notes"), "-tags=injectable", "./examples/notes/cmd/notes")
}

func build(out string, args ...string) error {
	cmd := exec.CommandContext(context.Background(), "go", append([]string{"build", "-buildvcs=false", "-o", out}, args...)...)
	cmd.Dir = filepath.Join("..", "..")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %v: %w\n%s", args, err, text)
	}
	return nil
}
