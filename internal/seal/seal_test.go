package seal_test

import (
	"bytes"
	"testing"

	"github.com/rowhouse-platform/rowhouse/internal/seal"
)

func TestSealOpensInItsPlaceAlone(t *testing.T) {
	t.Parallel()
	key := bytes.Repeat([]byte{1}, seal.KeySize)
	box, err := seal.New(key)
	if err != nil {
		t.Fatal(err)
	}
	secret := []byte("thirty-two bytes of a secret key")
	sealed := box.Seal(secret, "seal", "cell-1", "1")
	if got, err := box.Open(sealed, "seal", "cell-1", "1"); err != nil || !bytes.Equal(got, secret) {
		t.Errorf("Open = %q, %v", got, err)
	}
	if bytes.Contains(sealed, secret[:8]) || bytes.Equal(sealed, box.Seal(secret, "seal", "cell-1", "1")) {
		t.Error("the secret shows, or two sealings are equal")
	}
	for _, place := range [][]string{{"seal", "cell-1", "2"}, {"seal", "cell-11"}, {"sealcell-1", "1"}, {}} {
		if _, err := box.Open(sealed, place...); err == nil {
			t.Errorf("it opens at %q", place)
		}
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := box.Open(bad, "seal", "cell-1", "1"); err == nil {
			t.Fatalf("it opens with byte %d changed", i)
		}
	}
	other, err := seal.New(bytes.Repeat([]byte{2}, seal.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Open(sealed, "seal", "cell-1", "1"); err == nil {
		t.Error("it opens under another key")
	}
	if _, err := seal.New(key[:16]); err == nil {
		t.Error("a short key was taken")
	}
}

// While a key is replaced both open, and the first alone seals.
func TestAKeyIsReplaced(t *testing.T) {
	t.Parallel()
	box := func(keys ...byte) *seal.Box {
		var all [][]byte
		for _, k := range keys {
			all = append(all, bytes.Repeat([]byte{k}, seal.KeySize))
		}
		b, err := seal.New(all...)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	before, between, after := box(1), box(2, 1), box(2)
	old, fresh := before.Seal([]byte("x"), "here"), between.Seal([]byte("x"), "here")
	if _, err := between.Open(old, "here"); err != nil {
		t.Errorf("what the old key sealed: %v", err)
	}
	if _, err := after.Open(fresh, "here"); err != nil {
		t.Errorf("what was sealed while both were there: %v", err)
	}
	if _, err := after.Open(old, "here"); err == nil {
		t.Error("what the old key sealed opens without it")
	}
	if _, err := between.Open(old, "there"); err == nil {
		t.Error("it opens in another place")
	}
	if before.ID() == after.ID() || between.ID() != after.ID() {
		t.Errorf("the keys are named %s, %s and %s", before.ID(), between.ID(), after.ID())
	}
	if _, err := seal.New(); err == nil {
		t.Error("a box without a key was made")
	}
}
