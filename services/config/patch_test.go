package config_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

func TestJSONPatchOfDocuments(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("owner"), t.Context()
	r.namespace(a, "notes", notesSchema)
	const name = "tenants/acme/config/notes"
	patch := func(content, etag string) (*configv1.Document, error) {
		req := setting(name, content)
		req.JsonPatch, req.Document.Etag = true, etag
		resp, err := a.UpdateDocument(ctx, req)
		return resp.GetDocument(), err
	}
	first, err := patch(`[{"op":"add","path":"/page","value":5}]`, "")
	must(t, err)
	second, err := patch(`[{"op":"test","path":"/page","value":5},{"op":"replace","path":"/page","value":6}]`, first.GetEtag())
	must(t, err)
	if first.GetContent() != `{"page":5}` || second.GetContent() != `{"page":6}` {
		t.Errorf("patched to %v, then %v", first, second)
	}
	_, err = patch(`[{"op":"add","path":"/page","value":7}]`, first.GetEtag())
	refused(t, "stale", err, codes.Aborted, fault.ReasonEtagMismatch)
	for what, c := range map[string]struct {
		patch, reason, field string
		code                 codes.Code
	}{
		"test":      {`[{"op":"add","path":"/theme","value":"dark"},{"op":"test","path":"/page","value":5}]`, "PATCH_TEST_FAILED", "document.content/1", codes.FailedPrecondition},
		"operation": {`[{"op":"remove","path":"/none"}]`, "MALFORMED_DOCUMENT", "document.content/0", codes.InvalidArgument},
		"twice":     {`[{"op":"test","path":"/page","value":{"x":1,"x":2}}]`, "MALFORMED_DOCUMENT", "document.content/0/value/x", codes.InvalidArgument},
		"schema":    {`[{"op":"replace","path":"/page","value":0}]`, "SCHEMA_VIOLATION", "document.content/page", codes.InvalidArgument},
	} {
		_, err := patch(c.patch, "")
		refused(t, what, err, c.code, c.reason)
		if got := violations(t, err); !strings.HasPrefix(got, c.field+" ") {
			t.Errorf("%s: %s, want %s", what, got, c.field)
		}
	}
	both := setting(name, `[]`)
	both.MergePatch, both.JsonPatch = true, true
	_, err = a.UpdateDocument(ctx, both)
	refused(t, "two kinds of patch", err, codes.InvalidArgument, fault.ReasonInvalidField)
	got, err := a.GetDocument(ctx, &configv1.GetDocumentRequest{Name: name})
	must(t, err)
	if diff := cmp.Diff(second, got.GetDocument(), protocmp.Transform()); diff != "" {
		t.Errorf("what was refused left something\n%s", diff)
	}
}

