package rpc

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/durable"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/meter"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/usage"
)

// quotaService serves QuotaService.
type quotaService struct {
	quotav1.UnimplementedQuotaServiceServer
	layered[*quotav1.Quota]
}

func newQuotaService(c Config) *quotaService {
	return &quotaService{layered: layered[*quotav1.Quota]{
		Config: c, store: durable.Quotas{}, collection: "quotas", complete: completeQuota,
		create: func(name, uid string, now time.Time) *quotav1.Quota {
			return &quotav1.Quota{Name: name, Uid: uid, CreateTime: timestamppb.New(now)}
		},
		stamped: func(q *quotav1.Quota, revision int64, etag string) { q.Revision, q.Etag = revision, etag },
	}}
}

// completeQuota fills in defaults and checks the fields against each other. What is of another kind of quota is cleared.
func completeQuota(q *quotav1.Quota, now time.Time) error {
	q.UpdateTime = timestamppb.New(now)
	q.Period = or(q.GetPeriod(), quotav1.QuotaPeriod_QUOTA_PERIOD_NONE)
	q.Overage = or(q.GetOverage(), quotav1.QuotaOverage_QUOTA_OVERAGE_DENY)
	q.LateCommit = or(q.GetLateCommit(), quotav1.LateCommit_LATE_COMMIT_REFUSE)
	q.OnChange = or(q.GetOnChange(), quotav1.QuotaChange_QUOTA_CHANGE_KEEP_USED)
	switch q.GetPeriod() {
	case quotav1.QuotaPeriod_QUOTA_PERIOD_MONTH:
		q.AnchorDay = max(q.GetAnchorDay(), 1)
	case quotav1.QuotaPeriod_QUOTA_PERIOD_NONE:
		if q.GetOnChange() != quotav1.QuotaChange_QUOTA_CHANGE_KEEP_USED {
			return badField("quota.on_change", "needs a period")
		}
		q.AnchorDay, q.AnchorHour = 1, 0
	default:
		q.AnchorDay = 1
	}
	if q.GetOverage() != quotav1.QuotaOverage_QUOTA_OVERAGE_GRACE {
		q.GracePercent, q.GraceDuration = 0, nil
	} else if q.GetGracePercent() < 1 || q.GetGraceDuration().AsDuration() <= 0 {
		return badField("quota.overage", "GRACE needs grace_percent and grace_duration")
	}
	if q.GetOverage() != quotav1.QuotaOverage_QUOTA_OVERAGE_THROTTLE {
		q.ThrottleAmount, q.ThrottlePeriod = 0, nil
	} else if _, err := gcra.New(q.GetThrottleAmount(), q.GetThrottlePeriod().AsDuration(), 0); err != nil || q.GetThrottleAmount() < 1 {
		return badField("quota.overage", "THROTTLE needs throttle_amount and throttle_period, of at least 1 ms")
	}
	return nil
}

// or is v, or otherwise when v is not set.
func or[E ~int32](v, otherwise E) E {
	if v == 0 {
		return otherwise
	}
	return v
}

// GetQuota implements rowhouse.quota.v1.QuotaService.
func (s *quotaService) GetQuota(ctx context.Context, req *quotav1.GetQuotaRequest) (*quotav1.GetQuotaResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*quotav1.GetQuotaResponse, error) {
		q, err := s.get(ctx, tx, req.GetName())
		return &quotav1.GetQuotaResponse{Quota: q}, err
	})
}

// ListQuotas implements rowhouse.quota.v1.QuotaService.
func (s *quotaService) ListQuotas(ctx context.Context, req *quotav1.ListQuotasRequest) (*quotav1.ListQuotasResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*quotav1.ListQuotasResponse, error) {
		found, next, err := s.list(ctx, tx, req)
		return &quotav1.ListQuotasResponse{Quotas: found, NextPageToken: next}, err
	})
}

