package rpc

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/internal/rule"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
)

// settingsService serves SettingsService.
type settingsService struct {
	configv1.UnimplementedSettingsServiceServer
	Config

	writes *writeRate
}

// GetSettings implements rowhouse.config.v1.SettingsService. The tenant and its plan come
// from the verified context, and the environment from the caller's registration: nothing in the request names them.
func (s *settingsService) GetSettings(ctx context.Context, req *configv1.GetSettingsRequest) (*configv1.GetSettingsResponse, error) {
	tc, err := tenant.FromContext(ctx)
	if err != nil {
		return nil, err
	}
	var stack sdk.Stack
	err = s.atOnce(ctx, func(ctx context.Context, q store.Querier) error {
		n, err := store.ReadNamespace(ctx, q, req.GetNamespace())
		if err != nil {
			return err
		}
		stack, _, err = stackOf(ctx, q, n, s.reader(ctx, tc), tc.ID())
		return err
	})
	if err != nil {
		return nil, err
	}
	return &configv1.GetSettingsResponse{Effective: effectiveOf(req.GetNamespace(), stack, req.GetProvenance())}, nil
}

// reader is whose settings a call of the data plane reads.
func (s *settingsService) reader(ctx context.Context, tc tenant.Context) store.Reader {
	r := store.Reader{Plan: tc.Plan(), Region: tc.Region(), Tenant: tc.UID()}
	if t, ok := s.Trust.Tenant(tc.UID()); ok {
		r.Parent = t.Parent
	}
	if id, ok := identity.FromPeer(ctx); ok {
		r.Environment = s.Environment(id)
	}
	return r
}

// UpdateSettings implements rowhouse.config.v1.SettingsService. The tenant comes from the verified context alone.
func (s *settingsService) UpdateSettings(
	ctx context.Context, req *configv1.UpdateSettingsRequest,
) (*configv1.UpdateSettingsResponse, error) {
	tc, err := tenant.FromContext(ctx)
	if err != nil {
		return nil, err
	}
	done, err := s.writes.begin(tc)
	if err != nil {
		if call, ok := rule.CallFrom(ctx); ok {
			s.Kernel.Denied(ctx, call, err)
		}
		return nil, err
	}
	defer done()
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.UpdateSettingsResponse, error) {
		if err := s.affordable(ctx, tx, tc, req); err != nil {
			return nil, err
		}
		n, err := store.LockNamespace(ctx, tx, req.GetNamespace())
		if err != nil {
			return nil, err
		}
		stack, _, err := stackOf(ctx, tx, n, s.reader(ctx, tc), tc.ID())
		if err != nil {
			return nil, err
		}
		if err := etag.Check(req.GetEtag(), stack.Effective().Etag()); err != nil {
			return nil, err
		}
		w, err := s.ofTenant(ctx, tx, tc, n)
		if err != nil {
			return nil, err
		}
		if err := w.change(ctx, tx, stack.Schema, req); err != nil {
			return nil, blind(err)
		}
		if w.object != nil {
			stack.Tenant = &sdk.Layer{Name: sdk.LayerTenant(tc.ID().String()), Revision: w.document.GetRevision(), Object: w.object}
		}
		return &configv1.UpdateSettingsResponse{Effective: effectiveOf(req.GetNamespace(), stack, false)}, nil
	})
}

// affordable refuses what costs too much to check, before others wait for that. Who it concerns besides is checked later.
func (s *settingsService) affordable(ctx context.Context, tx *change.Tx, tc tenant.Context, req *configv1.UpdateSettingsRequest) error {
	n, err := store.ReadNamespace(ctx, tx, req.GetNamespace())
	if err != nil {
		return err
	}
	state, err := stateOf(n)
	if err != nil {
		return err
	}
	stack, _, err := stackOf(ctx, tx, n, s.reader(ctx, tc), tc.ID())
	if err != nil {
		return err
	}
	own := sdk.Object{}
	if stack.Tenant != nil {
		own = stack.Tenant.Object
	}
	object, _, err := settings.Patched(string(sdk.Canonical(own)), req.GetContent())
	if err != nil {
		return malformedField("content", err)
	}
	stack.Tenant = &sdk.Layer{Name: sdk.LayerTenant(tc.ID().String()), Object: object}
	found := state.Schema.Costly(stack.Effective())
	if len(found) == 0 {
		return nil
	}
	return blind(violated(refuse(fault.InvalidArgument, schemaViolation, "the content takes too much work to check"), found))
}

