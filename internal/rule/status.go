package rule

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

// statusOf makes the status of an error.
func statusOf(ctx context.Context, err error) *status.Status {
	if s, ok := status.FromError(err); ok {
		return s
	}
	f, ok := fault.As(err)
	if !ok {
		if errors.Is(err, context.Canceled) {
			return status.New(codes.Canceled, "the caller gave up")
		}
		f = fault.New(fault.Internal, "INTERNAL", "internal error").
			WithMetadata("traceId", trace.SpanContextFromContext(ctx).TraceID().String())
	}
	info := &errdetails.ErrorInfo{Reason: f.Reason, Domain: f.Domain, Metadata: f.Metadata}
	details := []protoadapt.MessageV1{info}
	if len(f.Fields) > 0 {
		bad := &errdetails.BadRequest{}
		for _, v := range f.Fields {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
				Field: v.Field, Description: v.Description, Reason: v.Reason,
			})
		}
		details = append(details, bad)
	}
	if f.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(f.RetryAfter)})
	}
	kind := f.Kind
	if kind == fault.Gone {
		kind = fault.NotFound
	}
	var code codes.Code
	if code.UnmarshalJSON([]byte(`"`+kind.String()+`"`)) != nil {
		code = codes.Internal
	}
	s, err := status.New(code, f.Message).WithDetails(details...)
	if err != nil {
		return status.New(codes.Internal, "internal error")
	}
	return s
}
