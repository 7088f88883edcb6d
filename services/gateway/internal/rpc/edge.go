// Package rpc serves the gateway's own gRPC API.
package rpc

import (
	"context"
	"errors"

	gatewayv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/gateway/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/edge"
)

// Edge serves EdgeService.
type Edge struct {
	gatewayv1.UnimplementedEdgeServiceServer

	// Kernel audits the calls.
	Kernel *change.Kernel
	// Table returns the routing table in force.
	Table func() *edge.Table
	// Source tells where the table came from: "live" or "disk".
	Source func() string
}

// ExplainRoute tells how this gateway would treat a request.
func (s *Edge) ExplainRoute(ctx context.Context, in *gatewayv1.ExplainRouteRequest) (*gatewayv1.ExplainRouteResponse, error) {
	return change.View(ctx, s.Kernel, func(_ context.Context, tx *change.Tx) (*gatewayv1.ExplainRouteResponse, error) {
		path := in.GetPath()
		if path == "" {
			path = "/"
		}
		route, err := s.Table().Resolve(edge.Ask{Host: in.GetHost(), Path: path})
		var f *fault.Error
		switch {
		case errors.As(err, &f) && f.Kind == fault.InvalidArgument:
			return nil, f.WithField(fault.FieldViolation{Field: "host", Description: f.Message})
		case err != nil && f == nil:
			return nil, err
		}
		tx.Audit("hosts/" + route.Host.String())
		return &gatewayv1.ExplainRouteResponse{Explanation: explain(route, f, s.Source())}, nil
	})
}

func explain(r edge.Route, refused *fault.Error, source string) *gatewayv1.RouteExplanation {
	x := &gatewayv1.RouteExplanation{
		Outcome: gatewayv1.RouteOutcome_ROUTE_OUTCOME_FORWARDED, Host: r.Host.String(), NamedBy: r.NamedBy,
		Upstream: r.Upstream.HTTPAddress, UpstreamPath: r.Path, Revision: r.Revision, Source: source,
	}
	if r.App != nil {
		x.App = r.App.ID
	}
	if r.Tenant != nil {
		x.Tenant, x.TenantUid = r.Tenant.ID.String(), r.Tenant.UID.String()
	}
	if refused != nil {
		x.Outcome, x.Reason = gatewayv1.RouteOutcome_ROUTE_OUTCOME_REFUSED, refused.Reason
		x.Upstream, x.UpstreamPath = "", ""
	}
	return x
}
