package tenantdb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/readtoken"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/internal/home"
)

// awaitSQL goes ahead of enterSQL on a replica.
const awaitSQL = "SELECT rowhouse.await_lsn($1, $2, $3)"

const (
	// defaultLag is a cell's MaxLag when it sets none.
	defaultLag = time.Second
	// awaitMost is how long a replica may take to reach a read's position. The primary would
	// have answered meanwhile.
	awaitMost = 20 * time.Millisecond
	// restAfter is for how long a replica that was behind is left, so that one that stays
	// behind costs one read in that time, until it is seen to lag.
	restAfter = 2 * awaitMost
	// lookWait is how long a server may take to say where it is. A replica that takes longer is
	// left, by reads that wait for it too.
	lookWait = time.Second
	// watchIdle is for how long after the last read replicas are watched.
	watchIdle = 10 * time.Second
)

// errBehind says that a replica was not asked, or refused: the primary is.
var errBehind = errors.New("replica is behind")

// Why a read went to the primary.
const (
	whyAsked     = "asked"     // by Primary
	whyIsolation = "isolation" // more than READ COMMITTED
	whyNoToken   = "no_token"
	whyBadToken  = "bad_token" // of another key, tenant or placement, or of a commit without a position
	whyUnseen    = "unseen"    // the primary has not been seen lately
	whyTimeline  = "timeline"  // the caller's commit is from before a failover
	whyBehind    = "behind"    // no replica is near enough, or none lives
	whyRefused   = "refused"   // the replica refused the call
)

// readers are the replicas of a cell.
type readers struct {
	primary *pool
	maxLag  time.Duration
	stop    context.CancelFunc
	watches sync.WaitGroup

	mu       sync.Mutex
	history  history
	replicas []*replica
	turn     int
	served   map[string]int // reads by why they went to the primary; "" did not

	// Nobody watches while nobody reads.
	wanted time.Time // when somebody last did
	asleep bool
	wake   chan struct{} // closed when somebody reads again
}

// replica is one server that follows the primary. The readers' mu guards it.
type replica struct {
	pool *pool
	at   position  // as it said last
	near bool      // within maxLag, as it looked last
	rest time.Time // until when it is left after it was behind
	// live ends when the replica does not say where it is.
	live context.Context //nolint:containedctx // it bounds what waits for the replica
	end  context.CancelFunc
}

// want is what a read has to see.
type want struct {
	uid    tenant.UID
	within time.Duration // what was committed longer ago than that
	own    bool          // and what this process committed
	commit position      // and this commit
}

// demand says what the read has to see, or why only the primary will do.
func (db *DB) demand(ctx context.Context, at place, o txOptions) (want, string) {
	w := want{uid: at.tenant.UID(), within: at.pool.readers.maxLag, own: o.within == 0}
	var tokens []string
	for _, token := range o.after {
		tokens = append(tokens, readtoken.Split(token)...)
	}
	switch token, kept := readtoken.FromContext(ctx); {
	case o.primary:
		return w, whyAsked
	case o.isolation != ReadCommitted:
		return w, whyIsolation
	case o.within > 0:
		w.within = o.within
	case kept:
		tokens = append(tokens, readtoken.Split(token)...)
	case len(o.after) == 0 && !db.config.SoleWriter:
		return w, whyNoToken
	}
	for _, token := range tokens {
		p, ok := db.tokens.open(at, token)
		switch {
		case !ok:
			return w, whyBadToken
		case w.commit != position{} && w.commit.timeline != p.timeline:
			return w, whyTimeline
		case !w.commit.has(p):
			w.commit = p
		}
	}
	return w, ""
}

// need returns the position that the read needs if it is sent now.
func (r *readers) need(w want) (position, string) {
	since := time.Now().Add(-w.within)
	if doubt := r.history.doubts[w.uid]; w.own && doubt.After(since) {
		since = doubt
	}
	need, ok := r.history.since(since)
	if !ok {
		return position{}, whyUnseen
	}
	commits := []position{w.commit}
	if w.own {
		commits = append(commits, r.history.last(w.uid))
	}
	for _, p := range commits {
		switch {
		case p == position{}:
		case p.timeline != need.timeline:
			return position{}, whyTimeline
		case p.lsn > need.lsn:
			need = p
		}
	}
	return need, ""
}

// choose returns a replica that has what the read needs, or soon will, in turn.
func (r *readers) choose(w want) (c *replica, live context.Context, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.wanted = time.Now(); r.asleep {
		r.asleep = false
		close(r.wake)
		r.wake = make(chan struct{})
	}
	need, why := r.need(w)
	if why != "" {
		return nil, nil, why
	}
	for range r.replicas {
		r.turn++
		if c := r.replicas[r.turn%len(r.replicas)]; (c.at.has(need) || c.near) && r.wanted.After(c.rest) {
			return c, c.live, ""
		}
	}
	return nil, nil, whyBehind
}

