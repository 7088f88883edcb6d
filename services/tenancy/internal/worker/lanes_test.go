package worker_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/worker"
)

// silentCells does not answer what is asked of one cell, as a black hole does not.
type silentCells struct {
	*fakeCells
	silent func(cell string, uid tenant.UID) bool
}

func (s silentCells) Place(ctx context.Context, d store.Debt) error {
	if s.silent(d.Cell, d.UID) {
		<-ctx.Done()
		return ctx.Err()
	}
	return s.fakeCells.Place(ctx, d)
}

func (s silentCells) Install(ctx context.Context, i store.Install, key tenant.SealKey) error {
	if s.silent(i.Key.Cell, i.Tenant) {
		<-ctx.Done()
		return ctx.Err()
	}
	return s.fakeCells.Install(ctx, i, key)
}

// run runs a worker until the test ends.
func (b *bench) run() *worker.Worker {
	b.t.Helper()
	w := worker.New(b.config)
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	b.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
	})
	return w
}

// eventually asks until it is true, on a busy machine for long.
func (b *bench) eventually(what string, is func() bool) {
	b.t.Helper()
	b.within(30*time.Second, what, is)
}

// within asks until it is true or the time is over.
func (b *bench) within(limit time.Duration, what string, is func() bool) {
	b.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(limit)
	for !is() {
		select {
		case <-tick.C:
		case <-deadline:
			b.t.Fatalf("never came: %s", what)
		}
	}
}

// secondCell makes cell-2, where the app is, too.
func (b *bench) secondCell() {
	b.t.Helper()
	ctx := b.t.Context()
	shared := []tenancyv1.IsolationModel{tenancyv1.IsolationModel_ISOLATION_MODEL_SHARED}
	b.must(store.InsertCell(ctx, b.pool, "cell-2", &tenancyv1.Cell{
		Uid: uid(b.t).String(), Region: "local", CredentialsRef: "x", Models: shared, Capacity: 1000, State: 1, CreateTime: timestamppb.Now(),
	}))
	_, err := b.super.Exec(ctx, `INSERT INTO registry.app_upstream VALUES ('notes', 'cell-2', 1, 'h:1', '', 'spiffe://x')`)
	b.must(err)
}

// createIn is create in a cell.
func (b *bench) createIn(cell, id string) tenant.UID {
	b.t.Helper()
	ctx := b.t.Context()
	u := b.place(cell, id, registry.StateCreating)
	b.must(store.InsertOperation(ctx, b.pool, store.Operation{
		ID: uuid.Must(uuid.NewV7()).String(), Target: "tenants/" + id, Verb: worker.VerbCreate, Input: []byte(u.String()),
		Meta: &apiv1.OperationMetadata{Phase: apiv1.OperationPhase_OPERATION_PHASE_RUNNING, Steps: worker.Steps(worker.VerbCreate, tenant.ModelShared)},
	}, "", 0))
	return u
}

// place stores a tenant, which its cell is owed.
func (b *bench) place(cell, id string, state registry.State) tenant.UID {
	b.t.Helper()
	parsed, err := tenant.ParseID(id)
	b.must(err)
	u := uid(b.t)
	b.must(store.InsertTenant(b.t.Context(), b.pool, registry.Tenant{
		UID: u, ID: parsed, Plan: "free", State: state, Generation: 1, CreateTime: b.now,
		Placement: registry.Placement{Model: tenant.ModelShared, Cell: cell, Generation: 1},
	}))
	return u
}

// TestSilentCellHoldsUpNoOther gives a cell that does not answer more of everything than it may have at a time.
func TestSilentCellHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.secondCell()
	for _, id := range []string{"silent-a", "silent-b", "silent-c", "silent-d", "silent-e", "silent-f"} {
		b.createIn("cell-2", id)
	}
	for _, id := range []string{"owed-a", "owed-b"} {
		b.place("cell-2", id, registry.StateActive)
	}
	made, owed := b.createIn("cell-1", "healthy"), b.place("cell-1", "told", registry.StateActive)
	b.config.Cells = silentCells{b.cells, func(cell string, _ tenant.UID) bool { return cell == "cell-2" }}
	w := b.run()
	b.eventually("the tenant of the other cell is active", func() bool { return b.state(made) == registry.StateActive })
	b.eventually("what the other cell is owed is paid", func() bool { return b.cells.knows(owed).Revision == 1 })
	b.eventually("the other cell's key is in use", func() bool {
		w.KickKeys()
		kid, err := store.CurrentSealKID(t.Context(), b.pool, "cell-1")
		b.must(err)
		return kid == 1
	})
}

// TestDebtsHoldUpNoOperation lets a debt hang in the cell of a tenant that is made.
func TestDebtsHoldUpNoOperation(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	owed := b.place("cell-1", "owed", registry.StateActive)
	reached := make(chan struct{}, 100)
	b.config.Cells = silentCells{b.cells, func(_ string, u tenant.UID) bool {
		if u == owed {
			reached <- struct{}{}
		}
		return u == owed
	}}
	w := b.run()
	<-reached
	made := b.createIn("cell-1", "acme")
	w.Kick()
	b.eventually("the tenant is active", func() bool { return b.state(made) == registry.StateActive })
}

