package tenantgrpc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

// traceIDKey is the one metadata key of an INTERNAL error.
const traceIDKey = "traceId"

// Status returns what err is on the wire. It is [StatusIn] for callers without a
// trace; nil is OK.
func Status(err error) *status.Status { return statusOf(err, "") }

// StatusIn returns what err is on the wire. A fault keeps its reason, message and
// details; its cause stays here. Anything that is not a fault, and faults of kind
// Internal, become INTERNAL with the trace id of ctx and nothing else: log err
// before. Statuses that came from another service are rebuilt the same way, so a
// status may pass through any number of services.
func StatusIn(ctx context.Context, err error) *status.Status {
	return statusOf(err, traceID(ctx))
}

func statusOf(err error, trace string) *status.Status {
	if err == nil {
		return status.New(codes.OK, "")
	}
	if f, ok := fault.As(err); ok {
		return faultStatus(f, trace)
	}
	switch {
	case errors.Is(err, context.Canceled):
		return status.New(codes.Canceled, "the call was cancelled")
	case errors.Is(err, context.DeadlineExceeded):
		return faultStatus(errDeadline(), trace)
	}
	st, ok := carried(err)
	if !ok {
		return internalStatus(trace)
	}
	if st.Code() == codes.Canceled {
		return status.New(codes.Canceled, "the call was cancelled")
	}
	return faultStatus(faultOf(st), trace)
}

// carried returns the status that err, or what it wraps, came with. status.FromError
// puts the whole text of err in place of a wrapped status's message: our words, with
// addresses and tenants, would reach the caller.
func carried(err error) (*status.Status, bool) {
	type carrier interface {
		error
		GRPCStatus() *status.Status
	}
	c, ok := errors.AsType[carrier](err)
	if !ok {
		return nil, false
	}
	st := c.GRPCStatus()
	return st, st != nil
}

func errDeadline() *fault.Error {
	return fault.New(fault.DeadlineExceeded, fault.ReasonDeadlineTooShort, "the work took longer than the caller waits")
}

func traceID(ctx context.Context) string {
	if sc := trace.SpanContextFromContext(ctx); sc.HasTraceID() {
		return sc.TraceID().String()
	}
	return ""
}

func internalStatus(trace string) *status.Status {
	info := &errdetails.ErrorInfo{Domain: fault.DefaultDomain, Reason: fault.ReasonInternal}
	if trace != "" {
		info.Metadata = map[string]string{traceIDKey: trace}
	}
	return withDetails(codes.Internal, "internal error", info)
}

func faultStatus(f *fault.Error, trace string) *status.Status {
	code, ok := kindCode(f.Kind)
	if !ok || code == codes.Internal {
		return internalStatus(trace)
	}
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{
		Domain: f.Domain, Reason: f.Reason, Metadata: maps.Clone(f.Metadata),
	}}
	if len(f.Fields) > 0 {
		details = append(details, badRequest(f.Fields))
	}
	if len(f.Quotas) > 0 {
		details = append(details, quotaFailure(f.Quotas))
	}
	if f.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(f.RetryAfter)})
	}
	return withDetails(code, f.Message, details...)
}

func withDetails(code codes.Code, message string, details ...protoadapt.MessageV1) *status.Status {
	// Text that is not UTF-8 would cost the whole status its details.
	st := status.New(code, strings.ToValidUTF8(message, "\uFFFD"))
	full, err := st.WithDetails(details...)
	if err != nil {
		return status.New(codes.Internal, "internal error")
	}
	return full
}

func badRequest(fields []fault.FieldViolation) *errdetails.BadRequest {
	out := &errdetails.BadRequest{}
	for _, v := range fields {
		out.FieldViolations = append(out.FieldViolations, &errdetails.BadRequest_FieldViolation{
			Field: v.Field, Description: v.Description, Reason: v.Reason,
		})
	}
	return out
}

func quotaFailure(quotas []fault.QuotaViolation) *errdetails.QuotaFailure {
	out := &errdetails.QuotaFailure{}
	for _, v := range quotas {
		out.Violations = append(out.Violations, &errdetails.QuotaFailure_Violation{
			Subject: v.Subject, Description: v.Description, ApiService: v.APIService,
			QuotaMetric: v.Metric, QuotaId: v.ID, QuotaValue: v.Value, QuotaDimensions: maps.Clone(v.Dimensions),
		})
	}
	return out
}

