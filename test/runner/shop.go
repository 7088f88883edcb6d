package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A tally counts tests and subtests.
type tally struct{ passed, failed, skipped int }

func (t *tally) add(u tally) {
	t.passed += u.passed
	t.failed += u.failed
	t.skipped += u.skipped
}

// String is the line that CI reads.
func (t tally) String() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", t.passed, t.failed, t.skipped)
}

// A shop is what one tier works with. It is not safe for concurrent use.
type shop struct {
	tally
	out     io.Writer       // where failures are told
	skips   map[string]bool // the tests that may be skipped, as "path/of/package TestName"
	counted bool            // tests were run
}

// outcome turns a tier's error into the word and the reason of its closing line.
func (s *shop) outcome(err error) (word, why string) {
	var not notRun
	switch {
	case errors.As(err, &not):
		return "not run", ": " + not.Error()
	case err != nil:
		return "FAIL", ": " + strings.ReplaceAll(err.Error(), "\n", "; ")
	default:
		return "ok", ""
	}
}

// tool returns the path of a tool that tools/go.mod pins, built if need be.
func (s *shop) tool(ctx context.Context, name string) (string, error) {
	cmd := prepare(ctx, "scripts/tools.sh", []string{name})
	cmd.Stderr = s.out // it says what it builds, which may take minutes
	dir, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	return filepath.Join(strings.TrimSpace(string(dir)), name), nil
}

// command runs a program and shows what it printed if it fails.
func (s *shop) command(ctx context.Context, name string, args ...string) error {
	cmd := prepare(ctx, name, args)
	text, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if name != "git" { // asked a question, its no is an answer
		s.out.Write(bytes.TrimLeft(text, "\n"))
	}
	return fmt.Errorf("%s: %w", title(name, args), err)
}

// output runs a program and returns what it prints.
func (s *shop) output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := prepare(ctx, name, args)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if err != nil {
		s.out.Write(stderr.Bytes())
		return "", fmt.Errorf("%s: %w", title(name, args), err)
	}
	return string(text), nil
}

// tests runs go test with args beside one private PostgreSQL and counts.
func (s *shop) tests(ctx context.Context, args ...string) error {
	return s.testsIn(ctx, ".", args...)
}

// testsIn is tests for the module in a folder.
func (s *shop) testsIn(ctx context.Context, folder string, args ...string) error {
	before := s.failed
	patience := "-timeout=10m"
	if longTests() {
		patience = "-timeout=60m"
	}
	line := append([]string{
		"run", "./sdk/pgtest/pgtestserver", "--", "go", "test", "-C", folder, "-json", "-count=1", patience,
	}, args...)
	cmd := prepare(ctx, "go", line)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ran, readErr := s.count(bufio.NewReader(stdout))
	s.counted = s.counted || ran > 0
	err = errors.Join(cmd.Wait(), readErr)
	switch {
	case s.failed > before:
		return fmt.Errorf("%d tests failed", s.failed-before)
	case err != nil:
		s.out.Write(stderr.Bytes())
		return fmt.Errorf("go test: %w", err)
	case ran == 0:
		return errors.New("no test ran")
	default:
		return nil
	}
}

// prepare makes a command that ends with its whole process group, so that go run leaves no child behind.
func prepare(ctx context.Context, name string, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "GOTOOLCHAIN=local")
	if !slices.Contains(args, "-race") { // which alone needs C; without C rowlint's parser is WebAssembly, as shipped
		cmd.Env = append(cmd.Env, "CGO_ENABLED=0")
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 15 * time.Second
	return cmd
}

// title is a command as a person would say it.
func title(name string, args []string) string {
	return filepath.Base(name) + " " + strings.Join(args[:min(len(args), 2)], " ")
}
