package rpc

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/wire"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/worker"
)

const (
	certifyPrefix = "rowhouse-certify/v1\x00"
	renewAfter    = 12 * time.Hour
	// skew lets a new certificate be good at once where the clock is behind ours.
	skew = time.Minute
	// AllCells in a Minter stands for every cell there is.
	AllCells = "*"
)

// Minter is what the keys of one workload may sign.
type Minter struct {
	// Name is the minter that contexts name, a label of at most 12 characters.
	Name string
	// Cells are the cells whose tenants it may speak for; AllCells alone means every one.
	Cells []string
	// Classes are the classes of contexts.
	Classes tenant.Classes
}

// Minters says what the keys of workloads may sign, where it differs from what Of answers by itself.
type Minters map[identity.ID]Minter

// Of returns what the workload's keys may sign: by default, contexts of every class for tenants of its own cell, under
// its own name.
func (m Minters) Of(id identity.ID) Minter {
	if minter, ok := m[id]; ok {
		return minter
	}
	return Minter{
		Name: id.Name(), Cells: []string{id.Cell()},
		Classes: tenant.ClassesOf(tenant.ClassSession, tenant.ClassTransaction),
	}
}

// Presenters reports whether a workload may present contexts that others minted.
type Presenters func(identity.ID) bool

// contexts serves ContextService.
type contexts struct {
	tenancyv1.UnimplementedContextServiceServer
	Config
}

// CertifyKey implements rowhouse.tenancy.v1.ContextService.
func (s *contexts) CertifyKey(ctx context.Context, req *tenancyv1.CertifyKeyRequest) (*tenancyv1.CertifyKeyResponse, error) {
	holder, ok := identity.FromPeer(ctx)
	if !ok {
		return nil, fault.New(fault.Unauthenticated, fault.ReasonCredentialMissing, "the call needs a client certificate")
	}
	public := ed25519.PublicKey(req.GetPublicKey())
	if !ed25519.Verify(public, []byte(certifyPrefix+holder.String()), req.GetProof()) {
		return nil, badField("proof", "is not the key's signature over the caller's identity")
	}
	minter := s.Minters.Of(holder)
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.CertifyKeyResponse, error) {
		key, err := s.certify(ctx, tx, holder, public, minter)
		if err != nil {
			return nil, err
		}
		tx.Audit(keyName(key.ID))
		if err := wire.PublishKey(tx, key.ID, key.Certificate); err != nil {
			return nil, err
		}
		seals, err := s.sealKeys(ctx, tx, key.Cells)
		return &tenancyv1.CertifyKeyResponse{
			Certificate: key.Certificate, SealKeys: seals, RenewTime: timestamppb.New(tx.Now().Add(renewAfter)),
		}, err
	})
}

// certify signs and stores the certificate. A key that was revoked, or that another process holds, gets none.
func (s *contexts) certify(
	ctx context.Context, tx *change.Tx, holder identity.ID, public ed25519.PublicKey, minter Minter,
) (store.ContextKey, error) {
	id := tenant.KeyIDOf(public)
	old, known, err := store.LockContextKey(ctx, tx, id)
	if err != nil {
		return store.ContextKey{}, err
	}
	if known && (!old.RevokeTime.IsZero() || old.SPIFFE != holder.String() || string(old.PublicKey) != string(public)) {
		return store.ContextKey{}, badField("public_key", "was revoked or is another's; make a new one")
	}
	cells := minter.Cells
	if slices.Equal(cells, []string{AllCells}) {
		if cells, err = cellNames(ctx, tx); err != nil {
			return store.ContextKey{}, err
		}
	}
	key := store.ContextKey{
		ID: id, PublicKey: public, Minter: minter.Name, SPIFFE: holder.String(), Cells: cells,
		NotBefore: tx.Now().Add(-skew).Truncate(time.Second),
	}
	key.NotAfter = key.NotBefore.Add(tenant.MaxKeyLife)
	if key.Certificate, err = worker.Certify(s.Work.Root, key, holder, minter.Classes); err != nil {
		return store.ContextKey{}, fmt.Errorf("certify a key of %s: %w", holder, err)
	}
	return key, store.PutContextKey(ctx, tx, key)
}

