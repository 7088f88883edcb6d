package fair_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/fair"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

func uid(n byte) tenant.UID { return tenant.UID{n} }

func queue(t *testing.T, c fair.Config) *fair.Queue {
	t.Helper()
	q, err := fair.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func enter(t *testing.T, q *fair.Queue, n byte) *fair.Place {
	t.Helper()
	p, err := q.Enter(t.Context(), fair.Call{Tenant: uid(n), Weight: fair.DefaultWeight})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// shed says that err is the refusal, with a time to come back after.
func shed(t *testing.T, what string, err error) {
	t.Helper()
	f, ok := fault.As(err)
	if !ok || f.Kind != fault.Unavailable || f.Reason != fault.ReasonCapacityReduced || f.RetryAfter < time.Second {
		t.Errorf("%s: %v", what, err)
	}
}

// waiters begin calls that wait, and say how each ended.
func waiters(ctx context.Context, q *fair.Queue, n byte, calls int) (ends <-chan error) {
	all := make(chan error, calls)
	for range calls {
		go func() {
			p, err := q.Enter(ctx, fair.Call{Tenant: uid(n), Weight: fair.DefaultWeight})
			if err == nil {
				p.Done()
			}
			all <- err
		}()
	}
	synctest.Wait()
	return all
}

// One tenant's queue is bounded, and what is refused costs the others nothing.
func TestQueueIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := queue(t, fair.Config{Width: 2, Queue: 3})
		first, second := enter(t, q, 1), enter(t, q, 1)
		ends := waiters(t.Context(), q, 1, 3)
		_, err := q.Enter(t.Context(), fair.Call{Tenant: uid(1), Weight: 1})
		shed(t, "one more than its queue", err)
		other := waiters(t.Context(), q, 2, 1)
		if st := q.Stats(); st.Held != 2 || st.Waiting != 4 || st.Full != 1 || st.Tenants != 2 || st.Width != 2 {
			t.Errorf("%+v", st)
		}
		first.Done()
		second.Done()
		for range 3 {
			if err := <-ends; err != nil {
				t.Error(err)
			}
		}
		if err := <-other; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if st := q.Stats(); st.Held != 0 || st.Waiting != 0 || st.Tenants != 0 {
			t.Errorf("an idle queue: %+v", st)
		}
	})
}

// Over the wait budget the longest queue loses a call: not the one that waited when its tenant is within its share.
func TestTheLongestQueueLosesACall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := queue(t, fair.Config{Width: 2, Wait: time.Second})
		held := []*fair.Place{enter(t, q, 1), enter(t, q, 1)}
		<-time.After(500 * time.Millisecond)
		quiet := waiters(t.Context(), q, 2, 1)
		<-time.After(100 * time.Millisecond)
		loud := waiters(t.Context(), q, 1, 5)
		<-time.After(950 * time.Millisecond) // the quiet one's budget is over, those of the loud ones are not
		synctest.Wait()
		if st := q.Stats(); st.Shed != 1 || st.Waiting != 5 {
			t.Errorf("%+v", st)
		}
		shed(t, "of the longest queue", <-loud)
		<-time.After(100 * time.Millisecond) // theirs is over too
		synctest.Wait()
		if st := q.Stats(); st.Shed != 5 || st.Waiting != 1 {
			t.Errorf("%+v", st)
		}
		<-time.After(time.Minute) // nobody else has more than a share: the quiet one waits on
		select {
		case err := <-quiet:
			t.Errorf("the quiet tenant: %v", err)
		default:
		}
		held[0].Done()
		if err := <-quiet; err != nil {
			t.Error(err)
		}
		held[1].Done()
		for range 4 {
			shed(t, "of the longest queue", <-loud)
		}
	})
}

// Who goes away leaves the queue, and a place that came too late goes to the next.
func TestCallersGoAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := queue(t, fair.Config{Width: 1})
		held := enter(t, q, 1)
		ctx, cancel := context.WithCancel(t.Context())
		gone, stays := waiters(ctx, q, 2, 2), waiters(t.Context(), q, 3, 1)
		cancel()
		for range 2 {
			if err := <-gone; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		if _, err := q.Enter(ctx, fair.Call{Tenant: uid(2)}); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		held.Drop()
		held.Done()
		if err := <-stays; err != nil {
			t.Error(err)
		}
	})
}