// TestBadDocumentsNameTheirPlace has one document of each kind that is refused. Nothing of any is stored.
func TestBadDocumentsNameTheirPlace(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("owner"), t.Context()
	r.namespace(a, "notes", `{"properties":{"o":{"properties":{"n":{"type":"integer"}},"additionalProperties":false}}}`)
	const name = "plans/free/config/notes"
	deep := strings.Repeat(`{"a":`, 70) + `1` + strings.Repeat(`}`, 70)
	for content, want := range map[string]string{
		`{"o":{"n":1,"n":2}}`:              "document.content/o/n MALFORMED_DOCUMENT",
		`{"o":{"a/b":{"~":1,"~":2}}}`:      "document.content/o/a~1b/~0 MALFORMED_DOCUMENT",
		deep:                               "document.content" + strings.Repeat("/a", settings.MaxDepth) + " MALFORMED_DOCUMENT",
		`{"l":[0,{"n":9007199254740992}]}`: "document.content/l/1/n MALFORMED_DOCUMENT",
		`{"l":[1e400]}`:                    "document.content/l/0 MALFORMED_DOCUMENT",
		`{"l":[1e-999]}`:                   "document.content/l/0 MALFORMED_DOCUMENT",
		`{"o":{"x":1,"y":{"z":2}}}`:        "document.content/o/x ADDITIONAL_PROPERTIES, document.content/o/y ADDITIONAL_PROPERTIES",
		`{"o":{"n":"1"}}`:                  "document.content/o/n TYPE",
		`{"o":{"$unset":1}}`:               "document.content/o/$unset UNSET, document.content/o/$unset ADDITIONAL_PROPERTIES",
		`{"o":`:                            "document.content/o MALFORMED_DOCUMENT",
		`[]`:                               "document.content MALFORMED_DOCUMENT",
		"{\"a\":\"\\u0000\"}":              "document.content/a MALFORMED_DOCUMENT",
		fmt.Sprintf(`{"a":[%s1]}`, strings.Repeat("1,", settings.MaxLeaves)): fmt.Sprintf("document.content/a/%d MALFORMED_DOCUMENT", settings.MaxLeaves),
	} {
		_, err := a.UpdateDocument(ctx, setting(name, content))
		if got := violations(t, err); got != want {
			t.Errorf("%.60s: %s, want %s", content, got, want)
		}
		patch := setting(name, content)
		patch.MergePatch = true
		if _, err := a.UpdateDocument(ctx, patch); violations(t, err) == "" {
			t.Errorf("%.60s as a patch: %v", content, err)
		}
	}
	_, err := a.ListDocumentRevisions(ctx, &configv1.ListDocumentRevisionsRequest{Parent: name})
	refused(t, "stored", err, codes.NotFound, fault.ReasonResourceNotFound)
}

func TestDiffDocument(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("owner"), t.Context()
	r.namespace(a, "notes", `{}`)
	const name = "tenants/acme/config/notes"
	first := r.set(a, name, `{"a":1,"b":[1]}`)
	second := r.set(a, name, `{"a":2,"b":[1],"c":{"d":null}}`)
	diff := func(from, to int64) string {
		resp, err := r.as("viewer").DiffDocument(ctx, &configv1.DiffDocumentRequest{Name: name, FromRevision: from, ToRevision: to})
		must(t, err)
		var out []string
		for _, d := range resp.GetDifferences() {
			out = append(out, d.GetPointer()+" "+d.GetBefore()+">"+d.GetAfter())
		}
		return strings.Join(out, ", ")
	}
	if got := diff(first.GetRevision(), second.GetRevision()); got != "/a 1>2, /c/d >null" || diff(first.GetRevision(), 0) != got {
		t.Errorf("%s; with now: %s", got, diff(first.GetRevision(), 0))
	}
	if got := diff(second.GetRevision(), first.GetRevision()); got != "/a 2>1, /c/d null>" {
		t.Errorf("backwards: %s", got)
	}
	if got := diff(second.GetRevision(), 0); got != "" {
		t.Errorf("nothing changed: %s", got)
	}
	_, err := a.DeleteDocument(ctx, &configv1.DeleteDocumentRequest{Name: name})
	must(t, err)
	if got := diff(first.GetRevision(), 0); got != "/a 1>, /b [1]>" {
		t.Errorf("deleted: %s", got)
	}
	for what, req := range map[string]*configv1.DiffDocumentRequest{
		"another's revision": {Name: "tenants/globex/config/notes", FromRevision: first.GetRevision()},
		"another's later":    {Name: name, FromRevision: first.GetRevision(), ToRevision: 1 << 40},
		"unknown tenant":     {Name: "tenants/nobody/config/notes", FromRevision: first.GetRevision()},
	} {
		_, err := a.DiffDocument(ctx, req)
		refused(t, what, err, codes.NotFound, fault.ReasonResourceNotFound)
	}
	_, err = a.DiffDocument(ctx, &configv1.DiffDocumentRequest{Name: name})
	refused(t, "no revision", err, codes.InvalidArgument, fault.ReasonInvalidField)
}
