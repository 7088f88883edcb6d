package front

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// Bounds say how much of the gateway one tenant and one client may hold. The zero value
// of a field is its default.
type Bounds struct {
	// InFlight is how many requests of one tenant, and streams of its apps, are under way at a time. Default 1000.
	InFlight int64
	// Streams is how many streams of one tenant that tell of changes of flags are open at a time. They are idle, and anybody with
	// a page's key opens them, so they are counted by themselves: where there are too many, the rest goes on. Default 1000.
	Streams int64
	// Stall is how long a client may send nothing of a body, or take nothing of an
	// answer. Default 30 s. It does not hold for the bodies of gRPC calls, which may have
	// nothing to say for long.
	Stall time.Duration
	// Rate is how many bytes a second a body must come with on average, after the first
	// Stall. Default 1024.
	Rate int64
	// Grace is how long an app has, after its tenant was suspended or deleted, to end a
	// stream by itself. Default 2 s.
	Grace time.Duration
}

func (b Bounds) withDefaults() Bounds {
	if b.InFlight == 0 {
		b.InFlight = 1000
	}
	if b.Streams == 0 {
		b.Streams = 1000
	}
	if b.Stall == 0 {
		b.Stall = 30 * time.Second
	}
	if b.Rate == 0 {
		b.Rate = 1024
	}
	if b.Grace == 0 {
		b.Grace = 2 * time.Second
	}
	return b
}

// enter counts a request in, or refuses it. Leave counts it out.
func (v *visit) enter() (leave func(), err error) {
	b := v.h.c.Bounds
	if v.flags && v.h.c.Flags.Streams(v.r) {
		return v.h.streams.enter(v.tc.UID(), b.Streams, "too many streams of this account are open")
	}
	return v.h.crowd.enter(v.tc.UID(), b.InFlight, "too many requests of this account are under way")
}

// crowd counts each tenant's requests under way.
type crowd struct{ counts sync.Map } // tenant.UID → *atomic.Int64

// enter counts a request in, or refuses it; leave counts it out.
func (c *crowd) enter(uid tenant.UID, most int64, full string) (leave func(), err error) {
	known, ok := c.counts.Load(uid)
	if !ok {
		known, _ = c.counts.LoadOrStore(uid, new(atomic.Int64))
	}
	count, _ := known.(*atomic.Int64)
	if count.Add(1) > most {
		count.Add(-1)
		return nil, fault.New(fault.ResourceExhausted, fault.ReasonOverloaded, "%s", full).WithRetry(time.Second)
	}
	return func() { count.Add(-1) }, nil
}

// pacedBody is a request's body that must keep coming, and that remembers what the client did wrong. Deadlines are the
// connection's or, in HTTP/2, the stream's.
type pacedBody struct {
	io.ReadCloser

	control *http.ResponseController
	bounds  Bounds
	began   time.Time
	free    bool // of deadlines

	mu     sync.Mutex
	read   int64
	last   time.Time // when the last of it came
	slow   bool      // it did not keep coming
	broken error     // what came is no body, or not the whole
	closed bool      // by whoever read it: what is read after that says nothing of the client
	over   bool      // the handler has returned: the connection is another request's
}

// Read implements io.Reader.
func (b *pacedBody) Read(p []byte) (int, error) {
	b.extend()
	n, err := b.ReadCloser.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.read += int64(n)
	b.last = time.Now()
	if err == nil {
		return n, nil
	}
	late := errors.Is(err, os.ErrDeadlineExceeded)
	switch {
	case late:
		b.slow = true
	case !b.over && !b.free:
		_ = b.control.SetReadDeadline(time.Time{}) // what is read from now on is whether the client is there
	}
	if !late && !b.closed && !errors.Is(err, io.EOF) {
		b.broken = err
	}
	return n, err //nolint:wrapcheck // io.EOF must stay what it is
}

// Close implements io.Closer.
func (b *pacedBody) Close() error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	return b.ReadCloser.Close() //nolint:wrapcheck // whoever reads it knows
}

