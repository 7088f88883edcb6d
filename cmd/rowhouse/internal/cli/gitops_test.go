package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
)

// keeper is a config service that keeps documents in memory. Its calls come one after the other.
type keeper struct {
	documents map[string]*configv1.Document
	schemas   map[string]*configv1.Namespace
	revision  int64
	reasons   []string
	proposed  []*configv1.Change
}

func newKeeper() *keeper {
	return &keeper{documents: map[string]*configv1.Document{}, schemas: map[string]*configv1.Namespace{}}
}

func refusedBy(c codes.Code, reason, format string, args ...any) error {
	s, err := status.New(c, fmt.Sprintf(format, args...)).WithDetails(&errdetails.ErrorInfo{Reason: reason, Domain: "rowhouse.config"})
	if err != nil {
		return err
	}
	return s.Err()
}

func (k *keeper) set(name, content string) {
	k.revision++
	k.documents[name] = &configv1.Document{Name: name, Content: content, Revision: k.revision, Etag: strconv.FormatInt(k.revision, 10)}
}

func (k *keeper) schema(name, content string) {
	k.revision++
	k.schemas[name] = &configv1.Namespace{Name: name, Schema: content, Revision: k.revision, Etag: strconv.FormatInt(k.revision, 10)}
}

func (k *keeper) answers() map[string]answer {
	return map[string]answer{
		"NamespaceService/ListNamespaces": func(context.Context, proto.Message) (proto.Message, error) {
			out := &configv1.ListNamespacesResponse{}
			for _, n := range k.schemas {
				out.Namespaces = append(out.Namespaces, n)
			}
			return out, nil
		},
		"NamespaceService/CreateNamespace": func(_ context.Context, m proto.Message) (proto.Message, error) {
			req := m.(*configv1.CreateNamespaceRequest)
			if !req.GetValidateOnly() {
				k.schema("namespaces/"+req.GetNamespaceId(), req.GetNamespace().GetSchema())
			}
			return &configv1.CreateNamespaceResponse{}, nil
		},
		"NamespaceService/UpdateNamespace": k.updateNamespace,
		"ChangeService/CreateChange": func(_ context.Context, m proto.Message) (proto.Message, error) {
			req := m.(*configv1.CreateChangeRequest)
			c := req.GetChange()
			c.Name, c.Etag = "changes/"+req.GetChangeId(), "7"
			if !req.GetValidateOnly() {
				k.proposed = append(k.proposed, c)
			}
			return &configv1.CreateChangeResponse{Change: c}, nil
		},
		"ChangeService/SubmitChange": func(_ context.Context, m proto.Message) (proto.Message, error) {
			req := m.(*configv1.SubmitChangeRequest)
			if req.GetEtag() != "7" {
				return nil, refusedBy(codes.Aborted, "ETAG_MISMATCH", "changed")
			}
			return &configv1.SubmitChangeResponse{Change: &configv1.Change{
				Name: req.GetName(), State: configv1.ChangeState_CHANGE_STATE_SUBMITTED, Digest: "6f0c",
			}}, nil
		},
		"DocumentService/ListDocuments": k.list, "DocumentService/UpdateDocument": k.update,
		"DocumentService/DeleteDocument": func(_ context.Context, m proto.Message) (proto.Message, error) {
			req := m.(*configv1.DeleteDocumentRequest)
			if d := k.documents[req.GetName()]; d == nil || d.GetEtag() != req.GetEtag() {
				return nil, refusedBy(codes.Aborted, "ETAG_MISMATCH", "changed")
			}
			if !req.GetValidateOnly() {
				delete(k.documents, req.GetName())
			}
			return &configv1.DeleteDocumentResponse{}, nil
		},
	}
}

