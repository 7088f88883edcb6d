package gotest

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	t.Parallel()
	const out = `goos: linux
pkg: example.com/x
BenchmarkVerify-2   	12345678	        85.30 ns/op	       0 B/op	       0 allocs/op
BenchmarkMap/warm-hit 	1	 2.5 reads-ratio
Benchmark that says nothing
PASS
`
	got, err := parse([]byte(out))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]Metrics{
		"Verify":       {"ns/op": 85.3, "B/op": 0, "allocs/op": 0},
		"Map/warm-hit": {"reads-ratio": 2.5},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestParseRefusesWhatIsNoNumber(t *testing.T) {
	t.Parallel()
	if got, err := parse([]byte("BenchmarkX-2 1 many ns/op\n")); err == nil {
		t.Errorf("parse = %v, want an error", got)
	}
}
