// Package gotest runs Go benchmarks as processes of their own and reads what they say.
// A benchmark that needs package testing, a real database of [pgtest] for one, lives in
// a _test.go file and is measured through here. Start at [Build].
//
// [pgtest]: https://pkg.go.dev/github.com/rowhouse-platform/rowhouse/sdk/pgtest
package gotest

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// stopWithin is how long a benchmark that is told to end may take.
const stopWithin = 20 * time.Second

// Binary is a compiled test binary.
type Binary struct {
	path, dir string
}

// Build compiles the tests of a package, "./bench/txread", of the module in root into a
// file below scratch.
func Build(ctx context.Context, root, pkg, scratch string) (Binary, error) {
	b := Binary{path: filepath.Join(scratch, filepath.Base(pkg)+".test"), dir: filepath.Join(root, pkg)}
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", b.path, pkg)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return b, fmt.Errorf("compile %s: %w\n%s", pkg, err, out)
	}
	return b, nil
}

// Run runs the benchmarks that the expression matches, each for the time ("200ms", or
// "1x" for once), and returns what each measured, by unit.
func (b Binary) Run(ctx context.Context, expression, benchtime string) (map[string]Metrics, error) {
	cmd := exec.CommandContext(ctx, b.path, "-test.run=^$", "-test.bench="+expression, "-test.benchtime="+benchtime)
	cmd.Dir = b.dir
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopWithin
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("benchmark %s: %w\n%s", expression, err, out)
	}
	measured, err := parse(out)
	if err == nil && len(measured) == 0 {
		err = fmt.Errorf("benchmark %s: none ran\n%s", expression, out)
	}
	return measured, err
}

// Metrics is what one benchmark measured, by unit: "ns/op", "allocs/op", and its own.
type Metrics map[string]float64

// parse reads lines like "BenchmarkX-2  100  12.5 ns/op  0 allocs/op". Names lose the
// "Benchmark" and the number of processors.
func parse(out []byte) (map[string]Metrics, error) {
	all := map[string]Metrics{}
	for line := range bytes.Lines(out) {
		fields := strings.Fields(string(line))
		if len(fields) < 4 || len(fields)%2 != 0 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		if _, err := strconv.Atoi(fields[1]); err != nil {
			continue // something else that was printed
		}
		m := Metrics{}
		for i := 2; i < len(fields); i += 2 {
			value, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return nil, fmt.Errorf("benchmark line %q: %w", line, err)
			}
			m[fields[i+1]] = value
		}
		all[benchmarkName(fields[0])] = m
	}
	return all, nil
}

func benchmarkName(field string) string {
	name := strings.TrimPrefix(field, "Benchmark")
	i := strings.LastIndexByte(name, '-')
	if i < 0 {
		return name
	}
	if _, err := strconv.Atoi(name[i+1:]); err != nil {
		return name
	}
	return name[:i]
}
