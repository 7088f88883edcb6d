package tenantdb

import (
	"context"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/internal/home"
)

const (
	// freshFor is how long after its last use a connection is believed to be alive. A
	// ping costs a round trip.
	freshFor = 30 * time.Second
	// idleFor is after which time without use a connection is closed.
	idleFor = 5 * time.Minute
	// lifetime is after which age it is, give or take a tenth, so that not all go at once.
	lifetime = time.Hour
	// schemasPerBackend bounds the tenants' schemas that one backend works in. It remembers
	// the tables of each, about 0.3 MB for twenty, until it ends.
	schemasPerBackend = 100
)

// backends are the connections to all databases of one server under one role. There are
// never more than most, counting those that are being opened and closed.
//
// Who takes one has a slot of the pool. There are as many slots as connections, so with all
// of them open one is idle: it is closed, if need be, to make room. Nobody waits for room
// while holding some, which is how many pools under one budget would come to a deadlock.
type backends struct {
	config *pgx.ConnConfig
	most   int

	mu      sync.Mutex
	live    int           // open, and being opened or closed
	idle    []*backend    // the one used last is last
	changed chan struct{} // closed when live shrinks
	closed  bool
	reaper  *time.Timer // runs while something is idle
	opened  uint64
	evicted uint64
}

// backend is one connection.
type backend struct {
	*pgx.Conn
	database string
	schemas  map[string]struct{} // the tenants' own in which it has worked
	dies     time.Time
	used     time.Time
	ended    bool // by end
}

func newBackends(config *pgx.ConnConfig, most int) *backends {
	return &backends{config: config, most: most, changed: make(chan struct{})}
}

// take returns a connection to the database, for the caller alone until it gives it back.
func (s *backends) take(ctx context.Context, database, schema string) (*backend, error) {
	for {
		b, room, err := s.pick(ctx, database, schema)
		switch {
		case err != nil:
			return nil, err
		case b == nil:
			return s.open(ctx, database, schema)
		case room:
			s.end(b) // to make room, and its place among the live is ours now
			return s.open(ctx, database, schema)
		}
		if time.Since(b.used) <= freshFor && !wantsPing(ctx) || b.Ping(ctx) == nil {
			return b, nil
		}
		s.end(b)
		s.shrink()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

// pick takes an idle connection that suits, or, as room, one to be closed in its place, or
// none when another one may be opened.
func (s *backends) pick(ctx context.Context, database, schema string) (b *backend, room bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.closed {
			return nil, false, misuse(ErrClosed, "a call after Close")
		}
		if i := s.best(database, schema); i >= 0 {
			b := s.idle[i]
			s.idle = slices.Delete(s.idle, i, i+1)
			b.remember(schema)
			return b, false, nil
		}
		if s.live < s.most {
			s.live++
			return nil, false, nil
		}
		if len(s.idle) > 0 {
			b := s.idle[0]
			s.idle = slices.Delete(s.idle, 0, 1)
			s.evicted++
			return b, true, nil
		}
		// The others are being closed without a slot: they grew too old.
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			err = ctx.Err()
		}
		s.mu.Lock()
		if err != nil {
			return nil, false, err
		}
	}
}

// best returns which idle connection to use: one that knows the schema, of those the one
// used last, or else the one that knows the fewest. It is -1 when there is none.
func (s *backends) best(database, schema string) int {
	best := -1
	for i, b := range slices.Backward(s.idle) {
		if b.database != database {
			continue
		}
		if schema == home.SharedSchema || b.knows(schema) {
			return i
		}
		if len(b.schemas) < schemasPerBackend && (best < 0 || len(b.schemas) < len(s.idle[best].schemas)) {
			best = i
		}
	}
	return best
}

func (b *backend) knows(schema string) bool {
	_, knows := b.schemas[schema]
	return knows
}

