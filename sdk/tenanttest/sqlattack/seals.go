package sqlattack

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/mint"
)

// forged returns the call that enters the victim with what an attacker might make or find. The
// seals that are genuine but for one thing are made with the real key: they could be an old
// copy, or one from elsewhere.
func (s *scene) forged(name string) (string, error) {
	seal, err := s.forgedSeal(name)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf(`rowhouse.enter('\x%x')`, seal), nil
}

// carried returns such a seal in the form of what rung L2a carries.
func (s *scene) carried(name string) (string, error) {
	seal, err := s.forgedSeal(name)
	if name != "entered" || err != nil {
		return hex.EncodeToString(seal), err
	}
	// What enter carried in a transaction that began a while ago: its tag covers when.
	key := s.target.Key.Secret
	carrier := binary.BigEndian.AppendUint64(seal[:bodySize:bodySize], 1) // a microsecond into 2000
	mac := hmac.New(sha256.New, key[:])
	mac.Write(carrier)
	carrier = slices.Insert(carrier, bodySize, mac.Sum(nil)[:len(seal)-bodySize]...)
	return hex.EncodeToString(carrier), nil
}

// The places of a seal's fields, and its parts.
const (
	atFlags, atCell, atGeneration, atTenant, atExpiry, bodySize = 3, 4, 8, 16, 32, 36
)

func (s *scene) forgedSeal(name string) ([]byte, error) {
	own, err := s.mint.Context(s.attacker, s.model)
	if err != nil {
		return nil, err
	}
	c, err := s.mint.Context(s.victim, s.model)
	if err != nil {
		return nil, err
	}
	genuine := c.Seal()
	mine := own.Seal()
	made := func(key tenant.SealKey, kid uint8, change func([]byte)) []byte {
		body := [bodySize]byte(genuine[:bodySize])
		change(body[:])
		tag := tenant.MakeSeal(&key, kid, body)
		body[1] = kid
		return append(body[:], tag[:]...)
	}
	key := s.target.Key
	expiring := func(at time.Time) []byte {
		return made(key.Secret, key.ID, func(b []byte) {
			binary.BigEndian.PutUint32(b[atExpiry:], uint32(at.Unix())) //nolint:gosec // the seal's format ends in 2106
		})
	}
	switch name {
	case "genuine", "entered":
		return genuine[:], nil
	case "own":
		return mine[:], nil
	case "swapped": // the own seal with the victim in it
		copy(mine[atTenant:], s.victim.UID[:])
		return mine[:], nil
	case "read-only": // the attacker's own
		body := [bodySize]byte(mine[:bodySize])
		body[atFlags] = 1
		tag := tenant.MakeSeal(&s.target.Key.Secret, s.target.Key.ID, body)
		return append(body[:], tag[:]...), nil
	case "guessed": // sealed with a key of the attacker's
		var guess tenant.SealKey
		_, _ = rand.Read(guess[:]) // never fails
		return made(guess, key.ID, func([]byte) {}), nil
	case "zero-key":
		return made(tenant.SealKey{}, key.ID, func([]byte) {}), nil
	case "cut":
		return genuine[:len(genuine)-1], nil
	case "bare":
		return genuine[:bodySize], nil
	case "long":
		return append(genuine[:len(genuine):len(genuine)], 0), nil
	case "empty":
		return nil, nil
	case "flags":
		return made(key.Secret, key.ID, func(b []byte) { b[atFlags] = 2 }), nil
	case "expired":
		return expiring(time.Now().Add(-time.Second)), nil
	case "far":
		return expiring(time.Now().Add(time.Hour)), nil
	case "cell":
		return made(key.Secret, key.ID, func(b []byte) { binary.BigEndian.PutUint32(b[atCell:], key.Cell+1) }), nil
	case "generation":
		return made(key.Secret, key.ID, func(b []byte) { binary.BigEndian.PutUint64(b[atGeneration:], mint.Generation+1) }), nil
	case "kid":
		return made(key.Secret, key.ID+100, func([]byte) {}), nil
	case "ended":
		return made(s.ended.Secret, s.ended.ID, func([]byte) {}), nil
	}
	return nil, fmt.Errorf("there is no seal %q", name)
}
