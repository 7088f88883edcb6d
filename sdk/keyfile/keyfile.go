// Package keyfile reads and writes the key files of a Rowhouse installation:
// Ed25519 keys as PEM (PKCS #8 and PKIX) and symmetric keys as 64 hex digits.
//
// Private and symmetric keys are written for their owner alone and refused when
// others may read them. A file of root's may be open to its group when the reader is
// not root: that is how a Kubernetes secret reaches a process without rights.
package keyfile

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// SecretSize is the size of a symmetric key.
const SecretSize = 32

const (
	privateMode = 0o600
	publicMode  = 0o644
	othersMayDo = 0o077
	groupReads  = 0o040
)

// Public reads one or more Ed25519 public keys: the current one and, while keys are
// being replaced, the next.
func Public(path string) ([]ed25519.PublicKey, error) {
	rest, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	var keys []ed25519.PublicKey
	for block, rest := pem.Decode(rest); block != nil; block, rest = pem.Decode(rest) {
		parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
		key, ok := parsed.(ed25519.PublicKey)
		if err != nil || !ok {
			return nil, fmt.Errorf("%s: not an Ed25519 public key in PEM", path)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s: holds no public key in PEM", path)
	}
	return keys, nil
}

// Private reads an Ed25519 private key.
func Private(path string) (ed25519.PrivateKey, error) {
	b, err := guarded(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("%s: holds no private key in PEM", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(ed25519.PrivateKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("%s: not an Ed25519 private key in PEM", path)
	}
	return key, nil
}

// Secret reads a symmetric key of 32 bytes.
func Secret(path string) ([]byte, error) {
	b, err := guarded(path)
	if err != nil {
		return nil, err
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(key) != SecretSize {
		return nil, fmt.Errorf("%s: not 64 hex digits", path)
	}
	return key, nil
}

// maxSecrets bounds the keys of one file.
const maxSecrets = 8

// Secrets reads symmetric keys of 32 bytes, one to a line: the current one first, and behind it those that are still to
// be read with while they are being replaced.
func Secrets(path string) ([][]byte, error) {
	b, err := guarded(path)
	if err != nil {
		return nil, err
	}
	lines := strings.Fields(string(b))
	if len(lines) == 0 || len(lines) > maxSecrets {
		return nil, fmt.Errorf("%s: not one to %d lines of 64 hex digits", path, maxSecrets)
	}
	keys := make([][]byte, 0, len(lines))
	for i, line := range lines {
		key, err := hex.DecodeString(line)
		if err != nil || len(key) != SecretSize {
			return nil, fmt.Errorf("%s: line %d is not 64 hex digits", path, i+1)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// NewPair writes a fresh private key to path+".key" and its public key to
// path+".pub". It does not touch files that exist: with both there the error is
// [fs.ErrExist]. A private key that stands alone, as a call that was stopped
// leaves it, gets the public key that belongs to it; a public key that stands
// alone is an error, for its private key may be in use elsewhere.
func NewPair(path string, random io.Reader) error {
	if _, err := os.Lstat(path + ".pub"); err == nil {
		return fmt.Errorf("key: %s.pub: %w", path, fs.ErrExist)
	}
	private, err := Private(path + ".key")
	if errors.Is(err, fs.ErrNotExist) {
		private, err = newPrivate(path+".key", random)
	}
	if err != nil {
		return err
	}
	publicDER, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	return create(path+".pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: publicDER}), publicMode)
}

// newPrivate writes a fresh private key to path.
func newPrivate(path string, random io.Reader) (ed25519.PrivateKey, error) {
	_, private, err := ed25519.GenerateKey(random)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	if err := create(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), privateMode); err != nil {
		return nil, err
	}
	return private, nil
}

// NewSecret writes a fresh symmetric key to path. It does not touch a file that exists.
func NewSecret(path string, random io.Reader) error {
	key := make([]byte, SecretSize)
	if _, err := io.ReadFull(random, key); err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	return create(path, []byte(hex.EncodeToString(key)+"\n"), privateMode)
}

// tooOpen reports whether others than the reader and who hands out its keys may use a file.
func tooOpen(mode os.FileMode, owner, reader int) bool {
	if owner == 0 && reader != 0 {
		mode &^= groupReads
	}
	return mode.Perm()&othersMayDo != 0
}

// guarded reads a file that its owner alone may read.
func guarded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	if tooOpen(info.Mode(), ownerOf(info), os.Geteuid()) {
		return nil, fmt.Errorf("%s: others may read it; run: chmod 600 %s", path, path)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	return b, nil
}

// create writes a file that must not be there. One that it cannot finish it removes, so
// that the call can be repeated.
func create(path string, b []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("key: %w", err)
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("key: %w", errors.Join(err, os.Remove(path)))
	}
	return nil
}
