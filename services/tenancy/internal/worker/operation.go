package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/wire"
)

// VerbCreate is the verb of the operation that makes a tenant's home ready; every other verb is a change of a tenant
// that is served.
const VerbCreate = "create"

// The steps.
const (
	stepHomes     = "homes"
	stepMigrate   = "migrations"
	stepKeys      = "keys"
	stepCells     = "cells"
	stepActivate  = "activate"
	stepConsumers = "consumers"
	stepUndo      = "undo"
)

const service = "tenancy"

// Steps returns the steps of a verb on a tenant of the model, none begun.
func Steps(verb string, model tenant.Model) []*apiv1.OperationStep {
	names := []string{stepCells, stepConsumers}
	switch {
	case verb == VerbCreate && model == tenant.ModelSchema:
		names = []string{stepHomes, stepMigrate, stepCells, stepActivate}
	case verb == VerbCreate && model == tenant.ModelDatabase:
		names = []string{stepHomes, stepMigrate, stepKeys, stepCells, stepActivate}
	case verb == VerbCreate:
		names = []string{stepCells, stepActivate}
	}
	steps := make([]*apiv1.OperationStep, len(names))
	for i, name := range names {
		steps[i] = &apiv1.OperationStep{Name: name}
	}
	return steps
}

// advance works on an operation that this worker holds and puts it down, ended or resting.
func (w *Worker) advance(ctx context.Context, o store.Operation) error {
	defer w.progressed()
	uid, err := tenant.ParseUID(string(o.Input))
	if err != nil {
		return fmt.Errorf("operation %s: %w", o.ID, err)
	}
	held := &holder{w: w, o: o, uid: uid}
	switch {
	case o.Verb == VerbCreate && o.Meta.GetPhase() == apiv1.OperationPhase_OPERATION_PHASE_CANCELLING:
		err = held.undo(ctx)
	case o.Verb == VerbCreate:
		err = held.create(ctx)
	default:
		err = held.spread(ctx)
	}
	if err == nil || held.put || errors.Is(err, store.ErrFenced) {
		return err
	}
	return held.rest(ctx, err)
}

// holder is one worker's hold of one operation.
type holder struct {
	w   *Worker
	o   store.Operation
	uid tenant.UID
	// put says that the operation was put down.
	put bool
}

// create: make the tenant's homes ready where it has homes of its own, tell the cell's databases, then let the tenant be
// served. Whoever takes over after a crash goes on with the step that had not ended.
func (h *holder) create(ctx context.Context) error {
	for _, s := range []struct {
		name string
		do   func(context.Context) error
	}{{stepHomes, h.makeHomes}, {stepMigrate, h.migrateHomes}, {stepKeys, h.giveKeys}} {
		err := h.longStep(ctx, s.name, s.do)
		if errors.Is(err, errCancelled) {
			h.o.Meta.Phase = apiv1.OperationPhase_OPERATION_PHASE_CANCELLING
			return h.undo(ctx)
		}
		if err != nil {
			return err
		}
	}
	if err := h.step(ctx, stepCells, h.payAll); err != nil {
		return err
	}
	return h.step(ctx, stepActivate, func(ctx context.Context) error {
		return h.finishAs(ctx, registry.Activated{}, nil)
	})
}

// undo: take the tenant's place back and free the room it took. Its homes are dropped by and by.
func (h *holder) undo(ctx context.Context) error {
	if h.stepNamed(stepUndo) == nil {
		h.o.Meta.Steps = append(h.o.Meta.Steps, &apiv1.OperationStep{Name: stepUndo})
	}
	return h.step(ctx, stepUndo, func(ctx context.Context) error {
		return h.finishAs(ctx, registry.Failed{}, errCancelled)
	})
}

// spread: tell the cell's databases, then wait for gateways and verifiers.
func (h *holder) spread(ctx context.Context) error {
	if err := h.step(ctx, stepCells, h.payAll); err != nil {
		return err
	}
	return h.step(ctx, stepConsumers, h.await)
}

// step runs one step unless it is done already, and writes down how it went.
func (h *holder) step(ctx context.Context, name string, fn func(context.Context) error) error {
	s := h.stepNamed(name)
	if s == nil {
		return fmt.Errorf("operation %s has no step %q", h.o.ID, name)
	}
	if s.GetState() == apiv1.OperationPhase_OPERATION_PHASE_SUCCEEDED {
		return nil
	}
	now := timestamppb.New(h.w.cfg.Clock())
	if s.StartTime == nil {
		s.StartTime = now
	}
	s.Attempt++
	s.State, s.EndTime = apiv1.OperationPhase_OPERATION_PHASE_SUCCEEDED, now
	err := fn(ctx)
	if err != nil && !h.put {
		s.State, s.EndTime = apiv1.OperationPhase_OPERATION_PHASE_RUNNING, nil
		s.Error = told(err)
		return err
	}
	s.Error = nil
	return err
}

