package lease

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

const (
	// defaultWait is how long a decision waits for the allocator.
	defaultWait = 250 * time.Millisecond
	// defaultPatience is how long a call waits for its turn at the safe rate.
	defaultPatience = 250 * time.Millisecond
	// retryLost is how long a process decides alone after the allocator failed.
	retryLost = time.Second
	// maxDenial is how long a process refuses by itself after one denial.
	maxDenial = time.Second
	// maxSkew is how far wall clock and monotonic clock may part: more means that the
	// machine stood still, and the leases with it.
	maxSkew = int64(250 * time.Millisecond)
	// defaultCells bounds the memory of a table, to about 120 MB.
	defaultCells = 1 << 21
)

// Config makes a [Table]. Granter and Clock are required.
type Config struct {
	Granter Granter
	Clock   func() time.Time
	// Wait is how long a decision waits for the allocator. Default 250 ms.
	Wait time.Duration
	// Patience is how long, without the allocator, a call may wait for its turn at the
	// safe rate; less than 0 for not at all. Default 250 ms.
	Patience time.Duration
	// Holders is how many processes are taken to hold leases until the allocator says how
	// many do. Default 1.
	Holders int
	// MaxCells is how many cells are remembered; calls of what is beyond ask each time.
	// Cells that say something are never forgotten. Default 2^21.
	MaxCells int64
	// Everybody reports whether an error of the granter says that the allocator answers
	// nobody, rather than that it refused one question. Default: it always does.
	Everybody func(error) bool
	// Log is told, at most once a second, that the allocator cannot be asked. Default slog.Default().
	Log *slog.Logger
}

// Table holds leases and decides by them. It is safe for concurrent use.
type Table struct {
	granter   Granter
	clock     func() time.Time
	wait      time.Duration
	patience  time.Duration
	everybody func(error) bool
	log       *slog.Logger
	maxCells  int64

	seeds [2]uint64
	// base is the table's zero; skew is how far the wall clock has left the monotonic one since.
	base     time.Time
	baseWall int64
	skew     atomic.Int64
	stopped  sync.Mutex

	shards [1 << shardBits]shard
	cells  atomic.Int64
	asked  atomic.Int64

	flights [1 << shardBits]flights
	// lost is until when the allocator is not asked at all, told until when no loss is logged again.
	lost, told atomic.Int64
	holders    atomic.Int64
	alone      queues
	idle       idle
}

// New returns a Table without leases.
func New(c Config) *Table {
	t := &Table{
		granter: c.Granter, clock: c.Clock, wait: c.Wait, patience: c.Patience, everybody: c.Everybody, log: c.Log, maxCells: c.MaxCells,
		seeds: [2]uint64{rand.Uint64(), rand.Uint64()}, base: c.Clock(), //nolint:gosec // against chosen keys, as maphash is
	}
	if t.wait == 0 {
		t.wait = defaultWait
	}
	if t.patience == 0 {
		t.patience = defaultPatience
	}
	if t.maxCells == 0 {
		t.maxCells = defaultCells
	}
	if t.everybody == nil {
		t.everybody = func(error) bool { return true }
	}
	if t.log == nil {
		t.log = slog.Default()
	}
	t.baseWall = t.base.UnixNano()
	t.holders.Store(int64(max(c.Holders, 1)))
	return t
}

// Verdict says whether a call may go.
type Verdict struct {
	// OK says that it may: all levels were charged. Else none was.
	OK bool
	// Degraded says that the allocator could not be asked about a level.
	Degraded bool
	// Unavailable says that the refusal is for lack of the allocator, not of tokens.
	Unavailable bool
	// Reason is why it is refused when that is for neither: TENANT_SUSPENDED,
	// TENANT_DELETED, LIMITER_BUSY, or INVALID_FIELD for levels that cannot be.
	Reason string
	// RetryAfter is, when refused, when to come back; 0 means never by these policies.
	RetryAfter time.Duration
	// Levels say more of each level, in the order of the call.
	Levels [MaxLevels]LevelVerdict
}

