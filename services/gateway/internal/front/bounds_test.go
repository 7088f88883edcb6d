package front_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/front"
)

func bounded(b front.Bounds) func(*front.Config) { return func(c *front.Config) { c.Bounds = b } }

// A body that stops, or trickles, is given up, whatever it comes by; one that keeps coming
// is not, however long it takes.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	const stall, pause = 400 * time.Millisecond, 10 * time.Millisecond
	s := newStreet(t, bounded(front.Bounds{Stall: stall, Rate: 1000}))
	for name, body := range map[string]struct {
		writes, bytes int
		pause         time.Duration
		want          int
	}{"stops": {1, 1, time.Hour, 408}, "trickles": {1000, 1, pause, 408}, "keeps coming": {60, 100, pause, 200}} {
		send := func(ctx context.Context, w io.Writer, chunked bool) {
			chunk := strings.Repeat("x", body.bytes)
			if chunked {
				chunk = fmt.Sprintf("%x\r\n%s\r\n", len(chunk), chunk)
			}
			tick := time.NewTicker(body.pause)
			defer tick.Stop()
			for range body.writes {
				if _, err := io.WriteString(w, chunk); err != nil {
					return
				}
				select {
				case <-tick.C:
				case <-ctx.Done():
					return
				}
			}
		}
		check := func(t *testing.T, a answer) {
			t.Helper()
			if a.status != body.want || a.status == 408 && a.problem.Reason != fault.ReasonRequestTimeout {
				t.Errorf("%d %s", a.status, a.body)
			}
		}
		t.Run(name+" "+h1, func(t *testing.T) {
			t.Parallel()
			conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(t.Context(), "tcp", s.plain)
			need(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			var sending sync.WaitGroup
			defer func() { cancel(); _ = conn.Close(); sending.Wait() }()
			need(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
			_, err = fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: acme.localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
			need(t, err)
			sending.Go(func() { send(ctx, conn, true); _, _ = fmt.Fprint(conn, "0\r\n\r\n") })
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			need(t, err)
			check(t, s.read(res))
		})
		t.Run(name+" "+h2TLS, func(t *testing.T) {
			t.Parallel()
			r, w := io.Pipe()
			ctx, cancel := context.WithCancel(t.Context())
			var sending sync.WaitGroup
			defer func() { cancel(); _ = r.Close(); sending.Wait() }()
			sending.Go(func() { send(ctx, w, false); _ = w.Close() })
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, origin(h2TLS, "acme.localhost")+"/", r)
			need(t, err)
			res, err := s.client(h2TLS, "").Do(req)
			need(t, err)
			check(t, s.read(res))
		})
	}
}

// A refusal does not wait for the body of what it refuses.
func TestRefusedBodyIsNotAwaited(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(t.Context(), "tcp", s.plain)
	need(t, err)
	defer func() { _ = conn.Close() }()
	need(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	_, err = fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: nobody.localhost\r\nContent-Length: 200000\r\n\r\nx")
	need(t, err)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	need(t, err)
	if a := s.read(res); a.status != 404 || !res.Close {
		t.Errorf("%d, close %v", a.status, res.Close)
	}
}

// One tenant holds a bounded number of requests and streams; others do not notice.
func TestInFlight(t *testing.T) {
	t.Parallel()
	s := newStreet(t, bounded(front.Bounds{InFlight: 2}))
	ctx, cancel := context.WithCancel(t.Context())
	conn := s.dial("acme.localhost", true)
	open := func(ctx context.Context) error {
		stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, watch)
		need(t, err)
		need(t, stream.SendMsg(&text{}))
		need(t, stream.CloseSend())
		return stream.RecvMsg(new(text))
	}
	need(t, open(ctx))
	need(t, open(ctx))
	err := open(t.Context())
	if f, _ := fault.As(tenantgrpc.FromStatus(err)); status.Code(err) != codes.ResourceExhausted || f == nil || f.Reason != fault.ReasonOverloaded || f.RetryAfter == 0 {
		t.Errorf("the third stream: %v", err)
	}
	if a := s.get(h1, "acme.localhost", "/", nil); a.status != 429 || a.problem.Reason != fault.ReasonOverloaded {
		t.Errorf("a request beside them: %d %s", a.status, a.body)
	}
	if a := s.get(h1, "globex.localhost", "/", nil); a.status != 200 {
		t.Errorf("another tenant: %d %s", a.status, a.body)
	}
	cancel()
	deadline := time.Now().Add(10 * time.Second)
	for s.get(h1, "acme.localhost", "/", nil).status != 200 {
		if time.Now().After(deadline) {
			t.Fatal("the places of streams that ended are not free")
		}
	}
}

// A stream ends with the tenant's standing, or with the user's token, also where the app
// does not end it and where nobody reads it.
func TestStreamsEndWithTheirTenant(t *testing.T) {
	t.Parallel()
	suspended := fault.New(fault.PermissionDenied, fault.ReasonTenantSuspended, "suspended")
	for name, read := range map[string]bool{"read": true, "unread": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStreet(t, bounded(front.Bounds{Grace: time.Millisecond}))
			ended := make(chan struct{})
			s.app.on("/flood", func(w http.ResponseWriter, r *http.Request) {
				defer close(ended)
				chunk := []byte(strings.Repeat("x", 64<<10))
				for r.Context().Err() == nil {
					if _, err := w.Write(chunk); err != nil {
						return
					}
				}
			})
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, origin(h2TLS, "acme.localhost")+"/flood", nil)
			need(t, err)
			res, err := s.client(h2TLS, "").Do(req)
			need(t, err)
			defer func() { _ = res.Body.Close() }()
			s.standing.set(tenanttest.UID("globex"), suspended) // not this one's
			s.standing.set(tenanttest.UID("acme"), suspended)
			if read {
				if _, err := io.Copy(io.Discard, res.Body); err == nil {
					t.Error("a cut answer looks whole")
				}
			}
			select {
			case <-ended:
			case <-time.After(20 * time.Second):
				t.Error("the app's answer is still forwarded")
			}
		})
	}
	t.Run("gRPC", func(t *testing.T) {
		t.Parallel()
		s := newStreet(t, bounded(front.Bounds{Grace: time.Millisecond}))
		stream, err := s.dial("acme.localhost", true).NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, watch)
		need(t, err)
		need(t, stream.SendMsg(&text{}))
		need(t, stream.CloseSend())
		s.standing.set(tenanttest.UID("acme"), suspended)
		for err == nil {
			err = stream.RecvMsg(new(text))
		}
		if status.Code(err) != codes.PermissionDenied || fault.ReasonOf(tenantgrpc.FromStatus(err)) != fault.ReasonTenantSuspended {
			t.Errorf("the stream ended with %v", err)
		}
	})
}
