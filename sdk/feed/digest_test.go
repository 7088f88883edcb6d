package feed_test

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
)

// TestDigestDependsOnTheStateOnly holds that any way to a state gives one root, and another state another root.
func TestDigestDependsOnTheStateOnly(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		d, state := feed.NewDigest(), map[string]string{}
		roots := map[[32]byte]string{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			key := rapid.SampledFrom([]string{"a", "b", "c", "ab", "", "a\x00"}).Draw(t, "key")
			if rapid.Bool().Draw(t, "delete") {
				d.Delete(key)
				delete(state, key)
			} else {
				value := rapid.SampledFrom([]string{"", "1", "b1"}).Draw(t, "value")
				d.Set(key, []byte(value))
				state[key] = value
			}
			fresh := feed.NewDigest()
			for k, v := range state {
				fresh.Set(k, []byte(v))
			}
			if d.Root() != fresh.Root() || d.Len() != len(state) {
				t.Fatalf("the way to %v matters", state)
			}
			text := fmt.Sprintf("%q", slices.Sorted(maps.Keys(state))) + fmt.Sprintf("%q", state)
			if other, ok := roots[d.Root()]; ok && other != text {
				t.Fatalf("%s and %s share a root", other, text)
			}
			roots[d.Root()] = text
		}
	})
}

func TestDigestManyEntries(t *testing.T) {
	t.Parallel()
	d, fresh := feed.NewDigest(), feed.NewDigest()
	empty := d.Root()
	for i := range 20_000 {
		d.Set(strconv.Itoa(i), []byte("x"))
		if i%1000 == 0 {
			d.Root() // whatever is computed in between
		}
	}
	for i := range 10_000 {
		d.Delete(strconv.Itoa(i))
	}
	for i := 19_999; i >= 10_000; i-- {
		fresh.Set(strconv.Itoa(i), []byte("x"))
	}
	if d.Root() != fresh.Root() {
		t.Error("roots differ")
	}
	for i := range 20_000 {
		d.Delete(strconv.Itoa(i))
	}
	if d.Root() != empty {
		t.Error("the emptied digest is not the empty one")
	}
}

func TestBookmarkSignature(t *testing.T) {
	t.Parallel()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signed := func() *apiv1.FeedBookmark {
		b := &apiv1.FeedBookmark{Revision: 7, Root: bytes.Repeat([]byte{1}, 32)}
		feed.Sign(private, "f", b)
		return b
	}
	keys := []ed25519.PublicKey{other, public}
	if err := feed.Verify(keys, "f", signed()); err != nil {
		t.Error(err)
	}
	for name, bad := range map[string]func(b *apiv1.FeedBookmark) ([]ed25519.PublicKey, string){
		"another feed": func(*apiv1.FeedBookmark) ([]ed25519.PublicKey, string) { return keys, "g" },
		"another key":  func(*apiv1.FeedBookmark) ([]ed25519.PublicKey, string) { return keys[:1], "f" },
		"no key":       func(*apiv1.FeedBookmark) ([]ed25519.PublicKey, string) { return nil, "f" },
		"revision":     func(b *apiv1.FeedBookmark) ([]ed25519.PublicKey, string) { b.Revision++; return keys, "f" },
		"root":         func(b *apiv1.FeedBookmark) ([]ed25519.PublicKey, string) { b.Root[31] ^= 1; return keys, "f" },
		"short root":   func(b *apiv1.FeedBookmark) ([]ed25519.PublicKey, string) { b.Root = nil; return keys, "f" },
		"signature":    func(b *apiv1.FeedBookmark) ([]ed25519.PublicKey, string) { b.Signature[0] ^= 1; return keys, "f" },
		"key id":       func(b *apiv1.FeedBookmark) ([]ed25519.PublicKey, string) { b.KeyId[0] ^= 1; return keys, "f" },
		"no signature": func(b *apiv1.FeedBookmark) ([]ed25519.PublicKey, string) { b.Signature = nil; return keys, "f" },
		"absent":       func(b *apiv1.FeedBookmark) ([]ed25519.PublicKey, string) { b.Reset(); return keys, "f" },
	} {
		b := signed()
		trusted, feedName := bad(b)
		if err := feed.Verify(trusted, feedName, b); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}
