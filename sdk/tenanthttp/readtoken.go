package tenanthttp

import (
	"net/http"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/readtoken"
)

const (
	// ReadCookie carries the token of a browser's last commit; see package readtoken.
	ReadCookie = "__Host-rowhouse-read"
	// readCookieAge is far above the lag that replicas are allowed, after which no token is needed.
	readCookieAge = time.Minute
)

// ReadTokens lets a browser see its own commits in reads from replicas, whichever process
// serves them: it keeps the token of the last one in the cookie [ReadCookie] for a minute. A
// commit after the answer's first byte comes too late for that. A client that brings no cookie
// is taken to have committed nothing in that time; for clients that drop cookies it is not. Of
// parallel answers a browser keeps the last cookie; see package readtoken. It stands inside
// [Handler].
func ReadTokens(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := ""
		if cookie, err := r.Cookie(ReadCookie); err == nil {
			if token = cookie.Value; len(token) > readtoken.MaxLen {
				token = readtoken.Unknown
			}
		}
		ctx := readtoken.NewContext(r.Context(), token)
		tw := &tokenWriter{ResponseWriter: w, came: token, now: func() string { now, _ := readtoken.FromContext(ctx); return now }}
		next.ServeHTTP(tw, r.WithContext(ctx))
		tw.begin()
	})
}

// tokenWriter sets the cookie before the first byte.
type tokenWriter struct {
	http.ResponseWriter
	came  string
	now   func() string
	begun bool
}

func (w *tokenWriter) begin() {
	if w.begun {
		return
	}
	w.begun = true
	if token := w.now(); token != w.came {
		http.SetCookie(w.ResponseWriter, &http.Cookie{
			Name: ReadCookie, Value: token, Path: "/", MaxAge: int(readCookieAge.Seconds()),
			Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
		})
	}
}

// WriteHeader implements http.ResponseWriter.
func (w *tokenWriter) WriteHeader(status int) {
	const final = 200 // below are hints, which an answer may follow
	if status >= final {
		w.begin()
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *tokenWriter) Write(b []byte) (int, error) {
	w.begin()
	return w.ResponseWriter.Write(b)
}

// Flush implements http.Flusher.
func (w *tokenWriter) Flush() { _ = w.FlushError() }

// FlushError is what [http.ResponseController] calls.
func (w *tokenWriter) FlushError() error {
	w.begin()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Unwrap is for [http.ResponseController].
func (w *tokenWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
