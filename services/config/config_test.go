package config_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/follower"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/keyfile"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
	"github.com/rowhouse-platform/rowhouse/services/config"
)

// notesSchema is that of an app: a theme, and how many rows a page has.
const notesSchema = `{"properties":{
	"theme":{"enum":["light","dark"],"default":"light"},
	"page":{"type":"integer","minimum":1,"maximum":100,"default":20},
	"terms":{"type":"object","additionalProperties":{"type":"string"}}},"additionalProperties":false}`

func mask(paths ...string) *fieldmaskpb.FieldMask { return &fieldmaskpb.FieldMask{Paths: paths} }

// builtIn is how many namespaces exist from the start.
const builtIn = 4

func TestBrandExistsFromTheStart(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	get := func() *configv1.Namespace {
		resp, err := r.as("viewer").GetNamespace(t.Context(), &configv1.GetNamespaceRequest{Name: "namespaces/brand"})
		must(t, err)
		return resp.GetNamespace()
	}
	want, err := settings.Parse([]byte(settings.BrandSchema()))
	must(t, err)
	first := get()
	if first.GetSchema() != string(settings.Canonical(want)) || first.GetRevision() != 1 {
		t.Errorf("the namespace is %v", first)
	}
	_, err = a.DeleteNamespace(t.Context(), &configv1.DeleteNamespaceRequest{Name: "namespaces/brand"})
	refused(t, "delete", err, codes.FailedPrecondition, "NAMESPACE_IN_USE")
	// What operators make of it stays through a restart.
	_, err = a.UpdateNamespace(t.Context(), &configv1.UpdateNamespaceRequest{Namespace: &configv1.Namespace{Name: "namespaces/brand", Schema: `{}`}})
	must(t, err)
	r.stop()
	r.start()
	if got := get(); got.GetSchema() != `{}` || got.GetUid() != first.GetUid() {
		t.Errorf("after a restart: %v", got)
	}
	events, err := r.as("auditor").ListEvents(t.Context(), &auditv1.ListEventsRequest{Parent: "chains/platform"})
	must(t, err)
	jobs := 0
	for _, e := range events.GetEvents() {
		if e.GetMethod() == "job/furnish" {
			jobs++
		}
	}
	if jobs != builtIn {
		t.Errorf("%d events of the job that made the namespaces, which had to work once for each: %v", jobs, events)
	}
	// A schema that lets everything pass does not let through what could do harm in a page.
	_, err = r.as("operator").UpdateDocument(t.Context(), setting("tenants/acme/config/brand", `{"light":{"text":"red}}</style>"}}`))
	refused(t, "a colour that is none", err, codes.InvalidArgument, "SCHEMA_VIOLATION")
}

// A database that lacks a migration keeps the service from starting; one that is away does not.
func TestStartLooksAtMigrations(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.stop()
	_, err := r.db.Owner(t).Exec(t.Context(), `DELETE FROM public.rowhouse_migration WHERE name = (SELECT max(name) FROM public.rowhouse_migration)`)
	must(t, err)
	if err := config.Run(t.Context(), r.config, follower.WithLog(r.log)); !errors.Is(err, pg.ErrBehind) {
		t.Errorf("behind its migrations: %v", err)
	}
	r.write("db.dsn", "postgres://nobody@127.0.0.1:1/none")
	ctx, cancel := context.WithCancel(t.Context())
	listening := func(net.Addr, net.Addr) { cancel() }
	if err := config.Run(ctx, r.config, follower.WithLog(r.log), follower.WithListening(listening)); err != nil {
		t.Errorf("without its database: %v", err)
	}
}

func TestNamespaces(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("owner"), t.Context()
	made := r.namespace(a, "notes", notesSchema)
	got, err := a.GetNamespace(ctx, &configv1.GetNamespaceRequest{Name: "namespaces/notes"})
	must(t, err)
	if diff := cmp.Diff(made, got.GetNamespace(), protocmp.Transform()); diff != "" {
		t.Errorf("created and read (-made +got)\n%s", diff)
	}
	_, err = a.CreateNamespace(ctx, &configv1.CreateNamespaceRequest{NamespaceId: "notes", Namespace: &configv1.Namespace{Schema: `{}`}})
	refused(t, "twice", err, codes.AlreadyExists, "RESOURCE_EXISTS")
	_, err = a.CreateNamespace(ctx, &configv1.CreateNamespaceRequest{NamespaceId: "x", Namespace: &configv1.Namespace{Schema: `{"type":"x"}`}})
	refused(t, "bad schema", err, codes.InvalidArgument, "SCHEMA_INVALID")
	_, err = a.CreateNamespace(ctx, &configv1.CreateNamespaceRequest{NamespaceId: "x", Namespace: &configv1.Namespace{Schema: `{"$ref":"http://127.0.0.1/x"}`}})
	refused(t, "remote reference", err, codes.InvalidArgument, "SCHEMA_INVALID")
	_, err = a.CreateNamespace(ctx, &configv1.CreateNamespaceRequest{
		NamespaceId: "x", Namespace: &configv1.Namespace{Schema: `{"description":"` + strings.Repeat("x", 128<<10) + `"}`},
	})
	refused(t, "large schema", err, codes.InvalidArgument, fault.ReasonInvalidField)
	_, err = a.CreateNamespace(ctx, &configv1.CreateNamespaceRequest{NamespaceId: "No", Namespace: &configv1.Namespace{Schema: `{}`}})
	refused(t, "bad id", err, codes.InvalidArgument, fault.ReasonInvalidField)
	_, err = a.GetNamespace(ctx, &configv1.GetNamespaceRequest{Name: "namespaces/none"})
	refused(t, "unknown", err, codes.NotFound, fault.ReasonResourceNotFound)
	_, err = r.as("operator").CreateNamespace(ctx, &configv1.CreateNamespaceRequest{NamespaceId: "y", Namespace: &configv1.Namespace{Schema: `{}`}})
	refused(t, "an operator's", err, codes.PermissionDenied, fault.ReasonPermissionMissing)

	r.namespace(a, "tasks", `{}`)
	var names []string
	for token := ""; ; {
		resp, err := a.ListNamespaces(ctx, &configv1.ListNamespacesRequest{PageSize: 2, PageToken: token})
		must(t, err)
		for _, n := range resp.GetNamespaces() {
			names = append(names, n.GetName())
		}
		if token = resp.GetNextPageToken(); token == "" {
			break
		}
	}
	if !slices.Equal(names, []string{
		"namespaces/brand", "namespaces/flag-kills", "namespaces/flags", "namespaces/notes", "namespaces/setting-kills", "namespaces/tasks",
	}) {
		t.Errorf("listed %v", names)
	}
	_, err = a.ListNamespaces(ctx, &configv1.ListNamespacesRequest{PageToken: "x"})
	refused(t, "bad token", err, codes.InvalidArgument, fault.ReasonPageTokenInvalid)
}

