package cell

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// ErrKeyID says that a key id is in use for another key.
var ErrKeyID = errors.New("key id is in use for another key")

// Key is a MAC key of a cell as one database shall know it.
type Key struct {
	// ID is the byte by which seals name the key.
	ID uint8
	// Cell is the number of the cell for which the key seals.
	Cell uint32
	// Secret is the key.
	Secret tenant.SealKey
	// NotAfter is the time from which seals under the key are refused.
	NotAfter time.Time
}

// InstallKey lets the database accept seals under a key, beside those that it has. The
// same key again only moves its end; another key under the id of one that is still in
// force is [ErrKeyID]. Errors never hold the key.
func InstallKey(ctx context.Context, conn Conn, key Key) error {
	ipad, opad := pads(key.Secret)
	err := asSecurity(ctx, conn, func(t pgx.Tx) error {
		tag, err := t.Exec(ctx, `
INSERT INTO rowhouse.mac_key AS k (kid, cell, ipad, opad, not_after) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (kid) DO UPDATE SET cell = excluded.cell, ipad = excluded.ipad, opad = excluded.opad, not_after = excluded.not_after
WHERE (k.cell, k.ipad, k.opad) = (excluded.cell, excluded.ipad, excluded.opad) OR k.not_after <= clock_timestamp()`,
			int(key.ID), int64(key.Cell), ipad, opad, key.NotAfter)
		if err != nil {
			return fmt.Errorf("SQLSTATE %s", sqlState(err)) // the detail would show the row
		}
		if tag.RowsAffected() == 0 {
			return ErrKeyID
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("install key %d of cell %d: %w", key.ID, key.Cell, err)
	}
	return nil
}

// RetireKey takes a key back: seals under it are refused from the commit on. A key that
// is not there is no error.
func RetireKey(ctx context.Context, conn Conn, id uint8) error {
	err := asSecurity(ctx, conn, func(t pgx.Tx) error {
		_, err := t.Exec(ctx, "DELETE FROM rowhouse.mac_key WHERE kid = $1", int(id))
		return err
	})
	if err != nil {
		return fmt.Errorf("retire key %d: %w", id, err)
	}
	return nil
}

// pads returns the two blocks in which HMAC-SHA-256 uses a key (RFC 2104).
func pads(key tenant.SealKey) (ipad, opad []byte) {
	const block = 64
	ipad, opad = make([]byte, block), make([]byte, block)
	copy(ipad, key[:])
	copy(opad, key[:])
	for i := range block {
		ipad[i] ^= 0x36
		opad[i] ^= 0x5c
	}
	return ipad, opad
}
