package docs

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/rowhouse-platform/rowhouse/internal/operator"
	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
)

// sample returns the text of a block of the operator guide.
func sample(t *testing.T, file string) string {
	t.Helper()
	for _, b := range readPage(t, "docs/guides/operator.md").blocks {
		if b.file == file {
			return b.text
		}
	}
	t.Fatalf("the operator guide shows no %s", file)
	return ""
}

// signIn plays the issuer of the operator guide: it writes the guide's users.yaml and the keys that it names into a folder,
// and returns a token of a user of acme.
func signIn(t *testing.T, dir string) string {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: public, KeyID: "one", Algorithm: "EdDSA", Use: "sig"}}})
	err = errors.Join(err,
		os.WriteFile(filepath.Join(dir, "jwks.json"), keys, 0o600),
		os.WriteFile(filepath.Join(dir, "users.yaml"), []byte(sample(t, "users.yaml")), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: jose.JSONWebKey{Key: private, KeyID: "one"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	token, err := jwt.Signed(signer).Claims(jwt.Claims{
		Issuer: "https://sign-in.example.com", Subject: "wile", Audience: jwt.Audience{"notes"},
		IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(time.Hour)),
	}).Claims(map[string]any{"tenant": "acme"}).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// The guide's issuers of operators' tokens are a part of a service's configuration.
func TestIssuersSample(t *testing.T) {
	t.Parallel()
	var c struct {
		Issuers []operator.Issuer `yaml:"issuers"`
	}
	if err := yamlfile.Decode("issuers.yaml", []byte(sample(t, "issuers.yaml")), &c); err != nil {
		t.Fatal(err)
	}
	if len(c.Issuers) != 1 || c.Issuers[0].URL == "" || c.Issuers[0].Audience == "" || c.Issuers[0].Algorithm == "" {
		t.Errorf("it says %+v", c.Issuers)
	}
}
