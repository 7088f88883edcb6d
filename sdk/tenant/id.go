package tenant

import (
	"encoding/binary"
	"encoding/hex"
	"io"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

const (
	minIDLength = 3
	maxIDLength = 63
)

// ID is the name that a tenant's users chose: an RFC 1035 label of 3 to 63
// characters without a double hyphen. Only [ParseID] makes one; the zero ID
// names no tenant. IDs are comparable and may be map keys.
type ID struct{ s string }

// ParseID reads a tenant id. The error is a fault INVALID_FIELD. Reserved
// words are tenancy's matter: they are refused when a tenant is made.
func ParseID(s string) (ID, error) {
	if len(s) < minIDLength || len(s) > maxIDLength || !isLabel(s) {
		return ID{}, fault.New(fault.InvalidArgument, fault.ReasonInvalidField,
			"a tenant id has 3 to 63 of a-z, 0-9 and single inner hyphens, and begins with a letter")
	}
	return ID{s}, nil
}

// String returns the id as it was parsed; "" for the zero ID.
func (id ID) String() string { return id.s }

// IsZero reports whether the ID names no tenant.
func (id ID) IsZero() bool { return id.s == "" }

// isLabel reports whether s matches ^[a-z](-?[a-z0-9])*$.
func isLabel(s string) bool {
	if s == "" || s[0] < 'a' || s[0] > 'z' || s[len(s)-1] == '-' {
		return false
	}
	for i := 1; i < len(s); i++ {
		c := s[i]
		alnum := 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		if !alnum && (c != '-' || s[i-1] == '-') {
			return false
		}
	}
	return true
}

// UID is the identity that Rowhouse gave a tenant: a UUIDv7, immutable and
// never used again. The zero UID names no tenant.
type UID [16]byte

const uidTextLength = 36

// ParseUID reads the canonical text of a UUIDv7: lower case, with hyphens. The
// error is a fault INVALID_FIELD.
func ParseUID(s string) (UID, error) {
	uid, ok := decodeUID(s)
	if !ok || !uid.valid() {
		return UID{}, fault.New(fault.InvalidArgument, fault.ReasonInvalidField,
			"a tenant uid is a UUIDv7 in lower case, such as 01890a5d-ac96-774b-bcce-b302099a8057")
	}
	return uid, nil
}

// NewUID makes a UUIDv7 from the time and 10 bytes of random. It fails when
// random does, or when now is before 1970.
func NewUID(now time.Time, random io.Reader) (UID, error) {
	var uid UID
	ms := now.UnixMilli()
	if ms < 0 {
		return UID{}, fault.New(fault.Internal, fault.ReasonInvalidField, "the clock is before 1970")
	}
	binary.BigEndian.PutUint64(uid[:8], uint64(ms)<<16)
	if _, err := io.ReadFull(random, uid[6:]); err != nil {
		return UID{}, fault.New(fault.Internal, fault.ReasonInvalidField, "no randomness").WithCause(err)
	}
	uid[6] = uid[6]&0x0f | 0x70
	uid[8] = uid[8]&0x3f | 0x80
	return uid, nil
}

// String returns the canonical text.
func (u UID) String() string {
	var b [uidTextLength]byte
	hex.Encode(b[0:8], u[0:4])
	hex.Encode(b[9:13], u[4:6])
	hex.Encode(b[14:18], u[6:8])
	hex.Encode(b[19:23], u[8:10])
	hex.Encode(b[24:36], u[10:16])
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	return string(b[:])
}

// IsZero reports whether the UID names no tenant.
func (u UID) IsZero() bool { return u == UID{} }

// valid reports whether u has the version and the variant of a UUIDv7.
func (u UID) valid() bool { return u[6]>>4 == 7 && u[8]>>6 == 2 }

func decodeUID(s string) (UID, bool) {
	var u UID
	if len(s) != uidTextLength || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return u, false
	}
	digits := s[0:8] + s[9:13] + s[14:18] + s[19:23] + s[24:36]
	if _, err := hex.Decode(u[:], []byte(digits)); err != nil {
		return u, false
	}
	return u, u.String() == s
}
