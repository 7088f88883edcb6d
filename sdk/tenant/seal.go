package tenant

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
)

const (
	sealVersion  = 1
	sealBodySize = 36
	sealTagSize  = 16
)

// Seal is what PostgreSQL verifies before it lets a transaction see a tenant's
// rows: 36 bytes of statement and 16 bytes of MAC.
type Seal [sealBodySize + sealTagSize]byte

// SealKey is the MAC key of one cell. Gateways, tenancy and PostgreSQL hold
// it; a product service never does.
type SealKey [32]byte

// SealBody returns the bytes that the seal's MAC covers, rebuilt from the
// claims. The key id is that of DBSeal; the flags are 0.
func (c *Claims) SealBody() [sealBodySize]byte {
	var b [sealBodySize]byte
	b[0] = sealVersion
	b[1] = c.DBSeal[0]
	binary.BigEndian.PutUint32(b[4:], c.CellNumber)
	binary.BigEndian.PutUint64(b[8:], c.PlacementGeneration)
	copy(b[16:], c.TenantUID[:])
	binary.BigEndian.PutUint32(b[32:], uint32(c.ExpireTime.Unix())) //nolint:gosec // the seal's format ends in 2106
	return b
}

// MakeSeal returns the tag over body under the key that is known as kid; kid
// is written into its place in the covered bytes.
func MakeSeal(key *SealKey, kid uint8, body [sealBodySize]byte) (tag [sealTagSize]byte) {
	body[1] = kid
	mac := hmac.New(sha256.New, key[:])
	mac.Write(body[:])
	copy(tag[:], mac.Sum(nil))
	return tag
}

// WithSeal returns the claims with the database seal made by key, known to the
// cell as kid. Seal last: a later change of tenant, cell, placement or expiry
// voids the seal.
func (c Claims) WithSeal(key *SealKey, kid uint8) Claims {
	tag := MakeSeal(key, kid, c.SealBody())
	c.DBSeal[0] = kid
	copy(c.DBSeal[1:], tag[:])
	return c
}

func (c *Claims) seal() Seal {
	var s Seal
	body := c.SealBody()
	copy(s[:], body[:])
	copy(s[sealBodySize:], c.DBSeal[1:])
	return s
}
