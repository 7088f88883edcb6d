package flags_test

import (
	"testing"

	"github.com/twmb/murmur3"

	"github.com/rowhouse-platform/rowhouse/sdk/flags/jsonlogic"
)

// TestMurmur3 compares with the hash that flagd uses.
func TestMurmur3(t *testing.T) {
	t.Parallel()
	g := newGenerator(1)
	for range 20_000 {
		text := make([]byte, g.IntN(70))
		for i := range text {
			text[i] = byte(g.Uint32())
		}
		if got, want := jsonlogic.Murmur3(string(text)), murmur3.Sum32(text); got != want {
			t.Fatalf("%x: %08x, want %08x", text, got, want)
		}
	}
}
