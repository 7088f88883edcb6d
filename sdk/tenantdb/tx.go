package tenantdb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// Isolation is what a transaction sees of others.
type Isolation uint8

// The isolation levels.
const (
	// ReadCommitted sees what is committed when a statement begins.
	ReadCommitted Isolation = iota
	// RepeatableRead sees what was committed before its first statement.
	RepeatableRead
	// Serializable behaves as if transactions ran one after the other.
	Serializable
)

// begin says all of it: a session that somebody else used may have other defaults.
func (i Isolation) begin(readOnly bool) string {
	mode := " read write"
	if readOnly {
		mode = " read only"
	}
	switch i {
	case RepeatableRead:
		return "begin isolation level repeatable read" + mode
	case Serializable:
		return "begin isolation level serializable" + mode
	}
	return "begin isolation level read committed" + mode
}

// TxOption changes one transaction.
type TxOption func(*txOptions)

type txOptions struct {
	isolation Isolation
	tries     int
	readOnly  bool

	// Of reads only; see demand.
	primary bool
	within  time.Duration
	after   []string
}

// ReadOption changes one read. Each [TxOption] is one.
type ReadOption interface{ read(*txOptions) }

func (o TxOption) read(to *txOptions) { o(to) }

type readOption func(*txOptions)

func (o readOption) read(to *txOptions) { o(to) }

// Primary sends the read to the primary.
func Primary() ReadOption { return readOption(func(o *txOptions) { o.primary = true }) }

// After lets the read see the commit that the token is of; see package readtoken. With "" it has
// to see none.
func After(token string) ReadOption {
	return readOption(func(o *txOptions) { o.after = append(o.after, token) })
}

// MaxStaleness lets a replica answer that has what was committed longer ago than d, instead of
// the cell's MaxLag, and maybe not the caller's own last commits; for reports.
func MaxStaleness(d time.Duration) ReadOption {
	return readOption(func(o *txOptions) { o.within, o.primary = d, o.primary || d <= 0 })
}

// Isolate asks for an isolation level; the default is [ReadCommitted].
func Isolate(level Isolation) TxOption { return func(o *txOptions) { o.isolation = level } }

// Retry runs the function again, at most n times and after a growing random pause, when the
// database gave the transaction up for another one (serialization failure or deadlock). The
// function must do nothing outside the database that may not happen twice.
func Retry(n int) TxOption { return func(o *txOptions) { o.tries = n } }

// Tx is a transaction in one tenant. It is for the function that got it, and for one
// goroutine at a time.
type Tx struct {
	db      *DB
	at      place
	options txOptions

	state atomic.Int32
	lease lease // set once the first statement was accepted
	begun bool

	replica *replica           // whose the lease is; nil when it is the primary's
	why     string             // then why
	cancel  context.CancelFunc // ends the watch of the replica's life; nil without replica

	failed error        // why the transaction could not be opened, or must not commit
	owed   func() error // reads the answer to the last chunk of InsertRows; nil when nobody waits for one
}

// The states of a Tx.
const (
	txFree int32 = iota
	txBusy
	txOver
)

// Tx runs fn in a transaction of the context's tenant: it commits when fn returns nil and
// rolls back when it returns an error, which is passed on, or panics. BEGIN, the tenant and
// fn's first statement share one round trip; a function that asks nothing sends nothing.
//
// fn must not use db, or begin another transaction: [ErrNested]. A fault with reason
// OUTCOME_UNKNOWN ([ErrOutcome]) says that the commit may have happened.
func (db *DB) Tx(ctx context.Context, fn func(*Tx) error, options ...TxOption) error {
	var o txOptions
	for _, option := range options {
		option(&o)
	}
	return db.transact(ctx, fn, o)
}

