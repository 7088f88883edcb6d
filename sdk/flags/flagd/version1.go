package flagd

import (
	"context"

	v1 "buf.build/gen/go/open-feature/flagd/protocolbuffers/go/flagd/evaluation/v1"
	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/rowhouse-platform/rowhouse/sdk/flags/flagset"
)

// version1 serves flagd.evaluation.v1.
type version1 struct{ server }

// resolve1 is resolve for messages that cannot leave a value out. A flag that is off is a success with an empty value.
func resolve1[T any](ctx context.Context, s server, q question, get func(flagset.Result) (T, flagset.Code)) (details[T], error) {
	d, err := resolve(ctx, s, q, get)
	if err == nil && !d.given && d.reason != flagset.Disabled.String() {
		err = errNoDefault(q.GetFlagKey())
	}
	return d, err
}

// ResolveBoolean implements flagd.evaluation.v1.Service.
func (s version1) ResolveBoolean(
	ctx context.Context, req *connect.Request[v1.ResolveBooleanRequest],
) (*connect.Response[v1.ResolveBooleanResponse], error) {
	d, err := resolve1(ctx, s.server, req.Msg, flagset.Result.Bool)
	return connect.NewResponse(&v1.ResolveBooleanResponse{Value: d.value, Reason: d.reason, Variant: d.variant, Metadata: d.metadata}), err
}

// ResolveString implements flagd.evaluation.v1.Service.
func (s version1) ResolveString(
	ctx context.Context, req *connect.Request[v1.ResolveStringRequest],
) (*connect.Response[v1.ResolveStringResponse], error) {
	d, err := resolve1(ctx, s.server, req.Msg, flagset.Result.Text)
	return connect.NewResponse(&v1.ResolveStringResponse{Value: d.value, Reason: d.reason, Variant: d.variant, Metadata: d.metadata}), err
}

// ResolveFloat implements flagd.evaluation.v1.Service.
func (s version1) ResolveFloat(
	ctx context.Context, req *connect.Request[v1.ResolveFloatRequest],
) (*connect.Response[v1.ResolveFloatResponse], error) {
	d, err := resolve1(ctx, s.server, req.Msg, flagset.Result.Float)
	return connect.NewResponse(&v1.ResolveFloatResponse{Value: d.value, Reason: d.reason, Variant: d.variant, Metadata: d.metadata}), err
}

// ResolveInt implements flagd.evaluation.v1.Service.
func (s version1) ResolveInt(
	ctx context.Context, req *connect.Request[v1.ResolveIntRequest],
) (*connect.Response[v1.ResolveIntResponse], error) {
	d, err := resolve1(ctx, s.server, req.Msg, flagset.Result.Int)
	return connect.NewResponse(&v1.ResolveIntResponse{Value: d.value, Reason: d.reason, Variant: d.variant, Metadata: d.metadata}), err
}

// ResolveObject implements flagd.evaluation.v1.Service.
func (s version1) ResolveObject(
	ctx context.Context, req *connect.Request[v1.ResolveObjectRequest],
) (*connect.Response[v1.ResolveObjectResponse], error) {
	d, err := resolve1(ctx, s.server, req.Msg, object)
	return connect.NewResponse(&v1.ResolveObjectResponse{Value: d.value, Reason: d.reason, Variant: d.variant, Metadata: d.metadata}), err
}

// ResolveAll implements flagd.evaluation.v1.Service. Flags without a value that its messages can hold are left out:
// those that are off, that fail, that leave it to the caller, and lists.
func (s version1) ResolveAll(
	ctx context.Context, req *connect.Request[v1.ResolveAllRequest],
) (*connect.Response[v1.ResolveAllResponse], error) {
	view, c, err := s.ask(ctx, req.Msg.GetContext())
	if err != nil {
		return nil, err
	}
	out := &v1.ResolveAllResponse{Flags: make(map[string]*v1.AnyFlag, len(view.Keys()))}
	if out.Metadata, err = structpb.NewStruct(view.Metadata()); err != nil {
		return nil, err
	}
	for _, key := range view.Keys() {
		r := view.Evaluate(key, c)
		s.h.c.Door.Flags.Count(ctx, r.Code())
		flag, err := anyFlag(r)
		if err != nil {
			return nil, err
		}
		if flag != nil {
			out.Flags[key] = flag
		}
	}
	return connect.NewResponse(out), nil
}

// anyFlag is a flag of ResolveAll, nil where it is left out.
func anyFlag(r flagset.Result) (*v1.AnyFlag, error) {
	metadata, err := structpb.NewStruct(r.Metadata())
	if err != nil {
		return nil, err
	}
	f := &v1.AnyFlag{Reason: r.Reason().String(), Variant: r.Variant(), Metadata: metadata}
	switch value := r.Value().(type) {
	case bool:
		f.Value = &v1.AnyFlag_BoolValue{BoolValue: value}
	case string:
		f.Value = &v1.AnyFlag_StringValue{StringValue: value}
	case float64:
		f.Value = &v1.AnyFlag_DoubleValue{DoubleValue: value}
	case map[string]any:
		message, err := structpb.NewStruct(value)
		if err != nil {
			return nil, err
		}
		f.Value = &v1.AnyFlag_ObjectValue{ObjectValue: message}
	default:
		return nil, nil //nolint:nilnil // left out
	}
	return f, nil
}

// EventStream implements flagd.evaluation.v1.Service.
func (s version1) EventStream(
	ctx context.Context, _ *connect.Request[v1.EventStreamRequest], out *connect.ServerStream[v1.EventStreamResponse],
) error {
	return s.events(ctx, func(kind string, data *structpb.Struct) error {
		return out.Send(&v1.EventStreamResponse{Type: kind, Data: data})
	})
}
