package rpc

import (
	"context"
	"time"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/wire"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/worker"
)

// inlineTime is how long a call itself works on what its change owes to cells before workers go on.
const inlineTime = 2 * time.Second

// CreateTenant implements rowhouse.tenancy.v1.TenantService.
func (s *tenants) CreateTenant(ctx context.Context, req *tenancyv1.CreateTenantRequest) (*tenancyv1.CreateTenantResponse, error) {
	verdict := s.askCreate(ctx, req)
	resp, err := change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.CreateTenantResponse, error) {
		if err := verdict.Settle(tx); err != nil {
			return nil, err
		}
		t, err := s.draft(ctx, tx, req)
		if err != nil {
			return nil, err
		}
		return s.create(ctx, tx, t)
	})
	if err != nil || req.GetValidateOnly() {
		return resp, err
	}
	return s.settle(ctx, resp), nil
}

// draft is the tenant that the request asks for, not yet placed.
func (s *tenants) draft(ctx context.Context, tx *change.Tx, req *tenancyv1.CreateTenantRequest) (registry.Tenant, error) {
	id, err := registry.ParseID(req.GetTenantId())
	if err != nil {
		return registry.Tenant{}, err
	}
	m := req.GetTenant()
	planName := m.GetPlan()
	if planName == "" {
		planName = defaultPlan
	}
	plan, err := store.ReadPlan(ctx, tx, idOf(planName))
	if err != nil {
		return registry.Tenant{}, err
	}
	wish := registry.Wish{Model: tenant.Model(m.GetPlacement().GetModel())} //nolint:gosec // defined_only
	if name := m.GetPlacement().GetCell(); name != "" {
		wish.Cell = idOf(name)
	}
	model, err := registry.ModelFor(wish, modelsOf(plan))
	if err != nil {
		return registry.Tenant{}, err
	}
	place, err := s.place(ctx, tx, model, wish)
	if err != nil {
		return registry.Tenant{}, err
	}
	uid, err := s.newUID()
	if err != nil {
		return registry.Tenant{}, err
	}
	t := registry.Tenant{
		UID: uid, ID: id, DisplayName: m.GetDisplayName(), Plan: idOf(planName), State: registry.StateCreating, Generation: 1,
		Placement: place, Labels: m.GetLabels(), ExternalID: m.GetExternalId(), DeleteProtection: m.GetDeleteProtection(),
		Loss: registry.Loss(m.GetLossPolicy()), CreateTime: tx.Now(), UpdateTime: tx.Now(),
	}
	if m.GetParent() == "" {
		return t, nil
	}
	parent, err := store.ShareTenant(ctx, tx, store.TenantKey{ID: idOf(m.GetParent())})
	if err != nil {
		return registry.Tenant{}, err
	}
	return registry.Adopt(t, parent, false)
}

// place takes room in a cell.
func (s *tenants) place(ctx context.Context, tx *change.Tx, model tenant.Model, wish registry.Wish) (registry.Placement, error) {
	all, err := store.AllCells(ctx, tx)
	if err != nil {
		return registry.Placement{}, err
	}
	var cells []registry.Cell
	known := wish.Cell == ""
	for _, c := range all {
		known = known || idOf(c.GetName()) == wish.Cell
		cells = append(cells, cellOf(c))
	}
	if !known {
		return registry.Placement{}, store.NotFound("cells/" + wish.Cell)
	}
	order, err := registry.Place(cells, model, wish, s.pick)
	if err != nil {
		return registry.Placement{}, err
	}
	for i, c := range order {
		ok, err := store.TakeRoom(ctx, tx, c.ID)
		if err != nil {
			return registry.Placement{}, err
		}
		if ok {
			return registry.Placement{Model: model, Cell: c.ID, Region: c.Region, Generation: 1, Revision: 1}, nil
		}
		order[i].Used = order[i].Capacity // it filled up meanwhile
	}
	_, err = registry.Place(order, model, wish, s.pick)
	return registry.Placement{}, err
}

// pick returns a random number below n.
func (s *tenants) pick(n int) int {
	var b [2]byte
	if _, err := s.Work.Random.Read(b[:]); err != nil {
		return 0 // any choice is right
	}
	return (int(b[0])<<8 | int(b[1])) % n
}

func cellOf(c *tenancyv1.Cell) registry.Cell {
	cell := registry.Cell{
		ID: idOf(c.GetName()), Region: c.GetRegion(), Open: c.GetState() == tenancyv1.CellState_CELL_STATE_OPEN,
		Capacity: c.GetCapacity(), Used: c.GetUsed(),
	}
	for _, m := range c.GetModels() {
		cell.Models = append(cell.Models, tenant.Model(m)) //nolint:gosec // the table holds defined ones
	}
	return cell
}

