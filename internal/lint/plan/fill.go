package plan

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// The skew: one tenant with most of the rows, many with a few.
const (
	bigRows    = 20_000
	smallRows  = 10
	smallCount = 500
	allRows    = bigRows + smallRows*smallCount
)

// column is a column to fill.
type column struct {
	name string
	kind kind
}

// kind is a type as far as a value of it is to be made.
type kind struct {
	sql      string // as format_type writes it
	name     string // typname, of the base type for a domain
	category string // typcategory, or e for an enumeration
	element  string // typname of an array's elements
	modifier int    // typmod
}

const listTables = `
SELECT n.nspname, c.relname, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), b.typname,
	CASE WHEN b.typtype = 'e' THEN 'e' ELSE b.typcategory::text END, coalesce(e.typname, ''), a.atttypmod
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
JOIN pg_catalog.pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
LEFT JOIN pg_catalog.pg_type e ON e.oid = b.typelem AND b.typcategory = 'A'
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname = 'app'
ORDER BY n.nspname, c.relname, a.attnum`

// fill gives every table rows and statistics. What only guards rows is out of force: their
// values are made up, and the database goes away.
func (p *planner) fill(ctx context.Context) error {
	tables, order, err := p.columns(ctx)
	if err != nil {
		return err
	}
	if _, err := p.conn.Exec(ctx, "SET session_replication_role = replica"); err != nil {
		return fmt.Errorf("put triggers out of force: %w", err)
	}
	if err := p.dropChecks(ctx); err != nil {
		return err
	}
	p.tables = map[string]bool{}
	for _, table := range order {
		columns := tables[table]
		for _, c := range columns {
			if c.name == "tenant_id" {
				p.tables[table] = true
			}
		}
		if err := p.fillTable(ctx, table, columns); err != nil {
			return fmt.Errorf("fill %s with made-up rows: %w", table, err)
		}
	}
	if err := p.addPartitions(ctx); err != nil {
		return err
	}
	if _, err := p.conn.Exec(ctx, "SET session_replication_role = origin"); err != nil {
		return fmt.Errorf("put triggers in force: %w", err)
	}
	if _, err := p.conn.Exec(ctx, "VACUUM ANALYZE"); err != nil {
		return fmt.Errorf("make statistics: %w", err)
	}
	return nil
}