func cellNames(ctx context.Context, q store.Querier) ([]string, error) {
	all, err := store.AllCells(ctx, q)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fault.New(fault.FailedPrecondition, fault.ReasonWrongState, "there is no cell yet to sign for")
	}
	names := make([]string, len(all))
	for i, c := range all {
		names[i] = idOf(c.GetName())
	}
	return names, nil
}

// sealKeys decrypts the keys of cells. They leave tenancy only here.
func (s *contexts) sealKeys(ctx context.Context, q store.Querier, cells []string) ([]*tenancyv1.SealKey, error) {
	stored, err := store.SealKeys(ctx, q, cells, s.Work.Clock())
	if err != nil {
		return nil, err
	}
	var keys []*tenancyv1.SealKey
	for _, k := range stored {
		secret, err := worker.OpenSealKey(s.Work, k)
		if err != nil {
			return nil, err
		}
		keys = append(keys, &tenancyv1.SealKey{
			Cell: k.Cell, Kid: uint32(k.KID), Key: secret[:], NotAfter: timestamppb.New(k.NotAfter),
		})
	}
	return keys, nil
}

func keyName(id tenant.KeyID) string { return "contextKeys/" + hex.EncodeToString(id[:]) }

func keyOf(k store.ContextKey) *tenancyv1.ContextKey {
	m := &tenancyv1.ContextKey{
		Name: keyName(k.ID), PublicKey: k.PublicKey, Minter: k.Minter, SpiffeId: k.SPIFFE, Cells: k.Cells,
		NotBefore: timestamppb.New(k.NotBefore), NotAfter: timestamppb.New(k.NotAfter),
	}
	if !k.RevokeTime.IsZero() {
		m.RevokeTime = timestamppb.New(k.RevokeTime)
	}
	return m
}

// ListContextKeys implements rowhouse.tenancy.v1.ContextService.
func (s *contexts) ListContextKeys(ctx context.Context, _ *tenancyv1.ListContextKeysRequest) (*tenancyv1.ListContextKeysResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.ListContextKeysResponse, error) {
		found, err := store.ListContextKeys(ctx, tx, tx.Now())
		resp := &tenancyv1.ListContextKeysResponse{}
		for _, k := range found {
			tx.Audit(keyName(k.ID))
			resp.ContextKeys = append(resp.ContextKeys, keyOf(k))
		}
		return resp, err
	})
}

// RevokeContextKey implements rowhouse.tenancy.v1.ContextService.
func (s *contexts) RevokeContextKey(
	ctx context.Context, req *tenancyv1.RevokeContextKeyRequest,
) (*tenancyv1.RevokeContextKeyResponse, error) {
	var id tenant.KeyID
	if n, err := hex.Decode(id[:], []byte(strings.TrimPrefix(req.GetName(), "contextKeys/"))); err != nil || n != len(id) {
		return nil, badField("name", "is not contextKeys/{key id in hex}")
	}
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.RevokeContextKeyResponse, error) {
		tx.Audit(req.GetName(), "revoke_time")
		key, known, err := store.LockContextKey(ctx, tx, id)
		if err != nil {
			return nil, err
		}
		if !known {
			return nil, store.NotFound(req.GetName())
		}
		if key.RevokeTime.IsZero() {
			key.RevokeTime = tx.Now()
			if err := store.RevokeContextKey(ctx, tx, id, key.RevokeTime); err != nil {
				return nil, err
			}
			if err := wire.RemoveKey(tx, id); err != nil {
				return nil, err
			}
		}
		return &tenancyv1.RevokeContextKeyResponse{ContextKey: keyOf(key)}, nil
	})
}
