package config_test

import (
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
)

// A rollout is no way around the approval of others, not even one that is older than the rule.
func TestNoRolloutGoesAroundApproval(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	enemy, ctx := r.as("owner"), t.Context()
	r.namespace(enemy, "portal", `{"properties":{"price":{"type":"integer"}}}`)
	r.set(enemy, "platform/config/portal", `{"price":1}`)
	made := r.begin(enemy, rolling("platform/config/portal", `{"price":2}`))
	ask := &configv1.UpdateNamespaceRequest{
		Namespace: &configv1.Namespace{
			Name: "namespaces/portal", Approval: &configv1.NamespaceApproval{Layers: []string{"platform"}, Count: 1},
		},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"approval"}},
	}
	_, err := enemy.UpdateNamespace(ctx, ask)
	refused(t, "a rule beside a rollout", err, codes.FailedPrecondition, "ROLLOUT_RUNNING")
	_, err = enemy.HaltRollout(ctx, &configv1.HaltRolloutRequest{Name: made.GetName(), Reason: rolloutReason})
	must(t, err)
	_, err = enemy.UpdateNamespace(ctx, ask)
	must(t, err)
	_, err = enemy.AdvanceRollout(ctx, &configv1.AdvanceRolloutRequest{Name: made.GetName(), Reason: rolloutReason})
	refused(t, "a halted rollout resumed", err, codes.FailedPrecondition, "APPROVAL_REQUIRED")
	_, err = enemy.CreateRollout(ctx, rolling("platform/config/portal", `{"price":3}`))
	refused(t, "another rollout", err, codes.FailedPrecondition, "APPROVAL_REQUIRED")
	if got := enemy.content(t, "platform/config/portal"); got != `{"price":1}` {
		t.Errorf("%s is live", got)
	}
}

// A rollout asks hooks as a direct write does.
func TestHooksRefuseRollouts(t *testing.T) {
	t.Parallel()
	r, to := newHookRig(t)
	a := r.as("owner")
	r.namespace(a, "portal", `{}`)
	to.answer("/freeze", says(`{"allow":false,"reason":"frozen"}`))
	r.veto(to, "freeze", failClosed, stepDocument)
	r.known(a, "freeze")
	_, err := a.CreateRollout(t.Context(), rolling("platform/config/portal", `{"price":3}`))
	refused(t, "a rollout", err, codes.FailedPrecondition, "HOOK_DENIED")
	req := rolling("platform/config/portal", `{"price":3}`)
	req.SkipHooks = "the freeze is over, its hook is not"
	made := r.begin(a, req)
	asked := len(to.at("/freeze"))
	again := &configv1.AdvanceRolloutRequest{Name: made.GetName(), Reason: rolloutReason}
	_, err = a.AdvanceRollout(t.Context(), again) // a step of what was let pass
	must(t, err)
	_, err = a.HaltRollout(t.Context(), &configv1.HaltRolloutRequest{Name: made.GetName(), Reason: rolloutReason})
	must(t, err)
	if n := len(to.at("/freeze")) - asked; n != 0 {
		t.Errorf("it was asked %d times about a step and a halt", n)
	}
	_, err = a.AdvanceRollout(t.Context(), again)
	refused(t, "a halted rollout resumed", err, codes.FailedPrecondition, "HOOK_DENIED")
	if got, err := a.GetRollout(t.Context(), &configv1.GetRolloutRequest{Name: made.GetName()}); err != nil ||
		got.GetRollout().GetState() != configv1.RolloutState_ROLLOUT_STATE_HALTED {
		t.Errorf("it is %v, %v", got, err)
	}
	again.SkipHooks = "the freeze is over, its hook is not"
	_, err = a.AdvanceRollout(t.Context(), again)
	must(t, err)
	if e := r.lastEvent("AdvanceRollout", ""); !slices.Contains(e.GetChangedPaths(), "skip_hooks") {
		t.Errorf("the record of it is %v", e)
	}
}

// A schema that comes by a change must be good for the tenants on the new side of a rollout, too, and what that refers
// to is in use.
func TestChangesBesideARollout(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	r.namespace(a, "portal", `{"properties":{"price":{"type":"integer"}}}`)
	r.set(a, "platform/config/portal", `{"price":1}`)
	r.begin(a, rolling("platform/config/portal", `{"price":9}`))
	_, err := a.propose(t, "cheap", patches("namespaces/portal", `{"schema":{"properties":{"price":{"maximum":5}}}}`))
	refused(t, "a schema for the old side alone", err, codes.InvalidArgument, "SCHEMA_VIOLATION")
}
