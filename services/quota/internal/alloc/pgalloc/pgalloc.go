// Package pgalloc keeps cells and slots in PostgreSQL.
//
// Each trip is one statement, a function of the database: a process that stops in the
// middle holds no lock, and a batch of many scopes is one commit. Batches wait for nobody:
// cells that another replica has locked are left out, and taken up again by themselves.
// A commit is on disk before a grant is answered, so that a crash forgets none. Start at
// [New].
package pgalloc

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/alloc"
)

// Config makes a [Driver]. Pool is required.
type Config struct {
	// Pool reaches quota's database as its service role.
	Pool *pgxpool.Pool
	// Clock replaces the database's clock, for tests.
	Clock func() gcra.Ticks
}

// Driver is an alloc.Driver on PostgreSQL.
type Driver struct {
	pool  *pgxpool.Pool
	clock func() gcra.Ticks

	mu     sync.Mutex
	cursor map[string]int64 // the next page that collection looks at, by table
}

var _ alloc.Driver = (*Driver)(nil)

// New returns a driver.
func New(c Config) *Driver {
	return &Driver{pool: c.Pool, clock: c.Clock, cursor: make(map[string]int64)}
}

// at is the time to decide by; nil for the database's.
func (d *Driver) at() *int64 {
	if d.clock == nil {
		return nil
	}
	now := int64(d.clock())
	return &now
}

// batch is the arguments of meter.charge.
type batch struct {
	scopes, keys [][16]byte
	items        []int64
	cells        []int // the cell of each item, from 0
}

// Charge implements alloc.Driver.
func (d *Driver) Charge(ctx context.Context, b alloc.Batch) ([]alloc.Charged, error) {
	args := newBatch(b.Charges)
	var now int64
	var applied, busy []bool
	var rungs []int
	var tats, tokens, periods, bursts, revisions, stored []int64
	err := d.pool.QueryRow(ctx, `SELECT o_now, o_applied, o_busy, o_rungs, o_tats, o_tokens, o_periods, o_bursts, o_revisions, o_stored
		FROM meter.charge($1, $2, $3, $4, $5)`, b.Patience.Milliseconds(), d.at(), args.scopes, args.keys, args.items).
		Scan(&now, &applied, &busy, &rungs, &tats, &tokens, &periods, &bursts, &revisions, &stored)
	if err != nil {
		return nil, failure("charge cells", err)
	}
	out := make([]alloc.Charged, len(b.Charges))
	item := 0
	for i, c := range b.Charges {
		got := &out[i]
		got.OK, got.Now, got.Cells = applied[i], gcra.Ticks(now), make([]alloc.CellCharged, len(c.Cells))
		for n := range c.Cells {
			cell := args.cells[item]
			got.Cells[n] = alloc.CellCharged{Rung: rungs[item], TAT: gcra.Ticks(tats[item])}
			if rungs[item] == alloc.Stale {
				got.Stale = true
				got.Cells[n].Stored = alloc.State{
					TAT: gcra.Ticks(tats[item]), Revision: revisions[cell],
					Mark: alloc.Mark{Tokens: tokens[cell], Period: periods[cell], Burst: bursts[cell]},
				}
			}
			item++
		}
		if busy[i] {
			*got = alloc.Charged{Err: alloc.ErrBusy}
		}
	}
	return out, nil
}

// newBatch lists each cell once, in the order of locks, and what is asked of it.
func newBatch(charges []alloc.Charge) batch {
	var refs []alloc.Ref
	for _, c := range charges {
		for _, cell := range c.Cells {
			refs = append(refs, alloc.Ref{Scope: c.Scope, Key: cell.Key})
		}
	}
	refs = ordered(refs)
	var b batch
	for _, r := range refs {
		b.scopes, b.keys = append(b.scopes, r.Scope), append(b.keys, r.Key)
	}
	for i, c := range charges {
		for _, cell := range c.Cells {
			n, _ := slices.BinarySearchFunc(refs, alloc.Ref{Scope: c.Scope, Key: cell.Key}, compare)
			b.cells = append(b.cells, n)
			b.items = appendItem(b.items, int64(i), int64(n)+1, cell)
		}
	}
	return b
}

// appendItem appends the numbers of one cell of a charge.
func appendItem(items []int64, charge, cell int64, c alloc.Cell) []int64 {
	optional := int64(0)
	if c.Optional {
		optional = 1
	}
	items = append(items, charge, cell, c.Mark.Tokens, c.Mark.Period, c.Mark.Burst, c.Revision,
		int64(c.Burst), int64(c.Life), int64(c.Exact), optional)
	for i := range alloc.Rungs {
		cost := int64(-1)
		if i < len(c.Ladder) {
			cost = int64(c.Ladder[i])
		}
		items = append(items, cost)
	}
	if !c.Converted {
		return append(items, -1, 0, 0, 0, 0)
	}
	return append(items, int64(c.From.TAT), c.From.Mark.Tokens, c.From.Mark.Period, c.From.Mark.Burst, int64(c.To))
}

// ordered returns the cells each once, in the order of their locks.
func ordered(refs []alloc.Ref) []alloc.Ref {
	slices.SortFunc(refs, compare)
	return slices.Compact(refs)
}