// create stores the tenant and the operation that makes its home ready.
func (s *tenants) create(ctx context.Context, tx *change.Tx, t registry.Tenant) (*tenancyv1.CreateTenantResponse, error) {
	if err := store.InsertTenant(ctx, tx, t); err != nil {
		return nil, err
	}
	o, err := s.begin(ctx, tx, &t, worker.VerbCreate)
	if err != nil {
		return nil, err
	}
	wire.PublishEvent(tx, wire.Event{Type: wire.TenantCreated, Tenant: t})
	seen(tx, t) // last: a failure is not to be told in the chain of a tenant that there never is
	return &tenancyv1.CreateTenantResponse{Operation: o, Tenant: stamped(tx, t)}, nil
}

// begin stores a new operation on the tenant.
func (s *tenants) begin(ctx context.Context, tx *change.Tx, t *registry.Tenant, what string) (*longrunningpb.Operation, error) {
	if tx.Call().ValidateOnly {
		return &longrunningpb.Operation{Done: true}, nil
	}
	id, err := s.newUID()
	if err != nil {
		return nil, err
	}
	o := store.Operation{
		ID: id.String(), Target: "tenants/" + t.ID.String(), Verb: what, Input: []byte(t.UID.String()),
		Meta: &apiv1.OperationMetadata{
			Phase: apiv1.OperationPhase_OPERATION_PHASE_RUNNING, Steps: worker.Steps(what, t.Placement.Model),
			Cancellable: what == worker.VerbCreate,
		},
	}
	grace := time.Duration(0)
	if what == worker.VerbCreate && t.Placement.Model == tenant.ModelShared {
		grace = inlineTime
	}
	if err := store.InsertOperation(ctx, tx, o, tx.Call().RequestID, grace); err != nil {
		return nil, err
	}
	t.Operation = o.ID
	o, err = store.ReadOperation(ctx, tx, o.ID)
	if err != nil {
		return nil, err
	}
	return operationOf(o)
}

// settle works on the operation for a while, so that the answer usually holds a tenant that is ready; homes of a tenant's
// own are left to the workers, whom nobody's patience interrupts. A replay, whose stored answer is that of the first commit,
// ends here with the same answer as the first call.
func (s *tenants) settle(ctx context.Context, resp *tenancyv1.CreateTenantResponse) *tenancyv1.CreateTenantResponse {
	ctx, cancel := context.WithTimeout(ctx, inlineTime)
	defer cancel()
	id := idOf(resp.GetOperation().GetName())
	if resp.GetTenant().GetPlacement().GetModel() != tenancyv1.IsolationModel_ISOLATION_MODEL_SHARED {
		s.Worker.Kick()
	} else if err := s.Worker.Inline(ctx, id); err != nil {
		s.Work.Log.WarnContext(ctx, "a tenant is not ready yet; workers go on", "operation", id, "error", err)
	}
	o, err := s.await(ctx, id, func(o store.Operation) bool { return o.Attempt > 0 })
	if err != nil {
		return resp // it was forgotten, or the database is away: the stored answer still is true
	}
	m, err := operationOf(o)
	if err != nil {
		return resp
	}
	settled := &tenancyv1.CreateTenantResponse{Operation: m, Tenant: resp.GetTenant()}
	if ready := new(tenancyv1.Tenant); m.GetResponse().UnmarshalTo(ready) == nil {
		settled.Tenant = ready
	}
	return settled
}

// verb is a change of a tenant's life.
type verb struct{ name, etag, what string }

// happen lets an event happen to a tenant. event makes it from the locked tenant, which is the zero one when there is
// none and the verb is "delete"; a nil event means that nothing is to be done.
func happen[R proto.Message](ctx context.Context, s *tenants, v verb,
	event func(*change.Tx, registry.Tenant) (registry.Event, error),
	answer func(*longrunningpb.Operation, *tenancyv1.Tenant) R,
) (R, error) {
	resp, err := change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (R, error) {
		var none R
		t, err := store.LockTenant(ctx, tx, store.TenantKey{ID: idOf(v.name)})
		missing := v.what == "delete" && fault.KindOf(err) == fault.NotFound
		if err != nil && !missing {
			return none, err
		}
		if missing {
			t = registry.Tenant{}
			tx.Audit(v.name)
		} else {
			seen(tx, t)
			if err := etag.Check(v.etag, wire.Tenant(t).GetEtag()); err != nil {
				return none, err
			}
		}
		e, err := event(tx, t)
		if err != nil {
			return none, err
		}
		o, m, err := s.next(ctx, tx, t, e, v.what)
		if err != nil {
			return none, err
		}
		return answer(o, m), nil
	})
	if err == nil {
		s.Worker.Kick()
	}
	return resp, err
}