// ReadTx is [DB.Tx] for reading: a statement that writes fails. It returns without waiting for
// the transaction's end.
//
// With [Cell.Replicas] it reads from a replica, in the same round trip, if there is one that has
// what the caller has to see, and from the primary if not. That is: what was committed longer
// ago than MaxLag, what this process committed for the tenant, and what the context's token is
// of; see package readtoken. Without a token nobody knows what the caller committed elsewhere, so
// the primary is read, unless [Config.SoleWriter] or an option says more. Reads of more than
// [ReadCommitted] are the primary's as well. Two reads may come from two replicas, the
// second one a little older.
//
// A statement that a replica gives up goes on at the primary. In the middle of its rows that is
// too late: then the error is a serialization failure or [ErrUnreachable], and for the first
// [Retry] runs the function again, on the primary.
func (db *DB) ReadTx(ctx context.Context, fn func(*Tx) error, options ...ReadOption) error {
	o := txOptions{readOnly: true}
	for _, option := range options {
		option.read(&o)
	}
	return db.transact(ctx, fn, o)
}

func (db *DB) transact(ctx context.Context, fn func(*Tx) error, o txOptions) error {
	if err := db.checkNested(); err != nil {
		return err
	}
	at, err := db.route(ctx)
	if err != nil {
		return err
	}
	defer db.hold()()
	for try := 0; ; try++ {
		tx := &Tx{db: db, at: at, options: o}
		err := tx.run(ctx, fn)
		if state := sqlState(err); err == nil || try >= o.tries || state != "40001" && state != "40P01" {
			return db.explained(ctx, err)
		}
		o.primary = true
		if err := sleep(ctx, db.pause(try)); err != nil {
			return explain(err)
		}
	}
}

// run is one try of fn, with its end. Also a panic, or a goroutine that exits, ends it.
func (tx *Tx) run(ctx context.Context, fn func(*Tx) error) error {
	defer tx.abandon(ctx)
	if err := fn(tx); err != nil {
		return err
	}
	if !tx.state.CompareAndSwap(txFree, txOver) {
		return misuse(ErrBusy, "the function returned while its transaction was in use")
	}
	switch {
	case tx.failed != nil:
		return hidden("its first statement or of InsertRows")
	case !tx.begun:
		return nil
	}
	return tx.commit(ctx)
}

func (tx *Tx) commit(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return explain(err)
	}
	if tx.lease.IsClosed() {
		return hidden("a statement that lost the connection")
	}
	if tx.options.readOnly && tx.options.isolation != Serializable {
		return tx.endRead(ctx)
	}
	end, cancel := context.WithTimeout(ctx, commitWait)
	defer cancel()
	tag, err := tx.sendCommit(end)
	unsafe := tx.lease.unsafe()
	switch {
	case err == nil && tag.String() == "ROLLBACK":
		return hidden("a statement")
	case unsafe != nil:
		return unknown(errors.Join(unsafe, err))
	case err == nil:
		return nil
	case isUnsent(err), tx.options.readOnly: // a read has nothing to commit
		return tx.explained(ctx, err)
	case sqlState(err) != "" && !isLost(tx.lease.judge(err)):
		return fmt.Errorf("commit: %w", err)
	}
	return unknown(err)
}

// sendCommit also asks for the commit's position, where reads wait for it.
func (tx *Tx) sendCommit(ctx context.Context) (pgconn.CommandTag, error) {
	if tx.at.pool.readers == nil || tx.options.readOnly || tx.lease.PgConn().TxStatus() != 'T' {
		return tx.lease.Exec(ctx, "commit")
	}
	batch := &pgx.Batch{}
	batch.Queue("commit")
	batch.Queue(positionSQL)
	sent := time.Now()
	results := tx.lease.SendBatch(ctx, batch)
	tag, err := results.Exec()
	if err == nil {
		tx.db.committed(ctx, tx.at, sent, results)
	}
	_ = results.Close() // what comes behind a commit does not undo it
	if err != nil && tx.lease.IsClosed() {
		tx.at.doubt(ctx)
	}
	return tag, err
}