func TestUpdateNamespace(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("owner"), t.Context()
	made := r.namespace(a, "notes", notesSchema)
	r.set(a, "tenants/globex/config/notes", `{"page":50}`)
	update := func(schema, etag string, paths ...string) (*configv1.Namespace, error) {
		req := &configv1.UpdateNamespaceRequest{Namespace: &configv1.Namespace{Name: "namespaces/notes", Schema: schema, Etag: etag}}
		if len(paths) > 0 {
			req.UpdateMask = mask(paths...)
		}
		resp, err := a.UpdateNamespace(ctx, req)
		return resp.GetNamespace(), err
	}
	same, err := update(strings.ReplaceAll(notesSchema, "\n", " "), made.GetEtag())
	must(t, err)
	if same.GetRevision() != made.GetRevision() {
		t.Error("the same schema made a revision")
	}
	_, err = update(`{"properties":{"page":{"maximum":49}}}`, "")
	refused(t, "a schema that a document breaks", err, codes.InvalidArgument, "SCHEMA_VIOLATION")
	_, err = update(`{"type":7}`, "")
	refused(t, "no schema", err, codes.InvalidArgument, "SCHEMA_INVALID")
	_, err = update(`{}`, "", "colour")
	refused(t, "unknown field", err, codes.InvalidArgument, fault.ReasonFieldMaskInvalid)
	changed, err := update(`{"properties":{"page":{"maximum":50}}}`, made.GetEtag(), "schema")
	must(t, err)
	if changed.GetRevision() <= made.GetRevision() || changed.GetEtag() == made.GetEtag() || changed.GetSchema() != `{"properties":{"page":{"maximum":50}}}` {
		t.Errorf("changed to %v", changed)
	}
	_, err = update(`{}`, made.GetEtag())
	refused(t, "stale", err, codes.Aborted, fault.ReasonEtagMismatch)

	_, err = a.DeleteNamespace(ctx, &configv1.DeleteNamespaceRequest{Name: "namespaces/notes"})
	refused(t, "in use", err, codes.FailedPrecondition, "NAMESPACE_IN_USE")
	_, err = a.DeleteDocument(ctx, &configv1.DeleteDocumentRequest{Name: "tenants/globex/config/notes"})
	must(t, err)
	_, err = a.DeleteNamespace(ctx, &configv1.DeleteNamespaceRequest{Name: "namespaces/notes", Etag: made.GetEtag()})
	refused(t, "stale", err, codes.Aborted, fault.ReasonEtagMismatch)
	_, err = a.DeleteNamespace(ctx, &configv1.DeleteNamespaceRequest{Name: "namespaces/notes", Etag: changed.GetEtag()})
	must(t, err)
	_, err = a.DeleteNamespace(ctx, &configv1.DeleteNamespaceRequest{Name: "namespaces/notes"})
	refused(t, "gone", err, codes.NotFound, fault.ReasonResourceNotFound)
	_, err = a.DeleteNamespace(ctx, &configv1.DeleteNamespaceRequest{Name: "namespaces/notes", AllowMissing: true})
	must(t, err)
	// One of the same name has a history of its own.
	r.namespace(a, "notes", notesSchema)
	_, err = a.ListDocumentRevisions(ctx, &configv1.ListDocumentRevisionsRequest{Parent: "tenants/globex/config/notes"})
	refused(t, "revisions of the one before", err, codes.NotFound, fault.ReasonResourceNotFound)
}

