// Command bench compares Rowhouse with other systems.
//
//	go run ./bench/cmd/bench -list
//	go run ./bench/cmd/bench -name context-check
//
// One comparison ends with one line: its name, our value, the ratio to a peer that was
// measured in the same run, the goal, and whether it is reached. Without -name all run,
// and their lines are added to bench/RESULTS.md. The exit status says whether it could be
// measured, not whether a goal is reached. What is measured is said in each benchmark's
// own package.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/rowhouse-platform/rowhouse/bench/bulkinsert"
	"github.com/rowhouse-platform/rowhouse/bench/catalogaudit"
	"github.com/rowhouse-platform/rowhouse/bench/contextcheck"
	"github.com/rowhouse-platform/rowhouse/bench/decide"
	"github.com/rowhouse-platform/rowhouse/bench/fairshare"
	"github.com/rowhouse-platform/rowhouse/bench/flags"
	"github.com/rowhouse-platform/rowhouse/bench/importfair"
	"github.com/rowhouse-platform/rowhouse/bench/leases"
	"github.com/rowhouse-platform/rowhouse/bench/measure"
	"github.com/rowhouse-platform/rowhouse/bench/meteringest"
	"github.com/rowhouse-platform/rowhouse/bench/poolfairness"
	"github.com/rowhouse-platform/rowhouse/bench/proxy"
	"github.com/rowhouse-platform/rowhouse/bench/replicaread"
	"github.com/rowhouse-platform/rowhouse/bench/rowlintspeed"
	"github.com/rowhouse-platform/rowhouse/bench/settings"
	"github.com/rowhouse-platform/rowhouse/bench/txread"
	"github.com/rowhouse-platform/rowhouse/bench/webhookfairness"
)

// benchmarks are all that can be asked for.
func benchmarks() []measure.Benchmark {
	return []measure.Benchmark{
		contextcheck.Benchmark(), txread.Near(), txread.Far(), txread.Idiom(), bulkinsert.Benchmark(), poolfairness.Benchmark(),
		importfair.Benchmark(),
		replicaread.Benchmark(), catalogaudit.Benchmark(), proxy.Benchmark(), rowlintspeed.Benchmark(),
		flags.Static(), flags.Targeting(), flags.Fractional(),
		settings.Read(), settings.Memory(), settings.Fanout(), settings.KillLane(), webhookfairness.Benchmark(), fairshare.Benchmark(),
		leases.Leased(), leases.Memory(),
		meteringest.Benchmark(),
		decide.Unary(), decide.Batch(),
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	line := flag.NewFlagSet("bench", flag.ContinueOnError)
	name := line.String("name", "", "run only this benchmark")
	list := line.Bool("list", false, "say what there is")
	rounds := line.Int("rounds", 0, "measure so many rounds instead of the usual number")
	seconds := line.Int("seconds", 0, "load for so many seconds a round instead of the usual number")
	if err := line.Parse(args); err != nil {
		return err
	}
	if *list {
		for _, b := range benchmarks() {
			fmt.Fprintf(out, "%-14s %s\n", b.Name, b.About)
		}
		return nil
	}
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	env := measure.Env{Root: root, Progress: out, Rounds: *rounds, Seconds: *seconds}
	if *name == "" {
		return runAll(ctx, env)
	}
	for _, b := range benchmarks() {
		if b.Name == *name {
			_, err := runOne(ctx, env, b)
			return err
		}
	}
	return fmt.Errorf("there is no benchmark %q; -list says what there is", *name)
}

// runOne runs one benchmark and prints its lines, the result last.
func runOne(ctx context.Context, env measure.Env, b measure.Benchmark) (r measure.Result, err error) {
	if env.Scratch, err = os.MkdirTemp("", "rowhouse-bench-"); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(env.Scratch)) }()
	const passable = 0o711 // PostgreSQL runs as another user when we are root
	if err := os.Chmod(env.Scratch, passable); err != nil {
		return r, err
	}
	if r, err = b.Run(ctx, env); err != nil {
		return r, fmt.Errorf("%s: %w", b.Name, err)
	}
	for _, line := range r.Beside {
		env.Sayf("%s", line)
	}
	fmt.Fprintln(env.Progress, r)
	return r, nil
}

// runAll runs all benchmarks and keeps their lines.
func runAll(ctx context.Context, env measure.Env) error {
	var kept strings.Builder
	fmt.Fprintf(&kept, "\n## %s\n\n%s\n\n```\n", time.Now().UTC().Format("2006-01-02 15:04 UTC"), machine())
	for _, b := range benchmarks() {
		env.Sayf("%s: %s", b.Name, b.About)
		r, err := runOne(ctx, env, b)
		if err != nil {
			return err
		}
		for _, line := range r.Beside {
			fmt.Fprintln(&kept, "#", line)
		}
		fmt.Fprintln(&kept, r)
	}
	kept.WriteString("```\n")
	return keep(filepath.Join(env.Root, "bench", "RESULTS.md"), kept.String())
}

// keep adds text at the end of a file.
func keep(path, text string) error {
	const readable = 0o644
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, readable)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// moduleRoot is the root of the module that the working folder is in.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	mod := string(bytes.TrimSpace(out))
	if err == nil && filepath.Base(mod) != "go.mod" {
		err = errors.New("not in the repository")
	}
	return filepath.Dir(mod), err
}
