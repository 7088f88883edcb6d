package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"

	"github.com/rowhouse-platform/rowhouse/cmd/rowhouse/internal/gitops"
)

const (
	namespaceService = "rowhouse.config.v1.NamespaceService"
	changeService    = "rowhouse.config.v1.ChangeService"
)

// configHouse is the config service of the chosen installation, for package gitops.
type configHouse struct {
	app     *app
	command *cobra.Command
	reason  string
	shadow  configv1.OverridePolicy
}

func newConfigHouse(a *app, c *cobra.Command, overrides string) (*configHouse, error) {
	policy, ok := map[string]configv1.OverridePolicy{
		"": configv1.OverridePolicy_OVERRIDE_POLICY_REFUSE, "refuse": configv1.OverridePolicy_OVERRIDE_POLICY_REFUSE,
		"shadow": configv1.OverridePolicy_OVERRIDE_POLICY_SHADOW,
	}[overrides]
	if !ok {
		return nil, usagef("--overrides %s is neither refuse nor shadow", overrides)
	}
	return &configHouse{app: a, command: c, shadow: policy}, nil
}

// ask calls an RPC of config.
func ask[Response proto.Message](ctx context.Context, h *configHouse, service, rpc string, request proto.Message) (Response, error) {
	r := newCall(method(service, rpc))
	r.request = request
	answer, err := h.app.do(ctx, h.command, r)
	response, ok := answer.(Response)
	if err == nil && !ok {
		err = fmt.Errorf("%s answers with a %T", rpc, answer)
	}
	return response, err
}

const documentsPage = 100

// Namespaces implements gitops.House.
func (h *configHouse) Namespaces(ctx context.Context) ([]gitops.Item, error) {
	var out []gitops.Item
	request := &configv1.ListNamespacesRequest{PageSize: documentsPage}
	for {
		page, err := ask[*configv1.ListNamespacesResponse](ctx, h, namespaceService, "ListNamespaces", request)
		if err != nil {
			return nil, err
		}
		for _, n := range page.GetNamespaces() {
			out = append(out, gitops.Item{Name: n.GetName(), Content: n.GetSchema(), Etag: n.GetEtag(), Revision: n.GetRevision()})
			if approval := n.GetApproval(); approval.GetCount() > 0 {
				id, _ := namespaceOf(n.GetName())
				rule := gitops.Rule{Layers: approval.GetLayers(), Count: int(approval.GetCount())}
				out = append(out, gitops.Item{Name: gitops.RuleOf(id), Content: rule.Content(), Etag: n.GetEtag(), Revision: n.GetRevision()})
			}
		}
		if request.PageToken = page.GetNextPageToken(); request.GetPageToken() == "" {
			return out, nil
		}
	}
}

// Documents implements gitops.House.
func (h *configHouse) Documents(ctx context.Context, parent string) ([]gitops.Item, error) {
	var out []gitops.Item
	request := &configv1.ListDocumentsRequest{Parent: parent, PageSize: documentsPage}
	for {
		page, err := ask[*configv1.ListDocumentsResponse](ctx, h, documentService, "ListDocuments", request)
		if err != nil {
			return nil, err
		}
		for _, d := range page.GetDocuments() {
			out = append(out, gitops.Item{Name: d.GetName(), Content: d.GetContent(), Etag: d.GetEtag(), Revision: d.GetRevision()})
		}
		if request.PageToken = page.GetNextPageToken(); request.GetPageToken() == "" {
			return out, nil
		}
	}
}

// Check implements gitops.House.
func (h *configHouse) Check(ctx context.Context, c gitops.Change) (string, error) {
	current, err := h.change(ctx, c, true)
	if err != nil && code(err) == codes.PermissionDenied {
		return "", gitops.ErrUnchecked
	}
	return current, asRefusal(err)
}

// Do implements gitops.House.
func (h *configHouse) Do(ctx context.Context, c gitops.Change) error {
	_, err := h.change(ctx, c, false)
	return asRefusal(err)
}

// asRefusal marks what a house says about a change itself.
func asRefusal(err error) error {
	if call, ok := errors.AsType[*callError](err); ok {
		err = &saidError{call}
	}
	switch code(err) {
	case codes.InvalidArgument, codes.FailedPrecondition, codes.Aborted, codes.NotFound, codes.AlreadyExists, codes.ResourceExhausted:
		return &gitops.RefusalError{Err: err}
	default:
		return err
	}
}

// saidError is a failed call in the words for people, and still the call for who asks.
type saidError struct{ call *callError }

// Error implements error.
func (e *saidError) Error() string { return Line(e.call) }

// Unwrap returns the call.
func (e *saidError) Unwrap() error { return e.call }