func TestDocuments(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("owner"), t.Context()
	r.namespace(a, "notes", notesSchema)
	const name = "tenants/acme/config/notes"
	req := setting(name, ` {"theme":"dark","terms":{"note":"Page"}} `)
	req.Reason = "they asked"
	resp, err := a.UpdateDocument(ctx, req)
	must(t, err)
	first := resp.GetDocument()
	if first.GetContent() != `{"terms":{"note":"Page"},"theme":"dark"}` || first.GetReason() != "they asked" || first.GetAuthor() == "" ||
		first.GetRevision() == 0 || first.GetEtag() == "" || first.GetRevisionTime() == nil || first.GetName() != name {
		t.Errorf("written %v", first)
	}
	got, err := a.GetDocument(ctx, &configv1.GetDocumentRequest{Name: name})
	must(t, err)
	if diff := cmp.Diff(first, got.GetDocument(), protocmp.Transform()); diff != "" {
		t.Errorf("written and read (-written +read)\n%s", diff)
	}
	same := r.set(a, name, `{"theme":"dark","terms":{"note":"Page"}}`)
	if same.GetRevision() != first.GetRevision() {
		t.Error("the same content made a revision")
	}
	patch := setting(name, `{"terms":{"note":null,"page":"Sheet"},"page":30}`)
	patch.MergePatch, patch.Document.Etag, patch.UpdateMask = true, first.GetEtag(), mask("content")
	resp, err = a.UpdateDocument(ctx, patch)
	must(t, err)
	if resp.GetDocument().GetContent() != `{"page":30,"terms":{"page":"Sheet"},"theme":"dark"}` {
		t.Errorf("patched to %s", resp.GetDocument().GetContent())
	}
	_, err = a.UpdateDocument(ctx, patch)
	refused(t, "stale", err, codes.Aborted, fault.ReasonEtagMismatch)
	fresh := setting("plans/free/config/notes", `{"page":7,"theme":null}`)
	fresh.MergePatch = true
	resp, err = a.UpdateDocument(ctx, fresh)
	must(t, err)
	if resp.GetDocument().GetContent() != `{"page":7}` {
		t.Errorf("a patch of nothing is %s", resp.GetDocument().GetContent())
	}

	_, err = a.DeleteDocument(ctx, &configv1.DeleteDocumentRequest{Name: name, Etag: first.GetEtag()})
	refused(t, "stale", err, codes.Aborted, fault.ReasonEtagMismatch)
	_, err = a.DeleteDocument(ctx, &configv1.DeleteDocumentRequest{Name: name})
	must(t, err)
	_, err = a.GetDocument(ctx, &configv1.GetDocumentRequest{Name: name})
	refused(t, "gone", err, codes.NotFound, fault.ReasonResourceNotFound)
	_, err = a.DeleteDocument(ctx, &configv1.DeleteDocumentRequest{Name: name})
	refused(t, "gone twice", err, codes.NotFound, fault.ReasonResourceNotFound)
	_, err = a.DeleteDocument(ctx, &configv1.DeleteDocumentRequest{Name: name, AllowMissing: true})
	must(t, err)
}

func TestDocumentsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("owner"), t.Context()
	r.namespace(a, "notes", notesSchema)
	const name = "tenants/acme/config/notes"
	for what, c := range map[string]struct {
		req    *configv1.UpdateDocumentRequest
		code   codes.Code
		reason string
	}{
		"unknown tenant":    {setting("tenants/nobody/config/notes", `{}`), codes.NotFound, fault.ReasonResourceNotFound},
		"unknown namespace": {setting("tenants/acme/config/none", `{}`), codes.NotFound, fault.ReasonResourceNotFound},
		"no name":           {setting("tenants/acme", `{}`), codes.InvalidArgument, fault.ReasonInvalidField},
		"bad tenant id":     {setting("tenants/a/config/notes", `{}`), codes.InvalidArgument, fault.ReasonInvalidField},
		"not JSON":          {setting(name, `{`), codes.InvalidArgument, "MALFORMED_DOCUMENT"},
		"nothing":           {setting(name, ``), codes.InvalidArgument, "MALFORMED_DOCUMENT"},
		"not an object":     {setting(name, `[]`), codes.InvalidArgument, "MALFORMED_DOCUMENT"},
		"twice":             {setting(name, `{"page":1,"page":2}`), codes.InvalidArgument, "MALFORMED_DOCUMENT"},
		"1e400":             {setting(name, `{"page":1e400}`), codes.InvalidArgument, "MALFORMED_DOCUMENT"},
		"too large":         {setting(name, `{"x":"`+strings.Repeat("x", 256<<10)+`"}`), codes.InvalidArgument, fault.ReasonInvalidField},
		"schema":            {setting(name, `{"page":0}`), codes.InvalidArgument, "SCHEMA_VIOLATION"},
		"missing": {
			&configv1.UpdateDocumentRequest{Document: &configv1.Document{Name: name, Content: `{}`}}, codes.NotFound, fault.ReasonResourceNotFound,
		},
		"unknown field": {
			&configv1.UpdateDocumentRequest{
				Document: &configv1.Document{Name: name, Content: `{}`}, AllowMissing: true, UpdateMask: mask("colour"),
			}, codes.InvalidArgument, fault.ReasonFieldMaskInvalid,
		},
		"mask without content": {
			&configv1.UpdateDocumentRequest{
				Document: &configv1.Document{Name: name, Content: `{}`}, AllowMissing: true, UpdateMask: mask("etag"),
			}, codes.InvalidArgument, fault.ReasonInvalidField,
		},
		"etag of what is missing": {
			&configv1.UpdateDocumentRequest{Document: &configv1.Document{Name: name, Content: `{}`, Etag: `"x"`}, AllowMissing: true},
			codes.Aborted, fault.ReasonEtagMismatch,
		},
		"bad request id": {
			&configv1.UpdateDocumentRequest{Document: &configv1.Document{Name: name, Content: `{}`}, AllowMissing: true, RequestId: "x"},
			codes.InvalidArgument, fault.ReasonInvalidField,
		},
	} {
		_, err := a.UpdateDocument(ctx, c.req)
		refused(t, what, err, c.code, c.reason)
	}
	_, err := a.GetDocument(ctx, &configv1.GetDocumentRequest{Name: name})
	refused(t, "something was written", err, codes.NotFound, fault.ReasonResourceNotFound)
	_, err = a.DeleteDocument(ctx, &configv1.DeleteDocumentRequest{Name: "tenants/nobody/config/notes"})
	refused(t, "delete of an unknown tenant's", err, codes.NotFound, fault.ReasonResourceNotFound)
	_, err = a.GetDocument(ctx, &configv1.GetDocumentRequest{Name: "places/eu/config/notes"})
	refused(t, "get of no name", err, codes.InvalidArgument, fault.ReasonInvalidField)
	viewer := r.as("viewer")
	_, err = viewer.UpdateDocument(ctx, setting(name, `{}`))
	refused(t, "a viewer's write", err, codes.PermissionDenied, fault.ReasonPermissionMissing)
}

