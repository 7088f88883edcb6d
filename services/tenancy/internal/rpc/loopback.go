package rpc

import (
	"context"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/wire"
)

// Loopback lets tenancy follow its own feed "tenants" with the client that everybody else uses, so that what it trusts
// itself is what all others trust. It is no consumer that operations wait for.
type Loopback struct{ Feeds Feeds }

var _ grpc.ClientConnInterface = Loopback{}

// Invoke answers ReportApplied, and no other method.
func (Loopback) Invoke(_ context.Context, method string, _, _ any, _ ...grpc.CallOption) error {
	if method != tenancyv1.RoutingService_ReportApplied_FullMethodName {
		return fmt.Errorf("%s is not served here", method)
	}
	return nil
}

// NewStream opens WatchTenants, and no other method.
func (l Loopback) NewStream(ctx context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	if method != tenancyv1.RoutingService_WatchTenants_FullMethodName {
		return nil, fmt.Errorf("%s is not served here", method)
	}
	return &loopbackStream{ctx: ctx, feeds: l.Feeds, frames: make(chan *apiv1.FeedFrame), ended: make(chan error, 1)}, nil
}

// loopbackStream is one watch. Its goroutine ends with the stream's context, as a stream's does.
type loopbackStream struct {
	ctx    context.Context //nolint:containedctx // grpc.ClientStream has a context
	feeds  Feeds
	frames chan *apiv1.FeedFrame
	ended  chan error
}

func (s *loopbackStream) SendMsg(m any) error {
	req, ok := m.(*tenancyv1.WatchTenantsRequest)
	if !ok {
		return fmt.Errorf("%T is no request of a watch", m)
	}
	go func() {
		select {
		case <-s.feeds.Ready():
		case <-s.ctx.Done():
		}
		s.ended <- s.feeds.Watch(s.ctx, wire.FeedTenants, string(req.GetResumeToken()), func(f *apiv1.FeedFrame) error {
			select {
			case s.frames <- f:
				return nil
			case <-s.ctx.Done():
				return s.ctx.Err()
			}
		})
	}()
	return nil
}

func (s *loopbackStream) RecvMsg(m any) error {
	resp, ok := m.(*tenancyv1.WatchTenantsResponse)
	if !ok {
		return fmt.Errorf("%T is no response of a watch", m)
	}
	select {
	case f := <-s.frames:
		proto.Reset(resp)
		resp.Frame = f
		return nil
	case err := <-s.ended:
		if err == nil {
			return io.EOF
		}
		return err
	}
}

func (s *loopbackStream) CloseSend() error             { return nil }
func (s *loopbackStream) Context() context.Context     { return s.ctx }
func (s *loopbackStream) Header() (metadata.MD, error) { return metadata.MD{}, nil }
func (s *loopbackStream) Trailer() metadata.MD         { return nil }