// UpdateQuota implements rowhouse.quota.v1.QuotaService.
func (s *quotaService) UpdateQuota(ctx context.Context, req *quotav1.UpdateQuotaRequest) (*quotav1.UpdateQuotaResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*quotav1.UpdateQuotaResponse, error) {
		q, err := s.update(ctx, tx, req.GetQuota(), req.GetUpdateMask(), req.GetAllowMissing())
		return &quotav1.UpdateQuotaResponse{Quota: q}, err
	})
}

// DeleteQuota implements rowhouse.quota.v1.QuotaService.
func (s *quotaService) DeleteQuota(ctx context.Context, req *quotav1.DeleteQuotaRequest) (*quotav1.DeleteQuotaResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*quotav1.DeleteQuotaResponse, error) {
		return &quotav1.DeleteQuotaResponse{}, s.remove(ctx, tx, req)
	})
}

// administered finds the tenant that a call names, with those above it.
func (c Config) administered(tx *change.Tx, name string) (t durable.Tenant, quota string, v durable.View, err error) {
	tx.Audit(name)
	owner, quota, _ := strings.Cut(name, "/quotas/")
	o, err := meter.ParseOwner(owner)
	if err != nil || o.Layer != meter.Tenant {
		return t, "", v, badField("name", "is not of a tenant")
	}
	id, err := tenant.ParseID(o.Name)
	if err != nil {
		return t, "", v, err
	}
	state, ok := c.Trust.Find(id)
	if !ok {
		return t, "", v, fault.New(fault.NotFound, fault.ReasonResourceNotFound, "%s does not exist", owner)
	}
	tx.Tenant(state.UID.String())
	return c.family(state), quota, durable.View{Prefix: owner + "/"}, nil
}

// family is a tenant with those above it.
func (c Config) family(state tenant.TenantState) durable.Tenant {
	const deepest = 16 // tenancy allows fewer
	t := durable.Tenant{ID: state.ID.String(), Member: durable.Member{UID: state.UID.String(), Plan: state.Plan}}
	for parent := state.Parent; !parent.IsZero() && len(t.Above) < deepest; {
		above, ok := c.Trust.Tenant(parent)
		if !ok {
			break
		}
		t.Above = append(t.Above, durable.Member{UID: above.UID.String(), Plan: above.Plan})
		parent = above.Parent
	}
	return t
}

// GetQuotaUsage implements rowhouse.quota.v1.QuotaService.
func (s *quotaService) GetQuotaUsage(ctx context.Context, req *quotav1.GetQuotaUsageRequest) (*quotav1.GetQuotaUsageResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*quotav1.GetQuotaUsageResponse, error) {
		t, quota, v, err := s.administered(tx, req.GetName())
		if err != nil {
			return nil, err
		}
		found, err := durable.Usage(ctx, tx, t, v, []string{quota})
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return nil, fault.New(fault.NotFound, fault.ReasonResourceNotFound, "no quota %q holds for the tenant", quota)
		}
		return &quotav1.GetQuotaUsageResponse{Usage: found[0]}, nil
	})
}

// maxListed bounds lists that are not paged.
const maxListed = 1000

// ExplainQuotas implements rowhouse.quota.v1.QuotaService.
func (s *quotaService) ExplainQuotas(ctx context.Context, req *quotav1.ExplainQuotasRequest) (*quotav1.ExplainQuotasResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*quotav1.ExplainQuotasResponse, error) {
		t, _, v, err := s.administered(tx, req.GetParent())
		if err != nil {
			return nil, err
		}
		found, err := durable.Usage(ctx, tx, t, v, nil)
		return &quotav1.ExplainQuotasResponse{Usage: found[:min(len(found), maxListed)]}, err
	})
}

// AdjustQuota implements rowhouse.quota.v1.QuotaService.
func (s *quotaService) AdjustQuota(ctx context.Context, req *quotav1.AdjustQuotaRequest) (*quotav1.AdjustQuotaResponse, error) {
	return again(ctx, func() (*quotav1.AdjustQuotaResponse, error) {
		return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*quotav1.AdjustQuotaResponse, error) {
			t, quota, v, err := s.administered(tx, req.GetName())
			if err != nil {
				return nil, err
			}
			tx.Audit(req.GetName(), "adjustment")
			u, _, err := durable.Apply(ctx, tx, t, v, durable.Move{Quota: quota, Etag: req.GetEtag(), Delta: req.GetDelta()})
			return &quotav1.AdjustQuotaResponse{Usage: u}, err
		})
	})
}