// change makes a change or asks about it, and returns the etag of what the change is of.
func (h *configHouse) change(ctx context.Context, c gitops.Change, only bool) (current string, err error) {
	namespace, schema := namespaceOf(c.Name)
	ruled, rule := gitops.RuleName(c.Name)
	switch {
	case rule:
		return h.rule(ctx, ruled, c, only)
	case schema && c.Action == gitops.Create:
		_, err = ask[*configv1.CreateNamespaceResponse](ctx, h, namespaceService, "CreateNamespace", &configv1.CreateNamespaceRequest{
			NamespaceId: namespace, Namespace: &configv1.Namespace{Schema: c.Content}, ValidateOnly: only,
		})
	case schema && c.Action == gitops.Update:
		_, err = ask[*configv1.UpdateNamespaceResponse](ctx, h, namespaceService, "UpdateNamespace", &configv1.UpdateNamespaceRequest{
			Namespace:  &configv1.Namespace{Name: c.Name, Schema: c.Content, Etag: c.Etag},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"schema"}}, ValidateOnly: only, Overrides: h.shadow,
		})
	case schema:
		_, err = ask[*configv1.DeleteNamespaceResponse](ctx, h, namespaceService, "DeleteNamespace", &configv1.DeleteNamespaceRequest{
			Name: c.Name, Etag: c.Etag, ValidateOnly: only,
		})
	case c.Action == gitops.Delete:
		_, err = ask[*configv1.DeleteDocumentResponse](ctx, h, documentService, "DeleteDocument", &configv1.DeleteDocumentRequest{
			Name: c.Name, Etag: c.Etag, ValidateOnly: only, Reason: h.reason,
		})
	default:
		var response *configv1.UpdateDocumentResponse
		response, err = ask[*configv1.UpdateDocumentResponse](ctx, h, documentService, "UpdateDocument", &configv1.UpdateDocumentRequest{
			Document:   &configv1.Document{Name: c.Name, Content: c.Content, Etag: c.Etag},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"content"}}, AllowMissing: c.Action == gitops.Create,
			ValidateOnly: only, Reason: h.reason,
		})
		if only && c.Action == gitops.Create && response.GetDocument().GetRevision() > 0 {
			err = &gitops.RefusalError{Err: fmt.Errorf("%s was made meanwhile; plan again", c.Name)}
		}
		current = response.GetDocument().GetEtag()
	}
	return current, err
}

// rule writes the approval rule of a namespace, and returns the namespace's etag.
func (h *configHouse) rule(ctx context.Context, namespace string, c gitops.Change, only bool) (string, error) {
	n := &configv1.Namespace{Name: "namespaces/" + namespace, Etag: c.Etag}
	if c.Action != gitops.Delete {
		r, err := gitops.ParseRule(c.Content)
		if err != nil {
			return "", err
		}
		n.Approval = &configv1.NamespaceApproval{Layers: r.Layers, Count: int32(min(r.Count, math.MaxInt32))} //nolint:gosec // bounded
	}
	response, err := ask[*configv1.UpdateNamespaceResponse](ctx, h, namespaceService, "UpdateNamespace", &configv1.UpdateNamespaceRequest{
		Namespace: n, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"approval"}}, ValidateOnly: only,
	})
	return response.GetNamespace().GetEtag(), err
}

// propose makes a change of edits, or asks whether it could be made. A change that comes with an error is made, and would
// replace what the plan did not see.
func (h *configHouse) propose(ctx context.Context, id string, edits []gitops.Edit, only bool) (*configv1.Change, error) {
	change := &configv1.Change{Reason: h.reason}
	for _, e := range edits {
		form := map[gitops.Form]configv1.ChangeEditForm{
			gitops.Whole: configv1.ChangeEditForm_CHANGE_EDIT_FORM_REPLACE, gitops.Patch: configv1.ChangeEditForm_CHANGE_EDIT_FORM_JSON_PATCH,
			gitops.Removal: configv1.ChangeEditForm_CHANGE_EDIT_FORM_DELETE,
		}[e.Form]
		change.Edits = append(change.Edits, &configv1.ChangeEdit{Name: e.Name, Content: e.Content, Form: form, BaseRevision: e.Revision})
	}
	response, err := ask[*configv1.CreateChangeResponse](ctx, h, changeService, "CreateChange", &configv1.CreateChangeRequest{
		ChangeId: id, Change: change, ValidateOnly: only,
	})
	if err != nil {
		return nil, err
	}
	for i, e := range response.GetChange().GetEdits() {
		if i < len(edits) && edits[i].Revision == 0 && e.GetBaseRevision() > 0 {
			return response.GetChange(), fmt.Errorf("%s was made meanwhile; plan again", e.GetName())
		}
	}
	return response.GetChange(), nil
}

// submit asks for the approvals of a change.
func (h *configHouse) submit(ctx context.Context, change *configv1.Change) (*configv1.Change, error) {
	response, err := ask[*configv1.SubmitChangeResponse](ctx, h, changeService, "SubmitChange", &configv1.SubmitChangeRequest{
		Name: change.GetName(), Etag: change.GetEtag(),
	})
	return response.GetChange(), err
}

// namespaceOf is the id in the name of a namespace.
func namespaceOf(name string) (id string, ok bool) { return strings.CutPrefix(name, "namespaces/") }
