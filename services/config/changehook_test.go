package config_test

import (
	"testing"

	"google.golang.org/grpc/codes"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
)

// Hooks are asked about each document that a change writes or removes, when it is published and when its time has come.
func TestHooksMayRefuseChanges(t *testing.T) {
	t.Parallel()
	r, to := newHookRig(t)
	a := r.as("owner")
	r.namespace(a, "portal", `{}`)
	r.set(a, "plans/free/config/portal", `{"x":1}`)
	for _, id := range []string{"now", "later", "skips"} {
		_, err := a.propose(t, id, patches("tenants/acme/config/portal", `{"v":"`+id+`"}`), removes("plans/free/config/portal"),
			replaces("platform/config/portal", `{"v":"`+id+`"}`))
		must(t, err)
	}
	must(t, a.schedule(t, "later", later()))
	to.answer("/freeze", says(`{"allow":false,"reason":"frozen"}`))
	r.veto(to, "freeze", failClosed, stepDocument)
	r.known(a, "freeze")
	asked := len(to.at("/freeze"))
	for range 2 { // a repeat asks nobody
		_, err := a.PublishChange(t.Context(), &configv1.PublishChangeRequest{Name: "changes/now", RequestId: "6ba7b810-9dad-41d1-80b4-00c04fd430c8"})
		refused(t, "publish", err, codes.FailedPrecondition, "HOOK_DENIED")
	}
	if n := len(to.at("/freeze")) - asked; n != 3 {
		t.Errorf("it was asked %d times about two documents that are written and one that is removed", n)
	}
	r.due("later")
	eventually(t, "halted", func() bool { return a.state(t, "later") == configv1.ChangeState_CHANGE_STATE_HALTED })
	if c, _ := a.change(t, "later"); c.GetRefusal().GetCode() != int32(codes.FailedPrecondition) {
		t.Errorf("halted by %v", c.GetRefusal())
	}
	if got := a.content(t, "tenants/acme/config/portal"); got != "" {
		t.Errorf("%s is live", got)
	}
	_, err := a.PublishChange(t.Context(), &configv1.PublishChangeRequest{Name: "changes/skips", SkipHooks: "the house is on fire"})
	must(t, err)
	if got := a.content(t, "tenants/acme/config/portal"); got != `{"v":"skips"}` {
		t.Errorf("%s is live", got)
	}
}
