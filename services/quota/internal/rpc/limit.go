// Package rpc serves rowhouse.quota.v1.
package rpc

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/jackc/pgx/v5/pgxpool"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/internal/feedserver"
	"github.com/rowhouse-platform/rowhouse/internal/mask"
	"github.com/rowhouse-platform/rowhouse/internal/page"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/limits"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/trust"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/alloc"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/meter"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/rules"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/store"
)

// Config is what the services need.
type Config struct {
	// Kernel runs the audited calls.
	Kernel *change.Kernel
	// Pool reaches the database for what is no audited call.
	Pool *pgxpool.Pool
	// Allocator lends tokens and keeps slots.
	Allocator *alloc.Allocator
	// Rules knows which limits hold.
	Rules *rules.Set
	// Trust knows the tenants by name.
	Trust *tenant.Trust
	// Catalog knows the weights of plans.
	Catalog *trust.Catalog
	// Verifier checks the contexts that asks carry.
	Verifier *tenant.Verifier
	// Feeds serves the feed of limits.
	Feeds *feedserver.Server
	Clock func() time.Time
	Log   *slog.Logger
}

// Register registers all services.
func Register(s *grpc.Server, c Config) {
	quotav1.RegisterLimitServiceServer(s, &settled{&limitService{Config: c}})
	quotav1.RegisterLeaseServiceServer(s, &leaseService{Config: c})
	quotav1.RegisterUsageServiceServer(s, &usageService{Config: c})
	quotav1.RegisterRateLimitConfigServiceServer(s, &rateLimitConfigService{Config: c})
	quotav1.RegisterQuotaServiceServer(s, newQuotaService(c))
	quotav1.RegisterReservationServiceServer(s, newReservationService(c))
	quotav1.RegisterEntitlementServiceServer(s, &entitlementService{Config: c})
	quotav1.RegisterEntitlementAdminServiceServer(s, newEntitlementAdminService(c))
	registerMeters(s, c)
	quotav1.RegisterReportServiceServer(s, &reportService{Config: c})
}

// limitService serves LimitService.
type limitService struct {
	quotav1.UnimplementedLimitServiceServer
	Config
}

// place finds out whose limits a name means, and whose chain the call belongs to.
func (s *limitService) place(tx *change.Tx, o meter.Owner) (store.Place, error) {
	p := store.Place{Owner: o, ID: o.Name}
	if o.Layer != meter.Tenant {
		return p, nil
	}
	id, err := tenant.ParseID(o.Name)
	if err != nil {
		return p, err
	}
	state, ok := s.Trust.Find(id)
	if !ok {
		return p, fault.New(fault.NotFound, fault.ReasonResourceNotFound, "%s does not exist", o)
	}
	p.ID = state.UID.String()
	tx.Tenant(p.ID)
	return p, nil
}

// named is place for the name of a limit.
func (s *limitService) named(tx *change.Tx, name string) (store.Place, string, error) {
	tx.Audit(name)
	o, id, err := meter.ParseName(name)
	if err != nil {
		return store.Place{}, "", badField("name", "is not the name of a limit")
	}
	p, err := s.place(tx, o)
	return p, id, err
}

// GetLimit implements rowhouse.quota.v1.LimitService.
func (s *limitService) GetLimit(ctx context.Context, req *quotav1.GetLimitRequest) (*quotav1.GetLimitResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*quotav1.GetLimitResponse, error) {
		p, id, err := s.named(tx, req.GetName())
		if err != nil {
			return nil, err
		}
		l, err := store.Read(ctx, tx, p, id)
		return &quotav1.GetLimitResponse{Limit: l}, err
	})
}

// ListLimits implements rowhouse.quota.v1.LimitService.
func (s *limitService) ListLimits(ctx context.Context, req *quotav1.ListLimitsRequest) (*quotav1.ListLimitsResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*quotav1.ListLimitsResponse, error) {
		tx.Audit(req.GetParent())
		o, err := meter.ParseOwner(req.GetParent())
		if err != nil {
			return nil, badField("parent", "is not the platform, a plan or a tenant")
		}
		place, err := s.place(tx, o)
		if err != nil {
			return nil, err
		}
		p, err := tx.Page(ctx, page.Query{Parent: place.ID, Filter: string(o.Layer), Size: req.GetPageSize(), Token: req.GetPageToken()})
		if err != nil {
			return nil, err
		}
		after := ""
		if len(p.After) == 1 {
			after = p.After[0]
		}
		found, err := store.List(ctx, tx, place, after, p.Limit())
		if err != nil {
			return nil, err
		}
		found, next, err := page.Cut(p, found, func(l *quotav1.Limit) []string {
			return []string{idOf(l)}
		})
		return &quotav1.ListLimitsResponse{Limits: found, NextPageToken: next}, err
	})
}

