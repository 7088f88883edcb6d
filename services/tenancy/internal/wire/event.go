package wire

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
)

// FeedEvents is the feed of what happened to tenants. Unlike the others, whose state is what is, its state is what happened
// lately: so a follower that was away for longer than the change log reaches back misses nothing, and by the revision in
// each entry is told nothing twice.
const FeedEvents = "events"

// Types of events that are no state of a tenant. A change of state has the type "tenant." and the state.
const (
	TenantCreated  = "tenant.created"
	TenantRemoved  = "tenant.removed"
	PlanChanged    = "tenant.plan_changed"
	DomainAttached = "domain.attached"
	DomainRemoved  = "domain.removed"
	OperationDone  = "operation.done"
)

// Unit is the unit of work, as far as events matter.
type Unit interface {
	Publisher
	Now() time.Time
	OnRevision(fn func(ctx context.Context, revision int64) error)
}

// Event is something that happens to a tenant.
type Event struct {
	// Type is one of those above, "" for a change of state.
	Type string
	// Tenant is the tenant behind the event.
	Tenant registry.Tenant
	// Was is its state before, when that changed, and Plan its plan before.
	Was  registry.State
	Plan string
	// Domain is the domain concerned.
	Domain *tenancyv1.Domain
	// Operation, Verb and Error are of an operation that is done; Error is the reason of its error.
	Operation, Verb, Error string
}

// PublishEvent tells the feed "events" of an event.
func PublishEvent(u Unit, e Event) {
	m := &tenancyv1.TenancyEvent{
		Type: e.Type, Time: timestamppb.New(u.Now()), TenantUid: e.Tenant.UID.String(), TenantId: e.Tenant.ID.String(),
		State: tenancyv1.TenantState(e.Tenant.State), PreviousState: tenancyv1.TenantState(e.Was), Plan: e.Tenant.Plan, PreviousPlan: e.Plan,
		Host: e.Domain.GetHost(), App: strings.TrimPrefix(e.Domain.GetApp(), "apps/"), Verb: e.Verb, Error: e.Error,
	}
	if e.Type == "" {
		m.Type = "tenant." + strings.ToLower(e.Tenant.State.String())
	}
	about := m.GetHost()
	if e.Operation != "" {
		about, m.Operation = e.Operation, "operations/"+e.Operation
	}
	u.OnRevision(func(_ context.Context, revision int64) error {
		m.Revision = revision
		return u.Publish(FeedEvents, EventKey(m, about), m)
	})
}

// EventKey is the key of an event about a host, an operation or, with "", the tenant itself. Keys are in the order of
// revisions.
func EventKey(m *tenancyv1.TenancyEvent, about string) string {
	what := m.GetType()
	if about != "" {
		what += ":" + about
	}
	return fmt.Sprintf("%020d/%s/%s", m.GetRevision(), what, m.GetTenantUid())
}

// PublishState tells of the change of state from was to now, if it is one.
func PublishState(u Unit, was, now registry.Tenant) {
	if was.State != now.State {
		PublishEvent(u, Event{Tenant: now, Was: was.State})
	}
}
