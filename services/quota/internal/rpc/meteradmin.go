package rpc

import (
	"context"
	"crypto/rand"
	"regexp"
	"slices"
	"strings"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/internal/mask"
	"github.com/rowhouse-platform/rowhouse/internal/page"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/usage"
)

// meterAdminService serves MeterAdminService.
type meterAdminService struct {
	quotav1.UnimplementedMeterAdminServiceServer
	Config
}

const meterPrefix = "meters/"

func meterOf(m usage.Meter) *quotav1.Meter {
	return &quotav1.Meter{
		Name: meterPrefix + m.ID, Uid: m.UID.String(), DisplayName: m.DisplayName,
		Aggregation: quotav1.Aggregation(m.Aggregation), //nolint:gosec // a few
		Unit:        m.Unit, Dimensions: m.Dimensions, CreateTime: timestamppb.New(m.Created), UpdateTime: timestamppb.New(m.Updated),
		Revision: m.Revision, Etag: etag.Of(m.UID.String(), m.Revision),
	}
}

// GetMeter implements rowhouse.quota.v1.MeterAdminService.
func (s *meterAdminService) GetMeter(ctx context.Context, req *quotav1.GetMeterRequest) (*quotav1.GetMeterResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*quotav1.GetMeterResponse, error) {
		tx.Audit(req.GetName())
		m, err := usage.ReadMeter(ctx, tx, strings.TrimPrefix(req.GetName(), meterPrefix))
		return &quotav1.GetMeterResponse{Meter: meterOf(m)}, err
	})
}

// ListMeters implements rowhouse.quota.v1.MeterAdminService.
func (s *meterAdminService) ListMeters(ctx context.Context, req *quotav1.ListMetersRequest) (*quotav1.ListMetersResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*quotav1.ListMetersResponse, error) {
		p, err := tx.Page(ctx, page.Query{Size: req.GetPageSize(), Token: req.GetPageToken()})
		if err != nil {
			return nil, err
		}
		after := ""
		if len(p.After) == 1 {
			after = p.After[0]
		}
		found, err := usage.ListMeters(ctx, tx, after, p.Limit())
		if err != nil {
			return nil, err
		}
		meters := make([]*quotav1.Meter, 0, len(found))
		for _, m := range found {
			meters = append(meters, meterOf(m))
		}
		meters, next, err := page.Cut(p, meters, func(m *quotav1.Meter) []string {
			return []string{strings.TrimPrefix(m.GetName(), meterPrefix)}
		})
		for _, m := range meters {
			tx.Audit(m.GetName())
		}
		return &quotav1.ListMetersResponse{Meters: meters, NextPageToken: next}, err
	})
}

// CreateMeter implements rowhouse.quota.v1.MeterAdminService.
func (s *meterAdminService) CreateMeter(ctx context.Context, req *quotav1.CreateMeterRequest) (*quotav1.CreateMeterResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*quotav1.CreateMeterResponse, error) {
		in := req.GetMeter()
		tx.Audit(meterPrefix + req.GetMeterId())
		if in.GetAggregation() == quotav1.Aggregation_AGGREGATION_UNSPECIFIED {
			return nil, badField("meter.aggregation", "is required")
		}
		uid, err := tenant.NewUID(s.Clock(), rand.Reader)
		if err != nil {
			return nil, err
		}
		m := usage.Meter{
			ID: req.GetMeterId(), UID: uuid.UUID(uid), DisplayName: in.GetDisplayName(), Aggregation: usage.Aggregation(in.GetAggregation()),
			Unit: in.GetUnit(), Dimensions: in.GetDimensions(), Created: tx.Now(), Updated: tx.Now(),
		}
		if err := usage.InsertMeter(ctx, tx, m); err != nil {
			return nil, err
		}
		return &quotav1.CreateMeterResponse{Meter: stampMeter(tx, m)}, nil
	})
}

// stampMeter has the meter get the change's revision.
func stampMeter(tx *change.Tx, m usage.Meter) *quotav1.Meter {
	out := meterOf(m)
	tx.OnRevision(func(ctx context.Context, revision int64) error {
		out.Revision, out.Etag = revision, etag.Of(out.GetUid(), revision)
		return usage.StampMeter(ctx, tx, m.ID, revision)
	})
	return out
}

