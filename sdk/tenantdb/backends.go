package tenantdb

import (
	"cmp"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/internal/home"
)

const (
	// freshFor is how long after its last use a connection is believed to be alive. A
	// ping costs a round trip.
	freshFor = 30 * time.Second
	// pingWait bounds that.
	pingWait = time.Second
	// dialWait bounds the making of a connection, where the DSN has no connect_timeout.
	dialWait = 10 * time.Second
	// idleFor is after which time without use a connection is closed.
	idleFor = 5 * time.Minute
	// lifetime is after which age it is, give or take a tenth, so that not all go at once.
	lifetime = time.Hour
	// schemasPerBackend bounds the tenants' schemas that one backend works in. It remembers
	// the tables of each, 0.3 to 0.7 MB for twenty, until it ends. Behind a pooler this bounds
	// nothing: it closes the connection to the pooler only.
	schemasPerBackend = 100
)

// backends are the connections to all databases of one server under one role. There are
// never more than most, counting those that are being opened and closed.
//
// Who takes one has a slot of the pool. There are as many slots as connections, so with all of
// them open one is idle or being closed for each caller in pick: an idle one is closed, if need
// be, to make room. Nobody waits for room while holding some, which is how many pools under one
// budget would come to a deadlock.
type backends struct {
	config *pgx.ConnConfig
	most   int

	mu      sync.Mutex
	live    int           // open, and being opened or closed
	idle    []*backend    // the one used last is last
	ending  int           // of the live, being closed
	waiting int           // callers in pick
	changed chan struct{} // closed when live shrinks, or one becomes idle
	over    chan struct{} // closed by close
	closed  bool
	reaper  *time.Timer // runs while something is idle
	opened  uint64
	evicted uint64
	refused uint64 // callers that waited in pick for too long
}

// backend is one connection.
type backend struct {
	*pgx.Conn
	database string
	schemas  map[string]struct{} // the tenants' own in which it has worked
	dies     time.Time
	used     time.Time
	spoilt   bool // not to be kept
}

func newBackends(config *pgx.ConnConfig, most int) *backends {
	return &backends{config: config, most: most, changed: make(chan struct{}), over: make(chan struct{})}
}

// take returns a connection to the database, for the caller alone until it gives it back. After
// an error or a panic it calls done, at once or when the connection that was on its way is idle
// or gone.
func (s *backends) take(ctx context.Context, database, schema string, done func()) (*backend, error) {
	for {
		b, err := s.pick(ctx, database, schema)
		switch {
		case err != nil:
			done()
			return nil, err
		case b == nil:
			return s.open(ctx, database, schema, done)
		case time.Since(b.used) <= freshFor && !wantsPing(ctx) || b.lives(ctx):
			return b, nil
		}
		s.end(b, nil)
	}
}

// lives asks the connection, past the tracer.
func (b *backend) lives(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, pingWait)
	defer cancel()
	return b.PgConn().Ping(ctx) == nil
}

// pick takes an idle connection that suits, or none when the caller may open another one.
// Where it has to wait for one that is being closed, it does for admissionWait.
func (s *backends) pick(ctx context.Context, database, schema string) (*backend, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting++
	defer func() { s.waiting-- }()
	var late <-chan time.Time
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if s.closed {
			return nil, misuse(ErrClosed, "a call after Close")
		}
		if i := s.best(database, schema); i >= 0 {
			b := s.idle[i]
			s.idle = slices.Delete(s.idle, i, i+1)
			b.remember(schema)
			return b, nil
		}
		if s.live < s.most {
			s.live++
			return nil, nil //nolint:nilnil // room
		}
		if s.ending < s.waiting && len(s.idle) > 0 {
			b := s.idle[0]
			s.idle = slices.Delete(s.idle, 0, 1)
			s.evicted++
			s.ending++
			go s.finish(b, nil) //nolint:contextcheck // its end is not the call's
		}
		if late == nil {
			timer := time.NewTimer(admissionWait)
			defer timer.Stop()
			late = timer.C
		}
		if err := s.await(ctx, late); err != nil {
			if errors.Is(err, ErrAdmission) {
				s.refused++
			}
			return nil, err
		}
	}
}

