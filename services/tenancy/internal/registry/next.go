package registry

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

// Event is something that happens to a tenant: Activated, Failed, Suspend, Resume, Delete or Undelete.
type Event interface{ verb() string }

// Activated says that the tenant's home is ready.
type Activated struct{}

// Failed says that the tenant's home cannot be made, or that its creation was cancelled.
type Failed struct{}

// Suspend adds a cause.
type Suspend struct{ Suspension }

// Resume removes a cause.
type Resume struct{ Cause Cause }

// Delete deletes softly.
type Delete struct {
	// Time is now.
	Time time.Time
	// Retention is how long the tenant can be restored.
	Retention time.Duration
	// Parent says that tenants that are not deleted have it as their parent.
	Parent bool
}

// Undelete restores what was deleted, before its purge time.
type Undelete struct {
	// Time is now.
	Time time.Time
	// Orphan says that its parent is deleted.
	Orphan bool
}

func (Activated) verb() string { return "activate" }
func (Failed) verb() string    { return "fail" }
func (Suspend) verb() string   { return "suspend" }
func (Resume) verb() string    { return "resume" }
func (Delete) verb() string    { return "delete" }
func (Undelete) verb() string  { return "undelete" }

// Effects is what the store owes after an event. The zero value means that nothing changed.
type Effects struct {
	// Changed says that the tenant differs from before.
	Changed bool
	// WriteCells says that the cell's databases must learn the new state.
	WriteCells bool
	// AwaitConsumers says that the operation is done only when the feeds' consumers have applied the change.
	AwaitConsumers bool
	// FreeCell says that the tenant no longer takes room in its cell.
	FreeCell bool
	// Remove says that the record itself goes, and with it the id.
	Remove bool
}

// Next returns what becomes of the tenant when the event happens, and what follows. An event that the state does not
// allow is a fault WRONG_STATE, DELETE_PROTECTED, TENANT_HAS_CHILDREN, NOT_DELETED or PARENT_INVALID, and the tenant is
// returned unchanged.
//
// The generation grows with every change of who may be served, and never otherwise: contexts of an older one are
// refused from then on.
func Next(t Tenant, event Event) (Tenant, Effects, error) {
	next := t
	next.Suspensions = slices.Clone(t.Suspensions)
	var effects Effects
	var err error
	switch e := event.(type) {
	case Activated:
		effects, err = next.activate()
	case Failed:
		effects, err = next.fail()
	case Suspend:
		effects, err = next.suspend(e)
	case Resume:
		effects, err = next.resume(e)
	case Delete:
		effects, err = next.delete(e)
	case Undelete:
		effects, err = next.undelete(e)
	default:
		err = fault.New(fault.Internal, "INTERNAL", "unknown event")
	}
	if err != nil {
		return t, Effects{}, err
	}
	return next, effects, nil
}

func (t *Tenant) activate() (Effects, error) {
	if t.State != StateCreating {
		return Effects{}, t.wrongState(Activated{})
	}
	t.State = StateActive
	return Effects{Changed: true}, nil
}

func (t *Tenant) fail() (Effects, error) {
	if t.State != StateCreating {
		return Effects{}, t.wrongState(Failed{})
	}
	t.State = StateFailed
	return Effects{Changed: true, WriteCells: true, FreeCell: true}, nil
}

func (t *Tenant) suspend(e Suspend) (Effects, error) {
	if t.State != StateActive && t.State != StateSuspended {
		return Effects{}, t.wrongState(e)
	}
	if t.Suspended(e.Cause) {
		return Effects{}, nil // who suspended it first, and why, stays on record
	}
	t.Suspensions = append(t.Suspensions, e.Suspension)
	slices.SortFunc(t.Suspensions, func(a, b Suspension) int { return cmp.Compare(a.Cause, b.Cause) })
	return t.become(StateSuspended), nil
}

func (t *Tenant) resume(e Resume) (Effects, error) {
	if t.State != StateSuspended || !t.Suspended(e.Cause) {
		return Effects{}, t.notSuspended(e.Cause)
	}
	t.Suspensions = slices.DeleteFunc(t.Suspensions, func(s Suspension) bool { return s.Cause == e.Cause })
	return t.become(t.living()), nil
}

func (t *Tenant) delete(e Delete) (Effects, error) {
	switch {
	case t.State == StateFailed:
		return Effects{Changed: true, Remove: true}, nil
	case t.State != StateActive && t.State != StateSuspended:
		return Effects{}, t.wrongState(e)
	case t.DeleteProtection:
		return Effects{}, refuse(fault.FailedPrecondition, ReasonDeleteProtected,
			"the tenant is protected against deletion; take delete_protection away first")
	case e.Parent:
		return Effects{}, refuse(fault.FailedPrecondition, ReasonHasChildren,
			"the tenant is a parent; delete its children first, or give them another parent")
	}
	t.DeleteTime, t.PurgeTime = e.Time, e.Time.Add(e.Retention)
	return t.become(StateDeleted), nil
}

func (t *Tenant) undelete(e Undelete) (Effects, error) {
	if t.State != StateDeleted {
		return Effects{}, refuse(fault.AlreadyExists, ReasonNotDeleted, "the tenant is not deleted").
			WithMetadata("state", t.State.String())
	}
	if !e.Time.Before(t.PurgeTime) {
		return Effects{}, fault.New(fault.FailedPrecondition, fault.ReasonWrongState, "the tenant could be restored until %s",
			t.PurgeTime.UTC().Format(time.RFC3339)).WithMetadata("state", t.State.String())
	}
	if e.Orphan {
		return Effects{}, badParent("state", "the tenant's parent is deleted; restore that first")
	}
	t.DeleteTime, t.PurgeTime = time.Time{}, time.Time{}
	return t.become(t.living()), nil
}

// living returns the state of a tenant that is neither being made nor deleted.
func (t *Tenant) living() State {
	if len(t.Suspensions) > 0 {
		return StateSuspended
	}
	return StateActive
}

func (t *Tenant) become(s State) Effects {
	t.State = s
	t.Generation++
	return Effects{Changed: true, WriteCells: true, AwaitConsumers: true}
}

// notSuspended says which causes a suspension has instead of the one that was to be lifted.
func (t *Tenant) notSuspended(cause Cause) error {
	said := fmt.Sprintf("the tenant is not suspended for %s, but %s", cause, t.State)
	if t.State == StateSuspended {
		var causes []string
		for _, s := range t.Suspensions {
			causes = append(causes, s.Cause.String())
		}
		said = fmt.Sprintf("the tenant is not suspended for %s, but for %s", cause, strings.Join(causes, ", "))
	}
	return fault.New(fault.FailedPrecondition, fault.ReasonWrongState, "%s", said).
		WithMetadata("state", t.State.String()).WithMetadata("cause", cause.String())
}

func (t *Tenant) wrongState(e Event) *fault.Error {
	return fault.New(fault.FailedPrecondition, fault.ReasonWrongState,
		"a tenant that is %s does not take the event %q", t.State, e.verb()).WithMetadata("state", t.State.String())
}
