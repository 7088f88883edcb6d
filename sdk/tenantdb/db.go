package tenantdb

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/metric"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// enterSQL goes ahead of everything: it opens the transaction to the seal's tenant.
const enterSQL = "SELECT rowhouse.enter($1)"

// The pauses before the next try, and how long a fenced or locked tenant is waited for in all.
const (
	pauseFirst = 5 * time.Millisecond
	pauseMost  = 100 * time.Millisecond
	fenceTotal = 2 * time.Second
	enterMost  = 500 * time.Millisecond // the lock_timeout of enter.sql
)

// DB reaches the rows of the tenants of one app. It is safe for concurrent use.
type DB struct {
	config Config
	pools  map[string]*pool
	tokens tokens
	jitter func() float64

	// holders are the goroutines that are in a transaction. With all connections held by
	// such as ask for a second one, each would wait out admissionWait and fail.
	holders sync.Map // goroutine id → nothing
	held    atomic.Int64
	closed  atomic.Bool

	unmeasure metric.Registration // nil without metrics
}

// Open checks the configuration and returns a DB. It does not connect: cells that are down
// now may be up when they are needed.
func Open(ctx context.Context, config Config) (*DB, error) {
	if err := config.check(); err != nil {
		return nil, fmt.Errorf("open tenant database: %w", err)
	}
	sealer, err := newTokens(config.TokenKey)
	if err != nil {
		return nil, fmt.Errorf("open tenant database: %w", err)
	}
	db := &DB{config: config, pools: make(map[string]*pool, len(config.Cells)), tokens: sealer, jitter: rand.Float64}
	for name, cell := range config.Cells {
		p, err := openCell(ctx, name, cell, &config)
		if err != nil {
			db.Close()
			return nil, fmt.Errorf("open tenant database: %w", err)
		}
		db.pools[name] = p
	}
	if err := db.measure(config.Metrics); err != nil {
		db.Close()
		return nil, fmt.Errorf("open tenant database: %w", err)
	}
	return db, nil
}

func openCell(ctx context.Context, name string, cell Cell, config *Config) (p *pool, err error) {
	if len(cell.Replicas) == 0 {
		return newPool(name, cell, config, 0)
	}
	if p, err = newPool(name, cell, config, 1); err == nil {
		p.readers, err = newReaders(ctx, p, name, cell, config)
	}
	return p, err
}

// Close waits until all connections are given back and closes them. Later calls are refused.
func (db *DB) Close() {
	if db.closed.Swap(true) {
		return
	}
	if db.unmeasure != nil {
		_ = db.unmeasure.Unregister() // it fails for what is not registered
	}
	for _, p := range db.pools {
		if p.readers != nil {
			p.readers.close()
		}
		p.conns.close()
	}
}

// Ping connects to every cell, or says which one cannot be reached. It enters no tenant.
func (db *DB) Ping(ctx context.Context) error {
	for name, p := range db.pools {
		if err := p.ping(ctx); err != nil {
			return fmt.Errorf("cell %q: %w", name, unreachable(err))
		}
	}
	return nil
}

// route finds the tenant of ctx and where its rows are.
func (db *DB) route(ctx context.Context) (place, error) {
	tc, err := tenant.FromContext(ctx)
	if err != nil {
		return place{}, db.alarmed(ctx, missing(err))
	}
	if db.closed.Load() {
		return place{}, misuse(ErrClosed, "a call after Close")
	}
	if !db.config.Clock().Before(tc.ExpireTime()) {
		return place{}, fault.New(fault.Unauthenticated, fault.ReasonContextExpired, "the tenant context expired").
			WithCause(ErrExpired)
	}
	p := db.pools[tc.Cell()]
	if p == nil {
		return place{}, noCell(tc.Cell())
	}
	return p.place(db.config.App, tc)
}

func missing(err error) error {
	f, ok := fault.As(err)
	if !ok {
		return err
	}
	return f.WithCause(errors.Join(ErrNoContext, errors.Unwrap(f)))
}

// alarmed tells the alarm of err when it should never have happened.
func (db *DB) alarmed(ctx context.Context, err error) error {
	if db.config.Alarm != nil && (errors.Is(err, ErrSeal) || errors.Is(err, ErrNoContext)) {
		db.config.Alarm(ctx, err)
	}
	return err
}

func (db *DB) explained(ctx context.Context, err error) error {
	if _, told := fault.As(err); err == nil || told {
		return err
	}
	return db.alarmed(ctx, explain(err))
}

// checkCall refuses statements and arguments that are not what they should be.
func checkCall(stmt Statement, args []any) error {
	if stmt.bad != "" || stmt.sql == "" {
		return misuse(ErrVerb, "%s", stmt.bad)
	}
	for i, arg := range args {
		switch arg.(type) {
		case pgx.QueryExecMode, pgx.QueryRewriter, pgx.QueryResultFormats, pgx.QueryResultFormatsByOID:
			return misuse(ErrArgument, "argument %d is a %T", i+1, arg)
		}
	}
	return nil
}