func (k *keeper) updateNamespace(_ context.Context, m proto.Message) (proto.Message, error) {
	req := m.(*configv1.UpdateNamespaceRequest)
	given := req.GetNamespace()
	is := k.schemas[given.GetName()]
	switch {
	case is == nil:
		return nil, refusedBy(codes.NotFound, "RESOURCE_NOT_FOUND", "%s does not exist", given.GetName())
	case given.GetEtag() != "" && given.GetEtag() != is.GetEtag():
		return nil, refusedBy(codes.Aborted, "ETAG_MISMATCH", "the resource changed since its etag was read")
	case is.GetApproval() != nil && given.GetApproval() == nil:
		return nil, refusedBy(codes.FailedPrecondition, "APPROVAL_REQUIRED", "the rule would be weaker")
	case req.GetValidateOnly():
		return &configv1.UpdateNamespaceResponse{Namespace: is}, nil
	}
	schema, approval := is.GetSchema(), is.GetApproval()
	switch req.GetUpdateMask().GetPaths()[0] {
	case "schema":
		schema = given.GetSchema()
	case "approval":
		approval = given.GetApproval()
	}
	k.schema(given.GetName(), schema)
	k.schemas[given.GetName()].Approval = approval
	return &configv1.UpdateNamespaceResponse{Namespace: k.schemas[given.GetName()]}, nil
}

