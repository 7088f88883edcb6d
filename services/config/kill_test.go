package config_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"

	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

const killableSchema = `{"properties":{"banner":{"type":"boolean","default":false,"x-lock":"tenant","x-kill":{"value":false}},
	"size":{"type":"integer"}}}`

func TestKillSetting(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("owner"), t.Context()
	r.namespace(a, "notes", killableSchema)
	r.set(a, "platform/config/notes", `{"banner":true,"size":3}`)
	r.set(a, "tenants/acme/config/notes", `{"banner":true}`)
	store := &settings.Store{Trust: families(t)}
	r.follow(t, store)
	data := apiOf(r.gateway())
	banner := func(id string) any {
		e, _ := store.Holds(settings.Reader{UID: tenanttest.UID(id), Plan: plans()[id], Region: tenanttest.Region}, "notes")
		got, err := data.GetSettings(r.issuer.In(ctx, t, id, func(c *tenant.Claims) { c.Plan = plans()[id] }), &configv1.GetSettingsRequest{Namespace: "notes"})
		must(t, err)
		service, err := settings.Parse([]byte(got.GetEffective().GetContent()))
		must(t, err)
		if service["banner"] != e.Object["banner"] {
			return "they differ"
		}
		return e.Object["banner"]
	}
	reads := func(what string, acme, globex bool) {
		t.Helper()
		eventually(t, what, func() bool { return banner("acme") == acme && banner("globex") == globex })
	}
	reads("before", true, true)
	kill := &configv1.KillSettingRequest{Name: "plans/business/config/notes", Pointer: "/banner", Reason: "the banner breaks the page"}
	_, err := r.as("viewer").KillSetting(ctx, kill)
	refused(t, "without the permission", err, codes.PermissionDenied, fault.ReasonPermissionMissing)
	kill.ValidateOnly = true
	_, err = a.KillSetting(ctx, kill)
	must(t, err)
	reads("only validated", true, true)
	kill.ValidateOnly = false
	made, err := r.as("operator").KillSetting(ctx, kill)
	must(t, err)
	k := made.GetKill()
	if k.GetLayer() != "plans/business" || k.GetPointer() != "/banner" || k.GetReason() != kill.GetReason() || k.GetAuthor() == "" || k.GetKillTime() == nil {
		t.Errorf("the kill is %v", k)
	}
	reads("the kill", false, true)
	again, err := a.KillSetting(ctx, &configv1.KillSettingRequest{Name: kill.GetName(), Pointer: "/banner", Reason: "for another reason"})
	must(t, err)
	if diff := cmp.Diff(k, again.GetKill(), protocmp.Transform()); diff != "" {
		t.Errorf("a second kill changed the first\n%s", diff)
	}
	// A document does not bring it back, and explain says why.
	r.set(a, "tenants/acme/config/notes", `{"banner":true,"size":4}`)
	explained, err := a.ExplainSettings(ctx, &configv1.ExplainSettingsRequest{Name: "tenants/acme/config/notes"})
	must(t, err)
	p := explained.GetEffective().GetProvenance()[0]
	if diff := cmp.Diff(k, p.GetKill(), protocmp.Transform()); diff != "" || p.GetPointer() != "/banner" || p.GetLayer() != "plans/business/kill" ||
		!cmp.Equal(p.GetShadowed(), []string{"tenants/acme", "platform", "schema"}) {
		t.Errorf("explained: %v\n%s", p, diff)
	}
	reads("still", false, true)
	lift := &configv1.LiftSettingRequest{Name: "platform/config/notes", Pointer: "/banner", Reason: "it was repaired"}
	_, err = a.LiftSetting(ctx, lift)
	refused(t, "a lift elsewhere", err, codes.NotFound, fault.ReasonResourceNotFound)
	lift.Name = kill.GetName()
	_, err = a.LiftSetting(ctx, lift)
	must(t, err)
	reads("the lift", true, true)
	events, err := a.ListEvents(ctx, &auditv1.ListEventsRequest{Parent: "chains/platform"})
	must(t, err)
	for _, want := range []string{"KillSetting", "LiftSetting", "the banner breaks the page"} {
		if !strings.Contains(events.String(), want) {
			t.Errorf("the audit chain has no %q", want)
		}
	}
}

