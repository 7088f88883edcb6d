package config_test

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/rpc"
)

// scheduled makes a change that becomes live at a time.
func (a api) scheduled(t *testing.T, id string, at time.Time, edits ...*configv1.ChangeEdit) {
	t.Helper()
	_, err := a.propose(t, id, edits...)
	must(t, err)
	must(t, a.schedule(t, id, timestamppb.New(at)))
}

func (a api) becomes(t *testing.T, id string, want configv1.ChangeState) {
	t.Helper()
	eventually(t, id+" is "+want.String(), func() bool { return a.state(t, id) == want })
}

const (
	isLive      = configv1.ChangeState_CHANGE_STATE_LIVE
	isScheduled = configv1.ChangeState_CHANGE_STATE_SCHEDULED
	isHalted    = configv1.ChangeState_CHANGE_STATE_HALTED
)

// Of several replicas one asks hooks about a change, and once.
func TestOneReplicaAsks(t *testing.T) {
	t.Parallel()
	clock := &lookout{now: time.Now()}
	r, to := newHookRig(t, clock.another)
	for range 3 {
		r.beside(clock.another)
	}
	a := r.as("owner")
	r.namespace(a, "portal", `{}`)
	to.answer("/freeze", says(`{"allow":false,"reason":"frozen"}`))
	r.veto(to, "freeze", failClosed, stepDocument)
	r.known(a, "freeze")
	at := later().AsTime()
	ids := []string{"a", "b", "c", "d"}
	for _, id := range ids {
		a.scheduled(t, id, at, patches("plans/"+id+"/config/portal", `{"v":1}`), patches("tenants/acme/environments/"+id+"/config/portal", `{"v":1}`))
	}
	to.answer("/freeze", says(`{"allow":true}`))
	asked := len(to.at("/freeze"))
	clock.look(at)
	for _, id := range ids {
		a.becomes(t, id, isLive)
	}
	messages := map[string]bool{}
	for _, m := range to.at("/freeze")[asked:] {
		messages[m.header.Get("Webhook-Id")] = true
	}
	if n := len(to.at("/freeze")) - asked; n != 2*len(ids) || len(messages) != n {
		t.Errorf("%d questions with %d ids about %d documents", n, len(messages), 2*len(ids))
	}
}

// Hooks that give no answer are asked again, later and later, until 15 minutes after the change's time.
func TestSilentHooksAreAskedAgain(t *testing.T) {
	t.Parallel()
	clock := &lookout{now: time.Now()}
	r, to := newHookRig(t, clock.another)
	a := r.as("owner")
	r.namespace(a, "portal", `{}`)
	to.answer("/freeze", says(`{"allow":false,"reason":"frozen"}`))
	r.veto(to, "freeze", failClosed, stepDocument)
	r.known(a, "freeze")
	at := later().AsTime()
	a.scheduled(t, "back", at, patches("plans/back/config/portal", `{"v":1}`))
	a.scheduled(t, "never", at.Add(time.Hour), patches("plans/never/config/portal", `{"v":1}`))
	to.answer("/freeze", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })

	owner := r.db.Owner(t)
	tries := func() (n int64) {
		must(t, owner.QueryRow(t.Context(), `SELECT sum(attempt) - 2 FROM settings.change`).Scan(&n))
		return n
	}
	for i, now := range []time.Duration{0, time.Second, 2 * time.Second} {
		clock.look(at.Add(now))
		eventually(t, "a try in vain", func() bool { return tries() == int64(i+1) })
		clock.look(at.Add(now + rpc.SchedulePoll)) // which is too early for another one
	}
	c, _ := a.change(t, "back")
	if n := tries(); n != 3 || c.GetState() != isScheduled || !strings.Contains(c.GetRefusal().GetMessage(), "hooks/freeze gave no answer") {
		t.Errorf("after %d tries: %v", n, c)
	}
	to.answer("/freeze", says(`{"allow":true}`))
	clock.look(at.Add(10 * time.Second))
	a.becomes(t, "back", isLive)
	if c, _ := a.change(t, "back"); c.GetRefusal() != nil {
		t.Errorf("it is live and says %v", c.GetRefusal())
	}

	to.answer("/freeze", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	at = at.Add(time.Hour)
	clock.look(at.Add(rpc.HookPatience - time.Second))
	eventually(t, "the last try", func() bool { return tries() == 4 })
	if is := a.state(t, "never"); is != isScheduled {
		t.Errorf("it is %v before the time is over", is)
	}
	clock.look(at.Add(rpc.HookPatience + time.Minute))
	a.becomes(t, "never", isHalted)
	c, _ = a.change(t, "never")
	if c.GetRefusal().GetCode() != int32(codes.FailedPrecondition) ||
		!strings.HasPrefix(c.GetRefusal().GetMessage(), "hooks were asked until 15m0s after the change's time, in vain: hooks/freeze") {
		t.Errorf("halted by %v", c.GetRefusal())
	}
	if got := a.content(t, "plans/never/config/portal"); got != "" {
		t.Errorf("%s is live", got)
	}
}

