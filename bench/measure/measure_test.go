package measure_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/bench/measure"
)

func TestMedian(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		of   []float64
		want float64
	}{
		{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{9, 1, 2, 4}, 3},
	} {
		before := slices.Clone(tc.of)
		if got := measure.Median(tc.of); got != tc.want {
			t.Errorf("Median(%v) = %v, want %v", tc.of, got, tc.want)
		}
		if diff := cmp.Diff(before, tc.of); diff != "" {
			t.Errorf("Median changed its argument:\n%s", diff)
		}
	}
}

func TestRatiosPairRounds(t *testing.T) {
	t.Parallel()
	got := measure.Ratios([]float64{2, 9, 5}, []float64{1, 3})
	if diff := cmp.Diff([]float64{2, 3}, got); diff != "" {
		t.Error(diff)
	}
}

func TestResultIsOneLine(t *testing.T) {
	t.Parallel()
	r := measure.Result{Name: "n", Value: 1234.56, Unit: "ns/op", Peer: "map", Ratio: 1.23456, Goal: 100, OK: true}
	const want = "name=n value=1235 unit=ns/op peer=map ratio=1.235 goal=100.0 ok=true"
	if got := r.String(); got != want {
		t.Errorf("String = %q, want %q", got, want)
	}
}
