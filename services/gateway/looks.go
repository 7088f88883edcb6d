package gateway

import (
	"context"

	"github.com/rowhouse-platform/rowhouse/sdk/limits"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/faces"
)

// looks are what quota and config say about tenants.
type looks struct {
	limiter *limits.Limiter
}

// followConfig opens the feed of settings.
func (h *house) followConfig(context.Context) error { return nil }

// brand returns a tenant's look, or nil.
func (l *looks) brand(tenant.UID, string) *faces.Brand { return nil }