// LevelVerdict is what became of one level.
type LevelVerdict struct {
	// Denied says that this level refuses, or would if it were not a shadow.
	Denied bool
	// Unlimited says that its limit does not hold any more.
	Unlimited bool
	// Remaining is how many tokens there still are, as far as this process knows.
	Remaining int64
	// RetryAfter is, when Denied, when the cost would fit; 0 means never.
	RetryAfter time.Duration
}

// Take spends what the levels cost, at most [MaxLevels] of them with a key each, or
// refuses and spends nothing. token is the signed context of the scope's tenant, empty
// in-process. It waits for the allocator, or for the call's turn when that is gone, at
// most as long as configured. The end of ctx does not end a question that others wait
// for as well.
func (t *Table) Take(ctx context.Context, scope Scope, token string, levels []Level) Verdict {
	var v Verdict
	if !valid(levels) {
		v.Reason = fault.ReasonInvalidField
		return v
	}
	if now, ok := t.now(); ok && t.fast(now, levels, &v) {
		return v
	}
	wait := t.slow(ctx, caller{scope, token}, levels, &v)
	if wait > 0 {
		await(ctx, wait, &v)
	}
	return v
}

func valid(levels []Level) bool {
	for i := range levels {
		if c := levels[i].Cost; c < 1 || c > MaxCost {
			return false
		}
	}
	return len(levels) <= MaxLevels
}

// fast takes all levels from leases, or none.
func (t *Table) fast(now int64, levels []Level, v *Verdict) bool {
	var room [MaxLevels]hold
	held := room[:0]
	for i := range levels {
		h, ok := t.take(&levels[i], now)
		if !ok {
			for _, h := range held {
				h.undo()
			}
			return false
		}
		held = append(held, h)
		v.Levels[i].Remaining = h.left
	}
	v.OK = true
	return true
}

// take takes one level from its lease.
func (t *Table) take(l *Level, now int64) (hold, bool) {
	lo, hi := split(l.Key)
	h := t.hash(lo, hi)
	c, _ := t.shard(h).index.Load().find(lo, hi, h)
	if c == nil {
		return hold{}, false
	}
	return c.take(l, lo, hi, now)
}

// now returns the moment, in nanoseconds since the table was made. ok is false when the
// machine stood still: then all leases must go first.
func (t *Table) now() (now int64, ok bool) {
	at := t.clock()
	now = int64(at.Sub(t.base))
	parted := at.UnixNano() - t.baseWall - now - t.skew.Load()
	return now, parted <= maxSkew && parted >= -maxSkew
}

// moment is now, with all leases gone when the machine stood still.
func (t *Table) moment() int64 {
	now, ok := t.now()
	if ok {
		return now
	}
	t.stopped.Lock()
	defer t.stopped.Unlock()
	if now, ok = t.now(); ok {
		return now // somebody else did it
	}
	for i := range t.shards {
		t.shards[i].forget()
	}
	at := t.clock()
	now = int64(at.Sub(t.base))
	t.skew.Store(at.UnixNano() - t.baseWall - now)
	return now
}

// forget drops all leases and denials of a shard.
func (s *shard) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.index.Load()
	if x == nil {
		return
	}
	for i := range x.slots {
		if slot := x.slots[i].Load(); slot != 0 {
			x.cell(slot&numberMask - 1).clear()
		}
	}
}

// await waits for the call's turn. A caller that goes away meanwhile has used it.
func await(ctx context.Context, wait time.Duration, v *Verdict) {
	turn := time.NewTimer(wait)
	defer turn.Stop()
	select {
	case <-turn.C:
	case <-ctx.Done():
		v.OK, v.RetryAfter = false, wait
	}
}

// Stats are counts of a table.
type Stats struct {
	// Cells is how many keys are remembered.
	Cells int64
	// Asks is how often the allocator was asked.
	Asks int64
}

// Stats returns counts.
func (t *Table) Stats() Stats { return Stats{Cells: t.cells.Load(), Asks: t.asked.Load()} }

// Holders returns how many processes hold leases, as last known, at least 1.
func (t *Table) Holders() int64 { return t.holders.Load() }