// TestDeadDatabasesHoldUpNoLiveOnes owes something to databases of which some do not answer, and many did not before.
func TestDeadDatabasesHoldUpNoLiveOnes(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	dead := map[tenant.UID]bool{}
	for i := range 3 {
		dead[b.place("cell-1", fmt.Sprintf("dead-%d", i), registry.StateActive)] = true
	}
	for i := range 20 {
		u := b.place("cell-1", fmt.Sprintf("long-dead-%d", i), registry.StateActive)
		dead[u] = true
		b.must(store.Unpaid(t.Context(), b.pool, store.Debt{UID: u, App: "notes", Revision: 1}, 0))
		b.must(store.OweTenant(t.Context(), b.pool, u)) // what is new does not make it live
	}
	var live []tenant.UID
	for i := range 61 {
		live = append(live, b.place("cell-1", fmt.Sprintf("live-%d", i), registry.StateActive))
	}
	b.config.Cells = silentCells{b.cells, func(_ string, u tenant.UID) bool { return dead[u] }}
	b.run()
	b.within(time.Minute, "the live ones are told", func() bool {
		for _, u := range live {
			if b.cells.knows(u).Revision == 0 {
				return false
			}
		}
		return true
	})
}

// TestBusyCellIsNotDead owes something to a cell in which nothing more may be done at the time: it is tried again soon, and
// does not count as failed.
func TestBusyCellIsNotDead(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	u := b.place("cell-1", "acme", registry.StateActive)
	busy := true // guarded by the fake's lock
	b.cells.before = func(store.Debt) error {
		if busy {
			busy = false
			return worker.ErrBusy
		}
		var attempt int
		if err := b.super.QueryRow(t.Context(), `SELECT attempt FROM registry.placement_app`).Scan(&attempt); err != nil || attempt != 0 {
			t.Errorf("a wait counts as %d failures: %v", attempt, err)
		}
		return nil
	}
	w := b.run()
	b.within(worker.Lease-worker.StopIn, "it is told", func() bool { w.Kick(); return b.cells.knows(u).Revision == 1 })
}

// TestDeadDatabasesAreAskedForKeysLessAndLess counts what a database that is down is asked.
func TestDeadDatabasesAreAskedForKeysLessAndLess(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx, w := t.Context(), worker.New(b.config)
	b.cells.broken = true
	asked := func() int {
		before := b.cells.asked
		b.must(w.Upkeep(ctx))
		return b.cells.asked - before
	}
	for attempt := range 4 {
		if n := asked(); n != 1 {
			t.Fatalf("try %d asks %d times", attempt, n)
		}
		b.now = b.now.Add(worker.BackOff(attempt) - time.Millisecond)
		if n := asked(); n != 0 {
			t.Fatalf("before its time it is asked %d times after try %d", n, attempt)
		}
		b.now = b.now.Add(time.Millisecond)
	}
	b.cells.broken = false
	if n := asked(); n != 1 {
		t.Errorf("it is asked %d times", n)
	}
}

// TestKeysAreUsedBesideHangingInstallations has a database hang while another's patience has ended.
func TestKeysAreUsedBesideHangingInstallations(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx, w := t.Context(), worker.New(b.config)
	b.register("notes", "0001_notes")
	b.must(w.Upkeep(ctx))
	dead := b.made(w, tenant.ModelDatabase, "acme")
	b.now = b.now.Add(25 * time.Hour)
	b.must(w.TurnKeys(ctx))
	b.now = b.now.Add(12*time.Hour + time.Minute)
	b.config.Cells = silentCells{b.cells, func(_ string, u tenant.UID) bool { return u == dead }}
	b.run()
	b.eventually("the key is in use", func() bool {
		kid, err := store.CurrentSealKID(ctx, b.pool, "cell-1")
		b.must(err)
		return kid == 2
	})
}

// TestInstallAppAsksItsOwnCellsAtOnce installs the keys of an app of which one cell is silent, and of an app in another.
func TestInstallAppAsksItsOwnCellsAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.secondCell()
	b.must(store.InsertApp(t.Context(), b.pool, "tasks", &tenancyv1.App{
		Uid: uid(t).String(), CreateTime: timestamppb.Now(),
		Upstreams: []*tenancyv1.AppUpstream{{Cell: "cells/cell-2", GrpcAddress: "h:2", SpiffeId: "spiffe://y"}},
	}))
	b.config.Cells = silentCells{b.cells, func(cell string, _ tenant.UID) bool { return cell == "cell-1" }}
	w := worker.New(b.config)
	b.must(w.TurnKeys(t.Context()))
	w.InstallApp(t.Context(), "tasks") // would hang if it asked cell-1
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.InstallApp(ctx, "notes")
	}()
	b.eventually("the cell that answers has the key", func() bool {
		b.cells.mu.Lock()
		defer b.cells.mu.Unlock()
		return len(b.cells.installed) == 2
	})
	cancel()
	<-done
}
