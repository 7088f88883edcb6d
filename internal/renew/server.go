package renew

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
)

// House is what a server of renewals knows. Errors are faults and reach the caller; where the house cannot tell now they
// are UNAVAILABLE, so that the caller asks another server.
type House interface {
	// Audiences returns the audience bits that mean the caller: those of the apps whose processes show the identity, or
	// a gateway's. Nobody's identity has none.
	Audiences(ctx context.Context, caller identity.ID) ([]tenant.Audience, error)
	// Tenant returns what is known of a tenant now.
	Tenant(ctx context.Context, uid tenant.UID) (Tenant, error)
	// Keys returns what to sign and seal with for the cell's tenants.
	Keys(ctx context.Context, cell string) (Keys, error)
}

// Keys sign and seal the contexts of one cell's tenants.
type Keys struct {
	// Signer's key is certified for the cell.
	Signer *tenant.Signer
	// Minter is the minter that its certificate names.
	Minter string
	// Seal is the cell's MAC key, known to the cell as SealKID.
	Seal    tenant.SealKey
	SealKID uint8
}

// Config is what a [Server] needs. All fields are required.
type Config struct {
	House House
	// Trust is what the old contexts are verified by.
	Trust *tenant.Trust
	Clock func() time.Time
}

// Server serves ContextRenewalService. It is safe for concurrent use.
type Server struct {
	tenancyv1.UnimplementedContextRenewalServiceServer
	c Config

	mu        sync.Mutex
	verifiers map[tenant.Audience]*tenant.Verifier // one for each audience that has called
}

// New returns a Server.
func New(c Config) (*Server, error) {
	if c.House == nil || c.Trust == nil || c.Clock == nil {
		return nil, errors.New("renewal: House, Trust and Clock are required")
	}
	return &Server{c: c, verifiers: make(map[tenant.Audience]*tenant.Verifier)}, nil
}

// RefreshContext implements rowhouse.tenancy.v1.ContextRenewalService.
func (s *Server) RefreshContext(ctx context.Context, req *tenancyv1.RefreshContextRequest) (*tenancyv1.RefreshContextResponse, error) {
	caller, ok := identity.FromPeer(ctx)
	if !ok {
		return nil, fault.New(fault.Unauthenticated, fault.ReasonCredentialMissing, "the call needs a client certificate")
	}
	token, err := s.Renew(ctx, caller, string(req.GetTenantContext()))
	if err != nil {
		return nil, err
	}
	return &tenancyv1.RefreshContextResponse{TenantContext: token}, nil
}

// Renew returns the successor of a context that the caller presents. The caller must be in its audience.
func (s *Server) Renew(ctx context.Context, caller identity.ID, token string) ([]byte, error) {
	old, err := s.verify(ctx, caller, token)
	if err != nil {
		return nil, err
	}
	t, err := s.c.House.Tenant(ctx, old.UID())
	if err != nil {
		return nil, err
	}
	claims, err := Claims(old, t, s.c.Clock())
	if err != nil {
		return nil, err
	}
	keys, err := s.c.House.Keys(ctx, claims.Cell)
	if err != nil {
		return nil, err
	}
	claims.Minter = keys.Minter
	if old.HasSeal() { // a context that opens no database does not begin to
		claims = claims.WithSeal(&keys.Seal, keys.SealKID)
	}
	fresh, err := keys.Signer.Sign(claims)
	if err != nil {
		return nil, fmt.Errorf("sign the renewed context: %w", err)
	}
	return fresh, nil
}

// verify checks the context as the caller itself would.
func (s *Server) verify(ctx context.Context, caller identity.ID, token string) (tenant.Context, error) {
	audiences, err := s.c.House.Audiences(ctx, caller)
	if err != nil {
		return tenant.Context{}, err
	}
	result, err := tenant.Context{}, refused("the caller is no app and no gateway")
	for _, audience := range audiences {
		v, verr := s.verifier(audience)
		if verr != nil {
			return tenant.Context{}, verr
		}
		if result, err = v.Verify(token, caller); err == nil {
			return result, nil
		}
	}
	return result, err
}

func (s *Server) verifier(audience tenant.Audience) (*tenant.Verifier, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.verifiers[audience]; ok {
		return v, nil
	}
	v, err := tenant.NewVerifier(tenant.VerifierConfig{
		Trust: s.c.Trust, Clock: s.c.Clock, Audience: audience,
		MayPresent: func(identity.ID) bool { return true }, // that the caller is of this audience was found out before
	})
	if err != nil {
		return nil, fmt.Errorf("renewal: %w", err)
	}
	s.verifiers[audience] = v
	return v, nil
}
