package config_test

import (
	"context"
	"testing"
	"time"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// families is a trust that knows the tenants of every rig, with their parents.
func families(t testing.TB) *tenant.Trust {
	t.Helper()
	known := tenant.NewTrust(time.Now)
	for name, plan := range plans() {
		id, err := tenant.ParseID(name)
		must(t, err)
		s := tenant.TenantState{
			UID: tenanttest.UID(name), ID: id, Generation: 1, PlacementGeneration: 1, State: tenant.StateActive, Plan: plan, Region: tenanttest.Region,
		}
		if parent, ok := parents()[name]; ok {
			s.Parent = tenanttest.UID(parent)
		}
		must(t, known.SetTenant(s))
	}
	return known
}

// TestReadersAgreeInSixLayers has two readers that follow the feed, and the service that answers, through a document at
// each layer and none again: all of them say the same, to the version.
func TestReadersAgreeInSixLayers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	r.namespace(a, "notes", `{"properties":{"v":{"default":"schema"}}}`)
	stores := []*settings.Store{{Trust: families(t), Environment: "staging"}, {Trust: families(t), Environment: "staging"}}
	for _, s := range stores {
		r.follow(t, s)
	}
	stage := apiOf(r.workload(r.service("stage")))
	in := func() context.Context {
		return r.issuer.In(t.Context(), t, "initech", func(c *tenant.Claims) { c.Plan = plans()["initech"] })
	}
	same := func(what, v string) {
		t.Helper()
		resp, err := stage.GetSettings(in(), &configv1.GetSettingsRequest{Namespace: "notes"})
		must(t, err)
		if want := `{"v":"` + v + `"}`; resp.GetEffective().GetContent() != want {
			t.Fatalf("%s: the service says %s, want %s", what, resp.GetEffective().GetContent(), want)
		}
		reader := settings.Reader{UID: tenanttest.UID("initech"), Plan: plans()["initech"], Region: tenanttest.Region, Environment: "staging"}
		reader.ID, err = tenant.ParseID("initech")
		must(t, err)
		for _, s := range stores {
			eventually(t, what, func() bool {
				e, ok := s.Holds(reader, "notes")
				read, err := settings.For[struct{ V string }](in(), s, "notes")
				return ok && err == nil && e.Version == resp.GetEffective().GetVersion() && e.Object["v"] == v && read.V == v
			})
		}
	}
	same("no document", "schema")
	for _, owner := range layered() {
		r.set(a, owner+"/config/notes", `{"v":"`+owner+`"}`)
		same(owner, owner)
	}
	for i := len(layered()) - 1; i > 0; i-- {
		_, err := a.DeleteDocument(t.Context(), &configv1.DeleteDocumentRequest{Name: layered()[i] + "/config/notes"})
		must(t, err)
		same("without "+layered()[i], layered()[i-1])
	}
}
