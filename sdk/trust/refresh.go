package trust

import (
	"context"
	"fmt"

	"google.golang.org/grpc"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
)

// Refresher renews tenant contexts at tenancy, for streams and long calls that outlive theirs. It serves as the
// Refresher of sdk/tenantgrpc and is safe for concurrent use.
type Refresher struct {
	service tenancyv1.ContextServiceClient
}

// NewRefresher returns a Refresher that asks tenancy, with this process's own mTLS identity.
func NewRefresher(tenancy grpc.ClientConnInterface) *Refresher {
	return &Refresher{tenancyv1.NewContextServiceClient(tenancy)}
}

// RefreshContext returns the successor of token: same tenant, principal, scopes and audience. Errors are gRPC statuses.
func (r *Refresher) RefreshContext(ctx context.Context, token string) (string, error) {
	res, err := r.service.RefreshContext(ctx, &tenancyv1.RefreshContextRequest{TenantContext: []byte(token)})
	if err != nil {
		return "", fmt.Errorf("refresh the tenant context: %w", err)
	}
	return string(res.GetTenantContext()), nil
}
