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
