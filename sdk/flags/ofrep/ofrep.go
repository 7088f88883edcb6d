// Package ofrep serves a tenant's flags by the OpenFeature Remote Evaluation Protocol, version 0.3.0.
//
// The tenant is that of the request's context, which whoever serves this handler has verified; the gateway takes it from
// the host. A client key says where the caller runs and what it may see (package door). Evaluations are in memory.
// Where we differ from the protocol's text, and what it leaves open, is in docs/guides/flags-protocols.md. Start at
// [New].
package ofrep

import (
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/clientkey"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/door"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// Prefix begins the path of every request of the protocol.
const Prefix = "/ofrep/v1/"

const (
	pathFlags  = Prefix + "evaluate/flags"
	pathEvents = Prefix + "events"
)

// Config makes a [Handler]. Door is required.
type Config struct {
	// Door lets requests in.
	Door *door.Door
	// Revision returns the revision of the settings in force, by which clients that were told of a change are kept from
	// an older state of another process. Optional.
	Revision func() int64
	// Log hears of defects. Default slog.Default.
	Log *slog.Logger
}

// Handler serves the protocol below [Prefix]. It is safe for concurrent use.
type Handler struct {
	c Config
}

// New returns a handler.
func New(c Config) *Handler {
	if c.Revision == nil {
		c.Revision = func() int64 { return 0 }
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return &Handler{c}
}

// Streams reports whether a request is for a stream of notices, which lasts for as long as the client likes.
func Streams(r *http.Request) bool {
	return r.Method == http.MethodGet && r.URL.EscapedPath() == pathEvents
}

// ServeHTTP answers a request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := h.serve(w, r); err != nil {
		h.Refuse(w, r, err)
	}
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request) error {
	h.head(w, r)
	path := r.URL.EscapedPath()
	method := http.MethodPost
	if path == pathEvents {
		method = http.MethodGet
	}
	key, single := strings.CutPrefix(path, pathFlags+"/")
	single = single && key != ""
	switch {
	case path != pathEvents && path != pathFlags && path != pathFlags+"/" && !single:
		return fault.New(fault.NotFound, fault.ReasonResourceNotFound, "OFREP has no such path")
	case r.Method == http.MethodOptions:
		return h.preflight(w, r)
	case r.Method != method:
		w.Header().Set("Allow", method+", OPTIONS")
		return refusal{status: http.StatusMethodNotAllowed, details: "the method must be " + method}
	case path == pathEvents:
		return h.events(w, r)
	}
	v, err := h.c.Door.Enter(r.Context(), r.Header)
	if err != nil {
		return err
	}
	if err := allow(w, r, v.Key); err != nil {
		return err
	}
	if !single {
		return h.bulk(w, r, v)
	}
	named, err := url.PathUnescape(key)
	if err != nil {
		return refusal{status: http.StatusBadRequest, key: key, code: codeGeneral, details: "the key in the path is not escaped properly"}
	}
	return h.single(w, r, v, named)
}

// head sets what every answer has.
func (h *Handler) head(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cache-Control", "private, no-cache")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Vary", "Authorization, X-API-Key, Origin")
	origin := r.Header.Get("Origin")
	tc, err := tenant.FromContext(r.Context())
	if origin == "" || err != nil || !h.c.Door.Keys.Listed(tc.UID(), origin) {
		return
	}
	header.Set("Access-Control-Allow-Origin", origin)
	header.Set("Access-Control-Expose-Headers", "ETag, Retry-After")
}

// preflight answers the question that browsers ask before a page of another origin may ask (CORS). It holds no key, so
// that all origins of the tenant's keys are let through; the request that follows is looked at by its own key.
func (h *Handler) preflight(w http.ResponseWriter, r *http.Request) error {
	header := w.Header()
	if header.Get("Access-Control-Allow-Origin") == "" && !door.Own(r.Header.Get("Origin"), r.Host) {
		return errOrigin()
	}
	header.Set("Access-Control-Allow-Methods", "GET, POST, OPTIONS")
	header.Set("Access-Control-Allow-Headers", "Content-Type, Authorization, X-API-Key, If-None-Match")
	header.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// allow looks where a page comes from. A browser says so with every POST and with every request to another origin; what
// a server's key shows is never shown to a page of another origin.
func allow(w http.ResponseWriter, r *http.Request, k *clientkey.Key) error {
	origin := r.Header.Get("Origin")
	stranger := origin != "" && !door.Own(origin, r.Host) && !k.Allows(origin)
	if stranger {
		w.Header().Del("Access-Control-Allow-Origin")
	}
	if k.Kind == clientkey.Browser && (stranger || origin == "" && r.Method != http.MethodGet) {
		return errOrigin()
	}
	return nil
}

func errOrigin() error {
	return fault.New(fault.PermissionDenied, fault.ReasonPermissionMissing, "the request's origin is not listed with the client key")
}

// OpenFeature's words for what is wrong with a request.
const (
	codeParse   = "PARSE_ERROR"
	codeContext = "INVALID_CONTEXT"
	codeGeneral = "GENERAL"
)

// refusal is an error with a status and a code of the protocol's own.
type refusal struct {
	status             int
	key, code, details string
}

// Error implements error.
func (e refusal) Error() string { return e.details }

// failure is what the protocol says of a request or a flag that failed.
type failure struct {
	Key      string         `json:"key,omitempty"`
	Code     string         `json:"errorCode,omitempty"`
	Details  string         `json:"errorDetails,omitempty"`
	Metadata map[string]any `json:"metadata,omitempty"`
}

// Refuse answers with an error, as the protocol writes it: what is no fault, or an internal one, is told as a 500 and
// nothing else. Nothing of the answer may have been written but its header.
func (h *Handler) Refuse(w http.ResponseWriter, r *http.Request, err error) {
	h.head(w, r)
	if own, ok := errors.AsType[refusal](err); ok {
		writeJSON(w, own.status, failure{Key: own.key, Code: own.code, Details: own.details})
		return
	}
	f, ok := fault.As(err)
	if !ok || f.Kind == fault.Internal {
		h.c.Log.ErrorContext(r.Context(), "OFREP failed", "error", err)
		writeJSON(w, http.StatusInternalServerError, failure{Details: "the server failed"})
		return
	}
	if f.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(f.RetryAfter.Seconds()))))
	}
	writeJSON(w, statusOf(f.Kind), failure{Details: f.Message})
}

// statusOf is the status of a fault. The protocol knows no 503: whoever gets a 500 tries again.
func statusOf(kind fault.Kind) int {
	switch kind {
	case fault.InvalidArgument, fault.FailedPrecondition:
		return http.StatusBadRequest
	case fault.Unauthenticated:
		return http.StatusUnauthorized
	case fault.PermissionDenied:
		return http.StatusForbidden
	case fault.NotFound:
		return http.StatusNotFound
	case fault.ResourceExhausted:
		return http.StatusTooManyRequests
	case fault.DeadlineExceeded:
		return http.StatusRequestTimeout
	default:
		return http.StatusInternalServerError
	}
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	b, err := json.Marshal(body)
	if err != nil { // values came from JSON
		status, b = http.StatusInternalServerError, []byte(`{"errorDetails":"the server failed"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b) // a caller that went away is nobody's error
}

// epochOf is the day, by which tokens of streams change.
func epochOf(now time.Time) uint32 {
	const day = 24 * 60 * 60
	return uint32(now.Unix() / day) //nolint:gosec // until the year 11761191
}
