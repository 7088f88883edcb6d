package quotas

import (
	"context"
	"encoding/json"
	"fmt"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

// Usage is a quota that holds for the tenant, and what is left of it.
type Usage struct {
	Limit, Used, Held, Free, Overage int64
}

func usageOf(u *quotav1.QuotaUsage) Usage {
	return Usage{Limit: u.GetLimit(), Used: u.GetUsed(), Held: u.GetHeld(), Free: u.GetFree(), Overage: u.GetOverage()}
}

// List returns the quotas that hold for the tenant, by id.
func (c *Client) List(ctx context.Context) (map[string]Usage, error) {
	out := make(map[string]Usage)
	err := c.try(ctx, func(ctx context.Context) error {
		resp, err := c.api.ListQuotaUsage(ctx, &quotav1.ListQuotaUsageRequest{})
		for _, u := range resp.GetUsage() {
			out[u.GetName()[len("quotas/"):]] = usageOf(u)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list quotas: %w", err)
	}
	return out, nil
}

// Entitlements is what a tenant is entitled to, by feature, as it was when it was asked for.
type Entitlements map[string]*quotav1.EffectiveEntitlement

// Entitlements returns all that the tenant is entitled to, in one call.
func (c *Client) Entitlements(ctx context.Context) (Entitlements, error) {
	out := make(Entitlements)
	err := c.try(ctx, func(ctx context.Context) error {
		resp, err := c.known.ListEntitlements(ctx, &quotav1.ListEntitlementsRequest{})
		for _, e := range resp.GetEntitlements() {
			out[e.GetEntitlement().GetName()[len("entitlements/"):]] = e
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list entitlements: %w", err)
	}
	return out, nil
}

// of finds a feature of a kind. One that nobody set is RESOURCE_NOT_FOUND: neither given nor denied.
func (e Entitlements) of(feature string, kind quotav1.EntitlementKind) (*quotav1.EffectiveEntitlement, error) {
	found := e[feature]
	if found.GetEntitlement().GetKind() != kind {
		return nil, fault.New(fault.NotFound, fault.ReasonResourceNotFound, "the tenant has no such entitlement %q", feature)
	}
	return found, nil
}

// Enabled says whether the tenant has a feature. Errors: RESOURCE_NOT_FOUND for one that nobody set, or that is no BOOLEAN.
func (e Entitlements) Enabled(feature string) (bool, error) {
	found, err := e.of(feature, quotav1.EntitlementKind_ENTITLEMENT_KIND_BOOLEAN)
	return found.GetEntitlement().GetEnabled(), err
}

// Value reads the JSON of a feature into a value. Errors: RESOURCE_NOT_FOUND as for Enabled, and those of package json.
func (e Entitlements) Value(feature string, into any) error {
	found, err := e.of(feature, quotav1.EntitlementKind_ENTITLEMENT_KIND_STATIC)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(found.GetEntitlement().GetValue()), into); err != nil {
		return fmt.Errorf("the entitlement %q: %w", feature, err)
	}
	return nil
}

// Left returns what is left of a metered feature. Errors: RESOURCE_NOT_FOUND as for Enabled, and when its quota holds no more.
func (e Entitlements) Left(feature string) (Usage, error) {
	found, err := e.of(feature, quotav1.EntitlementKind_ENTITLEMENT_KIND_METERED)
	if err == nil && found.GetUsage() == nil {
		err = fault.New(fault.NotFound, fault.ReasonResourceNotFound, "no quota holds for the entitlement %q", feature)
	}
	return usageOf(found.GetUsage()), err
}
