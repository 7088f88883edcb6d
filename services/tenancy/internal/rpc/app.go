package rpc

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"google.golang.org/protobuf/types/known/timestamppb"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/internal/mask"
	"github.com/rowhouse-platform/rowhouse/internal/page"
	"github.com/rowhouse-platform/rowhouse/sdk/authority"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/wire"
)

// apps serves AppService.
type apps struct {
	tenancyv1.UnimplementedAppServiceServer
	Config
}

// GetApp implements rowhouse.tenancy.v1.AppService.
func (s *apps) GetApp(ctx context.Context, req *tenancyv1.GetAppRequest) (*tenancyv1.GetAppResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.GetAppResponse, error) {
		tx.Audit(req.GetName())
		a, err := store.ReadApp(ctx, tx, idOf(req.GetName()))
		return &tenancyv1.GetAppResponse{App: a}, err
	})
}

// ListApps implements rowhouse.tenancy.v1.AppService.
func (s *apps) ListApps(ctx context.Context, req *tenancyv1.ListAppsRequest) (*tenancyv1.ListAppsResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.ListAppsResponse, error) {
		p, err := tx.Page(ctx, page.Query{Size: req.GetPageSize(), Token: req.GetPageToken()})
		if err != nil {
			return nil, err
		}
		found, err := store.ListApps(ctx, tx, first(p.After), p.Limit())
		if err != nil {
			return nil, err
		}
		found, next, err := page.Cut(p, found, func(m *tenancyv1.App) []string { return []string{idOf(m.GetName())} })
		for _, m := range found {
			tx.Audit(m.GetName())
		}
		return &tenancyv1.ListAppsResponse{Apps: found, NextPageToken: next}, err
	})
}

// CreateApp implements rowhouse.tenancy.v1.AppService.
func (s *apps) CreateApp(ctx context.Context, req *tenancyv1.CreateAppRequest) (*tenancyv1.CreateAppResponse, error) {
	resp, err := change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.CreateAppResponse, error) {
		m := new(tenancyv1.App)
		if req.GetApp() != nil {
			if _, err := mask.Apply(m, req.GetApp(), nil); err != nil {
				return nil, err
			}
		}
		uid, err := s.newUID()
		if err != nil {
			return nil, err
		}
		m.Name, m.Uid = "apps/"+req.GetAppId(), uid.String()
		m.CreateTime, m.UpdateTime = timestamppb.New(tx.Now()), timestamppb.New(tx.Now())
		tx.Audit(m.GetName())
		if err := s.check(ctx, tx, m); err != nil {
			return nil, err
		}
		if err := store.InsertApp(ctx, tx, req.GetAppId(), m); err != nil {
			return nil, err
		}
		return &tenancyv1.CreateAppResponse{App: m}, s.spread(ctx, tx, m)
	})
	if err == nil && !req.GetValidateOnly() {
		s.afterChange(ctx, req.GetAppId())
	}
	return resp, err
}

// spread publishes the app and gives tenants their place in it.
func (s *apps) spread(ctx context.Context, tx *change.Tx, m *tenancyv1.App) error {
	if err := store.OweApp(ctx, tx, idOf(m.GetName())); err != nil {
		return err
	}
	if err := wire.PublishApp(tx, m); err != nil {
		return err
	}
	m.Etag = etag.Of(m.GetUid(), m.GetRevision())
	tx.OnRevision(func(ctx context.Context, revision int64) error {
		m.Revision, m.Etag = revision, etag.Of(m.GetUid(), revision)
		return store.StampApp(ctx, tx, idOf(m.GetName()), revision)
	})
	return nil
}

// afterChange tells the app's databases what they lack, for a moment itself; the workers go on. Keys come first: without
// them no seal is accepted there.
func (s *apps) afterChange(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, inlineTime)
	defer cancel()
	s.Worker.InstallApp(ctx, id)
	s.Worker.KickKeys()
	s.Worker.Kick()
}

