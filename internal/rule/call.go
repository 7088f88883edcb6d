package rule

import (
	"context"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	"github.com/rowhouse-platform/rowhouse/internal/operator"
)

// Call is what the interceptors found out about the call that is being served. Handlers and the unit of work read it;
// nobody reads the metadata again.
type Call struct {
	// Principal is who calls. On the DATA plane it names the tenant's principal and holds no permissions.
	Principal operator.Principal
	// Method is the full method, "/rowhouse.tenancy.v1.TenantService/CreateTenant".
	Method string
	// Rule is what the method declares; for a method of a [Table] the entry's rule. Nobody changes it.
	Rule *apiv1.MethodRule
	// Target is the value of the field that the rule names: authorized, and the one to act on. Empty when the rule
	// names none, and until the request of a stream was read.
	Target string
	// RequestID is the request's request_id; empty when it has none.
	RequestID string
	// ValidateOnly says that the call must have no effect.
	ValidateOnly bool
	// Reason is the reason that the caller gave; never empty on a SENSITIVE call.
	Reason string
	// Peer is the caller's network address, and after a space the identity of the workload that presented the call
	// where that is not the principal itself.
	Peer string
	// TraceID is the W3C trace id in hex; empty when the call is not traced.
	TraceID string
	// Request is the request without the fields that are marked debug_redact; nil until the request of a stream was read.
	// Nobody changes it.
	Request proto.Message
}

type callKey struct{}

// CallFrom returns the call that ctx serves, and false outside of one. It returns a copy.
func CallFrom(ctx context.Context) (Call, bool) {
	call, ok := ctx.Value(callKey{}).(*Call)
	if !ok {
		return Call{}, false
	}
	return *call, true
}

// NewContext makes ctx serve call. The interceptors do this for every call that arrives; only work that no call began
// (a job, a test) does it by itself.
func NewContext(ctx context.Context, call Call) context.Context {
	return withCall(ctx, &call)
}

// withCall keeps the pointer, so that what a stream's request reveals later is seen through the same context.
func withCall(ctx context.Context, call *Call) context.Context {
	return context.WithValue(ctx, callKey{}, call)
}