// ofTenant begins a write of what the calling tenant sets.
func (s *settingsService) ofTenant(ctx context.Context, tx *change.Tx, tc tenant.Context, n *configv1.Namespace) (*write, error) {
	state, ok := s.Trust.Tenant(tc.UID())
	if !ok {
		return nil, fault.New(fault.NotFound, fault.ReasonResourceNotFound, "the tenant does not exist")
	}
	p := store.Place{
		Owner: settings.Owner{Kind: settings.Tenant, Name: state.ID.String()}, ID: state.UID.String(), Tenant: state,
		Namespace: strings.TrimPrefix(n.GetName(), "namespaces/"), NamespaceUID: n.GetUid(),
	}
	tx.Audit(p.String())
	if err := writable(p); err != nil {
		return nil, err
	}
	w, err := s.begin(ctx, tx, p, n)
	if err != nil {
		return nil, err
	}
	w.required = 0 // what operators must agree on is not what the schema lets tenants set
	return w, nil
}

// change applies what a tenant wants to its document. Without a difference there is no object.
func (w *write) change(ctx context.Context, tx *change.Tx, schema *sdk.Schema, req *configv1.UpdateSettingsRequest) error {
	old, current, err := settings.Content(cmp.Or(w.document.GetContent(), "{}"))
	if err != nil {
		return fmt.Errorf("the stored document: %w", err)
	}
	object, text, err := settings.Patched(current, req.GetContent())
	if err != nil {
		return malformedField("content", err)
	}
	differences := sdk.Diff(old, object)
	if len(differences) == 0 {
		return nil
	}
	if err := editable(schema, differences); err != nil {
		return err
	}
	tx.Audit(w.place.String(), "content")
	w.object, w.document.Content = object, text
	if err := w.put(ctx, tx, req.GetReason()); err != nil {
		return err
	}
	return store.ForgetRevisions(ctx, tx, w.place, keptRevisions)
}

// editable refuses differences in what the tenant itself may not set.
func editable(schema *sdk.Schema, differences []sdk.Difference) error {
	const most = 50
	refusal := refuse(fault.PermissionDenied, notEditable, "the tenant itself may not set this")
	refused := 0
	for _, d := range differences {
		if schema.Editable(d.Pointer) {
			continue
		}
		if refused++; refused <= most {
			refusal = refusal.WithField(fault.FieldViolation{
				Field: "content" + d.Pointer, Reason: notEditable, Description: "may not be set by the tenant itself",
			})
		}
	}
	if refused == 0 {
		return nil
	}
	return refusal
}

// blind takes out of a refusal whom else the write would concern, and how many: a tenant is told of no other, not even of its
// children.
func blind(err error) error {
	refusal, ok := fault.As(err)
	if !ok {
		return err
	}
	for i, f := range refusal.Fields {
		field, _ := strings.CutPrefix(f.Field, "document.")
		what, _, _ := strings.Cut(f.Description, " (rule ")
		refusal.Fields[i].Field, refusal.Fields[i].Description = field, what
	}
	delete(refusal.Metadata, "violations")
	if len(refusal.Fields) > 0 {
		switch refusal.Reason {
		case schemaViolation, settingLocked, settingClamped, secretInClear, contrast:
			refusal.Message = "the write would break rules of the schema; see the violations"
		}
	}
	return refusal
}

// WatchSettings implements rowhouse.config.v1.SettingsService.
func (s *settingsService) WatchSettings(
	req *configv1.WatchSettingsRequest, stream grpc.ServerStreamingServer[configv1.WatchSettingsResponse],
) error {
	if err := s.Kernel.Opened(stream.Context(), "feeds/"+sdk.FeedName); err != nil {
		return err
	}
	return s.Feeds.Watch(stream.Context(), sdk.FeedName, string(req.GetResumeToken()), func(f *apiv1.FeedFrame) error {
		return stream.Send(&configv1.WatchSettingsResponse{Frame: f})
	})
}
