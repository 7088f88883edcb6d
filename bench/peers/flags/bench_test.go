package flags_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/open-feature/flagd/core/pkg/evaluator"

	"github.com/rowhouse-platform/rowhouse/sdk/flags/flagset"
)

// flagsAsked is how many flags and contexts are asked for in turn: one again and again would stay in the processor's
// nearest cache.
const flagsAsked = 64

const (
	static    = `{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"on"}`
	targeting = `{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"off","targeting":{"if":[
		{"and":[
			{"in":[{"var":"plan"},["business","enterprise"]]},
			{"or":[{"ends_with":[{"var":"email"},"@example.com"]},{">=":[{"var":"seats"},50]}]},
			{"==":[{"var":"address.country"},"DE"]}
		]},"on","off"]}}`
	fractional = `{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"off","targeting":{"fractional":[
		{"cat":[{"var":"$flagd.flagKey"},{"var":"email"}]},["on",25],["off",75]]}}`
)

// asked is a document of many flags like one, and the contexts of many callers.
type asked struct {
	keys       []string
	attributes []object
	contexts   []*flagset.Context
	flagd      *evaluator.JSON
	ours       *flagset.Set
}

func ask(tb testing.TB, flag string) asked {
	tb.Helper()
	a := asked{flagd: newFlagd(tb)}
	document := object{}
	for i := range flagsAsked {
		a.keys = append(a.keys, fmt.Sprintf("checkout-%d", i))
		document[a.keys[i]] = decode([]byte(flag))
		a.attributes = append(a.attributes, object{
			"targetingKey": fmt.Sprintf("user-%d", i), "email": fmt.Sprintf("ann%d@example.com", i), "plan": "business",
			"seats": float64(i), "version": "1.2.3", "locale": "de-AT", "address": object{"country": "DE", "city": "Berlin"},
		})
		a.contexts = append(a.contexts, callerOf(tb, a.attributes[i]))
	}
	a.ours = load(tb, a.flagd, marshal(object{"flags": document}))
	return a
}

func callerOf(tb testing.TB, attributes object) *flagset.Context {
	tb.Helper()
	plan, _ := attributes["plan"].(string)
	c, err := flagset.NewContext(flagset.Identity{Tenant: "acme", Plan: plan}, attributes)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// TestBenchmarksAgree shows that what is measured is the same work, with the same answers.
func TestBenchmarksAgree(t *testing.T) {
	t.Parallel()
	for _, flag := range []string{static, targeting, fractional} {
		a, seen := ask(t, flag), map[bool]int{}
		for i, key := range a.keys {
			want, _, _, _, err := a.flagd.ResolveBooleanValue(t.Context(), "", key, a.attributes[i])
			got, code := a.ours.Evaluate(key, a.contexts[i]).Bool()
			if got != want || err != nil || code != flagset.OK {
				t.Errorf("%s: flagd says %t, %v, we say %t, %v", key, want, err, got, code)
			}
			seen[got]++
		}
		if flag == fractional && len(seen) != 2 {
			t.Errorf("fractional chooses one variant for all: %v", seen)
		}
	}
}

func benchmark(b *testing.B, flag string) {
	b.Helper()
	a := ask(b, flag)
	b.Run("Ours", func(b *testing.B) {
		b.ReportAllocs()
		start, i := cpuTime(b), 0
		for b.Loop() {
			if _, code := a.ours.Evaluate(a.keys[i%flagsAsked], a.contexts[i%flagsAsked]).Bool(); code != flagset.OK {
				b.Fatal(code)
			}
			i++
		}
		reportCPU(b, start)
	})
	b.Run("Flagd", func(b *testing.B) {
		b.ReportAllocs()
		start, i := cpuTime(b), 0
		for b.Loop() {
			if _, _, _, _, err := a.flagd.ResolveBooleanValue(b.Context(), "", a.keys[i%flagsAsked], a.attributes[i%flagsAsked]); err != nil {
				b.Fatal(err)
			}
			i++
		}
		reportCPU(b, start)
	})
}

func BenchmarkStatic(b *testing.B) { benchmark(b, static) }

func BenchmarkTargeting(b *testing.B) { benchmark(b, targeting) }

func BenchmarkFractional(b *testing.B) { benchmark(b, fractional) }

// BenchmarkContext is what is paid once a request, however many flags it asks for.
func BenchmarkContext(b *testing.B) {
	a := ask(b, static)
	b.ReportAllocs()
	start := cpuTime(b)
	for b.Loop() {
		callerOf(b, a.attributes[0])
	}
	reportCPU(b, start)
}

// reportCPU reports the CPU time of an operation: other work on the machine disturbs it less than the clock on the wall.
func reportCPU(b *testing.B, start time.Duration) {
	b.Helper()
	b.ReportMetric(float64((cpuTime(b)-start).Nanoseconds())/float64(b.N), "cpu-ns/op")
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
