package worker

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/wire"
)

const (
	// SealLife is how long PostgreSQL accepts a seal key. It outlasts the 48 h for which a gateway signs without us.
	SealLife = 72 * time.Hour
	// sealEvery is how often a cell gets a new one.
	sealEvery = 24 * time.Hour
	// sealPatience is how long a new key waits for databases that cannot be told.
	sealPatience = 12 * time.Hour
	// RefreshSlot is how long one key serves chains of refreshed contexts that begin.
	RefreshSlot = 10 * time.Minute
	// RefreshLife is when they end, counted from the slot's begin: a chain lives 50 to 60 minutes.
	RefreshLife = time.Hour

	expireBatch = 500
	maxCells    = 64
	maxKID      = 255
)

// Minter is the minter of the contexts that tenancy itself signs.
const Minter = "tenancy"

// Upkeep turns keys over and forgets what is past its time. Run calls it; tests may.
func (w *Worker) Upkeep(ctx context.Context) error {
	var errs []error
	for _, job := range []func(context.Context) error{
		w.turnSealKeys, w.InstallSealKeys, w.expireContextKeys, w.makeRefreshKeys, w.forget,
	} {
		errs = append(errs, job(ctx))
	}
	return errors.Join(errs...)
}

// turnSealKeys gives each cell whose newest key is a day old a new one.
func (w *Worker) turnSealKeys(ctx context.Context) error {
	cells, err := store.AllCells(ctx, w.cfg.Pool)
	if err != nil {
		return err
	}
	now := w.cfg.Clock()
	for _, c := range cells {
		id := strings.TrimPrefix(c.GetName(), "cells/")
		keys, err := store.SealKeys(ctx, w.cfg.Pool, []string{id}, time.Time{}) // those past their end, too
		if err != nil {
			return err
		}
		kid := uint8(1)
		if len(keys) > 0 {
			if keys[0].CreateTime.Add(sealEvery).After(now) {
				continue
			}
			kid = keys[0].KID%maxKID + 1
		}
		key, err := NewSealKey(w.cfg, id, kid, now)
		if err != nil {
			return err
		}
		if _, err := store.InsertSealKey(ctx, w.cfg.Pool, key); err != nil {
			return err
		}
	}
	return nil
}

// NewSealKey makes a key for a cell; nothing is stored.
func NewSealKey(cfg Config, cell string, kid uint8, now time.Time) (store.SealKey, error) {
	secret := make([]byte, len(tenant.SealKey{}))
	if _, err := io.ReadFull(cfg.Random, secret); err != nil {
		return store.SealKey{}, fmt.Errorf("make a seal key: %w", err)
	}
	return store.SealKey{
		Cell: cell, KID: kid, Sealed: cfg.Box.Seal(secret, sealPlace(cell, kid)...),
		NotAfter: now.Add(SealLife).Truncate(time.Second), CreateTime: now,
	}, nil
}

func sealPlace(cell string, kid uint8) []string {
	return []string{"seal", cell, strconv.Itoa(int(kid))}
}

// OpenSealKey decrypts a stored seal key.
func OpenSealKey(cfg Config, k store.SealKey) (tenant.SealKey, error) {
	var key tenant.SealKey
	b, err := cfg.Box.Open(k.Sealed, sealPlace(k.Cell, k.KID)...)
	if err != nil {
		return key, err
	}
	copy(key[:], b)
	return key, nil
}

// InstallSealKeys gives databases the keys that they lack, and has gateways seal with keys that are everywhere.
func (w *Worker) InstallSealKeys(ctx context.Context) error {
	missing, err := store.Installs(ctx, w.cfg.Pool, w.cfg.Clock())
	if err != nil {
		return err
	}
	type keyName struct {
		cell string
		kid  uint8
	}
	behind := map[keyName]bool{}
	for _, i := range missing {
		key, err := OpenSealKey(w.cfg, i.Key)
		if err == nil {
			err = w.cfg.Cells.Install(ctx, i, key)
		}
		if err == nil {
			err = store.Installed(ctx, w.cfg.Pool, i)
		}
		if err != nil {
			behind[keyName{i.Key.Cell, i.Key.KID}] = true
			w.cfg.Log.WarnContext(ctx, "worker: a seal key is not installed", "app", i.App, "cell", i.Key.Cell, "error", err)
		}
	}
	cells, err := store.AllCells(ctx, w.cfg.Pool)
	if err != nil {
		return err
	}
	for _, c := range cells {
		id := strings.TrimPrefix(c.GetName(), "cells/")
		keys, err := store.SealKeys(ctx, w.cfg.Pool, []string{id}, w.cfg.Clock())
		if err != nil {
			return err
		}
		if len(keys) == 0 || !keys[0].UseTime.IsZero() {
			continue
		}
		late := w.cfg.Clock().Sub(keys[0].CreateTime) > sealPatience
		if behind[keyName{id, keys[0].KID}] && !late {
			continue
		}
		if err := w.useSealKey(ctx, id, keys[0].KID); err != nil {
			return err
		}
	}
	return nil
}