func TestViolationsNameWhatAndWhere(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	r.namespace(a, "notes", `{"properties":{"low":{"type":"number","default":1},"high":{"type":"number"}},
		"if":{"properties":{"low":{"minimum":5}}},"then":{"properties":{"high":{"minimum":5}}}}`)
	r.set(a, "tenants/globex/config/notes", `{"high":4}`)
	r.set(a, "tenants/acme/config/notes", `{"high":6}`)
	_, err := a.UpdateDocument(t.Context(), setting("plans/free/config/notes", `{"low":5}`))
	f, ok := fault.As(tenantgrpc.FromStatus(err))
	if !ok || len(f.Fields) != 1 {
		t.Fatalf("%v", err)
	}
	want := fault.FieldViolation{
		Field: "document.content/high", Reason: "MINIMUM", Description: "is less than 5 (rule minimum, in tenants/globex)",
	}
	if diff := cmp.Diff(want, f.Fields[0]); diff != "" || f.Domain != "rowhouse.config" || f.Metadata["violations"] != "1" {
		t.Errorf("%v (-want +got)\n%s", f, diff)
	}
	r.set(a, "plans/business/config/notes", `{"low":5}`) // acme's high is high enough
	_, err = a.DeleteDocument(t.Context(), &configv1.DeleteDocumentRequest{Name: "tenants/acme/config/notes"})
	must(t, err)
	r.set(a, "platform/config/notes", `{"high":5}`)
	r.set(a, "tenants/acme/config/notes", `{"low":1,"high":2}`)
	r.set(a, "plans/business/config/notes", `{"low":6}`)
	_, err = a.UpdateDocument(t.Context(), setting("tenants/acme/config/notes", `{"high":2}`))
	refused(t, "by the plan's value", err, codes.InvalidArgument, "SCHEMA_VIOLATION")
	_, err = a.DeleteDocument(t.Context(), &configv1.DeleteDocumentRequest{Name: "platform/config/notes"})
	must(t, err) // without high there is nothing that could be too low
}

// A write reads what it is judged by and nothing else: of a tenant its own layers, of a plan those of its tenants.
func TestWritesReadOnlyWhatTheyConcern(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	r.namespace(a, "notes", `{}`)
	for _, owner := range []string{"tenants/globex", "tenants/initech", "plans/free"} {
		r.set(a, owner+"/config/notes", `{"a":1}`)
	}
	_, err := r.db.Owner(t).Exec(t.Context(), `UPDATE settings.document SET content = '{' WHERE layer = 'tenant'`)
	must(t, err)
	r.set(a, "tenants/acme/config/notes", `{"b":1}`)
	r.set(a, "plans/business/config/notes", `{"b":2}`)
	for _, owner := range []string{"platform", "plans/free", "tenants/globex"} {
		if _, err := a.UpdateDocument(t.Context(), setting(owner+"/config/notes", `{"b":3}`)); status.Code(err) != codes.Internal {
			t.Errorf("a write of %s did not read the tenants that it concerns: %v", owner, err)
		}
	}
}

func TestListDocuments(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("owner"), t.Context()
	for _, id := range []string{"one", "two", "three"} {
		r.namespace(a, id, `{}`)
		r.set(a, "tenants/acme/config/"+id, `{"a":1}`)
	}
	r.set(a, "tenants/globex/config/one", `{"other":true}`)
	var names []string
	var middle string
	for token := ""; ; {
		resp, err := a.ListDocuments(ctx, &configv1.ListDocumentsRequest{Parent: "tenants/acme", PageSize: 2, PageToken: token})
		must(t, err)
		for _, d := range resp.GetDocuments() {
			names = append(names, d.GetName())
			one, err := a.GetDocument(ctx, &configv1.GetDocumentRequest{Name: d.GetName()})
			must(t, err)
			if diff := cmp.Diff(one.GetDocument(), d, protocmp.Transform()); diff != "" {
				t.Errorf("read and listed (-read +listed)\n%s", diff)
			}
		}
		if token = resp.GetNextPageToken(); token == "" {
			break
		}
		middle = token
	}
	if !slices.Equal(names, []string{"tenants/acme/config/one", "tenants/acme/config/three", "tenants/acme/config/two"}) {
		t.Errorf("listed %v", names)
	}
	_, err := a.ListDocuments(ctx, &configv1.ListDocumentsRequest{Parent: "tenants/globex", PageToken: middle})
	refused(t, "another list's token", err, codes.InvalidArgument, fault.ReasonPageTokenInvalid)
	_, err = a.ListDocuments(ctx, &configv1.ListDocumentsRequest{Parent: "tenants/nobody"})
	refused(t, "unknown tenant", err, codes.NotFound, fault.ReasonResourceNotFound)
	_, err = a.ListDocuments(ctx, &configv1.ListDocumentsRequest{Parent: "places/eu"})
	refused(t, "no parent", err, codes.InvalidArgument, fault.ReasonInvalidField)
	resp, err := a.ListDocuments(ctx, &configv1.ListDocumentsRequest{Parent: "platform"})
	must(t, err)
	if len(resp.GetDocuments()) != 0 {
		t.Errorf("the platform has %v", resp.GetDocuments())
	}
}

