package rpc

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"time"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/renew"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
)

// ownServices are the audience bits that mean our own services, which an origin may open to a job.
const ownServices = tenant.Audience(1<<16 - 1)

// jobIssuer is the issuer of the principal that a job has whose origin names nobody.
const jobIssuer = "rowhouse:job"

// MintContext implements rowhouse.tenancy.v1.ContextService.
func (s *contexts) MintContext(ctx context.Context, req *tenancyv1.MintContextRequest) (*tenancyv1.MintContextResponse, error) {
	caller, ok := identity.FromPeer(ctx)
	if !ok {
		return nil, fault.New(fault.Unauthenticated, fault.ReasonCredentialMissing, "the call needs a client certificate")
	}
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.MintContextResponse, error) {
		origin, err := s.origin(ctx, tx, string(req.GetTenantContext()))
		if err != nil {
			return nil, err
		}
		site, policy, err := declared(ctx, tx, caller, origin, req.GetJobKind())
		if err != nil {
			return nil, err
		}
		t, err := s.standing(ctx, tx, site, origin)
		if err != nil {
			return nil, err
		}
		tx.Audit(policy.GetName())
		if err := young(tx.Now(), origin, policy); err != nil {
			return nil, err
		}
		if err := spend(ctx, tx, site, origin, policy); err != nil {
			return nil, err
		}
		token, err := s.mint(ctx, tx, jobClaims(origin, site, policy, t, s.Work.Clock()), origin.DBSeal != tenant.DBSeal{})
		return &tenancyv1.MintContextResponse{TenantContext: token}, err
	})
}

// origin proves what a job's origin says: a key of ours signed it that was not revoked since, and could say that then.
func (s *contexts) origin(ctx context.Context, tx *change.Tx, token string) (tenant.Claims, error) {
	id, err := tenant.EvidenceKey(token)
	if err != nil {
		return tenant.Claims{}, err
	}
	key, known, err := store.ReadContextKey(ctx, tx, id)
	if err != nil {
		return tenant.Claims{}, err
	}
	if !known || !key.RevokeTime.IsZero() {
		return tenant.Claims{}, fault.New(fault.Unauthenticated, fault.ReasonContextInvalid, "the tenant context is not valid").
			WithCause(errors.New("its key is unknown or revoked"))
	}
	root, ok := s.Work.Root.Public().(ed25519.PublicKey)
	if !ok {
		return tenant.Claims{}, errors.New("the trust root has no public half")
	}
	certificate, err := tenant.ParseKeyCertificate([]ed25519.PublicKey{root}, key.Certificate)
	if err != nil {
		return tenant.Claims{}, fmt.Errorf("the certificate of %s: %w", keyName(id), err)
	}
	origin, err := tenant.Evidence(token, certificate)
	if err != nil {
		return tenant.Claims{}, err
	}
	switch {
	case origin.Class != tenant.ClassSession:
		return origin, notAllowed("an origin that was good for one request has no jobs")
	case origin.PrincipalKind == tenant.PrincipalJob, origin.PrincipalKind == tenant.PrincipalSupport:
		return origin, notAllowed("the context of a %s is no origin of jobs", origin.PrincipalKind)
	default:
		return origin, nil
	}
}

func notAllowed(format string, args ...any) error {
	return fault.New(fault.PermissionDenied, fault.ReasonPresenterRefused, format, args...)
}

// declared returns the caller's app that the origin was for, and what is declared for its jobs of the kind, locked. An app that
// is younger than the origin has its bit from another one.
func declared(
	ctx context.Context, tx *change.Tx, caller identity.ID, origin tenant.Claims, kind string,
) (site store.Worksite, policy *tenancyv1.JobPolicy, err error) {
	sites, err := store.Worksites(ctx, tx, caller.String())
	if err != nil {
		return site, nil, err
	}
	sites = slices.DeleteFunc(sites, func(w store.Worksite) bool {
		return !origin.Audience.Has(tenant.AudienceApp(w.Bit)) || origin.IssueTime.Before(w.CreateTime.Truncate(time.Second))
	})
	if len(sites) == 0 {
		return site, nil, notAllowed("the origin was not made for the caller's app")
	}
	for _, site := range sites {
		policy, err := store.LockJobPolicy(ctx, tx, site.App, kind)
		if fault.KindOf(err) != fault.NotFound {
			return site, policy, err
		}
	}
	return site, nil, fault.New(fault.PermissionDenied, registry.ReasonJobNotDeclared,
		"no jobs %q are declared for apps/%s", kind, sites[0].App).
		WithDomain(registry.Domain).WithMetadata("kind", kind)
}

