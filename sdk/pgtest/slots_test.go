package pgtest

import (
	"context"
	"errors"
	"testing"
	"time"
)

// Two processes share three places: nobody gets a fourth, and a place that is given back,
// or whose process ended, goes to the other.
func TestSlotsAreSharedBetweenProcesses(t *testing.T) {
	t.Parallel()
	ctx, pool := t.Context(), New(t, Template{}).Superuser(t)
	const class = 1
	one, other := newSlots(pool, class, 3), newSlots(pool, class, 3)
	defer other.close(ctx)
	first, second, third := take(t, one), take(t, one), take(t, other)
	if first == second || first == third || second == third {
		t.Errorf("places %d, %d, %d", first, second, third)
	}
	for name, s := range map[string]*slots{"one": one, "other": other} {
		if slot, err := s.try(ctx); err != nil || slot != noSlot {
			t.Errorf("%s gets a fourth place: %d, %v", name, slot, err)
		}
	}
	one.giveBack(first)
	if got := take(t, other); got != first {
		t.Errorf("got place %d, want %d", got, first)
	}
	one.close(ctx)
	if got := take(t, other); got != second {
		t.Errorf("got place %d, want %d", got, second)
	}
}

// A test that waits in vain goes on without a place, unless it is itself at its end.
func TestSlotsPatience(t *testing.T) {
	t.Parallel()
	s := newSlots(New(t, Template{}).Superuser(t), 1, 1)
	defer s.close(t.Context())
	take(t, s)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.take(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	s.patience = time.Millisecond
	if got := take(t, s); got != noSlot {
		t.Errorf("got place %d", got)
	}
	s.giveBack(noSlot)
}

func take(t *testing.T, s *slots) int {
	t.Helper()
	slot, err := s.take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return slot
}

func TestLegible(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"Simple":        "simple",
		`x/y "z"; DROP`: "x_y__z___drop",
		"ünï":           "_n_",
		"123456789012345678901234567890123456789": "12345678901234567890123456789012",
	} {
		if got := legible(name); got != want {
			t.Errorf("%q becomes %q, want %q", name, got, want)
		}
	}
}
