package tenant

import (
	"encoding/binary"
	"errors"
	"time"
)

// Tags of rowhouse.tenancy.v1.TenantContextPayload: field number and wire type.
const (
	tagTenantUID           = 1<<3 | wireBytes
	tagGeneration          = 2<<3 | wireVarint
	tagModel               = 3<<3 | wireVarint
	tagCell                = 4<<3 | wireBytes
	tagRegion              = 5<<3 | wireBytes
	tagPlacementGeneration = 6<<3 | wireVarint
	tagPlan                = 7<<3 | wireBytes
	tagPrincipalKind       = 8<<3 | wireVarint
	tagPrincipalDigest     = 9<<3 | wireBytes
	tagScopes              = 10<<3 | wireFixed64
	tagAudience            = 11<<3 | wireFixed64
	tagMinter              = 12<<3 | wireBytes
	tagIssueTime           = 13<<3 | wireVarint
	tagExpireTime          = 14<<3 | wireVarint
	tagClass               = 15<<3 | wireVarint
	tagNonce               = 16<<3 | wireBytes
	tagRequestDigest       = 17<<3 | wireBytes
	tagTenantID            = 18<<3 | wireBytes
	tagCellNumber          = 19<<3 | wireVarint
	tagDBSeal              = 20<<3 | wireBytes
	tagFirstIssueTime      = 21<<3 | wireVarint
)

const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
)

// maxPayloadSize is the size of the largest payload that Claims.check accepts: a
// TRANSACTION's. A renewed SESSION has the first issue time and neither nonce nor digest.
const maxPayloadSize = 309

var errEncoding = errors.New("payload is not in the canonical encoding")

// appendPayload appends the one encoding of c: fields ascend, varints are
// minimal, zero values are absent.
func appendPayload(b []byte, c *Claims) []byte {
	b = appendBlob(b, tagTenantUID, c.TenantUID[:])
	b = appendVarint(b, tagGeneration, c.Generation)
	b = appendVarint(b, tagModel, uint64(c.Model))
	b = appendString(b, tagCell, c.Cell)
	b = appendString(b, tagRegion, c.Region)
	b = appendVarint(b, tagPlacementGeneration, c.PlacementGeneration)
	b = appendString(b, tagPlan, c.Plan)
	b = appendVarint(b, tagPrincipalKind, uint64(c.PrincipalKind))
	b = appendBlob(b, tagPrincipalDigest, c.PrincipalDigest[:])
	b = appendFixed64(b, tagScopes, uint64(c.Scopes))
	b = appendFixed64(b, tagAudience, uint64(c.Audience))
	b = appendString(b, tagMinter, c.Minter)
	b = appendVarint(b, tagIssueTime, seconds(c.IssueTime))
	b = appendVarint(b, tagExpireTime, seconds(c.ExpireTime))
	b = appendVarint(b, tagClass, uint64(c.Class))
	b = appendBlob(b, tagNonce, c.Nonce[:])
	b = appendBlob(b, tagRequestDigest, c.RequestDigest[:])
	b = appendString(b, tagTenantID, c.TenantID.s)
	b = appendVarint(b, tagCellNumber, uint64(c.CellNumber))
	b = appendBlob(b, tagDBSeal, c.DBSeal[:])
	return appendVarint(b, tagFirstIssueTime, seconds(c.FirstIssueTime))
}

// decodePayload reads a payload into c. Strings share p's memory. It accepts
// only what appendPayload writes and Claims.check allows.
func decodePayload(p string, c *Claims) error {
	for rest := p; rest != ""; {
		tag, next, ok := readVarint(rest)
		if !ok {
			return errEncoding
		}
		if rest, ok = c.readField(tag, next); !ok {
			return errEncoding
		}
	}
	if err := c.check(); err != nil {
		return err
	}
	// The reader above is forgiving on purpose: order, repetition and overlong
	// varints are all refused here, by the one rule that there is one encoding.
	var buf [maxPayloadSize]byte
	if string(appendPayload(buf[:0], c)) != p {
		return errEncoding
	}
	return nil
}

// readField reads the value behind tag and returns what follows it.
func (c *Claims) readField(tag uint64, s string) (string, bool) {
	switch tag & 7 {
	case wireVarint:
		v, rest, ok := readVarint(s)
		return rest, ok && c.setNumber(tag, v)
	case wireFixed64:
		v, rest, ok := readFixed64(s)
		return rest, ok && c.setFixed(tag, v)
	case wireBytes:
		v, rest, ok := readBytes(s)
		return rest, ok && c.setBytes(tag, v)
	default:
		return "", false
	}
}

