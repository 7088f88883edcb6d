package front_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/limits"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/front"
)

// observed is what rollouts are told of a request.
type observed struct {
	tenant string
	status int
	took   time.Duration
}

func observing(into chan observed) func(*front.Config) {
	return func(c *front.Config) {
		c.Observe = func(tc tenant.Context, status int, took time.Duration) {
			into <- observed{tc.ID().String(), status, took}
		}
	}
}

// said sends what is no request of Go's client, and returns the answer.
func (s *street) said(raw string) answer {
	s.Helper()
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(s.Context(), "tcp", s.plain)
	need(s, err)
	defer func() { _ = conn.Close() }()
	need(s, conn.SetDeadline(time.Now().Add(20*time.Second)))
	_, err = io.WriteString(conn, raw)
	need(s, err)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	need(s, err)
	return s.read(res)
}

// What a client spoils is the client's fault, and no rollout hears of it; what the app does wrong, it does.
func TestClientsFailNoRollout(t *testing.T) {
	t.Parallel()
	told := make(chan observed, 100)
	s := newStreet(t, observing(told), bounded(front.Bounds{Stall: 400 * time.Millisecond}))
	s.app.on("/reads", func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	s.app.on("/fails", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	s.app.on("/dies", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	const head = "POST /reads HTTP/1.1\r\nHost: acme.localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
	for name, body := range map[string]string{"no chunk": "XYZ\r\n", "a bad chunk behind a good one": "2\r\nab\r\nXYZ\r\n", "a bad trailer": "2\r\nab\r\n0\r\nbad trailer\r\n\r\n"} {
		if a := s.said(head + body); a.status != 400 || a.problem.Reason != fault.ReasonInvalidField {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if a := s.said(head + "2\r\nab\r\n"); a.status != 408 {
		t.Errorf("a body that stops: %d %s", a.status, a.body)
	}
	want := func(what string, status int) {
		t.Helper()
		select {
		case o := <-told:
			if o.status != status || o.tenant != "acme" {
				t.Errorf("%s: told of %+v", what, o)
			}
		default:
			t.Errorf("%s: told of nothing", what)
		}
	}
	if len(told) > 0 {
		t.Fatalf("told of %+v", <-told)
	}
	for path, status := range map[string]int{"/": 200, "/fails": 500} {
		s.get(h1, "acme.localhost", path, nil)
		want(path, status)
	}
	s.get(h1, "acme.localhost", "/dies", nil)
	want("/dies", 502)
	// An app that dies over a request's body is not excused by it.
	s.said("POST /dies HTTP/1.1\r\nHost: acme.localhost\r\nContent-Length: 200\r\n\r\n" + strings.Repeat("x", 200))
	want("/dies with a body", 502)
	s.limit(1, time.Hour, limits.SafeRate)
	s.get(h1, "acme.localhost", "/", nil)
	for s.get(h1, "acme.localhost", "/", nil).status != 429 {
	}
	for len(told) > 0 {
		if o := <-told; o.status == 429 {
			t.Error("a request that was refused by its rate is told of")
		}
	}
}

// How slowly a client sends its request is no time that the app takes.
func TestSlowRequestsAreNoLatency(t *testing.T) {
	t.Parallel()
	told := make(chan observed, 1)
	s := newStreet(t, observing(told))
	s.app.on("/reads", func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(t.Context(), "tcp", s.plain)
	need(t, err)
	defer func() { _ = conn.Close() }()
	need(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	began := time.Now()
	_, err = fmt.Fprint(conn, "POST /reads HTTP/1.1\r\nHost: acme.localhost\r\nContent-Length: 20\r\n\r\n")
	need(t, err)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for range 20 {
		<-tick.C
		_, err = fmt.Fprint(conn, "x")
		need(t, err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	need(t, err)
	s.read(res)
	if o := <-told; o.status != 200 || o.took > time.Since(began)-900*time.Millisecond {
		t.Errorf("told of %+v, and the request took %v to send", o, time.Since(began))
	}
}

// idle serves flags: "/stream" for as long as the client likes, all else at once and with the status in the path.
type idle struct{}

func (idle) Serves(path string) bool      { return strings.HasPrefix(path, "/flags/") }
func (idle) Streams(r *http.Request) bool { return r.URL.Path == "/flags/stream" }
func (idle) Refuse(w http.ResponseWriter, _ *http.Request, err error) {
	http.Error(w, fault.ReasonOf(err), http.StatusTooManyRequests)
}

func (idle) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/flags/stream" {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		return
	}
	status := http.StatusOK
	_, _ = fmt.Sscanf(r.URL.Path, "/flags/%d", &status)
	w.WriteHeader(status)
}

// Streams of flags that are full are full for streams only, and what flags refuse is told to no rollout.
func TestStreamsOfFlagsHaveTheirOwnBound(t *testing.T) {
	t.Parallel()
	told := make(chan observed, 100)
	s := newStreet(t, bounded(front.Bounds{InFlight: 2, Streams: 3}), observing(told), func(c *front.Config) { c.Flags = idle{} })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 3 {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, origin(h1, "acme.localhost")+"/flags/stream", nil)
		need(t, err)
		res, err := s.client(h1, "").Do(r)
		need(t, err)
		t.Cleanup(func() { _ = res.Body.Close() })
		if res.StatusCode != http.StatusOK {
			t.Fatalf("a stream: %d", res.StatusCode)
		}
	}
	if a := s.get(h1, "acme.localhost", "/flags/stream", nil); a.status != 429 || !strings.Contains(a.body, fault.ReasonOverloaded) {
		t.Errorf("one more stream: %d %s", a.status, a.body)
	}
	for _, path := range []string{"/", "/flags/200", "/flags/500", "/flags/429"} {
		if a := s.get(h1, "acme.localhost", path, nil); strings.Contains(a.body, fault.ReasonOverloaded) {
			t.Errorf("%s beside them: %d %s", path, a.status, a.body)
		}
	}
	for len(told) > 0 {
		if o := <-told; o.status != 200 {
			t.Errorf("told of %+v", o)
		}
	}
	cancel()
	for s.get(h1, "globex.localhost", "/", nil).status != 200 {
		t.Error("another tenant is refused")
	}
}