// TestLargePagesFitAMessage lists more than what 4 MiB hold.
func TestLargePagesFitAMessage(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("owner"), t.Context()
	r.namespace(a, "notes", `{}`)
	const most, revisions = 250_000, 20
	for i := range revisions {
		r.set(a, "platform/config/notes", fmt.Sprintf(`{"a":"%d%s"}`, i, strings.Repeat("x", most)))
	}
	seen := 0
	for token := ""; ; {
		resp, err := a.ListDocumentRevisions(ctx, &configv1.ListDocumentRevisionsRequest{Parent: "platform/config/notes", PageToken: token})
		must(t, err)
		seen += len(resp.GetDocuments())
		if token = resp.GetNextPageToken(); token == "" {
			break
		}
	}
	if seen != revisions {
		t.Errorf("%d revisions", seen)
	}
	const schemas = 40
	for i := range schemas {
		r.namespace(a, fmt.Sprintf("large-%d", i), `{"title":"`+strings.Repeat("x", 120<<10)+`"}`)
	}
	seen = 0
	for token := ""; ; {
		resp, err := a.ListNamespaces(ctx, &configv1.ListNamespacesRequest{PageToken: token})
		must(t, err)
		seen += len(resp.GetNamespaces())
		if token = resp.GetNextPageToken(); token == "" {
			break
		}
	}
	if seen != schemas+1+builtIn {
		t.Errorf("%d namespaces", seen)
	}
}

func TestRevisionsAndRollback(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("owner"), t.Context()
	r.namespace(a, "notes", notesSchema)
	const name = "tenants/acme/config/notes"
	first := r.set(a, name, `{"page":1}`)
	second := r.set(a, name, `{"page":2}`)
	_, err := a.DeleteDocument(ctx, &configv1.DeleteDocumentRequest{Name: name})
	must(t, err)
	rollback := func(revision int64, etag string) (*configv1.Document, error) {
		resp, err := a.RollbackDocument(ctx, &configv1.RollbackDocumentRequest{Name: name, Revision: revision, Etag: etag, Reason: "back"})
		return resp.GetDocument(), err
	}
	_, err = rollback(first.GetRevision(), second.GetEtag())
	refused(t, "the etag of what is deleted", err, codes.Aborted, fault.ReasonEtagMismatch)
	back, err := rollback(first.GetRevision(), "")
	must(t, err)
	if back.GetContent() != first.GetContent() || back.GetRevision() <= second.GetRevision() || back.GetReason() != "back" {
		t.Errorf("rolled back to %v", back)
	}
	var contents []string
	var deletion int64
	for token := ""; ; {
		resp, err := a.ListDocumentRevisions(ctx, &configv1.ListDocumentRevisionsRequest{Parent: name, PageSize: 3, PageToken: token})
		must(t, err)
		for _, d := range resp.GetDocuments() {
			contents = append(contents, d.GetContent())
			if d.GetContent() == "" {
				deletion = d.GetRevision()
			}
		}
		if token = resp.GetNextPageToken(); token == "" {
			break
		}
	}
	if !slices.Equal(contents, []string{`{"page":1}`, ``, `{"page":2}`, `{"page":1}`}) {
		t.Errorf("revisions %q", contents)
	}
	for what, revision := range map[string]int64{"a deletion": deletion, "no revision": 1 << 40} {
		_, err = rollback(revision, "")
		refused(t, what, err, codes.NotFound, fault.ReasonResourceNotFound)
	}
	_, err = rollback(0, "")
	refused(t, "zero", err, codes.InvalidArgument, fault.ReasonInvalidField)
	// Another tenant's revision is none of this one's.
	_, err = a.RollbackDocument(ctx, &configv1.RollbackDocumentRequest{Name: "tenants/globex/config/notes", Revision: first.GetRevision()})
	refused(t, "another's revision", err, codes.NotFound, fault.ReasonResourceNotFound)
	// What was valid once need not be now.
	_, err = a.UpdateNamespace(ctx, &configv1.UpdateNamespaceRequest{Namespace: &configv1.Namespace{
		Name: "namespaces/notes", Schema: `{"properties":{"page":{"maximum":1}}}`,
	}})
	must(t, err)
	_, err = rollback(second.GetRevision(), "")
	refused(t, "what the schema has since forbidden", err, codes.InvalidArgument, "SCHEMA_VIOLATION")
	_, err = a.ListDocumentRevisions(ctx, &configv1.ListDocumentRevisionsRequest{Parent: "plans/free/config/notes"})
	refused(t, "never written", err, codes.NotFound, fault.ReasonResourceNotFound)
	_, err = a.ListDocumentRevisions(ctx, &configv1.ListDocumentRevisionsRequest{Parent: name, PageToken: "x"})
	refused(t, "bad token", err, codes.InvalidArgument, fault.ReasonPageTokenInvalid)
}

