package store

import (
	"context"
	"fmt"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// Row security of tenants' rows asks these settings of the transaction whose rows it may see. They end with it, so they
// are safe behind a pooler, and without them there is no row to see.
const (
	// TenantSetting is the uid of the tenant, or [everyTenant].
	TenantSetting = "rowhouse.tenant_uid"
	// PoolsSetting are the uids, separated by commas, of the tenants above it that share something with it.
	PoolsSetting = "rowhouse.pool_uids"

	everyTenant = "*"
)

// As has the rest of a transaction see and write the rows of the tenant of ctx, which was verified, and returns its uid.
func As(ctx context.Context, q Querier) (tenant.UID, error) {
	tc, err := tenant.FromContext(ctx)
	if err != nil {
		return tenant.UID{}, err
	}
	return tc.UID(), AsTenant(ctx, q, tc.UID())
}

// AsTenant is [As] for calls that administer a tenant, and for work that goes through tenants one by one.
func AsTenant(ctx context.Context, q Querier, uid tenant.UID) error {
	return become(ctx, q, uid.String())
}

// AsEvery has the rest of a transaction see and write the rows of all tenants: for sweepers and reports of the platform,
// never for what a tenant's call asks for.
func AsEvery(ctx context.Context, q Querier) error { return become(ctx, q, everyTenant) }

func become(ctx context.Context, q Querier, who string) error {
	if _, err := q.Exec(ctx, `SELECT set_config($1, $2, true)`, TenantSetting, who); err != nil {
		return fmt.Errorf("say whose rows are meant: %w", err)
	}
	return nil
}
