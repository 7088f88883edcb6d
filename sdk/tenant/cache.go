package tenant

import (
	"crypto/ed25519"
	"sync/atomic"
)

// The cache is a fixed table of sets of four entries. It needs no locks and no
// accounting: 16,384 entries of at most 1,000 bytes, the table included, stay
// below 16 MiB.
const (
	cacheSets = 4096
	cacheWays = 4
)

// cache remembers verified tokens by their full bytes. The place in the table
// comes from the signature, which nobody can choose without a certified key;
// the full bytes decide. Entries leave when they are dead, expired or the
// oldest of a full set.
type cache struct {
	sets []cacheSet
}

type cacheSet [cacheWays]atomic.Pointer[verified]

func newCache() *cache { return &cache{sets: make([]cacheSet, cacheSets)} }

// tokenHash returns 8 bytes of the signature of a token of good length.
func tokenHash(s string) uint64 {
	b := s[len(s)-ed25519.SignatureSize:]
	_ = b[7]
	return uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
		uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
}

// find returns the entry whose token is s, or nil.
func (c *cache) find(s string) *verified {
	if len(s) < minTokenSize {
		return nil
	}
	hash := tokenHash(s)
	set := &c.sets[hash%cacheSets]
	for i := range set {
		if e := set[i].Load(); e != nil && e.hash == hash && e.token == s {
			return e
		}
	}
	return nil
}

// put remembers e. now is in Unix seconds.
func (c *cache) put(e *verified, now int64) {
	set := &c.sets[e.hash%cacheSets]
	victim := 0
	for i := range set {
		old := set[i].Load()
		if old == nil || old.expire <= now || old.key.dead.Load() || old.token == e.token {
			victim = i
			break
		}
		if old.expire < set[victim].Load().expireOr(now) {
			victim = i
		}
	}
	set[victim].Store(e)
}

// expireOr returns when e expires, or now when another goroutine took e away.
func (e *verified) expireOr(now int64) int64 {
	if e == nil {
		return now
	}
	return e.expire
}

// drop forgets e.
func (c *cache) drop(e *verified) {
	set := &c.sets[e.hash%cacheSets]
	for i := range set {
		set[i].CompareAndSwap(e, nil)
	}
}

// clear forgets everything.
func (c *cache) clear() {
	for i := range c.sets {
		for j := range c.sets[i] {
			c.sets[i][j].Store(nil)
		}
	}
}

// size counts the entries.
func (c *cache) size() (n int) {
	for i := range c.sets {
		for j := range c.sets[i] {
			if c.sets[i][j].Load() != nil {
				n++
			}
		}
	}
	return n
}
