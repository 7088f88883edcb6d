package rpc

import (
	"context"
	"slices"
	"strings"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/sdk/limits"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/meter"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/store"
)

// ExplainLimits implements rowhouse.quota.v1.LimitService.
func (s *limitService) ExplainLimits(ctx context.Context, req *quotav1.ExplainLimitsRequest) (*quotav1.ExplainLimitsResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*quotav1.ExplainLimitsResponse, error) {
		tx.Audit(req.GetParent())
		o, err := meter.ParseOwner(req.GetParent())
		if err != nil || o.Layer != meter.Tenant {
			return nil, badField("parent", "is not a tenant")
		}
		own, err := s.place(tx, o)
		if err != nil {
			return nil, err
		}
		resp, err := s.explain(ctx, tx, own)
		if err != nil || req.GetResource() == "" {
			return resp, err
		}
		return matching(resp, req)
	})
}

// explain collects the layers from the nearest to the platform.
func (s *limitService) explain(ctx context.Context, tx *change.Tx, own store.Place) (*quotav1.ExplainLimitsResponse, error) {
	uid, err := tenant.ParseUID(own.ID)
	if err != nil {
		return nil, err
	}
	state, _ := s.Trust.Tenant(uid)
	const most = 1000
	byID, expired := make(map[string]*quotav1.EffectiveLimit), make(map[string][]string)
	resp := &quotav1.ExplainLimitsResponse{}
	for _, p := range []store.Place{
		own, {Owner: meter.Owner{Layer: meter.Plan, Name: state.Plan}, ID: state.Plan}, {Owner: meter.Owner{Layer: meter.Platform}},
	} {
		found, err := store.List(ctx, tx, p, "", most)
		if err != nil {
			return nil, err
		}
		for _, l := range found {
			id := idOf(l)
			switch e := byID[id]; {
			case l.GetExpireTime() != nil && !tx.Now().Before(l.GetExpireTime().AsTime()):
				expired[id] = append(expired[id], l.GetName())
			case e != nil:
				e.Shadowed = append(e.Shadowed, l.GetName())
			default:
				byID[id] = &quotav1.EffectiveLimit{Limit: l, Source: p.Owner.String()}
				resp.Limits = append(resp.Limits, byID[id])
			}
		}
	}
	for id, e := range byID {
		e.Expired = expired[id]
	}
	slices.SortFunc(resp.Limits, func(a, b *quotav1.EffectiveLimit) int {
		return strings.Compare(idOf(a.GetLimit()), idOf(b.GetLimit()))
	})
	return resp, nil
}

// matching keeps the limits of a resource that one call would be charged to, with what it
// costs.
func matching(resp *quotav1.ExplainLimitsResponse, req *quotav1.ExplainLimitsRequest) (*quotav1.ExplainLimitsResponse, error) {
	var dims limits.Dims
	for name, value := range req.GetDimensions() {
		dims = append(dims, limits.Dim{Name: name, Value: value})
	}
	out := &quotav1.ExplainLimitsResponse{}
	for _, e := range resp.GetLimits() {
		p, err := limits.PolicyOf(e.GetLimit())
		if err != nil {
			return nil, err
		}
		if p.Resource != req.GetResource() || !p.Matches(dims) {
			continue
		}
		e.Cost = p.CostOf(dims, 1)
		out.Limits = append(out.Limits, e)
	}
	return out, nil
}
