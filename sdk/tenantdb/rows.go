package tenantdb

import (
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// Rows are the rows of a query. They are a [pgx.Rows], so pgx.CollectRows and its kin
// take them. Read them to the end or close them: they hold the connection. One goroutine
// at a time.
type Rows struct {
	rows  pgx.Rows
	end   func(error) error // called once, with the error of the rows
	ahead bool              // the first row was read already
	tx    *Tx               // in which they are read; nil outside
	ended bool
	err   error
}

var _ pgx.Rows = (*Rows)(nil)

// Close gives the connection back. It may be called again.
func (r *Rows) Close() {
	if r.ended {
		return
	}
	r.ended = true
	if r.orphaned() {
		return
	}
	defer func() { r.err = r.end(r.rows.Err()) }() // also when a tracer panics
	r.rows.Close()
}

// orphaned reports whether the transaction is over, which took the connection along: nobody may
// read from it while the rest of the answer is thrown away.
func (r *Rows) orphaned() bool {
	if r.tx == nil || r.tx.state.Load() != txOver {
		return false
	}
	r.ended, r.err = true, misuse(ErrTxDone, "rows were read after the function returned")
	return true
}

// Err returns what went wrong; ask after Close or after Next returned false. For a query
// that stands alone, nil also means that it is committed.
func (r *Rows) Err() error {
	if r.ended {
		return r.err
	}
	return explain(r.rows.Err())
}

// Next goes to the next row and reports whether there is one. At the end it closes.
func (r *Rows) Next() bool {
	if r.ended || r.orphaned() {
		return false
	}
	if r.ahead {
		r.ahead = false
		return true
	}
	more := false
	defer func() {
		if !more { // or a tracer panicked
			r.Close()
		}
	}()
	more = r.rows.Next()
	return more
}

// Scan reads the current row into dest.
func (r *Rows) Scan(dest ...any) error { return r.rows.Scan(dest...) }

// Values returns the current row.
func (r *Rows) Values() ([]any, error) { return r.rows.Values() }

// RawValues returns the current row as it came, valid until Next.
func (r *Rows) RawValues() [][]byte { return r.rows.RawValues() }

// CommandTag returns what the statement did, once the rows are closed.
func (r *Rows) CommandTag() pgconn.CommandTag { return r.rows.CommandTag() }

// FieldDescriptions describes the columns.
func (r *Rows) FieldDescriptions() []pgconn.FieldDescription { return r.rows.FieldDescriptions() }

// TypeMap returns the map by which values are decoded.
func (r *Rows) TypeMap() *pgtype.Map { return r.rows.TypeMap() }

// Conn returns nil: a connection is not for use outside its tenant.
func (r *Rows) Conn() *pgx.Conn { return nil }

// Row is the answer to QueryRow.
type Row struct {
	rows *Rows
	err  error
}

// Scan reads the row into dest; [ErrNoRows] says that there is none. Further rows are
// dropped. It gives the connection back and must be called exactly once.
func (r *Row) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	defer r.rows.Close()
	if !r.rows.Next() {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return ErrNoRows
	}
	if err := r.rows.Scan(dest...); err != nil {
		return err
	}
	r.rows.Close()
	return r.rows.Err()
}

// Batch is a list of statements for one round trip. The zero Batch is empty. It may be
// sent again; it is not safe for concurrent use. Its functions run while the connection is held,
// and the tenant's share of them with it: they read, and do nothing that takes long.
type Batch struct {
	items []batchItem
	execs bool // at least one, or a verb that writes
	bad   error
}

type batchItem struct {
	stmt Statement
	args []any
	read func(*Rows) error
}

// Exec adds a statement whose rows are of no interest.
func (b *Batch) Exec(stmt Statement, args ...any) {
	b.execs = true
	b.add(nil, stmt, args)
}

// Query adds a statement and the function that reads its rows. An error of read is the
// batch's, and the functions after it are not called; the statements ran all the same.
func (b *Batch) Query(read func(*Rows) error, stmt Statement, args ...any) { b.add(read, stmt, args) }

func (b *Batch) add(read func(*Rows) error, stmt Statement, args []any) {
	if err := checkCall(stmt, args); err != nil && b.bad == nil {
		b.bad = err
	}
	b.execs = b.execs || !stmt.reads
	b.items = append(b.items, batchItem{stmt, args, read})
}

func (b *Batch) check() error {
	if len(b.items) == 0 && b.bad == nil {
		return misuse(ErrVerb, "an empty batch")
	}
	return b.bad
}

func (b *Batch) load(to *pgx.Batch, schema string) {
	for _, item := range b.items {
		to.Queue(item.stmt.in(schema), item.args...)
	}
}

// read gives the answers to the items' functions. It goes on after a function's error, so
// that the outcome of the statements is known. It reports whether a function was told.
func (b *Batch) read(results pgx.BatchResults) (told bool, err error) {
	var refused error
	for _, item := range b.items {
		rows, err := results.Query()
		if err != nil {
			return told, err
		}
		r := &Rows{rows: rows, end: func(err error) error { return err }}
		if item.read != nil && refused == nil {
			told = true
			refused = item.read(r)
		}
		r.Close()
		if err := r.Err(); err != nil {
			return told, err
		}
	}
	return told, refused
}
