package config_test

import (
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
)

// TestUnknownKeywordsAreRefused in what is written, alone and by a change, each in its place.
func TestUnknownKeywordsAreRefused(t *testing.T) {
	t.Parallel()
	const misspelt = `{"properties":{"page":{"x-lok":"plan","x-rules":[],"requird":[]}},"enum":[{"x-lok":1}]}`
	const places = "namespace.schema/properties/page/requird SCHEMA_INVALID, namespace.schema/properties/page/x-lok SCHEMA_INVALID, " +
		"namespace.schema/properties/page/x-rules SCHEMA_INVALID"
	r := newRig(t)
	a, ctx := r.as("owner"), t.Context()
	r.namespace(a, "notes", `{}`)
	_, create := a.CreateNamespace(ctx, &configv1.CreateNamespaceRequest{NamespaceId: "new", Namespace: &configv1.Namespace{Schema: misspelt}})
	_, update := a.UpdateNamespace(ctx, &configv1.UpdateNamespaceRequest{Namespace: &configv1.Namespace{Name: "namespaces/notes", Schema: misspelt}})
	_, change := a.CreateChange(ctx, &configv1.CreateChangeRequest{ChangeId: "c", Change: &configv1.Change{Reason: "because of a test", Edits: []*configv1.ChangeEdit{
		patches("namespaces/notes", `{"schema":`+misspelt+`}`),
	}}})
	for what, err := range map[string]error{"created": create, "updated": update, "by a change": change} {
		refused(t, what, err, codes.InvalidArgument, "SCHEMA_INVALID")
		if got := violations(t, err); !strings.HasSuffix(got, places) {
			t.Errorf("%s: %s, want %s", what, got, places)
		}
		f, _ := fault.As(tenantgrpc.FromStatus(err))
		if got := f.Fields[len(f.Fields)-3].Description; got != `is no keyword of JSON Schema 2020-12 and none of ours; did you mean "required"?` {
			t.Errorf("%s: %s", what, got)
		}
	}
	got, err := a.GetNamespace(ctx, &configv1.GetNamespaceRequest{Name: "namespaces/notes"})
	must(t, err)
	if got.GetNamespace().GetSchema() != `{}` {
		t.Errorf("stored %v", got)
	}
}

// TestManyUnknownKeywords are counted, and not all told.
func TestManyUnknownKeywords(t *testing.T) {
	t.Parallel()
	var schema strings.Builder
	schema.WriteString(`{"type":"object"`)
	for i := range 5000 {
		schema.WriteString(`,"x-` + strconv.Itoa(i) + `":0`)
	}
	schema.WriteString("}")
	r := newRig(t)
	_, err := r.as("owner").CreateNamespace(t.Context(), &configv1.CreateNamespaceRequest{
		NamespaceId: "new", Namespace: &configv1.Namespace{Schema: schema.String()},
	})
	refused(t, "many", err, codes.InvalidArgument, "SCHEMA_INVALID")
	if f, _ := fault.As(tenantgrpc.FromStatus(err)); len(f.Fields) != 50 || f.Metadata["violations"] != "5000" {
		t.Errorf("%d fields, %v", len(f.Fields), f.Metadata)
	}
}

// TestStoredUnknownKeywordsGoOn: what an earlier release accepted is still read, written below, and given a rule.
func TestStoredUnknownKeywordsGoOn(t *testing.T) {
	t.Parallel()
	const old = `{"properties":{"page":{"x-lok":"plan","default":20}},"x-owner":"billing"}`
	r := newRig(t)
	a, ctx := r.as("owner"), t.Context()
	r.namespace(a, "notes", `{}`)
	_, err := r.db.Owner(t).Exec(ctx, `UPDATE settings.namespace SET schema = $1 WHERE id = 'notes'`, old)
	must(t, err)
	r.set(a, "tenants/acme/config/notes", `{"size":7}`)
	got, err := a.ExplainSettings(ctx, &configv1.ExplainSettingsRequest{Name: "tenants/acme/config/notes"})
	must(t, err)
	if got.GetEffective().GetContent() != `{"page":20,"size":7}` {
		t.Errorf("%v", got)
	}
	_, err = a.UpdateNamespace(ctx, &configv1.UpdateNamespaceRequest{Namespace: &configv1.Namespace{
		Name: "namespaces/notes", Approval: &configv1.NamespaceApproval{Layers: []string{"platform"}, Count: 1},
	}, UpdateMask: mask("approval")})
	must(t, err)
	_, err = a.CreateChange(ctx, &configv1.CreateChangeRequest{ChangeId: "c", Change: &configv1.Change{Reason: "because of a test", Edits: []*configv1.ChangeEdit{
		patches("namespaces/notes", `{"schema":{"title":"notes"}}`),
	}}})
	refused(t, "a schema that is written anew", err, codes.InvalidArgument, "SCHEMA_INVALID")
}
