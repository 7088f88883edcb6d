package config_test

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

// byHand is a rollout that nothing advances but hands, and that acme sees first.
func byHand() *configv1.ChangeRollout {
	return &configv1.ChangeRollout{Steps: []int32{0, 100}, Canaries: []string{"tenants/acme"}, Bake: durationpb.New(time.Hour)}
}

// proposeRollout makes a draft that begins a rollout.
func (a api) proposeRollout(t *testing.T, id string, how *configv1.ChangeRollout, edits ...*configv1.ChangeEdit) error {
	t.Helper()
	_, err := a.CreateChange(t.Context(), &configv1.CreateChangeRequest{
		ChangeId: id, Change: &configv1.Change{Reason: why, Edits: edits, Rollout: how},
	})
	return err
}

const portalPlan = "plans/free/config/portal"

// An approved change begins a rollout instead of writing its document, whose completion nobody has to approve again, and which
// its author alone cannot hurry.
func TestAnApprovedChangeBeginsARollout(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ada, bob, ctx := r.as("operator"), r.as("owner"), t.Context()
	r.governed(bob, "portal", portal, 1, "plan")
	must(t, ada.proposeRollout(t, "prices", byHand(), patches(portalPlan, `{"price":12}`)))
	_, err := ada.publish(t, "prices")
	refused(t, "publish a draft", err, codes.FailedPrecondition, "APPROVAL_REQUIRED")
	must(t, ada.submit(t, "prices"))
	must(t, bob.approve(t, "prices"))
	live, err := ada.publish(t, "prices")
	must(t, err)
	name := live.GetStartedRollout()
	if live.GetState() != configv1.ChangeState_CHANGE_STATE_LIVE || name == "" || live.GetEdits()[0].GetRevision() != 0 || ada.content(t, portalPlan) != "" {
		t.Fatalf("live %v, with %q", live, ada.content(t, portalPlan))
	}
	if kept, _ := ada.change(t, "prices"); kept.GetStartedRollout() != name || kept.GetRollout().GetGuards().GetMinRequests() != 100 {
		t.Errorf("kept %v", kept)
	}
	made := r.rollout(ada, name)
	if made.GetStep() != 0 || made.GetContent() != `{"price":12}` || made.GetBake().AsDuration() != time.Hour || made.GetCanaries()[0] != "tenants/acme" ||
		made.GetReason() != why+" (changes/prices)" || made.GetAuthor() != live.GetAuthors()[0] {
		t.Errorf("began %v", made)
	}
	_, err = ada.AdvanceRollout(ctx, &configv1.AdvanceRolloutRequest{Name: name, Reason: rolloutReason})
	refused(t, "an author in a hurry", err, codes.PermissionDenied, "SELF_APPROVAL")
	_, err = ada.HaltRollout(ctx, &configv1.HaltRolloutRequest{Name: name, Reason: rolloutReason})
	must(t, err)
	_, err = ada.AdvanceRollout(ctx, &configv1.AdvanceRolloutRequest{Name: name, Reason: rolloutReason})
	refused(t, "an author who resumes", err, codes.PermissionDenied, "SELF_APPROVAL")
	for range 3 {
		r.advance(bob, name)
	}
	if done := r.advance(bob, name); done.GetState() != configv1.RolloutState_ROLLOUT_STATE_COMPLETED {
		t.Errorf("ended %v", done)
	}
	if got := ada.content(t, portalPlan); got != `{"price":12}` {
		t.Errorf("the document is %s", got)
	}
}

// A rule that asks for more than had approved holds back what was halted meanwhile.
func TestARolloutMeetsAStricterRule(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ada, bob, ctx := r.as("operator"), r.as("owner"), t.Context()
	r.governed(bob, "portal", portal, 1, "plan")
	must(t, ada.proposeRollout(t, "prices", byHand(), patches(portalPlan, `{"price":12}`)))
	must(t, ada.submit(t, "prices"))
	must(t, bob.approve(t, "prices"))
	live, err := ada.publish(t, "prices")
	must(t, err)
	_, err = bob.HaltRollout(ctx, &configv1.HaltRolloutRequest{Name: live.GetStartedRollout(), Reason: rolloutReason})
	must(t, err)
	_, err = bob.UpdateNamespace(ctx, &configv1.UpdateNamespaceRequest{
		Namespace:  &configv1.Namespace{Name: "namespaces/portal", Approval: &configv1.NamespaceApproval{Layers: []string{"plan"}, Count: 2}},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"approval"}},
	})
	must(t, err)
	_, err = bob.AdvanceRollout(ctx, &configv1.AdvanceRolloutRequest{Name: live.GetStartedRollout(), Reason: rolloutReason})
	refused(t, "with one approval of two", err, codes.FailedPrecondition, "APPROVAL_REQUIRED")
}

