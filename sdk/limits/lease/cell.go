package lease

import (
	"encoding/binary"
	"math/bits"
	"sync/atomic"
	"time"
)

// cell is what a table knows of one key, in 48 bytes. Whoever holds the shard's lock
// writes all of it; without the lock only word is written, by compare-and-set.
//
// The word's generation ties the other fields to it: they change only in between a
// word without tokens and one of the next generation. So what was read after the word
// belongs to it when its compare-and-set succeeds.
type cell struct {
	lo, hi atomic.Uint64 // the key
	policy atomic.Pointer[Policy]
	// word is tokens of the lease, or the moment of a denial's end in ms, 0 for never;
	// whether it is a denial; and the generation.
	word atomic.Uint64
	// until is when the lease ends, or from when on a denial is not repeated, in the
	// table's nanoseconds.
	until atomic.Int64
	// aux is what remained at the allocator; the size of the lease, or the cost that was
	// denied; and whether the last grant was no lease.
	aux atomic.Uint64
}

const (
	amountBits = 41 // as MaxCost has
	amountMask = 1<<amountBits - 1
	deniedBit  = 1 << amountBits
	generation = 1 << (amountBits + 1)

	sizeShift = amountBits
	sizeBits  = 16
	exactBit  = 1 << (sizeShift + sizeBits)

	// keepShare is the part of a lease's life that is not used, for clocks that drift.
	keepShare = 1000
)

func split(k Key) (lo, hi uint64) {
	return binary.NativeEndian.Uint64(k[:8]), binary.NativeEndian.Uint64(k[8:])
}

func (c *cell) is(lo, hi uint64) bool { return c.lo.Load() == lo && c.hi.Load() == hi }

// hold is tokens that a call took of a lease.
type hold struct {
	cell *cell
	gen  uint64
	cost uint64
	// left is what the holder knows to be left after it.
	left int64
}

// take spends tokens of the lease without a lock. It never denies: false only means
// that somebody has to look closer.
func (c *cell) take(l *Level, lo, hi uint64, now int64) (h hold, ok bool) {
	cost := uint64(l.Cost) //nolint:gosec // 1 to MaxCost
	for {
		w := c.word.Load()
		tokens := w & amountMask
		if w&deniedBit != 0 || tokens < cost || !c.is(lo, hi) || c.policy.Load() != l.Policy || now >= c.until.Load() {
			return h, false
		}
		left := int64(c.aux.Load()&amountMask) + int64(tokens-cost)
		if c.word.CompareAndSwap(w, w-cost) {
			return hold{c, w / generation, cost, left}, true
		}
	}
}

// undo puts back what was taken, unless the lease is another one by now: to that it
// would add what was never granted.
func (h hold) undo() {
	for {
		w := h.cell.word.Load()
		if w/generation != h.gen || w&deniedBit != 0 || h.cell.word.CompareAndSwap(w, w+h.cost) {
			return
		}
	}
}

// clear ends the lease or the denial, and begins a generation; the shard is locked.
func (c *cell) clear() {
	for {
		w := c.word.Load()
		if c.word.CompareAndSwap(w, (w/generation+1)*generation) {
			return
		}
	}
}

// lend publishes a lease; the shard is locked. It returns the lease's generation.
func (c *cell) lend(tokens, remaining, size, until int64) (gen uint64) {
	c.clear()
	c.until.Store(until)
	c.aux.Store(packAux(remaining, sizeOf(size), false))
	w := c.word.Load() | uint64(min(tokens, amountMask)) //nolint:gosec // not negative
	c.word.Store(w)                                      // nobody takes of a word without tokens
	return w / generation
}

// deny publishes a denial of a cost; the shard is locked.
func (c *cell) deny(cost, remaining, until, retryMillis int64) {
	c.clear()
	c.until.Store(until)
	size := sizeOf(cost)
	if size.amount() < cost {
		size++
	}
	c.aux.Store(packAux(remaining, size, c.exact()))
	c.word.Store(c.word.Load() | deniedBit | uint64(min(retryMillis, amountMask))) //nolint:gosec // not negative
}

// denied reports whether the cell refuses a cost at now by itself; the shard is locked.
func (c *cell) denied(cost, now int64) (retry time.Duration, ok bool) {
	w := c.word.Load()
	if w&deniedBit == 0 || now >= c.until.Load() || cost < c.size().amount() {
		return 0, false
	}
	if at := int64(w & amountMask); at > 0 {
		return max(time.Duration(at)*time.Millisecond-time.Duration(now), time.Microsecond), true
	}
	return 0, true
}

// leased returns the tokens of a lease that lives, or 0; the shard is locked.
func (c *cell) leased(now int64) int64 {
	w := c.word.Load()
	if w&deniedBit != 0 || now >= c.until.Load() {
		return 0
	}
	return int64(w & amountMask)
}

func (c *cell) remaining() int64 { return int64(c.aux.Load() & amountMask) }
func (c *cell) size() size       { return size(c.aux.Load() >> sizeShift) } //nolint:gosec // the low 16 bits
func (c *cell) exact() bool      { return c.aux.Load()&exactBit != 0 }

// mark notes that the last grant was no lease, as if it had been one that is spent; the
// shard is locked.
func (c *cell) mark(remaining, cost, until int64) {
	c.clear()
	c.until.Store(until)
	c.aux.Store(packAux(remaining, sizeOf(cost), true))
}

func packAux(remaining int64, s size, exact bool) uint64 {
	aux := uint64(min(max(remaining, 0), amountMask)) | uint64(s)<<sizeShift
	if exact {
		aux |= exactBit
	}
	return aux
}

// size is an amount in 16 bits: ten of them and how often it was halved, rounded down.
type size uint16

const mantissaBits = 10

func sizeOf(amount int64) size {
	n := uint64(max(amount, 0))
	shift := bits.Len64(n) - mantissaBits - 1
	if shift < 0 {
		return size(n) //nolint:gosec // ten bits
	}
	return size(shift+1)<<mantissaBits | size(n>>shift&(1<<mantissaBits-1)) //nolint:gosec // ten bits
}

func (s size) amount() int64 {
	exponent, mantissa := int(s>>mantissaBits), int64(s&(1<<mantissaBits-1))
	if exponent == 0 {
		return mantissa
	}
	return (1<<mantissaBits | mantissa) << (exponent - 1)
}
