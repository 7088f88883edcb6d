package rpc

import (
	"testing"
	"time"
)

// TestRests has one thing fail again and again beside another one.
func TestRests(t *testing.T) {
	t.Parallel()
	now, tired := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC), make(rests)
	const s = time.Second
	for _, want := range []time.Duration{s, 2 * s, 4 * s, 5 * s, 5 * s} {
		if got := tired.tire("a", now, 5*time.Second); got != want {
			t.Fatalf("rests for %s, want %s", got, want)
		}
		if !tired.resting("a", now.Add(want-1)) || tired.resting("a", now.Add(want)) || tired.resting("b", now) {
			t.Fatalf("rests for another time than %s, or another one does", want)
		}
		now = now.Add(want)
	}
	tired.done("a")
	if got := tired.tire("a", now, longRest); got != firstRest {
		t.Errorf("after a success: %s", got)
	}
	if tired.tire("b", now.Add(time.Hour), longRest); len(tired) != 1 {
		t.Errorf("what nobody tries any more is kept: %v", tired)
	}
}