// stepNamed returns a step, or nil when there is none of this name.
func (h *holder) stepNamed(name string) *apiv1.OperationStep {
	for _, s := range h.o.Meta.GetSteps() {
		if s.GetName() == name {
			return s
		}
	}
	return nil
}

// payAll tells every database of the tenant's cell, a few at a time. One that is not made yet holds nobody up: it serves no
// tenant, and is told when it is there. One that was told before is missed.
func (h *holder) payAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lease/2) // a silent cell must not outlast the hold
	defer cancel()
	debts, err := store.Debts(ctx, h.w.cfg.Pool, h.uid)
	if err != nil {
		return err
	}
	failed := make([]error, len(debts))
	var side errgroup.Group
	side.SetLimit(debtsPerCell)
	for i, d := range debts {
		side.Go(func() error {
			failed[i] = h.payOne(ctx, d)
			return nil
		})
	}
	_ = side.Wait() // none returns an error
	return errors.Join(failed...)
}

func (h *holder) payOne(ctx context.Context, d store.Debt) error {
	err := h.w.pay(ctx, d)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrNoDatabase) && d.Told == 0:
		h.w.cfg.Log.WarnContext(ctx, "worker: an app has no database in the tenant's cell yet", "app", d.App, "cell", d.Cell)
		return nil
	case errors.Is(err, ErrNoHome):
		return vanished(d.App, d.Cell, err)
	}
	return fault.New(fault.Unavailable, registry.ReasonCellUnreachable,
		"the database of apps/%s in cells/%s cannot be told", d.App, d.Cell).WithDomain(registry.Domain).WithCause(err)
}

// finishAs lets the event happen and ends the operation in one transaction. why is the operation's error, if it has one.
func (h *holder) finishAs(ctx context.Context, event registry.Event, why error) error {
	job := change.NewJob(ctx, service, "operation."+h.o.Verb)
	_, err := h.w.cfg.Kernel.Change(job, func(ctx context.Context, tx *change.Tx) (proto.Message, error) {
		t, err := store.LockTenant(ctx, tx, store.TenantKey{UID: h.uid})
		if err != nil {
			return nil, err
		}
		next, effects, err := registry.Next(t, event)
		if err != nil {
			return nil, err
		}
		next.UpdateTime, next.Operation = tx.Now(), ""
		tx.Tenant(next.UID.String())
		tx.Audit("tenants/"+next.ID.String(), "state")
		if err := h.apply(ctx, tx, next, effects); err != nil {
			return nil, err
		}
		wire.PublishState(tx, t, next)
		h.done(tx, next, why)
		m := wire.Tenant(next)
		tx.OnRevision(func(ctx context.Context, revision int64) error {
			wire.Stamp(m, revision)
			return h.finish(ctx, tx, m, revision, why)
		})
		return m, nil
	})
	if err == nil {
		h.put = true
		h.w.Kick() // what is owed now is not this operation's
	}
	return err
}

func (h *holder) apply(ctx context.Context, tx *change.Tx, next registry.Tenant, effects registry.Effects) error {
	if err := store.UpdateTenant(ctx, tx, next); err != nil {
		return err
	}
	if effects.WriteCells {
		if err := store.OweTenant(ctx, tx, next.UID); err != nil {
			return err
		}
	}
	if effects.FreeCell {
		if err := errors.Join(store.FreeRoom(ctx, tx, next.Placement.Cell), store.DropHomes(ctx, tx, next.UID)); err != nil {
			return err
		}
	}
	plan, err := store.ReadPlan(ctx, tx, next.Plan)
	if err != nil {
		return err
	}
	return wire.PublishTenant(tx, next, plan.GetLossPolicy())
}

// finish ends the operation; the tenant's row gets the revision in the same breath.
func (h *holder) finish(ctx context.Context, q store.Querier, m *tenancyv1.Tenant, revision int64, why error) error {
	if err := store.StampTenant(ctx, q, h.uid, revision); err != nil {
		return err
	}
	h.o.Meta.Revision = revision
	return h.end(ctx, q, m, why)
}