// check judges what an app's fields say about hosts and addresses, and canonicalises hosts.
func (s *apps) check(ctx context.Context, tx *change.Tx, m *tenancyv1.App) error {
	for i, name := range m.GetSharedHosts() {
		field := fmt.Sprintf("app.shared_hosts[%d]", i)
		host, err := authority.ParseName(name)
		if err != nil {
			return badField(field, "is no host name")
		}
		m.SharedHosts[i] = host.String()
		served, err := store.IsServed(ctx, tx, host.String())
		if err != nil {
			return err
		}
		if served {
			return fault.New(fault.AlreadyExists, registry.ReasonDomainTaken, "the host serves a tenant already").
				WithDomain(registry.Domain).WithField(fault.FieldViolation{Field: field, Description: "serves a tenant"})
		}
	}
	for i, u := range m.GetUpstreams() {
		field := fmt.Sprintf("app.upstreams[%d]", i)
		if u.GetGrpcAddress() == "" && u.GetHttpAddress() == "" {
			return badField(field, "has neither grpc_address nor http_address")
		}
		for name, address := range map[string]string{"grpc_address": u.GetGrpcAddress(), "http_address": u.GetHttpAddress()} {
			if address != "" && !validAddress(address) {
				return badField(field+"."+name, "is not host:port")
			}
		}
		if _, err := identity.Parse(u.GetSpiffeId()); err != nil {
			return badField(field+".spiffe_id", "is no identity of ours")
		}
	}
	return nil
}

func validAddress(address string) bool {
	host, port, err := net.SplitHostPort(address)
	n, numErr := strconv.ParseUint(port, 10, 16)
	if err != nil || numErr != nil || n == 0 || host == "" {
		return false
	}
	if net.ParseIP(host) != nil {
		return true
	}
	_, err = authority.ParseName(host)
	return err == nil
}

// UpdateApp implements rowhouse.tenancy.v1.AppService.
func (s *apps) UpdateApp(ctx context.Context, req *tenancyv1.UpdateAppRequest) (*tenancyv1.UpdateAppResponse, error) {
	id, err := labelName("app.name", "apps/", req.GetApp().GetName())
	if err != nil {
		return nil, err
	}
	resp, err := change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.UpdateAppResponse, error) {
		m, err := store.LockApp(ctx, tx, id)
		if err != nil {
			return nil, err
		}
		tx.Audit(m.GetName())
		if err := etag.Check(req.GetApp().GetEtag(), m.GetEtag()); err != nil {
			return nil, err
		}
		paths, err := mask.Apply(m, req.GetApp(), req.GetUpdateMask())
		if err != nil || len(paths) == 0 {
			return &tenancyv1.UpdateAppResponse{App: m}, err
		}
		tx.Audit(m.GetName(), paths...)
		m.UpdateTime = timestamppb.New(tx.Now())
		if err := s.check(ctx, tx, m); err != nil {
			return nil, err
		}
		if err := store.UpdateApp(ctx, tx, id, m); err != nil {
			return nil, err
		}
		return &tenancyv1.UpdateAppResponse{App: m}, s.spread(ctx, tx, m)
	})
	if err == nil && !req.GetValidateOnly() {
		s.afterChange(ctx, id)
	}
	return resp, err
}

// DeleteApp implements rowhouse.tenancy.v1.AppService.
func (s *apps) DeleteApp(ctx context.Context, req *tenancyv1.DeleteAppRequest) (*tenancyv1.DeleteAppResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.DeleteAppResponse, error) {
		tx.Audit(req.GetName())
		id := idOf(req.GetName())
		m, err := store.LockApp(ctx, tx, id)
		if fault.KindOf(err) == fault.NotFound && req.GetAllowMissing() {
			return &tenancyv1.DeleteAppResponse{}, nil
		}
		if err != nil {
			return nil, err
		}
		if err := etag.Check(req.GetEtag(), m.GetEtag()); err != nil {
			return nil, err
		}
		if err := store.DeleteApp(ctx, tx, id); err != nil {
			return nil, err
		}
		return &tenancyv1.DeleteAppResponse{}, wire.RemoveApp(tx, id)
	})
}