func TestWhatCannotBeKilled(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("owner"), t.Context()
	r.namespace(a, "notes", killableSchema)
	kill := func(name, pointer string) error {
		_, err := a.KillSetting(ctx, &configv1.KillSettingRequest{Name: name, Pointer: pointer, Reason: "it breaks the page"})
		return err
	}
	const name = "tenants/acme/config/notes"
	for _, pointer := range []string{"/size", "/other", "banner", "/banner/x", "/"} {
		refused(t, pointer, kill(name, pointer), codes.FailedPrecondition, "SETTING_NOT_KILLABLE")
	}
	refused(t, "no namespace", kill("platform/config/none", "/banner"), codes.NotFound, fault.ReasonResourceNotFound)
	refused(t, "no tenant", kill("tenants/nobody/config/notes", "/banner"), codes.NotFound, fault.ReasonResourceNotFound)
	must(t, kill(name, "/banner"))
	// While something is killed its safe value stays.
	schema := func(text string) error {
		_, err := a.UpdateNamespace(ctx, &configv1.UpdateNamespaceRequest{Namespace: &configv1.Namespace{Name: "namespaces/notes", Schema: text}})
		return err
	}
	refused(t, "another schema", schema(`{"properties":{"banner":{"type":"boolean"}}}`), codes.FailedPrecondition, "SETTING_NOT_KILLABLE")
	must(t, schema(`{"properties":{"banner":{"x-kill":{"value":null}}}}`))
	_, err := a.DeleteNamespace(ctx, &configv1.DeleteNamespaceRequest{Name: "namespaces/notes"})
	refused(t, "the end of the namespace", err, codes.FailedPrecondition, "SETTING_NOT_KILLABLE")
	_, err = a.UpdateDocument(ctx, setting("tenants/acme/config/setting-kills", `{}`))
	refused(t, "a lift by the back door", err, codes.FailedPrecondition, "NAMESPACE_IN_USE")
	for what, text := range map[string]string{
		"of another type":          `{"properties":{"n":{"type":"integer","x-kill":{"value":"off"}}}}`,
		"below":                    `{"properties":{"o":{"properties":{"~/ %":{"maximum":3,"x-kill":{"value":4}}}}}}`,
		"of any other property":    `{"additionalProperties":{"type":"object","x-kill":{"value":1}}}`,
		"by a reference":           `{"$defs":{"s":{"minLength":3}},"properties":{"a":{"$ref":"#/$defs/s","x-kill":{"value":"x"}}}}`,
		"against a rule":           `{"properties":{"n":{"default":2,"x-kill":{"value":0}}},"x-rules":[{"rule":"config.n > 0.0","message":"is needed","pointer":"/n"}]}`,
		"where it does not act":    `{"properties":{"a":{"items":{"x-kill":{"value":1}}}}}`,
		"without a value":          `{"properties":{"a":{"x-kill":{}}}}`,
		"for the whole document":   `{"x-kill":{"value":{}}}`,
		"which takes another away": `{"properties":{"a":{"x-kill":{"value":{"$unset":true}}}}}`,
	} {
		_, err := a.CreateNamespace(ctx, &configv1.CreateNamespaceRequest{NamespaceId: "bad", Namespace: &configv1.Namespace{Schema: text}})
		refused(t, "a safe value "+what, err, codes.InvalidArgument, "SCHEMA_INVALID")
	}
	r.namespace(a, "good", `{"properties":{"o":{"properties":{"~/ %":{"maximum":4,"x-kill":{"value":4}}}}},
		"x-rules":[{"rule":"!has(config.n) || config.n > 0.0","message":"is needed","pointer":"/n"}]}`)
}
