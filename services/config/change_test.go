package config_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

const why = "a reason that is long enough"

// replaces, patches and removes are edits.
func replaces(name, content string) *configv1.ChangeEdit {
	return &configv1.ChangeEdit{Name: name, Content: content}
}

func patches(name, content string) *configv1.ChangeEdit {
	return &configv1.ChangeEdit{Name: name, Content: content, Form: configv1.ChangeEditForm_CHANGE_EDIT_FORM_MERGE_PATCH}
}

func removes(name string) *configv1.ChangeEdit {
	return &configv1.ChangeEdit{Name: name, Form: configv1.ChangeEditForm_CHANGE_EDIT_FORM_DELETE}
}

// propose makes a draft.
func (a api) propose(t *testing.T, id string, edits ...*configv1.ChangeEdit) (*configv1.Change, error) {
	t.Helper()
	resp, err := a.CreateChange(t.Context(), &configv1.CreateChangeRequest{
		ChangeId: id, Change: &configv1.Change{Reason: why, Edits: edits},
	})
	return resp.GetChange(), err
}

func (a api) submit(t *testing.T, id string) error {
	t.Helper()
	_, err := a.SubmitChange(t.Context(), &configv1.SubmitChangeRequest{Name: "changes/" + id})
	return err
}

// approve approves what a change is now.
func (a api) approve(t *testing.T, id string) error {
	t.Helper()
	c, _ := a.change(t, id)
	_, err := a.ApproveChange(t.Context(), &configv1.ApproveChangeRequest{Name: "changes/" + id, Digest: c.GetDigest()})
	return err
}

func (a api) publish(t *testing.T, id string) (*configv1.Change, error) {
	t.Helper()
	resp, err := a.PublishChange(t.Context(), &configv1.PublishChangeRequest{Name: "changes/" + id})
	return resp.GetChange(), err
}

func (a api) change(t *testing.T, id string) (*configv1.Change, *configv1.ChangeReview) {
	t.Helper()
	resp, err := a.GetChange(t.Context(), &configv1.GetChangeRequest{Name: "changes/" + id})
	must(t, err)
	return resp.GetChange(), resp.GetReview()
}

// content is a document's content, "" for none.
func (a api) content(t *testing.T, name string) string {
	t.Helper()
	resp, err := a.GetDocument(t.Context(), &configv1.GetDocumentRequest{Name: name})
	if status.Code(err) == codes.NotFound {
		return ""
	}
	must(t, err)
	return resp.GetDocument().GetContent()
}

// governed makes a namespace with an approval rule.
func (r *rig) governed(a api, id, schema string, count int32, layers ...string) *configv1.Namespace {
	r.tb.Helper()
	resp, err := a.CreateNamespace(r.tb.Context(), &configv1.CreateNamespaceRequest{NamespaceId: id, Namespace: &configv1.Namespace{
		Schema: schema, Approval: &configv1.NamespaceApproval{Layers: layers, Count: count},
	}})
	must(r.tb, err)
	return resp.GetNamespace()
}

// broken is what a refusal says of fields: "field: description".
func broken(err error) []string {
	var out []string
	for _, d := range status.Convert(err).Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok {
			for _, v := range bad.GetFieldViolations() {
				out = append(out, v.GetField()+": "+v.GetDescription())
			}
		}
	}
	return out
}

const portal = `{"properties":{"price":{"type":"number","default":1},"size":{"type":"number","default":10}}}`

