// Package governance knows how a change of documents comes to be live: by which steps, who may take them, and how many
// people must agree.
//
// It knows neither wire nor database, and nothing of what a change does: that is a digest here. Start at [Change].
package governance

import (
	"slices"
	"strings"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

// Domain and reasons of refusals, see rowhouse.config.v1.Reason.
const (
	Domain                 = "rowhouse.config"
	ReasonApprovalRequired = "APPROVAL_REQUIRED"
	ReasonSelfApproval     = "SELF_APPROVAL"
)

// State is where a change is on its way.
type State string

// The states.
const (
	Draft     State = "DRAFT"
	Submitted State = "SUBMITTED"
	Approved  State = "APPROVED"
	Scheduled State = "SCHEDULED"
	Live      State = "LIVE"
	Rejected  State = "REJECTED"
	Halted    State = "HALTED"
	Cancelled State = "CANCELLED"
)

// Change is what matters of a change for its way. Its methods are the steps; a step that is refused changes nothing.
type Change struct {
	State State
	// Authors are all who wrote it, ever.
	Authors []string
	// Digest says what it does.
	Digest string
	// Approvals are of what it does now: an edit takes them away.
	Approvals []Approval
}

// Approval is one person's word for what a change does.
type Approval struct {
	Approver string
	// Digest says what was approved.
	Digest string
	// Lapsed says that the approver could not approve it now. Such an approval does not count.
	Lapsed bool
}

func wrongState(s State, want ...State) error {
	names := make([]string, len(want))
	for i, w := range want {
		names[i] = string(w)
	}
	return fault.New(fault.FailedPrecondition, fault.ReasonWrongState, "the change is %s; only one that is %s can do that",
		s, strings.Join(names, ", "))
}

func (c *Change) in(want ...State) error {
	if slices.Contains(want, c.State) {
		return nil
	}
	return wrongState(c.State, want...)
}

// open are the states in which a change can still become live without being written anew.
func open() []State { return []State{Draft, Submitted, Approved, Scheduled, Halted} }

// Edit says that somebody wrote the change anew: it does now what the digest says.
func (c *Change) Edit(author, digest string) error {
	if err := c.Cancellable(); err != nil {
		return err
	}
	c.State, c.Digest, c.Approvals = Draft, digest, nil
	if !slices.Contains(c.Authors, author) {
		c.Authors = append(slices.Clone(c.Authors), author)
	}
	return nil
}

// Submit asks for as many approvals as are required.
func (c *Change) Submit(required int) error {
	if err := c.in(Draft); err != nil {
		return err
	}
	c.State = Submitted
	c.settle(required)
	return nil
}

// settle makes a change that waits for approvals one that has them.
func (c *Change) settle(required int) {
	if c.State == Submitted && c.agreed() >= required {
		c.State = Approved
	}
}

// agreed counts those who approved what the change does now, wrote nothing of it, and might approve it still.
func (c *Change) agreed() int {
	var who []string
	for _, a := range c.Approvals {
		if !a.Lapsed && a.Digest == c.Digest && !slices.Contains(c.Authors, a.Approver) && !slices.Contains(who, a.Approver) {
			who = append(who, a.Approver)
		}
	}
	return len(who)
}

// Approve adds somebody's approval of what the digest names. One who has approved already changes nothing, and is false.
func (c *Change) Approve(who, digest string, required int) (bool, error) {
	if err := c.in(Submitted, Approved, Scheduled, Halted); err != nil {
		return false, err
	}
	if slices.Contains(c.Authors, who) {
		return false, fault.New(fault.PermissionDenied, ReasonSelfApproval, "who wrote a change may not approve it").WithDomain(Domain)
	}
	if digest != c.Digest {
		return false, fault.New(fault.Aborted, fault.ReasonEtagMismatch, "the change is not what the digest names: read it again")
	}
	a := Approval{Approver: who, Digest: digest}
	if slices.Contains(c.Approvals, a) {
		return false, nil
	}
	c.Approvals = append(slices.Clone(c.Approvals), a)
	c.settle(required)
	return true, nil
}

// Reject says no.
func (c *Change) Reject() error {
	if err := c.in(Submitted, Approved, Scheduled, Halted); err != nil {
		return err
	}
	c.State = Rejected
	return nil
}

// Schedule has the change become live later.
func (c *Change) Schedule(required int) error {
	if err := c.ready(required); err != nil {
		return err
	}
	c.State = Scheduled
	return nil
}

// Publish makes the change live.
func (c *Change) Publish(required int) error {
	if err := c.ready(required); err != nil {
		return err
	}
	c.State = Live
	return nil
}

// ready refuses to let the change become live without the approvals that are required.
func (c *Change) ready(required int) error {
	if err := c.in(open()...); err != nil {
		return err
	}
	return c.withoutLapsed(Enough(c.agreed(), required))
}

// withoutLapsed says in a refusal whose approvals do not count any more.
func (c *Change) withoutLapsed(err error) error {
	var who []string
	for _, a := range c.Approvals {
		if a.Lapsed {
			who = append(who, a.Approver)
		}
	}
	f, ok := fault.As(err)
	if !ok || len(who) == 0 {
		return err
	}
	names := strings.Join(who, ", ")
	out := fault.New(f.Kind, f.Reason, "%s; those of %s do not count, who may not approve changes any more", f.Message, names).
		WithDomain(f.Domain)
	out.Metadata = f.Metadata
	return out.WithMetadata("lapsed", names)
}

// Halt says that the change could not become live at its time.
func (c *Change) Halt() error {
	if err := c.in(Scheduled); err != nil {
		return err
	}
	c.State = Halted
	return nil
}

// Cancellable refuses what is final.
func (c *Change) Cancellable() error { return c.in(append(open(), Rejected)...) }

// Cancel gives the change up.
func (c *Change) Cancel() error {
	if err := c.Cancellable(); err != nil {
		return err
	}
	c.State = Cancelled
	return nil
}