// extend gives the next read its time.
func (b *pacedBody) extend() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over || b.free {
		return
	}
	deadline := time.Now().Add(b.bounds.Stall)
	if least := b.began.Add(b.bounds.Stall + time.Duration(b.read/b.bounds.Rate)*time.Second); least.Before(deadline) {
		deadline = least
	}
	_ = b.control.SetReadDeadline(deadline)
}

// excuse gives a client time that we took.
func (b *pacedBody) excuse(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.began = b.began.Add(d)
}

// taken is how much of it was read.
func (b *pacedBody) taken() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.read
}

// end leaves the deadline that the last read had: the server reads the rest under it.
func (b *pacedBody) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
}

// pace makes the request's body keep coming. The returned function ends that.
func (v *visit) pace() (end func()) {
	if v.r.ContentLength == 0 || v.r.Body == nil {
		return func() {}
	}
	v.body = &pacedBody{
		ReadCloser: v.r.Body, control: http.NewResponseController(v.w), bounds: v.h.c.Bounds, began: time.Now(), free: v.grpc,
	}
	v.r.Body = v.body
	return v.body.end
}

// spoiled returns the refusal of a client whose body did not keep coming, or was none; else err. Nobody else is to blame,
// whatever the app made of the half of it.
func (v *visit) spoiled(err error) error {
	if v.body == nil {
		return err
	}
	v.body.mu.Lock()
	defer v.body.mu.Unlock()
	switch {
	case v.body.slow:
		return fault.New(fault.DeadlineExceeded, fault.ReasonRequestTimeout, "the request came too slowly")
	case v.body.broken != nil && !errors.Is(err, context.Canceled):
		return fault.New(fault.InvalidArgument, fault.ReasonInvalidField, "the request's body is broken").WithCause(v.body.broken)
	}
	return err
}

// asked is when the whole of the request was there, as far as it was read.
func (v *visit) asked() time.Time {
	if v.body == nil {
		return v.began
	}
	v.body.mu.Lock()
	defer v.body.mu.Unlock()
	if v.body.last.After(v.began) {
		return v.body.last
	}
	return v.began
}

// dismiss prepares an answer to a request whose body nobody read: the server must not wait
// for it, neither before the answer nor after.
func (v *visit) dismiss() {
	if v.r.ContentLength == 0 || v.r.ProtoMajor != 1 {
		return
	}
	v.w.Header().Set("Connection", "close")
	_ = http.NewResponseController(v.w).SetReadDeadline(time.Now().Add(time.Second))
}

// guard ends a long answer when its tenant is not served any more, or the user's token
// has ended; the reason is then the cause of the context. It must be stopped.
func (v *visit) guard(ctx context.Context, cut context.CancelCauseFunc) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		err := v.watch(ctx)
		if err == nil {
			return
		}
		cut(err)
		_ = http.NewResponseController(v.w).SetWriteDeadline(time.Now().Add(time.Second)) // a client that does not read must not hold it
	})
	return func() { cancel(); watching.Wait() }
}

// watch returns why the answer must end, or nil when ctx has ended.
func (v *visit) watch(ctx context.Context) error {
	c := &v.h.c
	var ends <-chan time.Time
	if !v.user.ExpireTime.IsZero() {
		timer := time.NewTimer(time.Until(v.user.ExpireTime))
		defer timer.Stop()
		ends = timer.C
	}
	for {
		changed := c.Changed(v.tc.UID())
		if err := c.Standing(v.tc.UID()); err != nil {
			if waited(ctx, c.Bounds.Grace) {
				return err
			}
			return nil
		}
		select {
		case <-changed:
		case <-ends:
			return fault.New(fault.Unauthenticated, fault.ReasonCredentialInvalid, "the token has expired")
		case <-ctx.Done():
			return nil
		}
	}
}

// waited reports whether d passed before ctx ended.
func waited(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// pacedWriter gives each write its time.
type pacedWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	stall   time.Duration
}

func (p pacedWriter) write(b []byte) error {
	_ = p.control.SetWriteDeadline(time.Now().Add(p.stall))
	if _, err := p.w.Write(b); err != nil {
		return fmt.Errorf("write to the client: %w", err)
	}
	return nil
}

// done takes the deadline off: the connection may wait for its next request.
func (p pacedWriter) done() { _ = p.control.SetWriteDeadline(time.Time{}) }
