package tenantdb

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/internal/home"
)

// Whoever waits in vain for a connection that is being closed was refused, as one who waits for
// a slot.
func TestWaitForRoomEndsAndCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &pool{slots: newSlots(1), conns: newBackends(nil, 1)}
		p.conns.live = 1 // and does not go
		began := time.Now()
		_, err := p.conns.take(t.Context(), "notes", home.SharedSchema, func() {})
		if !errors.Is(err, ErrAdmission) || time.Since(began) != admissionWait {
			t.Errorf("%v after %s, want ErrAdmission after %s", err, time.Since(began), admissionWait)
		}
		if st := p.stats(); st.Refused != 1 {
			t.Errorf("%d refused, want 1", st.Refused)
		}
	})
}

// silent is a network whose first connection can fall silent: it takes what is written.
type silent struct {
	dials atomic.Int32
	first atomic.Bool
}

type silentConn struct {
	net.Conn
	of    *silent
	first bool
}

func (n *silent) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	return silentConn{conn, n, n.dials.Add(1) == 1}, err
}

func (c silentConn) Write(b []byte) (int, error) {
	if c.first && c.of.first.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// A connection that nobody used for long is asked whether it lives, and not for long.
func TestHangingConnectionIsReplaced(t *testing.T) {
	t.Parallel()
	config := pgtest.New(t, pgtest.Template{}).Pool(t, pgserver.Superuser).Config().ConnConfig
	n := &silent{}
	config.DialFunc = n.dial
	s := newBackends(config, 2)
	t.Cleanup(s.close)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	b, err := s.take(ctx, config.Database, home.SharedSchema, func() {})
	if err != nil {
		t.Fatal(err)
	}
	s.give(b, func() {})
	s.mu.Lock()
	b.used = time.Now().Add(-2 * freshFor)
	s.mu.Unlock()
	n.first.Store(true)
	began := time.Now()
	next, err := s.take(ctx, config.Database, home.SharedSchema, func() {})
	if err != nil {
		t.Fatalf("after %s: %v", time.Since(began), err)
	}
	defer s.give(next, func() {})
	if _, err := next.PgConn().Exec(ctx, "select").ReadAll(); err != nil || next == b {
		t.Errorf("got the connection that hangs: %t, %v", next == b, err)
	}
}

// The watch of a server that takes longer to connect than a look may last dials once at a time:
// of the connections there may be one is the watch's.
func TestWatchHoldsOneConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		config, err := pgx.ParseConfig("host=/nowhere user=app")
		if err != nil {
			t.Fatal(err)
		}
		var dials atomic.Int32
		config.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
			dials.Add(1)
			<-ctx.Done() // after dialWait
			return nil, ctx.Err()
		}
		p := &pool{slots: newSlots(1), conns: newBackends(config, 2), watch: make(chan struct{}, 1)}
		defer p.conns.close()
		for began := time.Now(); time.Since(began) < dialWait-lookWait; {
			if _, err := p.position(t.Context(), replayedSQL); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("position = %v", err)
			}
			if n, st := dials.Load(), p.stats(); n != 1 || st.Open != 1 {
				t.Fatalf("after %s: %d dials, %d connections, want one", time.Since(began), n, st.Open)
			}
		}
		<-time.After(dialWait) // of synctest's time
		if _, err := p.position(t.Context(), replayedSQL); !errors.Is(err, context.DeadlineExceeded) || dials.Load() != 2 {
			t.Errorf("later: %v, after %d dials, want 2", err, dials.Load())
		}
	})
}
