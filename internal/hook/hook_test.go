package hook_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/hook"
	"github.com/rowhouse-platform/rowhouse/internal/operator"
	"github.com/rowhouse-platform/rowhouse/internal/rule"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
)

// config stands in for the service config, and for the unit of work.
type config struct {
	known    *hook.Store
	resp     *configv1.DecideHooksResponse
	err      error
	requests []*configv1.DecideHooksRequest
	answered bool
	audited  []string
	because  string
}

func (c *config) asker() *hook.Asker {
	return hook.New(hook.Config{
		Store: c.known, Log: slog.New(slog.DiscardHandler), Answered: func(context.Context) (bool, error) { return c.answered, nil },
		Decide: func(_ context.Context, req *configv1.DecideHooksRequest) (*configv1.DecideHooksResponse, error) {
			c.requests = append(c.requests, req)
			return c.resp, c.err
		},
	})
}

func (c *config) Audit(resource string, paths ...string) {
	c.audited = append(append(c.audited, resource), paths...)
}
func (c *config) Because(reason string) { c.because = reason }

// newConfig knows the given hooks of the creation of tenants.
func newConfig(tb testing.TB, hooks map[string]configv1.HookFailure) *config {
	tb.Helper()
	c := &config{known: hook.NewStore(), resp: new(configv1.DecideHooksResponse)}
	change := feed.Change{Reset: true}
	for name, failure := range hooks {
		value, err := proto.Marshal(&configv1.HookEntry{Steps: []configv1.HookStep{create}, Failure: failure})
		if err != nil {
			tb.Fatal(err)
		}
		change.Entries = append(change.Entries, feed.Entry{Key: name, Value: value})
	}
	if err := c.known.Apply(change); err != nil {
		tb.Fatal(err)
	}
	return c
}

const (
	create = configv1.HookStep_HOOK_STEP_TENANT_CREATE
	open   = configv1.HookFailure_HOOK_FAILURE_OPEN
	closed = configv1.HookFailure_HOOK_FAILURE_CLOSED
)

func call(plane apiv1.Plane, request proto.Message, permissions ...string) rule.Call {
	return rule.Call{
		Method: "/x/y", Principal: operator.NewPrincipal(operator.KindOperator, "operator:ada", permissions...), Request: request,
		Rule: &apiv1.MethodRule{Plane: plane}, RequestID: "0198c5f0-7f4b-7cc1-8a5e-3f0f8f1e2d3c",
	}
}

func (c *config) ask(tb testing.TB, call rule.Call) error {
	tb.Helper()
	v := c.asker().Ask(rule.NewContext(tb.Context(), call), &configv1.HookQuestion{Step: create, Tenant: "acme"})
	if !v.Covers(create) {
		tb.Error("the verdict is about another step")
	}
	return v.Settle(c)
}

func admin(request *tenancyv1.CreateTenantRequest, permissions ...string) rule.Call {
	return call(apiv1.Plane_PLANE_ADMIN, request, permissions...)
}

func TestNobodyIsAskedWithoutAHook(t *testing.T) {
	t.Parallel()
	c := newConfig(t, nil)
	c.err = errors.New("config is dead")
	if err := c.ask(t, admin(&tenancyv1.CreateTenantRequest{})); err != nil || len(c.requests) != 0 {
		t.Errorf("%v, and config was asked %d times", err, len(c.requests))
	}
	var nobody *hook.Asker
	v := nobody.Ask(rule.NewContext(t.Context(), admin(&tenancyv1.CreateTenantRequest{})), &configv1.HookQuestion{Step: create})
	if err := v.Settle(c); err != nil {
		t.Errorf("without a configuration: %v", err)
	}
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	decision := func(name string, o configv1.HookOutcome) *configv1.HookDecision {
		return &configv1.HookDecision{Hook: name, Outcome: o, Reason: "because"}
	}
	for what, try := range map[string]struct {
		decisions []*configv1.HookDecision
		reason    string
	}{
		"allowed":            {[]*configv1.HookDecision{decision("hooks/a", configv1.HookOutcome_HOOK_OUTCOME_ALLOWED)}, ""},
		"failed open":        {[]*configv1.HookDecision{decision("hooks/a", configv1.HookOutcome_HOOK_OUTCOME_FAILED_OPEN)}, ""},
		"failed closed":      {[]*configv1.HookDecision{decision("hooks/a", configv1.HookOutcome_HOOK_OUTCOME_FAILED_CLOSED)}, "HOOK_UNAVAILABLE"},
		"one of two refuses": {[]*configv1.HookDecision{decision("hooks/a", configv1.HookOutcome_HOOK_OUTCOME_FAILED_CLOSED), decision("hooks/b", configv1.HookOutcome_HOOK_OUTCOME_DENIED)}, "HOOK_DENIED"},
	} {
		c := newConfig(t, map[string]configv1.HookFailure{"hooks/a": closed})
		c.resp.Decisions = try.decisions
		if err := c.ask(t, admin(&tenancyv1.CreateTenantRequest{})); fault.ReasonOf(err) != try.reason {
			t.Errorf("%s: %v, want %q", what, err, try.reason)
		}
		if q := c.requests[0].GetQuestion(); q.GetCaller() != "operator:ada" || q.GetMethod() != "/x/y" || q.GetTenant() != "acme" {
			t.Errorf("%s: asked %s", what, q)
		}
	}
}

