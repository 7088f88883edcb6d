package rpc

import (
	"context"
	"math"
	"slices"
	"strings"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/page"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/worker"
)

// migrations serves MigrationService.
type migrations struct {
	tenancyv1.UnimplementedMigrationServiceServer
	Config
}

// GetMigration implements rowhouse.tenancy.v1.MigrationService.
func (s *migrations) GetMigration(ctx context.Context, req *tenancyv1.GetMigrationRequest) (*tenancyv1.GetMigrationResponse, error) {
	app, version, _ := strings.Cut(idOf(req.GetName()), "/migrations/") // the rule beside the field has checked the form
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.GetMigrationResponse, error) {
		tx.Audit(req.GetName())
		m, err := store.ReadMigration(ctx, tx, app, version)
		return &tenancyv1.GetMigrationResponse{Migration: m}, err
	})
}

// ListMigrations implements rowhouse.tenancy.v1.MigrationService.
func (s *migrations) ListMigrations(ctx context.Context, req *tenancyv1.ListMigrationsRequest) (*tenancyv1.ListMigrationsResponse, error) {
	app := idOf(req.GetParent())
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.ListMigrationsResponse, error) {
		tx.Audit(req.GetParent())
		if _, err := store.ReadApp(ctx, tx, app); err != nil {
			return nil, err
		}
		p, err := tx.Page(ctx, page.Query{Parent: req.GetParent(), Size: req.GetPageSize(), Token: req.GetPageToken()})
		if err != nil {
			return nil, err
		}
		found, err := store.ListMigrations(ctx, tx, app, first(p.After), p.Limit())
		if err != nil {
			return nil, err
		}
		found, next, err := page.Cut(p, found, func(m *tenancyv1.Migration) []string {
			return []string{versionOf(m)}
		})
		return &tenancyv1.ListMigrationsResponse{Migrations: found, NextPageToken: next}, err
	})
}

// RegisterMigrations implements rowhouse.tenancy.v1.MigrationService.
func (s *migrations) RegisterMigrations(
	ctx context.Context, req *tenancyv1.RegisterMigrationsRequest,
) (*tenancyv1.RegisterMigrationsResponse, error) {
	wanted := make([]registry.Migration, len(req.GetMigrations()))
	for i, m := range req.GetMigrations() {
		wanted[i] = registry.NewMigration(m.GetMigrationId(), m.GetStatements())
	}
	resp, err := change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.RegisterMigrationsResponse, error) {
		return s.register(ctx, tx, req.GetParent(), wanted)
	})
	if err == nil && !req.GetValidateOnly() {
		s.Worker.Kick()
	}
	return resp, err
}

// register stores what is new and owes it to the homes of the app's tenants.
func (s *migrations) register(
	ctx context.Context, tx *change.Tx, parent string, wanted []registry.Migration,
) (*tenancyv1.RegisterMigrationsResponse, error) {
	tx.Audit(parent)
	app := idOf(parent)
	if _, err := store.LockApp(ctx, tx, app); err != nil {
		return nil, err
	}
	known, err := store.MigrationsOf(ctx, tx, app)
	if err != nil {
		return nil, err
	}
	fresh, err := registry.Register(known, wanted)
	if err != nil {
		return nil, err
	}
	if err := store.InsertMigrations(ctx, tx, app, fresh, tx.Now()); err != nil {
		return nil, err
	}
	if len(fresh) > 0 {
		if err := store.OweHomes(ctx, tx, app); err != nil {
			return nil, err
		}
		if err := store.WakeCreations(ctx, tx, app, worker.VerbCreate); err != nil {
			return nil, err
		}
	}
	for _, m := range fresh {
		tx.Audit(parent + "/migrations/" + m.Version)
	}
	return registered(ctx, tx, app, wanted)
}

// registered answers with those that were sent.
func registered(
	ctx context.Context, tx *change.Tx, app string, wanted []registry.Migration,
) (*tenancyv1.RegisterMigrationsResponse, error) {
	all, err := store.ListMigrations(ctx, tx, app, "", math.MaxInt32)
	if err != nil {
		return nil, err
	}
	sent := map[string]bool{}
	for _, m := range wanted {
		sent[m.Version] = true
	}
	all = slices.DeleteFunc(all, func(m *tenancyv1.Migration) bool { return !sent[versionOf(m)] })
	return &tenancyv1.RegisterMigrationsResponse{Migrations: all}, nil
}

func versionOf(m *tenancyv1.Migration) string {
	return m.GetName()[strings.LastIndexByte(m.GetName(), '/')+1:]
}