func TestFromDraftToLive(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ada, bob := r.as("operator"), r.as("owner")
	ctx := t.Context()
	r.governed(bob, "portal", portal, 1, "plan", "platform")
	const doc = "plans/free/config/portal"
	draft, err := ada.propose(t, "prices", patches(doc, `{"price":12}`))
	must(t, err)
	if draft.GetState() != configv1.ChangeState_CHANGE_STATE_DRAFT || len(draft.GetDigest()) != 64 || len(draft.GetAuthors()) != 1 ||
		draft.GetEdits()[0].GetContent() != `{"price":12}` || draft.GetEdits()[0].GetForm() != configv1.ChangeEditForm_CHANGE_EDIT_FORM_REPLACE {
		t.Errorf("the draft is %v", draft)
	}
	_, review := ada.change(t, "prices")
	if d := review.GetEdits()[0].GetDifferences(); len(d) != 1 || d[0].GetPointer() != "/price" || d[0].GetBefore() != "" ||
		d[0].GetAfter() != "12" || review.GetRequiredApprovals() != 1 || review.GetRefusal().GetCode() != 0 {
		t.Errorf("the review is %v", review)
	}
	_, err = ada.publish(t, "prices")
	refused(t, "publish a draft", err, codes.FailedPrecondition, "APPROVAL_REQUIRED")
	refused(t, "approve a draft", bob.approve(t, "prices"), codes.FailedPrecondition, fault.ReasonWrongState)
	must(t, ada.submit(t, "prices"))
	refused(t, "submit twice", ada.submit(t, "prices"), codes.FailedPrecondition, fault.ReasonWrongState)
	refused(t, "approve one's own", ada.approve(t, "prices"), codes.PermissionDenied, "SELF_APPROVAL")
	_, err = bob.ApproveChange(ctx, &configv1.ApproveChangeRequest{Name: "changes/prices", Digest: strings.Repeat("0", 64)})
	refused(t, "approve something else", err, codes.Aborted, fault.ReasonEtagMismatch)
	if got := ada.content(t, doc); got != "" {
		t.Errorf("before it is live %s stands", got)
	}
	must(t, bob.approve(t, "prices"))
	approved, _ := ada.change(t, "prices")
	if approved.GetState() != configv1.ChangeState_CHANGE_STATE_APPROVED || len(approved.GetApprovals()) != 1 {
		t.Errorf("approved: %v", approved)
	}
	live, err := ada.publish(t, "prices")
	must(t, err)
	resp, err := ada.GetDocument(ctx, &configv1.GetDocumentRequest{Name: doc})
	must(t, err)
	d := resp.GetDocument()
	if live.GetState() != configv1.ChangeState_CHANGE_STATE_LIVE || d.GetContent() != `{"price":12}` || d.GetAuthor() != draft.GetAuthors()[0] ||
		d.GetReason() != why+" (changes/prices)" || live.GetEdits()[0].GetRevision() != d.GetRevision() {
		t.Errorf("live %v as %v", live, d)
	}
	got, err := apiOf(r.gateway()).GetSettings(r.acting(t, "globex"), &configv1.GetSettingsRequest{Namespace: "portal"})
	must(t, err)
	if got.GetEffective().GetContent() != `{"price":12,"size":10}` {
		t.Errorf("readers get %v", got)
	}
	for what, step := range map[string]error{
		"publish": second(ada.publish(t, "prices")), "submit": ada.submit(t, "prices"), "approve": bob.approve(t, "prices"),
		"cancel": second(ada.CancelChange(ctx, &configv1.CancelChangeRequest{Name: "changes/prices"})),
		"update": second(ada.UpdateChange(ctx, &configv1.UpdateChangeRequest{Change: &configv1.Change{Name: "changes/prices", Reason: why + "!"}})),
	} {
		refused(t, what+" what is live", step, codes.FailedPrecondition, fault.ReasonWrongState)
	}
	events, err := r.as("auditor").ListEvents(ctx, &auditv1.ListEventsRequest{Parent: "chains/platform", PageSize: 100})
	must(t, err)
	if !slices.ContainsFunc(events.GetEvents(), func(e *auditv1.Event) bool {
		return strings.HasSuffix(e.GetMethod(), "/PublishChange") && e.GetOutcome() == auditv1.Outcome_OUTCOME_OK &&
			slices.Contains(e.GetResources(), doc) && slices.Contains(e.GetResources(), "changes/prices") && slices.Contains(e.GetChangedPaths(), "content")
	}) {
		t.Error("the publication is not on record")
	}
}

// second is the error of a call.
func second[T any](_ T, err error) error { return err }