// UpdateMeter implements rowhouse.quota.v1.MeterAdminService.
func (s *meterAdminService) UpdateMeter(ctx context.Context, req *quotav1.UpdateMeterRequest) (*quotav1.UpdateMeterResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*quotav1.UpdateMeterResponse, error) {
		id, ok := strings.CutPrefix(req.GetMeter().GetName(), meterPrefix)
		if !ok || !regexp.MustCompile(`^[a-z](-?[a-z0-9])*$`).MatchString(id) {
			return nil, badField("meter.name", "is not the name of a meter")
		}
		tx.Audit(req.GetMeter().GetName())
		m, err := usage.LockMeter(ctx, tx, id)
		if err != nil {
			return nil, err
		}
		out := meterOf(m)
		if err := etag.Check(req.GetMeter().GetEtag(), out.GetEtag()); err != nil {
			return nil, err
		}
		paths, err := mask.Apply(out, req.GetMeter(), req.GetUpdateMask())
		if err != nil || len(paths) == 0 {
			return &quotav1.UpdateMeterResponse{Meter: out}, err
		}
		tx.Audit(out.GetName(), paths...)
		for _, name := range m.Dimensions {
			if !slices.Contains(out.GetDimensions(), name) {
				return nil, badField("meter.dimensions", "lacks "+name+", which was declared; events may have it")
			}
		}
		m.DisplayName, m.Dimensions, m.Updated = out.GetDisplayName(), out.GetDimensions(), tx.Now()
		if err := usage.ChangeMeter(ctx, tx, m); err != nil {
			return nil, err
		}
		return &quotav1.UpdateMeterResponse{Meter: stampMeter(tx, m)}, nil
	})
}

// DeleteMeter implements rowhouse.quota.v1.MeterAdminService.
func (s *meterAdminService) DeleteMeter(ctx context.Context, req *quotav1.DeleteMeterRequest) (*quotav1.DeleteMeterResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*quotav1.DeleteMeterResponse, error) {
		tx.Audit(req.GetName())
		m, err := usage.LockMeter(ctx, tx, strings.TrimPrefix(req.GetName(), meterPrefix))
		if err != nil {
			return nil, err
		}
		if err := etag.Check(req.GetEtag(), meterOf(m).GetEtag()); err != nil {
			return nil, err
		}
		return &quotav1.DeleteMeterResponse{}, usage.DeleteMeter(ctx, tx, m, req.GetForce())
	})
}

// tenantOf finds the tenant of a name, and has the call's record in its chain. Deleted ones are found too.
func (c Config) tenantOf(tx *change.Tx, name string) (tenant.UID, error) {
	tx.Audit(name)
	id, err := tenant.ParseID(strings.TrimPrefix(name, "tenants/"))
	if err != nil {
		return tenant.UID{}, badField("parent", "is not a tenant's name")
	}
	t, ok := c.Trust.Find(id)
	if !ok {
		return tenant.UID{}, fault.New(fault.NotFound, fault.ReasonResourceNotFound, "%s does not exist", name)
	}
	tx.Tenant(t.UID.String())
	return t.UID, nil
}

// QueryTenantUsage implements rowhouse.quota.v1.MeterAdminService.
func (s *meterAdminService) QueryTenantUsage(
	ctx context.Context, req *quotav1.QueryTenantUsageRequest,
) (*quotav1.QueryTenantUsageResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*quotav1.QueryTenantUsageResponse, error) {
		uid, err := s.tenantOf(tx, req.GetParent())
		if err != nil {
			return nil, err
		}
		rows, next, err := queryPage(ctx, tx, uid, pageQuery{req.GetQuery(), req.GetPageSize(), req.GetPageToken()})
		return &quotav1.QueryTenantUsageResponse{Rows: rows, NextPageToken: next}, err
	})
}

// ExportTenantUsage implements rowhouse.quota.v1.MeterAdminService.
func (s *meterAdminService) ExportTenantUsage(
	req *quotav1.ExportTenantUsageRequest, stream grpc.ServerStreamingServer[quotav1.ExportTenantUsageResponse],
) error {
	var uid tenant.UID
	_, err := change.View(stream.Context(), s.Kernel, func(_ context.Context, tx *change.Tx) (_ *quotav1.ExportTenantUsageRequest, err error) {
		uid, err = s.tenantOf(tx, req.GetParent())
		return req, err
	})
	if err != nil {
		return err
	}
	e := export{pool: s.Pool, uid: uid, query: req.GetQuery(), format: req.GetFormat(), send: func(chunk []byte) error {
		return stream.Send(&quotav1.ExportTenantUsageResponse{Chunk: chunk})
	}}
	return e.run(stream.Context())
}