// What becomes of a step is known while config is not there to be asked.
func TestADeadConfigMeansWhatHooksDeclared(t *testing.T) {
	t.Parallel()
	for what, try := range map[string]struct {
		hooks  map[string]configv1.HookFailure
		reason string
	}{
		"open":                 {map[string]configv1.HookFailure{"hooks/a": open}, ""},
		"closed":               {map[string]configv1.HookFailure{"hooks/a": closed}, "HOOK_UNAVAILABLE"},
		"both":                 {map[string]configv1.HookFailure{"hooks/a": open, "hooks/b": closed}, "HOOK_UNAVAILABLE"},
		"one of a newer world": {map[string]configv1.HookFailure{"hooks/a": 7}, "HOOK_UNAVAILABLE"},
	} {
		c := newConfig(t, try.hooks)
		c.err = fault.New(fault.Unavailable, fault.ReasonDependency, "config is dead")
		if err := c.ask(t, admin(&tenancyv1.CreateTenantRequest{})); fault.ReasonOf(err) != try.reason {
			t.Errorf("%s: %v, want %q", what, err, try.reason)
		}
	}
}

func TestAStepIsNotTakenBeforeItIsKnownWhichHooksThereAre(t *testing.T) {
	t.Parallel()
	c := &config{known: hook.NewStore()}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // nobody waits
	v := c.asker().Ask(rule.NewContext(ctx, admin(&tenancyv1.CreateTenantRequest{})), &configv1.HookQuestion{Step: create})
	if err := v.Settle(c); fault.ReasonOf(err) != fault.ReasonHookUnavailable {
		t.Errorf("%v", err)
	}
}

func TestHooksAreSkippedByThoseWhoMay(t *testing.T) {
	t.Parallel()
	request := &tenancyv1.CreateTenantRequest{SkipHooks: "the hook is broken"}
	c := newConfig(t, map[string]configv1.HookFailure{"hooks/a": closed})
	c.err = errors.New("config is dead")
	if err := c.ask(t, admin(request)); fault.ReasonOf(err) != fault.ReasonPermissionMissing {
		t.Errorf("without the permission: %v", err)
	}
	c = newConfig(t, map[string]configv1.HookFailure{"hooks/a": closed})
	err := c.ask(t, admin(request, hook.SkipPermission))
	if err != nil || len(c.requests) > 0 || len(c.audited) != 2 || c.audited[0] != "hooks/a" || c.because != "hooks skipped: the hook is broken" {
		t.Errorf("with it: %v, %d requests, audited %q, because %q", err, len(c.requests), c.audited, c.because)
	}
}