func TestRequestIDs(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("owner"), t.Context()
	create := &configv1.CreateNamespaceRequest{NamespaceId: "notes", Namespace: &configv1.Namespace{Schema: notesSchema}, RequestId: newID()}
	update := setting("tenants/acme/config/notes", `{"page":1}`)
	update.RequestId = newID()
	reschema := &configv1.UpdateNamespaceRequest{Namespace: &configv1.Namespace{Name: "namespaces/notes", Schema: `{}`}, RequestId: newID()}
	calls := []func() (proto.Message, error){
		func() (proto.Message, error) { return a.CreateNamespace(ctx, create) },
		func() (proto.Message, error) { return a.UpdateDocument(ctx, update) },
		func() (proto.Message, error) { return a.UpdateNamespace(ctx, reschema) },
	}
	answers := make([]proto.Message, len(calls))
	for round := range 2 {
		for i, call := range calls {
			got, err := call()
			must(t, err)
			if round > 0 && !proto.Equal(got, answers[i]) {
				t.Errorf("call %d: first %v, then %v", i, answers[i], got)
			}
			answers[i] = got
		}
	}
	doc, ok := answers[1].(*configv1.UpdateDocumentResponse)
	if !ok || doc.GetDocument().GetRevision() == 0 || doc.GetDocument().GetEtag() == "" {
		t.Fatalf("answer %v", answers[1])
	}
	rollback := &configv1.RollbackDocumentRequest{Name: update.GetDocument().GetName(), Revision: doc.GetDocument().GetRevision(), RequestId: newID()}
	once, err := a.RollbackDocument(ctx, rollback)
	must(t, err)
	twice, err := a.RollbackDocument(ctx, rollback)
	must(t, err)
	if !proto.Equal(once, twice) {
		t.Errorf("rolled back twice: %v, %v", once, twice)
	}
	remove := &configv1.DeleteDocumentRequest{Name: update.GetDocument().GetName(), RequestId: newID()}
	for range 2 {
		_, err = a.DeleteDocument(ctx, remove)
		must(t, err)
	}
	drop := &configv1.DeleteNamespaceRequest{Name: "namespaces/notes", RequestId: newID()}
	for range 2 {
		_, err = a.DeleteNamespace(ctx, drop)
		must(t, err)
	}
	// The same id with another request.
	create.NamespaceId, update.Document.Content, reschema.Namespace.Schema = "other", `{"page":2}`, `{"title":"x"}`
	rollback.Revision, remove.Name, drop.Name = 1, "plans/free/config/notes", "namespaces/other"
	_, err = a.CreateNamespace(ctx, create)
	refused(t, "CreateNamespace", err, codes.InvalidArgument, fault.ReasonRequestIDReused)
	_, err = a.UpdateDocument(ctx, update)
	refused(t, "UpdateDocument", err, codes.InvalidArgument, fault.ReasonRequestIDReused)
	_, err = a.UpdateNamespace(ctx, reschema)
	refused(t, "UpdateNamespace", err, codes.InvalidArgument, fault.ReasonRequestIDReused)
	_, err = a.RollbackDocument(ctx, rollback)
	refused(t, "RollbackDocument", err, codes.InvalidArgument, fault.ReasonRequestIDReused)
	_, err = a.DeleteDocument(ctx, remove)
	refused(t, "DeleteDocument", err, codes.InvalidArgument, fault.ReasonRequestIDReused)
	_, err = a.DeleteNamespace(ctx, drop)
	refused(t, "DeleteNamespace", err, codes.InvalidArgument, fault.ReasonRequestIDReused)
}

func TestValidateOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("owner"), t.Context()
	const name = "tenants/acme/config/notes"
	create := &configv1.CreateNamespaceRequest{NamespaceId: "notes", Namespace: &configv1.Namespace{Schema: notesSchema}, ValidateOnly: true}
	for range 2 { // the first left nothing
		_, err := a.CreateNamespace(ctx, create)
		must(t, err)
	}
	made := r.namespace(a, "notes", notesSchema)
	_, err := a.CreateNamespace(ctx, create)
	refused(t, "create what exists", err, codes.AlreadyExists, fault.ReasonResourceExists)
	first := r.set(a, name, `{"page":1}`)
	update := setting(name, `{"page":2}`)
	update.ValidateOnly = true
	resp, err := a.UpdateDocument(ctx, update)
	must(t, err)
	if resp.GetDocument().GetContent() != `{"page":2}` || resp.GetDocument().GetRevision() != first.GetRevision() {
		t.Errorf("answer %v", resp.GetDocument())
	}
	update.Document.Content = `{"page":0}`
	_, err = a.UpdateDocument(ctx, update)
	refused(t, "a bad value", err, codes.InvalidArgument, "SCHEMA_VIOLATION")
	_, err = a.UpdateNamespace(ctx, &configv1.UpdateNamespaceRequest{
		Namespace: &configv1.Namespace{Name: "namespaces/notes", Schema: `{}`}, ValidateOnly: true,
	})
	must(t, err)
	_, err = a.RollbackDocument(ctx, &configv1.RollbackDocumentRequest{Name: name, Revision: first.GetRevision(), ValidateOnly: true})
	must(t, err)
	_, err = a.DeleteDocument(ctx, &configv1.DeleteDocumentRequest{Name: name, ValidateOnly: true})
	must(t, err)
	doc, err := a.GetDocument(ctx, &configv1.GetDocumentRequest{Name: name})
	must(t, err)
	namespace, err := a.GetNamespace(ctx, &configv1.GetNamespaceRequest{Name: "namespaces/notes"})
	must(t, err)
	if diff := cmp.Diff(first, doc.GetDocument(), protocmp.Transform()); diff != "" {
		t.Errorf("the document changed\n%s", diff)
	}
	if diff := cmp.Diff(made, namespace.GetNamespace(), protocmp.Transform()); diff != "" {
		t.Errorf("the namespace changed\n%s", diff)
	}
	_, err = a.DeleteDocument(ctx, &configv1.DeleteDocumentRequest{Name: name})
	must(t, err)
	_, err = a.DeleteNamespace(ctx, &configv1.DeleteNamespaceRequest{Name: "namespaces/notes", ValidateOnly: true})
	must(t, err)
	r.set(a, name, `{}`)
}