// next stores what becomes of the tenant.
func (s *tenants) next(
	ctx context.Context, tx *change.Tx, t registry.Tenant, e registry.Event, what string,
) (*longrunningpb.Operation, *tenancyv1.Tenant, error) {
	if e == nil {
		if t.UID.IsZero() {
			return &longrunningpb.Operation{Done: true}, nil, nil
		}
		return finished(wire.Tenant(t))
	}
	next, effects, err := registry.Next(t, e)
	if err != nil {
		return nil, nil, err
	}
	if !effects.Changed {
		return finished(wire.Tenant(t))
	}
	if err := s.supersede(ctx, tx, t, what); err != nil {
		return nil, nil, err
	}
	seen(tx, t, "state")
	if effects.Remove {
		if err := s.remove(ctx, tx, t); err != nil {
			return nil, nil, err
		}
		return finished(wire.Tenant(t))
	}
	next.UpdateTime = tx.Now()
	if err := s.write(ctx, tx, next); err != nil {
		return nil, nil, err
	}
	wire.PublishState(tx, t, next)
	o, err := s.begin(ctx, tx, &next, what)
	if err != nil {
		return nil, nil, err
	}
	return o, stamped(tx, next), nil
}

// remove forgets a tenant that never was served. Whoever was told of it must be told first that it is gone: a database
// by the worker, gateways of its domains here.
func (s *tenants) remove(ctx context.Context, tx *change.Tx, t registry.Tenant) error {
	known, err := store.KnownInCell(ctx, tx, t.UID)
	if err != nil {
		return err
	}
	if known {
		return fault.New(fault.Unavailable, registry.ReasonCellUnreachable, "cells/%s must be told first that the tenant is gone",
			t.Placement.Cell).WithDomain(registry.Domain).WithRetry(time.Second)
	}
	domains, err := store.DomainsOf(ctx, tx, t.UID)
	if err != nil {
		return err
	}
	for _, d := range domains {
		if err := wire.RemoveDomain(tx, d.GetHost()); err != nil {
			return err
		}
		wire.PublishEvent(tx, wire.Event{Type: wire.DomainRemoved, Tenant: t, Domain: d})
	}
	wire.PublishEvent(tx, wire.Event{Type: wire.TenantRemoved, Tenant: t})
	return store.RemoveTenant(ctx, tx, t.UID)
}

// finished answers for what needs no work.
func finished(m *tenancyv1.Tenant) (*longrunningpb.Operation, *tenancyv1.Tenant, error) {
	packed, err := anypb.New(m)
	if err != nil {
		return nil, nil, err
	}
	return &longrunningpb.Operation{Done: true, Result: &longrunningpb.Operation_Response{Response: packed}}, m, nil
}

// supersede ends an operation that still waits for consumers: a suspension must not wait for a laggard of another one.
func (s *tenants) supersede(ctx context.Context, tx *change.Tx, t registry.Tenant, what string) error {
	status, err := worker.Superseded(what)
	if err != nil {
		return err
	}
	overtaken, running, err := store.Supersede(ctx, tx, "tenants/"+t.ID.String(), worker.VerbCreate, status)
	if err != nil {
		return err
	}
	for _, o := range overtaken {
		wire.PublishEvent(tx, wire.Event{
			Type: wire.OperationDone, Tenant: t, Operation: o.ID, Verb: o.Verb, Error: fault.ReasonConcurrentOp,
		})
	}
	if running {
		return fault.New(fault.Aborted, fault.ReasonConcurrentOp, "the tenant is being created").
			WithMetadata("operation", "operations/"+t.Operation)
	}
	return nil
}

func (s *tenants) write(ctx context.Context, tx *change.Tx, t registry.Tenant) error {
	if err := store.UpdateTenant(ctx, tx, t); err != nil {
		return err
	}
	if err := store.ReplaceSuspensions(ctx, tx, t); err != nil {
		return err
	}
	if err := store.OweTenant(ctx, tx, t.UID); err != nil {
		return err
	}
	plan, err := store.ReadPlan(ctx, tx, t.Plan)
	if err != nil {
		return err
	}
	return wire.PublishTenant(tx, t, plan.GetLossPolicy())
}
