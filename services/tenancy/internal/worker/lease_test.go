package worker_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/worker"
)

// TestHoldEndsWithItsLease works for longer than a lease while renewals fail, hang or say that another has it.
func TestHoldEndsWithItsLease(t *testing.T) {
	t.Parallel()
	const work = 4 * worker.Lease
	down := errors.New("the database is down")
	for name, test := range map[string]struct {
		keep func(ctx context.Context, after time.Duration) error
		want error
		ends time.Duration
	}{
		"renewed": {func(context.Context, time.Duration) error { return nil }, nil, work},
		"one renewal fails": {func(_ context.Context, after time.Duration) error {
			if after == worker.RenewEvery {
				return down
			}
			return nil
		}, nil, work},
		"one renewal hangs": {func(ctx context.Context, after time.Duration) error {
			if after == worker.RenewEvery {
				<-ctx.Done()
			}
			return ctx.Err()
		}, nil, work},
		"down for most of a lease": {func(_ context.Context, after time.Duration) error {
			if after > 0 && after < worker.Lease-worker.StopIn-worker.RenewEvery {
				return down
			}
			return nil
		}, nil, work},
		"down for good": {func(_ context.Context, after time.Duration) error {
			if after > 10*time.Second {
				return down
			}
			return nil
		}, worker.ErrLost, 10*time.Second + worker.Lease - worker.StopIn},
		"silent": {func(ctx context.Context, after time.Duration) error {
			if after > 0 {
				<-ctx.Done()
			}
			return ctx.Err()
		}, worker.ErrLost, worker.Lease - worker.StopIn},
		"taken by another": {func(_ context.Context, after time.Duration) error {
			if after > 0 {
				return store.ErrFenced
			}
			return nil
		}, store.ErrFenced, worker.RenewEvery},
		"not held from the start": {func(context.Context, time.Duration) error { return store.ErrFenced }, store.ErrFenced, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				err := worker.WhileKept(t.Context(), func(ctx context.Context) error { return test.keep(ctx, time.Since(began)) },
					func(ctx context.Context) error {
						select {
						case <-ctx.Done():
							return ctx.Err()
						case <-time.After(work):
							return nil
						}
					})
				if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) || time.Since(began) != test.ends {
					t.Errorf("after %s: %v, want %v after %s", time.Since(began), err, test.want, test.ends)
				}
			})
		})
	}
}

// TestHeldHomeIsLeftAlone owes a held home more and wants it dropped: nobody takes it before the lease ends. Then a holder that
// slept past it writes nothing.
func TestHeldHomeIsLeftAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx := t.Context()
	b.register("notes", "0001_notes")
	u := b.made(worker.New(b.config), tenant.ModelSchema, "acme")
	claim := func() (store.Home, bool) {
		t.Helper()
		h, ok, err := store.ClaimHome(ctx, b.pool, time.Hour, []string{})
		b.must(err)
		return h, ok
	}
	b.register("notes", "0001_notes_b")
	asleep, ok := claim()
	if !ok || asleep.UID != u {
		t.Fatalf("claimed %v %v", asleep, ok)
	}
	b.register("notes", "0002_more")
	b.must(store.DropHomes(ctx, b.pool, u))
	if h, ok := claim(); ok {
		t.Fatalf("a held home was taken: %+v", h)
	}
	_, err := b.super.Exec(ctx, `UPDATE registry.home SET lease_until = now() - interval '1 s'`)
	b.must(err)
	holder, ok := claim()
	if !ok || !holder.Gone {
		t.Fatalf("claimed %+v %v", holder, ok)
	}
	row := func() (all string) {
		b.must(b.super.QueryRow(ctx, `SELECT h::text FROM registry.home h`).Scan(&all))
		return all
	}
	before := row()
	asleep.Version = "0009_none"
	for what, write := range map[string]func() error{
		"keep":     func() error { return store.KeepHome(ctx, b.pool, asleep, time.Hour) },
		"wanted":   func() error { return store.HomeWanted(ctx, b.pool, asleep) },
		"migrated": func() error { return store.HomeMigrated(ctx, b.pool, asleep) },
		"done":     func() error { return store.HomeDone(ctx, b.pool, asleep) },
		"failed":   func() error { return store.HomeFailed(ctx, b.pool, asleep, []byte{}, 0) },
		"dropped":  func() error { return store.HomeDropped(ctx, b.pool, asleep) },
	} {
		if err := write(); !errors.Is(err, store.ErrFenced) || row() != before {
			t.Errorf("%s by a holder that slept: %v\n%s, was\n%s", what, err, row(), before)
		}
	}
	b.must(store.HomeDropped(ctx, b.pool, holder))
	if h, _, _ := b.home(u); !h.UID.IsZero() {
		t.Errorf("the holder's own drop left %+v", h)
	}
}

