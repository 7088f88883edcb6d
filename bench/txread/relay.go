package txread

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Relay passes bytes on between connections on loopback and an address, each chunk a
// fixed time after it came: a network of that one-way delay and any bandwidth. Use
// [Relay.Dial] as a client's dialer and Close it at the end, which waits for all of its
// goroutines.
type Relay struct {
	delay    time.Duration
	listener net.Listener
	work     sync.WaitGroup

	mu     sync.Mutex
	closed bool                  // guarded by mu
	open   map[net.Conn]struct{} // guarded by mu
	// target is where connections lead; the first Dial says it.
	network, address string // guarded by mu
}

// chunkSize is how much is passed on at once, and queued how many such chunks wait.
const (
	chunkSize = 16 << 10
	queued    = 1024
)

// NewRelay returns a relay that delays each direction.
func NewRelay(ctx context.Context, delay time.Duration) (*Relay, error) {
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	r := &Relay{delay: delay, listener: listener, open: make(map[net.Conn]struct{})}
	r.work.Go(func() { r.accept(context.WithoutCancel(ctx)) })
	return r, nil
}

// Dial connects to the address through the relay. All calls name one address.
func (r *Relay) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	r.mu.Lock()
	r.network, r.address = network, address
	r.mu.Unlock()
	own := r.listener.Addr()
	return (&net.Dialer{}).DialContext(ctx, own.Network(), own.String())
}

// Close ends every connection and waits.
func (r *Relay) Close() error {
	err := r.listener.Close()
	r.mu.Lock()
	r.closed = true
	for c := range r.open {
		err = errors.Join(err, ignoreClosed(c.Close()))
	}
	r.mu.Unlock()
	r.work.Wait()
	return err
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (r *Relay) accept(ctx context.Context) {
	for {
		near, err := r.listener.Accept()
		if err != nil {
			return // closed
		}
		r.mu.Lock()
		network, address := r.network, r.address
		r.mu.Unlock()
		far, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			_ = near.Close() // the client sees a broken connection, as it would
			continue
		}
		if r.keep(near) && r.keep(far) {
			r.work.Go(func() { r.pass(near, far) })
			r.work.Go(func() { r.pass(far, near) })
		}
	}
}

// keep remembers a connection for Close; after Close it is closed at once.
func (r *Relay) keep(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		_ = c.Close()
		return false
	}
	r.open[c] = struct{}{}
	return true
}

// chunk is what came, and when it goes on.
type chunk struct {
	bytes []byte
	due   time.Time
}

// pass passes one direction on until it ends, and then ends both.
func (r *Relay) pass(from, to net.Conn) {
	chunks := make(chan chunk, queued)
	var writer sync.WaitGroup
	writer.Go(func() { deliver(to, chunks) })
	for {
		b := make([]byte, chunkSize)
		n, err := from.Read(b)
		if n > 0 {
			chunks <- chunk{b[:n], time.Now().Add(r.delay)}
		}
		if err != nil {
			break
		}
	}
	close(chunks)
	writer.Wait()
	for _, c := range []net.Conn{from, to} {
		_ = c.Close()
	}
}

// deliver writes each chunk when it is due, until there are no more.
func deliver(to io.Writer, chunks <-chan chunk) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for c := range chunks {
		timer.Reset(time.Until(c.due))
		<-timer.C
		_, _ = to.Write(c.bytes) // a broken connection is seen by the reader of the other direction
	}
}