// newReaders opens the replicas of a cell and watches them until the end of close.
func newReaders(ctx context.Context, primary *pool, name string, cell Cell, config *Config) (*readers, error) {
	r := &readers{
		primary: primary, maxLag: cmp.Or(cell.MaxLag, defaultLag), wake: make(chan struct{}), asleep: true, served: map[string]int{},
	}
	ctx, r.stop = context.WithCancel(context.WithoutCancel(ctx))
	for i, to := range cell.Replicas {
		reach := Cell{DSN: to.DSN, MaxConns: to.MaxConns, Pooler: to.Pooler, Dial: to.Dial}
		p, err := newPool(fmt.Sprintf("%s/replica-%d", name, i+1), reach, config, 1)
		if err != nil {
			r.stop()
			return nil, err
		}
		r.replicas = append(r.replicas, newReplica(ctx, p))
	}
	r.watches.Go(func() { r.watch(ctx, r.lookAtPrimary) })
	for _, c := range r.replicas {
		r.watches.Go(func() { r.watch(ctx, func(ctx context.Context) { r.lookAt(ctx, c) }) })
	}
	return r, nil
}

func newReplica(ctx context.Context, p *pool) *replica {
	c := &replica{pool: p}
	c.live, c.end = context.WithCancel(ctx)
	return c
}

func (r *readers) close() {
	r.stop()
	r.watches.Wait()
	for _, c := range r.replicas {
		c.pool.conns.close()
	}
}

