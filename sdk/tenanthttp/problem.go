package tenanthttp

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

// RequestIDHeader names a request; the gateway sets it, toward the app and in answers.
const RequestIDHeader = "Rowhouse-Request-Id"

// Problem is a problem document, RFC 9457, with the members that our errors add.
type Problem struct {
	// Type is "about:blank", since Reason and Domain say which problem it is; of a limit that
	// is reached, or that cannot be checked, and of an app that is too busy, it is the registered type [TypeQuotaExceeded] or
	// [TypeReducedCapacity].
	Type string `json:"type"`
	// Title is the status in words.
	Title string `json:"title"`
	// Status is the HTTP status.
	Status int `json:"status"`
	// Detail is one sentence for people.
	Detail string `json:"detail,omitempty"`
	// Reason is the stable name for programs.
	Reason string `json:"reason"`
	// Domain is the owner of Reason.
	Domain string `json:"domain"`
	// RequestID names the request in the logs; empty when it has no name.
	RequestID string `json:"requestId,omitempty"`
	// Metadata holds the documented keys of Reason.
	Metadata map[string]string `json:"metadata,omitempty"`
	// Fields lists what is wrong in the request, field by field.
	Fields []ProblemField `json:"fields,omitempty"`
	// ViolatedPolicies names the limits that were met, of draft-ietf-httpapi-ratelimit-headers.
	ViolatedPolicies []string `json:"violated-policies,omitempty"`
}

// The types of problems with limits, of draft-ietf-httpapi-ratelimit-headers.
const (
	// TypeQuotaExceeded is a limit that is reached.
	TypeQuotaExceeded = "https://iana.org/assignments/http-problem-types#quota-exceeded"
	// TypeReducedCapacity is a limit that cannot be checked, or load that is shed.
	TypeReducedCapacity = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
)

// ProblemField says what is wrong with one field.
type ProblemField struct {
	// Field is the path of the field.
	Field string `json:"field"`
	// Description is one sentence for people.
	Description string `json:"description"`
	// Reason is a stable name for programs; may be empty.
	Reason string `json:"reason,omitempty"`
}

// WriteProblem answers a request with what err says to callers, as
// application/problem+json. Anything that is not a fault, and faults of kind
// Internal, become a 500 with the trace id and nothing else. Below a [Handler] its
// Config.Log is told err of each 500, under the id that the answer bears; elsewhere
// log err before. It must be the first thing written. The request's id is that of w,
// where the one who answers chose it, else that of r.
func WriteProblem(w http.ResponseWriter, r *http.Request, err error) {
	problem, retry := problemOf(r, err)
	header := w.Header()
	problem.RequestID = cmp.Or(header.Get(RequestIDHeader), r.Header.Get(RequestIDHeader))
	if problem.Status == http.StatusInternalServerError {
		logDefect(r, problem, err)
	}
	header.Set("Content-Type", "application/problem+json")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	if retry > 0 {
		header.Set("Retry-After", strconv.Itoa(int(math.Ceil(retry.Seconds()))))
	}
	body, err := json.Marshal(problem)
	if err != nil { // Strings and maps of strings always have a JSON form.
		body = []byte(`{"type":"about:blank","title":"Internal Server Error","status":500}`)
	}
	w.WriteHeader(problem.Status)
	_, _ = w.Write(body) // A caller that went away is nobody's error.
}

// logKey is where a request's context holds the logger of its [Handler].
type logKey struct{}

// logDefect tells operators what the caller is not told.
func logDefect(r *http.Request, problem Problem, err error) {
	log, ok := r.Context().Value(logKey{}).(*slog.Logger)
	if !ok || err == nil {
		return
	}
	// The trace is in the context: a logger that knows of traces names it.
	log.LogAttrs(r.Context(), slog.LevelError, "the request failed",
		slog.String("error", err.Error()), slog.String("request_id", problem.RequestID))
}

func problemOf(r *http.Request, err error) (Problem, time.Duration) {
	f := faultOf(r.Context(), err)
	status := Status(f)
	problem := Problem{
		Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: f.Message,
		Reason: f.Reason, Domain: f.Domain, Metadata: maps.Clone(f.Metadata),
	}
	for _, q := range f.Quotas {
		problem.Type = TypeQuotaExceeded
		problem.ViolatedPolicies = append(problem.ViolatedPolicies, q.ID)
	}
	switch f.Reason {
	case fault.ReasonOverloaded, fault.ReasonLimiterBusy, fault.ReasonCapacityReduced:
		problem.Type = TypeReducedCapacity
	}
	for _, v := range f.Fields {
		problem.Fields = append(problem.Fields, ProblemField{Field: v.Field, Description: v.Description, Reason: v.Reason})
	}
	return problem, f.RetryAfter
}

// faultOf returns what of err may be sent.
func faultOf(ctx context.Context, err error) *fault.Error {
	f, ok := fault.As(err)
	switch {
	case ok && Status(f) != http.StatusInternalServerError:
		return f
	case !ok && errors.Is(err, context.DeadlineExceeded):
		return fault.New(fault.DeadlineExceeded, fault.ReasonDeadlineTooShort, "the work took longer than the caller waits")
	}
	internal := fault.New(fault.Internal, fault.ReasonInternal, "internal error")
	if span := trace.SpanContextFromContext(ctx); span.HasTraceID() {
		return internal.WithMetadata("traceId", span.TraceID().String())
	}
	return internal
}

// Status returns the HTTP status of an error: that of its fault, else 500. A
// deleted tenant is 410, a connection made for another tenant's host 421, a body
// that is too large 413, an app that broke off 502.
func Status(err error) int {
	f, ok := fault.As(err)
	if !ok {
		return http.StatusInternalServerError
	}
	if status := statusOfReason(f.Reason); status != 0 {
		return status
	}
	switch f.Kind {
	case fault.InvalidArgument, fault.FailedPrecondition, fault.OutOfRange:
		return http.StatusBadRequest
	case fault.Unauthenticated:
		return http.StatusUnauthorized
	case fault.PermissionDenied:
		return http.StatusForbidden
	case fault.NotFound:
		return http.StatusNotFound
	case fault.AlreadyExists, fault.Aborted:
		return http.StatusConflict
	case fault.ResourceExhausted:
		return http.StatusTooManyRequests
	case fault.Unavailable:
		return http.StatusServiceUnavailable
	case fault.DeadlineExceeded:
		return http.StatusGatewayTimeout
	case fault.Unimplemented:
		return http.StatusNotImplemented
	default:
		return http.StatusInternalServerError
	}
}

// statusOfReason returns the status of reasons that HTTP has a finer word for than
// their kind; else 0.
func statusOfReason(reason string) int {
	switch reason {
	case fault.ReasonTenantDeleted:
		return http.StatusGone
	case fault.ReasonMisdirected:
		return http.StatusMisdirectedRequest
	case fault.ReasonRequestTimeout:
		return http.StatusRequestTimeout
	case fault.ReasonTooLarge:
		return http.StatusRequestEntityTooLarge
	case fault.ReasonUpstreamFailed:
		return http.StatusBadGateway
	default:
		return 0
	}
}