// SetUsage implements rowhouse.quota.v1.QuotaService.
func (s *quotaService) SetUsage(ctx context.Context, req *quotav1.SetUsageRequest) (*quotav1.SetUsageResponse, error) {
	return again(ctx, func() (*quotav1.SetUsageResponse, error) {
		return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*quotav1.SetUsageResponse, error) {
			t, quota, v, err := s.administered(tx, req.GetName())
			if err != nil {
				return nil, err
			}
			tx.Audit(req.GetName(), "used")
			used := req.GetUsed()
			u, drift, err := durable.Apply(ctx, tx, t, v, durable.Move{Quota: quota, Etag: req.GetEtag(), Used: &used})
			return &quotav1.SetUsageResponse{Usage: u, Drift: drift}, err
		})
	})
}

// again runs a unit of work anew that lost a race which the database does not know of.
func again[T any](ctx context.Context, run func() (T, error)) (T, error) {
	const tries = 10
	var none T
	for range tries {
		answer, err := run()
		if !durable.Again(err) || ctx.Err() != nil {
			return answer, err
		}
	}
	return none, fault.New(fault.Unavailable, fault.ReasonDependency, "the quotas change too often; try again")
}

// eraser removes what one part of quota keeps for a tenant, and returns how many records of which kind. The transaction
// means every tenant.
type eraser func(ctx context.Context, tx *change.Tx, uid string) (map[string]int64, error)

// erasers are those of all parts.
func erasers() []eraser {
	return []eraser{
		func(ctx context.Context, tx *change.Tx, uid string) (map[string]int64, error) {
			return durable.Erase(ctx, tx, uid)
		},
		func(ctx context.Context, tx *change.Tx, uid string) (map[string]int64, error) {
			id, err := tenant.ParseUID(uid)
			if err != nil {
				return nil, err
			}
			return usage.Erase(ctx, tx, id)
		},
	}
}

// EraseTenant implements rowhouse.quota.v1.QuotaService. It asks for a tenant that is deleted: what cannot be taken back
// must not follow from a name alone.
func (s *quotaService) EraseTenant(ctx context.Context, req *quotav1.EraseTenantRequest) (*quotav1.EraseTenantResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*quotav1.EraseTenantResponse, error) {
		t, _, _, err := s.administered(tx, req.GetName())
		if err != nil {
			return nil, err
		}
		id, _ := tenant.ParseID(t.ID)
		if state, _ := s.Trust.Find(id); state.State != tenant.StateDeleted {
			return nil, fault.New(fault.FailedPrecondition, fault.ReasonWrongState,
				"%s is %s; only a deleted tenant is erased", req.GetName(), state.State).WithMetadata("state", state.State.String())
		}
		if err := store.AsEvery(ctx, tx); err != nil {
			return nil, err
		}
		resp := &quotav1.EraseTenantResponse{Removed: make(map[string]int64)}
		for _, erase := range erasers() {
			removed, err := erase(ctx, tx, t.UID)
			if err != nil {
				return nil, err
			}
			for kind, n := range removed {
				resp.Removed[kind] += n
			}
		}
		return resp, tx.ForgetTenant(ctx, t.UID)
	})
}

// WatchQuotaEvents implements rowhouse.quota.v1.QuotaService.
func (s *quotaService) WatchQuotaEvents(
	req *quotav1.WatchQuotaEventsRequest, stream grpc.ServerStreamingServer[quotav1.WatchQuotaEventsResponse],
) error {
	if err := s.Kernel.Opened(stream.Context(), "feeds/"+durable.FeedEvents); err != nil {
		return err
	}
	return s.Feeds.Watch(stream.Context(), durable.FeedEvents, string(req.GetResumeToken()), func(f *apiv1.FeedFrame) error {
		return stream.Send(&quotav1.WatchQuotaEventsResponse{Frame: f})
	})
}