func (b *backend) remember(schema string) {
	if schema == home.SharedSchema {
		return
	}
	if b.schemas == nil {
		b.schemas = map[string]struct{}{}
	}
	b.schemas[schema] = struct{}{}
}

// open makes a connection, which is among the live already.
func (s *backends) open(ctx context.Context, database, schema string) (*backend, error) {
	config := s.config.Copy()
	config.Database = database
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		s.shrink()
		return nil, err
	}
	now := time.Now()
	age := lifetime - lifetime/10 + rand.N(lifetime/5) //nolint:gosec // nobody gains from guessing it
	b := &backend{Conn: conn, database: database, used: now, dies: now.Add(age)}
	b.remember(schema)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened++
	return b, nil
}

// give takes a connection back, and keeps it if it may serve others. It calls done when the
// connection is idle or gone: at once or, after a caller left in the middle of a statement,
// when the server has heard of it.
func (s *backends) give(b *backend, done func()) {
	if now := time.Now(); !b.IsClosed() && !b.PgConn().IsBusy() && b.PgConn().TxStatus() == 'I' && now.Before(b.dies) && s.keep(b, now) {
		done()
		return
	}
	gone := func() {
		s.end(b)
		s.shrink()
		done()
	}
	if b.IsClosed() && !b.ended {
		go gone()
		return
	}
	gone()
}

// keep makes the connection idle, unless all is being closed.
func (s *backends) keep(b *backend, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	b.used = now
	s.idle = append(s.idle, b)
	if s.reaper == nil {
		s.reaper = time.AfterFunc(idleFor, s.reap)
	}
	return true
}

// reap closes connections that nobody used for long.
func (s *backends) reap() {
	for _, b := range s.stale(time.Now()) {
		s.end(b)
		s.shrink()
	}
}

func (s *backends) stale(now time.Time) []*backend {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for n < len(s.idle) && now.Sub(s.idle[n].used) >= idleFor {
		n++
	}
	stale := slices.Clone(s.idle[:n])
	s.idle = slices.Delete(s.idle, 0, n)
	s.reaper = nil
	if len(s.idle) > 0 && !s.closed {
		s.reaper = time.AfterFunc(idleFor-now.Sub(s.idle[0].used), s.reap)
	}
	return stale
}

// end closes the connection and waits until the server has ended its backend, so that the
// next one is none too many.
func (*backends) end(b *backend) {
	if b.ended {
		return
	}
	b.ended = true
	ctx, cancel := context.WithTimeout(context.Background(), endWait) //nolint:forbidigo // its caller is gone
	defer cancel()
	if b.IsClosed() { // by pgx, which may still be telling the server
		select {
		case <-b.PgConn().CleanupDone():
		case <-ctx.Done():
		}
		return
	}
	idle, err := b.PgConn().Hijack()
	if err != nil { // it is in the middle of an answer
		_ = b.PgConn().CancelRequest(ctx)
		_ = b.Close(ctx)
		return
	}
	deadline, _ := ctx.Deadline()
	_ = idle.Conn.SetDeadline(deadline)
	idle.Frontend.Send(&pgproto3.Terminate{})
	if idle.Frontend.Flush() == nil {
		_, _ = io.Copy(io.Discard, idle.Conn) // to the end that the server makes
	}
	_ = idle.Conn.Close()
}

// shrink notes that a connection is gone.
func (s *backends) shrink() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live--
	close(s.changed)
	s.changed = make(chan struct{})
}

// close closes all connections, those in use when they are given back, and waits for that.
func (s *backends) close() {
	s.mu.Lock()
	s.closed = true
	idle := s.idle
	s.idle = nil
	if s.reaper != nil {
		s.reaper.Stop()
	}
	s.mu.Unlock()
	for _, b := range idle {
		s.end(b)
		s.shrink()
	}
	for {
		s.mu.Lock()
		live, changed := s.live, s.changed
		s.mu.Unlock()
		if live == 0 {
			return
		}
		<-changed
	}
}