// endRead ends a read without its caller, who has nothing to wait for. Close waits for it.
func (tx *Tx) endRead(ctx context.Context) error {
	if tx.lease.PgConn().TxStatus() == 'E' {
		return hidden("a statement")
	}
	tx.begun = false
	go func() {
		tx.lease.finish(ctx, "commit")
		tx.lease.release()
	}()
	return nil
}

func hidden(whose string) error {
	return misuse(pgx.ErrTxCommitRollback, "the function hid an error of %s", whose)
}

// abandon makes the transaction useless and gives its connection back: open it rolls back,
// in the middle of an answer it is destroyed.
func (tx *Tx) abandon(ctx context.Context) {
	busy := tx.state.Swap(txOver) == txBusy
	if tx.replica != nil {
		tx.at.pool.readers.count("")
	}
	if tx.cancel != nil {
		defer tx.cancel()
	}
	if !tx.begun {
		return
	}
	if busy {
		tx.lease.destroy()
		return
	}
	tx.lease.rollback(ctx)
	tx.lease.release()
}

// use is take, with what is owed settled.
func (tx *Tx) use(ctx context.Context) error {
	if err := tx.take(ctx); err != nil {
		return err
	}
	err := tx.settle()
	if err != nil {
		tx.free()
	}
	return err
}

// take checks one call and takes the transaction for it; the caller gives it back by free.
func (tx *Tx) take(ctx context.Context) error {
	tc, err := tenant.FromContext(ctx)
	if err != nil {
		return tx.db.alarmed(ctx, missing(err))
	}
	if tc.UID() != tx.at.tenant.UID() {
		return misuse(ErrTenantChanged, "a statement came with the context of another tenant")
	}
	if tx.state.CompareAndSwap(txFree, txBusy) {
		return nil
	}
	if tx.state.Load() == txOver {
		return misuse(ErrTxDone, "a statement came after the function returned")
	}
	return misuse(ErrBusy, "a statement came before the last one ended")
}

// settle reads the answer that is owed.
func (tx *Tx) settle() error {
	if tx.owed == nil {
		return nil
	}
	err := tx.owed()
	tx.owed = nil
	if err != nil {
		tx.failed = cmp.Or(tx.failed, err)
	}
	return err
}

func (tx *Tx) free() { tx.state.CompareAndSwap(txBusy, txFree) }

// Query runs a statement. The transaction is in use until the rows are closed.
func (tx *Tx) Query(ctx context.Context, stmt Statement, args ...any) (*Rows, error) {
	if err := checkCall(stmt, args); err != nil {
		return nil, err
	}
	if err := tx.use(ctx); err != nil {
		return nil, err
	}
	rows, err := tx.query(ctx, stmt, args)
	if err != nil {
		tx.free()
		return nil, tx.explained(ctx, err)
	}
	return rows, nil
}

// explained is [DB.explained] for errors of statements. The connection takes the
// transaction along when it goes, so a loss is no unknown outcome.
func (tx *Tx) explained(ctx context.Context, err error) error {
	if tx.begun {
		err = tx.lease.judge(err)
	}
	return tx.db.explained(ctx, err)
}

func (tx *Tx) query(ctx context.Context, stmt Statement, args []any) (*Rows, error) {
	for {
		rows, results, err := tx.ask(ctx, stmt, args)
		ahead := false
		if err == nil && tx.replica != nil { // with the first row also comes an error before it
			if ahead = rows.Next(); !ahead {
				err = rows.Err()
			}
		}
		switch {
		case err == nil:
			return &Rows{rows: rows, ahead: ahead, tx: tx, end: func(err error) error {
				if closed := closeResults(results); err == nil {
					err = closed
				}
				tx.free()
				return tx.explained(ctx, err)
			}}, nil
		case !tx.leaveReplica(ctx, results, err):
			_ = closeResults(results) // the same error again
			return nil, err
		}
	}
}