// All edits become live together, each as one revision, and in their order; or none does.
func TestSeveralTogether(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	ctx := t.Context()
	r.namespace(a, "portal", `{"properties":{"size":{"type":"number"}},"additionalProperties":false}`)
	r.namespace(a, "notes", `{}`)
	r.set(a, "tenants/acme/config/portal", `{"size":5}`)
	r.set(a, "platform/config/notes", `{"v":1,"w":1}`)
	edits := []*configv1.ChangeEdit{
		patches("namespaces/portal", `{"schema":{"properties":{"title":{"type":"string"}}}}`),
		patches("tenants/globex/config/portal", `{"title":"New"}`),
		removes("tenants/acme/config/portal"),
		{Name: "platform/config/notes", Content: `[{"op":"replace","path":"/v","value":2}]`, Form: configv1.ChangeEditForm_CHANGE_EDIT_FORM_JSON_PATCH},
		replaces("tenants/acme/environments/staging/config/notes", `{"v":3}`),
	}
	_, err := a.propose(t, "wrong", edits[1], edits[0])
	refused(t, "another order", err, codes.InvalidArgument, "SCHEMA_VIOLATION")
	if v := broken(err); len(v) != 1 || !strings.HasPrefix(v[0], "change.edits[0].content") {
		t.Errorf("violations %q", v)
	}
	_, err = a.propose(t, "wrong", edits[3], replaces("tenants/acme/config/portal", `{"size":"large"}`))
	refused(t, "one bad edit", err, codes.InvalidArgument, "SCHEMA_VIOLATION")
	_, err = a.propose(t, "all", edits...)
	must(t, err)
	// In between it becomes invalid: nothing of it is done.
	rev := r.set(a, "tenants/initech/config/portal", `{"size":7}`)
	_, err = a.UpdateNamespace(ctx, &configv1.UpdateNamespaceRequest{Namespace: &configv1.Namespace{
		Name: "namespaces/portal", Schema: `{"properties":{"size":{"type":"number"},"title":{"type":"number"}},"additionalProperties":false}`,
	}})
	must(t, err)
	_, err = a.publish(t, "all")
	refused(t, "what does not fit any more", err, codes.Aborted, fault.ReasonEtagMismatch)
	if got := a.content(t, "platform/config/notes"); got != `{"v":1,"w":1}` {
		t.Errorf("a part became live: %s", got)
	}
	_, err = a.UpdateNamespace(ctx, &configv1.UpdateNamespaceRequest{Namespace: &configv1.Namespace{
		Name: "namespaces/portal", Schema: `{"properties":{"size":{"type":"number"}},"additionalProperties":false}`,
	}})
	must(t, err)
	dry, err := a.PublishChange(ctx, &configv1.PublishChangeRequest{Name: "changes/all", ValidateOnly: true})
	must(t, err)
	if got := a.content(t, "platform/config/notes"); got != `{"v":1,"w":1}` || dry.GetChange().GetState() != configv1.ChangeState_CHANGE_STATE_LIVE {
		t.Errorf("a dry run did %s, and says %v", got, dry)
	}
	live, err := a.publish(t, "all")
	must(t, err)
	for name, want := range map[string]string{
		"tenants/globex/config/portal": `{"title":"New"}`, "tenants/acme/config/portal": "", "platform/config/notes": `{"v":2,"w":1}`,
		"tenants/acme/environments/staging/config/notes": `{"v":3}`, "tenants/initech/config/portal": `{"size":7}`,
	} {
		if got := a.content(t, name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	revisions, err := a.ListDocumentRevisions(ctx, &configv1.ListDocumentRevisionsRequest{Parent: "tenants/acme/config/portal"})
	must(t, err)
	if got := revisions.GetDocuments()[0]; got.GetContent() != "" || got.GetReason() != live.GetReason()+" (changes/all)" {
		t.Errorf("the removal is %v", got)
	}
	last := rev.GetRevision()
	for _, e := range live.GetEdits() {
		if e.GetRevision() <= last {
			t.Errorf("%s has revision %d after %d", e.GetName(), e.GetRevision(), last)
		}
		last = e.GetRevision()
	}
	for _, id := range []string{"acme", "globex"} {
		events, err := r.as("auditor").ListEvents(ctx, &auditv1.ListEventsRequest{Parent: "chains/" + tenanttest.UID(id).String()})
		must(t, err)
		if !slices.ContainsFunc(events.GetEvents(), func(e *auditv1.Event) bool {
			return strings.HasSuffix(e.GetMethod(), "/PublishChange") && e.GetOutcome() == auditv1.Outcome_OUTCOME_OK && !e.GetValidateOnly()
		}) {
			t.Errorf("the chain of %s does not tell of the publication", id)
		}
	}
}

// Others' changes of other leaves stay; of the same leaf nobody's is lost.
func TestChangesRebase(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("operator")
	ctx := t.Context()
	r.namespace(r.as("owner"), "portal", `{}`)
	const doc = "plans/free/config/portal"
	old := r.set(a, doc, `{"a":1,"b":1,"list":[1]}`)
	_, err := a.propose(t, "mine", replaces(doc, `{"a":2,"b":1,"list":[1]}`))
	must(t, err)
	r.set(a, doc, `{"a":1,"b":5,"list":[1],"new":true}`)
	_, err = a.publish(t, "mine")
	must(t, err)
	if got := a.content(t, doc); got != `{"a":2,"b":5,"list":[1],"new":true}` {
		t.Errorf("rebased to %s", got)
	}
	// From a revision that stood long ago.
	_, err = a.propose(t, "late", &configv1.ChangeEdit{Name: doc, Content: `{"a":1,"b":1,"list":[9]}`, BaseRevision: old.GetRevision()})
	must(t, err)
	r.set(a, doc, `{"a":2,"b":5,"list":[2]}`)
	_, review := a.change(t, "late")
	c := review.GetEdits()[0].GetConflicts()
	if len(c) != 1 || c[0].GetPointer() != "/list" || c[0].GetBase() != "[1]" || c[0].GetCurrent() != "[2]" || c[0].GetWanted() != "[9]" ||
		review.GetRefusal().GetCode() != int32(codes.Aborted) {
		t.Errorf("conflicts %v", review)
	}
	_, err = a.publish(t, "late")
	refused(t, "over another's change", err, codes.Aborted, fault.ReasonEtagMismatch)
	if v := broken(err); len(v) != 1 || v[0] != "change.edits[0].content/list: was [1], is [2] now, and the change wants [9]" {
		t.Errorf("violations %q", v)
	}
	// Written anew it is about what stands now.
	_, err = a.UpdateChange(ctx, &configv1.UpdateChangeRequest{Change: &configv1.Change{
		Name: "changes/late", Edits: []*configv1.ChangeEdit{patches(doc, `{"list":[2,9]}`)},
	}})
	must(t, err)
	_, err = a.publish(t, "late")
	must(t, err)
	// What somebody else did already is nothing to do.
	_, err = a.propose(t, "idle", patches(doc, `{"a":7}`))
	must(t, err)
	set := r.set(a, doc, `{"a":7,"b":5,"list":[2,9]}`)
	live, err := a.publish(t, "idle")
	must(t, err)
	got, err := a.GetDocument(ctx, &configv1.GetDocumentRequest{Name: doc})
	must(t, err)
	if live.GetEdits()[0].GetRevision() != 0 || got.GetDocument().GetRevision() != set.GetRevision() {
		t.Errorf("%v wrote revision %v", live, got)
	}
}

func TestChangesRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	ctx := t.Context()
	r.namespace(a, "portal", portal)
	r.set(a, "plans/free/config/portal", `{"price":1}`)
	const doc = "plans/free/config/portal"
	many := make([]*configv1.ChangeEdit, 21)
	for i := range many {
		many[i] = replaces(fmt.Sprintf("plans/p%d/config/portal", i), `{}`)
	}
	large := make([]*configv1.ChangeEdit, 3)
	for i := range large {
		name := fmt.Sprintf("plans/p%d/config/portal", i)
		r.set(a, name, `{"x":"`+strings.Repeat("x", 200_000)+`"}`)
		large[i] = replaces(name, `{"x":"`+strings.Repeat("y", 200_000)+`"}`)
	}
	for what, tt := range map[string]struct {
		edits  []*configv1.ChangeEdit
		code   codes.Code
		reason string
	}{
		"nothing":               {nil, codes.InvalidArgument, fault.ReasonInvalidField},
		"no JSON":               {[]*configv1.ChangeEdit{replaces(doc, `{`)}, codes.InvalidArgument, "MALFORMED_DOCUMENT"},
		"no schema":             {[]*configv1.ChangeEdit{replaces(doc, `{"price":"x"}`)}, codes.InvalidArgument, "SCHEMA_VIOLATION"},
		"no difference":         {[]*configv1.ChangeEdit{replaces(doc, `{"price":1.0}`)}, codes.InvalidArgument, fault.ReasonInvalidField},
		"twice":                 {[]*configv1.ChangeEdit{patches(doc, `{"price":2}`), patches(doc, `{"size":2}`)}, codes.InvalidArgument, fault.ReasonInvalidField},
		"too many":              {many, codes.InvalidArgument, fault.ReasonInvalidField},
		"too much":              {large, codes.InvalidArgument, fault.ReasonInvalidField},
		"no namespace":          {[]*configv1.ChangeEdit{replaces("platform/config/none", `{}`)}, codes.NotFound, fault.ReasonResourceNotFound},
		"no tenant":             {[]*configv1.ChangeEdit{replaces("tenants/nobody/config/portal", `{"price":2}`)}, codes.NotFound, fault.ReasonResourceNotFound},
		"no revision":           {[]*configv1.ChangeEdit{{Name: doc, Content: `{}`, BaseRevision: 1 << 40}}, codes.NotFound, fault.ReasonResourceNotFound},
		"removes what is not":   {[]*configv1.ChangeEdit{removes("platform/config/portal")}, codes.NotFound, fault.ReasonResourceNotFound},
		"removes a namespace":   {[]*configv1.ChangeEdit{removes("namespaces/portal")}, codes.InvalidArgument, fault.ReasonInvalidField},
		"content of a deletion": {[]*configv1.ChangeEdit{{Name: doc, Content: `{}`, Form: configv1.ChangeEditForm_CHANGE_EDIT_FORM_DELETE}}, codes.InvalidArgument, fault.ReasonInvalidField},
		"kills":                 {[]*configv1.ChangeEdit{replaces("platform/config/flag-kills", `{"x":{}}`)}, codes.FailedPrecondition, "NAMESPACE_IN_USE"},
		"a test that fails": {[]*configv1.ChangeEdit{{Name: doc, Content: `[{"op":"test","path":"/price","value":9}]`, Form: configv1.ChangeEditForm_CHANGE_EDIT_FORM_JSON_PATCH}},
			codes.FailedPrecondition, "PATCH_TEST_FAILED"},
		"no rule":          {[]*configv1.ChangeEdit{patches("namespaces/portal", `{"approval":{"layers":["planet"]}}`)}, codes.InvalidArgument, fault.ReasonInvalidField},
		"no member":        {[]*configv1.ChangeEdit{patches("namespaces/portal", `{"uid":"x"}`)}, codes.InvalidArgument, fault.ReasonInvalidField},
		"no JSON Schema":   {[]*configv1.ChangeEdit{patches("namespaces/portal", `{"schema":{"type":7}}`)}, codes.InvalidArgument, "SCHEMA_INVALID"},
		"a schema that is": {[]*configv1.ChangeEdit{patches("namespaces/portal", `{"schema":{"properties":{"price":{"maximum":0,"default":0}}}}`)}, codes.InvalidArgument, "SCHEMA_VIOLATION"},
	} {
		_, err := a.propose(t, "bad", tt.edits...)
		refused(t, what, err, tt.code, tt.reason)
	}
	_, err := a.CreateChange(ctx, &configv1.CreateChangeRequest{ChangeId: "bad", Change: &configv1.Change{Reason: "too short", Edits: many[:1]}})
	refused(t, "no reason", err, codes.InvalidArgument, fault.ReasonInvalidField)
	made, err := a.propose(t, "good", patches(doc, `{"price":2}`))
	must(t, err)
	_, err = a.propose(t, "good", patches(doc, `{"price":2}`))
	refused(t, "twice the same id", err, codes.AlreadyExists, fault.ReasonResourceExists)
	_, err = a.UpdateChange(ctx, &configv1.UpdateChangeRequest{Change: &configv1.Change{Name: "changes/good", Reason: why + "!", Etag: `"x"`}})
	refused(t, "stale", err, codes.Aborted, fault.ReasonEtagMismatch)
	same, err := a.UpdateChange(ctx, &configv1.UpdateChangeRequest{Change: made, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"reason", "edits"}}})
	must(t, err)
	if same.GetChange().GetEtag() != made.GetEtag() {
		t.Errorf("nothing new made %v of %v", same, made)
	}
	for what, err := range map[string]error{
		"get":      second(a.GetChange(ctx, &configv1.GetChangeRequest{Name: "changes/none"})),
		"publish":  second(a.publish(t, "none")),
		"submit":   a.submit(t, "none"),
		"schedule": second(a.ScheduleChange(ctx, &configv1.ScheduleChangeRequest{Name: "changes/none", NotBefore: later()})),
	} {
		refused(t, what, err, codes.NotFound, fault.ReasonResourceNotFound)
	}
	list, err := a.ListChanges(ctx, &configv1.ListChangesRequest{State: configv1.ChangeState_CHANGE_STATE_DRAFT, Namespace: "namespaces/portal"})
	must(t, err)
	if len(list.GetChanges()) != 1 || list.GetChanges()[0].GetName() != "changes/good" || list.GetChanges()[0].GetEdits()[0].GetContent() != "" {
		t.Errorf("listed %v", list)
	}
	for i := range 5 {
		_, err := a.propose(t, fmt.Sprintf("more-%d", i), patches(doc, `{"price":2}`))
		must(t, err)
	}
	var names []string
	for token := "first"; token != ""; {
		page, err := a.ListChanges(ctx, &configv1.ListChangesRequest{PageSize: 2, PageToken: strings.TrimPrefix(token, "first")})
		must(t, err)
		for _, c := range page.GetChanges() {
			names = append(names, c.GetName())
		}
		token = page.GetNextPageToken()
	}
	if got := strings.Join(names, " "); got != "changes/more-4 changes/more-3 changes/more-2 changes/more-1 changes/more-0 changes/good" {
		t.Errorf("pages hold %s", got)
	}
}
