package flagd

import (
	"context"

	v2 "buf.build/gen/go/open-feature/flagd/protocolbuffers/go/flagd/evaluation/v2"
	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/rowhouse-platform/rowhouse/sdk/flags/flagset"
)

// version2 serves flagd.evaluation.v2, whose messages can leave out value and variant.
type version2 struct{ server }

// ResolveBoolean implements flagd.evaluation.v2.Service.
func (s version2) ResolveBoolean(
	ctx context.Context, req *connect.Request[v2.ResolveBooleanRequest],
) (*connect.Response[v2.ResolveBooleanResponse], error) {
	d, err := resolve(ctx, s.server, req.Msg, flagset.Result.Bool)
	return connect.NewResponse(&v2.ResolveBooleanResponse{
		Value: d.optional(), Reason: d.reason, Variant: d.optionalVariant(), Metadata: d.metadata,
	}), err
}

// ResolveString implements flagd.evaluation.v2.Service.
func (s version2) ResolveString(
	ctx context.Context, req *connect.Request[v2.ResolveStringRequest],
) (*connect.Response[v2.ResolveStringResponse], error) {
	d, err := resolve(ctx, s.server, req.Msg, flagset.Result.Text)
	return connect.NewResponse(&v2.ResolveStringResponse{
		Value: d.optional(), Reason: d.reason, Variant: d.optionalVariant(), Metadata: d.metadata,
	}), err
}

// ResolveFloat implements flagd.evaluation.v2.Service.
func (s version2) ResolveFloat(
	ctx context.Context, req *connect.Request[v2.ResolveFloatRequest],
) (*connect.Response[v2.ResolveFloatResponse], error) {
	d, err := resolve(ctx, s.server, req.Msg, flagset.Result.Float)
	return connect.NewResponse(&v2.ResolveFloatResponse{
		Value: d.optional(), Reason: d.reason, Variant: d.optionalVariant(), Metadata: d.metadata,
	}), err
}

// ResolveInt implements flagd.evaluation.v2.Service.
func (s version2) ResolveInt(
	ctx context.Context, req *connect.Request[v2.ResolveIntRequest],
) (*connect.Response[v2.ResolveIntResponse], error) {
	d, err := resolve(ctx, s.server, req.Msg, flagset.Result.Int)
	return connect.NewResponse(&v2.ResolveIntResponse{
		Value: d.optional(), Reason: d.reason, Variant: d.optionalVariant(), Metadata: d.metadata,
	}), err
}

// ResolveObject implements flagd.evaluation.v2.Service.
func (s version2) ResolveObject(
	ctx context.Context, req *connect.Request[v2.ResolveObjectRequest],
) (*connect.Response[v2.ResolveObjectResponse], error) {
	d, err := resolve(ctx, s.server, req.Msg, object)
	return connect.NewResponse(&v2.ResolveObjectResponse{
		Value: d.value, Reason: d.reason, Variant: d.optionalVariant(), Metadata: d.metadata,
	}), err
}

// EventStream implements flagd.evaluation.v2.Service.
func (s version2) EventStream(
	ctx context.Context, _ *connect.Request[v2.EventStreamRequest], out *connect.ServerStream[v2.EventStreamResponse],
) error {
	return s.events(ctx, func(kind string, data *structpb.Struct) error {
		return out.Send(&v2.EventStreamResponse{Type: kind, Data: data})
	})
}
