package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
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

	expireBatch = 500
	maxKID      = 255
)

// turnKeys turns keys over, has gateways use those that are installed, and forgets what is past its time. It asks no cell.
func (w *Worker) turnKeys(ctx context.Context) error {
	var errs []error
	for _, job := range []func(context.Context) error{w.turnSealKeys, w.expireContextKeys, w.TurnSigningKey, w.forget} {
		errs = append(errs, job(ctx))
	}
	return errors.Join(errs...)
}

// turnSealKeys gives each cell whose newest key is a day old a new one, and has gateways use the newest when they may.
func (w *Worker) turnSealKeys(ctx context.Context) error {
	cells, err := store.AllCells(ctx, w.cfg.Pool)
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range cells {
		errs = append(errs, w.turnSealKey(ctx, strings.TrimPrefix(c.GetName(), "cells/")))
	}
	return errors.Join(errs...)
}

func (w *Worker) turnSealKey(ctx context.Context, cell string) error {
	now := w.cfg.Clock()
	keys, err := store.SealKeys(ctx, w.cfg.Pool, []string{cell}, time.Time{}) // those past their end, too
	if err != nil {
		return err
	}
	kid := uint8(1)
	if len(keys) > 0 {
		last := keys[0]
		if last.UseTime.IsZero() && last.NotAfter.After(now) {
			err = w.useSealKey(ctx, cell, last)
		}
		if err != nil || last.CreateTime.Add(sealEvery).After(now) {
			return err
		}
		kid = last.KID%maxKID + 1
	}
	key, err := NewSealKey(w.cfg, cell, kid, now)
	if err != nil {
		return err
	}
	_, err = store.InsertSealKey(ctx, w.cfg.Pool, key)
	w.installDue.ring()
	return err
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

// errBehind says that a key is not used yet.
var errBehind = errors.New("databases lack the key")

// useSealKey tells gateways to seal with the key, unless a database lacks it. Homes that become ready meanwhile either are
// seen here or see the key. After sealPatience those that lack it are left behind: their tenants alone are refused.
func (w *Worker) useSealKey(ctx context.Context, cell string, key store.SealKey) error {
	late := w.cfg.Clock().Sub(key.CreateTime) > sealPatience
	behind, err := store.Lacking(ctx, w.cfg.Pool, cell, key.KID)
	if err != nil || behind > 0 && !late {
		return err
	}
	job := change.NewJob(ctx, service, "seal.use")
	_, err = w.cfg.Kernel.Change(job, func(ctx context.Context, tx *change.Tx) (proto.Message, error) {
		c, err := store.LockCell(ctx, tx, cell)
		if err != nil {
			return nil, err
		}
		behind, err := store.Lacking(ctx, tx, cell, key.KID)
		if err != nil {
			return nil, err
		}
		if behind > 0 && !late {
			return nil, errBehind
		}
		if behind > 0 {
			w.cfg.Log.ErrorContext(ctx, "worker: a seal key is used that databases lack; their tenants are refused",
				"cell", cell, "kid", key.KID, "databases", behind)
		}
		if err := store.UseSealKey(ctx, tx, cell, key.KID, tx.Now()); err != nil {
			return nil, err
		}
		tx.Audit(c.GetName())
		return new(tenancyv1.Cell), wire.PublishCell(tx, c, key.KID)
	})
	if errors.Is(err, errBehind) {
		return nil
	}
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

// forget removes what nobody asks for any more.
func (w *Worker) forget(ctx context.Context) error {
	old := w.cfg.Clock().Add(-24 * time.Hour)
	return errors.Join(
		store.ForgetMints(ctx, w.cfg.Pool, w.cfg.Clock().Add(-time.Hour)),
		store.ForgetOperations(ctx, w.cfg.Pool, keepEnded),
		store.ForgetConsumers(ctx, w.cfg.Pool, KnownFor),
		store.ForgetContextKeys(ctx, w.cfg.Pool, w.cfg.Clock().Add(-keepKeys)),
		store.ForgetSealKeys(ctx, w.cfg.Pool, old),
		w.forgetEvents(ctx),
	)
}
