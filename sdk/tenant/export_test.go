package tenant

import (
	"slices"
	"sync/atomic"
	"unsafe"
)

// What tests outside the package must reach.

// AppendPayload is appendPayload.
func AppendPayload(b []byte, c *Claims) []byte { return appendPayload(b, c) }

// DecodePayload is decodePayload.
func DecodePayload(p string, c *Claims) error { return decodePayload(p, c) }

// MaxPayloadSize is maxPayloadSize.
const MaxPayloadSize = maxPayloadSize

// ClearCache forgets one by one, unlike the loss of the control plane.
func ClearCache(v *Verifier) {
	for i := range v.cache.sets {
		for j := range v.cache.sets[i] {
			if v.cache.sets[i][j].Load() != nil {
				v.cache.sets[i][j].Store(nil)
			}
		}
	}
}

// SignUnchecked signs what Sign refuses.
func SignUnchecked(s *Signer, c Claims) string { return string(s.sign(&c)) }

// CacheBytes is what a full cache of the largest tokens holds, with the
// allocator's rounding up to the next 128 bytes.
func CacheBytes() int {
	round := func(n uintptr) int { return int(n+127) / 128 * 128 }
	entry := round(unsafe.Sizeof(verified{})) + round(MaxTokenSize) + int(unsafe.Sizeof(atomic.Pointer[verified]{}))
	return cacheSets * cacheWays * entry
}

// CrowdedSet puts copies of c that expire at the given seconds into one set at
// the time now, and returns the expiries that are left, in order.
func CrowdedSet(c Context, expiries []int64, now int64) []int64 {
	cache := newCache()
	for i, expire := range expiries {
		cache.put(&verified{
			token: c.v.token + string(rune('a'+i)), hash: 7, key: c.v.key, tenant: c.v.tenant, expire: expire,
		}, now)
	}
	var left []int64
	for i := range cache.sets[7] {
		if e := cache.sets[7][i].Load(); e != nil {
			left = append(left, e.expire)
		}
	}
	slices.Sort(left)
	return left
}

// CutToken returns the payload of a token, signature unchecked.
func CutToken(s string) (payload string, ok bool) {
	t, err := parseToken(s)
	return t.payload, err == nil
}
