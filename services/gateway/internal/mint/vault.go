package mint

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// vaultName binds a sealed file to what it is for.
const vaultName = "rowhouse-gateway-keys/v1"

// vault keeps the gateway's keys on disk, sealed by the key-encryption key, so that
// a restart without the control plane goes on minting.
type vault struct {
	path   string
	aead   cipher.AEAD
	random io.Reader
}

// openVault returns the vault at path; kek has 32 bytes.
func openVault(path string, kek []byte, random io.Reader) (*vault, error) {
	block, err := aes.NewCipher(kek)
	if err != nil {
		return nil, fmt.Errorf("key-encryption key: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("key-encryption key: %w", err)
	}
	return &vault{path: path, aead: aead, random: random}, nil
}

// load reads the keys into v; the error wraps fs.ErrNotExist when there are none.
func (s *vault) load(v any) error {
	b, err := os.ReadFile(s.path)
	if err != nil {
		return fmt.Errorf("read the sealed keys: %w", err)
	}
	if len(b) < s.aead.NonceSize() {
		return errors.New("the sealed keys are cut short")
	}
	plain, err := s.aead.Open(nil, b[:s.aead.NonceSize()], b[s.aead.NonceSize():], []byte(vaultName))
	if err != nil {
		return errors.New("the sealed keys cannot be opened: another key-encryption key, or a damaged file")
	}
	if err := json.Unmarshal(plain, v); err != nil {
		return fmt.Errorf("the sealed keys: %w", err)
	}
	return nil
}

// save writes the keys so that a crash leaves the old file or the new one.
func (s *vault) save(v any) error {
	plain, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("seal the keys: %w", err)
	}
	nonce := make([]byte, s.aead.NonceSize(), s.aead.NonceSize()+len(plain)+s.aead.Overhead())
	if _, err := io.ReadFull(s.random, nonce); err != nil {
		return fmt.Errorf("seal the keys: %w", err)
	}
	return replaceFile(s.path, s.aead.Seal(nonce, nonce, plain, []byte(vaultName)))
}

// replaceFile writes a file, readable by the owner alone, and makes it durable
// before it takes the old one's place.
func replaceFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), errors.Join(err, os.Remove(f.Name())))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}
