package config_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// layered is every layer of initech on free, a child of umbrella, the widest first.
func layered() []string {
	return []string{
		"platform", "plans/free", "regions/" + tenanttest.Region, "tenants/umbrella", "tenants/initech", "tenants/initech/environments/staging",
	}
}

// TestLayers sets one value less at each layer, and takes the layers away again, the nearest first.
func TestLayers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("owner"), t.Context()
	r.namespace(a, "notes", `{"properties":{"v6":{"default":"schema"}}}`)
	content := map[string]string{}
	for i, owner := range layered() {
		var members []string
		for j := i; j < len(layered()); j++ {
			members = append(members, fmt.Sprintf(`"v%d":%q`, j, owner))
		}
		content[owner] = "{" + strings.Join(members, ",") + "}"
		name := owner + "/config/notes"
		made := r.set(a, name, content[owner])
		got, err := a.GetDocument(ctx, &configv1.GetDocumentRequest{Name: name})
		must(t, err)
		if got.GetDocument().GetContent() != content[owner] || got.GetDocument().GetEtag() != made.GetEtag() || made.GetName() != name {
			t.Errorf("%s: %v", owner, got)
		}
		list, err := a.ListDocuments(ctx, &configv1.ListDocumentsRequest{Parent: owner})
		must(t, err)
		if len(list.GetDocuments()) != 1 || list.GetDocuments()[0].GetName() != name {
			t.Errorf("%s has %v", owner, list)
		}
	}
	for _, owner := range []string{"plans/business", "regions/elsewhere", "tenants/acme", "tenants/initech/environments/dev", "tenants/umbrella/environments/staging"} {
		r.set(a, owner+"/config/notes", `{"v0":"wrong","v6":"wrong"}`)
	}
	in := r.issuer.In(ctx, t, "initech", func(c *tenant.Claims) { c.Plan = plans()["initech"] })
	stage := apiOf(r.workload(r.service("stage")))
	for i := len(layered()) - 1; i >= 0; i-- {
		var want []string
		for j := range layered() {
			owner := layered()[min(i, j)]
			if owner == "tenants/umbrella" {
				owner = "parent"
			}
			want = append(want, fmt.Sprintf("/v%d %s", j, owner))
		}
		want = append(want, "/v6 schema")
		explained, err := a.ExplainSettings(ctx, &configv1.ExplainSettingsRequest{Name: "tenants/initech/environments/staging/config/notes"})
		must(t, err)
		read, err := stage.GetSettings(in, &configv1.GetSettingsRequest{Namespace: "notes", Provenance: true})
		must(t, err)
		for what, e := range map[string]*configv1.Effective{"explained": explained.GetEffective(), "read": read.GetEffective()} {
			var got []string
			for _, p := range e.GetProvenance() {
				got = append(got, p.GetPointer()+" "+p.GetLayer())
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s with %d layers (-want +got)\n%s", what, i+1, diff)
			}
			if e.GetVersion() != read.GetEffective().GetVersion() || strings.Contains(e.GetContent(), "wrong") {
				t.Errorf("%s: %v", what, e)
			}
		}
		_, err = a.DeleteDocument(ctx, &configv1.DeleteDocumentRequest{Name: layered()[i] + "/config/notes"})
		must(t, err)
	}
}

// TestEnvironmentsAreThoseOfTheCaller reads through a gateway that no environment is registered for.
func TestEnvironmentsAreThoseOfTheCaller(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	r.namespace(a, "notes", `{}`)
	r.set(a, "tenants/acme/config/notes", `{"v":"everywhere"}`)
	r.set(a, "tenants/acme/environments/staging/config/notes", `{"v":"staging"}`)
	for service, want := range map[string]string{"stage": `{"v":"staging"}`, "": `{"v":"everywhere"}`} {
		conn := r.gateway()
		if service != "" {
			conn = r.workload(r.service(service))
		}
		got, err := apiOf(conn).GetSettings(r.issuer.In(t.Context(), t, "acme"), &configv1.GetSettingsRequest{Namespace: "notes"})
		must(t, err)
		if got.GetEffective().GetContent() != want {
			t.Errorf("%q gets %v", service, got)
		}
	}
	for _, name := range []string{
		"tenants/acme/environments/No/config/notes", "environments/staging/config/notes",
		"tenants/acme/environments/" + strings.Repeat("x", 33) + "/config/notes", "regions/" + strings.Repeat("x", 25) + "/config/notes",
	} {
		_, err := a.UpdateDocument(t.Context(), setting(name, `{}`))
		refused(t, name, err, codes.InvalidArgument, fault.ReasonInvalidField)
	}
	_, err := a.UpdateDocument(t.Context(), setting("tenants/nobody/environments/staging/config/notes", `{}`))
	refused(t, "nobody's environment", err, codes.NotFound, fault.ReasonResourceNotFound)
}

// TestWritesConcernFamiliesAndPlaces has writes of a parent, a region and a tenant that would break what another layer set.
func TestWritesConcernFamiliesAndPlaces(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	r.namespace(a, "notes", `{"not":{"required":["a","b"]}}`)
	r.set(a, "tenants/initech/config/notes", `{"b":1}`)
	r.set(a, "tenants/acme/environments/staging/config/notes", `{"b":1}`)
	for name, want := range map[string]string{
		"tenants/umbrella/config/notes":                  "tenants/initech)",
		"regions/" + tenanttest.Region + "/config/notes": "tenants/acme/environments/staging, tenants/initech)",
		"tenants/acme/config/notes":                      "tenants/acme/environments/staging)",
	} {
		_, err := a.UpdateDocument(t.Context(), setting(name, `{"a":1}`))
		refused(t, name, err, codes.InvalidArgument, "SCHEMA_VIOLATION")
		if f, ok := fault.As(tenantgrpc.FromStatus(err)); !ok || len(f.Fields) != 1 || !strings.Contains(f.Fields[0].Description, "in "+want) {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
	r.set(a, "regions/elsewhere/config/notes", `{"a":1}`)
	r.set(a, "tenants/umbrella/environments/staging/config/notes", `{"a":1}`) // children do not see it
}
