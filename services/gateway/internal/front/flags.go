package front

import (
	"net/http"
	"time"
)

// Flags serves open protocols for feature flags. The tenant is in the context of its requests.
type Flags interface {
	http.Handler

	// Serves reports whether an escaped path is of such a protocol.
	Serves(path string) bool
	// Streams reports whether a request is for a stream that tells of changes for as long as the client likes.
	Streams(r *http.Request) bool
	// Refuse answers a request that did not get so far, in the words of its protocol.
	Refuse(w http.ResponseWriter, r *http.Request, err error)
}

// serveFlags answers by Config.Flags.
func (v *visit) serveFlags() {
	w := &ownWriter{ResponseWriter: v.w, v: v, control: http.NewResponseController(v.w)}
	defer func() { _ = w.control.SetWriteDeadline(time.Time{}) }() // the connection may wait for its next request
	v.h.c.Flags.ServeHTTP(w, v.r)
}

// ownWriter gives each write of an answer of our own its time, and counts the answer.
type ownWriter struct {
	http.ResponseWriter

	v       *visit
	control *http.ResponseController
	begun   bool
}

// WriteHeader implements http.ResponseWriter.
func (w *ownWriter) WriteHeader(status int) {
	if !w.begun {
		w.begun = true
		w.v.measure(status, "")
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *ownWriter) Write(b []byte) (int, error) {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	_ = w.control.SetWriteDeadline(time.Now().Add(w.v.h.c.Bounds.Stall))
	return w.ResponseWriter.Write(b) //nolint:wrapcheck // a writer's own error
}

// Flush implements http.Flusher.
func (w *ownWriter) Flush() { _ = w.control.Flush() }

// Unwrap lets a ResponseController reach the connection.
func (w *ownWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