func TestExplain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("owner"), t.Context()
	r.namespace(a, "notes", notesSchema)
	platform := r.set(a, "platform/config/notes", `{"terms":{"note":"Note"}}`)
	plan := r.set(a, "plans/business/config/notes", `{"page":50}`)
	r.set(a, "plans/free/config/notes", `{"page":5}`)
	own := r.set(a, "tenants/acme/config/notes", `{"terms":{"note":"Page"}}`)
	r.set(a, "tenants/globex/config/notes", `{"theme":"dark"}`)
	resp, err := a.ExplainSettings(ctx, &configv1.ExplainSettingsRequest{Name: "tenants/acme/config/notes"})
	must(t, err)
	e := resp.GetEffective()
	want := &configv1.Effective{
		Namespace: "notes", Content: `{"page":50,"terms":{"note":"Page"},"theme":"light"}`, Version: e.GetVersion(), Etag: `"` + e.GetVersion() + `"`,
		Provenance: []*configv1.Provenance{
			{Pointer: "/page", Layer: "plans/business", Revision: plan.GetRevision(), Shadowed: []string{"schema"}, Default: "20"},
			{Pointer: "/terms/note", Layer: "tenants/acme", Revision: own.GetRevision(), Shadowed: []string{"platform"}},
			{Pointer: "/theme", Layer: "schema", Default: `"light"`},
		},
	}
	if diff := cmp.Diff(want, e, protocmp.Transform()); diff != "" || len(e.GetVersion()) < 40 {
		t.Errorf("(-want +got)\n%s", diff)
	}
	var layers []string
	for _, l := range resp.GetLayers() {
		layers = append(layers, l.GetDocument())
	}
	if !slices.Equal(layers, []string{platform.GetName(), plan.GetName(), own.GetName()}) {
		t.Errorf("layers %v", layers)
	}
	if platform.GetRevision() >= plan.GetRevision() || plan.GetRevision() >= own.GetRevision() {
		t.Error("revisions do not grow")
	}
	_, err = a.ExplainSettings(ctx, &configv1.ExplainSettingsRequest{Name: "tenants/nobody/config/notes"})
	refused(t, "unknown tenant", err, codes.NotFound, fault.ReasonResourceNotFound)
	_, err = a.ExplainSettings(ctx, &configv1.ExplainSettingsRequest{Name: "tenants/acme/config/none"})
	refused(t, "unknown namespace", err, codes.NotFound, fault.ReasonResourceNotFound)
	_, err = a.ExplainSettings(ctx, &configv1.ExplainSettingsRequest{Name: "platform/config/notes"})
	refused(t, "not a tenant's", err, codes.InvalidArgument, fault.ReasonInvalidField)
}

// TestGetSettingsSeesItsTenantOnly asks as two tenants of two plans: each gets its own, and nothing of the other is in
// any answer.
func TestGetSettingsSeesItsTenantOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	r.namespace(a, "notes", `{}`)
	secrets := map[string]string{"acme": "canary-acme-7d1f", "globex": "canary-globex-93ab"}
	onPlan := map[string]string{"acme": "canary-business-1c2d", "globex": "canary-free-5e6f"}
	for id, secret := range secrets {
		r.set(a, "tenants/"+id+"/config/notes", `{"own":"`+secret+`"}`)
		r.set(a, "plans/"+plans()[id]+"/config/notes", `{"plan":"`+onPlan[id]+`"}`)
	}
	data := apiOf(r.gateway())
	for id, other := range map[string]string{"acme": "globex", "globex": "acme"} {
		ctx := r.issuer.In(t.Context(), t, id, func(c *tenant.Claims) { c.Plan = plans()[id] })
		resp, err := data.GetSettings(ctx, &configv1.GetSettingsRequest{Namespace: "notes", Provenance: true})
		must(t, err)
		want := fmt.Sprintf(`{"own":%q,"plan":%q}`, secrets[id], onPlan[id])
		if resp.GetEffective().GetContent() != want || len(resp.GetEffective().GetProvenance()) != 2 {
			t.Errorf("%s gets %v, want %s", id, resp.GetEffective(), want)
		}
		all := resp.String()
		for _, foreign := range []string{secrets[other], onPlan[other], other} {
			if strings.Contains(all, foreign) {
				t.Errorf("%s sees %q in %s", id, foreign, all)
			}
		}
		explained, err := a.ExplainSettings(t.Context(), &configv1.ExplainSettingsRequest{Name: "tenants/" + id + "/config/notes"})
		must(t, err)
		if diff := cmp.Diff(explained.GetEffective(), resp.GetEffective(), protocmp.Transform()); diff != "" {
			t.Errorf("explained and read (-explained +read)\n%s", diff)
		}
	}
	short, err := data.GetSettings(r.issuer.In(t.Context(), t, "acme"), &configv1.GetSettingsRequest{Namespace: "notes"})
	must(t, err)
	if len(short.GetEffective().GetProvenance()) > 0 {
		t.Error("a provenance nobody asked for")
	}
}

func TestGetSettingsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	data := apiOf(r.gateway())
	acme := r.issuer.In(t.Context(), t, "acme")
	_, err := data.GetSettings(acme, &configv1.GetSettingsRequest{Namespace: "none"})
	refused(t, "unknown namespace", err, codes.NotFound, fault.ReasonResourceNotFound)
	_, err = data.GetSettings(acme, &configv1.GetSettingsRequest{Namespace: "No"})
	refused(t, "no namespace", err, codes.InvalidArgument, fault.ReasonInvalidField)
	_, err = data.GetSettings(t.Context(), &configv1.GetSettingsRequest{Namespace: "brand"})
	if fault.ReasonOf(err) != fault.ReasonContextMissing && fault.ReasonOf(tenantgrpc.FromStatus(err)) != fault.ReasonContextMissing {
		t.Errorf("without a tenant: %v", err)
	}
	// An owner may do everything, except be a tenant.
	_, err = r.as("owner").GetSettings(t.Context(), &configv1.GetSettingsRequest{Namespace: "brand"})
	if status.Code(err) != codes.Unauthenticated && status.Code(err) != codes.PermissionDenied && status.Code(err) != codes.InvalidArgument {
		t.Errorf("an operator: %v", err)
	}
	other := r.issuer.In(t.Context(), t, "acme", func(c *tenant.Claims) { c.Audience = tenant.AudienceQuota | tenant.AudienceApp(16) })
	_, err = data.GetSettings(other, &configv1.GetSettingsRequest{Namespace: "brand"})
	refused(t, "another service's context", err, codes.PermissionDenied, fault.ReasonPresenterRefused)
}

