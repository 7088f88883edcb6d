package limits

import (
	"context"
	"encoding/hex"
	"net/http"

	"google.golang.org/grpc"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanthttp"
)

// User returns the value of [DimUser] for who acts in a context: a digest, empty for a
// visitor.
func User(tc tenant.Context) string {
	digest := tc.PrincipalDigest()
	if digest == ([16]byte{}) {
		return ""
	}
	return hex.EncodeToString(digest[:])
}

// UnaryServerInterceptor spends one of a resource for each call, with the dimensions
// "user" and "method". Put it behind the interceptors of sdk/tenantgrpc, which verify
// the tenant, and turn the refusal into a status with all its details. A call without a
// tenant is not limited.
func (l *Limiter) UnaryServerInterceptor(resource string) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		if err := l.admitCall(ctx, resource, info.FullMethod); err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
}

// StreamServerInterceptor is [Limiter.UnaryServerInterceptor] for streams: one for each
// stream.
func (l *Limiter) StreamServerInterceptor(resource string) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		if err := l.admitCall(stream.Context(), resource, info.FullMethod); err != nil {
			return err
		}
		return next(srv, stream)
	}
}

func (l *Limiter) admitCall(ctx context.Context, resource, method string) error {
	tc, err := tenant.FromContext(ctx)
	if err != nil {
		return nil //nolint:nilerr // tenantgrpc lets a call without a tenant come here only where its rule allows one
	}
	a := Ask{Tenant: tc, Resource: resource, Cost: 1}
	if l.Looks(tc, resource) {
		a.Dims = Dims{{DimUser, User(tc)}, {DimMethod, method}}
	}
	return l.Decide(ctx, a).Fault(tc.ID())
}

// Handler spends one of a resource for each request before it calls next, with the
// dimensions "user", "method", "host" and "route" (the pattern that serves, behind a
// mux). It sets the RateLimit fields, and answers a refusal with a problem document.
// Put it inside of a tenanthttp.Handler, which verifies the tenant. A request without a
// tenant is not limited.
func (l *Limiter) Handler(resource string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tc, err := tenant.FromContext(r.Context())
		if err != nil {
			next.ServeHTTP(w, r)
			return
		}
		a := Ask{Tenant: tc, Resource: resource, Cost: 1}
		if l.Looks(tc, resource) {
			a.Dims = Dims{{DimUser, User(tc)}, {DimMethod, r.Method}, {DimHost, r.Host}, {DimRoute, r.Pattern}}
		}
		d := l.Decide(r.Context(), a)
		d.Headers(w.Header().Set)
		if err := d.Fault(tc.ID()); err != nil {
			tenanthttp.WriteProblem(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}