// A call that takes too long goes on without its place, so that long polls leave places to others.
func TestLongCallsLoseTheirPlaces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := queue(t, fair.Config{Width: 2, Hold: time.Second, Wait: 10 * time.Second})
		polls := []*fair.Place{enter(t, q, 1), enter(t, q, 1)}
		began := time.Now()
		next := enter(t, q, 2)
		synctest.Wait() // both have lost theirs
		if waited := time.Since(began); waited != time.Second {
			t.Errorf("waited %s", waited)
		}
		if use := next.Done(); use.Held != 0 || use.Delayed != 0 {
			t.Errorf("%+v", use)
		}
		for _, p := range polls { // each of them is to blame for half of the second
			if use := p.Done(); use.Held != time.Second || use.Delayed != time.Second/2 {
				t.Errorf("%+v", use)
			}
		}
		if st := q.Stats(); st.Lapsed != 2 || st.Held != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// What others waited is told of those who had places meanwhile, and not what a tenant waited for itself.
func TestDelayIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := queue(t, fair.Config{Width: 1, Wait: time.Minute})
		held := enter(t, q, 1)
		own, others := waiters(t.Context(), q, 1, 3), waiters(t.Context(), q, 2, 2)
		<-time.After(3 * time.Second)
		if use := held.Done(); use.Delayed != 6*time.Second {
			t.Errorf("%+v", use)
		}
		for range 3 {
			if err := <-own; err != nil {
				t.Error(err)
			}
		}
		for range 2 {
			if err := <-others; err != nil {
				t.Error(err)
			}
		}
	})
}

// A tenant that is alone has all places; one that others come beside leaves them the spare ones.
func TestSparePlaces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := queue(t, fair.Config{Width: 16})
		var held []*fair.Place
		for range 16 {
			held = append(held, enter(t, q, 1))
		}
		for _, p := range held {
			p.Done()
		}
		enter(t, q, 2).Done()
		ctx, cancel := context.WithCancel(t.Context())
		waiters(ctx, q, 1, 1)
		for range 14 {
			held = append(held, enter(t, q, 1))
		}
		waiting := waiters(ctx, q, 1, 4)
		if st := q.Stats(); st.Held != 14 || st.Waiting != 4 {
			t.Errorf("beside another: %+v", st)
		}
		enter(t, q, 2).Done()
		if st := q.Stats(); st.Held != 14 || st.Waiting != 4 {
			t.Errorf("the other had its place: %+v", st)
		}
		<-time.After(2 * alone)
		_ = waiting
		cancel()
		for _, p := range held {
			p.Done()
		}
	})
}

const alone = time.Second

// Latency that grows with the number of calls narrows the width, down to the least.
func TestWidthFollowsLatency(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := queue(t, fair.Config{Width: 200, Least: 4, Queue: 1000, Room: 1000, Wait: time.Hour})
		if st := q.Stats(); st.Width != 50 {
			t.Fatalf("it begins with %d", st.Width)
		}
		// The resource does eight calls at a time: with more of them each takes longer.
		run := func(clients int, length time.Duration) {
			end := time.Now().Add(length)
			var all sync.WaitGroup
			for range clients {
				all.Go(func() {
					for time.Now().Before(end) {
						p := enter(t, q, 1)
						<-time.After(10 * time.Millisecond * time.Duration(max(q.Stats().Held, 8)) / 8)
						p.Done()
					}
				})
			}
			all.Wait()
		}
		run(8, 30*time.Second)
		if st := q.Stats(); st.Width < 8 {
			t.Errorf("with what it can do the width is %d", st.Width)
		}
		run(150, 120*time.Second)
		if st := q.Stats(); st.Width < 4 || st.Width > 45 {
			t.Errorf("with too many the width is %d", st.Width)
		}
	})
}

func TestBadConfigurations(t *testing.T) {
	t.Parallel()
	for _, c := range []fair.Config{
		{Width: -1}, {Queue: -1}, {Room: -1}, {Least: -1}, {Width: 4, Least: 5}, {Wait: -1}, {Hold: -1},
	} {
		if _, err := fair.New(c); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
}