// follow follows the service's feed into a store.
func (r *rig) follow(t *testing.T, store *settings.Store) *feed.Feed {
	t.Helper()
	keys, err := keyfile.Public(r.path("feed.pub"))
	must(t, err)
	f, err := settings.Follow(t.Context(), settings.FollowConfig{
		Config: r.gateway(), FeedKeys: keys, Replica: "gateway-1", Store: store, Dir: t.TempDir(),
	})
	must(t, err)
	t.Cleanup(f.Close)
	<-f.Ready()
	return f
}

// TestWatchersMergeWhatTheServiceAnswers follows the feed through writes of every kind; after each of them the store
// says what GetSettings says, to the version.
func TestWatchersMergeWhatTheServiceAnswers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	r.namespace(a, "notes", notesSchema)
	r.set(a, "platform/config/notes", `{"page":10}`)
	var store settings.Store
	r.follow(t, &store)
	data := apiOf(r.gateway())
	acme := func() context.Context {
		return r.issuer.In(t.Context(), t, "acme", func(c *tenant.Claims) { c.Plan = plans()["acme"] })
	}
	id, err := tenant.ParseID("acme")
	must(t, err)
	same := func(what string) {
		t.Helper()
		resp, err := data.GetSettings(acme(), &configv1.GetSettingsRequest{Namespace: "notes"})
		must(t, err)
		eventually(t, what, func() bool {
			e, ok := store.Effective(tenanttest.UID("acme"), plans()["acme"], id, "notes")
			return ok && e.Version == resp.GetEffective().GetVersion() && string(settings.Canonical(e.Object)) == resp.GetEffective().GetContent()
		})
	}
	same("the snapshot")
	r.set(a, "plans/business/config/notes", `{"page":11}`)
	same("a plan's document")
	first := r.set(a, "tenants/acme/config/notes", `{"page":12}`)
	same("a tenant's document")
	r.set(a, "tenants/globex/config/notes", `{"page":13}`)
	same("another tenant's document")
	r.set(a, "tenants/acme/config/notes", `{"page":14}`)
	same("a change")
	_, err = a.RollbackDocument(t.Context(), &configv1.RollbackDocumentRequest{Name: first.GetName(), Revision: first.GetRevision()})
	must(t, err)
	same("a rollback")
	_, err = a.DeleteDocument(t.Context(), &configv1.DeleteDocumentRequest{Name: first.GetName()})
	must(t, err)
	same("a deletion")
	_, err = a.UpdateNamespace(t.Context(), &configv1.UpdateNamespaceRequest{Namespace: &configv1.Namespace{
		Name: "namespaces/notes", Schema: `{"properties":{"fresh":{"default":true}}}`,
	}})
	must(t, err)
	same("another schema")
	_, err = a.UpdateDocument(t.Context(), &configv1.UpdateDocumentRequest{
		Document: &configv1.Document{Name: "tenants/acme/config/brand", Content: `{"name":"Acme","light":{"primary":"#0a3d62"}}`}, AllowMissing: true,
	})
	must(t, err)
	eventually(t, "a brand", func() bool {
		b, ok := store.Brand(tenanttest.UID("acme"), "business")
		return ok && b.Name == "Acme" && b.CSS() == ":root { --primary: #0a3d62; }\n"
	})
	if b, ok := store.Brand(tenanttest.UID("globex"), "free"); ok {
		t.Errorf("globex looks like %v", b)
	}
}

func TestWatchNeedsARight(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	stream, err := r.as("owner").WatchSettings(t.Context(), &configv1.WatchSettingsRequest{Replica: "x"})
	must(t, err)
	if _, err = stream.Recv(); err == nil {
		t.Error("an operator follows the feed")
	}
	stream, err = apiOf(r.gateway()).WatchSettings(t.Context(), &configv1.WatchSettingsRequest{})
	must(t, err)
	_, err = stream.Recv()
	refused(t, "no replica", err, codes.InvalidArgument, fault.ReasonInvalidField)
	stream, err = apiOf(r.gateway()).WatchSettings(t.Context(), &configv1.WatchSettingsRequest{Replica: "x", ResumeToken: []byte("x")})
	must(t, err)
	_, err = stream.Recv()
	refused(t, "bad token", err, codes.OutOfRange, fault.ReasonResync)
}

// TestWritersDoNotCross has two writes, each of them valid alone and both together not.
func TestWritersDoNotCross(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("owner"), t.Context()
	for i := range 10 {
		id := fmt.Sprintf("ns%d", i)
		r.namespace(a, id, `{"not":{"required":["a","b"]}}`)
		errs := make(chan error, 2)
		for _, req := range []*configv1.UpdateDocumentRequest{
			setting("platform/config/"+id, `{"a":1}`), setting("tenants/acme/config/"+id, `{"b":1}`),
		} {
			go func() {
				_, err := a.UpdateDocument(ctx, req)
				errs <- err
			}()
		}
		one, other := <-errs, <-errs
		if (one == nil) == (other == nil) {
			t.Fatalf("%v and %v", one, other)
		}
	}
}

func TestCallsAreAudited(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	r.namespace(a, "notes", notesSchema)
	r.set(a, "tenants/acme/config/notes", `{"page":3}`)
	_, err := a.GetDocument(t.Context(), &configv1.GetDocumentRequest{Name: "tenants/acme/config/notes"})
	must(t, err)
	for parent, want := range map[string][]string{
		"chains/" + tenanttest.UID("acme").String(): {"UpdateDocument", "GetDocument"},
		"chains/platform": {"CreateNamespace"},
	} {
		resp, err := a.ListEvents(t.Context(), &auditv1.ListEventsRequest{Parent: parent})
		must(t, err)
		for _, method := range want {
			if !strings.Contains(resp.String(), method) {
				t.Errorf("%s has no %s: %v", parent, method, resp)
			}
		}
	}
}
