package config_test

import (
	"fmt"
	"slices"
	"testing"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
)

// Webhooks of the platform hear of all that becomes of rollouts and of scheduled changes that are halted; a tenant hears of
// rollouts of its own documents, and its children of none.
func TestWebhooksTellOfRollouts(t *testing.T) {
	t.Parallel()
	r, to := newHookRig(t)
	a := r.as("owner")
	r.namespace(a, "portal", `{"properties":{"v":{"type":"integer"}}}`)
	r.namespace(a, "notes", `{"properties":{"v":{"type":"integer"}}}`)
	types := []string{"rollout.*", "change.*"}
	for _, owner := range []string{"platform", "tenants/acme", "tenants/initech", "tenants/umbrella"} {
		r.hook(a, to, owner+"/webhooks/r", &configv1.Webhook{EventTypes: types})
	}
	wide := r.begin(a, rolling("plans/free/config/portal", `{"v":1}`)).GetName()
	r.advance(a, wide)
	halt := &configv1.HaltRolloutRequest{Name: wide, Reason: rolloutReason}
	for _, only := range []bool{true, false} {
		halt.ValidateOnly = only
		_, err := a.HaltRollout(t.Context(), halt)
		must(t, err)
	}
	for range 3 { // anew, and through its two steps
		r.advance(a, wide)
	}
	r.advance(a, wide)
	own := r.begin(a, rolling("tenants/umbrella/config/notes", `{"v":2}`)).GetName()
	_, err := a.propose(t, "late", replaces("platform/config/portal", `{"v":5}`))
	must(t, err)
	must(t, a.schedule(t, "late", later()))
	_, err = a.UpdateNamespace(t.Context(), &configv1.UpdateNamespaceRequest{Namespace: &configv1.Namespace{
		Name: "namespaces/portal", Schema: `{"properties":{"v":{"type":"integer","maximum":4}}}`,
	}})
	must(t, err)
	r.due("late")

	told := func(path string, n int) (out []string) {
		for _, m := range to.await(t, path, n) {
			d := m.message(t)
			out = append(out, fmt.Sprint(d.Type, " ", d.Data.Layer, " ", d.Data.Tenant, " ", d.Data.Rollout+d.Data.Change, " ", d.Data.Step, " ",
				d.Data.SharePercent, " ", d.Data.Cause+d.Data.Reason))
		}
		slices.Sort(out)
		return out
	}
	ours := "rollout.started tenant umbrella " + own + " 0 0 "
	want := []string{
		"change.halted   changes/late 0 0 SCHEMA_VIOLATION", "rollout.advanced plans/free  " + wide + " 1 0 ",
		"rollout.advanced plans/free  " + wide + " 1 0 ", "rollout.advanced plans/free  " + wide + " 2 100 ",
		"rollout.completed plans/free  " + wide + " 2 0 ", "rollout.halted plans/free  " + wide + " 1 0 OPERATOR",
		"rollout.started plans/free  " + wide + " 0 0 ", "rollout.started plans/free  " + wide + " 0 0 ", ours,
	}
	if got := told("/platform/webhooks/r", len(want)); !slices.Equal(got, want) {
		t.Errorf("the platform is told\n%q, want\n%q", got, want)
	}
	if got := told("/tenants/umbrella/webhooks/r", 1); !slices.Equal(got, []string{ours}) {
		t.Errorf("the parent is told %q", got)
	}
	for _, id := range []string{"acme", "initech"} {
		if got := to.at("/tenants/" + id + "/webhooks/r"); len(got) > 0 {
			t.Errorf("%s is told %s", id, got[0].body)
		}
	}
}
