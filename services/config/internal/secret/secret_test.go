package secret_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/internal/seal"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/secret"
)

func keeper(tb testing.TB, keks ...byte) secret.Keeper {
	tb.Helper()
	var keys [][]byte
	for _, k := range keks {
		keys = append(keys, bytes.Repeat([]byte{k}, seal.KeySize))
	}
	box, err := seal.New(keys...)
	if err != nil {
		tb.Fatal(err)
	}
	return secret.Keeper{KEK: secret.Local{Box: box}}
}

func place() secret.Place {
	return secret.Place{Owner: "o", Layer: "tenant", LayerID: "o", NamespaceUID: "n", UID: "u", ID: "stripe", Version: 3}
}

// A value opens where it was sealed, and not when any part of that place, of what was sealed or of its key is another.
func TestAValueOpensInItsPlaceAlone(t *testing.T) {
	t.Parallel()
	k := keeper(t, 1)
	d, err := k.New(t.Context(), "d", "o", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	value := []byte("a value that is kept")
	sealed, err := k.Seal(t.Context(), d, value, place())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := k.Open(t.Context(), d, sealed, place()); err != nil || !bytes.Equal(got, value) {
		t.Fatalf("Open = %q, %v", got, err)
	}
	for name, move := range map[string]func(*secret.Place){
		"owner": func(p *secret.Place) { p.Owner = "x" }, "layer": func(p *secret.Place) { p.Layer = "environment" },
		"layer id": func(p *secret.Place) { p.LayerID = "x" }, "namespace": func(p *secret.Place) { p.NamespaceUID = "x" },
		"secret": func(p *secret.Place) { p.UID = "x" }, "name": func(p *secret.Place) { p.ID = "x" },
		"version": func(p *secret.Place) { p.Version = 2 },
	} {
		p := place()
		move(&p)
		if _, err := k.Open(t.Context(), d, sealed, p); err == nil {
			t.Errorf("it opens with another %s", name)
		}
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 0x10
		if _, err := k.Open(t.Context(), d, bad, place()); err == nil {
			t.Fatalf("it opens with byte %d flipped", i)
		}
	}
	for i := range d.Wrapped {
		bad := d
		bad.Wrapped = bytes.Clone(d.Wrapped)
		bad.Wrapped[i] ^= 0x10
		if _, err := k.Open(t.Context(), bad, sealed, place()); err == nil {
			t.Fatalf("it opens with byte %d of the data key flipped", i)
		}
	}
	other, err := k.New(t.Context(), "d", "o", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	moved := d
	moved.Owner = "x" // a data key that was moved to another owner
	for name, d := range map[string]secret.DataKey{"another data key": other, "a moved data key": moved} {
		if _, err := k.Open(t.Context(), d, sealed, place()); err == nil {
			t.Errorf("it opens with %s", name)
		}
	}
}

// After the key-encryption key was replaced, what is wrapped anew opens without the old one.
func TestTheKeyEncryptionKeyIsReplaced(t *testing.T) {
	t.Parallel()
	d, err := keeper(t, 1).New(t.Context(), "d", "o", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := keeper(t, 1).Seal(t.Context(), d, []byte("v"), place())
	if err != nil {
		t.Fatal(err)
	}
	both, fresh := keeper(t, 2, 1), keeper(t, 2)
	rewrapped, err := both.Rewrap(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	if rewrapped.KEK == d.KEK || rewrapped.KEK != both.KEK.ID() {
		t.Errorf("it is wrapped by %s, after %s", rewrapped.KEK, d.KEK)
	}
	if _, err := fresh.Open(t.Context(), rewrapped, sealed, place()); err != nil {
		t.Errorf("what was wrapped anew: %v", err)
	}
	if _, err := fresh.Open(t.Context(), d, sealed, place()); err == nil {
		t.Error("what the old key wrapped opens without it")
	}
	if _, err := fresh.Rewrap(t.Context(), d); err == nil {
		t.Error("what does not open was wrapped anew")
	}
}

func TestDataKeysAreSpent(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for name, test := range map[string]struct {
		key   secret.DataKey
		spent bool
	}{
		"new":      {secret.DataKey{CreateTime: now}, false},
		"used":     {secret.DataKey{CreateTime: now, Uses: secret.MaxUses - 1}, false},
		"used up":  {secret.DataKey{CreateTime: now, Uses: secret.MaxUses}, true},
		"old":      {secret.DataKey{CreateTime: now.Add(time.Minute - secret.MaxAge)}, false},
		"too old":  {secret.DataKey{CreateTime: now.Add(-secret.MaxAge)}, true},
		"as given": {secret.DataKey{}, true},
	} {
		if got := test.key.Spent(now); got != test.spent {
			t.Errorf("%s: Spent = %t", name, got)
		}
	}
}