func (c *Claims) setNumber(tag, v uint64) bool {
	switch tag {
	case tagGeneration:
		c.Generation = v
	case tagPlacementGeneration:
		c.PlacementGeneration = v
	case tagIssueTime:
		return setTime(&c.IssueTime, v)
	case tagExpireTime:
		return setTime(&c.ExpireTime, v)
	case tagFirstIssueTime:
		return setTime(&c.FirstIssueTime, v)
	case tagModel:
		c.Model = Model(v) //nolint:gosec // a cut value does not re-encode
	case tagPrincipalKind:
		c.PrincipalKind = PrincipalKind(v) //nolint:gosec // a cut value does not re-encode
	case tagClass:
		c.Class = Class(v) //nolint:gosec // a cut value does not re-encode
	case tagCellNumber:
		c.CellNumber = uint32(v) //nolint:gosec // a cut value does not re-encode
	default:
		return false
	}
	return true
}

func (c *Claims) setFixed(tag, v uint64) bool {
	switch tag {
	case tagScopes:
		c.Scopes = Scopes(v)
	case tagAudience:
		c.Audience = Audience(v)
	default:
		return false
	}
	return true
}

func (c *Claims) setBytes(tag uint64, v string) bool {
	switch tag {
	case tagTenantUID:
		return copyExact(c.TenantUID[:], v)
	case tagPrincipalDigest:
		return copyExact(c.PrincipalDigest[:], v)
	case tagNonce:
		return copyExact(c.Nonce[:], v)
	case tagRequestDigest:
		return copyExact(c.RequestDigest[:], v)
	case tagDBSeal:
		return copyExact(c.DBSeal[:], v)
	case tagCell:
		c.Cell = v
	case tagRegion:
		c.Region = v
	case tagPlan:
		c.Plan = v
	case tagMinter:
		c.Minter = v
	case tagTenantID:
		c.TenantID = ID{v} // Claims.check parses it
	default:
		return false
	}
	return true
}

func setTime(t *time.Time, v uint64) bool {
	if v > maxSeconds {
		return false
	}
	*t = time.Unix(int64(v), 0).UTC()
	return true
}

// seconds returns t for the wire; a time before 1970 becomes absent.
func seconds(t time.Time) uint64 { return uint64(max(t.Unix(), 0)) }

func copyExact(dst []byte, s string) bool { return len(s) == len(dst) && copy(dst, s) == len(dst) }

func appendVarint(b []byte, tag, v uint64) []byte {
	if v == 0 {
		return b
	}
	return binary.AppendUvarint(binary.AppendUvarint(b, tag), v)
}

func appendFixed64(b []byte, tag, v uint64) []byte {
	if v == 0 {
		return b
	}
	return binary.LittleEndian.AppendUint64(binary.AppendUvarint(b, tag), v)
}

func appendString(b []byte, tag uint64, s string) []byte {
	if s == "" {
		return b
	}
	b = binary.AppendUvarint(b, tag)
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// appendBlob appends a byte field of fixed size; all zeros means absent.
func appendBlob(b []byte, tag uint64, v []byte) []byte {
	for _, x := range v {
		if x != 0 {
			b = binary.AppendUvarint(b, tag)
			b = binary.AppendUvarint(b, uint64(len(v)))
			return append(b, v...)
		}
	}
	return b
}

func readVarint(s string) (v uint64, rest string, ok bool) {
	for i := 0; i < len(s) && i < binary.MaxVarintLen64; i++ {
		v |= uint64(s[i]&0x7f) << (7 * i)
		if s[i] < 0x80 {
			return v, s[i+1:], true
		}
	}
	return 0, "", false
}

func readFixed64(s string) (v uint64, rest string, ok bool) {
	if len(s) < 8 {
		return 0, "", false
	}
	for i := 7; i >= 0; i-- {
		v = v<<8 | uint64(s[i])
	}
	return v, s[8:], true
}

func readBytes(s string) (v, rest string, ok bool) {
	n, s, ok := readVarint(s)
	if !ok || n > uint64(len(s)) {
		return "", "", false
	}
	return s[:n], s[n:], true
}