// FromStatus turns the error of a gRPC call back into a *fault.Error that wraps
// it. A cancelled call gives an error that wraps context.Canceled; nil and errors
// without a gRPC status are returned as they are.
func FromStatus(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := fault.As(err); ok {
		return err
	}
	st, ok := carried(err)
	switch {
	case !ok:
		return err
	case st.Code() == codes.Canceled:
		return fmt.Errorf("%w: %w", context.Canceled, err)
	default:
		return faultOf(st).WithCause(err)
	}
}

// faultOf reads a status that is neither OK nor CANCELLED.
func faultOf(st *status.Status) *fault.Error {
	kind := codeKind(st.Code())
	var f *fault.Error
	for _, detail := range st.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			f = fault.New(kind, info.GetReason(), "%s", st.Message()).WithDomain(info.GetDomain())
			f.Metadata = maps.Clone(info.GetMetadata())
			break
		}
	}
	if f == nil {
		return bareFault(kind)
	}
	for _, detail := range st.Details() {
		readDetail(f, detail)
	}
	return f
}

func readDetail(f *fault.Error, detail any) {
	switch d := detail.(type) {
	case *errdetails.BadRequest:
		for _, v := range d.GetFieldViolations() {
			f.Fields = append(f.Fields, fault.FieldViolation{
				Field: v.GetField(), Description: v.GetDescription(), Reason: v.GetReason(),
			})
		}
	case *errdetails.QuotaFailure:
		for _, v := range d.GetViolations() {
			f.Quotas = append(f.Quotas, fault.QuotaViolation{
				Subject: v.GetSubject(), Description: v.GetDescription(), APIService: v.GetApiService(),
				Metric: v.GetQuotaMetric(), ID: v.GetQuotaId(), Value: v.GetQuotaValue(),
				Dimensions: maps.Clone(v.GetQuotaDimensions()),
			})
		}
	case *errdetails.RetryInfo:
		f.RetryAfter = max(d.GetRetryDelay().AsDuration(), time.Duration(0))
	}
}

// bareFault stands for a status without a reason: gRPC itself made it, and its
// text may hold addresses. Codes that tell a caller what to do are kept.
func bareFault(kind fault.Kind) *fault.Error {
	switch kind {
	case fault.Unavailable:
		return fault.New(kind, fault.ReasonDependency, "a service cannot be reached")
	case fault.DeadlineExceeded:
		return errDeadline()
	case fault.Unimplemented:
		return errUnknownMethod()
	case fault.NotFound:
		return fault.New(kind, fault.ReasonResourceNotFound, "not found")
	case fault.ResourceExhausted:
		return fault.New(kind, fault.ReasonOverloaded, "too large or too much")
	default:
		return fault.New(fault.Internal, fault.ReasonInternal, "internal error")
	}
}

func errUnknownMethod() *fault.Error {
	return fault.New(fault.Unimplemented, fault.ReasonMethodUnknown, "no such method")
}

// kindCode reports false for what is no kind.
func kindCode(k fault.Kind) (codes.Code, bool) {
	switch k {
	case fault.InvalidArgument:
		return codes.InvalidArgument, true
	case fault.Unauthenticated:
		return codes.Unauthenticated, true
	case fault.PermissionDenied:
		return codes.PermissionDenied, true
	case fault.NotFound:
		return codes.NotFound, true
	case fault.AlreadyExists:
		return codes.AlreadyExists, true
	case fault.FailedPrecondition:
		return codes.FailedPrecondition, true
	case fault.Aborted:
		return codes.Aborted, true
	case fault.OutOfRange:
		return codes.OutOfRange, true
	case fault.ResourceExhausted:
		return codes.ResourceExhausted, true
	case fault.Unavailable:
		return codes.Unavailable, true
	case fault.DeadlineExceeded:
		return codes.DeadlineExceeded, true
	case fault.Unimplemented:
		return codes.Unimplemented, true
	case fault.Internal:
		return codes.Internal, true
	default:
		return codes.Internal, false
	}
}

func codeKind(c codes.Code) fault.Kind {
	for k := fault.InvalidArgument; k <= fault.Internal; k++ {
		if code, ok := kindCode(k); ok && code == c {
			return k
		}
	}
	return fault.Internal
}