// ask sends a statement, with what opens the transaction if it is the first one: then its
// answer is one of results.
func (tx *Tx) ask(ctx context.Context, stmt Statement, args []any) (rows pgx.Rows, results pgx.BatchResults, err error) {
	if tx.begun {
		rows, err = tx.lease.Query(tx.traced(ctx), stmt.in(tx.at.schema), args...)
		return rows, nil, err
	}
	results, err = tx.start(ctx, func(b *pgx.Batch, schema string) { b.Queue(stmt.in(schema), args...) })
	if err == nil {
		rows, err = results.Query()
	}
	return rows, results, err
}

func closeResults(results pgx.BatchResults) error {
	if results == nil {
		return nil
	}
	return results.Close()
}

// start opens the transaction with its first statements. When that fails the transaction is
// over, as it is after an error of a later statement: what fn does next belongs to what failed.
func (tx *Tx) start(ctx context.Context, load func(*pgx.Batch, string)) (pgx.BatchResults, error) {
	if tx.failed != nil {
		return nil, tx.failed
	}
	f, err := tx.takeOff(ctx, prologue{begin: tx.options.isolation.begin(tx.options.readOnly), load: load})
	if err != nil {
		tx.failed = err
		return nil, err
	}
	tx.lease, tx.begun = f.lease, true
	return f.results, nil
}

// QueryRow is [Tx.Query] for at most one row; its errors come from Scan.
func (tx *Tx) QueryRow(ctx context.Context, stmt Statement, args ...any) *Row {
	rows, err := tx.Query(ctx, stmt, args...)
	return &Row{rows: rows, err: err}
}

// Exec runs a statement and returns how many rows it touched.
func (tx *Tx) Exec(ctx context.Context, stmt Statement, args ...any) (int64, error) {
	rows, err := tx.Query(ctx, stmt, args...)
	if err != nil {
		return 0, err
	}
	rows.Close()
	return rows.CommandTag().RowsAffected(), rows.Err()
}

// Batch runs the statements of b in one round trip and gives their rows to its functions.
func (tx *Tx) Batch(ctx context.Context, b *Batch) error {
	if err := b.check(); err != nil {
		return err
	}
	if err := tx.use(ctx); err != nil {
		return err
	}
	defer tx.free()
	for {
		results, err := tx.batch(ctx, b)
		if err != nil {
			return tx.explained(ctx, err)
		}
		told, err := b.read(results)
		if err != nil && !told && tx.leaveReplica(ctx, results, err) {
			continue
		}
		if closed := results.Close(); err == nil {
			err = closed
		}
		return tx.explained(ctx, err)
	}
}

func (tx *Tx) batch(ctx context.Context, b *Batch) (pgx.BatchResults, error) {
	if !tx.begun {
		return tx.start(ctx, b.load)
	}
	batch := &pgx.Batch{}
	b.load(batch, tx.at.schema)
	return tx.lease.SendBatch(tx.traced(ctx), batch), nil
}

// hold notes that this goroutine is in a transaction, until the returned function is called.
func (db *DB) hold() func() {
	id := goroutine()
	db.holders.Store(id, nil)
	db.held.Add(1)
	return func() {
		db.held.Add(-1)
		db.holders.Delete(id)
	}
}

func (db *DB) checkNested() error {
	if db.held.Load() == 0 {
		return nil
	}
	if _, nested := db.holders.Load(goroutine()); nested {
		return misuse(ErrNested, "a goroutine in a transaction asked for another connection")
	}
	return nil
}

// goroutine returns the number of the running goroutine, as a stack trace shows it. It
// guards against a mistake; no data depends on it.
func goroutine() uint64 {
	var buf [32]byte
	line := string(buf[:runtime.Stack(buf[:], false)])
	digits, _, _ := strings.Cut(strings.TrimPrefix(line, "goroutine "), " ")
	id, _ := strconv.ParseUint(digits, 10, 64)
	return id
}
