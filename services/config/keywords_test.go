package config_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
)

const (
	openSchema = `{"properties":{"page":{"type":"integer","default":20},"size":{"properties":{"max":{"default":5}}},
		"list":{"x-merge":{"map":"id"}}}}`
	lockedSchema = `{"properties":{"page":{"type":"integer","default":20,"x-clamp":{"max":100}},
		"size":{"properties":{"max":{"default":5,"x-lock":"plan"}}},"list":{"x-merge":{"map":"id"}}}}`
)

// violations are the fields and reasons of a refusal.
func violations(t *testing.T, err error) string {
	t.Helper()
	f, ok := fault.As(tenantgrpc.FromStatus(err))
	if !ok {
		t.Fatalf("%v", err)
	}
	var out []string
	for _, v := range f.Fields {
		out = append(out, v.Field+" "+v.Reason)
	}
	return strings.Join(out, ", ")
}

func TestLocksAndClampsRefuseWrites(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	r.namespace(a, "notes", lockedSchema)
	r.set(a, "platform/config/notes", `{"page":500,"size":{"max":9}}`)
	r.set(a, "plans/free/config/notes", `{"page":100,"size":{"max":8}}`)
	for what, c := range map[string]struct {
		name, content, reason, fields string
		code                          codes.Code
	}{
		"locked":      {"regions/eu/config/notes", `{"size":{"max":7}}`, "SETTING_LOCKED", "document.content/size/max X_LOCK", codes.FailedPrecondition},
		"from above":  {"tenants/acme/config/notes", `{"size":{"$unset":true}}`, "SETTING_LOCKED", "document.content/size X_LOCK", codes.FailedPrecondition},
		"environment": {"tenants/acme/environments/dev/config/notes", `{"size":null}`, "SETTING_LOCKED", "document.content/size X_LOCK", codes.FailedPrecondition},
		"clamped":     {"plans/free/config/notes", `{"page":101}`, "SETTING_CLAMPED", "document.content/page X_CLAMP", codes.InvalidArgument},
		"no map":      {"plans/free/config/notes", `{"list":[{"id":1}]}`, "SCHEMA_VIOLATION", "document.content/list X_MERGE", codes.InvalidArgument},
		"unset":       {"plans/free/config/notes", `{"a":[{"$unset":true}]}`, "SCHEMA_VIOLATION", "document.content/a/0/$unset UNSET", codes.InvalidArgument},
	} {
		_, err := a.UpdateDocument(t.Context(), setting(c.name, c.content))
		refused(t, what, err, c.code, c.reason)
		if got := violations(t, err); got != c.fields {
			t.Errorf("%s: %s, want %s", what, got, c.fields)
		}
	}
	got, err := a.GetDocument(t.Context(), &configv1.GetDocumentRequest{Name: "plans/free/config/notes"})
	must(t, err)
	if got.GetDocument().GetContent() != `{"page":100,"size":{"max":8}}` {
		t.Errorf("stored %v", got)
	}
	_, err = a.GetDocument(t.Context(), &configv1.GetDocumentRequest{Name: "regions/eu/config/notes"})
	refused(t, "stored", err, codes.NotFound, fault.ReasonResourceNotFound)
}