// flight is a batch that was sent and whose prologue the database accepted: what comes
// next from results is the answer to the caller's own first statement.
type flight struct {
	at      place
	lease   lease
	results pgx.BatchResults
	writes  bool // as in prologue
	commits bool // as in prologue
	sent    time.Time
}

// prologue is what goes ahead of the caller's statements.
type prologue struct {
	begin string // "" opens no transaction block: the batch is one transaction
	load  func(b *pgx.Batch, schema string)
	// need, on a replica, is asked just before the batch is sent for what it waits for.
	need func() (position, error)
	// writes says that the statements may write.
	writes bool
	// commits ends the transaction behind the statements and asks for its position.
	commits bool
}

// takeOff sends prologue and statements in one flush and reads the prologue's answers. It
// tries again where that is safe, before any statement of the caller ran: a fenced tenant
// after a pause, a dirty connection once, a lost connection once.
func (db *DB) takeOff(ctx context.Context, at place, pro prologue) (flight, error) {
	end := time.Now().Add(fenceTotal)
	for dirty, lost, waits := 0, 0, 0; ; {
		began, try := time.Now(), ctx
		if lost > 0 {
			try = withPing(ctx)
		}
		f, err := at.send(try, pro)
		undone := pro.begin != "" && !pro.commits || isUndone(err) // an open transaction goes with its connection
		switch state := sqlState(err); {
		case err == nil:
			return f, nil
		case isLost(err) && undone && lost == 0:
			lost++
		case (isLost(err) || isLeft(err) && pro.writes) && !undone:
			return flight{}, unknown(err)
		case state == "RH004" && dirty == 0:
			dirty++
		case state == "RH002" || state == "55P03":
			// The next try would take as long as this one, whose wait for a lock enter() bounds: a
			// connection that took longer to make is there by then.
			pause := db.pause(waits)
			waits++
			if time.Now().Add(pause + min(time.Since(began), enterMost)).After(end) {
				return flight{}, notReady().WithCause(errors.Join(ErrFenced, err))
			}
			if err := sleep(ctx, pause); err != nil {
				return flight{}, explain(err)
			}
		default:
			return flight{}, db.explained(ctx, err)
		}
	}
}

// pause returns how long to wait after the try of that number: longer each time, and random,
// so that those who met once do not meet again.
func (db *DB) pause(try int) time.Duration {
	d := min(pauseFirst<<min(try, 10), pauseMost)
	return time.Duration(float64(d) * (0.5 + db.jitter()/2))
}

// send makes one try. After an error the connection is back in the pool, or gone.
func (at place) send(ctx context.Context, pro prologue) (flight, error) {
	began := time.Now()
	l, err := at.acquire(ctx)
	if err != nil {
		return flight{}, err
	}
	if at.pool.conns.config.Tracer != nil {
		ctx = context.WithValue(ctx, waitKey{}, time.Since(began))
	}
	settled := false
	defer func() {
		if !settled { // a tracer or an argument's encoder panicked
			l.destroy()
		}
	}()
	batch, first, err := pro.batch(at)
	if err != nil {
		settled = true
		l.release()
		return flight{}, err
	}
	sent := time.Now()
	results := l.SendBatch(ctx, batch)
	for range first {
		if _, err = results.Exec(); err != nil {
			break
		}
	}
	settled = true
	if err == nil {
		return flight{at, l, results, pro.writes, pro.commits, sent}, nil
	}
	_ = results.Close() // the same error again
	if sqlState(err) == "RH004" {
		l.destroy()
		return flight{}, err
	}
	if pro.commits && l.IsClosed() && !isUndone(err) {
		at.doubt(ctx)
	}
	err = l.judge(err)
	l.rollback(ctx)
	l.release()
	return flight{}, err
}

// batch returns what is sent, and how many of its answers belong to the prologue.
func (pro prologue) batch(at place) (batch *pgx.Batch, first int, err error) {
	batch = &pgx.Batch{}
	if pro.begin != "" {
		batch.Queue(pro.begin)
	}
	if pro.need != nil {
		p, err := pro.need()
		if err != nil {
			return nil, 0, err
		}
		batch.Queue(awaitSQL, p.timeline, p.lsn, awaitMost.Milliseconds())
	}
	seal := at.tenant.Seal()
	batch.Queue(enterSQL, seal[:])
	first = batch.Len()
	pro.load(batch, at.schema)
	if pro.commits {
		batch.Queue("commit")
		batch.Queue(positionSQL)
	}
	return batch, first, nil
}

// rollback ends a transaction that failed, so that the connection can be kept: a fence
// must not turn into a storm of reconnects. What it cannot end, release destroys.
func (l lease) rollback(ctx context.Context) {
	if l.IsClosed() || l.PgConn().TxStatus() == 'I' {
		return
	}
	l.finish(ctx, "rollback")
}

// finish ends a transaction whose caller does not wait for it.
func (l lease) finish(ctx context.Context, verb string) {
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endWait)
	defer cancel()
	_, _ = l.PgConn().Exec(end, verb).ReadAll() // past the tracer, whose panic would keep the connection
}