// TestSleepingCreationTakesNoHomes has two workers at one creation, of which the first lost it.
func TestSleepingCreationTakesNoHomes(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx := t.Context()
	u, id := b.createAs(tenant.ModelDatabase, "acme")
	asleep, _, err := store.ClaimOperationByID(ctx, b.pool, id, 0)
	b.must(err)
	mine, err := store.TakeHomes(ctx, b.pool, asleep, u)
	b.must(err)
	awake, ok, err := store.ClaimOperationByID(ctx, b.pool, id, time.Hour)
	b.must(err)
	homes, err := store.TakeHomes(ctx, b.pool, awake, u)
	b.must(err)
	if !ok || len(mine) != 1 || len(homes) != 1 || homes[0].Fence <= mine[0].Fence {
		t.Fatalf("taken %v, then %v", mine, homes)
	}
	again, err := store.TakeHomes(ctx, b.pool, asleep, u)
	if err != nil || len(again) != 0 {
		t.Errorf("one that lost the operation takes %v, %v", again, err)
	}
	if err := store.HomeFailed(ctx, b.pool, mine[0], []byte{}, time.Hour); !errors.Is(err, store.ErrFenced) {
		t.Errorf("and writes: %v", err)
	}
	b.must(store.HomeMigrated(ctx, b.pool, homes[0]))
	b.must(store.HomeDone(ctx, b.pool, homes[0]))
	if err := store.HomeFailed(ctx, b.pool, homes[0], []byte{}, time.Hour); !errors.Is(err, store.ErrFenced) {
		t.Errorf("what is done fails: %v", err)
	}
}

// TestHomeIsOwedItsKeys brings a database along while it cannot be given a key.
func TestHomeIsOwedItsKeys(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.register("notes", "0001_notes")
	w := worker.New(b.config)
	b.must(w.TurnKeys(t.Context()))
	u := b.made(w, tenant.ModelDatabase, "acme")
	if h, owed, why := b.home(u); owed || why != "" || !h.Ready {
		t.Fatalf("home %+v, owed %v: %s", h, owed, why)
	}
	b.now = b.now.Add(25 * time.Hour)
	b.must(w.TurnKeys(t.Context()))
	b.cells.set(u)
	b.register("notes", "0002_more")
	b.run()
	b.eventually("the failure is told", func() bool { _, _, why := b.home(u); return why != "" })
	if h, owed, _ := b.home(u); !owed || h.Version != "0002_more" {
		t.Errorf("without its key the home is %+v, owed %v", h, owed)
	}
	b.cells.set(tenant.UID{})
	b.eventually("it is told no more", func() bool { _, owed, why := b.home(u); return !owed && why == "" })
}

// set has one tenant's database be down.
func (f *fakeCells) set(away tenant.UID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.away = away
}

// stuckHomes never end making a home.
type stuckHomes struct {
	*fakeHomes
	begun chan struct{}
}

func (s stuckHomes) Make(ctx context.Context, _ store.Home, _ func(context.Context) error) error {
	close(s.begun)
	<-ctx.Done()
	return ctx.Err()
}

// TestCancellationEndsARunningStep cancels a creation whose first step would go on for minutes.
func TestCancellationEndsARunningStep(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	begun := make(chan struct{})
	b.config.Homes = stuckHomes{b.homes, begun}
	w := worker.New(b.config)
	u, o := b.createAs(tenant.ModelSchema, "acme")
	ended := make(chan error, 1)
	go func() { ended <- w.Inline(t.Context(), o) }()
	<-begun
	_, err := store.CancelOperation(t.Context(), b.pool, o, worker.VerbCreate)
	b.must(err)
	b.must(<-ended)
	if b.state(u) != registry.StateFailed || !b.operation(o).Done() {
		t.Errorf("the tenant is %s, the operation %v", b.state(u), b.operation(o).Meta)
	}
	if _, owed, why := b.home(u); !owed || why != "" {
		t.Errorf("the home is owed %v: %q", owed, why)
	}
}

// limitedHomes note until when each may be made.
type limitedHomes struct {
	*fakeHomes
	until map[string]time.Time
}

func (l limitedHomes) Make(ctx context.Context, h store.Home, wanted func(context.Context) error) error {
	l.until[h.App], _ = ctx.Deadline()
	return l.fakeHomes.Make(ctx, h, wanted)
}

// TestEachHomeHasItsLimit makes a tenant's homes in two apps.
func TestEachHomeHasItsLimit(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.lateApp()
	b.register("notes", "0001_notes")
	b.register("late", "0001_late")
	homes := limitedHomes{b.homes, map[string]time.Time{}}
	b.config.Homes = homes
	b.made(worker.New(b.config), tenant.ModelSchema, "acme")
	if late, notes := homes.until["late"], homes.until["notes"]; late.IsZero() || !late.Before(notes) {
		t.Errorf("late has time until %s, notes, which comes next, until %s", late, notes)
	}
}
