package rpc

import (
	"context"
	"encoding/json"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/durable"
)

// entitlementService serves EntitlementService, for tenants.
type entitlementService struct {
	quotav1.UnimplementedEntitlementServiceServer
	Config
}

// ListEntitlements implements rowhouse.quota.v1.EntitlementService.
func (s *entitlementService) ListEntitlements(
	ctx context.Context, _ *quotav1.ListEntitlementsRequest,
) (*quotav1.ListEntitlementsResponse, error) {
	return transact(ctx, s.Config, func(ctx context.Context, tx *change.Tx, t durable.Tenant) (*quotav1.ListEntitlementsResponse, error) {
		found, err := durable.Entitlements{}.Effective(ctx, tx, t, durable.View{})
		for _, e := range found {
			if e.GetUsage() != nil {
				e.Usage.Etag = ""
			}
		}
		return &quotav1.ListEntitlementsResponse{Entitlements: found}, err
	})
}

// entitlementAdminService serves EntitlementAdminService.
type entitlementAdminService struct {
	quotav1.UnimplementedEntitlementAdminServiceServer
	layered[*quotav1.Entitlement]
}

func newEntitlementAdminService(c Config) *entitlementAdminService {
	return &entitlementAdminService{layered: layered[*quotav1.Entitlement]{
		Config: c, store: durable.Entitlements{}, collection: "entitlements", complete: completeEntitlement,
		create: func(name, uid string, now time.Time) *quotav1.Entitlement {
			return &quotav1.Entitlement{Name: name, Uid: uid, CreateTime: timestamppb.New(now)}
		},
		stamped: func(e *quotav1.Entitlement, revision int64, etag string) { e.Revision, e.Etag = revision, etag },
	}}
}

// completeEntitlement checks the fields against the kind.
func completeEntitlement(e *quotav1.Entitlement, now time.Time) error {
	e.UpdateTime = timestamppb.New(now)
	boolean, static, metered := e.GetEnabled(), e.GetValue() != "", e.GetQuota() != ""
	switch e.GetKind() {
	case quotav1.EntitlementKind_ENTITLEMENT_KIND_BOOLEAN:
		if static || metered {
			return badField("entitlement.kind", "BOOLEAN has neither value nor quota")
		}
	case quotav1.EntitlementKind_ENTITLEMENT_KIND_STATIC:
		if boolean || metered || !json.Valid([]byte(e.GetValue())) {
			return badField("entitlement.value", "is a JSON value, alone")
		}
	case quotav1.EntitlementKind_ENTITLEMENT_KIND_METERED:
		if boolean || static || !metered {
			return badField("entitlement.quota", "is the id of a quota, alone")
		}
	default:
		return badField("entitlement.kind", "is required")
	}
	return nil
}

// GetEntitlement implements rowhouse.quota.v1.EntitlementAdminService.
func (s *entitlementAdminService) GetEntitlement(
	ctx context.Context, req *quotav1.GetEntitlementRequest,
) (*quotav1.GetEntitlementResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*quotav1.GetEntitlementResponse, error) {
		e, err := s.get(ctx, tx, req.GetName())
		return &quotav1.GetEntitlementResponse{Entitlement: e}, err
	})
}

// ListLayerEntitlements implements rowhouse.quota.v1.EntitlementAdminService.
func (s *entitlementAdminService) ListLayerEntitlements(
	ctx context.Context, req *quotav1.ListLayerEntitlementsRequest,
) (*quotav1.ListLayerEntitlementsResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*quotav1.ListLayerEntitlementsResponse, error) {
		found, next, err := s.list(ctx, tx, req)
		return &quotav1.ListLayerEntitlementsResponse{Entitlements: found, NextPageToken: next}, err
	})
}

// UpdateEntitlement implements rowhouse.quota.v1.EntitlementAdminService.
func (s *entitlementAdminService) UpdateEntitlement(
	ctx context.Context, req *quotav1.UpdateEntitlementRequest,
) (*quotav1.UpdateEntitlementResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*quotav1.UpdateEntitlementResponse, error) {
		e, err := s.update(ctx, tx, req.GetEntitlement(), req.GetUpdateMask(), req.GetAllowMissing())
		return &quotav1.UpdateEntitlementResponse{Entitlement: e}, err
	})
}

// DeleteEntitlement implements rowhouse.quota.v1.EntitlementAdminService.
func (s *entitlementAdminService) DeleteEntitlement(
	ctx context.Context, req *quotav1.DeleteEntitlementRequest,
) (*quotav1.DeleteEntitlementResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*quotav1.DeleteEntitlementResponse, error) {
		return &quotav1.DeleteEntitlementResponse{}, s.remove(ctx, tx, req)
	})
}

// ExplainEntitlements implements rowhouse.quota.v1.EntitlementAdminService.
func (s *entitlementAdminService) ExplainEntitlements(
	ctx context.Context, req *quotav1.ExplainEntitlementsRequest,
) (*quotav1.ExplainEntitlementsResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*quotav1.ExplainEntitlementsResponse, error) {
		t, _, v, err := s.administered(tx, req.GetParent())
		if err != nil {
			return nil, err
		}
		found, err := durable.Entitlements{}.Effective(ctx, tx, t, v)
		return &quotav1.ExplainEntitlementsResponse{Entitlements: found}, err
	})
}
