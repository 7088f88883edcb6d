package tenantdb

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/internal/home"
)

// A chunk of an insertion ends when either is reached. Small ones fit into the socket's buffer,
// where the server finds the next one as soon as it has inserted one.
const (
	chunkRows   = 1250
	chunkBytes  = 1 << 20
	chunksAhead = 4 // how many may lack an answer
)

// Insertion is an INSERT of many rows into one table; see [Into].
type Insertion struct {
	query   *home.Query
	sql     string
	columns []column
	bad     string // why it is refused, "" when it is not
}

// column is how the values of one column travel: as one array parameter.
type column struct {
	name, typ string
	// asText says that the array is of the values' texts. Arrays do not unfold to arrays, JSON is
	// sooner read as text, and of some types pgx knows no array, or none in binary.
	asText bool
	oid    uint32 // of the array, or with asText of the values; 0 when pgx does not know the type
}

func newColumn(types *pgtype.Map, name, typ string) column {
	col := column{name: name, typ: typ}
	element := elementName(typ)
	array, known := types.TypeForName("_" + element)
	switch nested := strings.HasSuffix(typ, "[]"); {
	case known && nested:
		col.asText, col.oid = true, array.OID
	case known && element != "json" && element != "jsonb" && types.FormatCodeForOID(array.OID) == pgtype.BinaryFormatCode:
		col.oid = array.OID
	default:
		col.asText = true
		if t, known := types.TypeForName(element); known && !nested {
			col.oid = t.OID
		}
	}
	return col
}

var (
	validTable  = regexp.MustCompile(`^app\.[a-z_][a-z0-9_]*$`)
	validColumn = regexp.MustCompile(`^([a-z_][a-z0-9_]*) ([a-z_][a-z0-9_ ]*(?:\([0-9]+(?:,[0-9]+)?\))?(?:\[\])?)$`)
)

// Into makes an insertion of constants: the table with its schema, and its columns, each with
// its type, in the order in which rows give their values.
//
//	var imported = tenantdb.Into("app.note", "id uuid", "title text", "labels text[]")
//
// The table has a column tenant_id: insert into global tables with [Stmt].
// The tenant's column is filled in, as its default would, but once for all rows: on rung L2a
// each evaluation checks the seal again. Keep insertions in package-level variables.
// What is no table and no columns is refused with [ErrVerb] where it is used.
//
// PostgreSQL does not COPY into tables with row security. An insertion sends each column of
// some thousand rows as one array, which costs the server a third more.
func Into(table text, columns ...text) Insertion {
	if !validTable.MatchString(string(table)) {
		return Insertion{bad: fmt.Sprintf("%q is no table of the app", table)}
	}
	if len(columns) == 0 {
		return Insertion{bad: "it has no columns"}
	}
	in, types := Insertion{}, pgtype.NewMap()
	var names, values []string
	for i, c := range columns {
		m := validColumn.FindStringSubmatch(string(c))
		if m == nil {
			return Insertion{bad: fmt.Sprintf("%q is no column with its type", c)}
		}
		col := newColumn(types, m[1], m[2])
		value := fmt.Sprintf("unnest($%d::%s[])", i+1, col.typ)
		if col.asText {
			value = fmt.Sprintf("unnest($%d::text[])::%s", i+1, col.typ)
		}
		in.columns = append(in.columns, col)
		names = append(names, col.name)
		values = append(values, value)
	}
	if !slices.Contains(names, "tenant_id") {
		names, values = append(names, "tenant_id"), append(values, "(SELECT rowhouse.tenant_id())")
	}
	// In the list, side by side: in FROM the server would first store the rows.
	in.sql = fmt.Sprintf("INSERT INTO %s (%s) SELECT %s", table, strings.Join(names, ", "), strings.Join(values, ", "))
	query := home.Parse(in.sql)
	in.query = &query
	return in
}

// String returns the SQL text of one chunk.
func (in Insertion) String() string { return in.sql }

// InsertRows inserts rows, each with a value for every column of the insertion, and returns
// how many there were. They go in chunks of 1,250 rows or 1 MiB of values; values of other types
// than text, bytes, JSON and arrays count as 16 bytes. After an error, also of one row, or a panic
// of rows, the transaction cannot commit.
//
// The server inserts while rows is asked for more: up to four chunks are under way, which memory
// holds, and an error comes that much later. When rows uses tx itself, that waits for them.
//
// Values are what pgx takes for the column's type; what it does not take, and a row with more or
// fewer values than columns, is [ErrArgument].
// A []byte may be used again once the next row is asked for; what else a value points to must
// stay as it is until InsertRows returns.
func (tx *Tx) InsertRows(ctx context.Context, into Insertion, rows iter.Seq[[]any]) (n int64, err error) {
	c := newChunk(into)
	err = misuse(pgx.ErrTxCommitRollback, "the rows of an insertion ended in a panic") // it stays when they do
	defer func() {
		if tx.owed != nil {
			if late := tx.use(ctx); late == nil {
				tx.free()
			} else if err == nil {
				err = late
			}
		}
		tx.failed = cmp.Or(tx.failed, err) // of a chunk's error and what came of it the first
		n, err = c.inserted, tx.failed
	}()
	if into.bad != "" || into.query == nil {
		return 0, misuse(ErrVerb, "%s", into.bad)
	}
	return 0, c.sendAll(ctx, tx, rows)
}

