package config_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// TestListAcrossLayers lists documents without knowing who has some, page by page.
func TestListAcrossLayers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("owner"), t.Context()
	region := "regions/" + tenanttest.Region
	etags := map[string]string{}
	for _, namespace := range []string{"notes", "portal"} {
		r.namespace(a, namespace, `{}`)
		for _, owner := range append(layered(), "plans/unheard-of", "tenants/acme/environments/staging", "tenants/acme/environments/live") {
			d := r.set(a, owner+"/config/"+namespace, `{"a":1}`)
			etags[d.GetName()] = d.GetEtag()
		}
	}
	of := func(owners ...string) []string {
		var out []string
		for _, o := range owners {
			out = append(out, o+"/config/notes", o+"/config/portal")
		}
		slices.Sort(out)
		return out
	}
	for parent, want := range map[string][]string{
		"-": slices.Sorted(maps.Keys(etags)), "plans/-": of("plans/free", "plans/unheard-of"), "regions/-": of(region),
		"tenants/-": of("tenants/umbrella", "tenants/initech", "tenants/initech/environments/staging", "tenants/acme/environments/staging",
			"tenants/acme/environments/live"),
		"tenants/acme/environments/-":   of("tenants/acme/environments/staging", "tenants/acme/environments/live"),
		"tenants/globex/environments/-": nil,
	} {
		for _, size := range []int32{0, 1, 3} {
			var got []string
			req := &configv1.ListDocumentsRequest{Parent: parent, PageSize: size}
			for {
				page, err := a.ListDocuments(ctx, req)
				must(t, err)
				for _, d := range page.GetDocuments() {
					got = append(got, d.GetName())
					if d.GetEtag() != etags[d.GetName()] || d.GetContent() != `{"a":1}` {
						t.Errorf("%v", d)
					}
				}
				if req.PageToken = page.GetNextPageToken(); req.GetPageToken() == "" {
					break
				}
			}
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s by %d (-want +got):\n%s", parent, size, diff)
			}
		}
	}
	_, err := a.ListDocuments(ctx, &configv1.ListDocumentsRequest{Parent: "tenants/nobody/environments/-"})
	refused(t, "a tenant that does not exist", err, codes.NotFound, fault.ReasonResourceNotFound)
	for _, parent := range []string{"platform/-", "tenants/-/environments/-", "plans/free/-", "-/-", "*"} {
		_, err := a.ListDocuments(ctx, &configv1.ListDocumentsRequest{Parent: parent})
		refused(t, parent, err, codes.InvalidArgument, fault.ReasonInvalidField)
	}
}

// TestTheEtagOfNothing lets a caller write a document only if it still does not exist.
func TestTheEtagOfNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("owner"), t.Context()
	r.namespace(a, "notes", `{}`)
	ask := setting("plans/free/config/notes", `{"a":1}`)
	ask.ValidateOnly = true
	checked, err := a.UpdateDocument(ctx, ask)
	must(t, err)
	if d := checked.GetDocument(); d.GetEtag() == "" || d.GetRevision() != 0 {
		t.Fatalf("%v", d)
	}
	write := setting("plans/free/config/notes", `{"a":1}`)
	write.Document.Etag = checked.GetDocument().GetEtag()
	other := setting("plans/business/config/notes", `{"a":1}`)
	other.Document.Etag = write.GetDocument().GetEtag()
	_, err = a.UpdateDocument(ctx, other)
	refused(t, "the etag of another document", err, codes.Aborted, fault.ReasonEtagMismatch)
	made, err := a.UpdateDocument(ctx, write)
	must(t, err)
	write.Document.Content = `{"a":2}`
	_, err = a.UpdateDocument(ctx, write)
	refused(t, "a second time", err, codes.Aborted, fault.ReasonEtagMismatch)
	_, err = a.DeleteDocument(ctx, &configv1.DeleteDocumentRequest{Name: made.GetDocument().GetName()})
	must(t, err)
	_, err = a.UpdateDocument(ctx, write)
	must(t, err)
}
