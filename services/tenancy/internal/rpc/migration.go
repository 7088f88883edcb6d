package rpc

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/internal/page"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
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
	// Outside the unit of work: the app's lock would keep others waiting for as long as its migrations run.
	tried := s.try(ctx, idOf(req.GetParent()), wanted)
	resp, err := change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.RegisterMigrationsResponse, error) {
		return s.register(ctx, tx, req.GetParent(), wanted, tried)
	})
	if err == nil && !req.GetValidateOnly() {
		s.Worker.Kick()
	}
	return resp, err
}

// trial is what came of trying migrations.
type trial struct {
	// known is what was registered then.
	known []registry.Migration
	// untried is why the new ones may be registered without a trial, where they may.
	untried string
	err     error
}

// try runs what an app would have registered, where there is something new and a cell to try it in. A registered migration
// that fails already keeps new tenants waiting, but not others from registering more, untried: homes that have it want them. One
// that takes too long says nothing of the others, so they are not registered.
func (s *migrations) try(ctx context.Context, app string, wanted []registry.Migration) trial {
	known, err := store.MigrationsOf(ctx, s.Pool, app, "")
	if err != nil {
		return trial{err: err}
	}
	t := trial{known: known}
	fresh, err := registry.Register(known, wanted)
	if err != nil || len(fresh) == 0 {
		return t // the unit of work says the same, on record
	}
	cells, err := store.TrialCells(ctx, s.Pool, app)
	if err != nil {
		return trial{known: known, err: err}
	}
	t.untried = "no cell of the app takes tenants with a schema and has its database"
	for _, ref := range cells {
		err := s.Trials.Try(ctx, ref, app, slices.Concat(known, fresh))
		switch at := failsAt(err); {
		case err == nil:
			return trial{known: known}
		case at != "" && at <= newest(known):
			return trial{known: known, untried: "a registered one fails before them: " + at}
		case at != "", fault.ReasonOf(err) == registry.ReasonMigrationsUntried:
			return trial{known: known, err: err}
		case errors.Is(err, worker.ErrNoDatabase):
		case fault.ReasonOf(err) == registry.ReasonCellUnreachable: // others were in the way
			t.err = err
		default:
			t.err = fault.New(fault.Unavailable, registry.ReasonCellUnreachable,
				"the migrations of apps/%s could be tried in no cell; the log has the cause", app).WithDomain(registry.Domain).WithCause(err)
		}
	}
	return t
}

// same reports whether two lists hold the same migrations.
func same(a, b []registry.Migration) bool {
	return slices.EqualFunc(a, b, func(a, b registry.Migration) bool { return a.Version == b.Version && a.Sum == b.Sum })
}

// failsAt returns the version of the migration that an error is about, or "".
func failsAt(err error) string {
	if failed, ok := fault.As(err); ok && failed.Reason == registry.ReasonMigrationFailed {
		return failed.Metadata["migration"]
	}
	return ""
}

// newest returns the version of the last one, or "".
func newest(known []registry.Migration) string {
	if len(known) == 0 {
		return ""
	}
	return known[len(known)-1].Version
}

// register stores what is new and owes it to the homes of the app's tenants.
func (s *migrations) register(
	ctx context.Context, tx *change.Tx, parent string, wanted []registry.Migration, tried trial,
) (*tenancyv1.RegisterMigrationsResponse, error) {
	tx.Audit(parent)
	app := idOf(parent)
	if _, err := store.LockApp(ctx, tx, app); err != nil {
		return nil, err
	}
	known, err := store.KnownMigrations(ctx, tx, app)
	if err != nil {
		return nil, err
	}
	fresh, err := registry.Register(known, wanted)
	if err != nil {
		return nil, err
	}
	for _, m := range fresh {
		tx.Audit(parent + "/migrations/" + m.Version)
	}
	switch {
	case len(fresh) == 0:
	case tried.err != nil:
		return nil, tried.err
	case !same(tried.known, known):
		return nil, fault.New(fault.Aborted, fault.ReasonConcurrentOp, "others registered or withdrew migrations of %s meanwhile; try again",
			parent)
	}
	if err := store.InsertMigrations(ctx, tx, app, fresh, tx.Now()); err != nil {
		return nil, err
	}
	if len(fresh) > 0 {
		if err := changed(ctx, tx, app); err != nil {
			return nil, err
		}
	}
	resp, err := registered(ctx, tx, app, wanted)
	if err == nil && len(fresh) > 0 {
		resp.Untried = tried.untried
	}
	return resp, err
}

// changed lets the homes of an app follow its migrations at once.
func changed(ctx context.Context, tx *change.Tx, app string) error {
	if err := store.OweHomes(ctx, tx, app); err != nil {
		return err
	}
	return store.WakeCreations(ctx, tx, app, worker.VerbCreate)
}

// DeleteMigration implements rowhouse.tenancy.v1.MigrationService.
func (s *migrations) DeleteMigration(
	ctx context.Context, req *tenancyv1.DeleteMigrationRequest,
) (*tenancyv1.DeleteMigrationResponse, error) {
	app, version, _ := strings.Cut(idOf(req.GetName()), "/migrations/") // the rule beside the field has checked the form
	resp, err := change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.DeleteMigrationResponse, error) {
		tx.Audit(req.GetName())
		_, err := store.LockApp(ctx, tx, app)
		if fault.KindOf(err) == fault.NotFound {
			err = store.NotFound(req.GetName())
		}
		var m *tenancyv1.Migration
		if err == nil {
			m, err = store.ReadMigration(ctx, tx, app, version)
		}
		if fault.KindOf(err) == fault.NotFound && req.GetAllowMissing() {
			return &tenancyv1.DeleteMigrationResponse{}, nil
		}
		if err != nil {
			return nil, err
		}
		if err := etag.Check(req.GetEtag(), m.GetEtag()); err != nil {
			return nil, err
		}
		return &tenancyv1.DeleteMigrationResponse{}, withdraw(ctx, tx, app, version)
	})
	if err == nil && !req.GetValidateOnly() {
		s.Worker.Kick()
	}
	return resp, err
}

// withdraw takes a migration back that ran nowhere, and lets homes that wait for it go on.
func withdraw(ctx context.Context, tx *change.Tx, app, version string) error {
	known, err := store.KnownMigrations(ctx, tx, app)
	if err != nil {
		return err
	}
	reached, err := store.Reached(ctx, tx, app)
	if err != nil {
		return err
	}
	if err := registry.Withdraw(version, newest(known), reached); err != nil {
		return err
	}
	if err := store.DeleteMigration(ctx, tx, app, version); err != nil {
		return err
	}
	return changed(ctx, tx, app)
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
