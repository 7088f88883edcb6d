package rpc

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/wire"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/worker"
)

// routing serves RoutingService.
type routing struct {
	tenancyv1.UnimplementedRoutingServiceServer
	Config
}

// WatchRoutes implements rowhouse.tenancy.v1.RoutingService.
func (s *routing) WatchRoutes(req *tenancyv1.WatchRoutesRequest, stream grpc.ServerStreamingServer[tenancyv1.WatchRoutesResponse]) error {
	if err := s.Kernel.Opened(stream.Context(), "feeds/"+wire.FeedRoutes); err != nil {
		return err
	}
	return s.Feeds.Watch(stream.Context(), wire.FeedRoutes, string(req.GetResumeToken()), func(f *apiv1.FeedFrame) error {
		return stream.Send(&tenancyv1.WatchRoutesResponse{Frame: f})
	})
}

// WatchTenants implements rowhouse.tenancy.v1.RoutingService.
func (s *routing) WatchTenants(
	req *tenancyv1.WatchTenantsRequest, stream grpc.ServerStreamingServer[tenancyv1.WatchTenantsResponse],
) error {
	if err := s.Kernel.Opened(stream.Context(), "feeds/"+wire.FeedTenants); err != nil {
		return err
	}
	return s.Feeds.Watch(stream.Context(), wire.FeedTenants, string(req.GetResumeToken()), func(f *apiv1.FeedFrame) error {
		return stream.Send(&tenancyv1.WatchTenantsResponse{Frame: f})
	})
}

// WatchEvents implements rowhouse.tenancy.v1.RoutingService.
func (s *routing) WatchEvents(req *tenancyv1.WatchEventsRequest, stream grpc.ServerStreamingServer[tenancyv1.WatchEventsResponse]) error {
	if err := s.Kernel.Opened(stream.Context(), "feeds/"+wire.FeedEvents); err != nil {
		return err
	}
	return s.Feeds.Watch(stream.Context(), wire.FeedEvents, string(req.GetResumeToken()), func(f *apiv1.FeedFrame) error {
		return stream.Send(&tenancyv1.WatchEventsResponse{Frame: f})
	})
}

// watchRoutes is the permission of WatchRoutes; the rule of ReportApplied asks for that of WatchTenants.
const watchRoutes = "tenancy.routes.watch"

// maxReplicas bounds the live replicas of one identity in a feed.
const maxReplicas = 500

// ReportApplied implements rowhouse.tenancy.v1.RoutingService.
//
// Whoever reports may lie about its own replicas, and no more: it needs the right to the feed, has a bounded number of
// replicas, and holds up an operation only for worker.AwaitFor. That its watch is open is not asked, since the watch may
// be at another replica of ours, and would prove nothing about what is applied.
func (s *routing) ReportApplied(ctx context.Context, req *tenancyv1.ReportAppliedRequest) (*tenancyv1.ReportAppliedResponse, error) {
	call, err := callOf(ctx)
	if err != nil {
		return nil, err
	}
	if req.GetFeed() == wire.FeedRoutes && !call.Principal.Has(watchRoutes) {
		return nil, fault.New(fault.PermissionDenied, fault.ReasonPermissionMissing, "the caller lacks the permission %s", watchRoutes).
			WithMetadata("permission", watchRoutes)
	}
	stored, err := store.PutConsumer(ctx, s.Pool, store.Consumer{
		Feed: req.GetFeed(), Identity: call.Principal.Name, Replica: req.GetReplica(), Revision: req.GetAppliedRevision(),
		Quarantined: req.GetQuarantined(),
	}, maxReplicas, worker.KnownFor)
	if err != nil {
		return nil, err
	}
	if !stored {
		return nil, fault.New(fault.ResourceExhausted, fault.ReasonOverloaded, "more than %d replicas of one identity", maxReplicas).
			WithRetry(worker.KnownFor)
	}
	s.Worker.Kick() // an operation may have waited for this
	return &tenancyv1.ReportAppliedResponse{}, nil
}

// ListConsumers implements rowhouse.tenancy.v1.RoutingService.
func (s *routing) ListConsumers(ctx context.Context, _ *tenancyv1.ListConsumersRequest) (*tenancyv1.ListConsumersResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.ListConsumersResponse, error) {
		consumers, err := store.Consumers(ctx, tx, worker.KnownFor)
		if err != nil {
			return nil, err
		}
		tx.Audit("consumers")
		resp := &tenancyv1.ListConsumersResponse{}
		for _, c := range consumers {
			resp.Consumers = append(resp.Consumers, &tenancyv1.Consumer{
				Identity: c.Identity, Replica: c.Replica, Feed: c.Feed, AppliedRevision: c.Revision, Quarantined: c.Quarantined,
				ReportTime: timestamppb.New(c.ReportTime),
			})
		}
		return resp, nil
	})
}
