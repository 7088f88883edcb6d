// Package font looks whether an upload is a WOFF2 file as far as that can be told without unpacking it: its header, its
// table of tables, and that nothing else is in it or behind it. What is inside of the packed stream the browser checks, as
// it does for every font of the web. Start with Check.
package font

import (
	"encoding/binary"
	"fmt"

	"github.com/rowhouse-platform/rowhouse/internal/brand"
)

// The limits of an upload.
const (
	MaxBytes    = 1 << 20
	MaxUnpacked = 16 << 20 // of all tables together, as the file itself says
	maxTables   = 64
)

const header = 48

// Check refuses what is not one WOFF2 font, with an error of type *brand.Refusal (https://www.w3.org/TR/WOFF2/#woff20Header).
// Collections, private data and metadata, in which anything may stand, are refused too.
func Check(upload []byte) error {
	if len(upload) > MaxBytes {
		return refuse("size", "%d bytes, allowed are %d", len(upload), MaxBytes)
	}
	if len(upload) < header || string(upload[:4]) != "wOF2" {
		return refuse("type", "it is no WOFF2 font")
	}
	u16 := func(at int) int { return int(binary.BigEndian.Uint16(upload[at:])) }
	u32 := func(at int) int { return int(binary.BigEndian.Uint32(upload[at:])) }
	switch flavour := string(upload[4:8]); flavour {
	case "\x00\x01\x00\x00", "OTTO", "true":
	default:
		return refuse("flavour", "%.4q is none of a single font", flavour)
	}
	tables, packed := u16(12), u32(20)
	switch {
	case u32(8) != len(upload):
		return refuse("length", "the header says %d bytes, the file has %d", u32(8), len(upload))
	case tables < 1 || tables > maxTables:
		return refuse("tables", "%d tables, allowed are %d", tables, maxTables)
	case u16(14) != 0:
		return refuse("header", "a reserved field is not 0")
	case u32(28) != 0 || u32(32) != 0 || u32(36) != 0:
		return refuse("metadata", "it holds metadata")
	case u32(40) != 0 || u32(44) != 0:
		return refuse("private", "it holds private data")
	}
	end, err := directory(upload, tables)
	if err != nil {
		return err
	}
	if padded := (end + packed + 3) &^ 3; packed < 1 || padded != len(upload) && end+packed != len(upload) {
		return refuse("length", "the packed tables end at %d, the file at %d", end+packed, len(upload))
	}
	return nil
}

// directory reads the table of tables and returns where it ends.
func directory(upload []byte, tables int) (end int, err error) {
	at, total := header, 0
	number := func() (n int, ok bool) { // https://www.w3.org/TR/WOFF2/#UIntBase128
		for i := range 5 {
			if at >= len(upload) || i == 0 && upload[at] == 0x80 || n>>25 != 0 {
				return 0, false
			}
			b := upload[at]
			at++
			if n = n<<7 | int(b&0x7f); b&0x80 == 0 {
				return n, true
			}
		}
		return 0, false
	}
	for range tables {
		if at >= len(upload) {
			return 0, refuse("directory", "it ends too early")
		}
		flags := upload[at]
		at++
		const glyf, loca, arbitrary = 10, 11, 63
		tag := flags & 0x3f
		if tag == arbitrary {
			at += 4
		}
		size, ok := number()
		// glyf and loca are transformed in version 0 alone, all others in any but 0.
		if transformed := (flags>>6 != 0) != (tag == glyf || tag == loca); ok && transformed {
			_, ok = number()
		}
		if total += size; !ok || total > MaxUnpacked {
			return 0, refuse("directory", "it cannot be read, or its tables have more than %d bytes", MaxUnpacked)
		}
	}
	return at, nil
}

func refuse(rule, format string, values ...any) error {
	return &brand.Refusal{Rule: rule, Text: fmt.Sprintf(format, values...)}
}
