package brandtest

import "encoding/binary"

// Font is a file with the structure of a WOFF2 font of one table, and with something that no browser can unpack in the
// place of its packed stream.
func Font(stream string) []byte {
	const header, table = 48, 2
	length := header + table + len(stream)
	b := make([]byte, header, length+3)
	copy(b, "wOF2\x00\x01\x00\x00")
	binary.BigEndian.PutUint16(b[12:], 1)                   // tables
	binary.BigEndian.PutUint32(b[16:], 100)                 // unpacked
	binary.BigEndian.PutUint32(b[20:], uint32(len(stream))) //nolint:gosec // short
	b = append(b, 0, 100)                                   // cmap, of 100 bytes
	b = append(b, stream...)
	for len(b)%4 > 0 {
		b = append(b, 0)
	}
	binary.BigEndian.PutUint32(b[8:], uint32(len(b))) //nolint:gosec // short
	return b
}
