// Package etag makes and compares the etags of our resources: quoted, strong, made of the resource's uid and its
// revision, so that no two states of any two resources share one.
package etag

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

const size = 12

// Of returns the etag of the resource with this uid, or whatever else names it for ever, at a revision.
func Of(uid string, revision int64) string {
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(revision))) //nolint:gosec // revisions are not negative
	h.Write([]byte(uid))
	return `"` + base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:size]) + `"`
}

// Check compares what a caller read with what is. Given none it passes; else a difference is ETAG_MISMATCH, which
// tells the caller to read again.
func Check(given, current string) error {
	if given == "" || given == current {
		return nil
	}
	return fault.New(fault.Aborted, fault.ReasonEtagMismatch, "the resource changed since its etag was read")
}
