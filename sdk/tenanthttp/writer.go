package tenanthttp

import (
	"maps"
	"net/http"
	"sync"
	"time"
)

// guardedWriter writes an answer until its request is cut. It does not unwrap: what
// lies below would write on.
type guardedWriter struct {
	http.ResponseWriter
	first http.Header // the headers that were there before the application's
	alone bool        // no other request has this connection at the same time

	mu    sync.Mutex
	begun bool  // a part of the answer was written
	over  bool  // the application has returned
	cause error // why the request was cut; nil while it was not
}

func guard(w http.ResponseWriter, r *http.Request) *guardedWriter {
	return &guardedWriter{ResponseWriter: w, first: w.Header().Clone(), alone: r.ProtoMajor < 2}
}

// WriteHeader implements http.ResponseWriter.
func (w *guardedWriter) WriteHeader(status int) {
	const final = 200 // below are hints, which an answer may follow
	if w.begin(status >= final) == nil {
		w.ResponseWriter.WriteHeader(status)
	}
}

// Write implements http.ResponseWriter.
func (w *guardedWriter) Write(b []byte) (int, error) {
	if err := w.begin(true); err != nil {
		return 0, err
	}
	return w.ResponseWriter.Write(b)
}

// Flush implements http.Flusher.
func (w *guardedWriter) Flush() { _ = w.FlushError() }

// FlushError is what [http.ResponseController] calls.
func (w *guardedWriter) FlushError() error {
	if err := w.begin(true); err != nil {
		return err
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// begin returns why there may not be written.
func (w *guardedWriter) begin(answer bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cause == nil && answer {
		w.begun = true
	}
	return w.cause
}

// cut ends writing and reading for err, and calls told before it frees what is
// blocked, so that the application learns why. It does nothing once the
// application has returned.
func (w *guardedWriter) cut(err error, told func()) {
	w.mu.Lock()
	begun, over := w.begun, w.over
	if !over {
		w.cause = err
	}
	w.mu.Unlock()
	if over {
		return
	}
	told()
	below, past := http.NewResponseController(w.ResponseWriter), time.Unix(1, 0)
	_ = below.SetReadDeadline(past) // not supported by all writers: then a blocked call ends by itself
	if begun {                      // otherwise the problem is still to be written
		_ = below.SetWriteDeadline(past)
	}
}

// end says that the application has returned or panicked, and returns why the request was cut.
// A cut answer of which nothing was written bears no header of the application. Over HTTP/1.1
// a cut request is the last one of its connection: the deadline that cut the reading has ended
// the context of the connection, which those of later requests come from.
func (w *guardedWriter) end() (begun bool, cause error) {
	w.mu.Lock()
	w.over, begun, cause = true, w.begun, w.cause
	w.mu.Unlock()
	switch {
	case cause == nil:
	case !begun:
		clear(w.Header())
		maps.Copy(w.Header(), w.first)
		if w.alone {
			w.Header().Set("Connection", "close")
		}
	case w.alone:
		w.hangUp()
	}
	return begun, cause
}

// hangUp closes the connection of an answer whose header is written. The panic that ends the
// request would do it too, if no middleware outside recovered it.
func (w *guardedWriter) hangUp() {
	conn, _, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil { // otherwise the deadlines are not supported either
		_ = conn.Close()
	}
}
