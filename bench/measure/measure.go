// Package measure is what all benchmarks share: what one is given, what it answers,
// and how numbers of several rounds become one. Start at [Benchmark] and [Result].
package measure

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
)

// Benchmark is one comparison that can be asked for by name.
type Benchmark struct {
	// Name is what BENCH= says.
	Name string
	// About is one line: what is measured, against what, and what the goal bounds.
	About string
	// Run measures. An error means that nothing was measured, not that a goal was missed.
	Run func(context.Context, Env) (Result, error)
}

// Env is what a benchmark is given.
type Env struct {
	// Root is the root of our module.
	Root string
	// Scratch is a folder of the benchmark's own, which everyone may pass and which is
	// removed after it.
	Scratch string
	// Progress is told what is going on.
	Progress io.Writer
	// Rounds and Seconds replace the benchmark's own number of rounds and their length;
	// 0 leaves them.
	Rounds, Seconds int
}

// Sayf tells what is going on.
func (e Env) Sayf(format string, args ...any) { fmt.Fprintf(e.Progress, "# "+format+"\n", args...) }

// RoundsOr returns the number of rounds to take, and usual unless one was asked for.
func (e Env) RoundsOr(usual int) int { return cmp.Or(e.Rounds, usual) }

// SecondsOr returns the length of a round, and usual unless one was asked for.
func (e Env) SecondsOr(usual int) int { return cmp.Or(e.Seconds, usual) }

// Result is what was measured.
type Result struct {
	// Name is the benchmark's.
	Name string
	// Value is ours, in Unit.
	Value float64
	Unit  string
	// Peer is whom Ratio compares with: ours divided by theirs, unless About says otherwise.
	Peer  string
	Ratio float64
	// Goal is the bound of what the benchmark's About names.
	Goal float64
	// OK says that the goal is reached, and whatever else About demands.
	OK bool
	// Beside holds lines to read with the result: other peers, spreads, conditions.
	Beside []string
}

// String returns the one line of the result.
func (r Result) String() string {
	return fmt.Sprintf("name=%s value=%s unit=%s peer=%s ratio=%s goal=%s ok=%t",
		r.Name, number(r.Value), r.Unit, r.Peer, number(r.Ratio), number(r.Goal), r.OK)
}

// number keeps three digits or more of what matters, and no exponent.
func number(x float64) string {
	digits := 3
	for limit := 10.0; digits > 0 && (x >= limit || -x >= limit); limit *= 10 {
		digits--
	}
	return strconv.FormatFloat(x, 'f', digits, 64)
}

// Median returns the middle of the numbers, the mean of the two middle ones of an even
// count, and 0 of none. It leaves them in their order.
func Median(of []float64) float64 {
	if len(of) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(of))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// Ratios divides the numbers of neighbouring rounds.
func Ratios(ours, theirs []float64) []float64 {
	out := make([]float64, min(len(ours), len(theirs)))
	for i := range out {
		out[i] = ours[i] / theirs[i]
	}
	return out
}
