// Package secret keeps values sealed in envelopes: a value under a data key of its owner, the data key under a
// key-encryption key that is not in the database.
//
// Without its owner's data keys nothing of an owner opens, so destroying these destroys all its values at once. The
// package knows no database: data keys are kept as [DataKey]. Start at [Keeper].
package secret

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/rowhouse-platform/rowhouse/internal/seal"
)

const (
	// MaxUses is after how many values a data key is replaced: random nonces of 96 bits stay far from a collision.
	MaxUses = 1 << 24
	// MaxAge is after how long it is.
	MaxAge = 90 * 24 * time.Hour
)

// KEK wraps data keys. [Local] does it with keys of a file; a key management service would be another.
type KEK interface {
	// ID names the key that Wrap uses now.
	ID() string
	// Wrap seals a data key for a place.
	Wrap(ctx context.Context, dataKey []byte, place ...string) (wrapped []byte, err error)
	// Unwrap opens what Wrap made for the same place; id is what ID said then.
	Unwrap(ctx context.Context, id string, wrapped []byte, place ...string) (dataKey []byte, err error)
}

// Local wraps with the keys of a box.
type Local struct{ Box *seal.Box }

// ID implements KEK.
func (l Local) ID() string { return l.Box.ID() }

// Wrap implements KEK.
func (l Local) Wrap(_ context.Context, dataKey []byte, place ...string) ([]byte, error) {
	return l.Box.Seal(dataKey, place...), nil
}

// Unwrap implements KEK. The box finds the key by itself.
func (l Local) Unwrap(_ context.Context, _ string, wrapped []byte, place ...string) ([]byte, error) {
	return l.Box.Open(wrapped, place...)
}

// DataKey is a data key as it is kept.
type DataKey struct {
	UID string
	// Owner is whose values it seals: a tenant's uid, or the name of a wider layer.
	Owner string
	// KEK is the key-encryption key that wrapped it.
	KEK     string
	Wrapped []byte
	// Uses counts the values that it sealed.
	Uses       int64
	CreateTime time.Time
}

// Spent says whether a data key seals nothing more. It still opens.
func (k DataKey) Spent(now time.Time) bool {
	return k.Uses >= MaxUses || now.Sub(k.CreateTime) >= MaxAge
}

func (k DataKey) place() []string { return []string{"data-key", k.Owner, k.UID} }

// Place is where a value belongs; it opens nowhere else.
type Place struct {
	// Owner is that of the data key.
	Owner string
	// Layer and LayerID are the layer, NamespaceUID the namespace.
	Layer, LayerID, NamespaceUID string
	// UID and ID are the secret, Version its version.
	UID, ID string
	Version int32
}

func (p Place) parts() []string {
	return []string{"secret", p.Owner, p.Layer, p.LayerID, p.NamespaceUID, p.UID, p.ID, strconv.Itoa(int(p.Version))}
}

// Keeper seals and opens. The zero Keeper has no key.
type Keeper struct {
	KEK KEK
	// Random makes data keys. Default crypto/rand.
	Random io.Reader
}

// New makes a data key.
func (k Keeper) New(ctx context.Context, uid, owner string, now time.Time) (DataKey, error) {
	random := k.Random
	if random == nil {
		random = rand.Reader
	}
	plain := make([]byte, seal.KeySize)
	if _, err := io.ReadFull(random, plain); err != nil {
		return DataKey{}, fmt.Errorf("make a data key: %w", err)
	}
	return k.wrap(ctx, DataKey{UID: uid, Owner: owner, CreateTime: now}, plain)
}

func (k Keeper) wrap(ctx context.Context, d DataKey, plain []byte) (DataKey, error) {
	var err error
	d.KEK = k.KEK.ID()
	if d.Wrapped, err = k.KEK.Wrap(ctx, plain, d.place()...); err != nil {
		return d, fmt.Errorf("wrap a data key: %w", err)
	}
	return d, nil
}

// Rewrap wraps a data key under the key-encryption key that is used now.
func (k Keeper) Rewrap(ctx context.Context, d DataKey) (DataKey, error) {
	plain, err := k.KEK.Unwrap(ctx, d.KEK, d.Wrapped, d.place()...)
	if err != nil {
		return d, fmt.Errorf("unwrap the data key %s: %w", d.UID, err)
	}
	return k.wrap(ctx, d, plain)
}

// Seal seals a value.
func (k Keeper) Seal(ctx context.Context, d DataKey, value []byte, p Place) ([]byte, error) {
	box, err := k.open(ctx, d)
	if err != nil {
		return nil, err
	}
	return box.Seal(value, p.parts()...), nil
}

// Open opens what Seal made for the same place.
func (k Keeper) Open(ctx context.Context, d DataKey, sealed []byte, p Place) ([]byte, error) {
	box, err := k.open(ctx, d)
	if err != nil {
		return nil, err
	}
	value, err := box.Open(sealed, p.parts()...)
	if err != nil {
		return nil, fmt.Errorf("open version %d of the secret %s: %w", p.Version, p.UID, err)
	}
	return value, nil
}

// open unwraps a data key each time: what was destroyed is of no use in any process from the next call on.
func (k Keeper) open(ctx context.Context, d DataKey) (*seal.Box, error) {
	plain, err := k.KEK.Unwrap(ctx, d.KEK, d.Wrapped, d.place()...)
	if err != nil {
		return nil, fmt.Errorf("unwrap the data key %s: %w", d.UID, err)
	}
	return seal.New(plain)
}