// A hook that takes its time keeps no other change from its own.
func TestASlowHookDelaysNoOtherChange(t *testing.T) {
	t.Parallel()
	clock := &lookout{now: time.Now()}
	r, to := newHookRig(t, clock.another)
	a := r.as("owner")
	r.namespace(a, "portal", `{}`)
	to.answer("/freeze", says(`{"allow":false,"reason":"frozen"}`))
	r.veto(to, "freeze", failClosed, stepDocument)
	r.known(a, "freeze")
	at := later().AsTime()
	a.scheduled(t, "slow", at.Add(-time.Second), patches("plans/free/config/portal", `{"v":1}`))
	a.scheduled(t, "other", at, patches("plans/free/config/brand", `{"name":"Free"}`))
	met := make(chan bool, 1)
	to.answer("/freeze", func(w http.ResponseWriter, req *http.Request) {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-req.Context().Done():
				met <- false
				return
			case <-tick.C:
			}
			if c, err := a.GetChange(req.Context(), &configv1.GetChangeRequest{Name: "changes/other"}); err == nil && c.GetChange().GetState() == isLive {
				met <- true
				_, _ = w.Write([]byte(`{"allow":true}`))
				return
			}
		}
	})
	clock.look(at)
	if !<-met {
		t.Error("the other change waited for the slow hook")
	}
	a.becomes(t, "slow", isLive)
}

// Who scheduled a change has to have the permissions still when its time has come.
func TestWhoScheduledMustStillBeAllowed(t *testing.T) {
	t.Parallel()
	clock := &lookout{now: time.Now()}
	r := newRigWith(t, clock.another)
	a, at := r.as("owner"), later().AsTime()
	r.namespace(a, "portal", `{}`)
	for _, who := range []string{"operator2", "operator3", "operator"} {
		r.as(who).scheduled(t, who, at, patches("plans/"+who+"/config/portal", `{"v":1}`))
		if c, _ := a.change(t, who); c.GetScheduler() != "operator:"+who+"@static" {
			t.Errorf("it was scheduled by %q", c.GetScheduler())
		}
	}
	_, err := a.propose(t, "schema", patches("namespaces/portal", `{"schema":{"title":"x"}}`))
	must(t, err)
	must(t, a.schedule(t, "schema", timestamppb.New(at)))
	b, err := os.ReadFile(r.path("operators.yaml"))
	must(t, err)
	var kept strings.Builder
	for line := range strings.Lines(string(b)) { // one is removed, one has another role, the owner may not write schemas any more
		switch {
		case strings.Contains(line, "name: operator2,"):
		case strings.Contains(line, "name: operator3,"):
			kept.WriteString(strings.ReplaceAll(line, "roles: [operator]", "roles: [viewer]"))
		default:
			kept.WriteString(strings.ReplaceAll(line, "roles: [owner]", "roles: [operator]"))
		}
	}
	r.write("operators.yaml", kept.String())
	eventually(t, "the files are read", func() bool {
		_, err := r.as("operator3").UpdateDocument(t.Context(), setting("platform/config/portal", `{}`))
		return err != nil
	})
	clock.look(at)
	for id, permission := range map[string]string{
		"operator2": "config.changes.publish", "operator3": "config.changes.publish", "schema": "config.namespaces.update",
	} {
		c, _ := r.as("operator").change(t, id)
		if c.GetState() != isHalted || c.GetRefusal().GetCode() != int32(codes.PermissionDenied) ||
			!strings.Contains(c.GetRefusal().GetMessage(), permission) {
			t.Errorf("%s is %v: %v", id, c.GetState(), c.GetRefusal())
		}
	}
	if is := r.as("operator").state(t, "operator"); is != isLive {
		t.Errorf("that of the operator who is still one is %v", is)
	}
	_, err = r.as("operator").publish(t, "operator2") // as what is halted for another reason, by somebody who may
	must(t, err)
}

// TestAnApprovalEndsWithItsApprover: who was removed, or may approve no more, agrees to nothing that is published later.
func TestAnApprovalEndsWithItsApprover(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.governed(r.as("owner"), "portal", `{}`, 2, "plan")
	a := r.as("operator")
	_, err := a.propose(t, "two", patches("plans/free/config/portal", `{"v":1}`))
	must(t, err)
	must(t, a.submit(t, "two"))
	must(t, r.as("operator2").approve(t, "two"))
	must(t, r.as("operator3").approve(t, "two"))
	if is := a.state(t, "two"); is != configv1.ChangeState_CHANGE_STATE_APPROVED {
		t.Fatalf("it is %v", is)
	}
	b, err := os.ReadFile(r.path("operators.yaml"))
	must(t, err)
	var kept strings.Builder
	for line := range strings.Lines(string(b)) {
		if !strings.Contains(line, "name: operator2,") {
			kept.WriteString(line)
		}
	}
	r.write("operators.yaml", kept.String())
	eventually(t, "the files are read", func() bool {
		_, err := r.as("operator2").GetChange(t.Context(), &configv1.GetChangeRequest{Name: "changes/two"})
		return err != nil
	})
	_, err = a.publish(t, "two")
	refused(t, "with one who is left", err, codes.FailedPrecondition, "APPROVAL_REQUIRED")
	if err == nil || !strings.Contains(err.Error(), "has 1; those of operator:operator2@static do not count") {
		t.Errorf("%v", err)
	}
	must(t, r.as("owner").approve(t, "two"))
	_, err = a.publish(t, "two")
	must(t, err)
}