// Who approves a change approves how it reaches tenants.
func TestTheStepsAreApproved(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ada, bob, ctx := r.as("operator"), r.as("owner"), t.Context()
	r.governed(bob, "portal", portal, 1, "plan")
	for id, change := range map[string]func(*configv1.ChangeRollout){
		"same":     func(*configv1.ChangeRollout) {},
		"steps":    func(c *configv1.ChangeRollout) { c.Steps = []int32{100} },
		"canaries": func(c *configv1.ChangeRollout) { c.Canaries = []string{"tenants/globex"} },
		"bake":     func(c *configv1.ChangeRollout) { c.Bake = durationpb.New(time.Second) },
		"errors":   func(c *configv1.ChangeRollout) { c.Guards = &configv1.RolloutGuards{MaxErrorPermille: 1000} },
		"latency":  func(c *configv1.ChangeRollout) { c.Guards = &configv1.RolloutGuards{MaxP99Percent: 100000} },
		"requests": func(c *configv1.ChangeRollout) { c.Guards = &configv1.RolloutGuards{MinRequests: 1 << 30} },
		"waiting":  func(c *configv1.ChangeRollout) { c.Guards = &configv1.RolloutGuards{RequireRequests: true} },
		"at-once":  nil,
	} {
		must(t, ada.proposeRollout(t, id, byHand(), patches(portalPlan, `{"price":12}`)))
		must(t, ada.submit(t, id))
		must(t, bob.approve(t, id))
		approved, _ := ada.change(t, id)
		var how *configv1.ChangeRollout
		if change != nil {
			how = byHand()
			change(how)
		}
		_, err := ada.UpdateChange(ctx, &configv1.UpdateChangeRequest{
			Change: &configv1.Change{Name: "changes/" + id, Rollout: how}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"rollout"}},
		})
		must(t, err)
		_, err = ada.publish(t, id)
		refused(t, id+", published", err, codes.FailedPrecondition, "APPROVAL_REQUIRED")
		must(t, ada.submit(t, id))
		_, err = bob.ApproveChange(ctx, &configv1.ApproveChangeRequest{Name: "changes/" + id, Digest: approved.GetDigest()})
		if id == "same" {
			must(t, err)
			continue
		}
		refused(t, id+", approved as it was", err, codes.Aborted, fault.ReasonEtagMismatch)
	}
}

// A change at its time begins its rollout too, or is halted when another one runs.
func TestAScheduledChangeBeginsARollout(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	r.namespace(a, "portal", portal)
	for _, id := range []string{"first", "second"} {
		must(t, a.proposeRollout(t, id, byHand(), patches(portalPlan, `{"price":12}`)))
		must(t, a.schedule(t, id, later()))
	}
	r.due("first")
	eventually(t, "the first", func() bool { return a.state(t, "first") == configv1.ChangeState_CHANGE_STATE_LIVE })
	first, _ := a.change(t, "first")
	if got := r.rollout(a, first.GetStartedRollout()); got.GetState() != configv1.RolloutState_ROLLOUT_STATE_RUNNING || got.GetAuthor() != first.GetAuthors()[0] {
		t.Errorf("began %v", got)
	}
	r.due("second")
	eventually(t, "the second", func() bool { return a.state(t, "second") == configv1.ChangeState_CHANGE_STATE_HALTED })
	r.advance(a, first.GetStartedRollout()) // where nobody approved, nobody is bound
}

// What cannot be rolled out is refused when it is written.
func TestChangesThatCannotRollOut(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	r.namespace(a, "portal", portal)
	r.set(a, "platform/config/portal", `{"price":1}`)
	good := patches(portalPlan, `{"price":12}`)
	for what, c := range map[string]struct {
		edits        []*configv1.ChangeEdit
		change       func(*configv1.ChangeRollout)
		code         codes.Code
		reason, says string
	}{
		"two documents": {[]*configv1.ChangeEdit{good, patches("platform/config/portal", `{"price":2}`)}, nil, codes.InvalidArgument, fault.ReasonInvalidField, "change.rollout"},
		"a removal":     {[]*configv1.ChangeEdit{removes("platform/config/portal")}, nil, codes.InvalidArgument, fault.ReasonInvalidField, "change.rollout"},
		"a schema":      {[]*configv1.ChangeEdit{patches("namespaces/portal", `{"schema":{"title":"x"}}`)}, nil, codes.InvalidArgument, fault.ReasonInvalidField, "change.rollout"},
		"a lone tenant": {[]*configv1.ChangeEdit{patches("tenants/acme/config/portal", `{"price":2}`)}, nil, codes.InvalidArgument, fault.ReasonInvalidField, "change.edits[0].name"},
		"its steps":     {[]*configv1.ChangeEdit{good}, func(c *configv1.ChangeRollout) { c.Steps = []int32{5, 1} }, codes.InvalidArgument, fault.ReasonInvalidField, "change.rollout.steps"},
		"its canaries":  {[]*configv1.ChangeEdit{good}, func(c *configv1.ChangeRollout) { c.Canaries = []string{"tenants/nobody"} }, codes.NotFound, fault.ReasonResourceNotFound, ""},
		"its content":   {[]*configv1.ChangeEdit{patches(portalPlan, `{"price":"much"}`)}, nil, codes.InvalidArgument, "SCHEMA_VIOLATION", "change.edits[0].content/price"},
	} {
		how := byHand()
		if c.change != nil {
			c.change(how)
		}
		err := a.proposeRollout(t, "c", how, c.edits...)
		refused(t, what, err, c.code, c.reason)
		if said := broken(err); c.says != "" && (len(said) != 1 || said[0][:len(c.says)+1] != c.says+":") {
			t.Errorf("%s: %q", what, said)
		}
	}
	r.begin(a, rolling("platform/config/portal", `{"price":2}`))
	refused(t, "beside another rollout", a.proposeRollout(t, "c", byHand(), good), codes.FailedPrecondition, "ROLLOUT_RUNNING")
}