func (p *planner) columns(ctx context.Context) (tables map[string][]column, order []string, err error) {
	rows, err := p.conn.Query(ctx, listTables)
	if err != nil {
		return nil, nil, fmt.Errorf("list tables: %w", err)
	}
	tables = map[string][]column{}
	var schema, table string
	var c column
	into := []any{&schema, &table, &c.name, &c.kind.sql, &c.kind.name, &c.kind.category, &c.kind.element, &c.kind.modifier}
	_, err = pgx.ForEachRow(rows, into, func() error {
		name := schema + "." + table
		if len(tables[name]) == 0 {
			order = append(order, name)
		}
		tables[name] = append(tables[name], c)
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("list tables: %w", err)
	}
	return tables, order, nil
}

func (p *planner) dropChecks(ctx context.Context) error {
	rows, err := p.conn.Query(ctx, `SELECT conrelid::regclass::text, conname FROM pg_catalog.pg_constraint
		WHERE contype = 'c' AND connamespace = 'app'::regnamespace AND conrelid <> 0 AND conislocal`)
	if err != nil {
		return fmt.Errorf("list checks: %w", err)
	}
	var drops []string
	var table, name string
	_, err = pgx.ForEachRow(rows, []any{&table, &name}, func() error {
		drops = append(drops, "ALTER TABLE "+table+" DROP CONSTRAINT "+pgx.Identifier{name}.Sanitize())
		return nil
	})
	for _, drop := range drops {
		_, dropped := p.conn.Exec(ctx, drop)
		err = errors.Join(err, dropped)
	}
	if err != nil {
		return fmt.Errorf("drop checks: %w", err)
	}
	return nil
}

// addPartitions makes the partitions of tenant tables known as such.
func (p *planner) addPartitions(ctx context.Context) error {
	rows, err := p.conn.Query(ctx, `SELECT n.nspname || '.' || c.relname FROM pg_catalog.pg_class c
		JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
		WHERE c.relispartition AND n.nspname = 'app'`)
	if err != nil {
		return fmt.Errorf("list partitions: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	for _, name := range names {
		p.tables[name] = true
	}
	return err
}

func (p *planner) fillTable(ctx context.Context, table string, columns []column) error {
	var names, values []string
	for _, c := range columns {
		names = append(names, pgx.Identifier{c.name}.Sanitize())
		value := c.kind.value("n")
		if c.name == "tenant_id" {
			value = fmt.Sprintf("CASE WHEN n <= %d THEN '%s'::uuid ELSE md5('tenant ' || n / %d)::uuid END", bigRows, p.uid, smallRows)
		}
		values = append(values, value)
	}
	_, err := p.conn.Exec(ctx, fmt.Sprintf("INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s "+
		"FROM generate_series(1, %d) n ON CONFLICT DO NOTHING",
		pgx.Identifier(strings.SplitN(table, ".", 2)).Sanitize(), strings.Join(names, ", "), strings.Join(values, ", "), allRows))
	return err
}

// value returns an expression for the n-th value of a type.
func (k kind) value(n string) string {
	cast := func(e string) string { return "(" + e + ")::" + k.sql }
	switch k.category {
	case "e":
		return fmt.Sprintf("(enum_range(NULL::%[1]s))[1 + %[2]s %% array_length(enum_range(NULL::%[1]s), 1)]", k.sql, n)
	case "A":
		element := kind{sql: k.element, name: k.element}
		return cast("ARRAY[" + element.value(n) + "]")
	case "R":
		return "'empty'::" + k.sql
	}
	switch k.name {
	case "uuid":
		return cast("md5(" + n + "::text)")
	case "text", "varchar", "bpchar", "name", "citext":
		text := "'v' || " + n
		if k.modifier > 4 { // the length and four bytes
			text = "left(" + text + ", " + strconv.Itoa(k.modifier-4) + ")"
		}
		return cast(text)
	case "int2":
		return cast(n + " % 30000")
	case "int4", "int8", "float4", "float8", "oid", "money":
		return cast(n)
	case "numeric":
		if k.modifier > 4 {
			return cast(n + " % 10")
		}
		return cast(n)
	case "bool":
		return "(" + n + " % 2 = 0)"
	case "timestamptz", "timestamp", "date", "time", "timetz":
		return cast("now() - " + n + " * interval '1 minute'")
	case "interval":
		return cast(n + " * interval '1 second'")
	case "json", "jsonb":
		return cast("jsonb_build_object('key', " + n + ")")
	case "bytea":
		return "int8send(" + n + ")"
	case "inet", "cidr":
		return cast("'10.0.0.0'::inet + " + n)
	case "tsvector":
		return "to_tsvector('simple', 'w' || " + n + ")"
	case "tsquery":
		return "to_tsquery('simple', 'w' || " + n + ")"
	}
	return "NULL::" + k.sql
}

// samples returns values of types, for parameters of a custom plan.
func (p *planner) samples(ctx context.Context, oids []uint32) ([]string, error) {
	out := make([]string, len(oids))
	for i, oid := range oids {
		var k kind
		err := p.conn.QueryRow(ctx, `SELECT pg_catalog.format_type(t.oid, NULL), b.typname,
			CASE WHEN b.typtype = 'e' THEN 'e' ELSE b.typcategory::text END, coalesce(e.typname, ''), -1
			FROM pg_catalog.pg_type t
			JOIN pg_catalog.pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
			LEFT JOIN pg_catalog.pg_type e ON e.oid = b.typelem AND b.typcategory = 'A'
			WHERE t.oid = $1`, oid).Scan(&k.sql, &k.name, &k.category, &k.element, &k.modifier)
		if err != nil {
			return nil, fmt.Errorf("type of parameter %d: %w", i+1, err)
		}
		out[i] = k.value("50")
	}
	return out, nil
}
