package preview_test

import (
	"crypto/ed25519"
	"errors"
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/internal/brand/preview"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

func TestToken(t *testing.T) {
	t.Parallel()
	public, private, err := ed25519.GenerateKey(nil)
	other, _, err2 := ed25519.GenerateKey(nil)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_800_000_000, 0)
	want := preview.Token{Tenant: tenanttest.UID("acme"), Revision: 7, Expires: now.Add(time.Hour), Host: "acme.example"}
	text := want.Sign(private)
	got, err := preview.Read(text, []ed25519.PublicKey{other, public}, now)
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	far := want
	far.Expires = now.Add(8 * 24 * time.Hour)
	for name, c := range map[string]struct {
		text string
		keys []ed25519.PublicKey
		now  time.Time
	}{
		"other key":  {text, []ed25519.PublicKey{other}, now},
		"no key":     {text, nil, now},
		"its end":    {text, []ed25519.PublicKey{public}, want.Expires},
		"nothing":    {"", []ed25519.PublicKey{public}, now},
		"half":       {text[:len(text)/2], []ed25519.PublicKey{public}, now},
		"more":       {text + "A", []ed25519.PublicKey{public}, now},
		"blank":      {text + "\n", []ed25519.PublicKey{public}, now},
		"too long":   {far.Sign(private), []ed25519.PublicKey{public}, now},
		"no base64":  {"%" + text[1:], []ed25519.PublicKey{public}, now},
		"first byte": {"B" + text[1:], []ed25519.PublicKey{public}, now},
	} {
		if _, err := preview.Read(c.text, c.keys, c.now); !errors.Is(err, preview.ErrToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