// await waits, without mu, for a change.
func (s *backends) await(ctx context.Context, late <-chan time.Time) error {
	changed := s.changed
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-late:
		return overloaded().WithCause(ErrAdmission)
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

// dialed is what came of opening a connection.
type dialed struct {
	b        *backend
	err      error
	panicked any
}

// open makes a connection, which is among the live already. A caller with less time than that
// takes leaves it to the next one: it becomes idle.
func (s *backends) open(ctx context.Context, database, schema string, done func()) (*backend, error) {
	answer := make(chan dialed)
	go func() {
		d := dialed{err: errors.New("the dialer ended its goroutine")}
		defer func() {
			if d.panicked = recover(); d.b == nil {
				s.shrink()
			}
			select {
			case answer <- d:
			case <-ctx.Done(): // a panic has nobody left to go to
				if d.b == nil {
					done()
				} else {
					s.give(d.b, done)
				}
			}
		}()
		d.b, d.err = s.dial(ctx, database, schema)
	}()
	select {
	case d := <-answer:
		if d.b == nil {
			done()
		}
		if d.panicked != nil {
			panic(d.panicked)
		}
		return d.b, d.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// dial connects in a time of its own, until close.
func (s *backends) dial(ctx context.Context, database, schema string) (*backend, error) {
	config := s.config.Copy()
	config.Database = database
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cmp.Or(config.ConnectTimeout, dialWait))
	defer cancel()
	go func() {
		select {
		case <-s.over:
			cancel()
		case <-ctx.Done():
		}
	}()
	conn, err := pgx.ConnectConfig(ctx, config)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
	case s.closed:
		return nil, misuse(ErrClosed, "a call while the database was closed")
	default:
		return nil, err
	}
	types := conn.TypeMap()
	types.TryWrapEncodePlanFuncs = append([]pgtype.TryWrapEncodePlanFunc{takeEncoded}, types.TryWrapEncodePlanFuncs...)
	now := time.Now()
	age := lifetime - lifetime/10 + rand.N(lifetime/5) //nolint:gosec // nobody gains from guessing it
	b := &backend{Conn: conn, database: database, used: now, dies: now.Add(age)}
	b.remember(schema)
	s.opened++
	return b, nil
}

// give takes a connection back, and keeps it if it may serve others. It calls done when the
// connection is idle or gone: its caller does not wait for its end.
func (s *backends) give(b *backend, done func()) {
	now := time.Now()
	if !b.spoilt && !b.IsClosed() && !b.PgConn().IsBusy() && b.PgConn().TxStatus() == 'I' && now.Before(b.dies) && s.keep(b, now) {
		done()
		return
	}
	s.end(b, done)
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
	if s.waiting > 0 {
		s.tell()
	}
	if s.reaper == nil {
		s.reaper = time.AfterFunc(idleFor, s.reap)
	}
	return true
}

// reap closes connections that nobody used for long.
func (s *backends) reap() {
	for _, b := range s.stale(time.Now()) {
		s.end(b, nil)
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

// end closes the connection, beside its caller. When it is gone its place is free and done is
// called, if there is one. A place is held until the server has ended the backend, so that the
// next one is none too many.
func (s *backends) end(b *backend, done func()) {
	s.mu.Lock()
	s.ending++
	s.mu.Unlock()
	go s.finish(b, done)
}

func (s *backends) finish(b *backend, done func()) {
	terminate(b.Conn)
	s.mu.Lock()
	s.ending--
	s.mu.Unlock()
	s.shrink()
	if done != nil {
		done()
	}
}

// terminate closes a connection and waits, for endWait, until the server has ended its backend.
func terminate(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), endWait) //nolint:forbidigo // its caller is gone
	defer cancel()
	pg := conn.PgConn()
	if pg.IsClosed() { // by pgx, which may still be telling the server
		select {
		case <-pg.CleanupDone():
		case <-ctx.Done():
		}
		return
	}
	defer conn.Close(ctx)
	if pg.IsBusy() {
		_ = pg.CancelRequest(ctx)
	}
	deadline, _ := ctx.Deadline()
	line := pg.Conn()
	_ = line.SetDeadline(deadline)
	terminate, _ := (&pgproto3.Terminate{}).Encode(nil)
	if _, err := line.Write(terminate); err != nil {
		return
	}
	for ctx.Err() == nil {
		_ = line.SetDeadline(deadline) // again: pgx ends the time when the caller of an open answer leaves
		_, err := io.Copy(io.Discard, line)
		if wire, ok := errors.AsType[net.Error](err); !ok || !wire.Timeout() {
			return // at the end that the server makes
		}
	}
}

// shrink notes that a connection is gone.
func (s *backends) shrink() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live--
	s.tell()
}

// tell wakes those who wait for a change.
func (s *backends) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// close closes all connections, those in use when they are given back, and waits for that.
func (s *backends) close() {
	s.mu.Lock()
	s.closed = true
	close(s.over)
	s.tell()
	idle := s.idle
	s.idle = nil
	if s.reaper != nil {
		s.reaper.Stop()
	}
	s.mu.Unlock()
	for _, b := range idle {
		s.end(b, nil)
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
