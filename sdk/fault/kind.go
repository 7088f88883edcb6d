package fault

import "strconv"

// Kind is the sort of a refusal. The zero value is not a kind: what carries it is answered as Internal.
type Kind uint8

// The kinds, named after the canonical codes they become.
const (
	InvalidArgument Kind = iota + 1
	Unauthenticated
	PermissionDenied
	NotFound
	AlreadyExists
	FailedPrecondition
	Aborted
	OutOfRange
	ResourceExhausted
	Unavailable
	DeadlineExceeded
	Unimplemented
	Internal
)

var kindNames = [...]string{ //nolint:gochecknoglobals // a table that never changes
	InvalidArgument:    "INVALID_ARGUMENT",
	Unauthenticated:    "UNAUTHENTICATED",
	PermissionDenied:   "PERMISSION_DENIED",
	NotFound:           "NOT_FOUND",
	AlreadyExists:      "ALREADY_EXISTS",
	FailedPrecondition: "FAILED_PRECONDITION",
	Aborted:            "ABORTED",
	OutOfRange:         "OUT_OF_RANGE",
	ResourceExhausted:  "RESOURCE_EXHAUSTED",
	Unavailable:        "UNAVAILABLE",
	DeadlineExceeded:   "DEADLINE_EXCEEDED",
	Unimplemented:      "UNIMPLEMENTED",
	Internal:           "INTERNAL",
}

// String returns the kind's name in the spelling of google.rpc.Code.
func (k Kind) String() string {
	if k == 0 || int(k) >= len(kindNames) {
		return "KIND_" + strconv.Itoa(int(k))
	}
	return kindNames[k]
}