// standing returns what is known of the origin's tenant, if jobs may work for it at the site. From then on the call is on record
// in the tenant's chain, also when it is refused.
func (s *contexts) standing(ctx context.Context, tx *change.Tx, site store.Worksite, origin tenant.Claims) (renew.Tenant, error) {
	t, err := s.tenantNow(ctx, tx, origin.TenantUID)
	if fault.KindOf(err) == fault.NotFound {
		return t, deleted()
	}
	if err != nil {
		return t, err
	}
	tx.Tenant(origin.TenantUID.String())
	tx.Audit("tenants/" + origin.TenantID.String())
	switch {
	case t.State == tenant.StateSuspended:
		return t, fault.New(fault.PermissionDenied, fault.ReasonTenantSuspended, "the tenant is suspended")
	case t.State != tenant.StateActive:
		return t, deleted()
	case t.Generation < origin.Generation || t.PlacementGeneration < origin.PlacementGeneration:
		return t, fault.New(fault.Unavailable, fault.ReasonStarting, "the tenant's newest state is not known here yet")
	case !slices.Contains(site.Cells, t.Cell):
		return t, notAllowed("the caller does not serve the tenant's cell")
	default:
		return t, nil
	}
}

func deleted() error {
	return fault.New(fault.PermissionDenied, fault.ReasonTenantDeleted, "the tenant is deleted")
}

// young refuses an origin that is too old for jobs of the kind, or of a time that has not come.
func young(now time.Time, origin tenant.Claims, policy *tenancyv1.JobPolicy) error {
	if now.Sub(origin.IssueTime) <= policy.GetMaxOriginAge().AsDuration() {
		return nil
	}
	return fault.New(fault.Unauthenticated, registry.ReasonJobOriginExpired, "the job was asked for too long ago").WithDomain(registry.Domain)
}

// spend takes the context out of both budgets, or neither.
func spend(ctx context.Context, tx *change.Tx, site store.Worksite, origin tenant.Claims, policy *tenancyv1.JobPolicy) error {
	_, kind := policyID(policy.GetName())
	m := store.JobMint{
		Tenant: origin.TenantUID, App: site.App, Kind: kind, ContextsAMinute: policy.GetContextsPerMinute(), Now: tx.Now(),
	}
	others, err := store.TenantsServed(ctx, tx, m, policy.GetTenantsPerMinute())
	if err != nil {
		return err
	}
	if others >= policy.GetTenantsPerMinute() {
		return exhausted("tenants", time.Second)
	}
	wait, err := store.SpendContext(ctx, tx, m)
	if err == nil && wait > 0 {
		err = exhausted("tenant", wait)
	}
	return err
}

func exhausted(budget string, wait time.Duration) error {
	return fault.New(fault.ResourceExhausted, registry.ReasonJobBudgetExhausted, "the budget of contexts for these jobs is spent").
		WithDomain(registry.Domain).WithMetadata("budget", budget).WithRetry(wait)
}

// jobClaims is what a job's context says, but for minter and seal. It begins its chain as long ago as makes it the chain's last,
// so that nobody renews it past the budget.
func jobClaims(
	origin tenant.Claims, site store.Worksite, policy *tenancyv1.JobPolicy, t renew.Tenant, now time.Time,
) tenant.Claims {
	c := origin
	c.Plan, c.Model, c.Cell, c.CellNumber, c.Region = t.Plan, t.Model, t.Cell, t.CellNumber, t.Region
	c.Generation, c.PlacementGeneration = t.Generation, t.PlacementGeneration
	c.Scopes = origin.Scopes & tenant.Scopes(policy.GetScopes())
	c.Audience = origin.Audience & (ownServices | tenant.AudienceApp(site.Bit))
	c.PrincipalKind = tenant.PrincipalJob
	if origin.PrincipalKind == tenant.PrincipalVisitor {
		c.PrincipalDigest = tenant.PrincipalDigest(jobIssuer, policy.GetName())
	}
	c.DBSeal = tenant.DBSeal{}
	c.IssueTime = now.Truncate(time.Second).UTC()
	c.ExpireTime = c.IssueTime.Add(tenant.MaxSessionLife)
	c.FirstIssueTime = c.ExpireTime.Add(-tenant.MaxChainLife)
	return c
}

// mint signs a context, and seals it where its origin opened a database.
func (s *contexts) mint(ctx context.Context, tx *change.Tx, c tenant.Claims, sealed bool) ([]byte, error) {
	keys, err := s.signingKeys(ctx, tx, c.Cell)
	if err != nil {
		return nil, err
	}
	c.Minter = keys.Minter
	if sealed {
		c = c.WithSeal(&keys.Seal, keys.SealKID)
	}
	token, err := keys.Signer.Sign(c)
	if err != nil {
		return nil, fmt.Errorf("sign a job's context: %w", err)
	}
	return token, nil
}
