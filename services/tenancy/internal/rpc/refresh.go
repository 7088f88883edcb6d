package rpc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/worker"
)

// refresher makes a fresh context out of one that is about to expire.
//
// A chain of refreshes must end an hour after the first issue, and a context does not say when that was. The signing
// key says it: tenancy has a key for every slot of ten minutes. A context that a gateway made is renewed with the key
// of the slot in which it was issued, and one that tenancy made with the key that it was signed with; the key's
// certificate ends an hour after its slot began. So every verifier enforces the bound, and no replica remembers anything.
type refresher struct {
	Config

	mu        sync.Mutex
	verifiers map[tenant.Audience]*tenant.Verifier
}

func newRefresher(cfg Config) (*refresher, error) {
	if cfg.Trust == nil {
		return nil, errors.New("the refresh of contexts needs a trust")
	}
	return &refresher{Config: cfg, verifiers: map[tenant.Audience]*tenant.Verifier{}}, nil
}

// RefreshContext implements rowhouse.tenancy.v1.ContextService.
func (s *contexts) RefreshContext(ctx context.Context, req *tenancyv1.RefreshContextRequest) (*tenancyv1.RefreshContextResponse, error) {
	caller, ok := identity.FromPeer(ctx)
	if !ok {
		return nil, fault.New(fault.Unauthenticated, fault.ReasonCredentialMissing, "the call needs a client certificate")
	}
	token, err := s.refresher.refresh(ctx, caller, string(req.GetTenantContext()))
	return &tenancyv1.RefreshContextResponse{TenantContext: token}, err
}

func (r *refresher) refresh(ctx context.Context, caller identity.ID, token string) ([]byte, error) {
	old, err := r.verify(ctx, caller, token)
	if err != nil {
		return nil, err
	}
	if old.Class() != tenant.ClassSession {
		return nil, refusedPresenter("a TRANSACTION context is good for one request")
	}
	key, err := r.chainKey(ctx, old)
	if err != nil {
		return nil, err
	}
	claims, err := r.claims(ctx, old, key)
	if err != nil {
		return nil, err
	}
	private, err := worker.OpenRefreshKey(r.Work, key)
	if err != nil {
		return nil, err
	}
	signer, err := tenant.NewSigner(private)
	if err != nil {
		return nil, err
	}
	return signer.Sign(claims)
}

// verify checks the context as the caller itself would: it must be in the audience.
func (r *refresher) verify(ctx context.Context, caller identity.ID, token string) (tenant.Context, error) {
	audiences, err := r.audiences(ctx, caller)
	if err != nil {
		return tenant.Context{}, err
	}
	result, err := tenant.Context{}, refusedPresenter("the caller is no app and no gateway")
	for _, audience := range audiences {
		v, verr := r.verifier(audience)
		if verr != nil {
			return tenant.Context{}, verr
		}
		if result, err = v.Verify(token, caller); err == nil {
			return result, nil
		}
	}
	return result, err
}

// audiences are the bits of a context's audience that mean the caller.
func (r *refresher) audiences(ctx context.Context, caller identity.ID) ([]tenant.Audience, error) {
	if caller.Kind() != identity.KindApp {
		if r.MayPresent != nil && r.MayPresent(caller) {
			return []tenant.Audience{tenant.AudienceGateway}, nil
		}
		return nil, nil
	}
	bits, err := store.AudienceBits(ctx, r.Pool, caller.String())
	if err != nil {
		return nil, err
	}
	audiences := make([]tenant.Audience, len(bits))
	for i, bit := range bits {
		audiences[i] = tenant.AudienceApp(bit)
	}
	return audiences, nil
}

func (r *refresher) verifier(audience tenant.Audience) (*tenant.Verifier, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if v, ok := r.verifiers[audience]; ok {
		return v, nil
	}
	v, err := tenant.NewVerifier(tenant.VerifierConfig{
		Trust: r.Trust, Clock: r.Work.Clock, Audience: audience,
		MayPresent: func(identity.ID) bool { return true }, // that the caller is of this audience was found out before
	})
	if err == nil {
		r.verifiers[audience] = v
	}
	return v, err
}

// chainKey returns the key that the chain of this context is signed with.
func (r *refresher) chainKey(ctx context.Context, old tenant.Context) (store.RefreshKey, error) {
	keys, err := store.RefreshKeys(ctx, r.Pool, r.Work.Clock())
	if err != nil {
		return store.RefreshKey{}, err
	}
	var id tenant.KeyID
	copy(id[:], old.Token()[1:])
	var best store.RefreshKey
	for _, k := range keys {
		if old.Minter() == worker.Minter {
			if k.ID == id {
				return k, nil
			}
			continue
		}
		if !k.Slot.After(old.IssueTime()) && k.Slot.After(best.Slot) {
			best = k
		}
	}
	if best.Slot.IsZero() {
		return store.RefreshKey{}, fault.New(fault.Unauthenticated, fault.ReasonContextExpired,
			"the context can be renewed no more; make a new one at the edge")
	}
	return best, nil
}

// claims are those of the old context with fresh times, where the tenant is now, and a fresh seal.
func (r *refresher) claims(ctx context.Context, old tenant.Context, key store.RefreshKey) (tenant.Claims, error) {
	t, err := store.ReadTenant(ctx, r.Pool, store.TenantKey{UID: old.UID()})
	if err != nil {
		return tenant.Claims{}, err
	}
	cell, err := store.ReadCell(ctx, r.Pool, t.Placement.Cell)
	if err != nil {
		return tenant.Claims{}, err
	}
	now := r.Work.Clock().Truncate(time.Second)
	c := old.Claims()
	c.Minter, c.IssueTime, c.ExpireTime = worker.Minter, now, now.Add(tenant.MaxSessionLife)
	if end := key.Slot.Add(worker.RefreshLife); end.Before(c.ExpireTime) {
		c.ExpireTime = end
	}
	c.Plan, c.Model, c.Cell, c.Region = t.Plan, t.Placement.Model, t.Placement.Cell, t.Placement.Region
	c.Generation = uint64(t.Generation)                    //nolint:gosec // the table allows positive ones
	c.PlacementGeneration = uint64(t.Placement.Generation) //nolint:gosec // the table allows positive ones
	c.CellNumber = uint32(cell.GetNumber())                //nolint:gosec // the table allows positive ones
	if old.Generation() != c.Generation {
		return tenant.Claims{}, fault.New(fault.Aborted, fault.ReasonPlacementStale,
			"the tenant has changed since the context was made; make a new one")
	}
	return r.seal(ctx, c)
}

// seal gives the claims a database seal with the cell's current key.
func (r *refresher) seal(ctx context.Context, c tenant.Claims) (tenant.Claims, error) {
	kid, err := store.CurrentSealKID(ctx, r.Pool, c.Cell)
	if err != nil {
		return tenant.Claims{}, err
	}
	keys, err := store.SealKeys(ctx, r.Pool, []string{c.Cell}, r.Work.Clock())
	if err != nil {
		return tenant.Claims{}, err
	}
	for _, k := range keys {
		if k.KID != kid {
			continue
		}
		secret, err := worker.OpenSealKey(r.Work, k)
		if err != nil {
			return tenant.Claims{}, err
		}
		return c.WithSeal(&secret, kid), nil
	}
	return tenant.Claims{}, fmt.Errorf("cell %s has no seal key", c.Cell)
}

func refusedPresenter(message string) error {
	return fault.New(fault.PermissionDenied, fault.ReasonPresenterRefused, "%s", message)
}
