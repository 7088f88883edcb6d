package change_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/rowhouse-platform/rowhouse/internal/audit"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/change/changetest"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

// cutter loses a connection at one of its writes: before the server got it, or before its answer came back.
type cutter struct {
	writes atomic.Int64
	at     atomic.Int64
	before atomic.Bool
	cuts   atomic.Int64
	commit atomic.Bool // the cut hit a COMMIT
}

type cutConn struct {
	net.Conn
	c    *cutter
	deaf atomic.Bool // an answer may be there before Write returns
}

func (c *cutConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.deaf.Load() {
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *cutConn) Write(b []byte) (int, error) {
	at := c.c.at.Load()
	if at == 0 || c.c.writes.Add(1) != at {
		return c.Conn.Write(b)
	}
	c.c.cuts.Add(1)
	c.c.commit.Store(bytes.Contains(b, []byte("commit")))
	if c.c.before.Load() {
		_ = c.Conn.Close()
		return 0, net.ErrClosed
	}
	c.deaf.Store(true)
	n, err := c.Conn.Write(b)
	if half, ok := c.Conn.(interface{ CloseRead() error }); ok {
		_ = half.CloseRead() // the server goes on with what it got
	}
	return n, err
}

func (f *fixture) cut(t *testing.T, c *cutter) *change.Kernel {
	t.Helper()
	cfg := f.Pool.Config()
	dial := cfg.ConnConfig.DialFunc
	cfg.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		return &cutConn{Conn: conn, c: c}, err
	}
	cfg.MaxConns = 1
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if err := pool.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	return change.New(change.Config{Pool: pool, Service: "test"})
}

// TestLostConnectionAtEachStep loses the connection at each of a change's messages in turn. Every time the caller is
// told that it may retry, and the retry leaves exactly one effect and gives the first answer.
func TestLostConnectionAtEachStep(t *testing.T) {
	t.Parallel()
	for _, before := range []bool{true, false} {
		t.Run(fmt.Sprintf("before=%v", before), func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			unknown, steps := 0, 0
			for at := int64(1); ; at++ {
				c := new(cutter)
				c.before.Store(before)
				cut := &fixture{f.Database, f.cut(t, c)}
				c.at.Store(at)
				name := fmt.Sprintf("thing%d", at)
				ctx := changetest.Call(t.Context(), wrapperspb.String(name), uuid.NewString())
				_, err := cut.insert(ctx, name)
				if c.cuts.Load() == 0 {
					break // the change has fewer messages than this
				}
				steps++
				if c.commit.Load() {
					unknown++
					if fault.ReasonOf(err) != fault.ReasonOutcomeUnknown {
						t.Errorf("lost at the commit: %v", err)
					}
				}
				if fault.KindOf(err) != fault.Unavailable {
					t.Errorf("step %d: %v", at, err)
				}
				answer, err := f.insert(ctx, name)
				if err != nil || answer.GetValue() != "made "+name {
					t.Errorf("step %d, retry: %v, %v", at, answer, err)
				}
				if n := f.count(t, `SELECT count(*) FROM kernel.change_log WHERE key = $1`, "thing/"+name); n != 1 {
					t.Errorf("step %d: %d revisions", at, n)
				}
			}
			if steps < 5 || unknown != 1 {
				t.Errorf("%d steps were cut, %d at the commit", steps, unknown)
			}
			// The last, uncut change counts too; no event without a change, no change without an event. The one whose
			// answer was lost was asked for again.
			events, replays := f.events(t, audit.Platform), 0
			for _, e := range events {
				if e.GetReplay() {
					replays++
				}
			}
			if things := f.count(t, `SELECT count(*) FROM thing`); len(events)-replays != things || replays > 1 || before && replays > 0 {
				t.Errorf("%d events, %d of them replays, %d things", len(events), replays, things)
			}
			if head := f.count(t, `SELECT revision FROM kernel.revision_head`); head != steps+1 {
				t.Errorf("head %d after %d changes", head, steps+1)
			}
			report, err := audit.Verify(t.Context(), f.Pool, audit.Platform)
			if err != nil || report.FirstBad != 0 {
				t.Errorf("chain %+v, %v", report, err)
			}
		})
	}
}
