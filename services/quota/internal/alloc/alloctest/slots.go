package alloctest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/alloc"
)

// hold is a hold of one cell that has ten slots.
func hold(scope lease.Scope, id byte, holder string, slots int64) alloc.Hold {
	const most = 10
	return alloc.Hold{
		Scope: scope, ID: lease.HoldID{id, 0xff, 0x00, '\n'}, Holder: holder, TTL: 10 * time.Second, Patience: time.Second,
		Cells: []alloc.SlotCell{{Key: key(1), Slots: slots, Most: most}},
	}
}

// slotsAsTheModel plays random holds to the driver and to the model, and adds up.
func slotsAsTheModel(t *testing.T, open Open) {
	clock := NewClock()
	driver, model := open(t, clock.Now), NewModel(clock.Now)
	s := newScript(t, 99)
	for step := range 250 {
		clock.Add(time.Duration(s.Int64N(int64(1500 * time.Millisecond))))
		h := hold(s.scopes[s.IntN(2)], "abcdef"[s.IntN(6)], []string{"h a", "h b"}[s.IntN(2)*s.IntN(2)], 1+s.Int64N(4))
		if s.IntN(3) == 0 {
			h.Cells = append(h.Cells, alloc.SlotCell{Key: key(2), Slots: 1 + s.Int64N(3), Most: 6, Optional: s.IntN(3) == 0})
		}
		where := fmt.Sprint("step ", step)
		switch s.IntN(4) {
		case 0:
			same(t, where+" renew", h, driver.Renew, model.Renew)
		case 1:
			same(t, where+" release", h, driver.Release, model.Release)
		default:
			same(t, where+" acquire", h, driver.Acquire, model.Acquire)
		}
		refs := []alloc.Ref{{Scope: h.Scope, Key: key(1)}, {Scope: h.Scope, Key: key(2)}}
		want, err := model.Held(t.Context(), refs)
		need(t, err)
		got, err := driver.Held(t.Context(), refs)
		need(t, err)
		if diff := cmp.Diff(want, got); diff != "" || got[0] > 10 || got[1] > 6 {
			t.Fatalf("%s: held %v, the model has %v", where, got, want)
		}
	}
}

// lastSlots has many ask for slots at once and give them back: there are never more than
// there are, and in the end none.
func lastSlots(t *testing.T, open Open) {
	scope := fresh()
	drivers := []alloc.Driver{open(t, nil), open(t, nil)}
	var mu sync.Mutex
	held, granted := int64(0), 0
	var askers sync.WaitGroup
	for i := range 12 {
		askers.Go(func() {
			for n := range 8 {
				h := hold(scope, "abcdefghijkl"[i], fmt.Sprint("h", i), int64(1+n%3))
				h.Cells[0].Most = 5
				got, err := drivers[i%2].Acquire(t.Context(), h)
				if err != nil {
					t.Error(err)
					return
				}
				if !got.OK {
					continue
				}
				mu.Lock() // what is counted here is held by all means
				granted++
				if held += h.Cells[0].Slots; held > 5 || got.Cells[0].Held > 5 {
					t.Errorf("%d of 5 slots are held, %d by the store's count", held, got.Cells[0].Held)
				}
				held -= h.Cells[0].Slots
				mu.Unlock()
				if ok, err := drivers[i%2].Release(t.Context(), h); !ok || err != nil {
					t.Errorf("release: %v %v", ok, err)
				}
			}
		})
	}
	askers.Wait()
	left, err := drivers[0].Held(t.Context(), []alloc.Ref{{Scope: scope, Key: key(1)}})
	need(t, err)
	if left[0] != 0 || granted == 0 {
		t.Errorf("%d slots are left of %d holds", left[0], granted)
	}
}

// oneHoldOneHolder: nobody renews or releases what another has, of another scope or that
// has ended; releasing twice changes nothing.
func oneHoldOneHolder(t *testing.T, open Open) {
	clock := NewClock()
	driver := open(t, clock.Now)
	scope, other := fresh(), fresh()
	mine := hold(scope, 7, "mine", 4)
	renew := func(what string, h alloc.Hold, want bool) {
		t.Helper()
		if got, err := driver.Renew(t.Context(), h); err != nil || got != want {
			t.Errorf("renew %s: %v %v, want %v", what, got, err, want)
		}
	}
	release := func(what string, h alloc.Hold, want bool) {
		t.Helper()
		if got, err := driver.Release(t.Context(), h); err != nil || got != want {
			t.Errorf("release %s: %v %v, want %v", what, got, err, want)
		}
	}
	for range 2 { // the second is the same hold
		if got, err := driver.Acquire(t.Context(), mine); err != nil || !got.OK || got.Cells[0].Held != 4 {
			t.Fatalf("%+v %v", got, err)
		}
	}
	theirs := hold(scope, 7, "theirs", 1)
	if got, err := driver.Acquire(t.Context(), theirs); err != nil || got.OK || !got.Taken {
		t.Errorf("another holder with the same id: %+v %v", got, err)
	}
	renew("another's", theirs, false)
	release("another's", theirs, false)
	release("in another scope", hold(other, 7, "mine", 4), false)
	renew("in another scope", hold(other, 7, "mine", 4), false)
	wrong := mine
	wrong.Cells = []alloc.SlotCell{{Key: key(2), Slots: 4, Most: 10}}
	release("another cell", wrong, false)
	clock.Add(6 * time.Second)
	renew("it", mine, true)
	clock.Add(6 * time.Second)
	renew("it once more", mine, true)
	clock.Add(10 * time.Second)
	renew("what has ended", mine, false)
	release("what has ended", mine, false)
	next := hold(scope, 8, "theirs", 10)
	if got, err := driver.Acquire(t.Context(), next); err != nil || !got.OK {
		t.Errorf("what has ended is free: %+v %v", got, err)
	}
	release("it", next, true)
	release("it twice", next, false)
}
