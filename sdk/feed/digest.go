package feed

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
)

// Buckets is the number of leaves of a digest's tree.
const Buckets = 4096

const (
	tagEntry = 0x00
	tagLeaf  = 0x01
	tagNode  = 0x02
)

// Digest is the SHA-256 Merkle root over a feed's whole state, kept up to date entry by entry. Entries fall into 4,096
// buckets by the first 12 bits of their key's SHA-256; a leaf is the hash of its bucket's entries in key order. A
// change costs its bucket and twelve nodes. It is not safe for concurrent use; the zero value is not ready, see
// [NewDigest].
type Digest struct {
	buckets map[int][]digestEntry
	nodes   [][sha256.Size]byte // heap order: 1 is the root, Buckets+i is leaf i
	dirty   map[int]struct{}
	n       int
}

type digestEntry struct {
	key  string
	hash [sha256.Size]byte
}

// NewDigest returns the digest of the empty state.
func NewDigest() *Digest {
	d := &Digest{
		buckets: make(map[int][]digestEntry),
		nodes:   make([][sha256.Size]byte, 2*Buckets),
		dirty:   make(map[int]struct{}),
	}
	// All nodes of a level of the empty tree are alike.
	hash := leafHash(nil)
	for first := Buckets; first > 0; first /= 2 {
		for i := first; i < 2*first; i++ {
			d.nodes[i] = hash
		}
		hash = nodeHash(&hash, &hash)
	}
	return d
}

// Len returns the number of entries.
func (d *Digest) Len() int { return d.n }

// Set gives key a value.
func (d *Digest) Set(key string, value []byte) {
	i := bucketOf(key)
	h := entryHash(key, value)
	at, found := d.find(i, key)
	switch {
	case found && d.buckets[i][at].hash == h:
		return
	case found:
		d.buckets[i][at].hash = h
	default:
		d.buckets[i] = slices.Insert(d.buckets[i], at, digestEntry{key, h})
		d.n++
	}
	d.dirty[i] = struct{}{}
}

// Delete removes key; a key that is absent is no error.
func (d *Digest) Delete(key string) {
	i := bucketOf(key)
	at, found := d.find(i, key)
	if !found {
		return
	}
	d.buckets[i] = slices.Delete(d.buckets[i], at, at+1)
	d.n--
	d.dirty[i] = struct{}{}
}

// Root returns the Merkle root of the state.
func (d *Digest) Root() [sha256.Size]byte {
	level := make([]int, 0, len(d.dirty))
	for i := range d.dirty {
		d.nodes[Buckets+i] = leafHash(d.buckets[i])
		level = append(level, (Buckets+i)/2)
	}
	clear(d.dirty)
	for len(level) > 0 && level[0] > 0 {
		slices.Sort(level)
		level = slices.Compact(level)
		for j, i := range level {
			d.nodes[i] = nodeHash(&d.nodes[2*i], &d.nodes[2*i+1])
			level[j] = i / 2
		}
	}
	return d.nodes[1]
}

func (d *Digest) find(bucket int, key string) (int, bool) {
	return slices.BinarySearchFunc(d.buckets[bucket], key, func(e digestEntry, k string) int {
		return strings.Compare(e.key, k)
	})
}

func bucketOf(key string) int {
	h := sha256.Sum256([]byte(key))
	return int(binary.BigEndian.Uint16(h[:2]) >> 4)
}

// entryHash covers the key's length, so that no other split of the same bytes has this hash.
func entryHash(key string, value []byte) [sha256.Size]byte {
	var short [1 << 10]byte // most entries need no memory
	b := append(short[:0], tagEntry)
	b = binary.BigEndian.AppendUint32(b, uint32(len(key))) //nolint:gosec // keys have at most 512 bytes
	b = append(b, key...)
	b = append(b, value...)
	return sha256.Sum256(b)
}

func leafHash(entries []digestEntry) [sha256.Size]byte {
	var b bytes.Buffer
	b.WriteByte(tagLeaf)
	for i := range entries {
		b.Write(entries[i].hash[:])
	}
	return sha256.Sum256(b.Bytes())
}

func nodeHash(left, right *[sha256.Size]byte) [sha256.Size]byte {
	var b [1 + 2*sha256.Size]byte
	b[0] = tagNode
	copy(b[1:], left[:])
	copy(b[1+sha256.Size:], right[:])
	return sha256.Sum256(b[:])
}
