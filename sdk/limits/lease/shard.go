package lease

import (
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	shardBits = 8
	slabCells = 64
	// A slot of an index is the number of a cell, counted from 1, below a part of its hash.
	numberBits = 20
	numberMask = 1<<numberBits - 1
	firstSlots = 16
	// linger is how long a cell that says nothing any more is kept for the size of its
	// leases.
	linger = int64(time.Minute)
	// sweepEvery is how often a full table looks for cells that say nothing any more.
	sweepEvery = int64(100 * time.Millisecond)
)

// shard is a part of a table: cells that never move, and an index of them that readers
// use without a lock.
type shard struct {
	index atomic.Pointer[index]

	mu sync.Mutex // writers'
	// count is how many cells are in the index, made how many there are; free are those
	// that are in none.
	count, made int
	free        []uint32
	swept       int64
	// ahead are revisions by which the allocator decided that the asker did not know yet,
	// by number of the cell.
	ahead map[uint32]int64
}

type slab [slabCells]cell

// index finds cells; its slots fill, the rest never changes.
type index struct {
	slots []atomic.Uint32
	slabs []*slab
}

func (x *index) cell(number uint32) *cell {
	return &x.slabs[number/slabCells][number%slabCells]
}

// find returns the cell of a key, or nil. It needs no lock; without one the cell may
// become another key's at any moment.
func (x *index) find(lo, hi, h uint64) (c *cell, number uint32) {
	if x == nil {
		return nil, 0
	}
	mask := len(x.slots) - 1
	part := uint32(h) &^ numberMask //nolint:gosec // its low half
	for i := int(h>>(numberBits+12)) & mask; ; i = (i + 1) & mask {
		slot := x.slots[i].Load()
		if slot == 0 {
			return nil, 0
		}
		if slot&^numberMask != part {
			continue
		}
		number = slot&numberMask - 1
		if number/slabCells >= uint32(len(x.slabs)) { //nolint:gosec // at most 2^14
			return nil, 0 // a reader without the lock has an older list of slabs
		}
		if c = x.cell(number); c.is(lo, hi) {
			return c, number
		}
	}
}

// enter puts a cell into the index; the shard is locked, and there is room.
func (x *index) enter(number uint32, h uint64) {
	mask := len(x.slots) - 1
	i := int(h>>(numberBits+12)) & mask
	for x.slots[i].Load() != 0 {
		i = (i + 1) & mask
	}
	x.slots[i].Store(uint32(h)&^numberMask | (number + 1)) //nolint:gosec // its low half
}

// hash spreads a key by what only this process knows, so that nobody can choose keys
// that meet.
func (t *Table) hash(lo, hi uint64) uint64 {
	a, b := bits.Mul64(lo^t.seeds[0], hi^t.seeds[1])
	return a ^ b
}

func (t *Table) shard(h uint64) *shard { return &t.shards[h>>(64-shardBits)] }

// cellOf returns the key's cell, a new one when there is none, with the lock of its
// shard held. It is nil when the table is full.
func (t *Table) cellOf(k Key, now int64) (c *cell, number uint32, s *shard) {
	lo, hi := split(k)
	h := t.hash(lo, hi)
	s = t.shard(h)
	s.mu.Lock()
	if c, number = s.index.Load().find(lo, hi, h); c != nil {
		return c, number, s
	}
	number, ok := t.vacant(s, now)
	if !ok {
		return nil, 0, s
	}
	x := s.index.Load()
	c = x.cell(number)
	c.clear()
	c.policy.Store(nil)
	c.until.Store(0)
	c.aux.Store(0)
	c.lo.Store(lo)
	c.hi.Store(hi)
	x.enter(number, h)
	s.count++
	t.cells.Add(1)
	return c, number, s
}

// vacant returns a cell that is in no index, with room for it there; the shard is
// locked.
func (t *Table) vacant(s *shard, now int64) (number uint32, ok bool) {
	x := s.index.Load()
	full := t.cells.Load() >= t.maxCells
	if full && x != nil && now-s.swept < sweepEvery {
		return 0, false
	}
	if x == nil || full || (s.count+1)*5 > len(x.slots)*4 {
		s.swept = now
		if t.sweep(s, now, full); full && t.cells.Load() >= t.maxCells {
			return 0, false
		}
		x = s.index.Load()
	}
	if n := len(s.free); n > 0 {
		number, s.free = s.free[n-1], s.free[:n-1]
		return number, true
	}
	if s.made >= numberMask {
		return 0, false
	}
	number = uint32(s.made) //nolint:gosec // 20 bits
	if s.made%slabCells == 0 {
		slabs := slices.Concat(x.slabs, []*slab{new(slab)}) // readers have the old list
		s.index.Store(&index{slots: x.slots, slabs: slabs})
	}
	s.made++
	return number, true
}

// sweep takes cells that say nothing any more out of the index, and gives it room; the
// shard is locked. A cell whose lease, denial or place in the queue lives is never
// taken. In a hurry no cell is kept for its size only.
func (t *Table) sweep(s *shard, now int64, hurry bool) {
	old := s.index.Load()
	if old == nil {
		old = new(index)
	}
	before := now - linger
	if hurry {
		before = now
	}
	var live []uint32
	for i := range old.slots {
		slot := old.slots[i].Load()
		if slot == 0 {
			continue
		}
		number := slot&numberMask - 1
		if c := old.cell(number); c.until.Load() > before {
			live = append(live, number)
			continue
		}
		old.cell(number).clear()
		delete(s.ahead, number)
		s.free = append(s.free, number)
	}
	slots := max(len(old.slots), firstSlots)
	for (len(live)+1)*5 > slots*4 {
		slots *= 2
	}
	fresh := &index{slots: make([]atomic.Uint32, slots), slabs: old.slabs}
	for _, number := range live {
		c := old.cell(number)
		fresh.enter(number, t.hash(c.lo.Load(), c.hi.Load()))
	}
	t.cells.Add(int64(len(live) - s.count))
	s.count = len(live)
	s.index.Store(fresh)
}

// follow makes the cell one of a policy. What another version left is dropped, unless
// the allocator was ahead and decided by this one already; the shard is locked.
func (s *shard) follow(c *cell, number uint32, p *Policy) {
	was := c.policy.Load()
	if was == p {
		return
	}
	if revision, ok := s.ahead[number]; !ok || revision != p.Revision || was == nil {
		c.clear()
		c.until.Store(0)
		c.aux.Store(packAux(0, c.size(), false))
	}
	delete(s.ahead, number)
	c.policy.Store(p)
}
