// Package fault is the error that a domain package returns: a kind, a stable reason and what the caller may be told.
//
// It knows neither gRPC nor HTTP. sdk/tenantgrpc and sdk/tenanthttp turn a fault into a status or a problem document;
// what is wrapped as its cause is for logs and is never sent. It is not for errors inside a package: wrap those with
// %w and turn them into a fault where their meaning for the caller is known.
//
// Start at New, then ReasonOf on the reading side.
package fault

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// DefaultDomain is the domain of reasons that every service shares.
const DefaultDomain = "rowhouse.api"

// Error is one refusal. Treat it as immutable: the With methods return changed copies, so a fault kept in a package
// variable can be given details safely from many goroutines.
type Error struct {
	// Kind says what sort of refusal it is; it alone fixes the status code on the wire.
	Kind Kind
	// Domain is the owner of Reason, such as "rowhouse.api" or "rowhouse.tenancy".
	Domain string
	// Reason is the stable SCREAMING_SNAKE name that programs compare.
	Reason string
	// Message is one sentence for people, in English, without secrets, SQL, host names or foreign tenants' names.
	Message string
	// Metadata holds the documented keys of Reason; nil when there are none.
	Metadata map[string]string
	// Fields lists what is wrong in the request, field by field.
	Fields []FieldViolation
	// RetryAfter tells the caller when to try again; zero means that no time is known.
	RetryAfter time.Duration
	// Quotas lists the limits that were met.
	Quotas []QuotaViolation

	cause error
}

// FieldViolation says what is wrong with one field of a request.
type FieldViolation struct {
	// Field is the path, in proto names: "tenant.display_name", "domains[2].host".
	Field string
	// Description is one sentence for people.
	Description string
	// Reason is a stable name for programs; may be empty.
	Reason string
}

// QuotaViolation says which limit was met.
type QuotaViolation struct {
	// Subject is what the limit is counted for, such as "tenants/acme".
	Subject string
	// Description is one sentence for people.
	Description string
	// APIService is the service that holds the limit.
	APIService string
	// Metric is the limit's metric.
	Metric string
	// ID is the limit's name.
	ID string
	// Value is the bound that was met.
	Value int64
	// Dimensions tell apart several bounds of one metric; nil when there is one.
	Dimensions map[string]string
}

// New makes a fault of the domain DefaultDomain. The format follows fmt.Errorf; with %w the wrapped error becomes the
// cause and, because the message is sent to callers, its text must be fit for them. Use WithCause for one that is not.
func New(kind Kind, reason, format string, args ...any) *Error {
	formatted := fmt.Errorf(format, args...)
	return &Error{
		Kind:    kind,
		Domain:  DefaultDomain,
		Reason:  reason,
		Message: formatted.Error(),
		cause:   errors.Unwrap(formatted),
	}
}

// Error returns the reason, the message and the cause: a line for logs, not for callers.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Reason)
	if e.Message != "" {
		b.WriteString(": ")
		b.WriteString(e.Message)
	}
	if e.cause != nil && !strings.Contains(e.Message, e.cause.Error()) {
		b.WriteString(": ")
		b.WriteString(e.cause.Error())
	}
	return b.String()
}

// Unwrap returns the cause, which may be nil.
func (e *Error) Unwrap() error { return e.cause }

// Is reports whether target is a fault with the same kind, domain and reason; details do not count.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Kind == e.Kind && t.Domain == e.Domain && t.Reason == e.Reason
}

// WithDomain returns a copy whose reason belongs to domain.
func (e *Error) WithDomain(domain string) *Error {
	c := e.clone()
	c.Domain = domain
	return c
}

// WithMetadata returns a copy with one more metadata pair; an earlier value of key is replaced.
func (e *Error) WithMetadata(key, value string) *Error {
	c := e.clone()
	if c.Metadata == nil {
		c.Metadata = make(map[string]string, 1)
	}
	c.Metadata[key] = value
	return c
}

// WithField returns a copy that names one more bad field.
func (e *Error) WithField(v FieldViolation) *Error {
	c := e.clone()
	c.Fields = append(c.Fields, v)
	return c
}

// WithQuota returns a copy that names one more limit.
func (e *Error) WithQuota(v QuotaViolation) *Error {
	c := e.clone()
	v.Dimensions = maps.Clone(v.Dimensions)
	c.Quotas = append(c.Quotas, v)
	return c
}

// WithRetry returns a copy that asks the caller to wait for d before the next try.
func (e *Error) WithRetry(d time.Duration) *Error {
	c := e.clone()
	c.RetryAfter = d
	return c
}

// WithCause returns a copy that wraps err. The cause is logged, never sent.
func (e *Error) WithCause(err error) *Error {
	c := e.clone()
	c.cause = err
	return c
}

func (e *Error) clone() *Error {
	c := *e
	c.Metadata = maps.Clone(e.Metadata)
	c.Fields = slices.Clone(e.Fields)
	c.Quotas = slices.Clone(e.Quotas)
	return &c
}

// As returns the outermost fault in err's chain.
func As(err error) (*Error, bool) {
	return errors.AsType[*Error](err)
}

// ReasonOf returns the reason of the outermost fault in err's chain, or "" when there is none.
func ReasonOf(err error) string {
	e, ok := As(err)
	if !ok {
		return ""
	}
	return e.Reason
}

// KindOf returns the kind of the outermost fault in err's chain; Internal for any other error, and the zero Kind for
// nil.
func KindOf(err error) Kind {
	if err == nil {
		return 0
	}
	e, ok := As(err)
	if !ok {
		return Internal
	}
	return e.Kind
}
