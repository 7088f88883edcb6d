package worker

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/wire"
)

// Minter is the minter of the contexts that tenancy itself signs.
const Minter = "tenancy"

const (
	// SigningEvery is how old tenancy's signing key gets before there is a new one, as gateways' do.
	SigningEvery = 12 * time.Hour
	// SigningSettles is what all verifiers may need to hear of a new key. Until then the one before it signs.
	SigningSettles = time.Minute
	// keySkew lets a new certificate be good at once where the clock is behind ours.
	keySkew = time.Minute
)

// errNumberTaken undoes the key of a replica that was second.
var errNumberTaken = errors.New("another replica has made the key")

// TurnSigningKey makes a signing key, certified for all cells there are, when the newest one is old or lacks a cell.
func (w *Worker) TurnSigningKey(ctx context.Context) error {
	all, err := store.AllCells(ctx, w.cfg.Pool)
	if err != nil || len(all) == 0 {
		return err
	}
	cells := make([]string, 0, len(all))
	for _, c := range all {
		cells = append(cells, strings.TrimPrefix(c.GetName(), "cells/"))
	}
	slices.Sort(cells)
	last, err := store.LastSigningKey(ctx, w.cfg.Pool)
	if err != nil {
		return err
	}
	keys, err := store.SigningKeys(ctx, w.cfg.Pool, w.cfg.Clock())
	if err != nil {
		return err
	}
	if len(keys) > 0 && keys[0].CreateTime.Add(SigningEvery).After(w.cfg.Clock()) && slices.Equal(keys[0].Cells, cells) {
		return nil
	}
	if err := w.makeSigningKey(ctx, last+1, cells); !errors.Is(err, errNumberTaken) {
		return err
	}
	return nil
}

func (w *Worker) makeSigningKey(ctx context.Context, number int64, cells []string) error {
	public, private, err := ed25519.GenerateKey(w.cfg.Random)
	if err != nil {
		return fmt.Errorf("make a signing key: %w", err)
	}
	now, id := w.cfg.Clock(), tenant.KeyIDOf(public)
	key := store.ContextKey{
		ID: id, PublicKey: public, Minter: Minter, SPIFFE: w.cfg.Holder.String(), Cells: cells,
		NotBefore: now.Add(-keySkew).Truncate(time.Second),
	}
	key.NotAfter = key.NotBefore.Add(tenant.MaxKeyLife)
	if key.Certificate, err = Certify(w.cfg.Root, key, w.cfg.Holder, tenant.ClassesOf(tenant.ClassSession)); err != nil {
		return fmt.Errorf("certify the signing key: %w", err)
	}
	signing := store.SigningKey{
		Number: number, ID: id, Sealed: w.cfg.Box.Seal(private.Seed(), signingPlace(id)...), CreateTime: now,
	}
	job := change.NewJob(ctx, service, "contextKeys.turn")
	_, err = w.cfg.Kernel.Change(job, func(ctx context.Context, tx *change.Tx) (proto.Message, error) {
		if err := store.PutContextKey(ctx, tx, key); err != nil {
			return nil, err
		}
		fresh, err := store.InsertSigningKey(ctx, tx, signing)
		if err != nil {
			return nil, err
		}
		if !fresh {
			return nil, errNumberTaken
		}
		tx.Audit(fmt.Sprintf("contextKeys/%x", id[:]))
		return new(tenancyv1.ContextKey), wire.PublishKey(tx, id, key.Certificate)
	})
	return err
}

// SigningKey returns the key to sign a context of the cell's tenants with: the newest one that verifiers have had the
// time to hear of or, when there is none, the newest. ok is false when no key may speak for the cell.
func SigningKey(keys []store.SigningKey, cell string, now time.Time) (best store.SigningKey, ok bool) {
	for _, k := range keys { // newest first
		if !slices.Contains(k.Cells, cell) {
			continue
		}
		if !k.CreateTime.Add(SigningSettles).After(now) {
			return k, true
		}
		if !ok {
			best, ok = k, true
		}
	}
	return best, ok
}

// OpenSigningKey decrypts a stored signing key.
func OpenSigningKey(cfg Config, k store.SigningKey) (*tenant.Signer, error) {
	seed, err := cfg.Box.Open(k.Sealed, signingPlace(k.ID)...)
	if err != nil {
		return nil, err
	}
	if len(seed) != ed25519.SeedSize {
		return nil, errors.New("a stored signing key has a wrong size")
	}
	return tenant.NewSigner(ed25519.NewKeyFromSeed(seed))
}

func signingPlace(id tenant.KeyID) []string { return []string{"signing", string(id[:])} }