func (k *keeper) list(_ context.Context, m proto.Message) (proto.Message, error) {
	req, out := m.(*configv1.ListDocumentsRequest), &configv1.ListDocumentsResponse{}
	prefix, wild := strings.CutSuffix(req.GetParent(), "-")
	var names []string
	for name := range k.documents {
		if wild && strings.HasPrefix(name, prefix) || strings.HasPrefix(name, req.GetParent()+"/config/") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names { // pages of one
		if name > req.GetPageToken() && len(out.GetDocuments()) == 0 {
			out.Documents, out.NextPageToken = append(out.Documents, k.documents[name]), name
		}
	}
	return out, nil
}

func (k *keeper) update(_ context.Context, m proto.Message) (proto.Message, error) {
	req := m.(*configv1.UpdateDocumentRequest)
	name, etag := req.GetDocument().GetName(), req.GetDocument().GetEtag()
	is := k.documents[name]
	if is == nil {
		is = &configv1.Document{Name: name, Etag: "none"}
	}
	_, namespace, _ := strings.Cut(name, "/config/")
	switch {
	case k.schemas["namespaces/"+namespace] == nil:
		return nil, refusedBy(codes.NotFound, "RESOURCE_NOT_FOUND", "namespaces/%s does not exist", namespace)
	case is.GetRevision() == 0 && !req.GetAllowMissing():
		return nil, refusedBy(codes.NotFound, "RESOURCE_NOT_FOUND", "%s does not exist", name)
	case etag != "" && etag != is.GetEtag():
		return nil, refusedBy(codes.Aborted, "ETAG_MISMATCH", "the resource changed since its etag was read")
	case strings.Contains(req.GetDocument().GetContent(), "wrong"):
		return nil, refusedBy(codes.InvalidArgument, "SCHEMA_VIOLATION", "breaks a rule (in tenants/acme)")
	case req.GetValidateOnly():
		return &configv1.UpdateDocumentResponse{Document: is}, nil
	}
	k.reasons = append(k.reasons, req.GetReason())
	k.set(name, req.GetDocument().GetContent())
	return &configv1.UpdateDocumentResponse{Document: k.documents[name]}, nil
}

func put(t *testing.T, dir, at, text string) {
	t.Helper()
	at = filepath.Join(dir, at)
	if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (r result) says(t *testing.T, what string, code int, words ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("%s: status %d, want %d\n%s%s", what, r.code, code, r.out, r.err)
	}
	for _, w := range words {
		if !strings.Contains(r.out+r.err, w) {
			t.Errorf("%s does not say %q:\n%s%s", what, w, r.out, r.err)
		}
	}
}

func TestSettingsAsFiles(t *testing.T) {
	t.Parallel()
	k, dir := newKeeper(), filepath.Join(t.TempDir(), "tree")
	k.schema("namespaces/portal", `{"type":"object"}`)
	k.set("platform/config/portal", `{"title":"Notes"}`)
	k.set("plans/free/config/portal", `{"page":{"size":10}}`)
	k.set("tenants/acme/config/portal", `{"title":"Acme"}`)
	h := &house{answers: k.answers()}
	h.run(t, "config", "export", dir).says(t, "export", 0, "namespaces/portal.yaml\n", "platform/portal.yaml\n", "rowhouse.yaml")
	h.run(t, "config", "drift", "-f", dir).says(t, "drift", 0, "agree")
	k.set("plans/free/config/portal", `{"page":{"size":11}}`)
	k.set("tenants/acme/config/portal", `{"title":"their own"}`)
	h.run(t, "config", "drift", "-f", dir).says(t, "drift", 1, "~ plans/free/config/portal", "/page/size: 11 -> 10", "differ in 1")

	put(t, dir, "platform/portal.yaml", "# renamed in autumn\ntitle: Our notes\n")
	put(t, dir, "namespaces/more.yaml", "{}\n")
	put(t, dir, "plans/free/more.yaml", "a: 1\n")
	plan := h.run(t, "config", "plan", "-f", dir)
	plan.says(t, "plan", 0, "+ namespaces/more", "+ plans/free/config/more", "open until", "/title: \"Notes\" -> \"Our notes\"", "2 to create, 2 to update, 0 to delete")
	var told struct {
		Changes []struct{ Action, Name, Check string }
	}
	if err := json.Unmarshal([]byte(h.run(t, "config", "plan", "-f", dir, "-o", "json").out), &told); err != nil || len(told.Changes) != 4 ||
		told.Changes[0].Name != "namespaces/more" || told.Changes[0].Check != "accepted" {
		t.Errorf("%+v, %v", told, err)
	}
	h.run(t, "config", "apply", "-f", dir).says(t, "apply without --yes", 2, "nothing was changed", "--yes")
	h.run(t, "config", "apply", "-f", dir, "--yes", "--reason", "merge of #1").says(t, "apply", 0, "created namespaces/more", "updated platform/config/portal")
	h.run(t, "config", "apply", "-f", dir, "--yes").says(t, "apply again", 0, "agree")
	if len(k.reasons) != 3 || k.reasons[0] != "merge of #1" {
		t.Errorf("reasons %q", k.reasons)
	}
	if err := os.Remove(filepath.Join(dir, "plans/free/more.yaml")); err != nil {
		t.Fatal(err)
	}
	h.run(t, "config", "plan", "-f", dir).says(t, "plan", 0, "plans/free/config/more is in no file", "--prune")
	h.run(t, "config", "drift", "-f", dir, "--namespaces", "portal").says(t, "drift of the rest", 0)
	h.run(t, "config", "apply", "-f", dir, "--prune", "--yes").says(t, "prune", 0, "deleted plans/free/config/more")
	if k.documents["tenants/acme/config/portal"] == nil {
		t.Error("what the tree is not about was deleted")
	}
}

func TestApplyOneFile(t *testing.T) {
	t.Parallel()
	k, dir := newKeeper(), t.TempDir()
	k.schema("namespaces/portal", `{}`)
	h := &house{answers: k.answers(), stdin: "title: From a pipe\n"}
	h.run(t, "config", "apply", "acme", "portal", "-f", "-", "--yes").says(t, "a pipe", 0, "created tenants/acme/config/portal")
	if got := k.documents["tenants/acme/config/portal"].GetContent(); got != `{"title":"From a pipe"}` {
		t.Error(got)
	}
	put(t, dir, "a.json", `{"title": "From a file"}`)
	h.run(t, "config", "drift", "acme", "portal", "-f", filepath.Join(dir, "a.json")).says(t, "drift", 1, `"From a pipe" -> "From a file"`)
	h.run(t, "config", "apply", "tenants/acme/environments/staging", "portal", "-f", filepath.Join(dir, "a.json"), "--yes", "-o", "json").
		says(t, "an environment", 0, `"done": true`)
	h.run(t, "config", "plan", "-f", filepath.Join(dir, "a.json")).says(t, "a file alone", 2, "say whose it is")
	h.run(t, "config", "plan", "acme", "flag-kills", "-f", filepath.Join(dir, "a.json")).says(t, "kills", 2, "not the name of a document")
}

func TestFilesThatAreRefused(t *testing.T) {
	t.Parallel()
	k, dir := newKeeper(), t.TempDir()
	k.schema("namespaces/portal", `{}`)
	k.set("platform/config/portal", `{}`)
	h := &house{answers: k.answers()}
	put(t, dir, "platform/portal.yaml", "title: x\nlegacy: no\n")
	for _, verb := range []string{"plan", "apply", "drift"} {
		h.run(t, "config", verb, "-f", dir).says(t, verb, 2, "platform/portal.yaml:2: /legacy: no is a text for some readers")
	}
	put(t, dir, "platform/portal.yaml", "title: wrong\n")
	put(t, dir, "plans/free/portal.yaml", "a: 1\n")
	h.run(t, "config", "plan", "-f", dir).says(t, "plan", 1, "! refused: breaks a rule (in tenants/acme)", "SCHEMA_VIOLATION")
	h.run(t, "config", "apply", "-f", dir, "--yes").says(t, "apply", 1, "nothing was changed")
	if len(k.documents) != 1 {
		t.Errorf("%v", k.documents)
	}
	put(t, dir, "platform/portal.yaml", "{}\n")
	answers := k.answers()
	answers["DocumentService/UpdateDocument"] = func(ctx context.Context, m proto.Message) (proto.Message, error) {
		if !m.(*configv1.UpdateDocumentRequest).GetValidateOnly() {
			return nil, refusedBy(codes.Aborted, "ETAG_MISMATCH", "the resource changed since its etag was read")
		}
		return k.update(ctx, m)
	}
	late := &house{answers: answers}
	late.run(t, "config", "apply", "-f", dir, "--yes").says(t, "a change in between", 1, "stopped after 0 of 1 changes", "ETAG_MISMATCH", "again goes on")

	viewer := k.answers()
	viewer["DocumentService/UpdateDocument"] = refuse(refusedBy(codes.PermissionDenied, "PERMISSION_DENIED", "no"))
	reader := &house{answers: viewer}
	reader.run(t, "config", "plan", "-f", dir).says(t, "a plan of who may read", 0, "not checked")
	reader.run(t, "config", "apply", "-f", dir, "--yes").says(t, "an apply of who may read", 4, "stopped after 0")
	away := &house{answers: map[string]answer{"NamespaceService/ListNamespaces": refuse(status.Error(codes.Unavailable, "gone"))}}
	away.run(t, "config", "drift", "-f", dir).says(t, "drift without a house", 5)
	h.run(t, "config", "drift", "-f", dir, "--layers", "plan/free").says(t, "a layer that is none", 2, "no layer")
	h.run(t, "config", "plan", "-f", dir, "--overrides", "x").says(t, "no policy", 2, "neither refuse nor shadow")
}

func TestApplyAsks(t *testing.T) {
	t.Parallel()
	for said, code := range map[string]int{"yes\n": 0, "y\n": 1, "": 1} {
		k, dir := newKeeper(), t.TempDir()
		k.schema("namespaces/portal", `{}`)
		put(t, dir, "platform/portal.yaml", "title: x\n")
		h := &house{answers: k.answers(), stdin: said, terminal: true}
		h.run(t, "config", "apply", "-f", dir).says(t, said, code, "About to make 1 changes.")
		if made := len(k.documents) == 1; made != (code == 0) {
			t.Errorf("after %q: %v", said, k.documents)
		}
	}
}

// An approval rule has a file of its own, which is applied last.
func TestApprovalRulesAsFiles(t *testing.T) {
	t.Parallel()
	k, dir := newKeeper(), filepath.Join(t.TempDir(), "tree")
	k.schema("namespaces/portal", `{}`)
	k.schemas["namespaces/portal"].Approval = &configv1.NamespaceApproval{Layers: []string{"plan", "platform"}, Count: 2}
	k.schema("namespaces/free", `{}`)
	h := &house{answers: k.answers()}
	h.run(t, "config", "export", dir).says(t, "export", 0, "approvals/portal.yaml\n")
	text, err := os.ReadFile(filepath.Join(dir, "approvals/portal.yaml"))
	if err != nil || string(text) != "count: 2\nlayers:\n  - plan\n  - platform\n" {
		t.Errorf("the rule is written as %q, %v", text, err)
	}
	put(t, dir, "approvals/portal.yaml", "# two from sales\nlayers: [platform, plan]\ncount: 2\n")
	h.run(t, "config", "drift", "-f", dir).says(t, "drift", 0, "agree")
	put(t, dir, "approvals/portal.yaml", "layers: [platform]\n")
	h.run(t, "config", "drift", "-f", dir).says(t, "drift", 1, "~ approvals/portal", "/count: 2 -> 1")
	k.schemas["namespaces/portal"].Approval = nil // somebody took the rule away
	put(t, dir, "namespaces/portal.yaml", "title: new\n")
	put(t, dir, "platform/portal.yaml", "a: 1\n")
	put(t, dir, "namespaces/more.yaml", "{}\n")
	put(t, dir, "approvals/more.yaml", "layers: [environments/live]\n")
	h.run(t, "config", "plan", "-f", dir).says(t, "plan", 0, "+ approvals/more", "+ approvals/portal", "open until")
	done := h.run(t, "config", "apply", "-f", dir, "--yes")
	done.says(t, "apply", 0, "created approvals/portal", "created approvals/more")
	if strings.Index(done.out, "created platform/config/portal") > strings.Index(done.out, "created approvals/") {
		t.Errorf("the rule comes before the documents:\n%s", done.out)
	}
	if a := k.schemas["namespaces/portal"].GetApproval(); len(a.GetLayers()) != 1 || a.GetCount() != 1 || k.schemas["namespaces/portal"].GetSchema() != `{"title":"new"}` {
		t.Errorf("the namespace is %v", k.schemas["namespaces/portal"])
	}
	h.run(t, "config", "apply", "-f", dir, "--yes").says(t, "again", 0, "agree")
	if err := os.Remove(filepath.Join(dir, "approvals/portal.yaml")); err != nil {
		t.Fatal(err)
	}
	h.run(t, "config", "apply", "-f", dir, "--prune", "--yes").says(t, "a weaker rule", 1, "- approvals/portal", "APPROVAL_REQUIRED", "--as-change")
	for text, why := range map[string]string{
		"layers: []\n": "names layers", "count: 1\n": "names layers", "layers: [plan]\nwho: me\n": "/who is no member", "layers: plan\n": "a list of texts",
		"layers: [plan]\ncount: 1.5\n": "a whole number",
	} {
		put(t, dir, "approvals/portal.yaml", text)
		h.run(t, "config", "plan", "-f", dir).says(t, text, 2, "approvals/portal.yaml", why)
	}
}

// A plan can be proposed as one change instead of being applied.
func TestApplyAsChange(t *testing.T) {
	t.Parallel()
	k, dir := newKeeper(), t.TempDir()
	k.schema("namespaces/portal", `{}`)
	k.schemas["namespaces/portal"].Approval = &configv1.NamespaceApproval{Layers: []string{"plan"}, Count: 1}
	k.set("plans/free/config/portal", `{"a":1}`)
	k.set("plans/old/config/portal", `{}`)
	h := &house{answers: k.answers()}
	put(t, dir, "namespaces/portal.yaml", "title: new\n")
	put(t, dir, "plans/free/portal.yaml", "a: 2\n")
	put(t, dir, "plans/new/portal.yaml", "a: 3\n")
	args := []string{"config", "apply", "-f", dir, "--prune", "--as-change", "merge-1", "--reason", "merge of #1"}
	h.run(t, args...).says(t, "without --yes", 2, "propose 4 edits as changes/merge-1")
	if len(k.proposed) > 0 {
		t.Error("it was made before anybody agreed")
	}
	h.run(t, append(args, "--yes")...).says(t, "as a change", 0, "~ plans/free/config/portal", "/a: 1 -> 2",
		"proposed changes/merge-1, which is submitted; digest 6f0c")
	if len(k.proposed) != 1 || k.documents["plans/free/config/portal"].GetContent() != `{"a":1}` {
		t.Fatalf("proposed is %v, and set %v", k.proposed, k.documents)
	}
	var got []string
	for _, e := range k.proposed[0].GetEdits() {
		got = append(got, fmt.Sprintf("%s %s %s %d", e.GetName(), strings.TrimPrefix(e.GetForm().String(), "CHANGE_EDIT_FORM_"), e.GetContent(), e.GetBaseRevision()))
	}
	want := []string{
		`namespaces/portal JSON_PATCH [{"op":"add","path":"/schema","value":{"title":"new"}},{"op":"remove","path":"/approval"}] 1`,
		`plans/free/config/portal REPLACE {"a":2} 2`, `plans/new/config/portal REPLACE {"a":3} 0`, `plans/old/config/portal DELETE  3`,
	}
	if k.proposed[0].GetReason() != "merge of #1" || !slices.Equal(got, want) {
		t.Errorf("proposed is %q, want %q", got, want)
	}
	var told struct{ Proposed string }
	if err := json.Unmarshal([]byte(h.run(t, append(args, "--yes", "-o", "json")...).out), &told); err != nil || told.Proposed != "changes/merge-1" {
		t.Errorf("%+v, %v", told, err)
	}
	h.run(t, append(args, "--yes", "--overrides", "shadow")...).says(t, "shadow", 2, "not possible")
	put(t, dir, "namespaces/more.yaml", "{}\n")
	h.run(t, append(args, "--yes")...).says(t, "a new namespace", 1, "nothing was proposed", "cannot create namespaces/more", "--namespaces more")
	h.run(t, append(args, "--yes", "--namespaces", "portal")...).says(t, "the rest", 0, "proposed")
	for i := range 20 {
		put(t, dir, fmt.Sprintf("plans/p%d/portal.yaml", i), "a: 1\n")
	}
	h.run(t, append(args, "--yes", "--namespaces", "portal")...).says(t, "too much", 1, "the plan has 24 edits, and a change holds 20", "portal: 24")

	late := k.answers()
	late["ChangeService/CreateChange"] = refuse(refusedBy(codes.AlreadyExists, "RESOURCE_EXISTS", "changes/merge-1 exists; ids are never free again"))
	gone := &house{answers: late}
	gone.run(t, "config", "apply", "plans/free", "portal", "-f", filepath.Join(dir, "plans/free/portal.yaml"), "--as-change", "merge-1", "--yes").
		says(t, "an id that is taken", 1, "nothing was proposed", "RESOURCE_EXISTS")

	k.proposed = nil
	meanwhile := k.answers()
	create := meanwhile["ChangeService/CreateChange"]
	meanwhile["ChangeService/CreateChange"] = func(ctx context.Context, m proto.Message) (proto.Message, error) {
		answer, err := create(ctx, m)
		if req := m.(*configv1.CreateChangeRequest); !req.GetValidateOnly() { // it was not there a moment ago
			answer.(*configv1.CreateChangeResponse).GetChange().GetEdits()[0].BaseRevision = 99
		}
		return answer, err
	}
	made := &house{answers: meanwhile}
	made.run(t, "config", "apply", "plans/new", "portal", "-f", filepath.Join(dir, "plans/new/portal.yaml"), "--as-change", "merge-2", "--yes").
		says(t, "a document made meanwhile", 1, "changes/merge-2 is a draft, and was not submitted", "plans/new/config/portal was made meanwhile")
	for _, c := range made.calls() {
		if c.method == "ChangeService/SubmitChange" {
			t.Error("it was submitted")
		}
	}
}
