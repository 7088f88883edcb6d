package durable

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhouse-platform/rowhouse/services/quota/internal/allowance"
)

// errMoved says that between looking and locking something changed that decides which counters are meant. The transaction
// has to begin again.
var errMoved = errors.New("the quotas changed meanwhile")

// sourceOf names a state of a quota.
func sourceOf(uid string, revision int64) string { return fmt.Sprintf("%s/%d", uid, revision) }

// counter is one under lock.
type counter struct {
	allowance.Counter

	version int64
	changed bool
	// was is the counter as it was locked; before is what was used then, or behind a RESET.
	was    allowance.Counter
	before int64
}

// moved says whether it is another state for those who set usage: what is held does not matter to them.
func (c *counter) moved() bool {
	return c.Used != c.was.Used || c.Limit != c.was.Limit || c.Adjustment != c.was.Adjustment
}

// ledger are the counters that a transaction has locked.
type ledger struct {
	counters map[key]*counter
	levels   levels
	// mine is what the reservation at hand held; see takeHolds.
	mine map[key]int64
	// now is a moment after all were locked, by the database.
	now time.Time
}

// keysOf are the counters of levels at a moment, in the order of their locks.
func keysOf(ls levels, now time.Time, more ...key) []key {
	keys := slices.Clone(more)
	for _, l := range ls {
		keys = append(keys, l.at(now))
	}
	slices.SortFunc(keys, compareKeys)
	return slices.CompactFunc(keys, func(a, b key) bool { return compareKeys(a, b) == 0 })
}

// columns are keys as arrays.
func columns(keys []key) (owners, quotas []string, starts []time.Time) {
	for _, k := range keys {
		owners, quotas, starts = append(owners, k.owner), append(quotas, k.quota), append(starts, k.start)
	}
	return owners, quotas, starts
}

// prepare queues the making of counters that are missing.
func prepare(batch *pgx.Batch, ls levels, now time.Time) {
	byKey := make(map[key]allowance.Policy)
	for _, l := range ls {
		byKey[l.at(now)] = l.policy
	}
	if len(byKey) == 0 {
		return
	}
	keys := slices.SortedFunc(maps.Keys(byKey), compareKeys)
	owners, quotas, starts := columns(keys)
	var amounts []int64
	var sources []string
	for _, k := range keys {
		amounts, sources = append(amounts, byKey[k].Amount), append(sources, byKey[k].Source)
	}
	batch.Queue(`INSERT INTO quota.counter (tenant_uid, quota, period_start, lim, amount, source, seen)
		SELECT u.owner, u.quota, u.start, u.amount, u.amount AS again, u.source, ARRAY[u.source]
		FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::bigint[], $5::text[]) WITH ORDINALITY
			AS u (owner, quota, start, amount, source, ord)
		ORDER BY u.ord ON CONFLICT DO NOTHING`, owners, quotas, starts, amounts, sources)
}

const lockSQL = `SELECT c.tenant_uid::text, c.quota, c.period_start, c.used, c.held, c.lim, c.adjustment, c.amount, c.source, c.seen,
		c.grace_until, c.throttle_tat, c.version
	FROM quota.counter c JOIN unnest($1::uuid[], $2::text[], $3::timestamptz[]) AS u (owner, quota, start)
		ON c.tenant_uid = u.owner AND c.quota = u.quota AND c.period_start = u.start
	ORDER BY c.tenant_uid, c.quota COLLATE "C", c.period_start FOR UPDATE OF c`

// lock queues the locks of counters, in one order, and behind them the return of what has run out.
func (l *ledger) lock(batch *pgx.Batch, keys []key) {
	owners, quotas, starts := columns(keys)
	batch.Queue(lockSQL, owners, quotas, starts).Query(func(rows pgx.Rows) error { return l.read(rows) })
	batch.Queue(`DELETE FROM quota.hold h USING unnest($1::uuid[], $2::text[], $3::timestamptz[]) AS u (owner, quota, start)
		WHERE h.owner_uid = u.owner AND h.quota = u.quota AND h.period_start = u.start AND h.expire_time <= clock_timestamp()
		RETURNING h.owner_uid::text, h.quota, h.period_start, h.amount`, owners, quotas, starts).Query(l.giveBack)
	batch.Queue(`SELECT clock_timestamp()`).QueryRow(func(row pgx.Row) error { return row.Scan(&l.now) })
}