// InsertRows is [Tx.InsertRows] in a transaction of its own: all rows or none.
func (db *DB) InsertRows(ctx context.Context, into Insertion, rows iter.Seq[[]any]) (n int64, err error) {
	err = db.Tx(ctx, func(tx *Tx) (err error) {
		n, err = tx.InsertRows(ctx, into, rows)
		return err
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// chunk collects rows by column.
type chunk struct {
	into     Insertion
	types    *pgtype.Map
	values   []any // one []any per column, of those that travel as text one []*string
	rows     int
	bytes    int
	inserted int64
	params   [][]byte // of encode, by column
	formats  []int16  // of params

	pipe   *pgconn.Pipeline // nil when no chunk is in it
	flying int              // how many are
	failed error            // of the first of them that did
	traced func(error)      // ends the pipeline's span
}

func newChunk(into Insertion) *chunk {
	n := len(into.columns)
	c := &chunk{into: into, types: pgtype.NewMap(), values: make([]any, n), params: make([][]byte, n), formats: make([]int16, n)}
	for i, col := range into.columns {
		if col.asText {
			c.values[i] = make([]*string, 0, chunkRows)
		} else {
			c.values[i] = make([]any, 0, chunkRows)
		}
	}
	return c
}

// reset makes room for the next rows. What was encoded refers to none of the values.
func (c *chunk) reset() {
	c.rows, c.bytes = 0, 0
	for i, values := range c.values {
		switch list := values.(type) {
		case []*string:
			clear(list)
			c.values[i] = list[:0]
		case []any:
			clear(list)
			c.values[i] = list[:0]
		}
	}
}

func (c *chunk) add(row []any) error {
	if len(row) != len(c.into.columns) {
		return misuse(ErrArgument, "a row has %d values for %d columns", len(row), len(c.into.columns))
	}
	for i, value := range row {
		if b, ok := value.([]byte); ok && b != nil {
			value = bytes.Clone(b)
		}
		switch list := c.values[i].(type) {
		case []*string:
			text, err := c.text(c.into.columns[i], value)
			if err != nil {
				return misuse(ErrArgument, "column %s: %s", c.into.columns[i].name, err)
			}
			if text != nil {
				c.bytes += len(*text)
			}
			c.values[i] = append(list, text)
		case []any:
			c.bytes += size(value)
			c.values[i] = append(list, value)
		}
	}
	c.rows++
	return nil
}

// text writes a value as PostgreSQL reads it from text; nil stands for NULL.
func (c *chunk) text(col column, value any) (*string, error) {
	b, err := c.types.Encode(col.oid, pgtype.TextFormatCode, value, nil)
	if b == nil || err != nil {
		return nil, err
	}
	s := string(b)
	return &s, nil
}

// elementName is the catalog's name of a type, or of an array's element type.
func elementName(typ string) string {
	name, _, _ := strings.Cut(strings.TrimSuffix(typ, "[]"), "(")
	switch name {
	case "integer", "int":
		return "int4"
	case "bigint":
		return "int8"
	case "smallint":
		return "int2"
	case "boolean":
		return "bool"
	case "real":
		return "float4"
	case "double precision":
		return "float8"
	case "character varying":
		return "varchar"
	case "character", "char":
		return "bpchar"
	case "decimal":
		return "numeric"
	case "timestamp without time zone":
		return "timestamp"
	case "time without time zone":
		return "time"
	case "time with time zone":
		return "timetz"
	case "timestamp with time zone":
		return "timestamptz"
	}
	return name
}

// size is about what a value takes in a message.
func size(value any) int {
	switch v := value.(type) {
	case string:
		return len(v)
	case *string:
		if v != nil {
			return len(*v)
		}
	case []byte:
		return len(v)
	case pgtype.Text:
		return len(v.String)
	}
	if v := reflect.ValueOf(value); v.Kind() == reflect.String || v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8 {
		return v.Len() // a named one
	}
	return 16
}

// encode makes the columns the statement's parameters: in binary, or when a value has only a text,
// as pgx does it, all of the column as text.
func (c *chunk) encode() error {
	for i, values := range c.values {
		col, oid := c.into.columns[i], uint32(pgtype.TextArrayOID)
		array := values
		if list, binary := values.([]any); binary {
			oid, array = col.oid, pgtype.FlatArray[any](list)
		}
		b, err := c.types.Encode(oid, pgtype.BinaryFormatCode, array, c.params[i][:0])
		c.formats[i] = pgtype.BinaryFormatCode
		if err != nil {
			var other error
			if b, other = c.types.Encode(oid, pgtype.TextFormatCode, array, c.params[i][:0]); other != nil {
				return misuse(ErrArgument, "column %s: %s", col.name, err)
			}
			c.formats[i] = pgtype.TextFormatCode
		}
		c.params[i] = b
	}
	return nil
}

// args are the parameters for pgx.
func (c *chunk) args() []any {
	args := make([]any, len(c.params))
	for i, b := range c.params {
		if args[i] = encoded(b); c.formats[i] == pgtype.TextFormatCode {
			args[i] = string(b)
		}
	}
	return args
}

// encoded is an array in PostgreSQL's binary form.
type encoded []byte

// takeEncoded lets pgx send what is encoded already as it is.
func takeEncoded(value any) (plan pgtype.WrappedEncodePlanNextSetter, next any, ok bool) {
	if _, ok := value.(encoded); !ok {
		return nil, nil, false
	}
	return encodedPlan{}, pgtype.FlatArray[any]{}, true // pgx wants a plan for an array
}

type encodedPlan struct{}

func (encodedPlan) SetNext(pgtype.EncodePlan) {}

func (encodedPlan) Encode(value any, buf []byte) ([]byte, error) {
	return append(buf, value.(encoded)...), nil //nolint:forcetypeassert // takeEncoded saw to it
}

// sendAll sends the rows in chunks. The last ones' answers are owed.
func (c *chunk) sendAll(ctx context.Context, tx *Tx, rows iter.Seq[[]any]) error {
	for row := range rows {
		if err := c.add(row); err != nil {
			return err
		}
		if c.rows < chunkRows && c.bytes < chunkBytes {
			continue
		}
		if err := c.send(ctx, tx); err != nil {
			return err
		}
	}
	if c.rows == 0 {
		return nil
	}
	return c.send(ctx, tx)
}

// send sends what was collected: behind other chunks without waiting for their answers.
func (c *chunk) send(ctx context.Context, tx *Tx) error {
	if err := c.encode(); err != nil {
		return err
	}
	if err := tx.take(ctx); err != nil {
		return err
	}
	defer tx.free()
	defer c.reset()
	switch {
	case c.pipe != nil:
		return c.follow(ctx, tx)
	case tx.owed != nil:
		if err := tx.settle(); err != nil {
			return err
		}
		c.open(ctx, tx)
		return c.follow(ctx, tx)
	}
	return c.lead(ctx, tx)
}

// lead sends a chunk as any statement goes, which may open the transaction, and is prepared.
func (c *chunk) lead(ctx context.Context, tx *Tx) error {
	var b Batch
	b.Exec(Statement{sql: c.into.sql, query: c.into.query}, c.args()...)
	results, err := tx.batch(ctx, &b)
	if err != nil {
		return tx.explained(ctx, err)
	}
	tx.owed = func() error {
		tag, err := results.Exec()
		if closed := results.Close(); err == nil {
			err = closed
		}
		c.inserted += tag.RowsAffected()
		return tx.explained(ctx, err)
	}
	return nil
}

// open begins a pipeline, which pgx's batches are no way to: each waits for the answer to the one
// before. The pipeline is of one span.
func (c *chunk) open(ctx context.Context, tx *Tx) {
	sql, conn := c.into.query.In(tx.at.schema), tx.lease.Conn
	c.traced = func(error) {}
	if tracer := tx.at.pool.conns.config.Tracer; tracer != nil {
		span, before := tracer.TraceQueryStart(tx.traced(ctx), conn, pgx.TraceQueryStartData{SQL: sql}), c.inserted
		c.traced = func(err error) {
			tag := pgconn.NewCommandTag(fmt.Sprint("INSERT 0 ", c.inserted-before))
			tracer.TraceQueryEnd(span, conn, pgx.TraceQueryEndData{CommandTag: tag, Err: err})
		}
	}
	c.pipe, c.flying, c.failed = conn.PgConn().StartPipeline(ctx), 0, nil
	c.pipe.SendPrepare("", sql, nil)
	tx.owed = func() error {
		for c.failed == nil && c.flying > 0 {
			c.failed = c.land()
		}
		if closed := c.pipe.Close(); c.failed == nil {
			c.failed = closed
		}
		c.pipe = nil
		c.traced(c.failed)
		return tx.explained(ctx, c.failed)
	}
}

// follow sends a chunk in the pipeline, and waits for an answer when too many lack theirs.
func (c *chunk) follow(ctx context.Context, tx *Tx) error {
	c.pipe.SendQueryPrepared("", c.params, c.formats, nil)
	c.flying++
	c.failed = c.pipe.Sync()
	if c.failed == nil && c.flying > chunksAhead {
		c.failed = c.land()
	}
	return tx.explained(ctx, c.failed)
}

// land reads the answer to the oldest chunk in the pipeline.
func (c *chunk) land() error {
	for {
		got, err := c.pipe.GetResults()
		if err != nil {
			return err
		}
		switch answer := got.(type) {
		case *pgconn.ResultReader:
			tag, err := answer.Close()
			if err != nil {
				return err
			}
			c.inserted += tag.RowsAffected()
		case *pgconn.PipelineSync:
			c.flying--
			return nil
		case nil:
			return errors.New("a chunk of an insertion has no answer")
		}
	}
}
