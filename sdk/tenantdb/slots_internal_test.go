package tenantdb

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// queue notes in which order tenants, named by a letter, get slots.
type queue struct {
	s     *slots
	mu    sync.Mutex
	order strings.Builder
}

func uidOf(who rune) tenant.UID { return tenant.UID{byte(who)} }

// come makes calls of the named tenants one after the other; those that wait stay.
func (q *queue) come(t *testing.T, who string) {
	for _, one := range who {
		go func() {
			if err := q.s.take(t.Context(), uidOf(one)); err != nil {
				t.Error(err)
			}
			q.mu.Lock()
			defer q.mu.Unlock()
			q.order.WriteRune(one)
		}()
		synctest.Wait()
	}
}

// leave gives slots of the named tenants back, one after the other.
func (q *queue) leave(who string) {
	for _, one := range who {
		q.s.give(uidOf(one))
		synctest.Wait()
	}
}

// Each case is of a pool of four, of which a tenant may have two.
func TestSlotsAreShared(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ come, leave, want string }{
		"a tenant gets half":                         {come: "aaaab", want: "aab"},
		"who waits for its own stands in no way":     {come: "aaaaaabb", want: "aabb"},
		"the tenant that holds fewest is next":       {come: "aabbabcc", leave: "abab", want: "aabbcabc"},
		"of equals the one that waits longest":       {come: "aabbdc", leave: "ab", want: "aabbdc"},
		"a share that became free goes to its owner": {come: "aaaab", leave: "aa", want: "aabaa"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				q := &queue{s: newSlots(4)}
				q.come(t, test.come)
				q.leave(test.leave)
				if got := q.order.String(); got != test.want {
					t.Errorf("slots went to %q, want %q", got, test.want)
				}
				q.drain()
			})
		})
	}
}

// drain ends all that hold, so that no call of the test is left waiting.
func (q *queue) drain() {
	for synctest.Wait(); ; synctest.Wait() {
		q.s.mu.Lock()
		var holder *tenant.UID
		for uid, c := range q.s.claims {
			if c.held > 0 {
				holder = &uid
			}
		}
		q.s.mu.Unlock()
		if holder == nil {
			return
		}
		q.s.give(*holder)
	}
}

func TestWaitForASlotEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(1)
		a, b := uidOf('a'), uidOf('b')
		if err := s.take(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := s.take(t.Context(), b); !errors.Is(err, ErrAdmission) || time.Since(began) != admissionWait {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.take(ctx, b); !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want the end of the context", err)
		}
		s.give(a)
		if err := s.take(t.Context(), b); err != nil {
			t.Errorf("those who left are in the way: %v", err)
		}
		s.give(b)
		if len(s.claims) != 0 || len(s.waiting) != 0 || s.free != 1 {
			t.Errorf("left behind: %+v", s)
		}
	})
}

// Calls that come, wait, give up and end at random lose no slot and never exceed a share.
func TestSlotsAddUp(t *testing.T) {
	t.Parallel()
	const n = 5
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(n)
		var wg sync.WaitGroup
		for i := range 300 {
			random := rand.New(rand.NewPCG(1, uint64(i))) // the same at each run
			wg.Go(func() {
				uid := uidOf('a' + rune(i%7))
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.IntN(3000))*time.Millisecond)
				defer cancel()
				<-time.After(time.Duration(random.IntN(1000)) * time.Millisecond) // of synctest's time
				if s.take(ctx, uid) != nil {
					return
				}
				s.mu.Lock()
				if held := s.claims[uid].held; held > s.share || s.free < 0 {
					t.Errorf("a tenant holds %d of %d, %d are free", held, n, s.free)
				}
				s.mu.Unlock()
				<-time.After(time.Duration(random.IntN(100)) * time.Millisecond)
				s.give(uid)
			})
		}
		wg.Wait()
		if len(s.claims) != 0 || len(s.waiting) != 0 || s.free != n {
			t.Errorf("left behind: %+v", s)
		}
	})
}