func (h *holder) end(ctx context.Context, q store.Querier, m *tenancyv1.Tenant, why error) error {
	h.o.Meta.ProgressPercent, h.o.Meta.Cancellable = 100, false
	h.o.Meta.LastError = nil
	if why != nil {
		h.o.Meta.Phase = apiv1.OperationPhase_OPERATION_PHASE_FAILED
		b, err := proto.Marshal(told(why))
		if err != nil {
			return err
		}
		h.o.Error = b
		return store.FinishOperation(ctx, q, h.o)
	}
	h.o.Meta.Phase = apiv1.OperationPhase_OPERATION_PHASE_SUCCEEDED
	packed, err := anypb.New(m)
	if err != nil {
		return err
	}
	if h.o.Output, err = proto.Marshal(packed); err != nil {
		return err
	}
	return store.FinishOperation(ctx, q, h.o)
}

// await ends the operation when every live consumer has applied the tenant's change. Those that fell silent before they
// had, or took longer than AwaitFor, are not waited for, but named.
func (h *holder) await(ctx context.Context) error {
	t, err := store.ReadTenant(ctx, h.w.cfg.Pool, store.TenantKey{UID: h.uid})
	if err != nil {
		return err
	}
	if h.o.Meta.GetRevision() == 0 {
		h.o.Meta.Revision = t.Revision
	}
	consumers, err := store.Consumers(ctx, h.w.cfg.Pool, KnownFor)
	if err != nil {
		return err
	}
	var laggards []string
	waiting := false
	for _, c := range consumers {
		if c.Revision >= h.o.Meta.GetRevision() {
			continue
		}
		waiting = waiting || c.Silent <= LiveFor
		if !slices.Contains(laggards, c.Replica) {
			laggards = append(laggards, c.Replica)
		}
	}
	h.o.Meta.Laggards = laggards[:min(len(laggards), maxLaggards)]
	if s := h.stepNamed(stepConsumers); waiting && h.w.cfg.Clock().Sub(s.GetStartTime().AsTime()) < AwaitFor {
		s.State, s.EndTime = apiv1.OperationPhase_OPERATION_PHASE_RUNNING, nil
		return h.wait(ctx)
	}
	t.Operation = ""
	job := change.NewBookkeeping(ctx, service, "operation."+h.o.Verb)
	_, err = h.w.cfg.Kernel.Change(job, func(ctx context.Context, tx *change.Tx) (proto.Message, error) {
		h.done(tx, t, nil)
		m := wire.Tenant(t)
		return m, h.end(ctx, tx, m, nil)
	})
	if err != nil {
		return err
	}
	h.put = true
	return nil
}

// done tells that the operation has ended, by an error unless why is nil.
func (h *holder) done(tx *change.Tx, t registry.Tenant, why error) {
	wire.PublishEvent(tx, wire.Event{
		Type: wire.OperationDone, Tenant: t, Operation: h.o.ID, Verb: h.o.Verb, Error: fault.ReasonOf(why),
	})
}

// wait puts the operation down for a moment: nothing is wrong.
func (h *holder) wait(ctx context.Context) error {
	h.o.Meta.Phase, h.o.Attempt, h.o.Meta.LastError = apiv1.OperationPhase_OPERATION_PHASE_RUNNING, 0, nil
	h.o.Meta.ProgressPercent = 50
	h.put = true
	return store.ReleaseOperation(ctx, h.w.cfg.Pool, h.o, awaitWait)
}

// rest puts the operation down after an error, longer each time.
func (h *holder) rest(ctx context.Context, cause error) error {
	h.put = true
	wait := backOff(h.o.Attempt)
	h.o.Attempt++
	h.o.Meta.LastError = told(cause)
	if h.o.Meta.GetPhase() != apiv1.OperationPhase_OPERATION_PHASE_CANCELLING {
		h.o.Meta.Phase = apiv1.OperationPhase_OPERATION_PHASE_BACKING_OFF
		if h.o.Attempt >= attention {
			h.o.Meta.Phase = apiv1.OperationPhase_OPERATION_PHASE_NEEDS_ATTENTION
		}
	}
	h.w.cfg.Log.WarnContext(ctx, "worker: an operation will be tried again", "operation", h.o.ID, "target", h.o.Target,
		"attempt", h.o.Attempt, "error", cause)
	// The caller of Inline may be gone; the hold must not outlive it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	return store.ReleaseOperation(ctx, h.w.cfg.Pool, h.o, wait)
}

// told is what callers may know of an error.
func told(err error) *spb.Status {
	if _, ok := fault.As(err); !ok {
		return &spb.Status{Code: int32(codes.Internal), Message: "a step failed; the log has the cause"}
	}
	return tenantgrpc.Status(err).Proto()
}

// Superseded returns the encoded status of an operation that a later one has overtaken.
func Superseded(verb string) ([]byte, error) {
	return proto.Marshal(told(fault.New(fault.Aborted, fault.ReasonConcurrentOp,
		"a later change (%s) of the tenant took over", strings.ToLower(verb))))
}

func cellState(d store.Debt) string { return registry.Tenant{State: d.State}.CellState() }
