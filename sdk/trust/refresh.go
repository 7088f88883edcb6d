package trust

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
)

// refreshTry is how long one server may take while there is another to ask.
const refreshTry = time.Second

// Refresher renews tenant contexts, for streams and requests that outlive theirs. It serves as the Refresher of
// sdk/tenantgrpc and sdk/tenanthttp and is safe for concurrent use.
type Refresher struct {
	servers []tenancyv1.ContextRenewalServiceClient
}

// NewRefresher returns a Refresher that asks the servers in this order, with this process's own mTLS identity: the
// nearest gateway first, so that streams outlive a lost control plane, and tenancy last. All of them answer alike. Each
// connection is to one service's gRPC API.
func NewRefresher(servers ...grpc.ClientConnInterface) *Refresher {
	r := &Refresher{}
	for _, conn := range servers {
		r.servers = append(r.servers, tenancyv1.NewContextRenewalServiceClient(conn))
	}
	return r
}

// RefreshContext returns the successor of token: same tenant, principal, scopes and audience. A server that is
// UNAVAILABLE, or does not answer within a second, is passed over for the next; any other answer is the answer. Errors
// are gRPC statuses, the last server's.
func (r *Refresher) RefreshContext(ctx context.Context, token string) (string, error) {
	if len(r.servers) == 0 {
		return "", errors.New("refresh the tenant context: no server is configured")
	}
	last := len(r.servers) - 1
	for _, server := range r.servers[:last] {
		fresh, err := try(ctx, server, token)
		if !elsewhere(err) || ctx.Err() != nil {
			return fresh, err
		}
	}
	return ask(ctx, r.servers[last], token)
}

func try(ctx context.Context, server tenancyv1.ContextRenewalServiceClient, token string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, refreshTry)
	defer cancel()
	return ask(ctx, server, token)
}

func ask(ctx context.Context, server tenancyv1.ContextRenewalServiceClient, token string) (string, error) {
	res, err := server.RefreshContext(ctx, &tenancyv1.RefreshContextRequest{TenantContext: []byte(token)})
	if err != nil {
		return "", fmt.Errorf("refresh the tenant context: %w", err)
	}
	return string(res.GetTenantContext()), nil
}

// elsewhere reports whether another server may answer what this one could not.
func elsewhere(err error) bool {
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.DeadlineExceeded
}
