package keyfile_test

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rowhouse-platform/rowhouse/sdk/keyfile"
)

func TestPair(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "root")
	if err := keyfile.NewPair(path, rand.Reader); err != nil {
		t.Fatal(err)
	}
	if err := keyfile.NewPair(path, rand.Reader); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second NewPair = %v, want that the file exists", err)
	}
	private, err := keyfile.Private(path + ".key")
	if err != nil {
		t.Fatal(err)
	}
	public, err := keyfile.Public(path + ".pub")
	if err != nil || len(public) != 1 || !public[0].Equal(private.Public()) {
		t.Errorf("Public = %v, %v", public, err)
	}
	both, err := os.ReadFile(path + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".pub", append(both, both...), 0o600); err != nil {
		t.Fatal(err)
	}
	if public, err := keyfile.Public(path + ".pub"); err != nil || len(public) != 2 {
		t.Errorf("two keys in a file: %d, %v", len(public), err)
	}
}

// A NewPair that was stopped between its two files is finished by the next one.
func TestHalfAPair(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "root")
	if err := keyfile.NewPair(path, rand.Reader); err != nil {
		t.Fatal(err)
	}
	first, err := keyfile.Private(path + ".key")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path + ".pub"); err != nil {
		t.Fatal(err)
	}
	if err := keyfile.NewPair(path, rand.Reader); err != nil {
		t.Errorf("NewPair over a private key alone: %v", err)
	}
	private, err := keyfile.Private(path + ".key")
	if err != nil || !private.Equal(first) {
		t.Errorf("the private key was changed (%v)", err)
	}
	public, err := keyfile.Public(path + ".pub")
	if err != nil || len(public) != 1 || !public[0].Equal(first.Public()) {
		t.Errorf("Public = %v, %v", public, err)
	}
	if err := os.Remove(path + ".key"); err != nil {
		t.Fatal(err)
	}
	if err := keyfile.NewPair(path, rand.Reader); !errors.Is(err, fs.ErrExist) {
		t.Errorf("NewPair over a public key alone = %v, want that the file exists", err)
	}
	if _, err := os.Stat(path + ".key"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a private key was put beside a public key that is not its own: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, content string, mode fs.FileMode) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	secret := filepath.Join(dir, "kek")
	if err := keyfile.NewSecret(secret, rand.Reader); err != nil {
		t.Fatal(err)
	}
	if key, err := keyfile.Secret(secret); err != nil || len(key) != keyfile.SecretSize {
		t.Errorf("Secret = %d bytes, %v", len(key), err)
	}
	if err := os.Chmod(secret, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, read := range map[string]func() error{
		"readable secret": func() error { _, err := keyfile.Secret(secret); return err },
		"short secret":    func() error { _, err := keyfile.Secret(write("short", "ab", 0o600)); return err },
		"empty public":    func() error { _, err := keyfile.Public(write("pub", "", 0o600)); return err },
		"garbage private": func() error { _, err := keyfile.Private(write("key", "x", 0o600)); return err },
		"missing private": func() error { _, err := keyfile.Private(filepath.Join(dir, "none")); return err },
		"private in public": func() error {
			_, err := keyfile.Public(write("swap", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", 0o600))
			return err
		},
	} {
		if read() == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "kek")
	write := func(content string) {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	one, two := strings.Repeat("1a", keyfile.SecretSize), strings.Repeat("2b", keyfile.SecretSize)
	for content, want := range map[string]int{
		one: 1, one + "\n": 1, two + "\n" + one + "\n": 2, "": 0, one + "\nx": 0, one + two: 0, strings.Repeat(one+"\n", 9): 0,
	} {
		write(content)
		keys, err := keyfile.Secrets(path)
		if len(keys) != want || (err == nil) != (want > 0) {
			t.Errorf("Secrets of %d bytes = %d keys, %v; want %d", len(content), len(keys), err, want)
		}
		if err != nil && strings.Contains(err.Error(), one[:8]) {
			t.Errorf("the error shows the key: %v", err)
		}
		if want == 2 && (keys[0][0] != 0x2b || keys[1][0] != 0x1a) {
			t.Error("the first line is not the first key")
		}
	}
}
