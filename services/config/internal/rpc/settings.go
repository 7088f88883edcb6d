package rpc

import (
	"context"

	"google.golang.org/grpc"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
)

// settingsService serves SettingsService.
type settingsService struct {
	configv1.UnimplementedSettingsServiceServer
	Config
}

// GetSettings implements rowhouse.config.v1.SettingsService. The tenant and its plan come
// from the verified context, and the environment from the caller's registration: nothing in the request names them.
func (s *settingsService) GetSettings(ctx context.Context, req *configv1.GetSettingsRequest) (*configv1.GetSettingsResponse, error) {
	tc, err := tenant.FromContext(ctx)
	if err != nil {
		return nil, err
	}
	n, err := store.ReadNamespace(ctx, s.Pool, req.GetNamespace())
	if err != nil {
		return nil, pg.Fault(err)
	}
	stack, _, err := stackOf(ctx, s.Pool, n, s.reader(ctx, tc), tc.ID())
	if err != nil {
		return nil, pg.Fault(err)
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
