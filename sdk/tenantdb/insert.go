package tenantdb

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"iter"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/internal/home"
)

// A chunk of an insertion ends when either is reached.
const (
	chunkRows  = 5000
	chunkBytes = 4 << 20
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
// how many there were. They go in chunks of 5,000 rows or 4 MiB of values, one round trip each;
// values of other types than text, bytes, JSON and arrays count as 16 bytes. After an error, also
// of one row, or a panic of rows, the transaction cannot commit.
//
// The server inserts a chunk while rows asks for the next, so memory holds two, and an error comes
// up to a chunk later. When rows uses tx itself, that waits for the chunk.
//
// Values are what pgx takes for the column's type; what it does not take, and a row with more or
// fewer values than columns, is [ErrArgument].
// A []byte may be used again once the next row is asked for; what else a value points to must
// stay as it is until InsertRows returns.
func (tx *Tx) InsertRows(ctx context.Context, into Insertion, rows iter.Seq[[]any]) (n int64, err error) {
	c := newChunk(into)
	err = misuse(pgx.ErrTxCommitRollback, "the rows of an insertion ended in a panic") // it stays when they do
	defer func() { tx.failed = cmp.Or(tx.failed, err) }()
	if into.bad != "" || into.query == nil {
		err = misuse(ErrVerb, "%s", into.bad)
	} else {
		err = c.sendAll(ctx, tx, rows)
	}
	if tx.owed != nil {
		if late := tx.use(ctx); late == nil {
			tx.free()
		} else if err == nil {
			err = late
		}
	}
	return c.inserted, cmp.Or(tx.failed, err) // of a chunk's error and what came of it the first
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
	buffers  [][]byte // of encode, by column
}

func newChunk(into Insertion) *chunk {
	c := &chunk{into: into, types: pgtype.NewMap(), buffers: make([][]byte, len(into.columns))}
	c.reset()
	return c
}

func (c *chunk) reset() {
	c.rows, c.bytes = 0, 0
	c.values = make([]any, len(c.into.columns))
	for i, col := range c.into.columns {
		if col.asText {
			c.values[i] = make([]*string, 0, chunkRows)
		} else {
			c.values[i] = make([]any, 0, chunkRows)
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

// encode returns the columns as arguments, encoded while the server is still at the chunk before:
// in binary, or when a value has only a text, as pgx does it, all of the column as text.
func (c *chunk) encode() ([]any, error) {
	args := make([]any, len(c.values))
	for i, values := range c.values {
		args[i] = values
		list, plain := values.([]any)
		if !plain {
			continue
		}
		col, array := c.into.columns[i], pgtype.FlatArray[any](list)
		b, err := c.types.Encode(col.oid, pgtype.BinaryFormatCode, array, c.buffers[i][:0])
		if err == nil {
			c.buffers[i], args[i] = b, encoded(b)
			continue
		}
		text, other := c.types.Encode(col.oid, pgtype.TextFormatCode, array, nil)
		if other != nil {
			return nil, misuse(ErrArgument, "column %s: %s", col.name, err)
		}
		args[i] = string(text)
	}
	return args, nil
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

// sendAll sends the rows in chunks. The last one's answer is owed.
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

// send sends what was collected. The server inserts it while the next rows are collected.
func (c *chunk) send(ctx context.Context, tx *Tx) error {
	args, err := c.encode()
	if err != nil {
		return err
	}
	var b Batch
	b.Exec(Statement{sql: c.into.sql, query: c.into.query}, args...)
	if err := tx.use(ctx); err != nil {
		return err
	}
	defer tx.free()
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
	c.reset()
	return nil
}
