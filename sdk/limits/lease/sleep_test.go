package lease

import (
	"context"
	"testing"
	"time"
)

// rich lends for an hour.
type rich struct{ asked int }

func (r *rich) Grant(_ context.Context, asks []Ask) ([]Answer, int, error) {
	r.asked++
	return []Answer{{Outcome: Granted, Cells: []CellAnswer{{OK: true, Tokens: 1000, Lifetime: time.Hour}}}}, 1, nil
}

func (r *rich) Return(context.Context, []Give) error { return nil }

// While the machine stands still its monotonic clock does, and the wall clock goes on:
// what it had been lent is gone when they part.
func TestLeasesDoNotSurviveSleep(t *testing.T) {
	t.Parallel()
	for slept, want := range map[time.Duration]int{100 * time.Millisecond: 1, time.Second: 2, -time.Second: 2} {
		r := new(rich)
		table := New(Config{Granter: r, Clock: time.Now})
		levels := []Level{{Policy: new(Policy), Cost: 1}}
		table.Take(t.Context(), Scope{1}, "", levels)
		table.baseWall -= int64(slept) // as if the wall clock had gone on by that
		for range 3 {
			if !table.Take(t.Context(), Scope{1}, "", levels).OK {
				t.Fatal("refused")
			}
		}
		if r.asked != want {
			t.Errorf("%d asks after a sleep of %v, want %d", r.asked, slept, want)
		}
	}
}

// A size is kept in 16 bits, rounded down by less than a thousandth.
func TestSize(t *testing.T) {
	t.Parallel()
	for n := int64(0); n <= MaxCost; n = n*5/4 + 1 {
		got := sizeOf(n).amount()
		if got > n || n-got > n/1000 {
			t.Errorf("%d is kept as %d", n, got)
		}
		if next := (sizeOf(n) + 1).amount(); next <= n && sizeOf(n).amount() != n {
			t.Errorf("the size after that of %d is %d", n, next)
		}
	}
}

// What was taken of one lease does not become a token of the next.
func TestUndoCreditsNoOtherLease(t *testing.T) {
	t.Parallel()
	c, p := new(cell), &Policy{}
	c.policy.Store(p)
	c.lend(10, 0, 10, 100)
	h, ok := c.take(&Level{Policy: p, Cost: 4}, 0, 0, 1)
	if !ok || h.left != 6 {
		t.Fatalf("%+v %v", h, ok)
	}
	c.lend(3, 0, 3, 200)
	h.undo()
	if n := c.leased(1); n != 3 {
		t.Errorf("%d tokens, want 3", n)
	}
	h, _ = c.take(&Level{Policy: p, Cost: 2}, 0, 0, 1)
	h.undo()
	if n := c.leased(1); n != 3 {
		t.Errorf("%d tokens, want 3", n)
	}
	c.deny(1, 0, 300, 7)
	h.undo()
	if w := c.word.Load(); w&amountMask != 7 {
		t.Errorf("an undo changed a denial: %d", w&amountMask)
	}
}