// UpdateLimit implements rowhouse.quota.v1.LimitService.
func (s *limitService) UpdateLimit(ctx context.Context, req *quotav1.UpdateLimitRequest) (*quotav1.UpdateLimitResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*quotav1.UpdateLimitResponse, error) {
		p, id, err := s.named(tx, req.GetLimit().GetName())
		if err != nil {
			return nil, err
		}
		l, err := s.lockOrNew(ctx, tx, p, id, req)
		if err != nil {
			return nil, err
		}
		if err := etag.Check(req.GetLimit().GetEtag(), l.GetEtag()); err != nil {
			return nil, err
		}
		paths, err := mask.Apply(l, req.GetLimit(), req.GetUpdateMask())
		if err != nil || (len(paths) == 0 && l.GetRevision() > 0) {
			return &quotav1.UpdateLimitResponse{Limit: l}, err
		}
		tx.Audit(req.GetLimit().GetName(), paths...)
		if err := complete(l, p.Owner.Layer, id); err != nil {
			return nil, err
		}
		if err := room(ctx, tx, l.GetResource(), id); err != nil {
			return nil, err
		}
		l.UpdateTime = timestamppb.New(tx.Now())
		write := store.Change
		if l.GetRevision() == 0 {
			write = store.Insert
		}
		if err := write(ctx, tx, p, id, l); err != nil {
			return nil, err
		}
		stamp(tx, p, id, l)
		return &quotav1.UpdateLimitResponse{Limit: l}, nil
	})
}

// lockOrNew returns the limit as it is, or a new one where the call allows it.
func (s *limitService) lockOrNew(
	ctx context.Context, tx *change.Tx, p store.Place, id string, req *quotav1.UpdateLimitRequest,
) (*quotav1.Limit, error) {
	l, err := store.Lock(ctx, tx, p, id)
	if fault.KindOf(err) != fault.NotFound || !req.GetAllowMissing() {
		return l, err
	}
	uid, err := tenant.NewUID(s.Clock(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return &quotav1.Limit{
		Name: req.GetLimit().GetName(), Uid: uid.String(), CreateTime: timestamppb.New(tx.Now()), Kind: kindOf(req.GetLimit()),
	}, nil
}

// stamp has the limit get the change's revision, and publishes it with that.
func stamp(tx *change.Tx, p store.Place, id string, l *quotav1.Limit) {
	l.Etag = etag.Of(l.GetUid(), l.GetRevision())
	tx.OnRevision(func(ctx context.Context, revision int64) error {
		l.Revision, l.Etag = revision, etag.Of(l.GetUid(), revision)
		if err := store.Stamp(ctx, tx, p, id, revision); err != nil {
			return err
		}
		return tx.Publish(limits.FeedName, feedKey(p, id), &quotav1.LimitEntry{Limit: l})
	})
}

// feedKey is a limit's key in the feed.
func feedKey(p store.Place, id string) string {
	if p.Owner.Layer == meter.Platform {
		return "platform/" + id
	}
	return fmt.Sprintf("%s/%s/%s", p.Owner.Layer, p.ID, id)
}

// DeleteLimit implements rowhouse.quota.v1.LimitService.
func (s *limitService) DeleteLimit(ctx context.Context, req *quotav1.DeleteLimitRequest) (*quotav1.DeleteLimitResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*quotav1.DeleteLimitResponse, error) {
		p, id, err := s.named(tx, req.GetName())
		if err != nil {
			return nil, err
		}
		l, err := store.Lock(ctx, tx, p, id)
		if fault.KindOf(err) == fault.NotFound && req.GetAllowMissing() {
			return &quotav1.DeleteLimitResponse{}, nil
		}
		if err != nil {
			return nil, err
		}
		if err := etag.Check(req.GetEtag(), l.GetEtag()); err != nil {
			return nil, err
		}
		if err := store.Delete(ctx, tx, p, id); err != nil {
			return nil, err
		}
		return &quotav1.DeleteLimitResponse{}, tx.Publish(limits.FeedName, feedKey(p, id), nil)
	})
}

func idOf(l *quotav1.Limit) string {
	_, id, _ := meter.ParseName(l.GetName())
	return id
}

// WatchLimits implements rowhouse.quota.v1.LimitService.
func (s *limitService) WatchLimits(req *quotav1.WatchLimitsRequest, stream grpc.ServerStreamingServer[quotav1.WatchLimitsResponse]) error {
	if err := s.Kernel.Opened(stream.Context(), "feeds/"+limits.FeedName); err != nil {
		return err
	}
	return s.Feeds.Watch(stream.Context(), limits.FeedName, string(req.GetResumeToken()), func(f *apiv1.FeedFrame) error {
		return stream.Send(&quotav1.WatchLimitsResponse{Frame: f})
	})
}

func badField(field, what string) error {
	return fault.New(fault.InvalidArgument, fault.ReasonInvalidField, "%s %s", field, what).
		WithField(fault.FieldViolation{Field: field, Description: what})
}
