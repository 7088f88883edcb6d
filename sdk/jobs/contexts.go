package jobs

import (
	"context"
	"maps"
	"sync"
	"time"

	"google.golang.org/grpc"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
)

// tenancy asks tenancy for contexts.
type tenancy struct {
	contexts tenancyv1.ContextServiceClient
	verifier *tenant.Verifier
	self     identity.ID
}

// Tenancy returns a Minter that asks the service tenancy, whose identity is id, over conn with this process's own mTLS identity.
// What comes back is verified like any context: verifier is one of the app that lets tenancy, and nobody else, present.
func Tenancy(conn grpc.ClientConnInterface, verifier *tenant.Verifier, id identity.ID) Minter {
	return &tenancy{tenancyv1.NewContextServiceClient(conn), verifier, id}
}

// MintContext implements Minter.
func (t *tenancy) MintContext(ctx context.Context, origin, kind string) (tenant.Context, error) {
	resp, err := t.contexts.MintContext(ctx, &tenancyv1.MintContextRequest{TenantContext: []byte(origin), JobKind: kind})
	if err != nil {
		return tenant.Context{}, tenantgrpc.FromStatus(err)
	}
	return t.verifier.Verify(string(resp.GetTenantContext()), t.self)
}

const (
	// freshFor is how much of its life a context must have left to begin a step with.
	freshFor = 15 * time.Second
	// maxContexts bounds what is kept.
	maxContexts = 10_000
)

// contextKey is what a minted context depends on.
type contextKey struct{ origin, kind string }

// contexts keeps minted contexts for as long as steps can begin with them, so that a job asks for two a minute.
type contexts struct {
	mint Minter

	mu    sync.Mutex
	known map[contextKey]tenant.Context
}

// of returns a context for the job, kept or fresh.
func (c *contexts) of(ctx context.Context, key contextKey, now time.Time) (tenant.Context, error) {
	c.mu.Lock()
	tc, known := c.known[key]
	c.mu.Unlock()
	if known && tc.ExpireTime().Sub(now) > freshFor {
		return tc, nil
	}
	tc, err := c.mint.MintContext(ctx, key.origin, key.kind)
	if err != nil {
		return tenant.Context{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) >= maxContexts {
		maps.DeleteFunc(c.known, func(_ contextKey, tc tenant.Context) bool { return tc.ExpireTime().Sub(now) <= freshFor })
	}
	if len(c.known) < maxContexts {
		c.known[key] = tc
	}
	return tc, nil
}

// drop forgets a context that was refused.
func (c *contexts) drop(key contextKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.known, key)
}