func compare(a, b alloc.Ref) int {
	return cmp.Or(bytes.Compare(a.Scope[:], b.Scope[:]), bytes.Compare(a.Key[:], b.Key[:]))
}

// Give implements alloc.Driver. It waits for no lock: whoever has one changes the cell.
func (d *Driver) Give(ctx context.Context, gives []alloc.Give) ([]bool, error) {
	taken := make([]bool, len(gives))
	var scopes, keys [][16]byte
	var tats, tokens, periods, bursts, bys []int64
	for _, g := range gives {
		scopes, keys, tats = append(scopes, g.Scope), append(keys, g.Key), append(tats, int64(g.TAT))
		tokens, periods, bursts = append(tokens, g.Mark.Tokens), append(periods, g.Mark.Period), append(bursts, g.Mark.Burst)
		bys = append(bys, int64(g.By))
	}
	rows, err := d.pool.Query(ctx, `WITH given AS (
			SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])
				WITH ORDINALITY AS g (scope, key, tat, tokens, period_ns, burst, lower, n)
		), free AS (
			SELECT g.n, g.lower, c.scope, c.key FROM given g JOIN meter.limit_cell c USING (scope, key, tat, tokens, period_ns, burst)
			FOR UPDATE OF c SKIP LOCKED
		)
		UPDATE meter.limit_cell c SET tat = c.tat - f.lower FROM (SELECT DISTINCT ON (scope, key) * FROM free ORDER BY scope, key, n) f
		WHERE c.scope = f.scope AND c.key = f.key RETURNING f.n`, scopes, keys, tats, tokens, periods, bursts, bys)
	if err != nil {
		return nil, failure("return leases", err)
	}
	numbers, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, failure("return leases", err)
	}
	for _, n := range numbers {
		taken[n-1] = true
	}
	return taken, nil
}

// Read implements alloc.Driver.
func (d *Driver) Read(ctx context.Context, refs []alloc.Ref) ([]alloc.State, gcra.Ticks, error) {
	scopes, keys := split(refs)
	states := make([]alloc.State, len(refs))
	var now int64
	batch := new(pgx.Batch)
	batch.Queue(`SELECT coalesce($1::bigint, meter.tick())`, d.at()).QueryRow(func(row pgx.Row) error { return row.Scan(&now) })
	batch.Queue(`SELECT k.n, c.tat, c.tokens, c.period_ns, c.burst, c.revision
		FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS k (scope, key, n) JOIN meter.limit_cell c USING (scope, key)`,
		scopes, keys).Query(func(rows pgx.Rows) error {
		var n int64
		var s alloc.State
		_, err := pgx.ForEachRow(rows, []any{&n, &s.TAT, &s.Mark.Tokens, &s.Mark.Period, &s.Mark.Burst, &s.Revision}, func() error {
			states[n-1] = s
			return nil
		})
		return err
	})
	if err := d.pool.SendBatch(ctx, batch).Close(); err != nil {
		return nil, 0, failure("read cells", err)
	}
	return states, gcra.Ticks(now), nil
}

func split(refs []alloc.Ref) (scopes, keys [][16]byte) {
	for _, r := range refs {
		scopes, keys = append(scopes, r.Scope), append(keys, r.Key)
	}
	return scopes, keys
}

// Present implements alloc.Driver.
func (d *Driver) Present(ctx context.Context, holders []string, life time.Duration) (int, error) {
	var n int
	batch := new(pgx.Batch)
	batch.Queue(`INSERT INTO meter.holder (name, seen_time) SELECT DISTINCT unnest($1::text[]), clock_timestamp()
		ON CONFLICT (name) DO UPDATE SET seen_time = excluded.seen_time`, holders)
	batch.Queue(`SELECT count(*) FROM meter.holder WHERE seen_time > clock_timestamp() - $1::interval`, life).
		QueryRow(func(row pgx.Row) error { return row.Scan(&n) })
	if err := d.pool.SendBatch(ctx, batch).Close(); err != nil {
		return 0, failure("note holders", err)
	}
	return n, nil
}

// Erase implements alloc.Driver.
func (d *Driver) Erase(ctx context.Context, scope lease.Scope) error {
	batch := new(pgx.Batch)
	batch.Queue(`DELETE FROM meter.limit_cell WHERE scope = $1`, [16]byte(scope))
	batch.Queue(`DELETE FROM meter.limit_slot WHERE scope = $1`, [16]byte(scope))
	if err := d.pool.SendBatch(ctx, batch).Close(); err != nil {
		return failure("erase a scope", err)
	}
	return nil
}

// failure tells what a new attempt resolves from what only the future does.
func failure(what string, err error) error {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch pgErr.Code {
		case "55P03": // lock_not_available
			return fmt.Errorf("%s: %w", what, alloc.ErrBusy)
		case "RQ001", "40P01", "40001": // ours, deadlock_detected, serialization_failure
			return fmt.Errorf("%s: %w", what, alloc.ErrAgain)
		}
	}
	return fmt.Errorf("%s: %w", what, err)
}
