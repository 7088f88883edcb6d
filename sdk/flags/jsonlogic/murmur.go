package jsonlogic

import "math/bits"

// murmur is MurmurHash3 of 32 bits with seed 0, for x86, over text that comes in pieces. The zero value has hashed
// nothing.
type murmur struct {
	hash   uint32
	length uint32
	tail   uint32 // bytes that do not yet fill a block, the first one lowest; length says how many
}

func scramble(k uint32) uint32 {
	k *= 0xcc9e2d51
	return bits.RotateLeft32(k, 15) * 0x1b873593
}

func (m *murmur) block(k uint32) {
	m.hash = bits.RotateLeft32(m.hash^scramble(k), 13)*5 + 0xe6546b64
}

// writeByte is for the bytes around the blocks.
func (m *murmur) writeByte(c byte) {
	m.tail |= uint32(c) << (8 * (m.length % 4))
	if m.length++; m.length%4 == 0 {
		m.block(m.tail)
		m.tail = 0
	}
}

// write hashes the next piece.
func (m *murmur) write(s string) {
	for ; s != "" && m.length%4 != 0; s = s[1:] {
		m.writeByte(s[0])
	}
	for ; len(s) >= 4; s = s[4:] {
		m.block(uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24)
		m.length += 4
	}
	for i := range len(s) {
		m.writeByte(s[i])
	}
}

// sum is the hash of all pieces.
func (m *murmur) sum() uint32 {
	h := m.hash
	if m.length%4 != 0 {
		h ^= scramble(m.tail)
	}
	h ^= m.length
	h ^= h >> 16
	h *= 0x85ebca6b
	h ^= h >> 13
	h *= 0xc2b2ae35
	return h ^ h>>16
}

// Murmur3 returns the MurmurHash3 (32 bits, seed 0) of text in UTF-8, by which fractional chooses.
func Murmur3(text string) uint32 {
	var m murmur
	m.write(text)
	return m.sum()
}
