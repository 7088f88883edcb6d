package tenantgrpc_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
)

func rich(kind fault.Kind) *fault.Error {
	return fault.New(kind, "DOMAIN_TAKEN", "the domain is taken").WithDomain("rowhouse.tenancy").
		WithMetadata("domain", "a.example").WithRetry(1500 * time.Millisecond).
		WithField(fault.FieldViolation{Field: "domain.host", Description: "taken", Reason: "TAKEN"}).
		WithQuota(fault.QuotaViolation{Subject: "tenants/acme", Description: "d", APIService: "quota", Metric: "m",
			ID: "requests", Value: 7, Dimensions: map[string]string{"region": "local"}})
}

func TestFaultsSurviveTheWire(t *testing.T) {
	t.Parallel()
	want := map[fault.Kind]codes.Code{
		fault.InvalidArgument: codes.InvalidArgument, fault.Unauthenticated: codes.Unauthenticated,
		fault.PermissionDenied: codes.PermissionDenied, fault.NotFound: codes.NotFound,
		fault.AlreadyExists: codes.AlreadyExists, fault.FailedPrecondition: codes.FailedPrecondition,
		fault.Aborted: codes.Aborted, fault.OutOfRange: codes.OutOfRange,
		fault.ResourceExhausted: codes.ResourceExhausted, fault.Unavailable: codes.Unavailable,
		fault.DeadlineExceeded: codes.DeadlineExceeded, fault.Unimplemented: codes.Unimplemented,
	}
	for kind, code := range want {
		f := rich(kind).WithCause(errors.New("secret"))
		st := tenantgrpc.Status(fmt.Errorf("wrapped: %w", f))
		if st.Code() != code {
			t.Errorf("%v becomes %v", kind, st.Code())
		}
		back, ok := fault.As(tenantgrpc.FromStatus(st.Err()))
		if diff := cmp.Diff(f, back, cmpopts.IgnoreUnexported(fault.Error{})); !ok || diff != "" {
			t.Errorf("%v comes back changed (-want +got):\n%s", kind, diff)
		}
		if again := tenantgrpc.Status(st.Err()); !proto.Equal(again.Proto(), st.Proto()) {
			t.Errorf("%v: a second service changes it to %v", kind, again)
		}
	}
	f, _ := fault.As(tenantgrpc.FromStatus(tenantgrpc.Status(fault.New(fault.NotFound, "X", "a\xff")).Err()))
	if f == nil || f.Reason != "X" || f.Message != "a\uFFFD" {
		t.Errorf("a message that is not text becomes %+v", f)
	}
}

func TestWhatIsNoFaultIsInternal(t *testing.T) {
	t.Parallel()
	id := trace.TraceID{1, 2, 3}
	sc := trace.NewSpanContext(trace.SpanContextConfig{TraceID: id, SpanID: trace.SpanID{4}})
	ctx := trace.ContextWithSpanContext(t.Context(), sc)
	for name, err := range map[string]error{
		"plain": errors.New("secret"), "internal": rich(fault.Internal), "no kind": rich(0), "unknown kind": rich(99),
		"bare status": status.Error(codes.FailedPrecondition, "secret"),
		"not text":    fault.New(fault.NotFound, "X", "x").WithMetadata("name", "\xff"),
	} {
		st := tenantgrpc.StatusIn(ctx, err)
		f, _ := fault.As(tenantgrpc.FromStatus(st.Err()))
		want := fault.New(fault.Internal, "INTERNAL", "internal error").WithMetadata("traceId", id.String())
		if name == "not text" { // The whole status cannot be encoded; nothing of it may go out.
			want.Metadata = nil
		}
		if diff := cmp.Diff(want, f, cmpopts.IgnoreUnexported(fault.Error{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestStatusesWithoutAReason(t *testing.T) {
	t.Parallel()
	if tenantgrpc.Status(nil).Code() != codes.OK || tenantgrpc.FromStatus(nil) != nil {
		t.Error("nil is an error")
	}
	for code, reason := range map[codes.Code]string{
		codes.Unavailable: "DEPENDENCY_UNAVAILABLE", codes.DeadlineExceeded: "DEADLINE_TOO_SHORT",
		codes.Unimplemented: "METHOD_UNKNOWN", codes.NotFound: "RESOURCE_NOT_FOUND",
		codes.ResourceExhausted: "OVERLOADED", codes.Unknown: "INTERNAL", codes.DataLoss: "INTERNAL",
	} {
		st := tenantgrpc.Status(status.Error(code, "dial tcp 10.0.0.1"))
		if got := fault.ReasonOf(tenantgrpc.FromStatus(st.Err())); got != reason || st.Message() == "dial tcp 10.0.0.1" {
			t.Errorf("%v: reason %q, message %q", code, got, st.Message())
		}
	}
	for _, err := range []error{context.Canceled, status.Error(codes.Canceled, "x")} {
		st := tenantgrpc.Status(err)
		if st.Code() != codes.Canceled || !errors.Is(tenantgrpc.FromStatus(st.Err()), context.Canceled) {
			t.Errorf("%v becomes %v", err, st)
		}
	}
	plain := errors.New("no status")
	if got := tenantgrpc.FromStatus(plain); !errors.Is(got, plain) || status.Code(got) != codes.Unknown {
		t.Errorf("a plain error becomes %v", got)
	}
}

// What a service adds to the error of another one is for its own logs.
func TestWrappingAStatusTellsNobody(t *testing.T) {
	t.Parallel()
	remote := tenantgrpc.Status(rich(fault.NotFound)).Err()
	wrapped := fmt.Errorf("read shard db-7.internal:5432 for tenant globex: %w", remote)
	if got, want := tenantgrpc.Status(wrapped), tenantgrpc.Status(remote); !proto.Equal(got.Proto(), want.Proto()) {
		t.Errorf("the caller is told %v", got)
	}
	f, ok := fault.As(tenantgrpc.FromStatus(wrapped))
	if !ok || f.Message != "the domain is taken" || !errors.Is(f, remote) {
		t.Errorf("read back as %+v", f)
	}
	both := errors.Join(errors.New("secret"), remote)
	if got := tenantgrpc.Status(both).Message(); got != "the domain is taken" {
		t.Errorf("joined: %q", got)
	}
	if got := tenantgrpc.Status(fmt.Errorf("a: %w", none{})); got.Code() != codes.Internal || got.Message() != "internal error" {
		t.Errorf("an error with a nil status becomes %v", got)
	}
}

// none is an error whose status is nil.
type none struct{}

func (none) Error() string              { return "secret" }
func (none) GRPCStatus() *status.Status { return nil }