// useSealKey tells gateways to seal with the key.
func (w *Worker) useSealKey(ctx context.Context, cell string, kid uint8) error {
	job := change.NewJob(ctx, service, "seal.use")
	_, err := w.cfg.Kernel.Change(job, func(ctx context.Context, tx *change.Tx) (proto.Message, error) {
		c, err := store.LockCell(ctx, tx, cell)
		if err != nil {
			return nil, err
		}
		if err := store.UseSealKey(ctx, tx, cell, kid, tx.Now()); err != nil {
			return nil, err
		}
		tx.Audit(c.GetName())
		return new(tenancyv1.Cell), wire.PublishCell(tx, c, kid)
	})
	return err
}

// expireContextKeys takes keys out of the feeds that have ended.
func (w *Worker) expireContextKeys(ctx context.Context) error {
	var due bool
	err := w.cfg.Pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM registry.context_key WHERE published AND not_after <= $1)`,
		w.cfg.Clock()).Scan(&due)
	if err != nil || !due {
		return err
	}
	job := change.NewJob(ctx, service, "contextKeys.expire")
	_, err = w.cfg.Kernel.Change(job, func(ctx context.Context, tx *change.Tx) (proto.Message, error) {
		ids, err := store.Unpublish(ctx, tx, w.cfg.Clock(), expireBatch)
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			tx.Audit(fmt.Sprintf("contextKeys/%x", id[:]))
			if err := wire.RemoveKey(tx, id); err != nil {
				return nil, err
			}
		}
		return new(tenancyv1.ContextKey), nil
	})
	return err
}

// makeRefreshKeys sees to it that this slot and the next have a key, certified for all cells there are. The next one is
// made ahead, so that every verifier knows it before it is used.
func (w *Worker) makeRefreshKeys(ctx context.Context) error {
	cells, err := store.AllCells(ctx, w.cfg.Pool)
	if err != nil || len(cells) == 0 {
		return err
	}
	names := make([]string, 0, len(cells))
	for _, c := range cells[:min(len(cells), maxCells)] {
		names = append(names, strings.TrimPrefix(c.GetName(), "cells/"))
	}
	slices.Sort(names)
	slot := w.cfg.Clock().UTC().Truncate(RefreshSlot)
	for _, s := range []time.Time{slot, slot.Add(RefreshSlot)} {
		has, err := store.HasRefreshKey(ctx, w.cfg.Pool, s)
		if err != nil {
			return err
		}
		if has {
			continue
		}
		if err := w.makeRefreshKey(ctx, s, names); err != nil {
			return err
		}
	}
	return nil
}

func (w *Worker) makeRefreshKey(ctx context.Context, slot time.Time, cells []string) error {
	public, private, err := ed25519.GenerateKey(w.cfg.Random)
	if err != nil {
		return fmt.Errorf("make a refresh key: %w", err)
	}
	id := tenant.KeyIDOf(public)
	key := store.ContextKey{
		ID: id, PublicKey: public, Minter: Minter, SPIFFE: w.cfg.Holder.String(), Cells: cells,
		NotBefore: slot.Add(-RefreshSlot), NotAfter: slot.Add(RefreshLife),
	}
	if key.Certificate, err = Certify(w.cfg.Root, key, w.cfg.Holder, tenant.ClassesOf(tenant.ClassSession)); err != nil {
		return err
	}
	refresh := store.RefreshKey{Slot: slot, ID: id, Sealed: w.cfg.Box.Seal(private.Seed(), refreshPlace(id)...)}
	job := change.NewJob(ctx, service, "contextKeys.refresh")
	_, err = w.cfg.Kernel.Change(job, func(ctx context.Context, tx *change.Tx) (proto.Message, error) {
		if err := store.PutContextKey(ctx, tx, key); err != nil {
			return nil, err
		}
		fresh, err := store.InsertRefreshKey(ctx, tx, refresh)
		if err != nil {
			return nil, err
		}
		if !fresh { // another replica was first; ours was never used
			return new(tenancyv1.ContextKey), store.RevokeContextKey(ctx, tx, id, tx.Now())
		}
		tx.Audit(fmt.Sprintf("contextKeys/%x", id[:]))
		return new(tenancyv1.ContextKey), wire.PublishKey(tx, id, key.Certificate)
	})
	return err
}

func refreshPlace(id tenant.KeyID) []string { return []string{"refresh", string(id[:])} }

// OpenRefreshKey decrypts a stored refresh key.
func OpenRefreshKey(cfg Config, k store.RefreshKey) (ed25519.PrivateKey, error) {
	seed, err := cfg.Box.Open(k.Sealed, refreshPlace(k.ID)...)
	if err != nil {
		return nil, err
	}
	if len(seed) != ed25519.SeedSize {
		return nil, errors.New("a stored refresh key has a wrong size")
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// forget removes what nobody asks for any more.
func (w *Worker) forget(ctx context.Context) error {
	old := w.cfg.Clock().Add(-24 * time.Hour)
	return errors.Join(
		store.ForgetOperations(ctx, w.cfg.Pool, keepEnded),
		store.ForgetConsumers(ctx, w.cfg.Pool, 10*KnownFor),
		store.ForgetContextKeys(ctx, w.cfg.Pool, old),
		store.ForgetSealKeys(ctx, w.cfg.Pool, old),
	)
}
