// Command runner runs every check of the repository, tier by tier, and counts the tests.
//
// It is what `make test` and CI call. It prints what failed as it fails, one closing line for each tier, and at the
// very end, alone on its line, "N passed, N failed, N skipped". A tier that cannot run fails. It is not for one test
// of one package: go test does that. Start with tiers.go, which says what the checks are.
//
//	runner [-long] [tier…]
//
// Variable ROWHOUSE_TEST_WITHOUT=race,vuln leaves tiers out. A run that left something out says INCOMPLETE.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// without names the variable that leaves tiers out.
const without = "ROWHOUSE_TEST_WITHOUT"

func main() {
	long := flag.Bool("long", false, "also run the tiers that take long")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, *long, flag.Args())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "runner:", err)
		os.Exit(1)
	}
}

// run runs the named tiers, or all of them, and reports an error when one of them failed.
func run(ctx context.Context, out io.Writer, long bool, names []string) error {
	skips, err := readSkips("test/skips.txt")
	if err != nil {
		return err
	}
	chosen, left, err := choose(tiers(), long, names)
	if err != nil {
		return err
	}
	var total tally
	for _, t := range chosen {
		if ctx.Err() != nil { // interrupted: the one that ran has failed
			left = append(left, t.name)
			continue
		}
		tally, ran := perform(ctx, out, t, skips)
		total.add(tally)
		if !ran {
			left = append(left, t.name)
		}
	}
	if len(left) > 0 {
		fmt.Fprintf(out, "INCOMPLETE: without %s\n", strings.Join(left, ", "))
	}
	fmt.Fprintln(out, total)
	if total.failed > 0 {
		return fmt.Errorf("%d failed", total.failed)
	}
	return nil
}

// choose returns the tiers to run and the names of those that a full run has and this one leaves out.
func choose(all []tier, long bool, names []string) (chosen []tier, left []string, err error) {
	off := strings.FieldsFunc(os.Getenv(without), func(r rune) bool { return r == ',' || r == ' ' })
	known := make([]string, len(all))
	for i, t := range all {
		known[i] = t.name
	}
	for _, name := range slices.Concat(names, off) {
		if !slices.Contains(known, name) {
			return nil, nil, fmt.Errorf("no tier is named %q; there are %s", name, strings.Join(known, ", "))
		}
	}
	for _, t := range all {
		wanted := slices.Contains(names, t.name) || len(names) == 0 && (long || !t.long)
		switch {
		case wanted && !slices.Contains(off, t.name):
			chosen = append(chosen, t)
		case wanted || !t.long:
			left = append(left, t.name)
		}
	}
	return chosen, left, nil
}

// perform runs one tier, prints its closing line and reports whether it could run. A tier that fails without a failed
// test counts as one.
func perform(ctx context.Context, out io.Writer, t tier, skips map[string]bool) (result tally, ran bool) {
	ctx, cancel := context.WithTimeout(ctx, t.limit())
	defer cancel()
	start := time.Now()
	s := &shop{out: out, skips: skips}
	err := t.run(ctx, s)
	word, why := s.outcome(err)
	if word == "FAIL" && s.failed == 0 {
		s.failed = 1
	}
	tests := ""
	if n := s.passed + s.failed + s.skipped; n > 0 && s.counted {
		tests = fmt.Sprintf(" %d tests", n)
	}
	fmt.Fprintf(out, "tier %s: %s%s %.0f s%s\n", t.name, word, tests, time.Since(start).Seconds(), why)
	if word == "FAIL" {
		fmt.Fprintf(out, "  again: scripts/test.sh %s; without it: %s=%s\n", t.name, without, t.name)
	}
	return s.tally, word != "not run"
}
