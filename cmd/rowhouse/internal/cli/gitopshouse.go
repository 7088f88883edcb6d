package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"

	"github.com/rowhouse-platform/rowhouse/cmd/rowhouse/internal/gitops"
)

const namespaceService = "rowhouse.config.v1.NamespaceService"

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
			out = append(out, gitops.Item{Name: n.GetName(), Content: n.GetSchema(), Etag: n.GetEtag()})
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
			out = append(out, gitops.Item{Name: d.GetName(), Content: d.GetContent(), Etag: d.GetEtag()})
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
	switch {
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
			Name: c.Name, Etag: c.Etag, ValidateOnly: only,
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

// namespaceOf is the id in the name of a namespace.
func namespaceOf(name string) (id string, ok bool) { return strings.CutPrefix(name, "namespaces/") }