// sleep waits for d or for the end of ctx, which is its error.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Query runs one statement in a transaction of its own, in one round trip, and returns its
// rows, which hold a connection until they are closed. Errors of the tenant are returned
// here, errors of the statement here or by [Rows.Err]. When the connection is lost behind
// the statement, or the time of ctx ends there and it is no read, the outcome is unknown
// ([ErrOutcome]), for the statement may have written.
//
// A function that writes belongs into [DB.Exec] or [DB.Tx], not into a SELECT here: reads from
// replicas wait for what those commit.
func (db *DB) Query(ctx context.Context, stmt Statement, args ...any) (*Rows, error) {
	return db.query(ctx, stmt, !stmt.reads, args)
}

func (db *DB) query(ctx context.Context, stmt Statement, writes bool, args []any) (*Rows, error) {
	at, err := db.admit(ctx, stmt, args)
	if err != nil {
		return nil, err
	}
	load := func(b *pgx.Batch, schema string) { b.Queue(stmt.in(schema), args...) }
	for again := true; ; again = false {
		f, err := db.takeOff(ctx, at, at.alone(writes, load))
		if err != nil {
			return nil, err
		}
		rows, err := f.query()
		if err == nil {
			return &Rows{rows: rows, end: func(err error) error { return db.land(ctx, f, err) }}, nil
		}
		failed := db.land(ctx, f, err)
		if !again || !isStalePlan(err) {
			return nil, failed
		}
	}
}

// query returns the rows of the next answer.
func (f flight) query() (rows pgx.Rows, err error) {
	f.lease.guard(func() { rows, err = f.results.Query() }) //nolint:sqlclosecheck // land reads what is left
	return rows, err
}

// alone is the prologue of statements that are a transaction of their own. With replicas, one
// that may write is a block, for its position is known behind its commit.
func (at place) alone(writes bool, load func(*pgx.Batch, string)) prologue {
	if writes && at.pool.readers != nil {
		return prologue{begin: ReadCommitted.begin(false), load: load, writes: true, commits: true}
	}
	return prologue{load: load, writes: writes}
}

// land reads the rest of a flight's answers, of which the last is that of the commit, and
// gives the connection back.
func (db *DB) land(ctx context.Context, f flight, err error) error {
	var unsafe error
	f.lease.guard(func() { unsafe, err = db.settle(ctx, f, err) })
	f.lease.release()
	if unsafe != nil {
		return unknown(errors.Join(unsafe, err))
	}
	if isLost(err) || isLeft(err) && f.writes {
		return unknown(err)
	}
	return db.explained(ctx, err)
}

// settle reads the rest of a flight's answers and ends a transaction that is still open.
func (db *DB) settle(ctx context.Context, f flight, err error) (unsafe, _ error) {
	committed := false
	if f.commits {
		_, failed := f.results.Exec()
		if committed = failed == nil; committed {
			db.committed(ctx, f.at, f.sent, f.results)
		} else if err == nil {
			err = failed
		}
	}
	if closed := f.results.Close(); err == nil && !committed { // what comes behind a commit does not undo it
		err = closed
	}
	err = f.lease.judge(err)
	unsafe = f.lease.unsafe()
	if f.commits && !committed && f.lease.IsClosed() {
		f.at.doubt(ctx)
	}
	f.lease.rollback(ctx)
	return unsafe, err
}

// admit is what every call outside a transaction begins with.
func (db *DB) admit(ctx context.Context, stmt Statement, args []any) (place, error) {
	if err := checkCall(stmt, args); err != nil {
		return place{}, err
	}
	if err := db.checkNested(); err != nil {
		return place{}, err
	}
	return db.route(ctx)
}

// QueryRow is [DB.Query] for at most one row; its errors come from Scan.
func (db *DB) QueryRow(ctx context.Context, stmt Statement, args ...any) *Row {
	rows, err := db.Query(ctx, stmt, args...)
	return &Row{rows: rows, err: err}
}

// Exec runs one statement in a transaction of its own, in one round trip, and returns how
// many rows it touched. When it returns nil the change is committed; [ErrOutcome] says that
// it may be.
func (db *DB) Exec(ctx context.Context, stmt Statement, args ...any) (int64, error) {
	rows, err := db.query(ctx, stmt, true, args)
	if err != nil {
		return 0, err
	}
	rows.Close()
	return rows.CommandTag().RowsAffected(), rows.Err()
}

// Batch runs the statements of b in one transaction and one round trip, and gives their
// rows to its functions, which must not use db ([ErrNested]). When it returns nil all is
// committed, when it returns an error of a statement nothing is; the functions' own errors come
// too late to undo anything.
func (db *DB) Batch(ctx context.Context, b *Batch) error {
	if err := b.check(); err != nil {
		return err
	}
	if err := db.checkNested(); err != nil {
		return err
	}
	at, err := db.route(ctx)
	if err != nil {
		return err
	}
	f, err := db.takeOff(ctx, at, at.alone(b.execs, b.load))
	if err != nil {
		return err
	}
	f.lease.guard(func() {
		defer db.hold()()
		_, err = b.read(f.results)
	})
	return db.land(ctx, f, err)
}