func TestNewLocksOverExistingValues(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("owner"), t.Context()
	r.namespace(a, "notes", openSchema)
	plan := r.set(a, "plans/business/config/notes", `{"size":{"max":8}}`)
	const name = "tenants/acme/config/notes"
	update := setting(name, `{"page":101,"size":{"max":7},"list":[{"id":"a"}]}`)
	update.Reason = "they asked for more"
	written, err := a.UpdateDocument(ctx, update)
	must(t, err)
	reschema := func(schema string, policy configv1.OverridePolicy) error {
		_, err := a.UpdateNamespace(ctx, &configv1.UpdateNamespaceRequest{
			Namespace: &configv1.Namespace{Name: "namespaces/notes", Schema: schema}, Overrides: policy,
		})
		return err
	}
	for _, policy := range []configv1.OverridePolicy{
		configv1.OverridePolicy_OVERRIDE_POLICY_UNSPECIFIED, configv1.OverridePolicy_OVERRIDE_POLICY_REFUSE,
	} {
		err := reschema(lockedSchema, policy)
		refused(t, policy.String(), err, codes.FailedPrecondition, "SETTING_LOCKED")
		if f, ok := fault.As(tenantgrpc.FromStatus(err)); !ok || !strings.Contains(f.Fields[0].Description, "in tenants/acme)") {
			t.Errorf("%v", err)
		}
	}
	clampAlone := strings.ReplaceAll(lockedSchema, `"x-lock":"plan"`, `"x-lock":"tenant"`)
	refused(t, "clamp", reschema(clampAlone, 0), codes.InvalidArgument, "SETTING_CLAMPED")
	refused(t, "idle keyword", reschema(`{"not":{"x-lock":"plan","const":1}}`, 0), codes.InvalidArgument, "SCHEMA_INVALID")
	must(t, reschema(lockedSchema, configv1.OverridePolicy_OVERRIDE_POLICY_SHADOW))
	explain := func() *configv1.ExplainSettingsResponse {
		resp, err := a.ExplainSettings(ctx, &configv1.ExplainSettingsRequest{Name: name})
		must(t, err)
		return resp
	}
	got := explain()
	want := []*configv1.Provenance{
		{Pointer: "/list/0/id", Layer: "tenants/acme", Revision: written.GetDocument().GetRevision()},
		{Pointer: "/page", Layer: "schema", Shadowed: []string{"tenants/acme"}, Clamp: `{"max":100}`, Default: "20"},
		{
			Pointer: "/size/max", Layer: "plans/business", Revision: plan.GetRevision(), Shadowed: []string{"tenants/acme", "schema"},
			Lock: "plan", Default: "5",
		},
	}
	if diff := cmp.Diff(want, got.GetEffective().GetProvenance(), protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	layers := []*configv1.LayerSource{
		{
			Layer: "plans/business", Document: plan.GetName(), Revision: plan.GetRevision(), Author: plan.GetAuthor(),
			RevisionTime: plan.GetRevisionTime(),
		},
		{
			Layer: "tenants/acme", Document: name, Revision: written.GetDocument().GetRevision(), Author: written.GetDocument().GetAuthor(),
			Reason: "they asked for more", RevisionTime: written.GetDocument().GetRevisionTime(),
		},
	}
	if diff := cmp.Diff(layers, got.GetLayers(), protocmp.Transform()); diff != "" {
		t.Errorf("layers (-want +got)\n%s", diff)
	}
	// What stands there does not stop other changes, but no new value is taken.
	r.set(a, name, `{"page":101,"size":{"max":7},"more":1}`)
	_, err = a.UpdateDocument(ctx, setting(name, `{"page":102,"size":{"max":7}}`))
	refused(t, "another clamped value", err, codes.InvalidArgument, "SETTING_CLAMPED")
	must(t, reschema(openSchema, 0))
	if content := explain().GetEffective().GetContent(); content != `{"more":1,"page":101,"size":{"max":7}}` {
		t.Errorf("without the lock: %s", content)
	}
}

func TestParentsAreNamedToOperatorsAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	r.namespace(a, "notes", openSchema)
	r.set(a, "tenants/umbrella/config/notes", `{"page":7}`)
	resp, err := a.ExplainSettings(t.Context(), &configv1.ExplainSettingsRequest{Name: "tenants/initech/config/notes"})
	must(t, err)
	if len(resp.GetLayers()) != 1 || resp.GetLayers()[0].GetDocument() != "tenants/umbrella/config/notes" || resp.GetLayers()[0].GetLayer() != "parent" {
		t.Errorf("layers %v", resp.GetLayers())
	}
	own, err := apiOf(r.gateway()).GetSettings(r.issuer.In(t.Context(), t, "initech"), &configv1.GetSettingsRequest{Namespace: "notes", Provenance: true})
	must(t, err)
	if own.GetEffective().GetContent() != `{"page":7,"size":{"max":5}}` || strings.Contains(own.String(), "umbrella") {
		t.Errorf("the child gets %v", own)
	}
}