func (l *ledger) read(rows pgx.Rows) error {
	l.counters = make(map[key]*counter)
	var k key
	var c counter
	var grace *time.Time
	_, err := pgx.ForEachRow(rows, []any{
		&k.owner, &k.quota, &k.start, &c.Used, &c.Held, &c.Limit, &c.Adjustment, &c.Amount, &c.Source, &c.Seen,
		&grace, &c.ThrottleTAT, &c.version,
	}, func() error {
		one := c
		one.Seen, one.before = slices.Clone(c.Seen), c.Used
		one.was = one.Counter
		if grace != nil {
			one.GraceUntil = *grace
		}
		k.start = k.start.UTC()
		l.counters[k] = &one
		return nil
	})
	return err
}

// giveBack takes deleted holds off their counters.
func (l *ledger) giveBack(rows pgx.Rows) error {
	var k key
	var amount int64
	_, err := pgx.ForEachRow(rows, []any{&k.owner, &k.quota, &k.start, &amount}, func() error {
		k.start = k.start.UTC()
		c := l.counters[k]
		if c == nil {
			return errMoved // it was not locked
		}
		c.Give(amount)
		c.changed = true
		return nil
	})
	return err
}

// takeHolds takes what a reservation still holds out of the database, where its counters are locked; the counters are the
// caller's to move.
func (l *ledger) takeHolds(ctx context.Context, tx Tx, t Tenant, id string) error {
	l.mine = make(map[key]int64)
	rows, err := tx.Query(ctx, `DELETE FROM quota.hold WHERE tenant_uid = $1 AND reservation_id = $2
		RETURNING owner_uid::text, quota, period_start, amount`, t.UID, id)
	if err != nil {
		return fmt.Errorf("take what is held: %w", err)
	}
	var k key
	var amount int64
	_, err = pgx.ForEachRow(rows, []any{&k.owner, &k.quota, &k.start, &amount}, func() error {
		k.start = k.start.UTC()
		if l.counters[k] == nil {
			return errMoved
		}
		l.counters[k].changed, l.mine[k] = true, amount
		return nil
	})
	return err
}

// follow makes the counters of running periods ones of the quotas that hold now.
func (l *ledger) follow(at time.Time) error {
	for _, level := range l.levels {
		c := l.counters[level.at(at)]
		if c == nil {
			return errMoved
		}
		if c.Follow(level.policy, at) {
			c.changed = true
			c.before = min(c.before, c.Used) // RESET
		}
	}
	return nil
}

// save writes the counters that changed.
func (l *ledger) save(batch *pgx.Batch) {
	var keys []key
	for _, k := range slices.SortedFunc(maps.Keys(l.counters), compareKeys) {
		if l.counters[k].changed {
			keys = append(keys, k)
		}
	}
	for _, k := range keys { // a handful; one statement each keeps arrays of arrays out
		c := l.counters[k]
		var grace *time.Time
		if !c.GraceUntil.IsZero() {
			grace = &c.GraceUntil
		}
		if c.moved() {
			c.version++
		}
		batch.Queue(`UPDATE quota.counter SET used = $4, held = $5, lim = $6, adjustment = $7, amount = $8, source = $9, seen = $10,
				grace_until = $11, throttle_tat = $12, version = $13
			WHERE tenant_uid = $1 AND quota = $2 AND period_start = $3`, k.owner, k.quota, k.start, c.Used, c.Held, c.Limit, c.Adjustment,
			c.Amount, c.Source, c.Seen, grace, c.ThrottleTAT, c.version)
	}
}

// open locks the counters of the quotas that hold for a tenant, and those of more.
func open(ctx context.Context, tx Tx, t Tenant, quotas []string, more ...key) (*ledger, error) {
	first := new(pgx.Batch)
	var seen levels
	t.resolve(first, quotas, &seen)
	if err := tx.SendBatch(ctx, first).Close(); err != nil {
		return nil, fmt.Errorf("find quotas: %w", err)
	}
	return openAt(ctx, tx, t, seen, quotas, more...)
}

// openAt is open for quotas that were found before. What waits for a lock may wake in another world, so they are looked up
// once more behind it.
func openAt(ctx context.Context, tx Tx, t Tenant, seen levels, quotas []string, more ...key) (*ledger, error) {
	l, batch := new(ledger), new(pgx.Batch)
	prepare(batch, seen, tx.Now())
	l.lock(batch, keysOf(seen, tx.Now(), more...))
	t.resolve(batch, quotas, &l.levels)
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return nil, fmt.Errorf("lock quotas: %w", err)
	}
	if !seen.samePeriods(l.levels, tx.Now()) {
		return nil, errMoved
	}
	return l, l.follow(tx.Now())
}

// expectOne says that a statement must have found its row.
func expectOne(tag pgconn.CommandTag) error {
	if tag.RowsAffected() != 1 {
		return errMoved
	}
	return nil
}