// What was answered before is not asked about again, and one id of a caller is another one for another call.
func TestRepeats(t *testing.T) {
	t.Parallel()
	c := newConfig(t, map[string]configv1.HookFailure{"hooks/a": closed})
	c.answered = true
	// A repeat does not come to Settle. One that does is none: its first answer was forgotten meanwhile.
	if err := c.ask(t, admin(&tenancyv1.CreateTenantRequest{})); fault.ReasonOf(err) != fault.ReasonHookUnavailable || len(c.requests) > 0 {
		t.Errorf("a repeat: %v, asked %d times", err, len(c.requests))
	}
	c.answered = false
	first := admin(&tenancyv1.CreateTenantRequest{})
	for range 2 {
		if err := c.ask(t, first); err != nil {
			t.Fatal(err)
		}
	}
	a, b := c.requests[0].GetRequestId(), c.requests[1].GetRequestId()
	if a != b || a == "" || a == first.RequestID {
		t.Errorf("ids of a call and its repeat: %q, %q", a, b)
	}
	dry := first
	dry.ValidateOnly = true
	if err := c.ask(t, dry); err != nil || len(c.requests) != 2 {
		t.Errorf("a call that only validates: %v, asked %d times", err, len(c.requests))
	}
}

// An answer to one request is never taken for one to another that carries the same request_id: whatever differs in what is asked
// about makes it another question.
func TestAnAnswerIsForOneRequest(t *testing.T) {
	t.Parallel()
	first := admin(&tenancyv1.CreateTenantRequest{TenantId: "acme"})
	question := func() *configv1.HookQuestion { return &configv1.HookQuestion{Step: create, Tenant: "acme"} }
	id := func(call rule.Call, q *configv1.HookQuestion, versions ...string) string {
		t.Helper()
		c := newConfig(t, map[string]configv1.HookFailure{"hooks/a": closed})
		if err := c.asker().Ask(rule.NewContext(t.Context(), call), q, versions...).Settle(c); err != nil {
			t.Fatal(err)
		}
		return c.requests[0].GetRequestId()
	}
	seen := map[string]string{id(first, question()): "the first"}
	for what, other := range map[string]func(*rule.Call){
		"caller": func(c *rule.Call) { c.Principal = operator.NewPrincipal(operator.KindOperator, "operator:bob") },
		"method": func(c *rule.Call) { c.Method = "/x/z" },
		"target": func(c *rule.Call) { c.Target = "tenants/globex" },
		"id":     func(c *rule.Call) { c.RequestID = "0198c5f0-7f4b-7cc1-8a5e-3f0f8f1e2d3d" },
		"content": func(c *rule.Call) {
			c.Request = &tenancyv1.CreateTenantRequest{TenantId: "acme", Tenant: &tenancyv1.Tenant{DisplayName: "Acme"}}
		},
	} {
		call := first
		other(&call)
		if got := id(call, question()); seen[got] != "" {
			t.Errorf("another %s has the id of %s", what, seen[got])
		} else {
			seen[got] = what
		}
	}
	q := question()
	q.PreviousPlan = "business"
	for what, got := range map[string]string{"question": id(first, q), "version": id(first, question(), "digest")} {
		if seen[got] != "" {
			t.Errorf("another %s has the id of %s", what, seen[got])
		}
	}
}

// No call of the data plane can wait for a hook, whatever code is written there.
func TestOnlyStepsOfTheAdminPlaneAsk(t *testing.T) {
	t.Parallel()
	for _, call := range []rule.Call{
		call(apiv1.Plane_PLANE_DATA, &tenancyv1.CreateTenantRequest{}), call(apiv1.Plane_PLANE_PEER, &tenancyv1.CreateTenantRequest{}),
		call(apiv1.Plane_PLANE_ADMIN, &tenancyv1.SuspendTenantRequest{}), {},
	} {
		c := newConfig(t, map[string]configv1.HookFailure{"hooks/a": open})
		if err := c.ask(t, call); fault.KindOf(err) != fault.Internal || len(c.requests) > 0 {
			t.Errorf("%s on %s: %v", call.Method, call.Rule.GetPlane(), err)
		}
	}
}

func TestWhatIsGoneIsNotAsked(t *testing.T) {
	t.Parallel()
	c := newConfig(t, map[string]configv1.HookFailure{"hooks/a": closed})
	if err := c.known.Apply(feed.Change{Entries: []feed.Entry{{Key: "hooks/a", Deleted: true}}}); err != nil || len(c.known.For(create)) != 0 {
		t.Errorf("%v, known: %v", err, c.known.For(create))
	}
}