// watch looks four times in the lag that is allowed, while somebody reads.
func (r *readers) watch(ctx context.Context, look func(context.Context)) {
	tick := time.NewTicker(max(r.maxLag/4, time.Millisecond))
	defer tick.Stop()
	for {
		if wake := r.sleeps(); wake != nil {
			select {
			case <-wake:
			case <-ctx.Done():
				return
			}
		}
		look(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// sleeps returns what ends the sleep, nil while there is none.
func (r *readers) sleeps() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.wanted) > watchIdle {
		r.asleep = true
	}
	if !r.asleep {
		return nil
	}
	return r.wake
}

func (r *readers) lookAtPrimary(ctx context.Context) {
	at := time.Now()
	p, err := r.primary.position(ctx, positionSQL)
	if err != nil {
		return // it is not seen
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history.see(at, p)
}

// lookAt asks a replica how far it is. One that does not answer is left.
func (r *readers) lookAt(ctx context.Context, c *replica) {
	p, err := c.pool.position(ctx, replayedSQL)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		c.at, c.near = position{}, false
		c.end()
		return
	}
	if c.live.Err() != nil {
		c.live, c.end = context.WithCancel(ctx)
	}
	due, known := r.history.since(time.Now().Add(-r.maxLag))
	c.at, c.near = p, known && p.has(due)
}

// position asks the pool's server how far it is, past those who wait for a slot.
func (p *pool) position(ctx context.Context, sql string) (position, error) {
	ctx, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	select {
	case p.watch <- struct{}{}:
	case <-ctx.Done(): // the connection of the last look is still on its way out
		return position{}, ctx.Err()
	}
	done := func() { <-p.watch }
	b, err := p.conns.take(ctx, p.conns.config.Database, home.SharedSchema, done)
	if err != nil {
		return position{}, err
	}
	defer p.conns.give(b, done)
	rows := b.PgConn().ExecParams(ctx, sql, nil, nil, nil, nil).Read() // past the tracer too
	if rows.Err != nil || len(rows.Rows) != 1 {
		return position{}, fmt.Errorf("ask for the position: %w", rows.Err)
	}
	return parsePosition(rows.Rows[0])
}

// committed notes a commit for the tenant, whose position is the next answer.
func (db *DB) committed(ctx context.Context, at place, sent time.Time, results pgx.BatchResults) {
	var p position
	if err := results.QueryRow().Scan(&p.timeline, &p.lsn); err != nil {
		at.doubt(ctx)
		return
	}
	r := at.pool.readers
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history.commit(at.tenant.UID(), sent, p)
	held, kept := readtoken.FromContext(ctx)
	if !kept {
		return
	}
	// This answer may come behind that of a later commit.
	newest := later(p, r.history.last(at.tenant.UID()))
	for _, token := range readtoken.Split(held) {
		if p, ok := db.tokens.open(at, token); ok {
			newest = later(newest, p)
		}
	}
	readtoken.Note(ctx, held, db.tokens.seal(at, newest))
}

// doubt notes that there may be a commit whose position is not known.
func (at place) doubt(ctx context.Context) {
	readtoken.Note(ctx, "", readtoken.Unknown)
	r := at.pool.readers
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history.doubt(at.tenant.UID(), time.Now())
}

// startOnReplica starts a read on a replica, if one has what the read needs; why says that none
// has. What a replica answers may be as old as itself, so its errors are not for the caller,
// but for that of a tenant that holds all it may of a replica's slots here: its load is not for
// the primary.
func (tx *Tx) startOnReplica(ctx context.Context, pro prologue) (f flight, why string, err error) {
	r := tx.at.pool.readers
	w, why := tx.db.demand(ctx, tx.at, tx.options)
	if why != "" {
		return flight{}, why, nil
	}
	c, live, why := r.choose(w)
	if why != "" {
		return flight{}, why, nil
	}
	try, cancel := context.WithCancel(withReadFrom(ctx, ""))
	defer context.AfterFunc(live, cancel)() //nolint:contextcheck // it is the replica's life, not the call's
	pro.need = func() (position, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		p, why := r.need(w)
		if why != "" {
			return position{}, errBehind
		}
		return p, nil
	}
	at := tx.at
	at.pool = c.pool
	if f, err = at.send(try, pro); err == nil {
		// A replica that falls silent later takes its connection along.
		conn := f.lease.PgConn().Conn()
		stop := context.AfterFunc(live, func() { _ = conn.Close() }) //nolint:contextcheck // as above
		tx.replica, tx.cancel = c, func() { stop(); cancel() }
		return f, "", nil
	}
	cancel()
	switch {
	case ctx.Err() != nil:
		return flight{}, "", explain(ctx.Err())
	case errors.Is(err, ErrAdmission) && sqlState(err) == "": // not the server's word
		return flight{}, "", err
	}
	r.refused(c, err)
	return flight{}, whyRefused, nil
}

// takeOff starts the transaction where its options say.
func (tx *Tx) takeOff(ctx context.Context, pro prologue) (flight, error) {
	r := tx.at.pool.readers
	if r == nil || !tx.options.readOnly {
		return tx.db.takeOff(ctx, tx.at, pro)
	}
	if tx.why == "" {
		f, why, err := tx.startOnReplica(ctx, pro)
		if err != nil {
			return flight{}, err
		}
		if tx.why = why; why == "" {
			return f, nil
		}
	}
	r.count(tx.why)
	return tx.db.takeOff(tx.traced(ctx), tx.at, pro)
}

// leaveReplica gives a replica up on which a statement failed as it may not on the primary,
// before its caller saw anything of it, and reports whether it did: then the statement is for
// the primary. READ COMMITTED owes it no more than what is committed when it begins.
func (tx *Tx) leaveReplica(ctx context.Context, results pgx.BatchResults, err error) bool {
	c := tx.replica
	if c == nil || ctx.Err() != nil {
		return false
	}
	if err = tx.lease.judge(err); !isReplicaFault(err) && !errors.Is(err, context.Canceled) {
		return false
	}
	_ = closeResults(results) // the same error again
	tx.cancel()
	tx.lease.rollback(ctx)
	tx.lease.release()
	tx.begun, tx.replica, tx.cancel, tx.why = false, nil, nil, whyRefused
	r := tx.at.pool.readers
	if !isUnknownName(err) { // one that the primary may not know either
		r.refused(c, err)
	}
	return true
}

// refused leaves a replica that could not serve: for a moment when it was behind, and else
// until it has been looked at.
func (r *readers) refused(c *replica, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch code := sqlState(err); {
	case code == "RH006":
		c.rest = time.Now().Add(restAfter)
	case code == "42883", code == "3F000", code == "53300", code == "57P03",
		isLost(err), errors.Is(err, ErrUnreachable), errors.Is(err, context.Canceled):
		c.at, c.near = position{}, false
	} // else what it said is about the tenant or the statement
}

// isReplicaFault reports whether a statement failed as it may on a replica only, or by what a
// replica does not know yet.
func isReplicaFault(err error) bool {
	switch sqlState(err) {
	case "40001", "40P01", "0A000", "57P01", "57P02", "57P03", "57P05":
		return true // a conflict with the replay ends statements by the first two, and sessions
	}
	return isLost(err) || isUnknownName(err)
}

// isUnknownName reports whether a statement names what is not there: on a replica, it may be what
// a migration has just made.
func isUnknownName(err error) bool {
	switch sqlState(err) {
	case "42703", "42704", "42883", "42P01", "3F000":
		return true
	}
	return false
}

// count counts reads by why they went to the primary.
func (r *readers) count(why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.served[why]++
}

type readFromKey struct{}

// withReadFrom lets spans say where a read goes; why is "" for a replica.
func withReadFrom(ctx context.Context, why string) context.Context {
	return context.WithValue(ctx, readFromKey{}, why)
}

// traced is [withReadFrom] for the transaction's statements, where there is a choice.
func (tx *Tx) traced(ctx context.Context) context.Context {
	if tx.at.pool.readers == nil || !tx.options.readOnly {
		return ctx
	}
	return withReadFrom(ctx, tx.why)
}
